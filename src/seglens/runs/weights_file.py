"""The weights in a run folder: which file holds them, and whether they are those of its record."""

import os
from pathlib import Path

from seglens.errors import CheckpointError
from seglens.models.checkpoint import check_weights_file
from seglens.results import record as records
from seglens.results.record import Record

WEIGHTS = "model.safetensors"
KEPT_SHA256 = "kept_sha256"
"""The key in a record of the hashes of the weights that ``--keep-every`` kept, by epoch."""


def check_unchanged(file: Path, record: Record, epoch: int | None) -> str:
    """Return the hash of the weights in ``file``, which must be that of the record, where that knows it.

    Raises:
        CheckpointError: they are others.
    """
    check_weights_file(file)
    found = records.sha256([file])
    known = record.model_sha256 if epoch is None else record.results.get(KEPT_SHA256, {}).get(str(epoch))
    if known is not None and known != found:
        raise CheckpointError(
            f"{file} holds other weights than {records.FILE_NAME} was written for: recorded is sha256 "
            f"{known[:12]}..., the file has {found[:12]}.... Put the recorded weights back, or make another "
            f"run of these: seglens adopt {file} --run OTHER."
        )
    return found


def weights_file(folder: Path, record: Record, epoch: int | None) -> Path:
    """Return the file of the final weights in a run folder, or of those that were kept of ``epoch``.

    Raises:
        CheckpointError: there is none.
    """
    if epoch is not None:
        file = folder / "checkpoints" / f"epoch-{epoch:03d}.safetensors"
        if not os.path.lexists(file):
            kept = sorted(int(found.stem[6:]) for found in file.parent.glob("epoch-*.safetensors"))
            raise CheckpointError(
                f"{folder} kept no weights of epoch {epoch}. Kept: {', '.join(map(str, kept)) or 'none'}. "
                "Train with --keep-every to keep some, or leave the epoch out."
            )
        return file
    file = folder / WEIGHTS
    if not os.path.lexists(file):
        todo = (
            f"Training has not ended: go on with 'seglens train ... --run {folder} --resume'."
            if record.state == "running"
            else "Train or adopt the model again."
        )
        raise CheckpointError(f"The run folder {folder} holds no checkpoint ({WEIGHTS}). {todo}")
    return file
