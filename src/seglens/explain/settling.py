"""Score-CAM that ends early: channels are tried until those that are left can hardly change the map.

The scores that are known say what the others are, and how sure that is (see `kriging`). Maps are drawn from
what is not sure; where none of them ranks pixels otherwise, the map has settled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seglens.axes import MEAN_ON_GRID, axes, size_of
from seglens.evaluate.correlation import spearman
from seglens.explain.cams import upsample
from seglens.explain.kriging import Features, Guess, distances, guess, next_to_try
from seglens.explain.masked import faded
from seglens.explain.target import Target
from seglens.explain.trace import trace
from seglens.models.segmenter import Segmenter
from seglens.seeds import content_generator
from seglens.shapes import Images, Maps

FIRST = 16
"""Channels of a picture that are tried in any case."""

MORE = 4
"""Each time a quarter (1 / MORE) of those that were tried comes on top."""

DRAWS = 20
"""Maps that are drawn; all of them must agree with the one that is expected."""

CELLS = 8
"""Masks are compared by their means on so many cells along each axis."""

LOOK = 64
"""The longest side, in pixels, at which maps are compared."""

AT_ONCE = 32
"""Masks that are held at the size of the picture at a time."""

Score = Callable[[Int[Tensor, " n"], Int[Tensor, " n"]], Float[Tensor, "targets n"]]
"""Returns the scores of pictures shown through channels, by the numbers of both."""


def channel_masks(grids: Float[Tensor, "n *grid"], size: Sequence[int]) -> Maps:
    """Bring channels to ``size`` and scale each to [0, 1]. None of them may be constant."""
    masks = upsample(grids, size)
    every = axes(masks, 1)
    low, high = masks.amin(every, keepdim=True), masks.amax(every, keepdim=True)
    return (masks - low) / (high - low)


@dataclass(eq=False)
class _Picture:
    """One picture's ``live`` channels: how alike they are, what is expected of them, which were tried."""

    row: int
    live: Int[Tensor, " k"]
    apart: Float[Tensor, "k k"]
    trends: list[Features]
    grids: Float[Tensor, "k *grid"]
    tried: list[int] = field(default_factory=list)

    @property
    def norms(self) -> Float[Tensor, " k"]:
        return self.grids.flatten(1).norm(dim=1)

    def first(self) -> list[int]:
        """Choose channels that are expected to matter, and unlike each other."""
        alike = Guess(torch.zeros(len(self.live)).double(), (-0.5 * self.apart**2).exp())
        expected = torch.stack([trend[:, 0].abs() for trend in self.trends]).amax(0)
        return next_to_try([alike], self.norms * expected.sqrt(), min(FIRST, len(self.live))).tolist()


def settled_scores(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    activation: Float[Tensor, "b d *grid"],
    live: Tensor,
    base: Float[Tensor, "targets b"],
    score: Score,
    *,
    settle: float,
    seed: int,
) -> tuple[Float[Tensor, "targets b d"], Tensor]:
    """Return the scores of the ``live`` channels, tried or expected, and which were tried (bool, b x d).

    Channels are tried in the order in which they leave the least unknown. A picture has settled where
    `DRAWS` maps, drawn from what is not known yet, all correlate with the expected one by ``settle`` or more
    (Spearman, at a size of `LOOK`), for every target.
    """
    scores = torch.full((len(targets), *live.shape), torch.nan, device=images.device)
    tried = torch.zeros_like(live)
    open_ones = _pictures(segmenter, images, targets, activation, live)
    chosen = {picture.row: picture.first() for picture in open_ones}
    while open_ones:
        pairs = [(one.row, int(one.live[at])) for one in open_ones for at in chosen[one.row]]
        rows, channels = torch.tensor(pairs, device=images.device).T
        scores[:, rows, channels] = score(rows, channels)
        tried[rows, channels] = True
        left = []
        for one in open_ones:
            one.tried += chosen[one.row]
            if len(one.tried) == len(one.live):
                continue
            asked = [place for place, target in enumerate(targets) if bool(target.pixels[one.row].any())]
            known, places = scores[:, one.row, one.live].cpu(), torch.tensor(one.tried)
            guesses = [guess(one.apart, one.trends[at], places, known[at, places]) for at in asked]
            generator = content_generator(images[one.row], seed, "score-cam")
            pairs_of = zip(guesses, base[asked, one.row].tolist(), strict=True)
            if all(_settled(one, each, empty, settle, generator) for each, empty in pairs_of):
                for at, each in zip(asked, guesses, strict=True):
                    scores[at, one.row, one.live.to(scores.device)] = each.mean.to(scores)
                continue
            num = min(len(one.live) - len(one.tried), max(4, len(one.tried) // MORE))
            chosen[one.row] = next_to_try(guesses, one.norms, num).tolist()
            left.append(one)
        open_ones = left
    return scores, tried


def _settled(one: _Picture, known: Guess, base: float, settle: float, generator: torch.Generator) -> bool:
    drawn = torch.cat([known.mean[None], known.draws(DRAWS, generator)])
    weights = (drawn - base).relu().to(one.grids)
    maps = torch.einsum("nk,k...->n...", weights, one.grids).relu()
    shrunk = max(LOOK / max(size_of(maps, 1)), 1.0)
    shown = upsample(maps, [round(side * shrunk) for side in size_of(maps, 1)]).flatten(1)
    return bool((spearman(shown[:1].expand(DRAWS, -1), shown[1:]) >= settle).all())


def _pictures(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    activation: Float[Tensor, "b d *grid"],
    live: Tensor,
) -> list[_Picture]:
    """Look at the masks of all pictures, and at what the gradient expects of them.

    To first order the score changes with a mask by the sum of the mask times the gradient by it. The gradient
    is that of the picture shown through a mask of 1/2.
    """
    half = faded(segmenter, images, torch.full_like(images[:, 0], 0.5))
    shown = images.clamp(*segmenter.spec.window) - faded(segmenter, images, torch.zeros_like(images[:, 0]))
    slopes = []
    for traced in trace(segmenter, half, targets, (), input_gradient=True):
        assert traced.input_gradient is not None  # it was asked for
        slopes.append((traced.input_gradient * shown).sum(1))
    found = []
    for row in live.any(1).nonzero()[:, 0].tolist():
        channels = live[row].nonzero()[:, 0]
        grids = activation[row, channels]
        cells, expected = [], []
        for part in grids.split(AT_ONCE):
            masks = channel_masks(part, size_of(images))
            grid = [min(CELLS, side) for side in size_of(masks, 1)]
            cells.append(MEAN_ON_GRID[masks.ndim - 1](masks[:, None], grid).flatten(1))
            expected.append(torch.stack([(masks * slope[row]).flatten(1).sum(1) for slope in slopes]))
        means = torch.cat(cells).cpu()
        trends = []
        for each in torch.cat(expected, 1).cpu():
            largest = each.abs().amax().clamp(min=torch.finfo(each.dtype).tiny)
            trends.append(torch.stack([each / largest, means.mean(1), torch.ones_like(each)], 1))
        found.append(_Picture(row, channels.cpu(), distances(means), trends, grids.cpu()))
    return found
