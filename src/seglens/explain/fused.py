"""HiResCAM of several layers in one map: fine where the early ones are, sure where the late ones are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch

from seglens.arguments import check_fields
from seglens.axes import cropped, padded_size, size_of, widened
from seglens.errors import SettingError
from seglens.explain.cams import CAMS
from seglens.explain.explanation import Explanation
from seglens.explain.occlusion import explanations
from seglens.explain.target import Target
from seglens.explain.trace import in_chunks
from seglens.explain.trace import trace as run_trace
from seglens.models.layers import roles_of
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import at_once
from seglens.shapes import Images, Maps

ENCODER = ("encoder_early", "encoder_mid", "encoder_last")
"""The layers that are fused where none is named."""

TINY = 1e-30
"""Keeps 0 / 0 at 0: a layer that holds nothing for the class."""


@dataclass(frozen=True)
class FusedHiResCam:
    """Settings of HiResCAM fused over ``layers``, roles or names; ``gamma`` is how much weak places count.

    No layers are those of `ENCODER` that the network has. ``label`` is what the results are called by.
    """

    name: ClassVar[str] = "fused-hires-cam"

    layers: tuple[str, ...] = ()
    gamma: float = 2.0
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if len(set(self.layers)) == 1:
            raise SettingError(
                f"layers is {self.layers[0]}, but fusing needs at least two different layers, such as "
                "encoder_mid and encoder_last."
            )
        if not 0 < self.gamma <= 100:
            raise SettingError(f"gamma is {self.gamma}, but must be above 0 and at most 100; 2 is usual.")


def fused_hires_cam(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: FusedHiResCam,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Take the largest of several layers' maps: ``max over l of tanh(gamma M_l / max M_l)``.

    Jiang et al. 2021 (Layer-CAM), section III-C: element-wise maximum of maps that tanh has brought to one
    scale, with gamma = 2 there. ``M_l`` is HiResCAM of layer l with its ReLU, upsampled (`hires_cam`).
    """
    maps = torch.zeros(len(targets), *images[:, 0].shape, device=images.device)
    tapped = settings.layers or _encoder(segmenter)
    cam, size, divisor = CAMS["hires-cam"], size_of(images), segmenter.spec.divisor

    def work(rows: slice) -> None:
        chosen = [target.select(rows) for target in targets]
        traces = run_trace(segmenter, images[rows], chosen, tapped)
        for position, traced in enumerate(traces):
            for tap in traced.taps.values():
                grid = cam.formula(tap.activation, tap.gradient)
                heat = cropped(cam.map_of(grid, padded_size(size, divisor)), size)
                scaled = _scaled(heat.float(), settings.gamma)
                maps[position, rows] = torch.maximum(maps[position, rows], scaled)

    in_chunks(len(images), at_once(size_of(images), images.device, batch_size), work)
    how = asdict(settings) | {"layers": list(tapped), "unit": "share of the largest", "relu": True}
    return explanations(maps, targets, settings.label or settings.name, how, {})


def _encoder(segmenter: Segmenter) -> tuple[str, ...]:
    """The layers of `ENCODER` that the network has, each once.

    Raises:
        SettingError: those are fewer than two.
    """
    roles = roles_of(segmenter)
    found = tuple(dict.fromkeys(roles[role] for role in ENCODER if role in roles))
    if len(found) < 2:
        raise SettingError(
            "fused-hires-cam needs at least two layers, and of the layers that it takes by itself "
            f"({', '.join(ENCODER)}) this network has {len(found)}. Name layers: "
            "FusedHiResCam(layers=(...)), or --set fused-hires-cam.layers=FIRST,SECOND. 'seglens layers' "
            "lists them."
        )
    return found


def _scaled(heat: Maps, gamma: float) -> Maps:
    """``tanh(gamma M / max M)``; nothing where M is nowhere positive, NaN where it is NaN."""
    largest = heat.flatten(1).amax(1).clamp(min=TINY)
    return torch.tanh(gamma * heat / widened(largest, heat))
