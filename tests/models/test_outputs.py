"""Which tensor is the answer: by hand-made outputs of every form that networks have."""

import re
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seglens.errors import ModelError, SettingError
from seglens.models.outputs import find_output
from seglens.runs import wrap

TWO = ("background", "bright")
MAIN, AUX, FEATURES = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8), torch.randn(2, 16, 4, 4)


@dataclass
class Answer:
    """An output object with attributes."""

    logits: Tensor
    features: Tensor


Pair = namedtuple("Pair", "masks boundary")
STACK = torch.stack([AUX, MAIN, AUX], dim=1)


@pytest.mark.parametrize(
    ("output", "place"),
    [
        (MAIN, ""),
        ([MAIN], "0"),
        ({"any": MAIN}, "any"),
        ({"aux": AUX, "out": MAIN}, "out"),
        (OrderedDict(out=MAIN, aux=AUX, aux_2=AUX), "out"),
        ({"loss": torch.tensor(1.0), "logits": MAIN}, "logits"),
        ({"logits": MAIN, "hidden_states": (AUX, AUX)}, "logits"),
        ({"logits": MAIN, "encoder_hidden_states": (AUX,), "auxiliary_logits": AUX}, "logits"),
        ((FEATURES, MAIN), "1"),
        ({"features": FEATURES, "seg": MAIN}, "seg"),
        ((MAIN, torch.zeros(2, 4)), "0"),  # segmentation-models-pytorch with a class beside the mask
        (Answer(MAIN, FEATURES), "logits"),
        (Pair(MAIN, FEATURES), "masks"),
        ({"decoder": {"features": [FEATURES, FEATURES], "head": [MAIN]}}, "decoder.head.0"),
        ({"out": MAIN, "same": MAIN}, "out"),
    ],
)
def test_the_only_answer_is_found(output, place):
    found = find_output(output, {1}, batch=2)
    assert found.tensor is MAIN
    assert found.place == place


@pytest.mark.parametrize(
    ("output", "listed"),
    [
        ((MAIN, AUX), r"0 \(2 x 1 x 8 x 8\), 1 \(2 x 1 x 8 x 8\)"),
        ([AUX, AUX, MAIN], r"0 .*, 2 \("),
        ({"aux": AUX, "main": MAIN}, r"aux .*, main .*output='main'.*--output main"),
        ({"out": MAIN, "edges": AUX}, "out .*, edges"),
        ({"logits": MAIN, "masks": AUX}, "logits .*, masks"),
        ({"out": MAIN, "logits": AUX}, "out .*, logits"),
        ([{"out": MAIN}, {"out": AUX}], r"0\.out .*, 1\.out"),
        ({"a": {"x": MAIN}, "b": (AUX,)}, r"a\.x .*, b\.0"),
        (Pair(MAIN, AUX), "masks .*, boundary"),
        (STACK, r"0 \(2 x 1 x 8 x 8\), 1 .*, 2"),  # deep supervision as MONAI's DynUNet stacks it
        ((MAIN, AUX[..., ::2, ::2]), r"1 \(2 x 1 x 4 x 4\)"),  # another resolution is no sign of rank
    ],
)
def test_several_answers_are_refused_with_their_places(output, listed):
    with pytest.raises(ModelError, match=f"could be its answer: .*{listed}"):
        find_output(output, {1}, batch=2)


def test_channels_of_several_kinds_are_several_answers():
    with pytest.raises(ModelError, match="2 outputs that could be its answer"):
        find_output((MAIN, torch.randn(2, 2, 8, 8)), {1, 2}, batch=2)


@pytest.mark.parametrize(
    ("output", "choice"),
    [
        ([AUX, AUX.clone(), MAIN], -1),
        ([AUX, AUX.clone(), MAIN], 2),
        ([AUX, AUX.clone(), MAIN], "-1"),
        ({"aux": AUX, "main": MAIN}, "main"),
        ({"a.b": MAIN, "a": AUX}, "a.b"),
        ({1: MAIN, 2: AUX}, 1),
        ([{"out": AUX}, {"out": MAIN}], "-1.out"),
        ([{"out": AUX}, {"out": MAIN, "aux": AUX}], 1),
        (Pair(AUX, MAIN), "boundary"),
        (Pair(AUX, MAIN), -1),
        (STACK, 1),
        (Answer(MAIN, AUX), "logits"),
    ],
)
def test_the_answer_is_chosen(output, choice):
    assert torch.equal(find_output(output, {1}, batch=2, choice=choice).tensor, MAIN)


@pytest.mark.parametrize(
    ("output", "choice", "message"),
    [
        ((MAIN, AUX), 2, r"no part '2': it is tuple\. Allowed: 0, 1"),
        ((MAIN, AUX), -3, "no part '-3'"),
        ({"aux": AUX, "main": MAIN}, "mian", "no part 'mian'.*Allowed: aux, main"),
        (MAIN, "out", "no part 'out'.*leave the choice out"),
        ((FEATURES, MAIN), 0, r"returns 0 \(2 x 16 x 4 x 4\); the classes need 1 output channels"),
        ([[MAIN, AUX], FEATURES], 0, r"could be its answer: 0\.0 .*, 0\.1"),
    ],
)
def test_a_choice_that_is_not_there(output, choice, message):
    with pytest.raises(ModelError, match=message):
        find_output(output, {1}, batch=2, choice=choice)


@pytest.mark.parametrize("output", [None, "text", {}, (), {"a": 1}, ["x"], print], ids=str)
def test_no_tensor_at_all(output):
    with pytest.raises(ModelError, match="returns no tensor"):
        find_output(output, {1}, batch=2)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(2, 8, 8), r"axis of channels is missing: return output\[:, None\]"),
        (torch.zeros(2, 8, 8, dtype=torch.int64), "a mask already: return what stands before argmax"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.bool), "a mask already"),
        (torch.zeros(2, 10), "looks like a classifier"),
        (torch.zeros(3, 1, 8, 8), "first axis is not that of the 2 pictures"),
        ([{"boxes": torch.zeros(5, 4), "masks": torch.zeros(5, 1, 8, 8)}], "That is a detector"),
        (torch.zeros(2, 8, 8, 1), r"come last: return output\.permute\(0, 3, 1, 2\)"),
        (torch.zeros(2, 5, 8, 8), "need 1 output channels. Check classes and head"),
    ],
)
def test_what_is_no_answer_says_what_to_return(output, message):
    with pytest.raises(ModelError, match=message):
        find_output(output, {1}, batch=2)


class Two(nn.Module):
    """Its main output finds bright pixels, its auxiliary one dark ones."""

    def __init__(self, pack: Any) -> None:
        super().__init__()
        self.conv, self.pack = nn.Conv2d(3, 2, 1), pack
        nn.init.constant_(self.conv.weight, 1.0)
        nn.init.constant_(self.conv.get_parameter("bias"), -1.5)

    def forward(self, images: Tensor) -> Any:
        raw = self.conv(images)
        return self.pack(raw[:, :1], -raw[:, 1:])


def bright_pixels(run) -> int:
    images = torch.full((1, 3, 16, 16), 0.1)
    images[..., 2:6, 2:6] = 0.9
    return int(run.predict(images).mask.sum())


@pytest.mark.parametrize(
    ("pack", "output", "recorded"),
    [
        (lambda main, aux: main, None, None),
        (lambda main, aux: {"aux": aux, "out": main}, None, "out"),
        (lambda main, aux: [aux, aux, main], -1, "-1"),
        (lambda main, aux: {"aux": aux, "main": main}, "main", "main"),
        (lambda main, aux: [aux, main], lambda found: found[1], None),
        (lambda main, aux: [aux, main], lambda found: found[0].neg(), None),
    ],
)
def test_wrap_takes_the_output_that_is_named_and_says_which(pack, output, recorded):
    run = wrap(Two(pack), classes=TWO, mean=(0.0,) * 3, std=(1.0,) * 3, image_size=16, output=output)
    assert run.spec.output == recorded
    assert bright_pixels(run) == 16


@pytest.mark.parametrize(
    "pack",
    [lambda m, a: [a, m], lambda m, a: (m, a), lambda m, a: [a, a, a, m], lambda m, a: {"aux": a, "main": m}],
)
def test_wrap_does_not_choose(pack):
    with pytest.raises(ModelError, match=r"could be its answer.*output="):
        wrap(Two(pack), classes=TWO, image_size=16)


def test_classes_without_a_background_are_not_taken_for_a_softmax():
    """The logits of labels with a sigmoid each look like those of a softmax."""
    module = nn.Conv2d(3, 2, 1)
    with pytest.raises(ModelError, match=r"each of man, shirt.*head='softmax'.*head='multilabel'"):
        wrap(module, classes=("man", "shirt"), image_size=16)
    assert wrap(module, classes=("man", "shirt"), head="softmax", image_size=16).spec.head == "softmax"
    assert wrap(module, classes=("Hintergrund", "shirt"), image_size=16).spec.head == "softmax"


class Told(nn.Module):
    """Brightness as logits, changed by ``change``."""

    def __init__(self, change):
        super().__init__()
        self.change = change
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.scale * torch.cat([-images[:, :1], images[:, :1]], dim=1))


def wrapped(change):
    return wrap(Told(change), classes=TWO, mean=(0.5,) * 3, std=(0.5,) * 3, image_size=64)


@pytest.mark.parametrize(
    ("change", "when"),
    [
        (lambda logits: F.dropout(logits, 0.5), "when it is asked again"),
        (lambda logits: logits + torch.rand(()), "when it is asked again"),
        (nn.BatchNorm2d(2, track_running_stats=False), "beside another picture"),
        (lambda logits: logits - logits.mean(0), "beside another picture"),
        (lambda logits: logits[:1].expand_as(logits), "as the second of two"),
        (lambda logits: logits / logits.max(), "as the second of two"),
    ],
)
def test_a_network_with_several_answers_to_one_picture_is_refused(change, when):
    with pytest.raises(ModelError, match=f"another answer to the same picture {when}"):
        wrapped(change)


@pytest.mark.parametrize(
    ("change", "border"),
    [
        (lambda logits: logits[..., 4:-4, 4:-4], (4, 4, 4, 4)),
        (lambda logits: logits[..., 3:, :-1], (0, 1, 1, 2)),
    ],
)
def test_an_answer_whose_pixels_nobody_knows_is_refused(change, border):
    with pytest.raises(ModelError, match=re.escape(f"torch.nn.functional.pad(output, {border})")):
        wrapped(change)


@pytest.mark.parametrize("step", [1, 2, 4, 5, 14])
@pytest.mark.parametrize("ceil", [False, True])
def test_a_coarse_answer_of_the_whole_picture_is_taken(step, ceil):
    run = wrapped(lambda logits: F.avg_pool2d(logits, step, ceil_mode=ceil))
    assert run.predict(torch.rand(1, 3, 64, 64)).mask.shape == (1, 64, 64)


def test_heads_in_one_stack_are_asked_for():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Unflatten(1, (2, 2)))  # MONAI's deep supervision
    with pytest.raises(ModelError, match=r"2 outputs that could be its answer: 0 \(1 x 2 x 64 x 64\)"):
        wrap(network, classes=TWO, image_size=64)
    images = torch.rand(1, 3, 64, 64)
    run = wrap(network, classes=TWO, mean=(0.0,) * 3, std=(1.0,) * 3, image_size=64, output=1)
    torch.testing.assert_close(run.predict(images).logits, network(images)[:, 1].detach())


@dataclass(slots=True)
class Slotted:
    seg: Tensor


class Returns(nn.Module):
    """Returns what a function makes of its logits."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.head, self.change = nn.Conv2d(3, 2, 1), change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.head(images))


def test_a_dataclass_with_slots_is_looked_into() -> None:
    run = wrap(Returns(Slotted), classes=("background", "cell"), image_size=32)
    assert run.spec.output == "seg"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda logits: torch.complex(logits, logits), "complex numbers: return their real part"),
        (lambda logits: logits.detach().numpy(), r"before \.numpy\(\)"),
        (lambda logits: None, "has no return"),
    ],
)
def test_odd_answers_are_named(change: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        wrap(Returns(change), classes=("background", "cell"), image_size=32)


def test_a_network_that_wants_a_dictionary_is_told_how() -> None:
    class Wants(Returns):
        def forward(self, images: Any) -> Any:
            return self.head(images["image"])

    with pytest.raises(ModelError, match=r"call=lambda net, x: net\(\{'image': x\}\)"):
        wrap(Wants(None), classes=("background", "cell"), image_size=32)
    run = wrap(
        Wants(None), classes=("background", "cell"), image_size=32, call=lambda net, x: net({"image": x})
    )
    assert run.spec.head == "softmax"


@pytest.mark.parametrize(("dims", "swapped"), [(2, True), (2, False), (3, True), (3, False)])
def test_an_answer_with_swapped_axes_is_refused_though_its_size_is_right(dims, swapped):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = (nn.Conv2d, nn.Conv3d)[dims - 2](1, 1, 3, padding=1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.conv(images)
            return logits.transpose(-1, -dims) if swapped else logits

    told: dict[str, Any] = {"classes": ("background", "cell"), "image_size": 32, "channels": 1, "dims": dims}
    if swapped:
        with pytest.raises(ModelError, match=r"doesn't lie as its picture does.*axes are swapped or turned"):
            wrap(Net(), **told)
    else:
        wrap(Net(), **told)


def test_an_answer_that_looks_elsewhere_is_not_one_that_is_turned():
    class Tag(nn.Module):
        """Answers in the middle of the picture, by what stands in its corner."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros_like(images[:, :1])
            logits[..., 12:20, 12:20] = images[..., :8, 24:].mean((1, 2, 3))[:, None, None, None]
            return logits - 0.1

    wrap(Tag(), classes=("background", "cell"), image_size=32)


def test_a_background_that_is_the_last_channel_is_brought_to_the_front() -> None:
    """As the error says it; the masks are then those of an argmax by hand."""
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 1)
    settings: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "image_size": 32}
    said = r"place 2 .*classes=\('background', 'cat', 'dog'\) and output=lambda y: y\[:, \[2, 0, 1\]\]"
    with pytest.raises(SettingError, match=said):
        wrap(network, classes=("cat", "dog", "background"), **settings)
    run = wrap(network, classes=("background", "cat", "dog"), output=lambda y: y[:, [2, 0, 1]], **settings)
    images = torch.rand(1, 3, 32, 32)
    found = run.predict(images).mask
    by_hand = torch.tensor([1, 2, 0])[network((images - 0.5) / 0.5).argmax(1)]
    assert torch.equal(found, by_hand)
