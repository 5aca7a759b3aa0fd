"""A network in which every CAM of every layer finds something."""

from functools import partial

import pytest

from seglens.explain.target import Target


@pytest.fixture
def make_unet(make_unet):
    """Weights with which every CAM of every layer finds something that speaks for the target."""
    return partial(make_unet, seed=3)


@pytest.fixture
def run(make_run, make_unet):
    return make_run(make_unet())


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)
