"""Layers whose gradient averages to nothing by algebra: their maps are not shown as if they were some.

The oracle is algebra: the score of these networks doesn't change when a constant is added to a channel.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import seglens
from seglens.explain.cams import CAMS, Cam, SegXResCam
from seglens.explain.explanation import MOSTLY_LOST, reason
from seglens.explain.target import Target
from seglens.explain.verify import verify
from seglens.explain.verify.rules import RULES


class MeanFree(nn.Module):
    def forward(self, values):
        return values - values.mean((2, 3), keepdim=True)


AVERAGED = {
    "instance": nn.InstanceNorm2d(6, affine=True),
    "group per channel": nn.GroupNorm(6, 6),
    "mean subtracted": MeanFree(),
}
OTHERS = {
    "batch": nn.BatchNorm2d(6),
    "groups": nn.GroupNorm(2, 6),
    "over space and channels": nn.LayerNorm([6, 16, 16]),
    "none": nn.Identity(),
}


def network(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    up = nn.Upsample(scale_factor=2)
    parts = [nn.Conv2d(3, 6, 3, 2, 1), norm, nn.Softplus(), nn.Conv2d(6, 6, 3, 1, 1), nn.Softplus(), up]
    return nn.Sequential(*parts, nn.Conv2d(6, 1, 3, 1, 1)).eval()


@pytest.fixture
def images(images):
    return images[:2, :, :32, :32]


@pytest.fixture
def target(images):
    pixels = torch.zeros(2, 32, 32, dtype=torch.bool)
    pixels[0, 2:9, 3:14] = True
    pixels[1, 4:, 4:] = True
    return Target("region", 1, pixels)


LOST = ("grad-cam", "xgrad-cam", SegXResCam(window=99, label="all"))
KEPT = ("hires-cam", "layer-cam", SegXResCam(window=1, label="one"))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", AVERAGED)
def test_a_gradient_that_averages_to_nothing_gives_no_map(name, kind, make_run, images, target):
    run = make_run(network(AVERAGED[name]).to(kind))
    lost = seglens.explain(run, images, target, methods=LOST, layers=["0"])
    for key, item in lost.items():
        if name == "mean subtracted" and key[0] == "xgrad-cam":
            continue  # invariant to the mean, not to the scale: sum g A is something
        assert item.status == ("degenerate", "degenerate"), key
        assert item.map.isnan().all()
        assert item.grid is not None
        assert item.grid.isnan().all()
        left = item.diagnostics["gradient_left"]
        assert (left < max(1e-5, torch.finfo(kind).eps)).all()
        assert "leaves" in reason("degenerate", {"gradient_left": float(left[0])})
    kept = seglens.explain(run, images, target, methods=KEPT, layers=["0"])
    assert all(item.status == ("ok", "ok") for item in kept.values())
    after = seglens.explain(run, images, target, methods=["grad-cam"], layers=["2"])["grad-cam", "2"]
    assert after.grid is not None
    assert "degenerate" not in after.status or (after.grid[~after.ok] <= 0).all()


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_have_their_maps(name, make_run, images, target):
    run = make_run(network(OTHERS[name]))
    found = seglens.explain(run, images, target, methods=["grad-cam"], layers=["0"])["grad-cam", "0"]
    assert (found.diagnostics["gradient_left"] > 1e-3).all()
    if name == "over space and channels":
        return  # of one size only, and not that which layers are listed at
    (info,) = (info for info in seglens.layers(run) if info.name == "0")
    assert not info.averages_out


def left(cam: Cam, activation: Tensor, gradient: Tensor) -> float:
    assert cam.left is not None
    return cam.left(activation, gradient).item()


def test_what_is_left_is_told():
    """Half of each gradient is left, by hand: 3 - 1 over 3 + 1."""
    gradient = torch.tensor([[[[3.0, -1.0]], [[-3.0, 1.0]]]])
    activation = torch.ones(1, 2, 1, 2)
    for name in ("grad-cam", "xgrad-cam"):
        assert left(CAMS[name], activation, gradient) == pytest.approx(0.5)
    assert left(SegXResCam(window=1).cam, activation, gradient) == pytest.approx(1)
    assert left(SegXResCam(window=2).cam, activation, gradient) == pytest.approx(0.5)
    assert SegXResCam(window=2, pool="max").cam.left is None
    assert reason("ok", {"gradient_left": MOSTLY_LOST / 2}).endswith("compare it with hires-cam.")
    assert reason("ok", {"gradient_left": 0.5}) == reason("no_target", {"gradient_left": 0.0}) == ""


def test_layers_and_verify_say_which(make_run, images, target, monkeypatch):
    monkeypatch.setattr("seglens.explain.verify.RULES", {"model-as-found": RULES["model-as-found"]})
    run = make_run(network(nn.InstanceNorm2d(6)))
    run.segmenter.spec = replace_size(run.segmenter.spec, 32)
    by_name = {info.name: info for info in seglens.layers(run)}
    assert [name for name, info in by_name.items() if info.averages_out] == ["0"]
    assert by_name["0"].advice == "Grad-CAM averages to nothing here: take hires-cam, or 1"
    assert by_name["6"].answer
    found = verify(run, images, target, layers=["0", "2"])
    assert found.note == "0: Grad-CAM averages to nothing here: take hires-cam, or 1."
    assert found["model-as-found"].value == 0


def replace_size(spec, size):
    return spec.model_copy(update={"image_size": size})


def test_a_select_keeps_the_reason(make_run, images, target):
    run = make_run(network(nn.InstanceNorm2d(6)))
    found = seglens.explain(run, images, target, methods=["grad-cam"], layers=["0"])["grad-cam", "0"]
    again = replace(found)
    assert again.status == found.status
    torch.testing.assert_close(again.diagnostics["gradient_left"], found.diagnostics["gradient_left"])
