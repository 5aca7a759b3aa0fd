"""What may not change the result of Score-CAM and Ablation-CAM, passes that begin at a layer, and errors."""

import inspect

import pytest
import torch
from tests.explain.channels.cases import CAMS, cam, close, strong
from torch import nn

from seglens.errors import ModelError, SettingError
from seglens.explain import Method, explain
from seglens.explain.ablation import AblationCam, ablation_cam
from seglens.explain.channels import ScoreCam, score_cam
from seglens.explain.target import Target

# What may not change the result.


@pytest.mark.parametrize(
    ("settings", "layer"), [(CAMS[0], "deep"), (CAMS[1], "down.0"), (CAMS[2], "deep"), (CAMS[2], "down.0")]
)
def test_batch_chunk_and_company_change_nothing(settings, layer, run, images, target) -> None:
    strong(run)
    if settings == ScoreCam("softmax"):  # it makes rounding of large scores larger
        with torch.no_grad():
            run.segmenter.module.head.weight.mul_(0.01)
    other = Target("rest", 1, ~target.pixels)
    work = score_cam if isinstance(settings, ScoreCam) else ablation_cam
    found = work(run.segmenter, images, (target, other), (layer, "up"), settings, batch_size=100)
    assert [(item.target.label, item.layer) for item in found] == [
        ("region", layer),
        ("region", "up"),
        ("rest", layer),
        ("rest", "up"),
    ]
    for asked, together in ((target, found[0]), (other, found[2])):
        close(cam(run, images, asked, settings, layer, batch_size=5).grid, together.grid)
    for row in range(3):
        part = slice(row, row + 1)
        alone = cam(run, images[part], target.select(part), settings, layer, batch_size=1 if row else 7)
        assert found[0].grid is not None
        close(alone.grid, found[0].grid[part])


@pytest.mark.parametrize("settings", CAMS)
def test_empty_targets_and_the_model_as_found(settings, run, images, target) -> None:
    pixels = target.pixels.clone()
    pixels[1] = False
    module = strong(run).segmenter.module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    hooks = [len(part._forward_hooks) for part in module.modules()]
    found = cam(run, images, Target("region", 1, pixels), settings)
    assert found.status[1] == "no_target"
    assert found.map[1].isnan().all()
    assert all(part.training for part in module.modules())
    assert all("forward" not in vars(part) for part in module.modules())
    assert [len(part._forward_hooks) for part in module.modules()] == hooks
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    run.segmenter.eval()
    close(found.map[::2], cam(run, images, target, settings).map[::2])


# Passes that begin at the layer.


class Counting(nn.Conv2d):
    """Counts the pictures that it sees."""

    seen = 0

    def forward(self, images):
        self.seen += len(images)
        return super().forward(images)


def test_what_comes_before_the_layer_runs_once(make_run, make_unet, images, target) -> None:
    module = make_unet()
    first, later = Counting(3, 8, 3, padding=1, bias=False), Counting(24, 8, 3, padding=1, bias=False)
    first.load_state_dict(module.down[0].state_dict())
    later.load_state_dict(module.up[0].state_dict())
    module.down[0], module.up[0] = first, later
    cam(make_run(module), images, target, AblationCam(), "deep")
    assert first.seen <= 7 * 3
    assert later.seen > 16 * 3


class Aside(nn.Module):
    """A network whose parts keep things on the side for one another: its outputs are not all of it."""

    def __init__(self, inner):
        super().__init__()
        self.early, self.late = _Keeping(), _Reading()
        self.inner = inner
        self.late.friend = (self.early,)

    def forward(self, images):
        return self.late(self.inner(self.early(images)))


class _Keeping(nn.Module):
    kept: torch.Tensor

    def forward(self, images):
        self.kept = images.mean((1, 2, 3))
        return images


class _Reading(nn.Module):
    friend: tuple[_Keeping]

    def forward(self, logits):
        return logits * (1 + self.friend[0].kept)[:, None, None, None]


def test_a_network_that_keeps_things_aside_runs_as_a_whole(make_run, make_unet, images, target) -> None:
    """Kept are the values of the pictures, in another order than the copies come in."""
    run = strong(make_run(Aside(make_unet())))
    inner = run.segmenter.module.inner
    found = cam(run, images, target, AblationCam(), "inner.deep", batch_size=5)
    for row in range(3):
        part = slice(row, row + 1)
        alone = cam(make_run(inner), images[part], target.select(part), AblationCam(), "deep")
        close(found.grid[part], alone.grid)  # a factor cancels in (S - S_k) / |S|


def test_channels_last_layers_are_ablated_by_channel(make_run, images, target) -> None:
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.head = nn.Linear(3, 6), nn.Linear(6, 1)

        def forward(self, images):
            return self.head(self.mix(images.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

    run = make_run(Last())
    with torch.no_grad():
        for part in (run.segmenter.module.mix, run.segmenter.module.head):
            part.weight.abs_()
            part.bias.abs_()
    found = cam(run, images, target, AblationCam(), "mix")
    mixed = run.segmenter.module.mix(images.permute(0, 2, 3, 1)).detach()
    head = run.segmenter.module.head
    inside = torch.stack([mixed[row][target.pixels[row]].sum(0) for row in range(3)])
    lost = inside * head.weight[0].detach()
    full = lost.sum(1) + head.bias.detach() * target.pixels.sum((1, 2))
    expected = torch.einsum("bd,bhwd->bhw", lost / full.abs()[:, None], mixed)
    close(found.grid, expected)


# Errors and names.


def test_settings_that_make_no_sense() -> None:
    plain = inspect.unwrap(ScoreCam.__post_init__)
    for settings, message in (
        ({"weighting": "mean"}, "Weighting 'mean' is unknown. Allowed: increase, softmax"),
        ({"precision": "16"}, "Unknown precision '16'"),
        ({"compile": "yes"}, "compile is 'yes'"),
    ):
        wrong = ScoreCam()
        for name, value in settings.items():  # past the type check of the test run, which users don't have
            object.__setattr__(wrong, name, value)
        with pytest.raises(SettingError, match=message):
            plain(wrong)


def test_a_layer_that_does_not_run(run, images, target) -> None:
    run.segmenter.module.spare = nn.Conv2d(3, 3, 1)
    for settings in CAMS:
        with pytest.raises(ModelError, match="Layer 'spare' did not run"):
            cam(run, images, target, settings, "spare")


def test_they_are_found_by_name_and_by_settings(run, images, target) -> None:
    methods: list[Method] = ["score-cam", "ablation-cam", ScoreCam("softmax", label="soft")]
    found = explain(run, images, target, methods=methods, layers=["deep", "up"])
    assert set(found) == {
        (name, layer) for name in ("score-cam", "ablation-cam", "soft") for layer in ("deep", "up")
    }
    assert found["soft", "up"].settings["weighting"] == "softmax"
    assert found["score-cam", "up"].settings["masking"] == "normalised"
