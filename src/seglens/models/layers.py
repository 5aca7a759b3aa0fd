"""What can be explained: the layers of a network, and the roles that some of them play.

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
the encoder handed on. This holds for whatever encoder, whatever its modules are called. Foreign networks have
roles where a part is called encoder or backbone, decoder or classifier, and so on; module paths always work.
"""

import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from seglens.errors import ModelError, unknown_name
from seglens.models.segmenter import Segmenter

ROLES = (
    "encoder_early",
    "encoder_mid",
    "encoder_last",
    "bottleneck",
    "decoder_first",
    "decoder_last",
    "seg_head",
)
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
    columns; ``stride`` is how many pixels of the image one row spans.
    """

    name: str
    roles: tuple[str, ...]
    type: str
    shape: tuple[int, int, int]
    stride: int


@dataclass(frozen=True)
class _Call:
    """What a module did in a forward pass.

    ``shape [b, d, gh, gw]`` is empty where it returned anything but one tensor of four axes. The output is
    held weakly, so that its memory is freed as always.
    """

    calls: int
    shape: tuple[int, ...]
    output: "weakref.ReferenceType[Tensor] | None"
    passes_on: bool

    @property
    def can_be_tapped(self) -> bool:
        """Whether it ran once, did something, and returned a grid (a square one, as the image was square)."""
        if self.calls != 1 or self.passes_on or not self.shape:
            return False
        _, channels, rows, columns = self.shape
        return channels > 0 and rows == columns > 1


_ROLES_OF: "weakref.WeakKeyDictionary[Segmenter, dict[str, str]]" = weakref.WeakKeyDictionary()
"""Roles found so far: how a network is wired doesn't change with its weights."""


def layers(run: HasSegmenter) -> list[LayerInfo]:
    """Return every layer that can be explained, in the order in which they run.

    Those that return ``[b, d, gh, gw]`` once per forward pass; the network runs once on a noise image.

    Raises:
        ModelError: the network can't be run.
    """
    segmenter = run.segmenter
    calls, roles = _observe(segmenter)
    size, infos = _probe_size(segmenter), []
    for path, call in calls.items():
        if call.can_be_tapped:
            _, channels, rows, columns = call.shape
            played = tuple(role for role in ROLES if roles.get(role) == path)
            kind = type(segmenter.module.get_submodule(path)).__name__
            infos.append(LayerInfo(path, played, kind, (channels, rows, columns), round(size / rows)))
    return infos


def resolve(segmenter: Segmenter, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return the module that each of ``names`` means: a role, or a path in the wrapped network.

    Raises:
        UnknownNameError: it is neither, with the nearest name that is.
        ModelError: it is a role that this network doesn't show.
    """
    modules = {path: module for path, module in segmenter.module.named_modules() if path}
    found = {}
    for name in names:
        path = find_role(segmenter, name) if name in ROLES and name not in modules else name
        if path not in modules:
            raise unknown_name("layer", name, (*ROLES, *modules))
        found[name] = modules[path]
    return found


def find_role(segmenter: Segmenter, role: str) -> str:
    """Return the path of the layer that plays ``role``.

    Raises:
        ModelError: this network doesn't show it.
    """
    if segmenter not in _ROLES_OF:
        _ROLES_OF[segmenter] = _observe(segmenter)[1]
    roles = _ROLES_OF[segmenter]
    if role not in roles:
        raise ModelError(
            f"This network doesn't show which of its layers is {role!r}; it shows "
            f"{', '.join(roles) or 'no roles'}. Name a module path instead; 'seglens layers' lists them."
        )
    return roles[role]


def uncompiled() -> AbstractContextManager[object]:
    """Run compiled modules uncompiled: a hook set after the compilation would be skipped."""
    # Whoever compiled something has imported dynamo; for all others the import would cost seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _observe(segmenter: Segmenter) -> tuple[dict[str, _Call], dict[str, str]]:
    """Run the network once; return what its modules did, in the order in which they ended, and the roles."""
    network, calls, stages = segmenter.module, dict[str, _Call](), list[str]()
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise ModelError("A TorchScript module shows no layers. Wrap the nn.Module that it was made from.")
    encoder = _first_path(network, _ENCODERS)

    def note(path: str, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        before = calls[path].calls if path in calls else 0
        calls[path] = _describe(before + 1, module, given, output)
        if path == encoder:
            # Now, while the encoder's feature maps are alive.
            stages.extend(_stages(calls, path, _tensors(output)))

    handles = [
        module.register_forward_hook(partial(note, path)) for path, module in network.named_modules() if path
    ]
    try:
        with uncompiled():
            segmenter.try_out(_probe_size(segmenter))
    finally:
        for handle in handles:
            handle.remove()
    if encoder is not None and encoder not in calls:  # a list of modules, that is never called itself
        stages.extend(_stages(calls, encoder, []))
    return calls, _roles(network, calls, stages, segmenter.spec.outputs)


def _probe_size(segmenter: Segmenter) -> int:
    """Return the image size to look at layers with: deep grids of less than 64 pixels are single cells."""
    size = max(segmenter.spec.image_size, 64)
    return size + -size % segmenter.spec.divisor


def _describe(calls: int, module: nn.Module, given: tuple[Any, ...], output: Any) -> _Call:
    if not isinstance(output, Tensor) or output.ndim != 4:
        return _Call(calls, (), None, False)
    # An identity, or dropout in evaluation; an activation in place returns what it was given, but changed.
    same = any(output is entry for entry in given) and not getattr(module, "inplace", False)
    return _Call(calls, tuple(output.shape), weakref.ref(output), same)


def _stages(calls: Mapping[str, _Call], encoder: str, features: Sequence[Tensor]) -> list[str]:
    """Return the layer that ends each stage of the encoder, which handed on ``features``; none if unsure."""
    inside = [path for path in calls if path.startswith(f"{encoder}.") and calls[path].can_be_tapped]
    ends = [[path for path in inside if _returned(calls[path], feature)] for feature in features]
    found = [paths[-1] for paths in ends if paths]
    if len(found) > 2:
        return found
    # Features were rearranged afterwards, or only some are handed on: the last layer of every resolution,
    # among the encoder's direct parts. They must lead to the resolution of the last feature map.
    by_grid = {calls[path].shape[-2:]: path for path in _children(calls, encoder) if path in inside}
    deepest = features[-1].shape[-2:] if features else None
    return list(by_grid.values()) if deepest is None or list(by_grid)[-1:] == [tuple(deepest)] else []


def _returned(call: _Call, tensor: Tensor) -> bool:
    """Whether the call returned this very tensor, and not only one that is equal."""
    return call.output is not None and call.output() is tensor


def _roles(
    network: nn.Module, calls: Mapping[str, _Call], stages: Sequence[str], outputs: int
) -> dict[str, str]:
    """Return the path of the layer that plays each role, as far as it can be told."""
    roles, last = {}, len(stages) - 1
    if stages:
        middle = [path for path in calls if f".{path}".endswith(_BOTTLENECKS) and calls[path].can_be_tapped]
        roles["encoder_early"] = stages[last // 4]
        roles["encoder_mid"] = stages[(last + 1) // 2]
        roles["encoder_last"] = stages[last]
        roles["bottleneck"] = middle[0] if middle else stages[last]
    decoder, head = _first_path(network, _DECODERS), _first_path(network, _HEADS)
    if decoder is not None:
        blocks = _children(calls, f"{decoder}.blocks") or _children(calls, decoder)
        blocks = [path for path in blocks if calls[path].can_be_tapped]
        if head == decoder:  # its last layer makes the logits already
            blocks = [path for path in blocks if calls[path].shape[1] != outputs]
        if blocks:
            roles["decoder_first"], roles["decoder_last"] = blocks[0], blocks[-1]
    if head is not None and head in calls and calls[head].can_be_tapped:
        roles["seg_head"] = head
    return roles


def _first_path(network: nn.Module, names: Sequence[str]) -> str | None:
    """Return the path nearest to the root that ends in one of ``names``, earlier names first."""
    paths = [path for path, _ in network.named_modules()]
    found = [path for name in names for path in paths if path.rpartition(".")[2] == name]
    return min(found, key=lambda path: path.count("."), default=None)


def _children(calls: Mapping[str, _Call], parent: str) -> list[str]:
    return [path for path in calls if path.rpartition(".")[0] == parent]


def _tensors(output: Any) -> list[Tensor]:
    """Return the tensors that a module handed on, one by one or in a list, a tuple or a dict."""
    values = output.values() if isinstance(output, Mapping) else output
    values = values if isinstance(output, Mapping | tuple | list) else [output]
    return [value for value in values if isinstance(value, Tensor) and value.ndim == 4]
