from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from seglens.errors import ModelError, UnknownNameError
from seglens.models.layers import ROLES, layers, resolve
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.models.zoo import MODELS

# What each role is, read off the networks' own forward passes by hand.
BY_HAND = {
    ("unet", None): {
        "encoder_early": "encoder.0", "encoder_mid": "encoder.2", "encoder_last": "encoder.3",
        "bottleneck": "bottleneck", "decoder_first": "decoder.0", "decoder_last": "decoder.3",
        "seg_head": "head",
    },
    ("resnet-unet", "resnet18"): {
        "encoder_early": "encoder.layer1", "encoder_mid": "encoder.layer2", "encoder_last": "encoder.layer4",
        "bottleneck": "encoder.layer4",
        "decoder_first": "decoder.blocks.0", "decoder_last": "decoder.blocks.4",
        "seg_head": "segmentation_head",
    },
    ("resnet-unet", "tf_efficientnet_lite0"): {
        "encoder_early": "encoder.model.blocks.1", "encoder_mid": "encoder.model.blocks.2",
        "encoder_last": "encoder.model.blocks.6", "bottleneck": "encoder.model.blocks.6",
        "decoder_first": "decoder.blocks.0", "decoder_last": "decoder.blocks.4",
        "seg_head": "segmentation_head",
    },
    ("resnet-unet", "vgg11"): {  # has a block between encoder and decoder, and a stage of stride 1
        "encoder_early": "encoder.features.4", "encoder_mid": "encoder.features.14",
        "encoder_last": "encoder.features.20", "bottleneck": "decoder.center",
        "decoder_first": "decoder.blocks.0", "decoder_last": "decoder.blocks.4",
        "seg_head": "segmentation_head",
    },
    ("unetplusplus", "efficientnet-b0"): {
        "encoder_early": "encoder._blocks.2", "encoder_mid": "encoder._blocks.4",
        "encoder_last": "encoder._blocks.15", "bottleneck": "encoder._blocks.15",
        "decoder_first": "decoder.blocks.x_0_0", "decoder_last": "decoder.blocks.x_0_4",
        "seg_head": "segmentation_head",
    },
    ("deeplabv3", "resnet18"): {
        "encoder_early": "encoder.layer1", "encoder_mid": "encoder.layer2", "encoder_last": "encoder.layer4",
        "bottleneck": "encoder.layer4", "decoder_first": "decoder.aspp", "decoder_last": "decoder.relu",
        "seg_head": "segmentation_head",
    },
}  # fmt: skip


def make(name: str, encoder: str | None, size: int = 64) -> Segmenter:
    width = 4 if name == "unet" else None
    spec = ModelSpec(architecture=name, encoder=encoder, width=width, image_size=size)
    return Segmenter.from_spec(spec).eval()


def foreign(module: nn.Module, **fields) -> Segmenter:
    defaults: dict[str, Any] = {"architecture": "wrapped", "image_size": 64, "head": "softmax", "classes": 3}
    return Segmenter(module, ModelSpec(**(defaults | fields)))


def roles_of(segmenter: Segmenter) -> dict[str, str]:
    return {role: info.name for info in layers(SimpleNamespace(segmenter=segmenter)) for role in info.roles}


def test_all_models_are_in_the_table():
    assert {name for name, _ in BY_HAND} == set(MODELS)


@pytest.mark.parametrize(("name", "encoder"), BY_HAND)
def test_roles(name, encoder):
    segmenter = make(name, encoder)
    assert roles_of(segmenter) == BY_HAND[name, encoder]
    found = resolve(segmenter, ROLES)
    assert list(found) == list(ROLES)
    for role, path in BY_HAND[name, encoder].items():
        assert found[role] is segmenter.module.get_submodule(path)


@pytest.mark.parametrize(("name", "encoder"), BY_HAND)
def test_shapes_are_what_the_layers_return(name, encoder):
    segmenter = make(name, encoder)
    infos = {info.name: info for info in layers(SimpleNamespace(segmenter=segmenter))}
    seen = {}
    for path in set(BY_HAND[name, encoder].values()):
        module = segmenter.module.get_submodule(path)
        module.register_forward_hook(
            lambda m, i, output, path=path: seen.update({path: tuple(output.shape[1:])})
        )
    with torch.no_grad():
        segmenter(torch.rand(1, 3, 64, 64))
    for path, shape in seen.items():
        assert infos[path].shape == shape
        assert infos[path].stride == 64 // shape[1]
        assert infos[path].type == type(segmenter.module.get_submodule(path)).__name__


def test_layers_come_in_the_order_in_which_they_run():
    names = [info.name for info in layers(SimpleNamespace(segmenter=make("unet", None)))]
    order = [names.index(path) for path in BY_HAND["unet", None].values()]
    assert order == sorted(order)
    assert "pool" not in names  # runs four times
    assert names[0] == "encoder.0.0"


def test_images_too_small_for_a_deep_grid():
    assert set(roles_of(make("resnet-unet", "resnet18", size=32))) == set(ROLES)


@pytest.mark.parametrize(
    ("name", "last", "decoder"),
    [
        ("lraspp_mobilenet_v3_large", "backbone.16", ("classifier.cbr", "classifier.cbr")),
        ("deeplabv3_mobilenet_v3_large", "backbone.16", ("classifier.0", "classifier.3")),
        ("fcn_resnet50", "backbone.layer4", ("classifier.0", "classifier.2")),
    ],
)
def test_torchvision(name, last, decoder):
    module = getattr(torchvision.models.segmentation, name)(
        weights=None, weights_backbone=None, num_classes=3
    )
    roles = roles_of(foreign(module))
    assert set(roles) == set(ROLES)
    assert roles["encoder_last"] == last
    assert (roles["decoder_first"], roles["decoder_last"]) == decoder
    assert roles["seg_head"] == "classifier"


def test_channels_last_stages_are_no_grids():
    """Swin's stages return [b, h, w, d]: better no role than a map over the wrong axes."""
    segmenter = make("resnet-unet", "swin_tiny_patch4_window7_224", size=224)
    assert set(roles_of(segmenter)) == {"decoder_first", "decoder_last", "seg_head"}
    with pytest.raises(
        ModelError, match=r"doesn't show which of its layers is 'encoder_last'; it shows decoder"
    ):
        resolve(segmenter, ["encoder_last"])


class Odd(nn.Module):
    """Has modules that can't be tapped: one that does nothing, runs twice or never, returns a vector."""

    def __init__(self):
        super().__init__()
        self.once = nn.Conv2d(3, 3, 3, padding=1)
        self.same = nn.Identity()
        self.act = nn.ReLU(inplace=True)
        self.twice = nn.Conv2d(3, 3, 1)
        self.never = nn.Conv2d(3, 3, 1)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()

    def forward(self, images):
        features = self.act(self.same(self.once(images)))
        self.flat(self.squeeze(features))
        return self.twice(self.twice(features))


def test_only_layers_that_can_be_tapped_are_listed():
    segmenter = foreign(Odd())
    infos = layers(SimpleNamespace(segmenter=segmenter))
    assert [(info.name, info.roles) for info in infos] == [("once", ()), ("act", ())]


def test_any_path_resolves_without_a_run():
    module = Odd()
    module.register_forward_hook(lambda *args: pytest.fail("the network was run"))
    assert resolve(foreign(module), ["never", "once"]) == {"never": module.never, "once": module.once}


@pytest.mark.parametrize("around", [nn.DataParallel, lambda module: torch.compile(module, backend="eager")])
def test_wrappers_are_looked_through(around):
    parts = {
        "encoder": nn.Conv2d(3, 4, 1),
        "decoder": nn.Sequential(nn.Conv2d(4, 4, 1)),
        "head": nn.Conv2d(4, 3, 1),
    }
    segmenter = foreign(around(nn.Sequential(OrderedDict(parts))))
    with torch.no_grad():
        segmenter(torch.rand(1, 3, 64, 64))  # compiled code, once it is there, would run no hooks
    found = {role: path.partition(".")[2] for role, path in roles_of(segmenter).items()}
    assert found == {"decoder_first": "decoder.0", "decoder_last": "decoder.0", "seg_head": "head"}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_torchscript_shows_no_layers():
    with pytest.raises(ModelError, match=r"TorchScript module shows no layers. Wrap the nn.Module"):
        layers(SimpleNamespace(segmenter=foreign(torch.jit.script(nn.Conv2d(3, 3, 1)))))


def test_hooks_are_gone_afterwards():
    segmenter = make("unet", None)
    layers(SimpleNamespace(segmenter=segmenter))
    assert not any(module._forward_hooks for module in segmenter.modules())
    broken = foreign(nn.Sequential(nn.Conv2d(5, 3, 1)))
    with pytest.raises(ModelError, match="can't take an image"):
        layers(SimpleNamespace(segmenter=broken))
    assert not any(module._forward_hooks for module in broken.modules())


def test_unknown_layer_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown layer 'encodr_last'. Did you mean 'encoder_last'"):
        resolve(make("unet", None), ["encodr_last"])
    with pytest.raises(UnknownNameError, match=r"Did you mean 'decoder.3.upsample'"):
        resolve(make("unet", None), ["decoder.3.upsampl"])


def test_network_without_parts_has_paths_only():
    with pytest.raises(ModelError, match=r"it shows no roles. Name a module path"):
        resolve(foreign(nn.Sequential(nn.Conv2d(3, 3, 1))), ["encoder_last"])
