"""Ablation-CAM: a layer's channels weighted by what the score loses when a channel is set to zero.

It asks another question than masking the input (Score-CAM) where skips go round the layer: with a bottleneck
ablated the skips stay clean, and a model that reads its answer off them loses nothing.

Passes begin at the layer where the network allows. Modules that ended before the layer did are not run again:
they return what they returned for the clean pictures. Only what runs from the layer on is computed, with
whatever joins it from before.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seglens.arguments import check_fields
from seglens.explain.channels import Made, put_together, taps
from seglens.explain.explanation import Explanation
from seglens.explain.masked import (
    Prepared,
    check_precision,
    clean_logits,
    prepare,
    rank_agreement,
    score_drops,
)
from seglens.explain.target import Target
from seglens.explain.trace import in_chunks, left_as_found
from seglens.models.layers import resolve
from seglens.models.layout import FeatureLayout
from seglens.models.probing import intercepted
from seglens.models.segmenter import Segmenter
from seglens.shapes import Activations, Images, Rows

CLOSE = {"32": 1e-4, "bf16": 0.02}
"""How far logits of passes that begin at the layer may be off, as a share of the largest."""

Outputs = dict[str, Float[Tensor, "b ..."]]
"""What modules returned for the clean pictures, by their paths."""


@dataclass(frozen=True)
class AblationCam:
    """Settings of Ablation-CAM: ``precision`` and ``label`` as in `ScoreCam`."""

    name: ClassVar[str] = "ablation-cam"

    precision: Literal["32", "bf16", "auto"] = "32"
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        check_precision(self.precision)


def ablation_cam(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    layers: Sequence[str],
    settings: AblationCam,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Weigh each channel by what the score loses without it: ``sum_k (S - S_k) / |S| A_k``.

    Desai and Ramaswamy 2020, eq. 3. ``S_k`` is the score with channel k of the layer set to zero. The
    equation divides by S; with its magnitude a channel that speaks for the class has a positive weight where
    the score is negative, too. What comes before the layer runs once where the network allows (see
    `ablating`). Channels that are zero have the weight 0. Nothing is random: ``seed`` makes no difference.

    Diagnostics, one number per picture: ``zero_channels``; in bfloat16 ``rank_agreement`` of channel scores
    with float32.
    """
    del seed
    model = prepare(
        segmenter, images, forwards=0, batch_size=batch_size, precision=settings.precision, fold=False
    )
    chunks: list[Made] = []

    def work(rows: slice) -> None:
        frozen = [target.select(rows) for target in targets]
        made: Made = {}
        for layer, (activation, layout) in taps(segmenter, images[rows], layers).items():
            found = _ablation_cam(
                segmenter, model, images[rows], frozen, layer, activation, layout, batch_size
            )
            made |= {(position, layer): values for position, values in enumerate(found)}
        chunks.append(made)

    in_chunks(len(images), batch_size, work)
    how = asdict(settings) | {"precision": model.precision}
    name, divisor = settings.label or settings.name, segmenter.spec.divisor
    return put_together(chunks, images, targets, layers, name, how, divisor)


def _ablation_cam(
    segmenter: Segmenter,
    model: Prepared,
    images: Images,
    targets: Sequence[Target],
    layer: str,
    activation: Activations,
    layout: FeatureLayout,
    batch_size: int,
) -> list[dict[str, Tensor]]:
    """Grids and diagnostics of one layer for each target."""
    wanted = ~torch.stack([target.empty() for target in targets]).all(0).to(images.device)
    zero = (activation == 0).flatten(2).all(2)
    rows, channels = (~zero & wanted[:, None]).nonzero(as_tuple=True)
    full_rows = torch.arange(len(images), device=images.device)
    clean = clean_logits(model, images, targets, batch_size=batch_size)
    pairs = zip(targets, clean, strict=True)
    full = torch.stack([target.over(values, full_rows) for target, values in pairs]).float()
    with ablating(model, _path(segmenter, layer), layout, images) as ablate:

        def perturb(copies: Images, which: Rows) -> Images:
            ablate(rows[which], channels[which])
            return copies

        lost = score_drops(model, images, targets, rows, perturb, clean, batch_size=batch_size)
    drops = torch.zeros_like(full)[..., None].repeat(1, 1, activation.shape[1])
    drops[:, rows, channels] = lost
    weights = drops / full[..., None].abs()
    grids = torch.einsum("tbd,bd...->tb...", weights, activation)
    about = {"zero_channels": zero.sum(1).to(grids).expand(len(targets), -1)}
    if model.precision == "bf16":
        plain = Prepared(segmenter)
        with ablating(plain, _path(segmenter, layer), layout, images) as ablate:  # which `perturb` calls
            about["rank_agreement"] = rank_agreement(
                segmenter, images, targets, rows, perturb, -lost, unit="sum", batch_size=batch_size
            )
    return [
        {"grid": grids[t], **{name: values[t] for name, values in about.items()}} for t in range(len(grids))
    ]


@contextmanager
def ablating(
    model: Prepared, path: str, layout: FeatureLayout, images: Images
) -> Iterator[Callable[[Rows, Rows], None]]:
    """Yield a function that says what comes next: copies of pictures ``rows``, without ``channels``.

    Within, the layer at ``path`` puts out zeros in that channel of each copy. What ended before is replayed
    if a try without ablation gives the clean logits; a network that keeps things on the side between its
    modules fails it, and runs as a whole for every copy. ``images`` are all pictures that ``rows`` can mean.
    """
    network = model.segmenter.module
    current: dict[str, Rows] = {}

    def silence(output: Tensor) -> Tensor:
        if "channels" not in current:
            return output
        maps = layout.to_map(output).clone()
        maps[torch.arange(len(maps), device=maps.device), current["channels"]] = 0
        return layout.put_back(maps, output)

    def ablate(rows: Rows, channels: Rows) -> None:
        current.update(rows=rows, channels=channels)

    with ExitStack() as stack:
        stack.enter_context(left_as_found(model.segmenter, images))
        stack.enter_context(torch.no_grad())
        outputs = before(model, path, images)
        if _can_replay(model, outputs, images):
            stack.enter_context(replayed(network, outputs, current))
        stack.enter_context(intercepted(network.get_submodule(path), silence))
        yield ablate


def before(model: Prepared, path: str, images: Images) -> Outputs:
    """Return what modules put out that ended no later than the one at ``path``, the outermost ones only.

    Those that ran once and returned one tensor with an entry for each picture.
    """
    network = model.segmenter.module
    # Two pictures at least: a tensor that belongs to none of them (a position bias) often has the length 1.
    several = torch.cat([images, images]) if len(images) == 1 else images
    calls: Counter[str] = Counter()
    ended: list[str] = []
    fitting: set[str] = set()
    outputs: Outputs = {}

    def note(name: str, output: object) -> object:
        calls[name] += 1
        if path not in ended:
            ended.append(name)
            if isinstance(output, Tensor) and output.ndim > 1 and len(output) == len(several):
                fitting.add(name)
        return output

    def keep(name: str, output: Tensor) -> Tensor:
        outputs[name] = output[: len(images)].clone()
        return output

    with _watched(network, [name for name, _ in network.named_modules() if name], note):
        model.forward(several)
    once = [name for name in ended if name in fitting and calls[name] == 1]
    outermost = [name for name in once if not any(name.startswith(f"{other}.") for other in once)]
    with _watched(network, outermost, keep):
        model.forward(several)
    return outputs


@contextmanager
def _watched(network: nn.Module, names: list[str], look: Callable[[str, Any], Any]) -> Iterator[None]:
    """Call ``look(name, output)``, which hands the output on, whenever one of these modules has run."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(intercepted(network.get_submodule(name), partial(look, name)))
        yield


@contextmanager
def replayed(network: nn.Module, outputs: Outputs, current: dict[str, Rows]) -> Iterator[None]:
    """Let modules return the outputs kept for the pictures ``current["rows"]``, in place of running."""

    def answer(name: str, *given: object, **named: object) -> Tensor:
        return outputs[name][current["rows"]]  # a fresh copy: what comes next may write into it

    with ExitStack() as stack:
        for name in outputs:
            own = vars(network.get_submodule(name))
            found = {"forward": own["forward"]} if "forward" in own else {}
            stack.callback(own.update, found)
            stack.callback(own.pop, "forward")  # first: callbacks run from the last to the first
            own["forward"] = partial(answer, name)
        yield


def _can_replay(model: Prepared, outputs: Outputs, images: Images) -> bool:
    """Whether replaying gives the clean logits, of copies in another number and order than the last pass."""
    rows = torch.arange(len(images) + 1, device=images.device).flip(0) % len(images)
    clean = model.forward(images)[rows]
    try:
        with replayed(model.segmenter.module, outputs, {"rows": rows}):
            again = model.forward(images[rows])
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError):  # whatever it relies on
        return False
    return bool((again - clean).abs().max() <= CLOSE[model.precision] * clean.abs().max())


def _path(segmenter: Segmenter, layer: str) -> str:
    """The path of a layer that is named by its role, perhaps."""
    module = resolve(segmenter, [layer])[layer]
    return next(path for path, each in segmenter.module.named_modules() if each is module)
