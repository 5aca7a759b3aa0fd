"""Correlation of rows of numbers, in float64."""

import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor


def pearson(one: Float[Tensor, "r m"], other: Float[Tensor, "r m"]) -> Float[Tensor, " r"]:
    """Return Pearson's correlation of each row with its counterpart; NaN where one is constant."""
    one, other = (values.double() - values.double().mean(1, keepdim=True) for values in (one, other))
    return (one * other).sum(1) / (one.square().sum(1) * other.square().sum(1)).sqrt()


def spearman(one: Float[Tensor, "r m"], other: Float[Tensor, "r m"]) -> Float[Tensor, " r"]:
    """Return the rank correlation of each row with its counterpart (Spearman 1904), on the CPU.

    Equal values share the mean of their ranks. NaN where a row is constant.
    """
    return pearson(*(torch.from_numpy(rankdata(values.cpu().double(), axis=1)) for values in (one, other)))
