"""A run to a repository of Hugging Face's hub: weights, record and a model card, and nothing else.

::

    seglens push runs/first anna/pets
    seglens adopt hf://anna/pets --run runs/theirs

No picture, map or name of a picture is sent, and no path: the record goes without its command, its data and
whatever else names a place on this machine.
"""

import os
import shutil
import tempfile
from pathlib import Path, PurePath
from typing import Any

from seglens.arguments import checked
from seglens.files.hub_address import repository_of
from seglens.files.ownership import write_text
from seglens.report.contents import read_run
from seglens.report.model_card import model_card
from seglens.results import record as records
from seglens.results.record import Record
from seglens.runs import hub
from seglens.runs.weights_file import WEIGHTS, check_unchanged, weights_file

CARD = "README.md"


@checked
def push(folder: str | Path, repository: str, *, private: bool = True) -> str:
    """Put a run folder into the repository ``OWNER/NAME`` of the hub, and return its address.

    Scores, maps and audits of the card are what ``evaluate``, ``explain`` and ``judge`` left in the folder. A
    repository that isn't there is made, for its owner alone unless ``private`` is False.

    Raises:
        DataError: ``folder`` is no run folder, or the hub can't be reached or refuses.
        CheckpointError: its weights are not those of its record.
        SettingError: ``repository`` is no name of one.
    """
    folder = Path(folder)
    name, _ = repository_of(repository)
    record, _, _ = records.read_run_record(folder)
    weights = weights_file(folder, record, None)
    check_unchanged(weights, record, None)
    with tempfile.TemporaryDirectory() as made:
        sent = Path(made)
        shutil.copyfile(weights, sent / WEIGHTS)
        without_places(record).write(sent)
        write_text(sent / CARD, model_card(read_run(folder, folder.resolve().name), name))
        return hub.send(sent, name, private=private)


def without_places(record: Record) -> Record:
    """Return a record without its command, its data, and the folders of all that it names."""
    kept = {key: value for key, value in record.settings.items() if key != "data"}
    return record.with_facts(
        command=[],
        data=None,
        files=[],
        settings=_without_folders(kept),
        results=_without_folders(record.results),
    )


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    text = os.fspath(value) if isinstance(value, PurePath) else value
    placed = isinstance(text, str) and (PurePath(text).is_absolute() or text.startswith(("~", "..", ".")))
    return PurePath(text).name if placed else text
