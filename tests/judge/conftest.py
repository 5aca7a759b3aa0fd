"""What tests of scores start from."""

import pytest
import torch
from tests.judge.cases import NUM

from seglens.judge.cells import CELLS


@pytest.fixture
def cells() -> torch.Tensor:
    return torch.rand(NUM, CELLS, CELLS, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.4
