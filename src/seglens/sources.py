"""Which pictures a verb works on: those that the run was trained with, or others read in the same way."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seglens import record as records
from seglens.data.layout import Dataset, DataSettings, Split
from seglens.data.opening import open_data
from seglens.errors import DataError, SettingError
from seglens.runs import Run


def open_split(run: Run, name: str = "test", *, data: Path | None = None, layout: str | None = None) -> Split:
    """Return the split ``name`` of the run's own data, or of the folder ``data``.

    Other data are read as the run's own were: the same classes, border and channels, whatever the layout.

    Raises:
        DataError: the data are not there, or can't be opened.
        SettingError: the run knows no data, and none are named.
        UnknownNameError: there is no such split or layout.
    """
    stored = _stored(run)
    if data is not None:
        return _open_other(run, stored, data, layout).split(name)
    if stored is None:
        raise SettingError(
            f"The run {run.folder or 'of a wrapped module'} was not trained here and knows no data. "
            "Name some with --data."
        )
    if not stored.path.is_dir():
        raise DataError(
            f"The data of {run.folder} were in {stored.path}, which is not there. Name them with --data."
        )
    return open_data(stored.model_copy(update={"layout": layout or stored.layout})).split(name)


def _stored(run: Run) -> DataSettings | None:
    """Return the data settings in the run's folder, if it has any."""
    record = records.read(run.folder) if run.folder is not None else None
    if record is None or record.data is None:
        return None
    try:
        return DataSettings.model_validate(record.data)
    except ValidationError as error:
        raise DataError(
            f"{run.folder}/{records.FILE_NAME} describes no data; name some with --data."
        ) from error


def _open_other(run: Run, stored: DataSettings | None, path: Path, layout: str | None) -> Dataset:
    """Open other data as the run's own, or so that their classes are those of a model trained elsewhere."""
    place = {"path": path, "layout": layout, "train_dir": None, "valid_dir": None, "test_dir": None}
    if stored is not None:
        return open_data(stored.model_copy(update=place))
    settings = DataSettings(path=path, layout=layout, channels=run.spec.channels)
    found, classes = open_data(settings), run.task.classes
    if len(classes) == len(found.task.classes):
        return found
    match found.layout:
        case "coco":
            like_ours: dict[str, Any] = {"classes": classes[1:], "merge": False}
        case "oxford-pet":
            like_ours = {"border": "class"}
        case _:
            like_ours = {"classes": classes}
    return open_data(settings.model_copy(update=like_ours))
