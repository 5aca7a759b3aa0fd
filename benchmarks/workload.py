"""What one process of ``benchmarks/training_speed.py`` does: train or evaluate, one side, and measure.

    python -m benchmarks.workload JOB ANSWER

JOB is a `Job` as JSON; the measurements are written to the file ANSWER as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import plain_loop
from benchmarks.sampling import EVALUATION, TRAINING, Sampler

WARM_UP = 3
"""Steps before the clock is started."""


@dataclass(frozen=True)
class Job:
    """``task`` is train or evaluate; ``files`` are the pairs of picture and mask of every split."""

    side: str
    task: str
    work: Path
    data: Path
    files: dict[str, list[tuple[str, str]]]
    device: str
    epochs: int
    encoder: str
    image_size: int
    batch_size: int
    augment: bool = False
    compile: bool = False
    seed: int = 0
    sampled: bool = False

    @property
    def place(self) -> Path:
        """Where the side keeps what it trained."""
        return Path(self.work) / ("sampled" if self.sampled else "trained") / self.side


class Stopwatch(pl.Callback):
    """Counts the pictures of training and of validation and their seconds; of training without warm-up."""

    def __init__(self, sampler: Sampler | None) -> None:
        self.pictures, self.steps, self.seconds = 0, 0, 0.0
        self.validated, self.validating = 0, 0.0
        self.sampler = sampler
        self._warm, self._began, self._counting, self._looked = 0, 0.0, False, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._warm >= WARM_UP:
            self._start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._counting:
            self.pictures += num_pictures(batch)
            self.steps += 1
        self._warm += 1
        if self._warm == WARM_UP:
            self._start()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()
        self._looked = now()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *place: int
    ) -> None:
        if not trainer.sanity_checking:
            self.validated += num_pictures(batch)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validating += now() - self._looked

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def _start(self) -> None:
        self._began, self._counting = now(), True
        if self.sampler is not None:
            self.sampler.on = True

    def _stop(self) -> None:
        if self._counting:
            self.seconds += now() - self._began
            self._counting = False
        if self.sampler is not None:
            self.sampler.on = False


def num_pictures(batch: Any) -> int:
    """Return how many pictures a batch of either side has."""
    return len(batch["image"]) if isinstance(batch, dict) else len(batch.names)


def now() -> float:
    """Return the time at which the device has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def train(job: Job) -> dict[str, Any]:
    sampler = Sampler(TRAINING) if job.sampled else None
    watch = Stopwatch(sampler)
    # Lightning's own way for a model to bring callbacks along: neither side has to know.
    pl.LightningModule.configure_callbacks = lambda self: [watch]  # type: ignore[method-assign]
    if sampler is not None:
        sampler.start()
    began = time.perf_counter()
    found = _train_ours(job) if job.side == "seglens" else _train_plainly(job)
    seconds = time.perf_counter() - began
    stages, beside = sampler.stop() if sampler is not None else ({}, {})
    return found | {
        "rate": watch.pictures / watch.seconds if watch.seconds else 0.0,
        "validation_rate": watch.validated / watch.validating if watch.validating else 0.0,
        "seconds": seconds,
        "units": watch.steps,
        "stages": stages,
        "beside": beside,
    }


def _train_plainly(job: Job) -> dict[str, Any]:
    torch.manual_seed(job.seed)
    pictures = {name: _pictures(job, name) for name in ("train", "valid")}
    training = plain_loop.loader(pictures["train"], job.batch_size, shuffle=True)
    validation = plain_loop.loader(pictures["valid"], job.batch_size, shuffle=False)
    model = plain_loop.PetModel(job.encoder, num_steps=job.epochs * len(training))
    trainer = plain_loop.trainer(job.place, device=job.device, precision=_precision(job), epochs=job.epochs)
    trainer.fit(model, train_dataloaders=training, val_dataloaders=validation)
    job.place.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), job.place / "weights.pt")
    return {}


def _train_ours(job: Job) -> dict[str, Any]:
    import seglens

    settings = seglens.TrainSettings(
        model="resnet-unet",
        encoder=job.encoder,
        image_size=job.image_size,
        epochs=job.epochs,
        batch_size=job.batch_size,
        learning_rate=plain_loop.LEARNING_RATE,
        loss="dice",
        augment=job.augment,
        device=job.device,
        seed=job.seed,
        compile=job.compile,
    )
    run = seglens.train(seglens.DataSettings(path=job.data), settings, job.place, force=True)
    record = json.loads((job.place / "run.json").read_text())
    return {
        "history_rate": record["results"]["images_per_second"],
        "precision": record["results"]["precision"],
        "threshold": run.spec.threshold,
    }


def evaluate(job: Job) -> dict[str, Any]:
    sampler = Sampler(EVALUATION)
    sampler.start()
    score = _prepare_ours(job) if job.side == "seglens" else _prepare_plain(job)
    first = now()
    score("valid")  # warms up
    sampler.on, began = True, now()
    score("train")
    seconds = now() - began
    sampler.on = False
    num, (stages, beside) = len(job.files["train"]), sampler.stop()
    return {
        "rate": num / seconds,
        "seconds": seconds,
        "first_seconds": began - first,
        "units": num,
        "stages": stages,
        "beside": beside,
        "dice": _dice(job),
    }


def _prepare_plain(job: Job) -> Callable[[str], object]:
    model = _plain_model(job)
    trainer = plain_loop.trainer(job.place, device=job.device, precision=_precision(job))

    def score(split: str) -> object:
        batches = plain_loop.loader(_pictures(job, split), job.batch_size, shuffle=False)
        return trainer.validate(model, dataloaders=batches, verbose=False)

    return score


def _prepare_ours(job: Job) -> Callable[[str], object]:
    import seglens

    run = seglens.load(job.place, device=job.device)
    dataset = seglens.open_data(seglens.DataSettings(path=job.data))

    def score(split: str) -> object:
        return seglens.evaluate(run, dataset.split(split), force=True, batch_size=job.batch_size)

    return score


def _dice(job: Job) -> float:
    """Return the Dice pooled over the valid split, at native size and threshold 0.5, alike for both sides."""
    import seglens
    from seglens.evaluate.scores import confusion, scores

    probability = _ours(job) if job.side == "seglens" else _theirs(job)
    counts = torch.zeros(2, 2, dtype=torch.int64)
    split = seglens.open_data(seglens.DataSettings(path=job.data)).split("valid")
    for index in range(len(split)):
        sample = split[index]
        assert sample.mask is not None
        mask = (probability(sample.image) >= 0.5).long()
        counts += confusion(mask, sample.mask, sample.valid, 2)
    return float(scores(counts)["dice"])


def _ours(job: Job) -> Callable[[Tensor], Tensor]:
    """Return what gives the probability of the object, at native size, to a picture in [0, 1]."""
    import seglens
    from seglens.data.transforms import letterbox_image

    run = seglens.load(job.place, device=job.device)

    def probability(image: Tensor) -> Tensor:
        boxed, frame = letterbox_image(image, job.image_size)
        return frame.maps_to_native(run.predict(boxed[None]).probabilities)[0, 1]

    return probability


def _theirs(job: Job) -> Callable[[Tensor], Tensor]:
    device, side = torch.device(job.device), (job.image_size, job.image_size)
    model = _plain_model(job).eval().to(device)

    def probability(image: Tensor) -> Tensor:
        stretched = F.interpolate(image[None] * 255, size=side, mode="bilinear", antialias=True)
        with torch.no_grad():
            small = model(stretched.to(device)).sigmoid().cpu()
        return F.interpolate(small, size=image.shape[1:], mode="bilinear", antialias=True)[0, 0]

    return probability


def _plain_model(job: Job) -> plain_loop.PetModel:
    model = plain_loop.PetModel(job.encoder, num_steps=1)
    model.load_state_dict(torch.load(job.place / "weights.pt", weights_only=True, map_location="cpu"))
    return model


def _pictures(job: Job, split: str) -> plain_loop.Pictures:
    pets = (Path(job.data) / "annotations" / "trimaps").is_dir()
    return plain_loop.Pictures(job.files[split], (1, 3) if pets else (255,), job.image_size)


def _precision(job: Job) -> str:
    return "bf16" if job.side.endswith("bf16") else "32"


def main() -> None:
    asked = json.loads(sys.argv[1])
    job = Job(**asked | {"work": Path(asked["work"]), "data": Path(asked["data"])})
    found = {"train": train, "evaluate": evaluate}[job.task](job)
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
    Path(sys.argv[2]).write_text(json.dumps(found | {"gpu_bytes": gpu}))


if __name__ == "__main__":
    main()
