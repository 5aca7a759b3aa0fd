"""Exported networks, and networks that come as files. Oracles: onnxruntime, torch, and the run itself."""

import json
import shutil
import warnings
from copy import deepcopy
from typing import Any

import jaxtyping
import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch
from torch import nn

import seglens
from seglens.data.sample import Task
from seglens.errors import (
    CheckpointError,
    ModelError,
    OutputExistsError,
    SeglensWarning,
    SettingError,
    UnknownNameError,
)
from seglens.models.adapters import network_files
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.runs import Run

LABELS = ("background", "nucleus", "wall")
# Exporters talk of their own parts.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True, scope="module")
def _without_shape_checks():
    """The shape checks of this test run can't read the symbols that exporters put in place of numbers."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def run_of(**fields) -> Run:
    torch.manual_seed(0)
    spec = {
        "architecture": "unet",
        "width": 2,
        "image_size": 32,
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.3, 0.25),
    }
    segmenter = Segmenter.from_spec(ModelSpec(**{**spec, **fields})).eval()
    labels = LABELS[: segmenter.spec.classes]
    return Run(segmenter, Task(classes=labels, multilabel=segmenter.spec.head == "multilabel"))


KINDS: dict[str, dict[str, Any]] = {
    "sigmoid": {"threshold": 0.4, "window": (0.1, 0.8)},
    "softmax": {"classes": 3, "head": "softmax"},
    "multilabel": {"classes": 3, "head": "multilabel", "thresholds": (0.3, 0.6)},
    "volumes": {"architecture": "unet3d", "channels": 1, "mean": (0.5,), "std": (0.25,), "image_size": 16},
    "each picture's own mean": {"normalise": "image"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_gives_what_the_run_gives(kind, tmp_path):
    """The file is asked by onnxruntime alone, with as many pictures as it was not made with."""
    run = run_of(**KINDS[kind])
    exported = seglens.export(run, tmp_path / "net.onnx")
    assert exported.largest_difference < 1e-5
    assert exported.num_other == 0
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(5, run.spec.channels, *run.spec.sides)
    probabilities, mask = session.run(["probabilities", "mask"], {"images": images.numpy()})
    found = run.predict(images)
    np.testing.assert_allclose(probabilities, found.probabilities.numpy(), atol=1e-5)
    # A pixel at the very threshold may tip.
    assert (mask == found.mask.long().numpy()).mean() > 0.999


@pytest.mark.parametrize("kind", ["sigmoid", "multilabel"])
def test_torchscript_and_safetensors(kind, tmp_path):
    run = run_of(**KINDS[kind])
    seglens.export(run, tmp_path / "net.pt", format="torchscript")
    images = torch.rand(4, 3, 32, 32)
    probabilities, mask = torch.jit.load(tmp_path / "net.pt")(images)
    found = run.predict(images)
    torch.testing.assert_close(probabilities, found.probabilities, atol=1e-5, rtol=0)
    assert torch.equal(mask.bool(), found.mask.bool())
    kept = seglens.export(run, tmp_path / "net.safetensors")
    assert (kept.format, kept.largest_difference) == ("safetensors", 0.0)
    from safetensors import safe_open

    with safe_open(tmp_path / "net.safetensors", "pt") as opened:
        described = json.loads(opened.metadata()["seglens"])
    assert ModelSpec(**described["model"]) == run.spec
    assert tuple(described["task"]["classes"]) == run.task.classes


@pytest.mark.parametrize(
    "fields",
    [
        {"threshold": 0.2, "window": (0.1, 0.3), "temperature": 0.3},
        {"classes": 3, "head": "multilabel", "thresholds": (0.3, 0.6)},
        {"members": 2},
    ],
    ids=("sigmoid", "multilabel", "folds"),
)
def test_weights_that_were_exported_are_adopted_with_all_that_describes_them(tmp_path, fields):
    run, file = run_of(**fields), tmp_path / "net.safetensors"
    seglens.export(run, file)
    again = seglens.adopt(file, out=tmp_path / "again")
    assert (again.spec, again.task) == (run.spec, run.task)
    images = torch.rand(2, 3, 32, 32)
    expected = run.predict(images)
    for each in (again, seglens.load(tmp_path / "again")):
        assert torch.equal(each.predict(images).probabilities, expected.probabilities)
        assert torch.equal(each.predict(images).mask, expected.mask)
    with pytest.raises(SettingError, match=r"is of Seglens, which says all .* received model, width, mean"):
        seglens.adopt(file, model="unet", width=2, mean=(0.0,) * 3, out=tmp_path / "other")


def test_metadata_that_describe_no_model_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file(
        {"weight": torch.zeros(1)}, tmp_path / "net.safetensors", {"seglens": '{"model": {"classes": -1}}'}
    )
    with pytest.raises(
        CheckpointError, match=r"metadata of Seglens that describe no model.*Export the run again"
    ):
        seglens.adopt(tmp_path / "net.safetensors", out=tmp_path / "run")


class Doubtful(nn.Module):
    """Gives other answers when it is traced than when it runs."""

    def forward(self, images):
        return images.mean(1, keepdim=True) * (3 if torch._C._get_tracing_state() else 1) - 0.5


def test_a_file_that_says_something_else_is_not_kept(tmp_path):
    run = seglens.wrap(
        Doubtful(), classes=("background", "spot"), mean=(0.0,) * 3, std=(1.0,) * 3, image_size=32
    )
    with pytest.raises(
        ModelError, match=r"other answers than the run: a probability is off by .* Nothing was kept"
    ):
        seglens.export(run, tmp_path / "net.pt", format="torchscript")
    with pytest.raises(ModelError, match=r"can't be written as safetensors"):
        seglens.export(run, tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_where_it_is_written(tmp_path):
    run = run_of()
    with pytest.raises(UnknownNameError, match=r"format.*net.tflite.*onnx, torchscript, safetensors"):
        seglens.export(run, tmp_path / "net.tflite")
    (tmp_path / "net.pt").write_text("mine")
    with pytest.raises(OutputExistsError):
        seglens.export(run, tmp_path / "net.pt", format="torchscript")
    assert (tmp_path / "net.pt").read_text() == "mine"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One run, and the network that it holds in three kinds of files."""
    folder = tmp_path_factory.mktemp("files")
    run = run_of()
    module, images = run.segmenter.module, torch.rand(1, 3, 32, 32)
    seglens.export(run, folder / "whole.onnx")
    torch.jit.save(torch.jit.trace(module, images), folder / "net.pt")
    batch = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.save(
        torch.export.export(module, (torch.rand(2, 3, 32, 32),), dynamic_shapes=batch), folder / "net.pt2"
    )
    return run, folder


NORMALISED: dict[str, Any] = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
WHOLE: dict[str, Any] = {
    "mean": (0.0,) * 3,
    "std": (1.0,) * 3,
    "output": "probabilities",
    "outputs_are": "probabilities",
}


@pytest.mark.parametrize(
    ("name", "told"), [("whole.onnx", WHOLE), ("net.pt", NORMALISED), ("net.pt2", NORMALISED)]
)
def test_a_network_file_becomes_a_run(name, told, files, tmp_path):
    run, folder = files
    shutil.copy(folder / name, tmp_path / name)
    head: dict[str, Any] = {"head": "softmax"} if name == "whole.onnx" else {"head": "sigmoid"}
    adopted = seglens.adopt(tmp_path / name, image_size=32, out=tmp_path / "run", **told, **head)
    (tmp_path / name).unlink()  # the run needs it no more
    loaded = seglens.load(tmp_path / "run", device="cpu")
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = run.predict(images)
    for each in (adopted, loaded):
        torch.testing.assert_close(
            each.predict(images).probabilities, expected.probabilities, atol=1e-5, rtol=0
        )
    assert loaded.spec.architecture == "network-file"

    pixels = torch.zeros(3, 32, 32, dtype=torch.bool)
    pixels[:, 8:20, 10:26] = True
    target = seglens.Target("square", 1, pixels)
    settings = seglens.Occlusion(window=8, stride=8)
    mine = seglens.explain(run, images, target, methods=settings)["occlusion"]
    theirs = seglens.explain(loaded, images, target, methods=settings)["occlusion"]
    if head["head"] == "sigmoid":  # else the score is another logit
        torch.testing.assert_close(theirs.map, mine.map, atol=1e-4, rtol=1e-3)
    card = seglens.judge(loaded, images, target, [theirs])
    rows = {row.score: row for row in card.rows if row.method == "occlusion"}
    assert rows["model_dependence"].outcome == "no_weights"
    assert rows["faithfulness"].outcome != "no_weights"
    with pytest.raises(ModelError, match=r"shows no layers.*occlusion, superpixel-occlusion, rise"):
        seglens.explain(loaded, images, target, methods="grad-cam")
    with pytest.raises(ModelError, match=r"shows no layers"):
        seglens.layers(loaded)
    slopes = seglens.IntegratedGradients(steps=4)
    if name == "whole.onnx":
        with pytest.raises(ModelError, match=r"as ONNX networks do.*occlusion, superpixel-occlusion, rise"):
            seglens.explain(loaded, images, target, methods=slopes)
    else:
        found = seglens.explain(loaded, images, target, methods=slopes)["integrated-gradients"].map
        expected_map = seglens.explain(run, images, target, methods=slopes)["integrated-gradients"].map
        torch.testing.assert_close(found, expected_map, atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["one picture", "half", "double"])
def test_files_for_one_picture_or_another_precision(kind, files, tmp_path):
    run, _ = files
    module, file = run.segmenter.module, tmp_path / ("net.pt2" if kind == "one picture" else "net.pt")
    if kind == "one picture":  # torch.export takes the number of pictures for fixed, if nobody says otherwise
        torch.export.save(torch.export.export(module, (torch.rand(1, 3, 32, 32),)), file)
    else:
        precision = torch.float16 if kind == "half" else torch.float64
        example = torch.rand(1, 3, 32, 32, dtype=precision)
        torch.jit.save(torch.jit.trace(deepcopy(module).to(precision), example), file)
    seglens.adopt(file, image_size=32, out=tmp_path / "run", head="sigmoid", **NORMALISED)
    loaded = seglens.load(tmp_path / "run", device="cpu")
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found, expected = loaded.predict(images).logits, run.predict(images).logits
    atol = 1e-2 if kind == "half" else 1e-5
    torch.testing.assert_close(found.float(), expected, atol=atol * float(expected.abs().max()), rtol=0)
    target = seglens.Target("all", 1, torch.ones(3, 32, 32, dtype=torch.bool))
    settings = (seglens.Occlusion(window=16, stride=16), seglens.IntegratedGradients(steps=2))
    maps = seglens.explain(loaded, images, target, methods=settings)
    assert all(each.status == ("ok",) * 3 for each in maps.values())


@pytest.mark.parametrize(("name", "output"), [("net.onnx", "probabilities"), ("net.pt", "0")])
def test_thresholds_that_a_file_has_and_the_run_of_it_has_not_are_warned_of(name, output, tmp_path):
    run, told = run_of(), {**WHOLE, "output": output, "head": "softmax", "image_size": 32}
    seglens.export(run, tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seglens.adopt(tmp_path / name, out=tmp_path / "same", **told)
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    middle = float(run.predict(noise).probabilities[:, 1].median())
    other = run_of(threshold=middle)
    seglens.export(other, tmp_path / f"other-{name}")
    with pytest.warns(SeglensWarning, match=r"differ on [1-9]\d* of 4096 pixels.*thresholds of its own"):
        adopted = seglens.adopt(tmp_path / f"other-{name}", out=tmp_path / "other", **told)
    expected = (run.predict(noise).probabilities[:, 1] > 0.5).long()
    assert torch.equal(adopted.predict(noise).mask, expected), "what the warning says"


def test_onnx_says_what_it_takes(files, tmp_path):
    _, folder = files
    adopted = seglens.adopt(folder / "whole.onnx", out=tmp_path / "run", head="softmax", **WHOLE)
    assert (adopted.spec.image_size, adopted.spec.channels) == (32, 3)
    with pytest.raises(ModelError, match=r"can't take an image of shape \(3, 64, 64\)"):
        seglens.adopt(folder / "whole.onnx", image_size=64, out=tmp_path / "other", head="softmax", **WHOLE)
    assert not (tmp_path / "other").exists()


def test_files_that_are_refused(files, tmp_path):
    _, folder = files
    torch.onnx.export(
        nn.Conv2d(3, 2, 31, padding=15).eval(),  # small tensors stay in the file
        (torch.rand(1, 3, 8, 8),),
        tmp_path / "two.onnx",
        external_data=True,
        verbose=False,
    )
    with pytest.raises(CheckpointError, match="external_data=False"):
        seglens.adopt(tmp_path / "two.onnx", out=tmp_path / "run")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(CheckpointError, match=r"text.onnx can't be read as ONNX"):
        seglens.adopt(tmp_path / "text.onnx", out=tmp_path / "run")
    content = (folder / "whole.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"cut.onnx can't be read as ONNX"):
        seglens.adopt(tmp_path / "cut.onnx", out=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"no file of a network|is missing|There is no"):
        seglens.adopt(tmp_path / "nowhere.onnx", out=tmp_path / "run")
    # With an architecture named, the tensors are wanted, and a way to them is said.
    with pytest.raises(CheckpointError, match=r"TorchScript archive.*torch\.jit\.load\(FILE\)\.state_dict"):
        seglens.adopt(folder / "net.pt", model="unet", out=tmp_path / "run")
    with pytest.raises(SettingError, match=r"outputs_are='probabilities' is for networks that are files"):
        seglens.adopt(folder / "x.pth", model="unet", outputs_are="probabilities", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plain_checkpoint_is_no_network_file(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "weights.pt")
    assert network_files.kind_of(tmp_path / "weights.pt") is None
    assert network_files.kind_of(tmp_path / "nowhere.pt") is None


@pytest.mark.parametrize(
    ("name", "size", "output"), [("a.onnx", None, "probabilities"), ("a.pt", (32, 48), 0)]
)
def test_files_of_networks_with_unequal_sides(name, size, output, tmp_path):
    """ONNX says its size itself; that of TorchScript is named."""
    run = run_of(image_size=(32, 48))
    assert "3 x 32 x 48" in seglens.export(run, tmp_path / name).inputs
    told = {**WHOLE, "output": output, "head": "softmax"}
    adopted = seglens.adopt(tmp_path / name, out=tmp_path / "run", image_size=size, **told)
    assert adopted.folder is not None
    assert seglens.load(adopted.folder).spec.sides == (32, 48)
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    expected = run.predict(images).probabilities
    torch.testing.assert_close(adopted.predict(images).probabilities, expected, atol=1e-4, rtol=0)
