"""What a recipe promises: rates, averages, frozen encoders, thresholds, loggers; worked out by hand."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from math import cos, nan, pi
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seglens
from seglens.data.transforms import ANY_WAY_UP
from seglens.errors import SettingError, UnknownNameError
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.models.weights import read_state_dict
from seglens.train import dataset, repeat, train
from seglens.train.dataset import TrainingDataset
from seglens.train.lightning_module import SegmentationModule, averaged_model, ema_decay, encoder_of
from seglens.train.losses import class_weights
from seglens.train.schedule import SCHEDULES, constant, cosine, one_cycle


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 0},
            r"TrainSettings: batch_size is not allowed: .*greater than or equal to 1, received 0\.",
        ),
        ({"epochs": -1}, r"TrainSettings: epochs is not allowed"),
        ({"learning_rate": nan}, r"TrainSettings: learning_rate is not allowed: .*finite"),
        (
            {"colour": "red"},
            r"TrainSettings: there is no setting colour\. Allowed: model, encoder, .*, normalise\.",
        ),
        ({"mean": (0.5,), "std": (0.5,)}, r"need one value for each of 3 channels"),
        ({"device": "gpu"}, "Unknown device 'gpu'"),
        ({"precision": "16"}, "Unknown precision '16'"),
        ({"loss": "ce"}, "'ce' doesn't fit a model with 1 output channel"),
        ({"loss": "dice", "balanced": True}, "'dice' takes no class weights; those that do are: bce"),
        ({"class_weights": (1.0, 2.0, 3.0)}, "3 class weights are given for 2 classes"),
        ({"class_weights": (1.0, -2.0)}, r"Class weights must be finite and not negative"),
        ({"class_weights": (1.0, 2.0), "balanced": True}, r"class_weights and balanced are both given"),
        ({"augment": False, "vertical_flips": True}, "vertical_flips is a part of augmentation"),
        ({"augment": False, "rotation": 5.0}, "rotation is a part of augmentation"),
        ({"epochs": 3, "keep_every": 4}, "keep_every is 4, and there are 3 epochs: nothing would be kept"),
        (
            {"augment": True, "rotation": -5.0},
            r"TrainSettings: rotation is not allowed: .*greater than or equal to 0",
        ),
        ({"devices": 3}, r"A batch of 4 pictures can't be shared evenly by 3 devices: choose a multiple"),
        (
            {"schedule": "linear"},
            r"TrainSettings: schedule is not allowed: .*'cosine', 'one-cycle' or 'constant'",
        ),
    ],
)
def test_wrong_settings_are_told_in_one_line_before_anything_is_written(
    discs, tmp_path, changes, message, tiny
):
    with pytest.raises(SettingError, match=message) as caught:
        train(discs, tiny(**changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("degrees", [0.0, 35.0])
def test_pictures_are_turned_by_as_much_as_asked_for(discs, tmp_path, monkeypatch, tiny, degrees):
    policies = []

    class Noting(TrainingDataset):
        def __init__(self, *given, policy=None, **named):
            super().__init__(*given, policy=policy, **named)
            policies.append(policy)

    monkeypatch.setattr(dataset, "TrainingDataset", Noting)
    train(discs, tiny(epochs=1, augment=True, vertical_flips=True, rotation=degrees), tmp_path / "run")
    assert policies == [replace(ANY_WAY_UP, rotation=(-degrees, degrees)), None]


def test_learning_rate_by_hand():
    rates = [cosine(step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1
    assert rates[5 + 95 // 2] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] < 0.001
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert cosine(0, 1) == 1


def test_one_cycle_by_hand():
    assert one_cycle(0, 100) == pytest.approx(1 / 25)
    assert one_cycle(15, 100) == pytest.approx((1 + 1 / 25) / 2)  # half way up
    assert one_cycle(30, 100) == 1
    assert one_cycle(65, 100) == pytest.approx(0.5)  # half way down
    assert one_cycle(99, 100) == pytest.approx((1 + cos(pi * 69 / 70)) / 2)


def test_a_constant_rate_warms_up():
    assert [constant(step, 60) for step in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 200])
def test_every_schedule_stays_within_the_highest_rate(name, num_steps):
    rates = [SCHEDULES[name](step, num_steps) for step in range(num_steps + 1)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[0] > 0


def segmenter(**changes):
    given: dict[str, Any] = {"architecture": "unet", "width": 4, "image_size": 32} | changes
    return Segmenter.from_spec(ModelSpec(**given))


def test_the_average_of_the_weights_by_hand():
    network = segmenter()
    average = averaged_model(network, 0.5)
    assert average is not None
    first = next(network.parameters())
    counter = next(buffer for buffer in network.buffers() if buffer.dtype == torch.int64)
    expected = None
    for step, value in enumerate((3.0, -1.0, 8.0, 2.0)):
        nn.init.constant_(first, value)
        counter.fill_(step)
        average.update_parameters(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert torch.allclose(next(average.module.parameters()), torch.tensor(expected))
        kept = next(buffer for buffer in average.module.buffers() if buffer.dtype == torch.int64)
        assert kept == step
    assert averaged_model(network, 0) is None


def test_the_decay_follows_the_number_of_steps():
    assert [ema_decay(None, steps) for steps in (10, 1000, 10**7)] == pytest.approx([0.9, 0.98, 0.9999])
    assert ema_decay(0.7, 1000) == 0.7
    assert ema_decay(0, 1000) == 0


def test_without_an_average_the_last_weights_are_kept(discs, tmp_path, tiny, weights_of):
    for name, ema in (("with", 0.9), ("without", 0.0)):
        train(discs, tiny(epochs=1, ema=ema), tmp_path / name)
        saved = torch.load(tmp_path / name / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
        prefix = "average.module.module." if ema else "segmenter.module."
        kept = weights_of(tmp_path / name)
        assert all(torch.equal(kept[key], saved[prefix + key]) for key in kept)
        assert any(key.startswith("average") for key in saved) == bool(ema)


ENCODED = {"model": "resnet-unet", "encoder": "mobilenet_v2", "width": None, "augment": False}


def test_the_encoder_has_its_own_rate(tiny):
    settings = tiny(**ENCODED, encoder_rate=0.1, learning_rate=0.01, weight_decay=0.5)
    network = segmenter(architecture="resnet-unet", encoder="mobilenet_v2", width=None)
    learner: Any = SegmentationModule(network, nn.Identity(), settings, num_steps=10)
    optimiser = learner.configure_optimizers()["optimizer"]
    inside = {id(parameter) for parameter in network.module.encoder.parameters()}
    seen = []
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            seen.append(id(parameter))
            assert group["initial_lr"] == (0.001 if id(parameter) in inside else 0.01)
            assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0)
    assert sorted(seen) == sorted(id(parameter) for parameter in network.parameters())


@pytest.mark.parametrize(("epochs", "frozen"), [(1, True), (2, False)])
def test_a_frozen_encoder_stays_as_it_was(discs, tmp_path, tiny, monkeypatch, epochs, frozen, capfd):
    built = []
    build = Segmenter.from_spec

    def remembering(spec, encoder_weights="none"):
        made = build(spec, encoder_weights)
        built.append({name: tensor.clone() for name, tensor in made.module.state_dict().items()})
        return made

    monkeypatch.setattr(Segmenter, "from_spec", remembering)
    settings = tiny(**ENCODED, epochs=epochs, freeze_encoder=1, ema=0, keep_every=1)
    train(discs, settings, tmp_path / "run")
    assert "the encoder has random weights and learns nothing for 1 epoch." in capfd.readouterr().err
    after = read_state_dict(tmp_path / f"run/checkpoints/epoch-{epochs:03d}.safetensors")
    before = built[0]
    same = {name: torch.equal(before[name], after[name]) for name in before}
    assert all(same[name] for name in same if name.startswith("encoder.")) == frozen
    assert not all(same[name] for name in same if name.startswith("decoder."))


@pytest.mark.parametrize(("given", "other"), [("mean", "std"), ("std", "mean")])
def test_mean_or_std_alone_is_refused(tiny, given, other):
    """The other half would be that of the encoder's weights."""
    with pytest.raises(SettingError, match=f"{given} is given without {other}, and belongs to it"):
        tiny(**{given: (0.5, 0.5, 0.5)})


def test_a_threshold_that_would_do_nothing_is_refused(discs, tmp_path, tiny):
    data = discs.model_copy(update={"classes": ("background", "disc", "ring")})
    with pytest.raises(
        SettingError, match=r"A threshold of 0.3 is given for 3 classes that exclude one another"
    ):
        train(data, tiny(threshold=0.3), tmp_path / "run")


def test_a_network_without_encoder_has_none_to_freeze():
    bare = Segmenter(nn.Conv2d(3, 1, 1), ModelSpec(architecture="unet"))
    with pytest.raises(SettingError, match=r"unet has no encoder to freeze, .* name a model that has"):
        encoder_of(bare)


def test_the_threshold_is_chosen_on_the_valid_split_as_it_is_scored(discs, tmp_path, tiny, results_of):
    run = train(discs, tiny(epochs=15, learning_rate=0.01), tmp_path / "run")
    chosen = results_of(tmp_path / "run")["threshold"]
    assert run.spec.threshold == chosen["threshold"] == seglens.load(tmp_path / "run").spec.threshold
    assert chosen["split"] == "valid"
    scored = seglens.evaluate(run, seglens.open_split(run, "valid"), out=tmp_path / "scores", precision="32")
    # Thresholds come in steps of a thousandth, and a pixel may lie on one.
    assert scored.pooled["dice"] == pytest.approx(chosen["dice"], abs=2e-3)
    assert chosen["dice"] >= chosen["dice_at_half"]


def test_a_threshold_that_is_given_is_kept(discs, tmp_path, tiny, results_of):
    run = train(discs, tiny(epochs=1, threshold=0.3), tmp_path / "run")
    assert run.spec.threshold == 0.3
    assert "threshold" not in results_of(tmp_path / "run")


def test_class_weights_follow_from_the_training_masks(discs, tmp_path, tiny, results_of):
    train(discs, tiny(epochs=1, balanced=True), tmp_path / "run")
    split = seglens.open_data(discs).split("train")
    masks = torch.stack([split[i].mask for i in range(len(split))])  # type: ignore[misc]
    counts = torch.bincount(masks.flatten(), minlength=2)
    assert results_of(tmp_path / "run")["class_weights"] == pytest.approx(class_weights(counts).tolist())


def test_class_weights_reach_the_loss(discs, tmp_path, tiny, history_of):
    for name, weights in (("even", (1.0, 1.0)), ("uneven", (1.0, 50.0))):
        train(discs, tiny(epochs=1, loss="bce", class_weights=weights), tmp_path / name)
    even, uneven = (history_of(tmp_path / name)[0]["valid_loss"] for name in ("even", "uneven"))
    assert even != uneven


def test_the_scale_of_the_training_pictures_is_stored(discs, tmp_path, tiny):
    run = train(discs, tiny(epochs=1, image_size=48), tmp_path / "run")
    assert run.spec.scale == 48 / 32


def test_a_run_can_be_repeated_from_its_record(discs, tmp_path, tiny, weights_of, assert_same_weights):
    train(discs, tiny(epochs=2, seed=3, loss="focal", schedule="one-cycle"), tmp_path / "run")
    repeat(tmp_path / "run", tmp_path / "again")
    assert_same_weights(weights_of(tmp_path / "run"), weights_of(tmp_path / "again"))
    one, other = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("run", "again"))
    assert (one["settings"], one["data_sha256"]) == (other["settings"], other["data_sha256"])


def test_only_a_training_can_be_repeated(one_run, tmp_path):
    record = json.loads((one_run / "run.json").read_text()) | {"kind": "adopt"}
    (tmp_path / "adopted").mkdir()
    (tmp_path / "adopted/run.json").write_text(json.dumps(record))
    with pytest.raises(SettingError, match="only a training can be repeated or resumed"):
        repeat(tmp_path / "adopted", tmp_path / "again")


def test_curves_go_to_the_loggers_that_are_named(discs, tmp_path, tiny, history_of):
    train(discs, tiny(epochs=2, loggers=("csv",)), tmp_path / "run")
    assert not (tmp_path / "run/logs").exists()
    logged = list(csv.DictReader((tmp_path / "run/csv/metrics.csv").read_text().splitlines()))
    losses = [float(row["valid_loss"]) for row in logged if row.get("valid_loss")]
    assert losses == pytest.approx([float(row["valid_loss"]) for row in history_of(tmp_path / "run")])


def test_no_logger_at_all(discs, tmp_path, tiny):
    train(discs, tiny(epochs=1, loggers=("none",)), tmp_path / "run")
    assert not [file for file in (tmp_path / "run").iterdir() if file.name in ("logs", "csv")]


def test_a_logger_that_is_not_installed_is_named(discs, tmp_path, tiny, monkeypatch):
    with pytest.raises(UnknownNameError, match=r"Unknown logger 'tensorbord'\. Did you mean 'tensorboard'"):
        train(discs, tiny(loggers=("tensorbord",)), tmp_path / "run")
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingError, match="The logger 'wandb' needs a package that is not installed"):
        train(discs, tiny(loggers=("wandb",)), tmp_path / "run")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SettingError, match="The logger 'mlflow' needs the environment variable MLFLOW_TRACK"):
        train(discs, tiny(loggers=("mlflow",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


COMPILED = """
import sys
from pathlib import Path
from torch import nn
import seglens

# The eager backend traces without a C++ compiler.
seglens.Segmenter.compile = lambda self: nn.Module.compile(self, backend="eager")
data = seglens.DataSettings(path=sys.argv[1])
for name, compiled in (("plain", False), ("compiled", True)):
    settings = seglens.TrainSettings(
        width=4, image_size=32, epochs=1, batch_size=4, device="cpu", precision="32", compile=compiled
    )
    seglens.train(data, settings, Path(sys.argv[2]) / name)
"""


def test_a_compiled_network_learns_the_same(discs, tmp_path, weights_of):
    """In a process of its own, because a checked annotation can't be traced."""
    subprocess.run([sys.executable, "-c", COMPILED, discs.path, tmp_path], check=True)
    plain, compiled = weights_of(tmp_path / "plain"), weights_of(tmp_path / "compiled")
    assert plain.keys() == compiled.keys()
    for name in plain:
        torch.testing.assert_close(plain[name], compiled[name], rtol=1e-3, atol=1e-5)


def test_a_training_that_has_learned_nothing_says_so(discs, tmp_path, tiny, results_of, capfd):
    """Then the best threshold marks every pixel; its Dice is 2 p / (1 + p) of a share p of foreground."""
    for epochs, said in ((1, True), (15, False)):
        train(discs, tiny(epochs=epochs, learning_rate=0.01 if epochs > 1 else 1e-9), tmp_path / f"{epochs}")
        masks = [np.asarray(Image.open(file)) for file in sorted((discs.path / "valid/masks").iterdir())]
        share = np.mean(masks)
        found = results_of(tmp_path / f"{epochs}")["threshold"]["dice"]
        assert (found <= 2 * share / (1 + share) + 1e-6) == said
        assert ("is better than to mark everything" in capfd.readouterr().err) == said
