"""Networks that read their own features by forward hooks: a tap changes what those hooks see, too.

The oracles are the same network written without hooks, and central differences in float64 with the layer's
forward replaced by hand.
"""

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import seglens
from seglens.explain.ablation import AblationCam
from seglens.explain.target import Target
from seglens.explain.trace import trace
from seglens.explain.verify import verify
from seglens.explain.verify.rules import RULES
from seglens.models.probing import intercepted

pytestmark = pytest.mark.foreign

WAYS = ("plain", "always", "kwargs", "in forward", "first in forward", "global", "none")


class Hooked(nn.Module):
    """Two stages; the head reads both, the early one as a hook kept it (``way``), or directly."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.kept: dict[str, Any] = {}
        self.early = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softplus())
        self.late = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Softplus())
        self.head = nn.Conv2d(10, 1, 3, padding=1)
        if way in ("plain", "always", "kwargs"):
            self.early.register_forward_hook(
                self._keep, always_call=way == "always", with_kwargs=way == "kwargs"
            )

    def _keep(self, module, *given):
        if module is self.early:
            self.kept["early"] = given[-1]

    def forward(self, images):
        with ExitStack() as stack:
            if self.way in ("in forward", "first in forward"):
                prepend = self.way == "first in forward"
                stack.callback(self.early.register_forward_hook(self._keep, prepend=prepend).remove)
            if self.way == "global":
                stack.callback(register_module_forward_hook(self._keep).remove)
            early = self.early(images)
        late = nn.functional.interpolate(self.late(early), size=images.shape[-2:])
        return self.head(torch.cat([self.kept.pop("early", early), late], 1).sin())


@pytest.fixture
def images(images):
    return images[:2, :, :16, :16]


@pytest.fixture
def target(images):
    pixels = torch.zeros(2, 16, 16, dtype=torch.bool)
    pixels[0, 2:9, 3:14] = True
    pixels[1, 4:, 4:] = True
    return Target("region", 1, pixels)


@pytest.mark.parametrize("way", WAYS[:-1])
def test_a_network_with_hooks_is_explained_as_the_same_one_without(way, make_run, images, target):
    found, expected = (
        seglens.explain(
            make_run(Hooked(kind)),
            images,
            target,
            methods=("grad-cam", "hires-cam", AblationCam()),
            layers=("early", "late"),
        )
        for kind in (way, "none")
    )
    for key, item in found.items():
        torch.testing.assert_close(item.grid, expected[key].grid, msg=str(key))


def config_of(kind: str, **settings: Any) -> Any:
    """Make a configuration; type checkers don't see all that these classes take."""
    return getattr(transformers, kind)(**settings)


def segformer():
    config = config_of(
        "SegformerConfig",
        num_labels=2,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=16,
    )
    return transformers.SegformerForSemanticSegmentation(config)


def upernet():
    backbone = config_of(
        "ConvNextConfig",
        hidden_sizes=[8, 12, 16, 24],
        depths=[1, 1, 1, 1],
        layer_scale_init_value=1.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = config_of(
        "UperNetConfig",
        backbone_config=backbone,
        num_labels=2,
        hidden_size=16,
        pool_scales=[1, 2],
        use_auxiliary_head=False,
    )
    return transformers.UperNetForSemanticSegmentation(config)


def dpt():
    config = config_of(
        "DPTConfig",
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        num_labels=2,
        use_auxiliary_head=False,
    )
    return transformers.DPTForSemanticSegmentation(config)


def beit():
    config = config_of(
        "BeitConfig",
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        patch_size=16,
        out_indices=[1, 2, 3, 4],
        num_labels=2,
        pool_scales=[1, 2],
        use_auxiliary_head=False,
    )
    return transformers.BeitForSemanticSegmentation(config)


HUGGING_FACE = {"segformer": segformer, "upernet": upernet, "dpt": dpt, "beit": beit}


def as_map(value, like):
    """Arrange a layer's own output, or what is added to it, as the maps of a tap."""
    if value.ndim == 3:
        return value[:, -like[0, 0].numel() :].mT.reshape(like.shape)
    return value if value.shape == like.shape else value.permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face_networks_at_early_middle_and_last_layers(name):
    torch.manual_seed(0)
    module = HUGGING_FACE[name]().double().eval()
    run = seglens.wrap(module, classes=("background", "thing"), image_size=64)
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    pixels = torch.zeros(1, 64, 64, dtype=torch.bool)
    pixels[0, 4:40, 8:30] = True
    target = Target("region", 1, pixels, against=0)
    grids = [info.name for info in seglens.layers(run)]
    chosen = [grids[len(grids) * share // 8] for share in range(8)]
    (traced,) = trace(run.segmenter, images, [target], chosen)
    for layer, tap in traced.taps.items():
        part: Any = run.segmenter.module.get_submodule(layer)
        forward, moves, scores = part.forward, list[torch.Tensor](), list[float]()

        def moved(*given, by, forward=forward, moves=moves, like=tap.gradient, **named):
            output = forward(*given, **named)
            move = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
            if output.ndim == 3:
                move[:, : -like[0, 0].numel()] = 0  # a class token is in no map
            moves.append(move)
            return output + by * move

        # A fine step, with which hardly a ReLU changes sides; larger only as far as the rounding of the two
        # scores needs it, so that they leave at most a tenth of the tolerance (a gradient may be tiny, as of
        # the queries of an attention that is nearly even: BEiT of transformers 5.0).
        size = tap.gradient.norm().item()
        tolerance, rounding = 1e-4 * size, torch.finfo(torch.float64).eps * traced.score.abs().item()
        step = max(1e-6 * tap.activation.square().mean().sqrt().item(), 10 * rounding / tolerance)
        for by in (step, -step):
            part.forward = partial(moved, by=by)
            with torch.no_grad():
                scores.append(target.score(run.segmenter(images), torch.tensor([0]), "sum").item())
        part.forward = forward
        expected = (scores[0] - scores[1]) / (2 * step)
        slope = (as_map(moves[0], tap.gradient) * tap.gradient).sum().item()
        assert slope == pytest.approx(expected, abs=tolerance), layer
        assert size > 0


def test_verify_sees_a_tap_that_is_not_the_first(make_run, images, target, monkeypatch):
    """It needs no hook of its own for that, and sees it at the layer that the network's hook reads."""

    @contextmanager
    def hooked(module, change):
        handle = module.register_forward_hook(lambda module, given, output: change(output))
        yield
        handle.remove()

    kept = {name: rule for name, rule in RULES.items() if name == "gradient-is-slope"}
    monkeypatch.setattr("seglens.explain.verify.RULES", kept)
    run = make_run(Hooked("plain"))
    right = verify(run, images, target, layers=["early", "late"])
    assert (right["gradient-is-slope"].outcome, right.passed) == ("pass", True)
    assert (right["gradient-is-slope"].value or 0) < 1e-5
    monkeypatch.setattr("seglens.explain.trace.intercepted", hooked)
    wrong = verify(run, images, target, layers=["early", "late"])["gradient-is-slope"]
    assert wrong.outcome == "fail"
    assert wrong.note.startswith("at early, ")


def test_what_was_replaced_is_put_back():
    module: Any = nn.Identity()
    module.forward = partial(torch.mul, other=3)  # an instance may have a forward of its own
    before = module.forward
    with intercepted(module, lambda output: output + 1), intercepted(module, lambda output: 10 * output):
        assert module(torch.ones(())) == 40
    assert module.forward is before
    assert not module._forward_hooks
    with pytest.raises(RuntimeError, match="stop"), intercepted(module, lambda output: output):
        raise RuntimeError("stop")
    assert module.forward is before
