"""What layers and networks return: dicts, tuples, logits of lower resolution, tokens, channels last."""

import pytest
import torch
from torch import Tensor, nn

from seglens.errors import ModelError
from seglens.explain import explain
from seglens.explain.cams import hires_cam
from seglens.explain.target import Target
from seglens.explain.trace import trace
from seglens.models.layers import layers


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)


class Returning(nn.Module):
    """The small U-Net, whose logits are handed on as ``pack`` says."""

    def __init__(self, module, pack):
        super().__init__()
        self.module = module
        self.pack = pack

    def forward(self, images):
        return self.pack(self.module(images))


PACKS = {
    "dict": lambda logits: {"aux": -logits, "out": logits},
    "tuple": lambda logits: (logits, logits.mean()),
    "list": lambda logits: [logits, logits.mean((2, 3))],
}


@pytest.mark.parametrize("pack", PACKS)
def test_outputs_around_the_logits(pack, make_run, make_unet, images, target, assert_taps_equal):
    (right,) = trace(make_run(make_unet()).segmenter, images, [target], ["deep", "up"])
    run = make_run(Returning(make_unet(), PACKS[pack]))
    (found,) = trace(run.segmenter, images, [target], ["module.deep", "module.up"])
    assert_taps_equal(found, right, prefix="module.", atol=0)


def test_logits_of_a_lower_resolution(make_run, images, target):
    """Oracle: bilinear upsampling by hand. The sum of HiResCAM at the logits is the score."""
    torch.manual_seed(0)
    coarse = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.Conv2d(4, 1, 1))
    (found,) = trace(make_run(coarse).segmenter, images, [target], ["1", "2"])
    activation = coarse[:2](images).detach().requires_grad_()
    logits = nn.functional.interpolate(coarse[2](activation), images.shape[-2:], mode="bilinear")
    score = (logits[:, 0] * target.pixels).sum((1, 2))
    (gradient,) = torch.autograd.grad(score.sum(), activation)
    torch.testing.assert_close(found.taps["1"].gradient, gradient)
    torch.testing.assert_close(found.score, score.detach())
    tap = found.taps["2"]
    assert tap.activation.shape == (3, 1, 8, 10)
    torch.testing.assert_close(hires_cam(tap.activation, tap.gradient).sum((1, 2)), score.detach())


class Block(nn.Module):
    """Tokens in, tokens out."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, width)
        self.act = nn.ReLU(inplace=True)

    def forward(self, tokens):
        return tokens + self.act(self.mix(self.norm(tokens)))


class Tokens(nn.Module):
    """A vision transformer in small: patches of 4 pixels, ``prefix`` tokens that mix with the others."""

    def __init__(self, prefix: int, pack=lambda tokens: tokens) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.extra = nn.Parameter(torch.randn(1, prefix, 6))
        self.block = Block(6)
        self.pack = Returning(nn.Identity(), pack)
        self.head = nn.Conv2d(6, 1, 1)
        self.prefix = prefix

    def forward(self, images: Tensor) -> Tensor:
        features = self.patches(images)
        tokens = torch.cat([self.extra.expand(len(images), -1, -1), features.flatten(2).mT], 1)
        tokens = self.block(tokens + tokens.mean(1, keepdim=True))
        packed = self.pack(tokens)
        tokens = packed if isinstance(packed, Tensor) else packed[0]
        tokens = tokens + tokens[:, : self.prefix].sum(1, keepdim=True)
        maps = tokens[:, self.prefix :].mT.unflatten(2, features.shape[-2:])
        return nn.functional.interpolate(self.head(maps), scale_factor=4.0)


class Last(nn.Module):
    """The same without prefix, channels last throughout."""

    def __init__(self, twin: Tokens) -> None:
        super().__init__()
        self.patches, self.block, self.head = twin.patches, twin.block, twin.head

    def forward(self, images: Tensor) -> Tensor:
        grid = self.patches(images).permute(0, 2, 3, 1)
        grid = self.block(grid + grid.mean((1, 2), keepdim=True))
        return nn.functional.interpolate(self.head(grid.permute(0, 3, 1, 2)), scale_factor=4.0)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_become_maps(prefix, make_run, images, target):
    """Oracle: the network run by hand from the tokens on; cell (i, j) is token prefix + 10 i + j."""
    module = Tokens(prefix)
    (found,) = trace(make_run(module).segmenter, images, [target], ["block"])
    flowing = []
    module.block.register_forward_hook(lambda m, i, output: flowing.append(output))
    module(images)
    tokens = flowing[0].detach().requires_grad_()
    mixed = tokens + tokens[:, :prefix].sum(1, keepdim=True)
    maps = torch.stack([mixed[:, prefix + 10 * row :][:, :10] for row in range(8)], 1).permute(0, 3, 1, 2)
    logits = module.head(maps).repeat_interleave(4, 2).repeat_interleave(4, 3)
    (gradient,) = torch.autograd.grad((logits[:, 0] * target.pixels).sum(), tokens)
    for mine, theirs in ((found.taps["block"].activation, tokens), (found.taps["block"].gradient, gradient)):
        assert mine.shape == (3, 6, 8, 10)
        for row, column in ((0, 0), (0, 9), (3, 4), (7, 9)):
            token = theirs[:, prefix + 10 * row + column].detach()
            torch.testing.assert_close(mine[:, :, row, column], token)


def test_channels_last_and_tokens_give_the_same_maps(make_run, images, target, assert_taps_equal):
    tokens = Tokens(0)
    names = ["block", "block.norm", "block.mix", "block.act", "patches"]
    (found,) = trace(make_run(Last(tokens)).segmenter, images, [target], names)
    (right,) = trace(make_run(tokens).segmenter, images, [target], names)
    assert_taps_equal(found, right)


def test_tokens_are_explained_and_listed(make_run, images, target):
    run = make_run(Tokens(1))
    (listed,) = [info for info in layers(run) if info.name == "block.mix"]
    assert (listed.shape, listed.stride) == ((6, 64, 64), 4)
    found = explain(run, images, target, methods=("hires-cam", "layer-cam"), layers=("block",))
    grid = found["hires-cam", "block"].grid
    assert grid is not None
    assert grid.shape == (3, 8, 10)
    assert found["layer-cam", "block"].status == ("ok",) * 3


def test_padding_is_part_of_the_grid(make_run, images, target):
    """The network saw 32 x 48 pixels, of which 32 x 40 are the picture."""
    run = make_run(Tokens(1), divisor=16)
    (found,) = trace(run.segmenter, images, [target], ["block"])
    assert found.taps["block"].activation.shape == (3, 6, 8, 12)
    assert explain(run, images, target, layers=("block",))["grad-cam", "block"].map.shape == (3, 32, 40)


@pytest.mark.parametrize(
    ("pack", "says"),
    [
        (lambda tokens: (tokens, None), r"returned a tuple of 2, not one tensor\. .*\(pack\.module\)"),
        (lambda tokens: [tokens], r"returned a list of 1, not one tensor\. Name the part .*\(pack\.module\)"),
        (lambda tokens: {0: tokens}, r"returned a dict of 1, not one tensor"),
    ],
)
def test_several_things_are_no_map(pack, says, make_run, images, target):
    with pytest.raises(ModelError, match=says):
        trace(make_run(Tokens(1, pack)).segmenter, images, [target], ["pack"])


class Encoder(nn.Module):
    """Hands on a list of feature maps, made by a list of stages."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)])

    def forward(self, images):
        first = self.stages[0](images)
        return [first, self.stages[1](first)]


def test_the_parts_of_an_encoder_are_named(make_run, images, target):
    head = Returning(nn.Conv2d(4, 1, 1), lambda logits: logits)
    module = nn.Sequential(Encoder(), head)
    vars(head)["forward"] = lambda features: head.get_submodule("module")(features[1])
    with pytest.raises(
        ModelError, match=r"'0' \(Encoder\) returned a list of 2.*\(0\.stages\.0, 0\.stages\.1\)"
    ):
        trace(make_run(module).segmenter, images, [target], ["0"])


class Queries(nn.Module):
    """Returns 77 tokens that are no grid."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 77, 1)
        self.mix = nn.Linear(1280, 5)
        self.head = nn.Conv2d(77, 1, 1)

    def forward(self, images):
        features = self.stem(images)
        return self.head(features * self.mix(features.flatten(2)).mean(2)[:, :, None, None])


def test_tokens_that_are_no_grid_are_refused(make_run, images, target):
    with pytest.raises(
        ModelError, match=r"shape \(3, 77, 5\) for a picture of 32 x 40, which is no grid over it"
    ):
        trace(make_run(Queries()).segmenter, images, [target], ["mix"])
