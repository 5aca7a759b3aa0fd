import torch

from seglens.models.unet import UNet


def parameters_by_hand(channels: int, outputs: int, width: int, depth: int) -> int:
    """Count them from the paper's figure; a normalisation has a scale and a shift."""

    def double(channels_in: int, channels_out: int) -> int:
        return 9 * channels_in * channels_out + 9 * channels_out**2 + 4 * channels_out

    widths = [width * 2**level for level in range(depth + 1)]
    down = sum(double(a, b) for a, b in zip([channels, *widths[:-1]], widths, strict=True))
    up = sum(4 * 2 * w * w + w + double(2 * w, w) for w in widths[:-1])
    return down + up + width * outputs + outputs


def test_the_classic_has_31_million_parameters():
    """31.04 million is the figure that everybody reports for this network with 64 channels and one output."""
    count = sum(parameter.numel() for parameter in UNet().parameters())
    assert count == parameters_by_hand(3, 1, 64, 4) == 31_037_633


def test_depth_and_width():
    net = UNet(channels=1, outputs=4, width=4, depth=2)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters_by_hand(1, 4, 4, 2)
    assert net(torch.zeros(2, 1, 8, 12)).shape == (2, 4, 8, 12)


def test_skips_carry_what_the_bottleneck_lost():
    """With the bottleneck silenced, a pixel still changes the logit beside it, through the first skip."""
    torch.manual_seed(0)
    net = UNet(channels=1, width=4, depth=2).eval()
    net.bottleneck.register_forward_hook(lambda *args: torch.zeros_like(args[2]))
    images = torch.rand(1, 1, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(images)[0, 0, 8, 8], images)
    assert gradient[0, 0, 8, 8] != 0


def test_receptive_field_is_local_without_the_deep_path():
    """Two 3x3 convolutions in the encoder and two in the decoder reach 4 pixels along the first skip."""
    torch.manual_seed(0)
    net = UNet(channels=1, width=4, depth=1).eval()
    net.get_submodule("decoder.0.upsample").register_forward_hook(lambda *args: torch.zeros_like(args[2]))
    images = torch.rand(1, 1, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(images)[0, 0, 16, 16], images)
    reached = gradient[0, 0].nonzero()
    assert reached.min().item() >= 12
    assert reached.max().item() <= 20
