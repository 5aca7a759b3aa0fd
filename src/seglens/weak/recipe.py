"""The settings of a weakly supervised run: labels, classifier, stages, student, number of rounds."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from seglens.arguments.validated import Validated
from seglens.data.listing import Listing, refuse_changed, refuse_other_names
from seglens.errors import DataError, SettingError
from seglens.results.record import Record
from seglens.train.recipe import MAY_DIFFER as TRAINING_MAY_DIFFER
from seglens.train.recipe import TrainSettings
from seglens.weak.classifier import ClassifierSettings
from seglens.weak.data import WeakData
from seglens.weak.self_training import TeacherSettings
from seglens.weak.settings import PseudoSettings

MAY_DIFFER = ("rounds", "samples", "evaluate", "oracle", "supervised")
"""Settings that a resumed run may change: they add to what comes out and change nothing of what is there."""

STUDENT = TrainSettings(model="deeplabv3", epochs=10, augment=True)
"""The student where none is named; without an encoder's weights it learns little from few pictures."""


class WeakSettings(Validated):
    """How to get from image-level labels to a segmentation model.

    ``labels`` says where image-level labels come from: ``all`` (every picture shows the object), ``folders``
    (pictures in ``object/`` and ``none/``), ``masks`` (whether a mask is empty: a use of masks, and noted as
    one) or a CSV file with the columns ``image,label``. ``question`` is put to an ImageNet classifier
    (``imagenet``: the classes that ``pseudo.question`` names), or to one that is trained on the labels
    (``labels``), as ``classifier`` says. ``pseudo`` are the stages up to the pseudo-masks, ``pseudo_folder``
    where another run has made them already, and ``pseudo_seed`` their seed (None: the student's).
    ``student`` is how every student is trained, ``rounds`` how many follow the first at most, ``teacher``
    how the answers of one become the masks of the next. Rounds end when the mIoU between the answers of two
    successive students reaches ``stop_at``. ``samples`` are the pictures to draw, by number (None: a few,
    evenly spread); ``evaluate`` is whether masks are read at the end, ``oracle`` whether the threshold is
    looked for on masks too, ``supervised`` whether the same student is trained on the masks as well: both
    are rows of the table that are marked.
    """

    labels: str = "all"
    question: Literal["imagenet", "labels"] = "imagenet"
    classifier: ClassifierSettings = Field(default_factory=ClassifierSettings)
    pseudo: PseudoSettings = Field(default_factory=PseudoSettings)
    pseudo_folder: Path | None = None
    pseudo_seed: int | None = Field(default=None, ge=0, lt=2**32)
    student: TrainSettings = STUDENT
    rounds: int = Field(default=2, ge=0, le=1000)
    stop_at: float = Field(default=0.95, gt=0, le=1)
    teacher: TeacherSettings = Field(default_factory=TeacherSettings)
    samples: tuple[int, ...] | None = None
    evaluate: bool = True
    oracle: bool = False
    supervised: bool = False

    def _agree(self) -> None:
        if self.question == "labels" and self.labels == "all":
            raise SettingError(
                "A classifier can't be trained on labels='all': it needs pictures without the object too. "
                "Name folders, masks or a CSV file, or ask an ImageNet classifier."
            )


def refuse_other(
    record: Record, settings: WeakSettings, weak_data: WeakData, listing: Listing | None, folder: Path
) -> None:
    """Raise where the run that ``record`` tells of can't be resumed as asked.

    ``listing`` are hashes of its pictures, masks and outlines; runs of before have only names and sizes.

    Raises:
        SettingError: it was another one; the message names the first setting that differs.
        DataError: its pictures or labels were others; the first of them are named.
    """
    if record.kind != "weak":
        raise SettingError(f"{folder} was made by 'seglens {record.kind}': only a weak run can be resumed.")
    for kind, before, now in (
        ("the setting", record.settings, settings.model_dump(mode="json")),
        ("the data setting", record.results.get("pictures", {}), weak_data.settings.model_dump(mode="json")),
    ):
        for name in now:
            if name not in (*MAY_DIFFER, "path") and _lasting(before.get(name)) != _lasting(now[name]):
                raise SettingError(
                    f"{folder} was begun with {kind} {name} = {before.get(name)!r}, received {now[name]!r}. "
                    "Resume with the same settings, or name another folder."
                )
    if listing is not None:
        refuse_other_names(weak_data.dataset, listing, folder)
        refuse_changed(weak_data.dataset, weak_data.dataset.splits, listing, folder)
    elif record.data_sha256 != weak_data.sha256:
        raise SettingError(
            f"The files in {weak_data.settings.path} are not those that {folder} was begun with. Restore "
            "them, or name another folder."
        )
    if record.results.get("labels", weak_data.labels_hash) != weak_data.labels_hash:
        raise DataError(
            f"The image-level labels ({settings.labels}) are not those that {folder} was begun with: a "
            "picture has another label, or comes or goes with the table. Restore them, or name another "
            "folder."
        )


def _lasting(value: Any) -> Any:
    """Return a setting without what a resumed training may change."""
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if name not in TRAINING_MAY_DIFFER}
