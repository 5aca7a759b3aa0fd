"""Folders that grow chunk by chunk and survive a kill: what was done is kept beside the final name.

``.NAME.partial`` holds the pictures that are done, ``.done/`` in it a record of each chunk and of the
settings of the job. It becomes ``NAME`` when all is done.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.arguments.renamed import in_new_names
from seglens.errors import DataError, OutputExistsError, SettingError
from seglens.files.locks import beside
from seglens.files.output import alone, naming, put_in_place
from seglens.files.overwrite import check_output
from seglens.files.ownership import list_files
from seglens.folder.chunks import Failure
from seglens.judge.localisation import Attention
from seglens.results import record as records
from seglens.results.maps import PictureMaps
from seglens.results.names import count
from seglens.runtime.distributed import Share

DONE, SETTINGS = ".done", "settings.json"
COMMAND = "explain"
PICTURES = "pictures"
"""Where the settings of a job hold the name and the hashes of every picture."""

Measured = tuple[Attention, dict[str, Float[Tensor, "_"]]]
"""Of one map of a chunk: its statistics next to their nulls, and all its statistics, picture by picture."""


@dataclass(frozen=True)
class Done:
    """What a chunk left behind beside its files: rows of the table, numbers of each map, failures on the way.

    ``numbers`` are the places of the pictures in the split.
    """

    numbers: tuple[int, ...]
    rows: list[PictureMaps]
    measured: list[Measured]
    failed: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Partial:
    """The folder to write into, and the chunks that are there already, by their place."""

    folder: Path
    done: dict[int, Done] = field(default_factory=dict)

    def add(self, index: int, done: Done) -> None:
        """Keep a chunk, whole or not at all; its pictures must be written by now."""
        self.done[index] = done
        file = self.folder / DONE / f"{index:06d}.json"
        temporary = file.with_suffix(".partial")
        # Not write_json(): it would make null of NaN and infinity, which a table tells apart.
        temporary.write_text(json.dumps(_plain(done)), encoding="utf-8")
        temporary.replace(file)


RENAMED = {"chunk": "batch_size", "num_samples": "num_images"}
"""What settings were called in folders that were begun by versions before."""


@contextmanager
def partial_folder(
    path: Path, settings: Mapping[str, object], *, force: bool, resume: bool, share: Share
) -> Iterator[Partial]:
    """Yield a folder beside ``path`` that becomes ``path`` if the block ends well, and stays if it doesn't.

    It goes where not a single chunk was done. With ``resume`` the chunks of an earlier try are there again.
    All processes of a job must call it, and get the same folder.

    Raises:
        OutputExistsError: ``path`` holds something and ``force`` is not given, or an earlier try is there
            which is neither to be resumed nor replaced.
        SettingError: the earlier try had other settings.
        DataError: pictures have changed since the earlier try.
    """
    folder = beside(path, "partial")
    if not share.first:
        yield _opened(share.gather([])[0])
        share.wait()
        share.wait()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        check_output(path, COMMAND, force=force)
        _prepare(folder, json.loads(records.to_json(settings)), force=force, resume=resume)
        try:
            share.gather([folder])
            with naming(folder):
                yield _opened(folder)
            share.wait()
            _clean(folder)
            list_files(folder, COMMAND)
            put_in_place(folder, path, COMMAND, force=force)
        except BaseException:
            # Before the folder may be removed, nobody must write into it any more.
            if share.links is not None and share.links.launcher is not None:
                share.links.launcher.stop()
            if not _chunks(folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise
    share.wait()


def _prepare(folder: Path, settings: Mapping[str, Any], *, force: bool, resume: bool) -> None:
    num = len(_chunks(folder))
    if not num and folder.exists() and any(folder.iterdir()) and not (folder / DONE).is_dir():
        raise OutputExistsError(
            f"{folder} is where unfinished work is kept, but holds something else. Move that away."
        )
    if num and not (force or resume):
        raise OutputExistsError(
            f"{folder} holds {num} chunks of pictures of an interrupted job. Go on with --resume, or start "
            "again with --force."
        )
    if num and resume:
        _refuse_others(folder, settings)
        records.write_json(folder / DONE / SETTINGS, settings)
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / DONE).mkdir(parents=True)
    records.write_json(folder / DONE / SETTINGS, settings)


def _refuse_others(folder: Path, settings: Mapping[str, Any]) -> None:
    try:
        before = dict(json.loads((folder / DONE / SETTINGS).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SettingError(
            f"{folder} can't be resumed: {DONE}/{SETTINGS} in it is damaged ({error}), so that nobody knows "
            "what was asked for. Start again with --force and without --resume."
        ) from error
    before = in_new_names(before, RENAMED)
    was, now = (found.get(PICTURES) or [] for found in (before, settings))
    done = {number for part in _opened(folder).done.values() for number in part.numbers}
    if [name for name, _ in was] == [name for name, _ in now]:
        # A picture that could not be done may have been mended; those that were done must be the same.
        changed = [was[number][0] for number in sorted(done) if was[number] != now[number]]
        if changed:
            raise DataError(
                f"{folder} can't be resumed: {len(changed)} of {count(len(done), 'picture')} done before, or "
                f"their masks, have changed since ({', '.join(changed[:3])}{', ...' * (len(changed) > 3)}). "
                "Put them back, or start again with --force and without --resume."
            )
        before[PICTURES] = now
    other = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
    if other:
        changes = "; ".join(
            f"{key} was {_short(before.get(key))}, now {_short(settings.get(key))}" for key in other
        )
        raise SettingError(
            f"{folder} can't be resumed with other settings: {changes}. Give the same ones, or start again "
            "with --force and without --resume."
        )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:120]}..."


def _chunks(folder: Path) -> list[Path]:
    return sorted(file for file in (folder / DONE).glob("*.json") if file.name != SETTINGS)


def _opened(folder: Path) -> Partial:
    """Take up what was done; a chunk whose record or files are damaged is made again."""
    done = {}
    for file in _chunks(folder):
        try:
            found = _whole(json.loads(file.read_bytes()))
            whole = isinstance(found, Done) and all(
                (folder / name).stat().st_size for row in found.rows for name in row.files.values()
            )
            number = int(file.stem)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            whole = False
        if whole:
            done[number] = found
        else:
            warnings.warn(
                f"{file} is damaged, or files of its pictures are: they are made again.", stacklevel=2
            )
    return Partial(folder, done)


def _clean(folder: Path) -> None:
    """Remove the records of chunks, and files that were being written when a try was killed."""
    shutil.rmtree(folder / DONE)
    for file in list(folder.rglob(".*.partial*")):
        file.unlink()


def _plain(value: Any) -> Any:
    """Return records, tuples and tensors as plain data that `_whole` makes the same of again."""
    if isinstance(value, Tensor):
        kept = value.detach().cpu()
        return {"tensor": str(kept.dtype).removeprefix("torch."), "values": kept.tolist()}
    if isinstance(value, Done | Attention | Failure):
        plain = {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
        return {"record": type(value).__name__, "values": plain}
    if isinstance(value, PictureMaps):
        return {"record": "PictureMaps", "values": value.model_dump(exclude_unset=True)}
    if isinstance(value, tuple):
        return {"tuple": [_plain(part) for part in value]}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, dict) else value


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(part) for part in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"tensor": kind, "values": values} if len(value) == 2:
            return torch.tensor(values, dtype=getattr(torch, kind))
        case {"record": "PictureMaps", "values": values} if len(value) == 2:
            return PictureMaps.model_validate(values, strict=False)
        case {"record": kind, "values": values} if len(value) == 2:
            return RECORDS[kind](**_whole(values))
        case {"tuple": parts} if len(value) == 1:
            return tuple(_whole(part) for part in parts)
    return {key: _whole(part) for key, part in value.items()}


RECORDS: dict[str, type[Any]] = {"Done": Done, "Attention": Attention, "Failure": Failure}
"""The records that a chunk is kept as."""
