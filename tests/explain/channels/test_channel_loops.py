"""Score-CAM and Ablation-CAM against loops over channels, and what they say about the channels."""

import pytest
import torch
import torch.nn.functional as F
from tests.explain.channels.cases import cam, close, strong

from seglens.data.sample import Task
from seglens.explain.ablation import AblationCam
from seglens.explain.channels import ScoreCam, entropy
from seglens.explain.target import Target
from seglens.models.segmenter import ModelSpec, Segmenter, pad_to_divisor
from seglens.runs import Run

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
    found = cam(run, images, target, ScoreCam(weighting), batch_size=5)
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
    found = cam(run, images, target, AblationCam(), batch_size=5)
    close(found.grid, torch.stack(grids).float())
    assert found.settings["unit"] == "sum"


def test_what_a_channel_adds_is_not_lost_in_a_large_score(run, images, target) -> None:
    """By algebra a bias of the logits changes ``S`` in ``sum_k (S - S_k) / |S| A_k`` alone, not the drops."""
    segmenter = strong(run).segmenter.double()
    pictures = images.double()
    before = cam(run, pictures, target, AblationCam())
    numbers = target.pixels.sum((1, 2))
    small = target.score(segmenter(pictures).detach(), torch.arange(3))
    with torch.no_grad():
        segmenter.module.head.bias += 1e6
    found = cam(run, pictures, target, AblationCam())
    close(found.grid, before.grid * (small / (small + 1e6 * numbers)).float()[:, None, None])


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
