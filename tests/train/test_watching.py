"""Pictures of a training, read back from what each logger wrote."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seglens
from seglens.data.transforms import collate, letterbox
from seglens.train import train
from seglens.train.watching import KEY, draw_watched


def expected(run_folder: Path, epoch: int) -> np.ndarray:
    """The picture of an epoch, drawn from the weights that were kept of it."""
    run = seglens.load(run_folder, epoch=epoch, device="cpu")
    valid = seglens.open_split(run, "valid")
    batch = collate([letterbox(valid[at], run.spec.image_size)[0] for at in range(4)])
    masks = run.predict(batch.images).mask
    return np.asarray(draw_watched(batch, masks, run.spec, run.task, title=f"epoch {epoch}"))


def test_tensorboard_has_the_same_pictures_every_epoch(discs, tmp_path, tiny):
    folder = tmp_path / "run"
    train(discs, tiny(epochs=3, keep_every=1, loggers=("tensorboard",)), folder)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "logs"), size_guidance={"images": 0})
    events.Reload()
    found = events.Images(KEY)
    assert [each.step for each in found] == [1, 2, 3]
    for each in found:
        drawn = np.asarray(Image.open(io.BytesIO(each.encoded_image_string)))
        assert np.array_equal(drawn, expected(folder, each.step))


def test_pictures_change_nothing_of_the_training(discs, tmp_path, tiny):
    for name in ("tensorboard", "none"):
        train(discs, tiny(epochs=2, loggers=(name,)), tmp_path / name)
    one, other = (seglens.load(tmp_path / name, device="cpu").segmenter for name in ("tensorboard", "none"))
    for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_wandb_keeps_numbers_and_pictures_offline(discs, tmp_path, tiny, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("run", "other"):  # in one process: each is a run of its own
        train(discs, tiny(epochs=2, loggers=("wandb",)), tmp_path / name)
        kept = list((tmp_path / name).glob("wandb/offline-run-*/files/media/images/**/*.png"))
        assert len(kept) == 2
        assert next((tmp_path / name).glob("wandb/offline-run-*/*.wandb")).stat().st_size > 0
        assert wandb.run is None
    with wandb.init(project="theirs", dir=str(tmp_path)) as theirs:
        with pytest.warns(UserWarning, match="wandb run already in progress"):
            train(discs, tiny(epochs=1, loggers=("wandb",)), tmp_path / "joined")
        assert wandb.run is theirs, "a run that the user began is joined and left open"
        assert theirs.summary["epoch"] == 0


# Of MLflow itself, about how it uses SQLAlchemy and others.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_mlflow_keeps_numbers_and_pictures_in_a_file(discs, tmp_path, tiny, monkeypatch, history_of):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    train(discs, tiny(epochs=2, loggers=("mlflow",)), tmp_path / "run")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("seglens").experiment_id])
    last = float(history_of(tmp_path / "run")[-1]["valid_loss"])
    assert run.data.metrics["valid_loss"] == pytest.approx(last)
    names = [each.path for each in client.list_artifacts(run.info.run_id, "valid-pictures")]
    assert names == [f"valid-pictures/epoch-00{epoch}.png" for epoch in (1, 2)]
