"""Locks: one process at a time writes an output. The system releases a lock when its process has ended.

``.NAME.lock`` holds who works there. Where the file system knows no locks, that file's being there is the
lock, and it is stale where the process that it names no longer runs on this machine.
"""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seglens.errors import OutputBusyError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


def beside(path: Path, ending: str) -> Path:
    """Return the hidden name ``.NAME.ending`` beside ``path``; a name too long for that is cut."""
    room = 255 - len(os.fsencode(ending)) - 2
    name = os.fsencode(path.name)
    name = name if len(name) <= room else name[:room].decode("utf-8", "ignore").encode()
    return path.parent / f".{os.fsdecode(name)}.{ending}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path`` for this process alone; the folder that it is in must be there.

    Raises:
        OutputBusyError: another process holds it.
    """
    file = beside(path, "lock")
    handle = _acquire(file, path)
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(handle)


def _acquire(file: Path, path: Path) -> int:
    """Return the open lock file, which is ours."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            ours = _try_lock(handle, file)
            # Its holder may have removed the file after we opened it: then it is no lock any more.
            if ours and _same(handle, file):
                os.ftruncate(handle, 0)
                holder = {"process": os.getpid(), "host": socket.gethostname()}
                os.pwrite(handle, json.dumps(holder).encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        who = _holder(handle)
        os.close(handle)
        if not ours:
            raise OutputBusyError(
                f"{path} is being written by another command ({who}). Wait until it has ended, or name "
                "another place."
            )


def _try_lock(handle: int, file: Path) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    return not _alive(handle)


def _alive(handle: int) -> bool:
    """Whether the process that the lock names may still run; that of another machine can't be asked."""
    holder = _read(handle)
    number, host = holder.get("process"), holder.get("host")
    if not isinstance(number, int) or number == os.getpid():
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _same(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except OSError:
        return False


def _holder(handle: int) -> str:
    holder = _read(handle)
    return f"process {holder.get('process', 'unknown')} on {holder.get('host', 'this machine')}"


def _read(handle: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
