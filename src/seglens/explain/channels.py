"""Score-CAM: a layer's channels weighted by what becomes of the score when the picture shows through them.

No gradients: as many forward passes as there are channels, shared by all targets.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from seglens.arguments import check_fields
from seglens.axes import cropped, padded_size, size_of
from seglens.errors import ModelError, SettingError
from seglens.explain.cams import upsample
from seglens.explain.explanation import FLAT, Explanation
from seglens.explain.masked import (
    Compile,
    Perturb,
    Prepared,
    TargetScores,
    check_compile,
    check_precision,
    faded,
    prepare,
    rank_agreement,
    score_copies,
)
from seglens.explain.settling import channel_masks, settled_scores
from seglens.explain.target import Target
from seglens.explain.trace import in_chunks, left_as_found, tapped
from seglens.models.layers import find_layout, resolve
from seglens.models.layout import FeatureLayout
from seglens.models.segmenter import Segmenter, pad_to_divisor
from seglens.shapes import Activations, Images, Rows

ChannelScores = Float[Tensor, "targets b d"]
Live = Bool[Tensor, "b d"]
Taps = dict[str, tuple[Activations, FeatureLayout]]
Made = dict[tuple[int, str], dict[str, Tensor]]
"""Of one chunk: tensors by the target's position and the layer."""


def increase(scores: ChannelScores, base: TargetScores, live: Live) -> ChannelScores:
    """``relu(S_k - S_base)``: by how much channel k brings the score up. Wang et al. 2020, definition 3.

    S_base is the score where nothing shows, of the data set's mean.
    """
    return torch.where(live, (scores - base[..., None]).relu(), 0)


def softmax(scores: ChannelScores, base: TargetScores, live: Live) -> ChannelScores:
    """``exp(S_k) / sum_j exp(S_j)``. Wang et al. 2020, algorithm 1; S_base makes no difference.

    On a sum of logits it often leaves one channel only: see the entropy.
    """
    return torch.where(live, torch.where(live, scores, -torch.inf).softmax(2), 0)


WEIGHTINGS: dict[str, Callable[[ChannelScores, TargetScores, Live], ChannelScores]] = {
    "increase": increase,
    "softmax": softmax,
}
"""How scores become weights. To add one: one function, one line."""


@dataclass(frozen=True)
class ScoreCam:
    """Settings of Score-CAM.

    With ``settle`` (.99 for one) channels are tried until those that are left can hardly change the map: none
    of 20 maps drawn from what isn't known may have a rank correlation below it with the map expected. Left
    out, all channels are tried, as Wang et al. do.

    ``weighting`` is ``increase`` (relu of the score less that of an empty picture) or ``softmax`` over the
    channels. ``precision`` is ``32``, ``bf16`` or ``auto`` (bf16 where the hardware has it); ``compile`` is
    ``never``, ``auto`` (where it pays) or ``always``. ``label`` is what the results are called by.
    """

    name: ClassVar[str] = "score-cam"

    weighting: Literal["increase", "softmax"] = "increase"
    precision: Literal["32", "bf16", "auto"] = "32"
    compile: Compile = "never"
    label: str = ""
    settle: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.weighting not in WEIGHTINGS:
            raise SettingError(f"Weighting {self.weighting!r} is unknown. Allowed: {', '.join(WEIGHTINGS)}.")
        if self.settle is not None and not 0 < self.settle < 1:
            raise SettingError(f"settle is a rank correlation above 0 and below 1, received {self.settle}.")
        if self.settle is not None and self.weighting != "increase":
            raise SettingError(
                f"settle is for the weighting 'increase', received {self.weighting!r}: a softmax often "
                "leaves one channel, which must be found first. Leave settle or the weighting out."
            )
        check_precision(self.precision)
        check_compile(self.compile)


def score_cam(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    layers: Sequence[str],
    settings: ScoreCam,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Weigh each channel by the score of the picture shown through it: ``sum_k w_k A_k``. Wang et al. 2020.

    ``S_k`` is the score of ``x * mask_k`` after normalisation (0 is the data set's mean), ``mask_k`` being
    channel k upsampled and scaled to [0, 1]; the mask covers the padding that the network sees, too. Channels
    that are constant mask nothing and get no weight. Nothing is random but when to `settle`, which ``seed``
    decides.

    Diagnostics, one number per picture: ``weight_entropy`` (1: all channels alike, 0: one channel alone),
    ``constant_channels``, ``tried_channels`` where not all need be; in bfloat16 ``rank_agreement`` of channel
    scores with float32; ``compile_seconds``.
    """
    divisor = segmenter.spec.divisor
    padded = pad_to_divisor(images, divisor)
    targets_there = [_padded(target, size_of(padded)) for target in targets]
    forwards = 0
    if settings.compile != "never":
        channels = sum(activation.shape[1] for activation, _ in taps(segmenter, padded[:1], layers).values())
        forwards = channels * len(images)
    model = prepare(
        segmenter,
        padded,
        forwards=forwards,
        batch_size=batch_size,
        precision=settings.precision,
        compile=settings.compile,
    )
    chunks: list[Made] = []

    def work(rows: slice) -> None:
        frozen = [target.select(rows) for target in targets_there]
        made: Made = {}
        for layer, (activation, _) in taps(segmenter, padded[rows], layers).items():
            found = _score_cam(segmenter, model, padded[rows], frozen, activation, settings, batch_size, seed)
            made |= {(position, layer): values for position, values in enumerate(found)}
        chunks.append(made)

    in_chunks(len(images), batch_size, work)
    how = asdict(settings) | {"masking": "normalised", "precision": model.precision}
    return put_together(chunks, images, targets, layers, settings.label or settings.name, how, divisor)


def _score_cam(
    segmenter: Segmenter,
    model: Prepared,
    images: Images,
    targets: Sequence[Target],
    activation: Activations,
    settings: ScoreCam,
    batch_size: int,
    seed: int,
) -> list[dict[str, Tensor]]:
    """Grids and diagnostics of one layer for each target."""
    wanted = ~torch.stack([target.empty() for target in targets]).all(0).to(images.device)
    constant = _flat(activation)
    live = ~constant & wanted[:, None]

    def through(rows: Rows, channels: Rows) -> Perturb:
        return lambda copies, which: faded(
            segmenter, copies, channel_masks(activation[rows[which], channels[which]], size_of(images))
        )

    def score(rows: Rows, channels: Rows) -> TargetScores:
        shown = through(rows, channels)
        return score_copies(model, images, targets, rows, shown, unit="sum", batch_size=batch_size)

    def nothing(copies: Images, which: Rows) -> Images:
        return faded(segmenter, copies, torch.zeros_like(copies[:, 0]))

    everyone = torch.arange(len(images), device=images.device)
    base = score_copies(model, images, targets, everyone, nothing, unit="sum", batch_size=batch_size)
    if settings.settle is None:
        tried = live
        scores = base.new_full((len(targets), *live.shape), torch.nan)
        scores[:, live] = score(*live.nonzero(as_tuple=True))
    else:
        scores, tried = settled_scores(
            segmenter, images, targets, activation, live, base, score, settle=settings.settle, seed=seed
        )
    weights = WEIGHTINGS[settings.weighting](scores, base, live)
    grids = torch.einsum("tbd,bd...->tb...", weights, activation)
    about = {"weight_entropy": entropy(weights, live)}
    about["constant_channels"] = constant.sum(1).to(grids).expand(len(targets), -1)
    if settings.settle is not None:
        about["tried_channels"] = tried.sum(1).to(grids).expand(len(targets), -1)
    if model.precision == "bf16":
        rows, channels = tried.nonzero(as_tuple=True)
        found, shown = scores[:, rows, channels], through(rows, channels)
        about["rank_agreement"] = rank_agreement(
            segmenter, images, targets, rows, shown, found, unit="sum", batch_size=batch_size
        )
    if model.size:
        about["compile_seconds"] = torch.full_like(base, model.seconds)
    return [
        {"grid": grids[t], **{name: values[t] for name, values in about.items()}} for t in range(len(grids))
    ]


def taps(segmenter: Segmenter, images: Images, layers: Sequence[str]) -> Taps:
    """Return what each layer puts out for ``images``, arranged as maps in float32, with its layout.

    Raises:
        ModelError: a layer did not run, or its output is no grid over the picture.
    """
    modules = resolve(segmenter, layers)
    with left_as_found(segmenter, images), torch.no_grad(), tapped(modules, images) as outputs:
        segmenter(images)
    found = {}
    for name, module in modules.items():
        if name not in outputs:
            raise ModelError(
                f"Layer {name!r} did not run in the forward pass. Name one that does; 'seglens layers' "
                "lists them."
            )
        layout = find_layout(segmenter, name, module, outputs[name].shape, size_of(images))
        found[name] = layout.to_map(outputs[name].detach().float()), layout
    return found


def entropy(weights: ChannelScores, live: Live) -> Float[Tensor, "targets b"]:
    """``-sum p ln p / ln K`` of the weights as shares p, over the K channels that took part; 0 for one."""
    shares = weights / weights.sum(2, keepdim=True)
    count = live.sum(1).clamp(min=2).to(weights)
    return torch.special.entr(shares).sum(2) / count.log()


def _flat(activation: Activations) -> Live:
    """Channels that are constant, up to rounding."""
    flat = activation.flatten(2)
    return flat.amax(2) - flat.amin(2) <= FLAT * flat.abs().amax(2)


def _padded(target: Target, size: Sequence[int]) -> Target:
    """The same pixels of pictures that are padded behind."""
    sides = zip(size, size_of(target.pixels, 1), strict=True)
    margin = [side for there, here in reversed(list(sides)) for side in (0, there - here)]
    weights = None if target.weights is None else F.pad(target.weights, margin)
    return replace(target, pixels=F.pad(target.pixels, margin), weights=weights)


def put_together(
    chunks: Sequence[Made],
    images: Images,
    targets: Sequence[Target],
    layers: Sequence[str],
    method: str,
    settings: dict[str, object],
    divisor: int,
) -> list[Explanation]:
    """Put chunks together: ReLU, `upsample` to what the layer saw, and the padding cut off."""
    size = size_of(images)
    found = []
    for position, target in enumerate(targets):
        for layer in layers:
            parts = [made[position, layer] for made in chunks]
            whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            grid = whole.pop("grid")
            padded = upsample(grid.relu(), padded_size(size, divisor))
            found.append(
                Explanation(
                    method=method,
                    layer=layer,
                    target=target,
                    map=cropped(padded, size),
                    grid=grid,
                    settings=settings | {"unit": "sum", "relu": True},
                    diagnostics=whole,
                )
            )
    return found
