"""A region to ask about."""

import pytest

from seglens.explain.target import Target


@pytest.fixture
def target(pixels):
    return Target("region", 1, pixels)
