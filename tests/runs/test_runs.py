import dataclasses
import json
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import seglens
from seglens.data.sample import Task
from seglens.errors import (
    CheckpointError,
    DataError,
    ModelError,
    NonFiniteError,
    OutputExistsError,
    SettingError,
)
from seglens.folder import explain_folder
from seglens.folder.prediction import predict_files
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.models.weights import save_weights
from seglens.results import record as records
from seglens.runs import Run, load, save_run, wrap
from seglens.runs.adopting import adopt

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 4},
    "resnet-unet": {"encoder": "resnet18"},
    "unetplusplus": {"encoder": "efficientnet-b0"},
    "deeplabv3": {"encoder": "mobilenet_v2"},
}
TWO, THREE = ("background", "pet"), ("background", "cat", "dog")


def make(name: str = "unet", classes: tuple[str, ...] = TWO, channels: int = 3) -> Segmenter:
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture=name, classes=len(classes), head="sigmoid" if len(classes) == 2 else "softmax",
        image_size=64, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels,
        window=(0.0, 0.5), threshold=0.4, **SMALL[name],
    )  # fmt: skip
    segmenter = Segmenter.from_spec(spec)
    for module in segmenter.modules():  # statistics of their own, as after a training
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(std=0.1)
            module.get_buffer("running_var").uniform_(0.8, 1.2)
    return segmenter.eval()


@pytest.mark.parametrize("classes", [TWO, THREE])
@pytest.mark.parametrize("name", SMALL)
def test_saved_run_comes_back_the_same(tmp_path, name, classes):
    segmenter, task = make(name, classes), Task(classes=classes, palette=("#000000",) * len(classes))
    tmp_path.joinpath("run").mkdir()
    save_run(tmp_path / "run", segmenter, task, records.start("train", seed=3))
    run = load(tmp_path / "run", device="cpu")
    images = torch.rand(2, 3, 50, 70)
    torch.testing.assert_close(run.predict(images).logits, segmenter(images).detach(), rtol=0, atol=0)
    assert (run.spec, run.task, run.folder) == (segmenter.spec, task, tmp_path / "run")
    assert not run.segmenter.training
    record = records.read_record(tmp_path / "run")
    assert record.seed == 3
    assert record.model_sha256 == records.sha256([tmp_path / "run" / "model.safetensors"])
    assert record.results["first_weights"] == "random"


@pytest.mark.parametrize(
    ("suffix", "prefix", "nest"),
    [
        (".pth", "", ""),
        (".pth.tar", "module.", "state_dict"),
        (".ckpt", "model.", "state_dict"),
        (".safetensors", "", ""),
    ],
)
@pytest.mark.parametrize("name", SMALL)
def test_adopted_run_computes_what_the_foreign_network_did(tmp_path, name, suffix, prefix, nest):
    source = make(name)
    file = tmp_path / f"best_model{suffix}"
    if suffix == ".safetensors":
        save_weights(source.module, file)
    else:
        state = {prefix + key: value for key, value in source.module.state_dict().items()}
        torch.save({nest: state} if nest else state, file)
    adopt(
        file, model=name, **SMALL[name], classes=TWO, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6),
        image_size=64, out=tmp_path / "run",
    )  # fmt: skip
    run = seglens.load(tmp_path / "run", device="cpu")
    images = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    expected = source.module((images - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(run.predict(images).logits, expected.detach())
    record = records.read_record(tmp_path / "run")
    assert (record.kind, record.state) == ("adopt", "finished")
    assert record.settings["file_sha256"] == records.sha256([file])


def test_adopt_tells_the_head_by_the_file(tmp_path):
    save_weights(make("unet", THREE).module, tmp_path / "three.safetensors")
    three = adopt(
        tmp_path / "three.safetensors",
        model="unet",
        width=4,
        classes=THREE,
        image_size=32,
        out=tmp_path / "3",
    )
    assert three.spec.head == "softmax"
    spec = make().spec.model_copy(update={"head": "softmax"})
    save_weights(Segmenter.from_spec(spec).module, tmp_path / "two.safetensors")
    two = adopt(
        tmp_path / "two.safetensors", model="unet", width=4, classes=TWO, image_size=32, out=tmp_path / "2"
    )
    assert (two.spec.head, two.spec.outputs) == ("softmax", 2)


def test_adopt_that_fails_leaves_nothing(tmp_path):
    file = tmp_path / "a.safetensors"
    save_weights(make("unet").module, file)
    with pytest.raises(CheckpointError, match=r"don't fit the model .* check the encoder or the width"):
        adopt(file, model="unet", width=8, classes=TWO, image_size=64, out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="check the number of classes"):
        adopt(file, model="unet", width=4, classes=THREE, image_size=64, out=tmp_path / "run")
    with pytest.raises(SettingError, match="need one value for each of 3 channels"):
        adopt(file, model="unet", width=4, classes=TWO, image_size=64, mean=(0.5,), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == [file]


def test_adopt_does_not_overwrite(tmp_path):
    file, out = tmp_path / "a.safetensors", tmp_path / "run"
    save_weights(make("unet").module, file)
    adopt(file, model="unet", width=4, classes=TWO, image_size=32, out=out)
    with pytest.raises(OutputExistsError, match="exists already"):
        adopt(file, model="unet", width=4, classes=TWO, image_size=64, out=out)
    assert load(out, device="cpu").spec.image_size == 32
    adopt(file, model="unet", width=4, classes=TWO, image_size=64, out=out, force=True)
    assert load(out, device="cpu").spec.image_size == 64


def saved(folder):
    save_run(folder, make(), Task(classes=TWO), records.start("train"))
    return folder


def head_bias(run: Run) -> float:
    return run.segmenter.module.get_parameter("head.bias").item()


def test_weights_of_an_epoch(tmp_path):
    saved(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    other = make()
    nn.init.constant_(other.module.get_parameter("head.bias"), 7.0)
    save_weights(other.module, tmp_path / "checkpoints" / "epoch-003.safetensors")
    assert head_bias(load(tmp_path, epoch=3, device="cpu")) == 7.0
    assert head_bias(load(tmp_path, device="cpu")) != 7.0
    with pytest.raises(CheckpointError, match=r"kept no weights of epoch 2. Kept: 3. .*--keep-every"):
        load(tmp_path, epoch=2)


def test_run_without_weights(tmp_path):
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no checkpoint \(model.safetensors\). .* --resume"):
        load(tmp_path)
    records.read_record(tmp_path).model_copy(update={"state": "finished"}).write(tmp_path)
    with pytest.raises(CheckpointError, match="Train or adopt the model again"):
        load(tmp_path)


def test_damaged_weights(tmp_path):
    file = saved(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="holds other weights than"):
        load(tmp_path)


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"the folder has no run.json"):
        load(tmp_path)
    records.start("evaluate").write(tmp_path)
    with pytest.raises(DataError, match="is the output of 'seglens evaluate', not a run folder"):
        load(tmp_path)


def test_run_that_describes_no_model(tmp_path):
    file = saved(tmp_path) / "run.json"
    content = json.loads(file.read_text())
    content["model"]["head"] = "relu"
    file.write_text(json.dumps(content))
    with pytest.raises(
        DataError,
        match="describes no model: ModelSpec: head is not allowed: Input should be 'sigmoid', 'softmax' or",
    ):
        load(tmp_path)


def test_run_is_frozen():
    run = Run(make(), Task())
    assert run.spec is run.segmenter.spec
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.folder = None  # type: ignore[misc]


def test_wrap_tells_the_head_by_the_outputs():
    assert wrap(nn.Conv2d(3, 1, 1), classes=TWO, image_size=16).spec.head == "sigmoid"
    assert wrap(nn.Conv2d(3, 2, 1), classes=TWO, image_size=16).spec.head == "softmax"
    assert wrap(nn.Conv2d(3, 3, 1), classes=THREE, image_size=16).spec.outputs == 3


def test_wrap_computes_what_the_module_does():
    module = nn.Conv2d(3, 1, 1)
    run = wrap(module, classes=TWO, mean=(0.5,) * 3, std=(0.5,) * 3, image_size=16)
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(run.predict(images).logits, module(2 * images - 1).detach())
    assert run.folder is None


def test_wrap_torchvision():
    module = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    ).eval()
    run = wrap(module, classes=THREE, image_size=64)
    images = torch.rand(1, 3, 50, 70)
    mean, std = (torch.tensor(values)[:, None, None] for values in (run.spec.mean, run.spec.std))
    expected = module((images - mean) / std)["out"]
    torch.testing.assert_close(run.predict(images).logits, expected.detach())


def test_wrap_one_channel_has_one_mean():
    assert wrap(nn.Conv2d(1, 1, 1), classes=TWO, channels=1, image_size=16).spec.mean == pytest.approx(
        (0.449,)
    )


def test_wrap_takes_a_network_that_whispers():
    """On ordinary images all its outputs lie in [0, 1], though they are logits."""
    module = nn.Conv2d(3, 1, 1)
    nn.init.constant_(module.weight, 0.02)
    nn.init.constant_(module.get_parameter("bias"), 0.5)
    raw = wrap(module, classes=TWO, image_size=16).predict(torch.rand(1, 3, 16, 16)).logits
    assert raw.min() >= 0
    assert raw.max() <= 1


def test_wrap_leaves_the_module_as_found():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 1, 1)).train()
    module[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    wrap(module, classes=TWO, image_size=16)
    assert [part.training for part in module] == [True, False, True, True]
    assert not module._forward_hooks
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("module", "fields", "message"),
    [
        (
            nn.Conv2d(3, 1, 1),
            {"classes": THREE},
            r"\(1 x 1 x 16 x 16\); the classes need 3 output channels",
        ),
        (
            nn.Conv2d(3, 4, 1),
            {"classes": THREE},
            "1 x 4 x 16 x 16.*; the classes need 3 output channels",
        ),
        (
            nn.Conv2d(3, 2, 1),
            {"head": "sigmoid"},
            "1 x 2 x 16 x 16.*; the classes need 1 output channels",
        ),
        (nn.Conv2d(1, 1, 1), {}, r"can't take an image of shape \(3, 16, 16\)"),
        (nn.Flatten(), {}, "allowed are floating-point logits"),
        (
            nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid()),
            {},
            "like probabilities, where logits are expected",
        ),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Softmax(1)), {"classes": THREE}, "like probabilities"),
        (
            nn.Conv2d(3, 1, 1),
            {"outputs_are": "probabilities"},
            "declared to be probabilities, but lie between",
        ),
    ],
)
def test_wrap_refuses(module, fields, message):
    with pytest.raises(ModelError, match=message):
        wrap(module, **({"classes": TWO, "image_size": 16} | fields))


def test_wrap_refuses_a_network_without_weights():
    with pytest.raises(ModelError, match=r"2 tensors without numbers \(weight, bias\).*device 'meta'"):
        wrap(nn.Conv2d(3, 2, 1, device="meta"), classes=TWO)


@pytest.mark.parametrize(
    "scale",
    [
        {"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)},
        {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)},
        {"window": (0.0, 255.0)},
        {"window": (-0.1, 0.5)},
    ],
)
def test_numbers_for_pictures_of_0_to_255_are_refused(scale: dict[str, Any]):
    with pytest.raises(SettingError, match=r"divide (both|them) by 255"):
        wrap(nn.Conv2d(3, 1, 1), classes=TWO, image_size=16, **scale)
    for mean, std in (((0.0,) * 3, (1 / 255,) * 3), ((-1.0,) * 3, (2.0,) * 3)):
        wrap(nn.Conv2d(3, 1, 1), classes=TWO, image_size=16, mean=mean, std=std)


class Demanding(nn.Module):
    """Fails on black pictures, which a baseline is."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, images):
        assert images.max() > 0, "I want light"
        return self.head(images)


def test_a_network_that_fails_later_is_said_to():
    run = wrap(Demanding(), classes=TWO, image_size=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(
        ModelError, match=r"failed on images of 16 x 16 .* from 0 to 0: I want light"
    ) as found:
        run.predict(torch.zeros(1, 3, 16, 16))
    assert isinstance(found.value.__cause__, AssertionError)


def test_wrap_with_settings_that_contradict():
    with pytest.raises(SettingError, match="need one value for each of 3 channels"):
        wrap(nn.Conv2d(3, 1, 1), classes=TWO, mean=(0.5,))
    with pytest.raises(SettingError, match=r"a task needs a background .* the background first"):
        wrap(nn.Conv2d(3, 1, 1), classes=("pet",))


def test_declared_outputs_are_taken_at_their_word():
    sigmoid = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid())
    images = torch.rand(1, 3, 16, 16)
    as_logits = wrap(sigmoid, classes=TWO, image_size=16, outputs_are="logits")
    as_probabilities = wrap(sigmoid, classes=TWO, image_size=16, outputs_are="probabilities")
    torch.testing.assert_close(
        as_probabilities.predict(images).probabilities[:, 1:], as_logits.predict(images).logits
    )


def test_weights_that_were_changed_are_not_used(tmp_path):
    """The record says of which file it speaks."""
    run = Run(make(), Task())
    record = save_run(tmp_path, run.segmenter, run.task, records.start("train"))
    assert load(tmp_path, device="cpu").sha256 == record.model_sha256
    other = make()
    torch.nn.init.ones_(next(other.parameters()))
    save_weights(other.module, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds other weights than run\.json was written for: .*adopt"):
        load(tmp_path, device="cpu")


class Breaks(nn.Module):
    """Its answer is not finite where a picture is full red."""

    def __init__(self, bad: float) -> None:
        super().__init__()
        self.bad = bad

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.where(images[:, :1] == 1, self.bad, images[:, :1] - 0.5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_no_mask_is_made_of_an_answer_that_is_not_finite(bad, tmp_path):
    run = wrap(Breaks(bad), classes=TWO, mean=(0.0,) * 3, std=(1.0,) * 3, image_size=16)
    images = torch.full((3, 3, 16, 16), 0.2)
    images[1, 0, 3, 4] = 1.0
    with pytest.raises(NonFiniteError, match="picture number 1 is not finite"):
        run.predict(images)
    files = [tmp_path / f"{name}.png" for name in ("good", "broken", "fine")]
    for image, file in zip(images, files, strict=True):
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(file)
    done = predict_files(run, files, out=tmp_path / "out")
    assert done.num_done == 2
    assert [failure.name for failure in done.failed] == ["broken"]
    assert "answer to picture 'broken' is not finite" in done.failed[0].error
    assert sorted(file.name for file in (tmp_path / "out" / "masks").iterdir()) == ["fine.png", "good.png"]
    with pytest.raises(ModelError, match="answer to picture 'broken' is not finite"):
        explain_folder(run, files, out=tmp_path / "maps", methods=("saliency",), layers=())
    assert not (tmp_path / "maps").exists()


def test_weights_that_give_no_finite_answer_are_not_adopted(tmp_path):
    state = make().module.state_dict()
    state["head.weight"] = torch.full_like(state["head.weight"], 3e38)
    state["head.bias"] = torch.full_like(state["head.bias"], 3e38)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="answer to a trial picture is not finite"):
        adopt(tmp_path / "a.pth", model="unet", width=4, classes=TWO, image_size=64, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
