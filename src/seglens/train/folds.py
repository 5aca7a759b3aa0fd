"""The runs of several folds as one model, and what each says of pictures that it hasn't learned from."""

from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

from seglens.data.layout import OUT_OF_FOLD, Split
from seglens.errors import SettingError
from seglens.models.ensemble import Ensemble
from seglens.models.segmenter import Segmenter
from seglens.results.record import read_record
from seglens.runs import Run
from seglens.train.recipe import TrainSettings
from seglens.train.threshold import settled


def refuse_unfit(settings: TrainSettings) -> None:
    """Raise where networks can't be averaged.

    Raises:
        SettingError: a network of torchvision, which returns several answers.
    """
    if settings.model.startswith("torchvision-"):
        raise SettingError(
            f"Folds of {settings.model} can't be one model: it returns several answers. Train another model, "
            "or each fold by itself."
        )


def joined(
    runs: Sequence[Run], splits: Sequence[Split], settings: TrainSettings
) -> tuple[Segmenter, dict[str, Any]]:
    """Return the mean of the networks as one model, and what a record says of it.

    Temperature and thresholds are found on ``splits``, of which each network has not seen its own.
    """
    specs = [run.spec for run in runs]
    scales = [spec.scale for spec in specs if spec.scale is not None]
    spec = specs[0].model_copy(update={"temperature": 1.0, "scale": median(scales) if scales else None})
    parts = [
        (Run(Segmenter(run.segmenter.module, spec).eval(), run.task), split)
        for run, split in zip(runs, splits, strict=True)
    ]
    spec, results = settled(spec, parts, settings, name=OUT_OF_FOLD)
    whole = Segmenter(
        Ensemble([run.segmenter.module for run in runs]), spec.model_copy(update={"members": len(runs)})
    ).eval()
    whole.origin = runs[0].segmenter.origin
    each = [read_record(run.folder).results for run in runs if run.folder is not None]
    valid = {
        name: fmean(values)
        for name in ("loss", "dice", "iou")
        if (values := [found["valid"][name] for found in each if found["valid"][name] is not None])
    }
    return whole, {
        "folds": [{"fold": fold, "num_valid": len(split)} | each[fold] for fold, split in enumerate(splits)],
        "valid": {"loss": None, "dice": None, "iou": None} | valid,
        "epochs": max(found["epochs"] for found in each),
        "best_epoch": int(median(found["best_epoch"] for found in each)),
        **results,
    }
