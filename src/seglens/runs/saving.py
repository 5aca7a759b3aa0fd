"""Writing the files of a run folder."""

from pathlib import Path

from seglens.data.sample import Task
from seglens.files.output import new_file
from seglens.models.segmenter import Segmenter
from seglens.models.weights import save_weights
from seglens.results import record as records
from seglens.results.record import Record
from seglens.runs.weights_file import WEIGHTS


def save_run(folder: Path, segmenter: Segmenter, task: Task, record: Record) -> Record:
    """Write weights and ``record`` into ``folder``; return the record with model, task and hash filled in."""
    file = folder / WEIGHTS
    with new_file(file, force=True) as temporary:
        save_weights(segmenter.module, temporary)
    record = record.with_facts(
        model=segmenter.spec.model_dump(mode="json"),
        task=task.model_dump(mode="json"),
        model_sha256=records.sha256([file]),
        results={"first_weights": segmenter.origin, **record.results},
    )
    record.write(folder)
    return record
