"""Score-CAM and Ablation-CAM against loops over channels, and against pytorch-grad-cam where it is right."""

import inspect
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seglens.data.sample import Task
from seglens.errors import ModelError, SettingError
from seglens.explain import Method, explain
from seglens.explain.ablation import AblationCam, ablation_cam
from seglens.explain.channels import ScoreCam, entropy, score_cam
from seglens.explain.target import Target
from seglens.models.segmenter import ModelSpec, Segmenter, pad_to_divisor
from seglens.runs import Run

CAMS = [ScoreCam(), ScoreCam("softmax"), AblationCam()]


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


def cam(run, images, target, settings, layer="deep", **options):
    work = score_cam if isinstance(settings, ScoreCam) else ablation_cam
    return work(run.segmenter, images, (target,), (layer,), settings, **options)[0]


def close(one, other):
    """Equal up to 1e-5 of the largest value, and not NaN."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * other.nan_to_num().abs().max().item())


def scaled(maps):
    """Each map scaled to [0, 1], as the peer returns its own."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def strong(run):
    """The same network with weights above zero: every channel speaks for the class, and no map is flat."""
    with torch.no_grad():
        for part in run.segmenter.module.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.abs_()
    return run


# Loops over channels.


def by_masking(run, images, target, layer, weighting):
    """Score-CAM by one channel of one picture at a time, on the network's own input, in float64."""
    segmenter = run.segmenter.double()
    inputs = pad_to_divisor(segmenter.normalise(images.double()), segmenter.spec.divisor)
    kept = []
    with torch.no_grad():
        module = segmenter.module.get_submodule(layer)
        handle = module.register_forward_hook(lambda module, given, output: kept.append(output.clone()))
        segmenter.module(inputs)
        handle.remove()
        grids: list[torch.Tensor] = []
        height, width = images.shape[-2:]
        for row in range(len(images)):

            def score(picture, row=row):
                logits = segmenter.module(picture[None])[0, 0, :height, :width]
                return logits[target.pixels[row]].sum()

            scores, channels = [], []
            for channel in kept[0][row]:
                if channel.max() == channel.min():
                    continue
                mask = F.interpolate(channel[None, None], inputs.shape[-2:], mode="bilinear")[0]
                mask = (mask - mask.min()) / (mask.max() - mask.min())
                scores.append(score(inputs[row] * mask))
                channels.append(channel)
            weights = torch.stack(scores)
            if weighting == "softmax":
                weights = weights.softmax(0)
            else:
                weights = (weights - score(torch.zeros_like(inputs[row]))).clamp(min=0)
            grids.append(torch.einsum("k,khw->hw", weights, torch.stack(channels)))
    segmenter.float()
    return torch.stack(grids).float()


@pytest.mark.parametrize("weighting", ["increase", "softmax"])
@pytest.mark.parametrize("divisor", [1, 16])
def test_score_cam_is_the_loop_over_masked_inputs(weighting, divisor, make_unet, images, target) -> None:
    """With a normalisation, an intensity window, and padding that the masks cover as well."""
    spec = ModelSpec(
        architecture="wrapped", window=(0.1, 0.8), mean=(0.1, 0.2, 0.1), std=(0.3, 0.2, 0.4), divisor=divisor
    )
    images = images[..., :30, :37]
    target = Target("region", 1, target.pixels[:, :30, :37])
    run = strong(Run(Segmenter(make_unet(), spec), Task()))
    found = cam(run, images, target, ScoreCam(weighting), chunk=5)
    expected = by_masking(run, images, target, "deep", weighting)
    assert expected.abs().amax((1, 2)).min() > 0
    close(found.grid, expected)
    padded = F.interpolate(
        expected.relu()[:, None], [n + -n % divisor for n in (30, 37)], mode="bilinear", align_corners=False
    )
    close(found.map, padded[:, 0, :30, :37])


def test_ablation_cam_is_the_loop_over_silent_channels(run, images, target) -> None:
    module = strong(run).segmenter.double().module
    grids = []
    with torch.no_grad():
        fine = module.down(images.double())
        coarse = module.deep(F.max_pool2d(fine, 4))
        for row in range(3):

            def score(deep, row=row):
                up = F.interpolate(deep[None], size=(32, 40), mode="nearest")
                return module.head(module.up(torch.cat([fine[row : row + 1], up], 1)))[0, 0][
                    target.pixels[row]
                ].sum()

            full, grid = score(coarse[row]), torch.zeros_like(coarse[row, 0])
            for channel in range(16):
                silent = coarse[row].clone()
                silent[channel] = 0
                grid += (full - score(silent)) / full.abs() * coarse[row, channel]
            grids.append(grid)
    run.segmenter.float()
    found = cam(run, images, target, AblationCam(), chunk=5)
    close(found.grid, torch.stack(grids).float())
    assert found.settings["unit"] == "sum"


def test_the_sign_survives_a_negative_score(run, images, target) -> None:
    """A constant taken off the logits makes the score negative: what speaks for the class still does."""
    strong(run)
    before = cam(run, images, target, AblationCam())
    with torch.no_grad():
        run.segmenter.module.head.bias.sub_(100)
    after = cam(run, images, target, AblationCam())
    assert (run.predict(images).logits < 0).all()
    for row in range(3):
        one, other = before.grid[row].flatten(), after.grid[row].flatten()
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.999


# Another library.


def their_targets(target):
    return [lambda output, region=region: output[0][region].sum() for region in target.pixels]


@pytest.mark.parametrize("layer", ["down", "deep"])
def test_grad_cam_s_score_cam_agrees_under_the_same_choice(layer, run, images, target, monkeypatch) -> None:
    """Softmax on the same sum; theirs upsamples masks with aligned corners, which is changed here to ours."""
    from pytorch_grad_cam import ScoreCAM

    class Bilinear(nn.Upsample):
        def __init__(self, size):
            super().__init__(size, mode="bilinear", align_corners=False)

    monkeypatch.setattr(nn, "UpsamplingBilinear2d", Bilinear)
    module = run.segmenter.module
    with ScoreCAM(module, [module.get_submodule(layer)]) as theirs:
        expected = torch.from_numpy(theirs(images, targets=their_targets(target)))
    found = cam(run, images, target, ScoreCam("softmax"), layer)
    assert found.status == ("ok",) * 3
    torch.testing.assert_close(scaled(found.map), expected, rtol=0, atol=1e-4)


def test_grad_cam_s_ablation_cam_agrees_after_a_relu_where_scores_are_positive(run, images, target) -> None:
    from pytorch_grad_cam import AblationCAM

    with torch.no_grad():
        strong(run).segmenter.module.deep[1].bias[0] = -100.0  # theirs ablates to -1e7 where no value is 0
    module = run.segmenter.module
    found = cam(run, images, target, AblationCam(), "deep")
    with AblationCAM(module, [module.deep]) as theirs:
        expected = torch.from_numpy(theirs(images, targets=their_targets(target)))
    torch.testing.assert_close(scaled(found.map), expected, rtol=0, atol=1e-4)


# Diagnostics.


def test_constant_channels_are_left_out_and_counted(run, images, target) -> None:
    norm = run.segmenter.module.deep[1]
    with torch.no_grad():
        norm.weight[:5] = 0
        norm.bias[:3], norm.bias[3:5] = -1, 0.7  # dead after the ReLU, and constant above zero
    strong(run)
    for weighting in ("increase", "softmax"):
        found = cam(run, images, target, ScoreCam(weighting))
        assert (found.diagnostics["constant_channels"] >= 5).all()
        close(found.grid, by_masking(run, images, target, "deep", weighting))
    assert (cam(run, images, target, AblationCam()).diagnostics["zero_channels"] >= 3).all()


def test_entropy_is_1_for_equal_weights_and_0_for_a_single_one() -> None:
    live = torch.tensor([[True, True, True, False]])
    weights = torch.tensor([[[0.2, 0.2, 0.2, 0.0]], [[0.0, 3.0, 0.0, 0.0]], [[1.0, 3.0, 0.0, 0.0]]])
    quarter = -(0.25 * torch.log(torch.tensor(0.25)) + 0.75 * torch.log(torch.tensor(0.75)))
    expected = torch.stack([torch.tensor(1.0), torch.tensor(0.0), quarter / torch.log(torch.tensor(3.0))])
    torch.testing.assert_close(entropy(weights, live)[:, 0], expected)


@pytest.mark.parametrize("settings", [ScoreCam(precision="bf16"), AblationCam(precision="bf16")])
def test_half_precision_says_how_well_it_ranks_channels(settings, run, images, target) -> None:
    strong(run)
    found = cam(run, images, target, settings)
    exact = cam(run, images, target, type(settings)())
    assert found.settings["precision"] == "bf16"
    assert (found.diagnostics["rank_agreement"] > 0.9).all()
    assert "rank_agreement" not in exact.diagnostics
    pairs = torch.stack([found.map.flatten(1), exact.map.flatten(1)], 1)
    assert all(torch.corrcoef(pair)[0, 1] > 0.98 for pair in pairs)


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
    found = work(run.segmenter, images, (target, other), (layer, "up"), settings, chunk=100)
    assert [(item.target.label, item.layer) for item in found] == [
        ("region", layer),
        ("region", "up"),
        ("rest", layer),
        ("rest", "up"),
    ]
    for asked, together in ((target, found[0]), (other, found[2])):
        close(cam(run, images, asked, settings, layer, chunk=5).grid, together.grid)
    for row in range(3):
        part = slice(row, row + 1)
        alone = cam(run, images[part], target.select(part), settings, layer, chunk=1 if row else 7)
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
    found = cam(run, images, target, AblationCam(), "inner.deep", chunk=5)
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
        wrong = SimpleNamespace(**(asdict(ScoreCam()) | settings))
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
