"""A folder that ``nnUNetv2_train`` wrote, as a run.

::

    seglens adopt nnUNet_results/DATASET/nnUNetTrainer__nnUNetPlans__3d_fullres --fold 0 --run runs/theirs

Several folds are one model, the mean of their logits, as of ``nnUNetv2_predict``. With mirroring so are all
mirror images that the training allowed; without, maps cost an eighth, and masks are those of
``--disable_tta``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seglens.files.output import new_folder
from seglens.models import adapters
from seglens.models.adapters import NNUNET
from seglens.models.outputs import check_finite
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.results import record as records
from seglens.runs import Run
from seglens.runs.saving import save_run


def adopt_trained(
    folder: Path,
    fold: str | int | Sequence[str | int] | None,
    checkpoint: str | None,
    mirroring: bool | None,
    out: Path,
    began: float,
    *,
    force: bool,
) -> Run:
    """Make a run folder ``out`` of what ``nnUNetv2_train`` left in ``folder``.

    ``fold`` is a number, several, or ``all``: fold_all, or where there is none every fold; left out it is
    every numbered fold, as of ``nnUNetv2_predict``. ``checkpoint`` is the name of its file.

    Raises:
        CheckpointError: a file is missing, damaged, or would need to run code, or doesn't fit.
        ModelError: the model can't be served as nnU-Net does, or nnunetv2 is not installed.
    """
    library = adapters.library(NNUNET)
    folds = (fold,) if isinstance(fold, str | int) else fold
    trained = library.read_trained(
        folder,
        None if folds is None else tuple(map(str, folds)),
        checkpoint or library.CHECKPOINT,
        mirroring=mirroring is not False,
    )
    found = library.describe(trained.options)
    spec = ModelSpec(architecture=NNUNET, **found.spec)
    task = found.labels.task("The labels in dataset.json")
    segmenter = Segmenter.from_spec(spec)
    library.fill(segmenter.module, trained.weights)
    segmenter.eval()
    check_finite(segmenter.try_out(spec.image_size))
    segmenter.origin = f"{folder.parent.name}/{folder.name}"
    names = trained.options["folds"]
    files = [folder / f"fold_{name}" / (checkpoint or library.CHECKPOINT) for name in names]
    settings = {
        "file": segmenter.origin,
        "file_sha256": records.sha256(files),
        "weights_key": None,
        "folds": names,
        "mirrored": trained.options["mirrored"],
        "checkpoint": checkpoint or library.CHECKPOINT,
    }
    results: dict[str, Any] = {"read_from_tensors": {}, "assumed": {}}
    with new_folder(out, command="adopt", force=force) as made:
        record = records.finish(records.start("adopt", settings=settings, results=results), began)
        record = save_run(made, segmenter, task, record)
    return Run(segmenter, task, out, record.model_sha256)
