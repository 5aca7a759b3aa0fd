"""Lightning's loggers by name, to follow a training live."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from seglens.errors import SettingError, unknown_name


def open_loggers(names: Sequence[str] | None, out: Path) -> list[Logger]:
    """Return the loggers called ``names`` (``none`` is no logger); nothing is written yet.

    Raises:
        UnknownNameError: there is no such logger.
        SettingError: the package that it speaks to is not installed.
    """
    opened: list[Logger] = []
    for name in dict.fromkeys(names or (next(iter(LOGGERS)),)):
        if name == "none":
            continue
        if name not in LOGGERS:
            raise unknown_name("logger", name, (*LOGGERS, "none"))
        try:
            opened.append(LOGGERS[name](out))
        except ModuleNotFoundError as error:
            raise SettingError(
                f"The logger {name!r} needs a package that is not installed: {name}. Install the extra "
                "('pip install \"seglens[tracking]\"'), or choose among: tensorboard, csv, none."
            ) from error
    return opened


def _name(out: Path) -> str:
    """Return what a run is called; one that will replace another is made under a hidden name."""
    return out.name.removesuffix(".partial").removeprefix(".") if out.name.endswith(".partial") else out.name


def _tensorboard(out: Path) -> Logger:
    return TensorBoardLogger(out, name="logs", version="")


def _csv(out: Path) -> Logger:
    return CSVLogger(out, name="csv", version="")


class OwnWandbLogger(WandbLogger):
    """Joins a run of Weights & Biases that is in progress, or begins one, which `ended` ends."""

    def __init__(self, out: Path) -> None:
        super().__init__(name=_name(out), save_dir=out, project="seglens", log_model=False)
        import wandb  # Not above: an extra, which the logger says is missing.

        self.joined: bool = wandb.run is not None


@contextmanager
def ended(loggers: Sequence[Logger]) -> Iterator[None]:
    """End the runs that ``loggers`` began: the next training of this process is not to go on in them."""
    code = 1
    try:
        yield
        code = 0
    finally:
        for logger in loggers:
            if isinstance(logger, OwnWandbLogger) and not logger.joined and logger._experiment is not None:
                logger.experiment.finish(exit_code=code)


def _mlflow(out: Path) -> Logger:
    place = os.environ.get("MLFLOW_TRACKING_URI")
    if not place:
        raise SettingError(
            "The logger 'mlflow' needs the environment variable MLFLOW_TRACKING_URI: the address of a "
            "server, or a file such as sqlite:///mlflow.db."
        )
    return MLFlowLogger(experiment_name="seglens", run_name=_name(out), tracking_uri=place)


LOGGERS: dict[str, Callable[[Path], Logger]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "wandb": OwnWandbLogger,
    "mlflow": _mlflow,
}
"""The first is the default. Weights & Biases and MLflow read their own environment variables."""
