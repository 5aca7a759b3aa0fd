"""Reference pictures for methods that need some: which ones to take from a data set, and who gets them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from seglens.explain.sampled import ExpectedGradients

M = TypeVar("M")

REFERENCES = 32
"""Reference pictures that are taken from a data set: half of the samples, so that each is used twice."""


def needs_references(methods: Sequence[object]) -> bool:
    """Whether one of ``methods`` (names or settings) is Expected Gradients without references."""
    return any(_lacks_references(method) for method in methods)


def with_references(
    methods: Sequence[M], references: Float[Tensor, "r c *size"]
) -> list[M | ExpectedGradients]:
    """Return ``methods``, Expected Gradients among them with ``references`` where it has none of its own."""
    return [_referred(method, references) if _lacks_references(method) else method for method in methods]


def chosen_references(total: int, seed: int = 0) -> list[int]:
    """Return the numbers of `REFERENCES` of ``total`` pictures, drawn by ``seed``; all, if fewer."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return sorted(order[:REFERENCES].tolist())


def _lacks_references(method: object) -> bool:
    return method == ExpectedGradients.name or (
        isinstance(method, ExpectedGradients) and method.references is None
    )


def _referred(method: object, references: Float[Tensor, "r c *size"]) -> ExpectedGradients:
    settings = method if isinstance(method, ExpectedGradients) else ExpectedGradients()
    return replace(settings, references=references)
