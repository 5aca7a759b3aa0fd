import copy
import math
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import seglens
from seglens.errors import SettingError, UnknownNameError
from seglens.explain.explanation import Explanation, Explanations
from seglens.explain.target import Target
from seglens.explain.verify import verify
from seglens.explain.verify.case import Measured, Snapshot, changes, worst, worst_of
from seglens.explain.verify.identities import ASIDE
from seglens.explain.verify.numerics import _out_of_order
from seglens.explain.verify.rules import RULES
from seglens.seeds import content_normal

SMALL = (slice(0, 2), slice(None), slice(0, 16), slice(0, 16))
"""Two pictures of 16 x 16 pixels are enough."""


@pytest.fixture
def images(images):
    return images[SMALL]


@pytest.fixture
def target(images):
    pixels = torch.zeros(2, 16, 16, dtype=torch.bool)
    pixels[0, 2:9, 3:14] = True
    pixels[1, 4:, 4:] = True
    return Target("region", 1, pixels)


@pytest.fixture
def make_unet(make_unet):
    return lambda: make_unet(seed=3)


@pytest.fixture
def only(monkeypatch):
    """Leave out all checks but some."""

    def leave(*names):
        kept = {name: rule for name, rule in RULES.items() if name in names}
        monkeypatch.setattr("seglens.explain.verify.RULES", kept)

    return leave


def failed(found):
    return [check.name for check in found.checks if check.outcome == "fail"]


def test_a_sound_model_passes(make_run, make_unet, images, target):
    found = verify(make_run(make_unet()), images, target, layers=["deep", "up"])
    assert [check.name for check in found.checks] == list(RULES)
    assert failed(found) == []
    assert found.passed
    applicable = [check.name for check in found.checks if check.value is not None]
    assert applicable == [name for name in RULES if name != "compiled-is-eager"]
    assert found["compiled-is-eager"].note == "not asked for: compiling takes a minute or more"
    # "up" is followed by a convolution of 1 x 1; "deep" by more than that.
    assert found["hires-completeness"].note == "at up, seg_head"
    assert found["model-as-found"].value == 0


def test_pixels_of_different_weight(make_run, make_unet, images, target, only):
    """The mirror images that fill the batch have the weights mirrored."""
    only("batch-is-single", "hires-completeness")
    weighted = replace(target, weights=torch.rand(2, 16, 16))
    found = verify(make_run(make_unet()), images, weighted, layers=["deep", "up"])
    assert [check.outcome for check in found.checks] == ["pass", "pass"]


class TwoBranches(nn.Module):
    """A linear branch, ``up``, beside one that is added to it."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.loud, self.up, self.head = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)

    def forward(self, images):
        return self.loud(images) + self.share * self.head(self.up(images))


@pytest.mark.parametrize(("share", "held"), [(1.0, True), (1e-9, False)])
def test_a_layer_whose_part_float32_cannot_tell_from_the_score_is_left_out(
    share, held, make_run, images, target, only
):
    only("hires-completeness")
    found = verify(make_run(TwoBranches(share)), images, target, layers=["up"])["hires-completeness"]
    assert found.outcome != "fail"
    assert (found.outcome == "pass" and "up" in found.note.removeprefix("at ").split(", ")) == held


def test_results_are_plain_data(make_run, make_unet, images, target, only):
    only("hires-cam-is-window-1", "ig-channels")
    found = verify(make_run(make_unet()), images, target, layers=["up"], seed=3)
    data: Any = found.to_json()
    assert (data["passed"], data["num_images"], data["layers"], data["seed"]) == (True, 2, ["up"], 3)
    assert data["checks"][0] == {
        "name": "hires-cam-is-window-1",
        "about": RULES["hires-cam-is-window-1"].about,
        "value": 0.0,
        "limit": 1e-5,
        "note": "at up",
        "option": "",
        "outcome": "pass",
    }


def test_pictures_and_target_left_out(make_run, make_unet):
    """Noise; and where the model predicts nothing, the whole picture."""
    run = make_run(make_unet())
    spec = run.spec.model_copy(update={"image_size": 16, "threshold": 0.999999})
    run.segmenter.spec = spec
    found = seglens.verify(run, layers=["up"])
    assert found.note == "There are no pictures, so 2 of noise are taken."
    assert (found.num_images, failed(found)) == (2, [])


# Models in which something is wrong: the right line fails.


class Broken(nn.Module):
    """A small U-Net with something between its last block and its head."""

    def __init__(self, unet, between):
        super().__init__()
        self.unet = unet
        self.between = between
        self.head = unet.head
        unet.head = between

    def forward(self, images):
        return self.head(self.unet(images))


class Counting(nn.Module):
    """Changes from run to run."""

    runs: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, values):
        self.runs += 1
        return values * (1 + 0.1 * self.runs)


class Dropping(nn.Module):
    """Dropout that evaluation does not switch off."""

    def forward(self, values):
        return nn.functional.dropout(values, 0.3, training=True)


class Comparing(nn.Module):
    """Looks at the whole batch."""

    def forward(self, values):
        return values * (1 + values.mean((0, 2, 3), keepdim=True))


class Lying(nn.Module):
    """A gradient of another function than the one that is computed: a straight-through estimator."""

    def forward(self, values):
        return 3 * values.detach() + values - values.detach()


@pytest.mark.parametrize(
    ("between", "lines"),
    [
        (Counting, ["repeatable", "model-as-found"]),
        (Dropping, ["repeatable"]),
        (Comparing, ["batch-is-single"]),
        (Lying, ["ig-completeness", "hires-completeness"]),
    ],
)
def test_a_model_with_something_wrong_fails_the_right_line(
    between, lines, make_run, make_unet, images, target, only
):
    only(*set(RULES) - {"bf16-scores", "autocast-is-float32"})
    found = verify(make_run(Broken(make_unet(), between())), images, target, layers=["unet.up", "head"])
    assert set(lines) <= set(failed(found))
    assert not found.passed
    if "ig-completeness" in lines:
        note = found["ig-completeness"].note
        assert "it does not fall: the gradient is not the slope of the score" in note
        # 3 f is computed and the slope is that of f: off by twice itself.
        assert "off by 2.0e+00" in note
    others = {"repeatable", "batch-is-single", "model-as-found", "hires-cam-is-window-1"} - set(lines)
    assert not others & set(failed(found))
    if "repeatable" in lines:
        assert found["batch-is-single"].note == "one picture's map differs from run to run already"


def test_parts_that_are_computed_again_are_no_second_run(make_run, make_unet, images, target):
    """The oracle is the network without checkpointing."""
    values = []
    for again in (False, True):
        unet = make_unet()
        if again:
            unet.deep.forward = partial(checkpoint, unet.deep.forward, use_reentrant=False)
        found = verify(make_run(unet), images, target, layers=["deep", "up"])
        values.append({check.name: check.value for check in found.checks})
    assert values[1] == pytest.approx(values[0], abs=1e-6)


class Rounding(nn.Module):
    """Differs between batches in float32 alone, as kernels do that add in another order."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, values):
        return values * (1 + (self.size * len(values) if values.dtype == torch.float32 else 0))


@pytest.mark.parametrize(("size", "outcome"), [(1e-4, "pass"), (1e-2, "fail")])
def test_rounding_is_told_from_what_depends_on_the_batch(
    size, outcome, make_run, make_unet, images, target, only
):
    only("batch-is-single")
    run = make_run(Broken(make_unet(), Rounding(size)))
    found = verify(run, images, target, layers=["unet.up"])["batch-is-single"]
    assert found.outcome == outcome
    assert (found.note.startswith("in float64; ") and "e-04 in float32" in found.note) == (outcome == "pass")
    assert ("in float64: rounding tips a unit" in found.note) == (outcome == "fail")


class Turned(nn.Module):
    """Another function in float64 than in float32."""

    def forward(self, values):
        return values if values.dtype == torch.float32 else -values


def test_a_copy_that_answers_otherwise_checks_nothing(make_run, make_unet, images, target, only):
    only("gradient-is-slope")
    run = make_run(Broken(make_unet(), Turned()))
    found = verify(run, images, target, layers=["unet.up"])["gradient-is-slope"]
    assert (found.outcome, found.value) == ("not applicable", None)
    assert found.note == "its copy in float64 answers otherwise"


class Waves(nn.Module):
    """Its score turns often between black and the picture."""

    def __init__(self, often):
        super().__init__()
        self.same, self.often = nn.Conv2d(3, 1, 1), often

    def forward(self, images):
        return torch.sin(self.often * self.same(images)) + 0.2 * images[:, :1]


class Leaping(nn.Module):
    """Its score goes from 0 at black to 1 within a millionth of the way, and by half of that back."""

    def __init__(self):
        super().__init__()
        self.same = nn.Conv2d(3, 1, 1)

    def forward(self, images):
        brightness = images.mean((1, 2, 3), keepdim=True)
        return brightness / (brightness + 1e-7) - 0.5 * brightness + 0 * self.same(images)


def test_a_score_that_jumps_at_black_is_measured(make_run, only):
    """In closed form: with m the mean of the picture it changes by 1 - m / 2, after a jump of 1."""
    only("ig-completeness")
    images = torch.linspace(0.6, 1, 3 * 16 * 16).view(1, 3, 16, 16)  # on average .8
    run = seglens.wrap(
        Leaping(),
        classes=("background", "a"),
        image_size=16,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        outputs_are="logits",
    )
    target = seglens.targets.whole_class(torch.ones(1, 16, 16, dtype=torch.bool))
    note = verify(run, images, target, layers=["same"])["ig-completeness"].note
    change = 1 - 0.8 / 2
    first, length = (1 - 0.4 / 64) / change, (1 + 0.4 * 62 / 64) / change
    assert f"the score moves {length:.2g} times its change, {first:.2g} in the first 1/64: it jumps" in note
    assert "baseline='blur'" in note
    error = re.search(r"slope of the score \(to ([\d.e+-]+)\)", note)
    assert error is not None
    assert float(error[1]) < 1e-3


@pytest.mark.parametrize(("often", "said"), [(10, "32 steps"), (1000, "so it falls: ")])
def test_whether_more_steps_would_do_is_said(often, said, make_run, images, target, only):
    only("ig-completeness")
    torch.manual_seed(0)
    run = make_run(Waves(often))
    found = verify(run, images, target, layers=["same"])["ig-completeness"]
    assert said in found.note


class Bent(nn.Module):
    """Its slope is 1 below ``at``, and 11 above."""

    def __init__(self):
        super().__init__()
        self.same, self.at = nn.Conv2d(3, 1, 1), None

    def forward(self, images):
        values = self.same(images)
        if self.at is None or values.shape[-2:] != self.at.shape[-2:]:
            return values
        return values + 10 * (values - self.at).relu().to(values.dtype)


@pytest.mark.parametrize("fine", [True, False])
def test_a_kink_within_the_coarser_steps_is_stepped_over(fine, make_run, images, target, only, monkeypatch):
    only("gradient-is-slope")
    torch.manual_seed(0)
    module = Bent()
    run = make_run(module)
    kept = []
    handle = module.same.register_forward_hook(lambda module, given, output: kept.append(output))
    first = images[:1].double()
    copy.deepcopy(run.segmenter).double()(first)
    handle.remove()
    size = kept[0].square().mean().sqrt()
    aside = size * content_normal(first, kept[0].shape[1:], 0, "aside").to(first)
    module.at = (kept[0] + ASIDE * aside + 8e-7 * size).detach()  # where it is looked at, but for 8e-7
    if not fine:
        monkeypatch.setattr("seglens.explain.verify.identities.FINE", ())
    found = verify(run, images, target, layers=["same"], seed=0)["gradient-is-slope"]
    assert found.outcome == ("pass" if fine else "fail")
    assert found.value is not None
    assert found.value < 1e-5 if fine else found.value > 1


def test_what_is_left_behind_is_told(make_run, make_unet, images, target, monkeypatch, only):
    def careless(case):
        case.run.segmenter.module.head.register_forward_hook(lambda *given: None)
        case.run.segmenter.module.up.train()
        return Measured(0.0)

    monkeypatch.setitem(RULES, "repeatable", RULES["repeatable"]._replace(measure=careless))
    only("repeatable", "model-as-found")
    found = verify(make_run(make_unet()), images, target, layers=["up"])
    assert failed(found) == ["model-as-found"]
    assert found["model-as-found"].value == 5
    assert found["model-as-found"].note.startswith("hooks of module.head, training flag of module.up, ")


def test_everything_that_changes_in_a_model_is_named():
    first, second = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
    model = nn.Sequential(first, second)
    first.weight.data.fill_(torch.nan)
    before = Snapshot.of(model)
    assert changes(before, Snapshot.of(model)) == []  # a NaN is itself
    assert first.bias is not None
    first.bias.data += 1e-7
    second(torch.ones(2, 1, 3, 3))
    second.weight.grad = torch.ones(1)
    first.weight.requires_grad_(False)
    second.eval()
    model.register_forward_hook(lambda *given: None)
    assert changes(before, Snapshot.of(model)) == [
        "buffer 1.num_batches_tracked",
        "buffer 1.running_mean",
        "buffer 1.running_var",
        "gradient of 1.weight",
        "weights 0.bias",
        "frozen 0.weight",
        "hooks of the model",
        "training flag of 1",
    ]


# Compilation, without a compiler.


def test_compiled_is_eager(make_run, make_unet, images, target, monkeypatch, only):
    """The copy is compiled, not the model; what the compiler gets wrong is found."""
    only("compiled-is-eager")
    wrong: list[bool] = []

    def compiled(self, *args, **kwargs):
        assert self is not run.segmenter.module
        if wrong:
            self.head.bias.data += 0.1

    monkeypatch.setattr(nn.Module, "compile", compiled)
    run = make_run(make_unet())
    right = verify(run, images, target, layers=["up"], compiled=True)["compiled-is-eager"]
    assert (right.outcome, right.value) == ("pass", 0.0)
    wrong.append(True)
    assert verify(run, images, target, layers=["up"], compiled=True)["compiled-is-eager"].outcome == "fail"


def test_a_model_that_does_not_compile(make_run, make_unet, images, target, monkeypatch, only):
    only("compiled-is-eager")

    def refuse(self, *args, **kwargs):
        raise RuntimeError("no C++ compiler found\nand much more")

    monkeypatch.setattr(nn.Module, "compile", refuse)
    found = verify(make_run(make_unet()), images, target, layers=["up"], compiled=True)["compiled-is-eager"]
    assert found.outcome == "not applicable"
    assert found.note == "it can't be compiled: RuntimeError: no C++ compiler found"


# How far apart two maps are.


def test_the_worst_difference_of_maps():
    pixels = torch.ones(2, 1, 2, dtype=torch.bool)
    target = Target("t", 1, pixels)

    def made(values):
        return Explanation("mine", None, target, torch.tensor(values))

    one = made([[[0.0, 4.0]], [[0.0, 1.0]]])
    other = made([[[1.0, 4.0]], [[0.5, -1.0]]])
    assert worst_of([("mine", one, other)]) == (2.0, "in mine")
    assert worst(Explanations([one]), Explanations([one])) == (0.0, "in mine")
    flat = made([[[0.0, 4.0]], [[1.0, 1.0]]])
    assert worst_of([("mine", one, flat)]).value == math.inf
    none = replace(one, map=torch.zeros(2, 1, 2), status=())
    assert worst_of([("mine", none, none)]).value is None


def test_rank_correlation():
    values = torch.tensor([3.0, 1.0, 2.0, 5.0])
    assert _out_of_order(values, values.exp()) == pytest.approx(0)
    assert _out_of_order(values, -values) == pytest.approx(2)
    # d = (0, 1, 1, 0): 6 * 2 / (4 * 15) = 0.2.
    assert _out_of_order(values, torch.tensor([3.0, 2.0, 1.0, 5.0])) == pytest.approx(0.2)
    assert _out_of_order(values, torch.ones(4)) == 1
    assert _out_of_order(torch.ones(4), torch.ones(4)) == 0


# What can't be verified.


def test_wrong_arguments(make_run, make_unet, images, target):
    run = make_run(make_unet())
    with pytest.raises(UnknownNameError, match="dep"):
        verify(run, images, target, layers=["dep"])
    with pytest.raises(SettingError, match="give at least one picture"):
        verify(run, images[:0], layers=["up"])
    with pytest.raises(SettingError, match="no layer to verify"):
        verify(run, images, layers=[])
    empty = Target("nothing", 1, torch.zeros_like(target.pixels))
    with pytest.raises(SettingError, match="'nothing' is empty in 2 of 2 pictures; leave those out"):
        verify(run, images, empty, layers=["up"])
