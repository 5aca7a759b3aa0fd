"""Masks and overlays of whole folders, picture by picture at native size."""

import time
from collections.abc import Sequence
from pathlib import Path

from seglens.batch import ledger
from seglens.batch.chunks import Chunk, Failure, Summary, read_chunks, refuse_none_done, split_of
from seglens.batch.ledger import Row
from seglens.data.layout import Split
from seglens.evaluate import native_mask
from seglens.outputs import new_folder, unused_name
from seglens.predict import Prediction
from seglens.runs import Run
from seglens.shapes import Mask


def predict_files(
    run: Run, pictures: Split | Sequence[Path | str], *, out: Path, chunk: int = 8, force: bool = False
) -> Summary:
    """Predict pictures of any size: ``masks/`` (class indices), ``overlays/``, ``table.csv``, ``run.json``.

    A mask is a grey PNG of the picture's own size whose values are class indices.

    Raises:
        SettingError, DataError, OutputExistsError: as `seglens.batch.explain_folder`.
    """
    began = time.monotonic()
    split = split_of(run, pictures)
    failed: list[Failure] = []
    rows: list[Row] = []
    taken: set[str] = set()
    with new_folder(Path(out), force=force) as folder:
        for name in ("masks", "overlays"):
            (folder / name).mkdir()
        for part in read_chunks(run, split, most=chunk, failed=failed, what="predicting"):
            masks = native_masks(run, part, run.predict(part.batch.images))
            for sample, mask in zip(part.natives, masks, strict=True):
                name = unused_name(sample.name, taken)
                rows.append(ledger.write_prediction(run, sample, mask, folder, name))
        refuse_none_done(len(rows), failed)
        every = rows + [ledger.failed_row(failure) for failure in failed]
        ledger.write_table(every, folder / "table.csv")
        settings = {"files": [str(entry.image) for entry in split.entries], "chunk": chunk}
        ledger.write_record(
            "predict",
            run,
            split,
            folder,
            began,
            seed=None,
            settings=settings,
            num_done=len(rows),
            failed=failed,
        )
    return Summary(Path(out), len(rows), tuple(failed))


def native_masks(run: Run, part: Chunk, prediction: Prediction) -> list[Mask]:
    """Return the masks of a chunk at native size."""
    return [
        native_mask(probabilities, frame, run.spec)
        for probabilities, frame in zip(prediction.probabilities, part.frames, strict=True)
    ]
