"""Downloads that end well or say why: what is missing is asked for again, a silent server not waited for.

Source: RFC 9110, sections 13.1.5 and 14 (``If-Range``, ``Range`` and ``Content-Range``). Whether what came is
what should have come, the caller judges by its hash.
"""

import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from seglens.errors import DataError
from seglens.results import record as records
from seglens.runtime.progress import count_bytes

CHUNK = 1 << 18
"""Bytes that are written at a time."""
BUSY = (408, 429, 500, 502, 503, 504)
"""HTTP statuses of a server that may answer at the next attempt."""


class _BrokenOff(Exception):
    """A download that may do better at the next attempt."""


PASSING = (requests.ConnectionError, requests.Timeout, HTTPError, _BrokenOff)
"""Failures that may be gone at the next attempt."""


@dataclass(frozen=True)
class Patience:
    """When to give up: seconds without a byte, attempts in a row without a new byte.

    ``pause_seconds`` is waited before the second attempt, twice that before the third, and so on.
    """

    stall_seconds: float = 60.0
    attempts: int = 4
    pause_seconds: float = 1.0


def download(url: str, file: Path, *, size: int | None, patience: Patience) -> None:
    """Download ``url`` to ``file``, in as many attempts as bring something new.

    ``size`` is how many bytes the file should have (None: what the server says). A ``file`` that is there is
    taken for the beginning, as long as the server has the same version of it as before.

    Raises:
        DataError: it can't be downloaded; the server has another file of that name; the disk is too small.
    """
    part = _Part(file)
    best, failures = part.size, 0
    while True:
        try:
            _request(url, part, size, patience.stall_seconds)
            break
        except (requests.RequestException, HTTPError, _BrokenOff) as error:
            failures = 0 if part.size > best else failures + 1
            best = max(best, part.size)
            if failures >= patience.attempts or not _may_pass(error):
                kept_bytes = f" {part.size:,} bytes are kept: the same command goes on from there."
                raise DataError(
                    f"{url} can't be downloaded: {_in_short(error, patience)}; attempts in a row without a "
                    f"new byte: {failures}.{kept_bytes if part.size else ''} Check the connection, or name a "
                    "mirror with --from."
                ) from error
        time.sleep(patience.pause_seconds * 2 ** max(0, failures - 1))


def forget(file: Path) -> None:
    """Remove what has come of ``file``, with the note beside it."""
    _Part(file).drop()


@dataclass(frozen=True)
class _Part:
    """What has come of a file, with a note of which version of it that is."""

    file: Path

    @property
    def note(self) -> Path:
        return self.file.with_name(f"{self.file.name}.json")

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def version(self) -> tuple[str, int | None]:
        """Return what names the version (a strong ETag, a date, or nothing), and its whole size if known."""
        try:
            note = json.loads(self.note.read_bytes())
            return str(note["version"]), note["size"] if isinstance(note["size"], int) else None
        except (OSError, ValueError, KeyError, TypeError):  # no note, or half of one: the hash will tell
            return "", None

    def begin(self, version: str, size: int | None) -> None:
        self.drop()
        records.write_json(self.note, {"version": version, "size": size})

    def drop(self) -> None:
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _request(url: str, part: _Part, size: int | None, stall_seconds: float) -> None:
    """Ask once for what is missing of ``url`` and append it to ``part``.

    Raises:
        DataError: the server does not have the file, or another one of that name; the disk is too small.
        _BrokenOff: the answer ended early, or is of use only when asked again.
    """
    version, whole = part.version()
    expected = size or whole
    if part.size and part.size == expected:
        return
    if expected is not None and part.size > expected:
        part.drop()
    # No compression on the way: what is counted, continued and hashed are the bytes of the file.
    headers = {"Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
    if part.size and version:
        headers["If-Range"] = version
    with requests.get(url, headers=headers, stream=True, timeout=stall_seconds) as answer:
        _refuse_status(url, answer, part)
        announced = _announced_size(answer, part)
        if size is not None and announced not in (None, size):
            part.drop()
            raise DataError(
                f"{url} announces {announced:,} bytes; as published the file has {size:,}. "
                "Name another address with --from."
            )
        expected = size or announced or (whole if answer.status_code == 206 else None)
        if answer.status_code == 200:
            part.begin(_version(answer), expected)
        need_space(part.file, 2 * (expected or 0) - part.size)  # pictures take as much again when unpacked
        _append(answer, part, url, expected)
    if expected is not None and part.size < expected:
        raise _BrokenOff(f"the answer ended after {part.size:,} of {expected:,} bytes")


def _append(answer: requests.Response, part: _Part, url: str, expected: int | None) -> None:
    name, have = url.rpartition("/")[2], part.size
    with part.file.open("ab") as stream, count_bytes(name, total=expected, done=have) as advance:
        while (expected is None or have <= expected) and (
            block := answer.raw.read1(CHUNK, decode_content=False)
        ):
            stream.write(block)
            advance(len(block))
            have += len(block)
    if expected is not None and have > expected:
        part.drop()
        raise DataError(f"{url} sends more than the {expected:,} bytes of {name}. Name another address.")


def _refuse_status(url: str, answer: requests.Response, part: _Part) -> None:
    status = f"HTTP status {answer.status_code} {answer.reason}".rstrip()
    if answer.status_code == 416:  # nothing follows what is there, so that can't be the beginning of it
        part.drop()
        raise _BrokenOff(status)
    if answer.status_code in BUSY:
        raise _BrokenOff(status)
    if answer.status_code != 200 and not (answer.status_code == 206 and part.size):
        raise DataError(f"{url} can't be downloaded: {status}. Name another address with --from.")


def _announced_size(answer: requests.Response, part: _Part) -> int | None:
    """Return the size of the whole file as the answer tells it; None where it doesn't.

    Raises:
        _BrokenOff: the answer is a piece that doesn't go on from what is there.
    """
    if answer.status_code == 200:
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    version, whole = part.version()
    content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    total = int(content_range[2]) if content_range is not None and content_range[2] != "*" else None
    follows = content_range is not None and int(content_range[1]) == part.size
    same = None in (total, whole) or total == whole
    if not follows or not same or (version and _version(answer) not in ("", version)):
        part.drop()
        raise _BrokenOff("another piece was sent than asked for, or the file has changed at the server")
    return total


def _version(answer: requests.Response) -> str:
    """Return what tells this version of the file from others: a strong ETag, else the date, else nothing."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may do better; a certificate that is wrong stays so."""
    return isinstance(error, PASSING) and not isinstance(error, requests.exceptions.SSLError)


def _in_short(error: Exception, patience: Patience) -> str:
    if isinstance(error, requests.Timeout | ReadTimeoutError):
        return f"no byte came for {patience.stall_seconds:g} s"
    if isinstance(error, _BrokenOff):
        return str(error)
    if isinstance(error, HTTPError):
        return f"the answer ended early ({type(error).__name__})"
    inner = getattr(error.args[0], "reason", None) if error.args else None
    return type(inner or error).__name__


def need_space(path: Path, num_bytes: int) -> None:
    """Raise where the disk of ``path``, which need not exist yet, has less than ``num_bytes`` free."""
    home = next(parent for parent in path.parents if parent.is_dir())
    free = shutil.disk_usage(home).free
    if free < num_bytes:
        raise DataError(
            f"Not enough room in {home}: {num_bytes / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB free. "
            "Free some, or name a folder on another disk."
        )
