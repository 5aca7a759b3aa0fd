"""The layers of a network that can be explained, and the roles that some of them play.

A role names a place that every encoder-decoder has, so that models can be compared:

==================  ==================================================================================
role                layer
==================  ==================================================================================
``encoder_early``   the end of the encoder's stage at a quarter of the way (stride 4 of five stages)
``encoder_mid``     the end of its stage half-way (stride 8 of five stages)
``encoder_last``    the end of its last stage
``bottleneck``      the block between encoder and decoder where there is one, else ``encoder_last``
``decoder_first``   the decoder's first block; DeepLabV3 has no blocks: its context module (ASPP)
``decoder_last``    the decoder's last block; DeepLabV3: the output of its decoder
``seg_head``        what turns the decoder's output into logits
==================  ==================================================================================

Where a stage ends is told by running the network: it is the last module that returned the very tensor that
the encoder handed on, or the same numbers arranged otherwise (Swin, ViT). This holds for whatever encoder,
whatever its modules are called. Foreign networks have roles where a part is called encoder or backbone,
decoder or classifier, and so on, or is all that stands beside the decoder; where nothing is called so, by
resolution, see ``files/overwrite.py``. Module paths always work. What counts as a grid: see ``layout.py``.
"""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from seglens.arguments import checked
from seglens.axes import LENGTHS, padded_size, spelled
from seglens.errors import ModelError, unknown_name
from seglens.models.layout import MOST_PREFIX, FeatureLayout, Rule, readings
from seglens.models.members import explained
from seglens.models.places import blocks_by_grid, head_by_answer, outermost_in, stages_by_grid
from seglens.models.probing import (
    Call,
    Influence,
    Observed,
    influence,
    mixes_last_axis,
    observe,
    probe_size,
    refuse_closed,
)
from seglens.models.segmenter import Segmenter
from seglens.results import names

ROLES = names.ROLES
AVERAGED_OUT = 1e-5
"""Of a gradient, what is left by averaging when its sum is 0 by algebra: rounding, in float32."""

_ENCODERS = ("encoder", "backbone")
_DECODERS = ("decoder", "classifier", "decode_head")
_BOTTLENECKS = (".bottleneck", ".center")
_HEADS = ("segmentation_head", "head", "classifier", "decode_head")


@runtime_checkable
class HasSegmenter(Protocol):
    """A ``Run``, which lives on a higher level."""

    @property
    def segmenter(self) -> Segmenter:
        """The model."""


@dataclass(frozen=True)
class LayerInfo:
    """One layer that can be asked for: its path in the network, its roles, and what it returns.

    That is at the spec's image size, or at 64 pixels where the spec has less. ``shape`` is channels, rows,
    columns (of volumes slices before the rows); ``stride`` is how many pixels of the image one row spans, or
    the thickest cell of a volume. At the ``answer`` itself, the logits,
    a map repeats the prediction. ``averages_out``: what follows takes the mean of each channel away (instance
    normalisation), so the mean of its gradient is 0 and Grad-CAM has nothing to weigh with; ``advice`` says
    what to take instead.
    """

    name: str
    roles: tuple[str, ...]
    type: str
    shape: tuple[int, ...]
    stride: int
    answer: bool = False
    averages_out: bool = False
    advice: str = ""


@dataclass(frozen=True)
class _Seen:
    """What a run of the network showed: calls in the order in which they ended, roles, and layouts' rules.

    It doesn't change with the network's weights.
    """

    calls: dict[str, Call]
    roles: dict[str, str]
    influence: Influence | None

    @property
    def layers(self) -> list[str]:
        """What can be explained: tapped, with a gradient to the logits."""
        return tapped_layers(self.calls, self.influence)

    @property
    def rules(self) -> dict[str, Rule]:
        """How the output of each layer is read, where there is one way."""
        return {path: call.layouts[0].rule for path, call in self.calls.items() if len(call.layouts) == 1}


_SEEN: "weakref.WeakKeyDictionary[Segmenter, tuple[dict[str, str], dict[str, Rule]]]" = (
    weakref.WeakKeyDictionary()
)
"""Roles and rules found so far."""


@checked
def layers(run: HasSegmenter) -> list[LayerInfo]:
    """Return every layer that can be explained, in the order in which they run.

    Those that return a grid (see ``layout.py``) once per forward pass; the network runs on a noise image, and
    on another one of another size where one leaves open which axes are the grid. Of an ensemble those of its
    first network.

    Raises:
        ModelError: the network can't be run.
    """
    segmenter = explained(run.segmenter)
    seen = _observe(segmenter)
    _SEEN[segmenter] = seen.roles, seen.rules
    size, infos = probe_size(segmenter), []
    left = seen.influence.left if seen.influence else {}
    answers = seen.influence.answers if seen.influence else ()
    lost = [path for path in seen.layers if left.get(path, 1.0) < averaged_out(segmenter.dtype)]
    for position, path in enumerate(seen.layers):
        call = seen.calls[path]
        played = tuple(role for role in ROLES if seen.roles.get(role) == path)
        kind = type(segmenter.module.get_submodule(path)).__name__
        shape = (call.channels, *call.layouts[0].grid)
        advice = "the answer itself: a map here repeats the prediction" * (path in answers)
        if path in lost:
            after = next((one for one in seen.layers[position:] if one not in lost), None)
            advice = "Grad-CAM averages to nothing here: take hires-cam" + (f", or {after}" if after else "")
        infos.append(
            LayerInfo(
                path,
                played,
                kind,
                shape,
                round(min(size) / min(call.layouts[0].grid)),
                path in answers,
                path in lost,
                advice,
            )
        )
    return infos


def averaged_out(dtype: torch.dtype) -> float:
    """``|sum g| / sum |g|`` below this is rounding: 1e-5, in half precision one unit of it."""
    return max(AVERAGED_OUT, torch.finfo(dtype).eps)


def tapped_layers(calls: Mapping[str, Call], found: Influence | None) -> list[str]:
    """The layers that can be tapped and have a gradient, or all where nothing has one."""
    return [path for path, call in calls.items() if call.can_be_tapped and (not found or path in found.left)]


def resolve(segmenter: Segmenter, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return the module that each of ``names`` means: a role, or a path in the wrapped network.

    Raises:
        UnknownNameError: it is neither, with the nearest name that is.
        ModelError: it is a role that this network doesn't show.
    """
    segmenter = explained(segmenter)
    modules = {path: module for path, module in segmenter.module.named_modules() if path}
    found = {}
    for name in names:
        path = find_role(segmenter, name) if name in ROLES and name not in modules else name
        if path not in modules:
            raise unknown_name("layer", name, (*ROLES, *modules))
        found[name] = modules[path]
    return found


def roles_of(segmenter: Segmenter) -> dict[str, str]:
    """Return the paths of the layers that play a role, by role; the network runs where it hasn't yet."""
    return _remembered(segmenter)[0]


def find_role(segmenter: Segmenter, role: str) -> str:
    """Return the path of the layer that plays ``role``.

    Raises:
        ModelError: this network doesn't show it.
    """
    roles = roles_of(segmenter)
    if role not in roles:
        none = (
            ""
            if not roles or "encoder_last" in roles
            else "; no encoder is known where grids become no coarser"
        )
        raise ModelError(
            f"This network doesn't show which of its layers is {role!r}; it shows "
            f"{', '.join(roles) or 'no roles'}{none}. Name a module path instead; 'seglens layers' lists "
            "them."
        )
    return roles[role]


def find_layout(
    segmenter: Segmenter, name: str, module: nn.Module, shape: Sequence[int], size: Sequence[int]
) -> FeatureLayout:
    """Return how the layer ``name``'s output of ``shape`` is read, for images of ``size``.

    Raises:
        ModelError: it is no grid, or several readings fit and the network takes no other size to tell.
    """
    seen = padded_size(size, segmenter.spec.divisor)
    found = list(readings(tuple(shape), seen))
    if len(found) > 1:
        path = next(path for path, each in segmenter.module.named_modules() if each is module)
        rule: Rule | None = ("channels first", 0)
        if mixes_last_axis(segmenter.module):
            rule = _remembered(segmenter)[1].get(path)
        found = [layout for layout in found if layout.rule == rule] or found
    if len(found) == 1:
        return found[0]
    several = "; ".join(f"{one.kind}, grid {spelled(one.grid)}, {one.prefix} prefix" for one in found)
    raise ModelError(
        f"Layer {name!r} ({type(module).__name__}) returned shape {tuple(shape)} for a picture of "
        f"{spelled(seen)}, which "
        f"{f'can be read in several ways ({several})' if found else 'is no grid over it'}. "
        f"Allowed: (b, channels, {LENGTHS[len(seen)]}), (b, {LENGTHS[len(seen)]}, channels), or (b, tokens, "
        f"channels) with at most {MOST_PREFIX} tokens before one for each cell. Name another layer; 'seglens "
        "layers' lists them."
    )


def _remembered(segmenter: Segmenter) -> tuple[dict[str, str], dict[str, Rule]]:
    """Roles and rules of the network, from its first observation."""
    if segmenter not in _SEEN:
        seen = _observe(segmenter)
        _SEEN[segmenter] = seen.roles, seen.rules
    return _SEEN[segmenter]


def _observe(segmenter: Segmenter) -> _Seen:
    """Run the network; return what its modules did, and their roles."""
    refuse_closed(segmenter.module)
    encoder = _encoder(segmenter.module)
    seen = observe(segmenter, encoder)
    found = influence(segmenter, seen.calls)
    answers = found.answers if found else ()
    able = [path for path in tapped_layers(seen.calls, found) if path not in answers]
    stages = [path for path in _stages(seen, encoder) if path in able] if encoder is not None else []
    stages = stages or stages_by_grid(able, seen.calls)
    roles = _roles(segmenter.module, seen.calls, stages, able, segmenter.spec.outputs)
    if "encoder_last" in roles:
        head = roles.get("seg_head") or head_by_answer(answers, roles["encoder_last"], seen.calls)
        blocks = blocks_by_grid(able, roles["encoder_last"], head)
        places = {"seg_head": head} if head else {}
        if "decoder_last" not in roles and blocks:
            cells = {path: seen.calls[path].layouts[0].cells for path in blocks}
            ends = {cells[path]: path for path in blocks}
            places |= {"decoder_first": ends[min(ends)], "decoder_last": ends[max(ends)]}
        roles |= {role: path for role, path in places.items() if role not in roles}
    elif able and len({seen.calls[path].layouts[0].cells for path in able}) == 1:
        head = roles.get("seg_head") or head_by_answer(answers, able[0], seen.calls)
        blocks = blocks_by_grid(able, able[0], head) if head else []
        roles = ({"decoder_last": blocks[-1], "seg_head": head} if head and blocks else {}) | roles
    if "seg_head" in roles and "decoder_last" not in roles:  # it is called head, and holds a decoder too
        blocks = outermost_in(roles["seg_head"], able)
        roles |= {"decoder_first": blocks[0], "decoder_last": blocks[-1]} if blocks else {}
    return _Seen(seen.calls, roles, found)


def _encoder(network: nn.Module) -> str | None:
    """Return the path of the part that is called encoder, else of the only part beside the decoder."""
    path, decoder = _first_path(network, _ENCODERS), _first_path(network, (*_DECODERS, *_HEADS))
    if path is not None or decoder is None:
        return path
    around, _, name = decoder.rpartition(".")
    beside = [
        part for part, _ in network.get_submodule(around).named_children() if part not in (name, *_HEADS)
    ]
    return f"{around}.{beside[0]}".removeprefix(".") if len(beside) == 1 else None


def _stages(seen: Observed, encoder: str) -> list[str]:
    """Return the layer that ends each stage of the encoder; none if unsure."""
    calls = seen.calls
    found = [path for path in seen.ends if calls[path].can_be_tapped]
    if len(found) > 2:
        return found
    # Features were rearranged afterwards, or only some are handed on: the last layer of every resolution,
    # among the encoder's direct parts or those of its lists. They must lead to that of the last feature map.
    tapped = [path for path, call in calls.items() if call.can_be_tapped]
    children = [path for path in _children(calls, encoder) if path in tapped]
    for inside in (children, outermost_in(encoder, tapped)):
        by_grid = {calls[path].layouts[0].grid: path for path in inside}
        if by_grid and (not seen.deepest or list(by_grid)[-1] == seen.deepest):
            return list(by_grid.values())
    return []


def _roles(
    network: nn.Module, calls: Mapping[str, Call], stages: Sequence[str], able: Sequence[str], outputs: int
) -> dict[str, str]:
    """Return the path of the layer that plays each role, as far as stages and names tell.

    ``able`` are the layers that have a gradient and are not the logits themselves.
    """
    roles, last = {}, len(stages) - 1
    if stages:
        middle = [path for path in calls if f".{path}".endswith(_BOTTLENECKS) and calls[path].can_be_tapped]
        roles["encoder_early"] = stages[last // 4]
        roles["encoder_mid"] = stages[(last + 1) // 2]
        roles["encoder_last"] = stages[last]
        roles["bottleneck"] = middle[0] if middle else stages[last]
    decoder, head = _first_path(network, _DECODERS), _first_path(network, _HEADS)
    if decoder is not None:
        blocks = [path for path in _blocks(calls, decoder) if path in able]
        if head is not None and f"{decoder}.".startswith(f"{head}."):  # logits are summed of several parts
            blocks = [path for path in blocks if calls[path].channels != outputs]
        if blocks:
            roles["decoder_first"], roles["decoder_last"] = blocks[0], blocks[-1]
    if head is not None and head in calls and calls[head].can_be_tapped:
        roles["seg_head"] = head
    return roles


def _blocks(calls: Mapping[str, Call], decoder: str) -> list[str]:
    """The decoder's blocks: its list of them, else its direct parts, else (DPT) what any list in it holds."""
    depth = decoder.count(".") + 2
    listed = [path for path in calls if path.startswith(f"{decoder}.") and path.count(".") == depth]
    in_lists = [path for path in listed if path.rpartition(".")[0] not in calls]
    for paths in (_children(calls, f"{decoder}.blocks"), _children(calls, decoder), in_lists):
        blocks = [path for path in paths if calls[path].can_be_tapped]
        if blocks:
            return blocks
    return []


def _first_path(network: nn.Module, names: Sequence[str]) -> str | None:
    """Return the path nearest to the root that ends in one of ``names``, earlier names first."""
    paths = [path for path, _ in network.named_modules()]
    found = [path for name in names for path in paths if path.rpartition(".")[2] == name]
    return min(found, key=lambda path: path.count("."), default=None)


def _children(calls: Mapping[str, Call], parent: str) -> list[str]:
    return [path for path in calls if path.rpartition(".")[0] == parent]
