"""Roles by resolution, in networks whose parts have no names that say what they are."""

from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from monai.networks import nets
from torch import Tensor, nn

import seglens
from seglens.models.layers import ROLES

MONAI: Any = nets


class Down(nn.Module):
    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), double_conv(inside, out))

    def forward(self, values: Tensor) -> Tensor:
        return self.maxpool_conv(values)


class Up(nn.Module):
    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv = double_conv(inside, out)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.conv(torch.cat([fine, self.up(coarse)], dim=1))


class OutConv(nn.Module):
    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, out, 1)

    def forward(self, values: Tensor) -> Tensor:
        return self.conv(values)


def double_conv(inside: int, out: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for before in (inside, out):
        parts += [nn.Conv2d(before, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


class PlainUNet(nn.Module):
    """The U-Net that most people copy: inc, down1 to down4, up1 to up4, outc; and a head that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.inc = double_conv(3, 4)
        self.down1, self.down2, self.down3, self.down4 = Down(4, 8), Down(8, 16), Down(16, 32), Down(32, 32)
        self.up1, self.up2, self.up3, self.up4 = Up(64, 16), Up(32, 8), Up(16, 4), Up(8, 4)
        self.outc, self.aux = OutConv(4, 2), OutConv(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        one = self.inc(images)
        self.aux(one)
        two = self.down1(one)
        three = self.down2(two)
        four = self.down3(three)
        five = self.down4(four)
        return self.outc(self.up4(self.up3(self.up2(self.up1(five, four), three), two), one))


def of_nnunet(kind: type) -> nn.Module:
    norm = {"norm_op": nn.InstanceNorm2d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU}
    return kind(3, 4, (4, 8, 8, 8), nn.Conv2d, 3, (1, 2, 2, 2), 2, 2, 2, **norm, deep_supervision=False)


NETWORKS: dict[str, tuple[Any, tuple[str, str, str, str, str]]] = {
    "plain": (PlainUNet, ("down1", "down4", "up1", "up4", "outc")),
    "UNet": (
        lambda: MONAI.UNet(2, 3, 2, (4, 8, 16, 32), (2, 2, 2)),
        ("model.0", "model.1.submodule.1.submodule.1", "model.1.submodule.1.submodule.2",
         "model.1.submodule.2", "model.2"),
    ),
    "SegResNet": (
        lambda: MONAI.SegResNet(2, 8, 3, 2),
        ("down_layers.0", "down_layers.3", "up_layers.0", "act_mod", "conv_final"),
    ),
    "UNETR": (
        lambda: MONAI.UNETR(3, 2, (64, 64), 4, 24, 32, 2, spatial_dims=2),
        ("vit.blocks.3", "vit.norm", "decoder5", "decoder2", "out"),
    ),
    "SwinUNETR": (
        lambda: MONAI.SwinUNETR(3, 2, feature_size=12, spatial_dims=2),
        ("encoder2", "encoder10", "decoder5", "decoder1", "out"),
    ),
    "DynUNet": (
        lambda: MONAI.DynUNet(2, 3, 2, [3] * 4, [1, 2, 2, 2], [2, 2, 2], filters=[4, 8, 8, 8],
                              deep_supervision=True, deep_supr_num=2),
        ("input_block", "bottleneck", "upsamples.0", "skip_layers", "output_block"),
    ),
    "AttentionUnet": (
        lambda: MONAI.AttentionUnet(2, 3, 2, (4, 8, 16, 32), (2, 2, 2)),
        ("model.0", "model.1.submodule.1.submodule.1.submodule", "model.1.submodule.1.submodule.1.merge",
         "model.1.merge", "model.2"),
    ),
    "BasicUNet": (
        lambda: MONAI.BasicUNet(2, 3, 2, (4, 4, 8, 16, 32, 4)),
        ("down_1", "down_4", "upcat_4", "upcat_1", "final_conv"),
    ),
    "VNet": (
        lambda: MONAI.VNet(2, 1, 2),  # whose dropout is of volumes by default
        ("down_tr32", "down_tr256", "up_tr256", "up_tr32", "out_tr"),
    ),
    "PlainConvUNet": (
        lambda: of_nnunet(PlainConvUNet),
        ("encoder.stages.0", "encoder.stages.3", "decoder.transpconvs.0", "decoder.stages.2",
         "decoder.seg_layers.2"),
    ),
    "ResidualEncoderUNet": (
        lambda: of_nnunet(ResidualEncoderUNet),
        ("encoder.stages.0", "encoder.stages.3", "decoder.transpconvs.0", "decoder.stages.2",
         "decoder.seg_layers.2"),
    ),
}  # fmt: skip
"""What makes it, and by hand: encoder_early, encoder_last, decoder_first, decoder_last, seg_head."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_role_is_found(name):
    make, by_hand = NETWORKS[name]
    torch.manual_seed(0)
    channels = 1 if name == "VNet" else 3
    mean = (0.5,) * channels
    run = seglens.wrap(
        make().eval(), classes=("background", "thing"), image_size=64, channels=channels, mean=mean, std=mean
    )
    infos = seglens.layers(run)
    roles = {role: info for info in infos for role in info.roles}
    assert set(roles) == set(ROLES)
    shown = ("encoder_early", "encoder_last", "decoder_first", "decoder_last", "seg_head")
    assert tuple(roles[role].name for role in shown) == by_hand
    assert roles["seg_head"].answer
    assert roles["encoder_last"].shape[1] == min(info.shape[1] for info in infos)
    assert not any(roles[role].answer for role in ROLES if role != "seg_head")
    assert "aux" not in {info.name for info in infos}
