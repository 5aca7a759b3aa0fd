from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import seglens
from seglens.errors import ModelError, SettingError, UnknownNameError
from seglens.models.outputs import check_outputs
from seglens.models.segmenter import (
    ModelSpec,
    Segmenter,
    complete,
    evaluating,
    pad_to_divisor,
)

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"width": 4},
    "resnet-unet": {"encoder": "resnet18"},
    "unetplusplus": {"encoder": "efficientnet-b0"},
    "deeplabv3": {"encoder": "mobilenet_v2"},
}


def plain(**fields) -> ModelSpec:
    """Describe a foreign module whose images are not normalised."""
    defaults: dict[str, Any] = {
        "architecture": "wrapped",
        "channels": 1,
        "mean": (0.0,),
        "std": (1.0,),
        "image_size": 16,
    }
    return ModelSpec(**(defaults | fields))


class Returns(nn.Module):
    """A 1x1 convolution whose result is handed on as ``pack`` says."""

    def __init__(self, pack, outputs: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, outputs, 1)
        self.pack = pack

    def forward(self, images: Tensor):
        return self.pack(self.conv(images))


@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SMALL)
def test_every_model_takes_any_size(name, channels, size):
    spec = ModelSpec(
        architecture=name, channels=channels, mean=(0.4,) * channels, std=(0.2,) * channels, classes=3,
        head="softmax", image_size=64, **SMALL[name],
    )  # fmt: skip
    segmenter = Segmenter.from_spec(spec).eval()
    with torch.no_grad():
        logits = segmenter(torch.rand(2, channels, *size))
    # Only the shape: what the networks compute is tested beside them, and by training.
    assert logits.shape == (2, 3, *size)
    assert logits.isfinite().all()


def test_window_then_mean_and_std():
    """By hand: 12-bit pictures in 16 bits, window [0, 1/16]; (0.03125 * 16 - 0.3) / 0.1 = 2."""
    spec = plain(window=(0.0, 1 / 16), mean=(0.3,), std=(0.1,))
    segmenter = Segmenter(nn.Identity(), spec)
    images = torch.full((1, 1, 4, 4), 0.03125)
    torch.testing.assert_close(segmenter(images), torch.full((1, 1, 4, 4), 2.0))


def test_padding_is_on_the_normalised_image_and_cropped_back():
    sizes = []

    def remember(logits: Tensor) -> Tensor:
        sizes.append(tuple(logits.shape[-2:]))
        return logits

    module = Returns(remember)
    images = torch.rand(2, 1, 50, 70)
    logits = Segmenter(module, plain(divisor=32))(images)
    assert sizes == [(64, 96)]
    torch.testing.assert_close(logits, module.conv(images))
    torch.testing.assert_close(logits, Segmenter(module, plain())(images))


def test_pad_repeats_the_border():
    images = torch.arange(6.0).reshape(1, 1, 2, 3)
    expected = torch.tensor([[0.0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]])
    torch.testing.assert_close(pad_to_divisor(images, 4)[0, 0], expected)
    assert pad_to_divisor(images[..., :2], 2).data_ptr() == images.data_ptr()


def test_low_resolution_logits_are_interpolated_between_pixel_centres():
    module = Returns(lambda logits: functional.avg_pool2d(logits, 4))
    images = torch.rand(1, 1, 16, 16)
    coarse = functional.avg_pool2d(module.conv(images), 4)
    got = Segmenter(module, plain())(images)
    torch.testing.assert_close(got, functional.interpolate(coarse, (16, 16), mode="bilinear"))
    # A linear ramp stays a linear ramp away from the border, which only pixel centres give.
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    fine = Segmenter(nn.Upsample(scale_factor=0.25, mode="nearest"), plain())(
        ramp.repeat_interleave(4, -1).repeat_interleave(4, -2)
    )
    torch.testing.assert_close(fine[0, 0, 0, 2:14].diff(), torch.full((11,), 0.25))


def test_wrong_number_of_outputs():
    segmenter = Segmenter(Returns(lambda x: x, outputs=5), plain(head="softmax", classes=3))
    with pytest.raises(ModelError, match=r"1 x 5 x 8 x 8.*the classes need 3 output channels"):
        segmenter(torch.rand(1, 1, 8, 8))


def test_wrong_number_of_channels():
    with pytest.raises(ModelError, match="images have 3 channels, the model takes 1"):
        Segmenter(nn.Identity(), plain())(torch.rand(1, 3, 8, 8))


def test_probabilities_become_logits():
    logits = torch.randn(1, 1, 8, 8)
    sigmoid = Segmenter(nn.Sigmoid(), plain(outputs_are="probabilities"))
    torch.testing.assert_close(sigmoid(logits), logits)
    several = torch.randn(1, 3, 8, 8)
    spec = plain(
        channels=3, mean=(0.0,) * 3, std=(1.0,) * 3, classes=3, head="softmax", outputs_are="probabilities"
    )
    softmax = Segmenter(nn.Softmax(dim=1), spec)
    torch.testing.assert_close(softmax(several).softmax(1), several.softmax(1))
    saturated = Segmenter(nn.Hardtanh(0.0, 1.0), plain(outputs_are="probabilities"))
    assert saturated(100 * torch.randn(1, 1, 8, 8)).isfinite().all()


def test_outputs_are_checked_against_what_is_declared():
    with pytest.raises(ModelError, match=r"all lie in .* outputs_are='probabilities'"):
        check_outputs(torch.rand(1, 1, 16, 16), None)
    check_outputs(torch.rand(1, 1, 16, 16), "logits")
    check_outputs(torch.rand(1, 1, 16, 16), "probabilities")
    check_outputs(torch.zeros(1, 1, 16, 16), None)  # a silent model
    check_outputs(torch.rand(1, 1, 4, 4), None)  # too few pixels to tell
    check_outputs(torch.randn(2, 3, 8, 8), None)
    with pytest.raises(ModelError, match=r"all lie in .* outputs_are='probabilities'"):
        check_outputs(torch.randn(2, 3, 8, 8).softmax(dim=1), None)
    with pytest.raises(ModelError, match="declared to be probabilities, but lie between -2 and 1"):
        check_outputs(torch.tensor([-2.0, 1.0]).expand(1, 1, 8, 2), "probabilities")


@pytest.mark.parametrize("declared", [None, "probabilities"])
@pytest.mark.parametrize("num", [2, 3])
def test_a_sigmoid_for_each_of_several_labels_is_no_softmax(num, declared):
    raw = torch.randn(2, num, 8, 8).sigmoid()
    with pytest.raises(ModelError, match=r"don't sum to 1.*several labels with a sigmoid each.*'multilabel'"):
        check_outputs(raw, declared)
    check_outputs(raw, "probabilities", exclusive=False)
    check_outputs(raw, "logits")


@pytest.mark.parametrize("levels", [1, 2, 255])
def test_a_mask_in_place_of_logits(levels):
    mask = (torch.rand(1, 1, 16, 16) > 0.5) * float(levels)
    with pytest.raises(ModelError, match=f"whole numbers from 0 to {levels}: that is a mask already"):
        check_outputs(mask, None)


def test_a_mask_of_two_levels_in_place_of_logits():
    one_hot = torch.randn(2, 3, 16, 16).softmax(1).round() * 2 - 1
    with pytest.raises(ModelError, match="-1 or 1 and nothing between: that is a mask already"):
        check_outputs(one_hot, None)
    biases = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1).expand(2, 2, 16, 16)  # no picture moves them
    check_outputs(biases, None)


@pytest.mark.parametrize(
    ("last", "named"),
    [
        (torch.relu, "a ReLU"),
        (torch.tanh, "a tanh"),
        (lambda raw: 100 * raw.sigmoid(), "a sigmoid times 100"),
        (lambda raw: 255 * raw.sigmoid(), "a sigmoid times 255"),
        (torch.nn.functional.logsigmoid, "a logarithm of probabilities"),
        (torch.nn.functional.softplus, "a ReLU, a softplus"),
        (lambda raw: (raw / 5).exp(), "a ReLU, a softplus, an exponential"),
        (lambda raw: 40 * raw.sigmoid(), "a ReLU, a softplus, an exponential or a sigmoid times a number"),
    ],
)
def test_what_no_last_step_of_logits_returns(last, named):
    raw = last(50 * torch.randn(2, 1, 16, 16))
    with pytest.raises(ModelError, match=f"as {named}.*Logits are expected"):
        check_outputs(raw, None)
    check_outputs(raw, "logits")
    check_outputs(torch.randn(2, 1, 16, 16).abs() + 1, None)  # all above 0, and none at an end
    check_outputs(-torch.randn(2, 1, 16, 16).abs() - 1, None)


@pytest.mark.parametrize("last", [torch.softmax, torch.log_softmax])
def test_a_softmax_is_not_taken_for_several_labels(last):
    raw = last(torch.randn(2, 3, 16, 16), 1)
    with pytest.raises(ModelError, match=r"probabilities that sum to 1.*head='softmax'"):
        check_outputs(raw, "probabilities" if last is torch.softmax else None, exclusive=False)
    check_outputs(raw, "probabilities" if last is torch.softmax else None)


@pytest.mark.parametrize("declared", [None, "probabilities"])
def test_a_softmax_over_the_only_channel_says_nothing(declared):
    raw = torch.randn(2, 1, 16, 16).softmax(1)
    with pytest.raises(ModelError, match=r"is 1 everywhere, as a softmax over one channel"):
        check_outputs(raw, declared)
    check_outputs(raw, "logits")


def test_probabilities_times_a_number_are_no_logits():
    raw = 100 * torch.randn(2, 3, 16, 16).softmax(1)
    with pytest.raises(ModelError, match=r"same sum at every pixel, as probabilities times a number"):
        check_outputs(raw, None)
    check_outputs(raw, "logits")
    check_outputs(raw + torch.rand(2, 3, 16, 16), None)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_an_answer_that_is_not_finite(bad):
    raw = torch.randn(1, 1, 8, 8)
    raw[0, 0, 2, 3] = bad
    with pytest.raises(ModelError, match="not finite: 1 of 64 values are NaN or infinite"):
        check_outputs(raw, "logits")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": (float("nan"),)}, "mean must be finite"),
        ({"mean": (float("inf"),)}, "mean must be finite"),
        ({"std": (float("nan"),)}, "std must be finite and at least 1e-06"),
        ({"std": (float("inf"),)}, "std must be finite"),
        ({"std": (1e-300,)}, "std must be finite and at least 1e-06"),
        ({"window": (0.0, float("inf"))}, "window's ends must be finite"),
        ({"window": (float("nan"), 1.0)}, "window's ends must be finite"),
    ],
)
def test_numbers_that_normalise_nothing(fields, message):
    with pytest.raises(SettingError, match=message):
        plain(**fields)


def test_a_network_of_one_size_says_so():
    module = nn.Sequential(nn.Flatten(), nn.Linear(256, 256), nn.Unflatten(1, (1, 16, 16)))
    segmenter = Segmenter(module, plain())
    assert segmenter(torch.rand(1, 1, 16, 16)).shape == (1, 1, 16, 16)
    with pytest.raises(ModelError, match=r"can't take images of 8 x 8 pixels, and was tried with 16 x 16"):
        segmenter(torch.rand(1, 1, 8, 8))


def test_probabilities_and_mask_of_a_sigmoid():
    segmenter = Segmenter(nn.Identity(), plain(threshold=0.25))
    logits = torch.tensor([0.2, 0.25, 0.3, 0.9]).logit(eps=None).reshape(1, 1, 2, 2)
    found = segmenter.probabilities(logits)
    torch.testing.assert_close(found[0, 1].flatten(), torch.tensor([0.2, 0.25, 0.3, 0.9]))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 2, 2))
    assert segmenter.mask(logits).flatten().tolist()[::2] == [0, 1]
    assert segmenter.mask(logits).flatten()[3] == 1


def test_mask_of_a_softmax_is_the_largest():
    spec = plain(classes=3, head="softmax")
    segmenter = Segmenter(nn.Identity(), spec)
    logits = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(segmenter.mask(logits), segmenter.probabilities(logits).argmax(dim=1))


def test_normalisation_is_not_in_the_state_dict():
    module = nn.Conv2d(1, 1, 1)
    assert set(Segmenter(module, plain()).state_dict()) == {"module.weight", "module.bias"}


def test_follows_the_networks_dtype():
    segmenter = Segmenter(nn.Conv2d(1, 1, 1).double(), plain())
    assert segmenter(torch.rand(1, 1, 8, 8)).dtype == torch.float64
    half = Segmenter(nn.Conv2d(1, 1, 1).bfloat16(), plain())
    assert half(torch.rand(1, 1, 8, 8)).dtype == torch.float32


def test_training_flags_come_back_one_by_one():
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1)).train()
    module[1].eval()
    with pytest.raises(ZeroDivisionError), evaluating(module):
        assert not 1 / module[0].training
    assert [part.training for part in module.modules()] == [True, True, False]


class Merging(nn.Conv2d):
    """Adds its adapter to its weights in evaluation, and takes it out in training, as LoRA layers do."""

    merged = False

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.merged == mode:
            with torch.no_grad():
                self.weight.add_(-1 if mode else 1)
            self.merged = not mode
        return self


def test_what_a_network_does_at_a_change_of_mode_is_undone():
    adapter = Merging(1, 1, 1)
    weight = adapter.weight.detach().clone()
    with evaluating(nn.Sequential(adapter)):
        torch.testing.assert_close(adapter.weight.detach(), weight + 1)
    torch.testing.assert_close(adapter.weight.detach(), weight)
    assert (adapter.training, adapter.merged) == (True, False)
    outer = nn.Sequential(adapter)  # the flag of the outer part is another
    adapter.eval()
    weight = adapter.weight.detach().clone()
    with evaluating(outer):
        pass
    torch.testing.assert_close(adapter.weight.detach(), weight, rtol=0, atol=0)
    assert [part.training for part in outer.modules()] == [True, False]


def test_a_network_that_can_not_change_its_mode():
    class Stays(nn.Conv2d):
        def train(self, mode: bool = True) -> Self:
            raise ValueError("I am frozen")

    network = nn.Sequential(nn.Dropout(), Stays(1, 1, 1))
    with pytest.raises(ModelError, match=r"can't be put in evaluation mode.*I am frozen.*Correct its train"):
        Segmenter(network, plain()).try_out(16)
    assert all(part.training for part in network.modules())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["frozen TorchScript", "torch.export"])
def test_programs_without_modes_are_run_as_they_are(kind):
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1)).eval()
    images = torch.rand(1, 1, 16, 16)
    program: nn.Module
    if kind == "torch.export":
        program = torch.export.export(network, (images,)).module()
    else:
        program = torch.jit.freeze(torch.jit.script(network))
    torch.testing.assert_close(
        Segmenter(program, plain()).try_out(16), Segmenter(network, plain()).try_out(16)
    )
    inside = nn.Sequential(program, nn.Dropout())
    with evaluating(inside):
        assert not inside[1].training
        torch.testing.assert_close(inside(images), network(images))
    assert inside[1].training


class Square(nn.Module):
    """Pads pictures to squares at the end, or stretches them, and answers for the square."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(1, 1, 3, padding=1), how

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = images.shape[2:]
        if self.how == "stretch":
            return self.conv(functional.interpolate(images, (32, 32)))
        return self.conv(functional.pad(images, (0, max(rows - columns, 0), 0, max(columns - rows, 0))))


def test_pictures_of_another_shape_than_the_network_was_tried_with():
    half: dict[str, Any] = {"mean": (0.5,), "std": (0.5,), "channels": 1, "classes": ("background", "b")}
    square = seglens.wrap(Square("pad"), image_size=32, **half)
    assert square.predict(torch.rand(1, 1, 48, 48)).logits.shape == (1, 1, 48, 48)
    with pytest.raises(ModelError, match=r"64 x 64 values for 32 x 64 pixels.*image_size=\(32, 64\)"):
        square.predict(torch.rand(1, 1, 32, 64))
    with pytest.raises(ModelError, match="not that of the whole picture"):
        seglens.wrap(Square("pad"), image_size=(32, 64), **half)
    network = Square("stretch")
    wide = seglens.wrap(network, image_size=(32, 64), **half)
    images = torch.rand(1, 1, 32, 64)
    expected = functional.interpolate(network(2 * images - 1), (32, 64), mode="bilinear")
    torch.testing.assert_close(wide.predict(images).logits, expected.detach())


@pytest.mark.parametrize("size", [(32, 64), (33, 65), (45, 101), (32, 36), (7, 64)])
@pytest.mark.parametrize("ceil", [False, True])
def test_a_coarse_answer_is_taken_for_pictures_of_any_shape(size, ceil):
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(4, ceil_mode=ceil))
    assert Segmenter(network, plain())(torch.rand(1, 1, *size)).shape == (1, 1, *size)


def test_trying_out_leaves_the_network_as_found():
    module = nn.Sequential(nn.BatchNorm2d(1)).train()
    before = torch.get_rng_state()
    Segmenter(module, plain()).try_out(16)
    torch.testing.assert_close(torch.get_rng_state(), before)
    assert module[0].num_batches_tracked == 0
    assert module[0].training


def test_trying_out_says_what_the_network_can_not_take():
    with pytest.raises(ModelError, match=r"can't take an image of shape \(1, 16, 16\)"):
        Segmenter(nn.Conv2d(3, 1, 1), plain()).try_out(16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": 3}, "a sigmoid head has 2 classes"),
        ({"mean": (0.1, 0.2)}, "need one value for each of 1 channels"),
        ({"std": (0.0,)}, "std must be finite and at least"),
        ({"window": (0.5, 0.5)}, "low one below"),
        ({"classes": 1}, "greater than or equal to 2"),
        ({"head": "relu"}, "'softmax' or 'multilabel'"),
    ],
)
def test_specs_that_contradict_themselves(fields, message):
    with pytest.raises(SettingError, match=message):
        plain(**fields)


def test_spec_comes_back_from_json():
    spec = ModelSpec(architecture="unet", width=8, window=(0.0, 4095 / 65535))
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


def test_spec_is_completed_from_the_zoo():
    assert complete(ModelSpec(architecture="deeplabv3")).encoder == "resnet50"
    assert complete(ModelSpec(architecture="unet")).width == 64
    assert complete(ModelSpec(architecture="unet", divisor=64)).divisor == 64
    with pytest.raises(UnknownNameError, match="Unknown model 'wrapped'"):
        complete(plain())
