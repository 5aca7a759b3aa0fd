from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import Tensor, nn

import seglens
from seglens.errors import ModelError, UnknownNameError
from seglens.models.layers import ROLES, find_layout, layers, resolve
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.models.zoo import MODELS

# What each role is, read off the networks' own forward passes by hand.
BY_HAND = {
    ("unet", None): {
        "encoder_early": "encoder.0", "encoder_mid": "encoder.2", "encoder_last": "encoder.3",
        "bottleneck": "bottleneck", "decoder_first": "decoder.0", "decoder_last": "decoder.3",
        "seg_head": "head",
    },
    ("unet3d", None): {  # halved three times, not four
        "encoder_early": "encoder.0", "encoder_mid": "encoder.1", "encoder_last": "encoder.2",
        "bottleneck": "bottleneck", "decoder_first": "decoder.0", "decoder_last": "decoder.2",
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
    ("deeplabv3plus", "resnet18"): {
        "encoder_early": "encoder.layer1", "encoder_mid": "encoder.layer2", "encoder_last": "encoder.layer4",
        "bottleneck": "encoder.layer4", "decoder_first": "decoder.aspp", "decoder_last": "decoder.block2",
        "seg_head": "segmentation_head",
    },
    ("manet", "resnet18"): {
        "encoder_early": "encoder.layer1", "encoder_mid": "encoder.layer2", "encoder_last": "encoder.layer4",
        "bottleneck": "decoder.center", "decoder_first": "decoder.blocks.0",
        "decoder_last": "decoder.blocks.4", "seg_head": "segmentation_head",
    },
    ("linknet", "resnet18"): {
        "encoder_early": "encoder.layer1", "encoder_mid": "encoder.layer2", "encoder_last": "encoder.layer4",
        "bottleneck": "encoder.layer4", "decoder_first": "decoder.blocks.0",
        "decoder_last": "decoder.blocks.4", "seg_head": "segmentation_head",
    },
    ("fpn", "resnet18"): {
        "encoder_early": "encoder.layer1", "encoder_mid": "encoder.layer2", "encoder_last": "encoder.layer4",
        "bottleneck": "encoder.layer4", "decoder_first": "decoder.p5", "decoder_last": "decoder.merge",
        "seg_head": "segmentation_head",
    },
    ("pspnet", "resnet18"): {  # the encoder ends after three of five stages
        "encoder_early": "encoder.relu", "encoder_mid": "encoder.layer1", "encoder_last": "encoder.layer2",
        "bottleneck": "encoder.layer2", "decoder_first": "decoder.psp", "decoder_last": "decoder.conv",
        "seg_head": "segmentation_head",
    },
    ("upernet", "resnet18"): {
        "encoder_early": "encoder.layer1", "encoder_mid": "encoder.layer2", "encoder_last": "encoder.layer4",
        "bottleneck": "encoder.layer4", "decoder_first": "decoder.psp",
        "decoder_last": "decoder.fusion_block", "seg_head": "segmentation_head",
    },
    ("segformer", "mit_b0"): {
        "encoder_early": "encoder.norm1", "encoder_mid": "encoder.norm3", "encoder_last": "encoder.norm4",
        "bottleneck": "encoder.norm4", "decoder_first": "decoder.fuse_stage",
        "decoder_last": "decoder.fuse_stage", "seg_head": "segmentation_head",
    },
    ("dpt", "vit_tiny_patch16_224"): {  # four of twelve blocks, all of the same resolution
        "encoder_early": "encoder.model.blocks.2", "encoder_mid": "encoder.model.blocks.8",
        "encoder_last": "encoder.model.blocks.11", "bottleneck": "encoder.model.blocks.11",
        "decoder_first": "decoder.projection_blocks.0", "decoder_last": "decoder.fusion_blocks.3",
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
    others = {name for name in MODELS if name.startswith("torchvision-")} | {"pan"}  # see test_any_model.py
    assert {name for name, _ in BY_HAND} | others == set(MODELS)


@pytest.mark.parametrize(("name", "encoder"), BY_HAND)
def test_roles(name, encoder):
    segmenter = make(name, encoder)
    assert roles_of(segmenter) == BY_HAND[name, encoder]
    found = resolve(segmenter, ROLES)
    assert list(found) == list(ROLES)
    for role, path in BY_HAND[name, encoder].items():
        assert found[role] is segmenter.module.get_submodule(path)


@pytest.mark.parametrize("name", ["unet", "resnet-unet", "deeplabv3"])
def test_shapes_are_what_the_layers_return(name):
    encoder = {"unet": None}.get(name, "resnet18")
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


def test_channels_last_stages_are_grids():
    """Swin's stages return [b, h, w, d], which the encoder rearranges before it hands them on."""
    module = smp.FPN(
        "tu-swin_tiny_patch4_window7_224",
        encoder_weights=None,
        classes=3,
        decoder_pyramid_channels=8,
        img_size=64,
    )
    segmenter = foreign(module)
    roles = roles_of(segmenter)
    assert set(roles) == set(ROLES)
    assert roles["encoder_early"] == "encoder.model.layers_0"
    assert roles["encoder_last"] == "encoder.model.layers_3"
    shapes = {info.name: (info.shape, info.stride) for info in layers(SimpleNamespace(segmenter=segmenter))}
    assert shapes["encoder.model.layers_0"] == ((96, 16, 16), 4)
    assert shapes["encoder.model.layers_0.blocks.1.mlp.fc1"] == ((384, 16, 16), 4)
    assert shapes["encoder.model.layers_3"] == ((768, 2, 2), 32)
    # Windows are no pictures: at 64 pixels the first stage has 9 of them.
    assert "encoder.model.layers_0.blocks.1.attn" not in shapes


def test_tokens_are_grids():
    """A vision transformer's blocks return [b, 1 + h * w, d]."""
    segmenter = make("dpt", "vit_tiny_patch16_224")
    infos = {info.name: info for info in layers(SimpleNamespace(segmenter=segmenter))}
    block = infos["encoder.model.blocks.11"]
    assert (block.shape, block.stride, block.roles) == ((192, 4, 4), 16, ("encoder_last", "bottleneck"))


class Mixed(nn.Module):
    """Has as many channels as rows and columns: one part returns them last, the other one first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.LayerNorm(16)
        self.mix = nn.Conv2d(16, 16, 1)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.mix(features))


class MixedAtOneSize(Mixed):
    """The same, for pictures of one size only."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-1] == 64
        return super().forward(images)


def test_another_size_tells_which_axis_holds_the_channels():
    segmenter = foreign(Mixed())
    infos = {info.name: info.shape for info in layers(SimpleNamespace(segmenter=segmenter))}
    assert infos == {name: (16, 16, 16) for name in ("stem", "norm", "mix")} | {"head": (3, 16, 16)}
    size = (64, 64)
    kinds = {
        name: find_layout(segmenter, name, module, (1, 16, 16, 16), size).kind
        for name, module in segmenter.module.named_children()
    }
    assert kinds.pop("norm") == "channels last"
    assert set(kinds.values()) == {"channels first"}


def test_what_stays_open_is_refused():
    segmenter = foreign(MixedAtOneSize())
    assert [info.name for info in layers(SimpleNamespace(segmenter=segmenter))] == ["head"]
    with pytest.raises(ModelError, match=r"'norm' \(LayerNorm\) .* several ways \(channels first, .* last"):
        find_layout(segmenter, "norm", segmenter.module.get_submodule("norm"), (1, 16, 16, 16), (64, 64))
    with pytest.raises(ModelError, match=r"shape \(1, 100, 8\) for a picture of 64 x 64, which is no grid"):
        find_layout(segmenter, "norm", segmenter.module.get_submodule("norm"), (1, 100, 8), (64, 64))


def test_the_part_beside_the_decoder_is_the_encoder():
    parts = {name: nn.Conv2d(4, 4, 3, stride=2, padding=1) for name in "abc"}
    body = nn.Sequential(OrderedDict([("stem", nn.Conv2d(3, 4, 1)), *parts.items()]))
    head = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    roles = roles_of(foreign(nn.Sequential(OrderedDict(body=body, decode_head=head))))
    assert roles["encoder_last"] == "body.c"
    assert roles["decoder_last"] == "decode_head.1"


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
@pytest.mark.parametrize("parts", [{"a": 3}, {"body": 4, "head": 3}, {"encoder": 4, "decoder": 4, "head": 3}])
def test_torchscript_shows_no_layers(parts):
    """Whatever the parts of it are called: some names are looked up before the network runs."""
    widths = zip([3, *parts.values()], parts.items(), strict=False)
    plain = OrderedDict((name, nn.Conv2d(before, after, 1)) for before, (name, after) in widths)
    with pytest.raises(ModelError, match=r"TorchScript module shows no layers. Wrap the nn.Module"):
        layers(SimpleNamespace(segmenter=foreign(torch.jit.script(nn.Sequential(plain)))))


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


class FixedSize(nn.Module):
    """Takes pictures of 48 x 48 only, as networks with an embedding of positions do."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.positions = nn.Parameter(torch.randn(1, 4, 48, 48))
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, images):
        return self.head(torch.relu(self.first(images) + self.positions))


def test_layers_of_a_network_that_takes_small_pictures_only():
    run = seglens.wrap(FixedSize(), classes=("background", "a"), image_size=48)
    assert [info.name for info in seglens.layers(run)] == ["first", "head"]


def test_a_network_of_one_module_shows_no_layers():
    """There is nothing between the picture and the answer: an empty list, no error of a library."""
    run = seglens.wrap(torch.nn.Conv2d(3, 1, 1), classes=("background", "cell"), image_size=32)
    assert seglens.layers(run) == []
    with pytest.raises(ModelError, match="shows no roles"):
        seglens.explain(
            run,
            torch.rand(1, 3, 32, 32),
            seglens.targets.whole_class(torch.ones(1, 32, 32, dtype=torch.bool)),
            layers="encoder_last",
        )
