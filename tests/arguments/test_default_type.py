"""``torch.set_default_dtype`` is the caller's: the oracle is what comes without it, bit for bit."""

from typing import Any

import pytest
import torch
from torch import nn

import seglens
from seglens.errors import SettingError
from seglens.explain.methods import METHODS

SETTINGS = {
    "rise": seglens.Rise(num_masks=16),
    "occlusion": seglens.Occlusion(window=8, stride=8),
    "fused-hires-cam": seglens.FusedHiResCam(layers=("features.0", "features")),
    "shapley": seglens.Shapley(num_segments=6, pairs=2),
    "extremal-mask": seglens.ExtremalMask(steps=3),
    "smoothgrad": seglens.SmoothGrad(num_samples=3),
    "expected-gradients": seglens.ExpectedGradients(
        references=torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    ),
}


class OwnTensor(nn.Module):
    """Adds a tensor of torch's default type, as position codes often are; says which type that was."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(4, 1, 1)
        self.seen = set()

    def forward(self, images):
        code = torch.full(images.shape[-1:], 0.5)
        self.seen.add(code.dtype)
        return self.head(self.features(images + code.to(images)))


@pytest.fixture
def float64_by_default():
    yield lambda: torch.set_default_dtype(torch.float64)
    torch.set_default_dtype(torch.float32)


def test_maps_do_not_depend_on_it(float64_by_default):
    torch.manual_seed(0)
    module = OwnTensor().eval()
    images, whole = torch.rand(2, 3, 16, 16), torch.ones(2, 16, 16, dtype=torch.bool)

    def found():
        run = seglens.wrap(
            module, classes=("background", "x"), mean=(0.0,) * 3, std=(1.0,) * 3, image_size=16
        )
        target = seglens.targets.whole_class(whole)
        methods: list[Any] = [SETTINGS.get(name, name) for name in METHODS]
        return seglens.explain(run, images, target, methods=methods, layers="features")

    expected, module.seen = found(), set()
    float64_by_default()
    again = found()
    assert torch.get_default_dtype() == torch.float64
    assert module.seen == {torch.float64}
    assert again.keys() == expected.keys()
    for name, one in expected.items():
        assert torch.equal(again[name].map.nan_to_num(7), one.map.nan_to_num(7)), name


def test_it_stays_after_an_error(float64_by_default):
    float64_by_default()
    with pytest.raises(SettingError):
        seglens.wrap(nn.Conv2d(3, 1, 1), image_size=-1)
    assert torch.get_default_dtype() == torch.float64
