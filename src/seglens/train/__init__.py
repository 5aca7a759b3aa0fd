"""Training: a `LightningModule` and the call that fits it. Read from top to bottom.

`train` opens the data, describes the model, gets pictures and network ready, writes a run folder that says
``running``, fits, and closes the folder with the weights of the best epoch. What could be the user's fault
is tried before the folder is touched. A training that was killed goes on from ``last.ckpt`` and ends with
the weights that it would have had: order, augmentation and dropout depend on seed and epoch alone.

With several devices or nodes every process runs all of this on its part of every batch; the first of them
alone writes, and goes on where the others end.
"""

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import seed_everything
from torch import Tensor

from seglens.arguments import checked
from seglens.callable_module import make_callable
from seglens.data.from_torch import TorchData, torch_splits
from seglens.data.intensity import bounds
from seglens.data.layout import Dataset, DataSettings, Split
from seglens.data.listing import Listing, open_listed, read_listing, refuse_changed, write_listing
from seglens.data.opening import in_short, open_data
from seglens.errors import CheckpointError, DataError, SettingError
from seglens.files.locks import beside
from seglens.files.output import alone, begin_run, close_run
from seglens.files.overwrite import place_of_run, refuse_overlap, run_in_use
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.results import record as records
from seglens.results.names import count
from seglens.results.record import Record
from seglens.runs import KEPT_SHA256, Run, fold_folder, load, save_run
from seglens.runtime.device import choose_device, choose_precision, is_first_process, wait_for_all
from seglens.runtime.distributed import kind_of_devices, refuse_lone_node
from seglens.train.dataset import Batches, TrainingDataset, batches_for
from seglens.train.fingerprint import completed
from seglens.train.fit import START_TIMEOUT, CheckpointCallback, fit_module
from seglens.train.folds import joined, refuse_unfit
from seglens.train.learnable import about_missing, refuse_unmarked, warn_of_copies
from seglens.train.lightning_module import SegmentationModule, ema_decay, encoder_of
from seglens.train.losses import check_takes_weights, choose_loss, class_weights
from seglens.train.memory import fit_within_memory
from seglens.train.recipe import TrainSettings, describe_model, refuse_other_settings
from seglens.train.threshold import settled
from seglens.train.tracking import ended, open_loggers

__all__ = ["TrainSettings", "repeat", "train"]


@checked
def train(
    data: DataSettings | TorchData | Split | Mapping[str, TorchData | Split],
    settings: TrainSettings,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
) -> Run:
    """Train a model on ``data`` and return it as a run whose folder is ``out``.

    ``data`` are settings that name a folder, or data sets of PyTorch, ``{"train": ..., "valid": ...}`` or one
    that is dealt: see `seglens.from_torch`, which also names their classes. Such a run knows no data later.

    Of data with ``folds`` and no ``fold`` a network is trained for each fold, in ``out/folds/0`` and so on,
    and ``out`` is the run of all of them: the mean of their logits, with threshold and temperature found on
    what each network had not learned from.

    ``resume`` goes on where a training stopped, and begins one where there is none yet; where it had ended,
    that run is returned and a line says so. With ``force`` a run that is there is replaced when the new one
    is whole; until then that is made in ``.NAME.partial`` beside, from which ``resume`` goes on.

    Raises:
        UserError: the data, a setting or the folder can't be used as they are.
        TrainingError: the loss is no longer a finite number, memory doesn't suffice or the disk is full; what
            was saved before is intact.
        KeyboardInterrupt: on Ctrl-C; the training can be resumed.
    """
    out = Path(out)
    if isinstance(data, DataSettings) and data.folds is not None and data.fold is None:
        return _train_folds(data, settings, out, resume=resume, force=force)
    refuse_lone_node(settings.num_nodes, START_TIMEOUT)
    first = is_first_process(settings.devices * settings.num_nodes)
    refuse_overlap(out, data=[data.path] if isinstance(data, DataSettings) else [])
    if not first:
        # What it is to be, the first process decides; this one writes nothing there.
        return _train(data, settings, out, run_in_use(out), first=False, resume=resume)
    out.parent.mkdir(parents=True, exist_ok=True)
    with alone(out):
        place = place_of_run(out, "train", resume=resume, force=force)
        try:
            return _train(data, settings, out, place, first=True, resume=resume)
        except BaseException:
            if place != out:
                _remove_unbegun(place)
            raise


def _train_folds(data: DataSettings, settings: TrainSettings, out: Path, *, resume: bool, force: bool) -> Run:
    """Train a network for each fold in a folder of its own, then make ``out`` the run of all of them."""
    began = time.monotonic()
    if settings.devices * settings.num_nodes > 1:
        raise SettingError(
            "Folds are trained one after the other on one device: received devices or num_nodes above 1. "
            "Leave them out, or train each fold by itself, with DataSettings(folds=5, fold=0), from Python."
        )
    refuse_overlap(out, data=[data.path])
    out.parent.mkdir(parents=True, exist_ok=True)
    with alone(out):
        place = place_of_run(out, "train", resume=resume, force=force)
        earlier = records.read_record(place) if resume and (place / records.FILE_NAME).exists() else None
        listing = None if earlier is None else read_listing(place)
        dataset = _opened(data, listing, place, settings)
        refuse_unfit(settings)
        settings, chosen = completed(settings, dataset, shown=True)
        if earlier is not None:
            refuse_other_settings(earlier, settings, dataset, place)
        if earlier is not None and earlier.state == "finished":
            _refuse_other_data(earlier, dataset, listing, place)
            if place != out:
                close_run(place, out, "train")
            else:
                print(f"{out} is finished: there is nothing to resume.", file=sys.stderr)
            return load(out, device=settings.device)
        record = earlier or records.start(
            "train",
            seed=settings.seed,
            device=str(choose_device(settings.device)),
            settings=settings.model_dump(mode="json"),
            model=describe_model(settings, dataset).model_dump(mode="json"),
            task=dataset.task.model_dump(mode="json"),
            data=dataset.settings.model_dump(mode="json"),
            data_sha256=dataset.sha256(),
            results=chosen,
        )
        if earlier is None:
            begin_run(place)
        record.write(place)
        runs, splits = [], []
        try:
            for fold in range(data.folds or 0):
                one = data.model_copy(update={"fold": fold})
                print(f"Fold {fold + 1} of {data.folds}.")
                # A fold that was begun goes on, one that has ended is taken as it is.
                runs.append(train(one, settings, fold_folder(place, fold), resume=True))
                splits.append(_opened(one, None, place, settings).split("valid"))
        except BaseException:
            if earlier is None:
                _remove_unbegun(place)
            raise
        whole, results = joined(runs, splits, settings)
        results = {**record.results, **results, **{f"num_{k}": len(v) for k, v in dataset.splits.items()}}
        write_listing(place, dataset)
        save_run(place, whole, dataset.task, records.finish(record, began, results=results))
        close_run(place, out, "train")
    return load(out, device=settings.device)


def _remove_unbegun(place: Path) -> None:
    """Remove a run of which no epoch has ended."""
    if not any(place.rglob("last.ckpt")):
        shutil.rmtree(place, ignore_errors=True)


def _train(
    data: DataSettings | TorchData | Split | Mapping[str, TorchData | Split],
    settings: TrainSettings,
    out: Path,
    place: Path,
    *,
    first: bool,
    resume: bool,
) -> Run:
    """Train in ``place``, which becomes ``out``."""
    began = time.monotonic()
    earlier = records.read_record(place) if resume and (place / records.FILE_NAME).exists() else None
    listing = None if earlier is None else read_listing(place)
    dataset = _opened(data, listing, place, settings)
    if "train" not in dataset.splits:
        raise DataError(
            f"{dataset.settings.path} has no picture to train on, only: {', '.join(dataset.splits)}."
        )
    if first:
        for warning in dataset.warnings:
            print(f"warning: {in_short(warning)}", file=sys.stderr)
    refuse_unmarked(dataset)
    settings, chosen = completed(settings, dataset, shown=first)
    if earlier is not None:
        refuse_other_settings(earlier, settings, dataset, place)
        _refuse_other_data(earlier, dataset, listing, place)
    several = settings.devices * settings.num_nodes > 1
    device = choose_device(kind_of_devices(settings.device, settings.devices) if several else settings.device)
    if earlier is not None and earlier.state == "finished" and place != out:
        if first:
            close_run(place, out, "train")
        wait_for_all()
        return load(out, device=str(device))
    if earlier is not None and earlier.state == "finished":
        print(f"{out} is finished: there is nothing to resume.", file=sys.stderr)
        return load(out, device=str(device))
    precision = choose_precision(settings.precision, device)
    spec = describe_model(settings, dataset)
    loss = choose_loss(settings.loss, spec.outputs, multilabel=spec.head == "multilabel")
    loggers = open_loggers(settings.loggers, place)
    _refuse_weights_that_do_not_fit(settings, spec)

    seed_everything(settings.seed, workers=True, verbose=False)
    checkpoints = CheckpointCallback(
        place, patience=settings.patience, keep_every=settings.keep_every, resumed=earlier is not None
    )
    segmenter = _segmenter(spec, settings, earlier if checkpoints.checkpoint else None)
    if settings.freeze_encoder or settings.encoder_rate != 1:
        encoder_of(segmenter)  # raises where there is none
    if first and settings.freeze_encoder and segmenter.origin == "random":
        text = (
            f"the encoder has random weights and learns nothing for {count(settings.freeze_encoder, 'epoch')}"
        )
        print(f"warning: {text}. Name weights for it, or don't freeze it.", file=sys.stderr)
    batches = batches_for(dataset, settings, spec, device)
    missing = about_missing(batches, dataset.task.classes)
    if first and missing:
        print(*missing, sep="\n", file=sys.stderr)
    weights = _class_weights(batches.training, settings, spec.classes)
    module = SegmentationModule(segmenter, loss, settings, num_steps=batches.num_steps, class_weights=weights)

    if checkpoints.checkpoint is not None:
        for name in ("last.ckpt", "best.ckpt"):
            _read_checkpoint(checkpoints.folder / name, module)
    record = earlier or records.start(
        "train",
        seed=settings.seed,
        device=str(device),
        settings=settings.model_dump(mode="json"),
        model=segmenter.spec.model_dump(mode="json"),
        task=dataset.task.model_dump(mode="json"),
        data=dataset.settings.model_dump(mode="json") if isinstance(data, DataSettings) else None,
        data_sha256=dataset.sha256(),
        results={"first_weights": segmenter.origin, **chosen},
    )
    if first:
        if earlier is None:
            begin_run(place)
        checkpoints.folder.mkdir(parents=True, exist_ok=True)
        record.write(place)
        if listing is None and isinstance(data, DataSettings):
            warn_of_copies(write_listing(place, dataset))

    def leave() -> None:
        if first and earlier is None:
            _remove_unbegun(place)
        if first:
            beside(out, "lock").unlink()

    def attempt(splits: int) -> None:
        part = batches.split(splits)
        fit_module(
            module,
            part,
            checkpoints,
            settings,
            loggers,
            task=dataset.task,
            device=device,
            precision=precision,
            leave=leave,
        )

    with ended(loggers):
        splits = fit_within_memory(module, attempt)
    if first:
        _close(
            place, record, module, checkpoints, dataset, batches, began, precision=precision, splits=splits
        )
        close_run(place, out, "train")
    wait_for_all()
    if not first:
        raise SystemExit(0)
    return load(out, device=str(device))


def repeat(
    folder: Path, out: Path, *, data: Path | None = None, device: str | None = None, force: bool = False
) -> Run:
    """Train again what ``folder`` tells of, with the same settings and data, into the run folder ``out``.

    ``data`` names the place of the data set where it has moved, ``device`` another device.

    Raises:
        SettingError: ``folder`` was not made by a training, or the data are not the ones it was trained on.
        UserError: as `train`.
    """
    refuse_overlap(Path(out), runs=[Path(folder)])
    pictures, settings, record = _told_by(Path(folder), device)
    if data is not None:
        pictures = pictures.moved(Path(data).expanduser().absolute())
    listing = read_listing(Path(folder))
    dataset = open_data(pictures) if listing is None else open_listed(pictures, listing, Path(folder))
    refuse_other_settings(record, settings, dataset, Path(folder))
    _refuse_other_data(record, dataset, listing, Path(folder))
    return train(pictures, settings, out, force=force)


def go_on(folder: Path, *, device: str | None = None) -> Run:
    """Go on with a training that stopped, with the settings and data that its ``run.json`` tells of.

    Raises:
        SettingError: ``folder`` was not made by a training, or its data have changed.
        UserError: as `train`.
    """
    pictures, settings, _ = _told_by(run_in_use(Path(folder)), device)
    return train(pictures, settings, Path(folder), resume=True)


def _opened(
    data: DataSettings | TorchData | Split | Mapping[str, TorchData | Split],
    listing: Listing | None,
    folder: Path,
    settings: TrainSettings,
) -> Dataset:
    """Open the data; of volumes, the numbers LOW,HIGH of a window are those that become 0 and 1."""
    if not isinstance(data, DataSettings):
        return torch_splits(data)

    def opened(given: DataSettings) -> Dataset:
        return open_data(given) if listing is None else open_listed(given, listing, folder)

    dataset = opened(data)
    if dataset.dims == 3 and settings.window != "auto":
        ends = (bounds(settings.window),) * dataset.settings.channels
        return opened(data.model_copy(update={"intensities": ends}))
    return dataset


def _refuse_other_data(record: Record, dataset: Dataset, listing: Listing | None, folder: Path) -> None:
    """Raise where pictures are not those that a training was begun with, by its list where it has one."""
    if listing is not None:
        refuse_changed(dataset, dataset.splits, listing, folder)
    elif record.data_sha256 != dataset.sha256():
        raise SettingError(
            f"The files in {dataset.settings.path} are not those that {folder} was begun with. "
            "Restore them, or train into another folder."
        )


def _told_by(folder: Path, device: str | None) -> tuple[DataSettings, TrainSettings, Record]:
    """Return data and settings of the training that made ``folder``, on ``device`` where that is given."""
    record = records.read_record(folder)
    if record.kind == "train" and record.data is None:
        raise SettingError(
            f"{folder} was trained on data sets of PyTorch, which no record can open again. Call "
            "seglens.train with them, with resume=True to go on."
        )
    if record.kind != "train" or record.data is None:
        raise SettingError(
            f"{folder} was made by 'seglens {record.kind}': only a training can be repeated or resumed."
        )
    settings = TrainSettings.model_validate(record.settings)
    if device is not None:
        settings = settings.model_copy(update={"device": device})
    return DataSettings.model_validate(record.data.stored()), settings, record


def _segmenter(spec: ModelSpec, settings: TrainSettings, resumed: Record | None) -> Segmenter:
    """Build the network; one whose weights are about to be read needs no file or hub for its first ones."""
    if resumed is None:
        return Segmenter.from_spec(spec, encoder_weights=settings.encoder_weights or "none")
    segmenter = Segmenter.from_spec(spec)
    segmenter.origin = resumed.results.get("first_weights", "")
    return segmenter


def _class_weights(
    dataset: TrainingDataset, settings: TrainSettings, num_classes: int
) -> Float[Tensor, "classes"] | None:
    if settings.balanced:
        return class_weights(dataset.class_pixels(num_classes))
    return None if settings.class_weights is None else torch.tensor(settings.class_weights)


def _close(
    out: Path,
    record: Record,
    module: SegmentationModule,
    checkpoints: CheckpointCallback,
    dataset: Dataset,
    batches: Batches,
    began: float,
    *,
    precision: str,
    splits: int,
) -> None:
    """Load the weights of the best epoch, choose the threshold and complete the folder."""
    module.load_state_dict(_read_checkpoint(checkpoints.folder / "best.ckpt", module))
    settings, history = module.settings, checkpoints.history
    best, kept = history.best(), module.kept
    if not kept.spec.patches:
        kept.spec = kept.spec.model_copy(update={"scale": batches.training.scale})
    results: dict[str, Any] = {
        "best_epoch": best["epoch"],
        "epochs": len(history.rows),
        "seconds": sum(row["seconds"] for row in history.rows),
        "valid": {name: best[f"valid_{name}"] for name in ("loss", "dice", "iou")},
        **{f"num_{name}": len(split) for name, split in dataset.splits.items()},
        **({"auto": record.results["auto"]} if "auto" in record.results else {}),
        "images_per_second": history.speed(),
        "precision": precision,
        "ema": ema_decay(settings.ema, module.num_steps),
        "batch_splits": splits,
    }
    if module.class_weights is not None:
        results["class_weights"] = module.class_weights.tolist()
    if "valid" in dataset.splits:
        parts = [(Run(kept, dataset.task), dataset.split("valid"))]
        kept.spec, found = settled(kept.spec, parts, settings, name="valid")
        results |= found
    epochs = sorted((out / "checkpoints").glob("epoch-*.safetensors"))
    results[KEPT_SHA256] = {str(int(file.stem[6:])): records.sha256([file]) for file in epochs}
    kept.origin = record.results.get("first_weights", "")
    save_run(out, kept, dataset.task, records.finish(record, began, results=results))


def _read_checkpoint(file: Path, module: SegmentationModule) -> dict[str, Tensor]:
    """Return the weights in a checkpoint of this training.

    Raises:
        CheckpointError: the file is missing, damaged, or of another network.
    """
    todo = "Start the training again with --force and without --resume, or bring the file back."
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        state = dict(found["state_dict"])
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    except Exception as error:  # whatever torch meets in a damaged file; its advice would be unsafe
        why = error.strerror if isinstance(error, OSError) else "it is damaged, or no checkpoint"
        raise CheckpointError(f"{file} can't be read: {why}. {todo}") from error
    if shapes != {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}:
        raise CheckpointError(f"{file} holds the weights of another network. {todo}")
    return state


def _refuse_weights_that_do_not_fit(settings: TrainSettings, spec: ModelSpec) -> None:
    given, name = settings.class_weights, settings.loss
    if name is not None and (given is not None or settings.balanced):
        check_takes_weights(name)
    if spec.head == "multilabel" and (given is not None or settings.balanced):
        raise SettingError(
            "Class weights are for classes that exclude one another; a multilabel model takes none. Leave "
            "--class-weights and --balanced out: the Dice loss weighs each label alike, however rare."
        )
    if given is not None and len(given) != spec.classes:
        raise SettingError(
            f"{len(given)} class weights are given for {spec.classes} classes: give one for each, the "
            "background first."
        )


make_callable(__name__)
