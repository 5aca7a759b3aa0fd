"""How Lightning is run: checkpoints to resume from, few messages, and an error that says why it ended.

With several devices or nodes every process runs all of this; the first alone writes.
"""

import logging
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from math import isnan, nan
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, LambdaCallback, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from seglens.data.sample import Task
from seglens.data.transforms import Batch
from seglens.errors import TrainingError
from seglens.files.output import naming, new_file
from seglens.models.weights import save_weights
from seglens.results.names import count
from seglens.runtime.signals import Terminated, watched_wait
from seglens.train.dataset import Batches
from seglens.train.history import History, Row, learning_curves
from seglens.train.lightning_module import SegmentationModule
from seglens.train.recipe import TrainSettings
from seglens.train.watching import WatchedPictures

FINISH_TIMEOUT = timedelta(days=1)
"""How long the other processes wait for the first to choose the threshold and close the folder."""

START_TIMEOUT = timedelta(minutes=30)
"""How long the processes of several nodes wait for one another at the start."""


class CheckpointCallback(Checkpoint):
    """Writes the history, the best and the last checkpoint, and stops the training early.

    Every decision follows from the rows of the history, which are saved in the checkpoint, so that a resumed
    training decides as an uninterrupted one. (Lightning's own callbacks remember absolute paths, and lose the
    best epoch when a run folder is moved.)
    """

    out: Path
    folder: Path
    patience: int | None
    keep_every: int | None
    resumed: bool
    history: History

    def __init__(self, out: Path, *, patience: int | None, keep_every: int | None, resumed: bool) -> None:
        self.out, self.folder = out, out / "checkpoints"
        self.patience, self.keep_every, self.resumed = patience, keep_every, resumed
        self.history = History()
        self._began = self._training = nan
        self._seen = 0

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint, which earlier versions wrote too."""
        return "Keeper"

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to resume from; None where this training has none."""
        last = self.folder / "last.ckpt"
        return last if (self.resumed or self.history.rows) and last.exists() else None

    def state_dict(self) -> dict[str, list[Row]]:
        """Return the rows of the history, to be saved in the checkpoint."""
        return {"rows": self.history.rows}

    def load_state_dict(self, state_dict: dict[str, list[Row]]) -> None:
        """Read the rows of the history from a checkpoint."""
        self.history = History(state_dict["rows"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once where the training had stopped early before."""
        trainer.should_stop = self.history.is_over(self.patience)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._began, self._training, self._seen = time.monotonic(), nan, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the pictures."""
        self._seen += len(batch.names)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the seconds of the training part."""
        self._training = time.monotonic() - self._began

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row and save: the best checkpoint first, so that ``last`` never refers to a missing one."""
        seconds = time.monotonic() - self._began
        epoch = trainer.current_epoch + 1
        self.history.add(
            {name: float(value) for name, value in trainer.callback_metrics.items()}
            | {
                "epoch": epoch,
                "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
                "seconds": seconds,
                "images_per_second": trainer.world_size
                * self._seen
                / (seconds if isnan(self._training) else self._training),
            }
        )
        assert isinstance(pl_module, SegmentationModule)
        _refuse_broken_weights(pl_module, epoch)
        if self.history.best()["epoch"] == epoch:
            self._save(trainer, "best.ckpt", weights_only=True)
        if self.keep_every and epoch % self.keep_every == 0 and trainer.is_global_zero:
            with new_file(self.folder / f"epoch-{epoch:03d}.safetensors", force=True) as file:
                save_weights(pl_module.kept.module, file)
        self._save(trainer, "last.ckpt", weights_only=False)
        if trainer.is_global_zero:
            self.history.write(self.out / "history.csv")
        trainer.should_stop = trainer.should_stop or self.history.is_over(self.patience)

    def _save(self, trainer: Trainer, name: str, *, weights_only: bool) -> None:
        # One name for all processes: each of them takes part, the first writes.
        temporary = self.folder / f".{name}.partial"
        try:
            trainer.save_checkpoint(temporary, weights_only=weights_only)
            if trainer.is_global_zero:
                temporary.replace(self.folder / name)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise TrainingError(
                f"{self.folder / name} can't be written: {_reason(error)}. {_room(self.folder)} What was "
                "saved before is intact: make room, then go on with --resume."
            ) from error


class EpochBar(RichProgressBar):
    """A bar for each epoch, which stays in the terminal. Epochs count from 1, as in all that is written."""

    def _get_train_description(self, current_epoch: int) -> str:
        """Return what stands before the bar."""
        return f"Epoch {current_epoch + 1} of {self.trainer.max_epochs}"


def fit_module(
    module: SegmentationModule,
    batches: Batches,
    checkpoints: CheckpointCallback,
    settings: TrainSettings,
    loggers: list[Logger],
    *,
    task: Task,
    device: torch.device,
    precision: str,
    leave: Callable[[], object],
) -> None:
    """Fit ``module`` with Lightning, from the last checkpoint where there is one.

    Where the processes of other nodes don't come, or a signal ends the wait for them, ``leave`` removes what
    was begun.

    Raises:
        KeyboardInterrupt: on Ctrl-C, saying how far it got.
        SystemExit: with 128 + 15, where the process was asked to terminate.
    """
    in_terminal = sys.stdout.isatty() and sys.stderr.isatty()
    on_interrupt = signal.getsignal(signal.SIGINT)
    for logger in loggers:
        logger.log_hyperparams(settings.model_dump(mode="json"))
    several = settings.devices * settings.num_nodes > 1
    one = [device.index or 0] if device.type == "cuda" else 1
    late = (
        f"Not all processes of {settings.num_nodes} nodes came within {START_TIMEOUT.seconds // 60} minutes. "
        "Start the same command on every node, with the same MASTER_ADDR and MASTER_PORT; under SLURM by "
        "srun."
    )
    wait = watched_wait(START_TIMEOUT, late, leave) if settings.num_nodes > 1 else nullcontext(lambda: None)
    with _quiet_lightning(), _determinism_restored(), naming(checkpoints.out), wait as started:
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=settings.devices if several else one,
            num_nodes=settings.num_nodes,
            # A frozen encoder takes no part in a step.
            strategy=DDPStrategy(find_unused_parameters=settings.freeze_encoder > 0, timeout=FINISH_TIMEOUT)
            if several
            else "auto",
            use_distributed_sampler=False,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_epochs=settings.epochs,
            accumulate_grad_batches=batches.splits,
            # On a CPU all is deterministic as it is.
            deterministic="warn" if device.type == "cuda" else None,
            logger=loggers or False,
            callbacks=[
                checkpoints,
                WatchedPictures(task),
                LambdaCallback(setup=lambda trainer, module, stage: started()),
                *([EpochBar(leave=True)] if in_terminal else []),
            ],
            enable_progress_bar=in_terminal,
            enable_model_summary=False,
            plugins=[InPlace()],
            num_sanity_val_steps=0,
            limit_val_batches=None if batches.validation else 0,
            default_root_dir=checkpoints.out,
        )
        try:
            trainer.fit(module, datamodule=batches, ckpt_path=checkpoints.checkpoint, weights_only=True)
        except SIGTERMException as stop:
            # Lightning would end with code 0, as if all were done.
            raise Terminated(signal.SIGTERM) from stop
        except SystemExit as stop:
            # Lightning turns Ctrl-C into an exit, and leaves the process deaf to further ones.
            signal.signal(signal.SIGINT, on_interrupt)
            if not isinstance(stop.__context__, KeyboardInterrupt):
                raise
            done = f"{len(checkpoints.history.rows)} of {count(settings.epochs, 'epoch')}"
            raise KeyboardInterrupt(f"Stopped after {done}. Go on with --resume.") from None
        finally:
            if checkpoints.history.rows and trainer.is_global_zero:
                # Killed after the last checkpoint and before the table, a training has no epoch left to end.
                checkpoints.history.write(checkpoints.out / "history.csv")
                learning_curves(checkpoints.history.rows, checkpoints.out / "curves.png")


class InPlace(TorchCheckpointIO):
    """Writes a checkpoint where it is told to; Lightning's way leads over the folder of temporary files."""

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: _PATH, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint`` to ``path``."""
        torch.save(checkpoint, path)


def _refuse_broken_weights(module: LightningModule, epoch: int) -> None:
    """Raise before weights that are not finite are saved: a gradient can be, where the loss was not."""
    broken = [name for name, weights in module.named_parameters() if not weights.isfinite().all()]
    if broken:
        raise TrainingError(
            f"After epoch {epoch} {len(broken)} weights are not finite (the first: {broken[0]}). What was "
            "saved before is intact. Lower the learning rate, or train with precision 32."
        )


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return text.rstrip(".") or type(error).__name__


def _room(folder: Path) -> str:
    return f"Its disk has {shutil.disk_usage(folder).free / 2**20:.0f} MiB left."


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Hide the tips of Lightning; all other warnings are shown."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        # Lightning 2.6 with torch 2.15 warns of itself.
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _determinism_restored() -> Iterator[None]:
    """Leave torch's switch for deterministic algorithms as it was; Lightning sets it for good."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
