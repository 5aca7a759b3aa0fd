"""Layer-wise relevance propagation (LRP) for U-Nets and other convolutional networks.

The score is handed back layer by layer, each of which deals what it gets among its inputs. `_Rules` does that
for every function of torch that it knows; a network that calls another one is refused by its name.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import CheckpointError

from seglens.arguments import check_fields
from seglens.axes import size_of
from seglens.errors import ModelError, SettingError
from seglens.explain.explanation import Explanation
from seglens.explain.target import Target
from seglens.explain.trace import differentiate, in_chunks, left_as_found
from seglens.models.folding import quick
from seglens.models.probing import NoGradientError
from seglens.models.segmenter import Segmenter
from seglens.runtime.device import at_once
from seglens.shapes import Images

WEIGHTED = frozenset("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear".split())
"""Sums with weights, which the rule is about."""

PASSED = frozenset("relu6 hardtanh silu gelu hardswish elu celu mish tanh selu".split())
"""Activations ``f`` with ``f(0) = 0`` that aren't linear in pieces through 0: what they get they hand on."""

GATES = frozenset("sigmoid hardsigmoid softmax".split())
"""What comes of them weighs something else and gets nothing."""

NORMS = frozenset("instance_norm group_norm layer_norm".split())

PRODUCTS = frozenset("mul __mul__ __rmul__ __imul__ multiply matmul __matmul__ bmm einsum".split())
"""Linear in one factor where the others are constant."""

QUOTIENTS = frozenset("div __truediv__ __itruediv__ true_divide divide".split())
"""Linear in what is divided where the divisor is constant."""

LINEAR = frozenset(
    """
    relu leaky_relu prelu rrelu abs max min maximum minimum amax amin where masked_fill dropout dropout1d
    dropout2d dropout3d feature_dropout alpha_dropout max_pool1d max_pool2d max_pool3d
    max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d adaptive_max_pool2d_with_indices
    adaptive_max_pool3d_with_indices max_unpool2d max_unpool3d avg_pool1d avg_pool2d avg_pool3d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample upsample_nearest
    upsample_bilinear pixel_shuffle pixel_unshuffle channel_shuffle pad fold unfold batch_norm add __add__
    __radd__ __iadd__ sub __sub__ __rsub__ __isub__ rsub subtract neg __neg__ positive cat concat
    concatenate stack hstack vstack dstack sum mean view view_as reshape reshape_as flatten unflatten ravel
    permute transpose swapaxes swapdims movedim moveaxis squeeze unsqueeze chunk split tensor_split
    split_with_sizes unbind __getitem__ __get__ narrow select index_select expand expand_as broadcast_to
    repeat tile repeat_interleave roll flip rot90 contiguous clone to type type_as float half double
    bfloat16 cpu cuda requires_grad copy
    """.split()
)
"""Functions ``f`` with ``f(t x) = t f(x)`` for t > 0, but for a constant that is added: by Euler's theorem
the input times its gradient sums to the output, so that their gradient deals rightly by itself."""


@dataclass(frozen=True)
class Lrp:
    """Settings of LRP: how much more what speaks for a unit counts than what speaks against it (``gamma``).

    With 0 the map is the input times its gradient. ``label`` is what the results are called by.
    """

    name: ClassVar[str] = "lrp"

    gamma: float = 0.25
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.gamma <= 1000:
            raise SettingError(f"gamma is {self.gamma}, but must be from 0 to 1000; 0.25 is usual.")


def lrp(
    segmenter: Segmenter,
    images: Images,
    targets: Sequence[Target],
    settings: Lrp,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Explanation]:
    """Hand the score S back to the pixels, the mean logit over the target: ``R_j = sum_k z_jk / z_k R_k``.

    The share of input j in unit k is ``z_jk = a_j w_jk + gamma max(0, a_j w_jk)`` where the unit is positive,
    and ``a_j w_jk + gamma min(0, a_j w_jk)`` where it is negative, and z_k is their sum with the bias's
    (LRP-gamma: Montavon et al. 2019, "Layer-wise relevance propagation: an overview", section 10.2.3; for
    inputs of either sign: Andeol et al. 2021, "Learning domain invariant representations by joint
    Wasserstein distance minimization", appendix). Batch norms are folded into convolutions first. Sums deal
    in proportion, maxima give to the largest. Activations hand on what they get; gates (a sigmoid that
    weighs something) and the deviation of a norm count as constants (Arras et al. 2017, "Explaining recurrent
    neural network predictions in sentiment analysis", section 3.1; Ali et al. 2022, "XAI for transformers",
    section 4). Relevance is that of the normalised picture: ``map`` is the sum of ``channels``.

    Diagnostic: ``conserved``, the map's sum as a share of S. Biases keep the rest: without biases it is 1.

    Raises:
        ModelError: the network calls a function that no rule is known for, is a script, or puts out
            probabilities.
    """
    del seed  # nothing is random
    _refuse_unseen(segmenter)
    channels = torch.zeros(len(targets), *images.shape, device=images.device)
    shares = torch.full((len(targets), len(images)), torch.nan, device=images.device)
    rules = _Rules(settings.gamma)

    def work(rows: slice) -> None:
        chosen = [target.select(rows) for target in targets]
        inputs = model.normalise(images[rows].to(model.mean)).detach().requires_grad_()
        with rules:
            logits = model(inputs, normalised=True)
        _refuse_own_functions(logits)
        for position, target in enumerate(chosen):
            score = target.score(logits, torch.arange(len(inputs)), "mean")
            keep = position + 1 < len(chosen)
            try:
                slopes = differentiate(score, {"the input": inputs}, target, keep=keep)
            except NoGradientError as error:
                if not isinstance(error.__cause__, CheckpointError):  # that would work without the rules
                    raise
                raise _refused("activations that are computed again (checkpointing)") from error
            relevance = (inputs * slopes["the input"]).detach().float()
            channels[position, rows] = relevance
            shares[position, rows] = relevance.flatten(1).sum(1) / score.detach().float()

    with left_as_found(segmenter, images):
        model = quick(segmenter)
        in_chunks(len(images), at_once(size_of(images), images.device, batch_size), work)
    return [
        Explanation(
            method=settings.label or settings.name,
            layer=None,
            target=target,
            map=channels[position].sum(1),
            channels=channels[position],
            settings=asdict(settings) | {"unit": "mean"},
            diagnostics={"conserved": shares[position]},
        )
        for position, target in enumerate(targets)
    ]


class _Rules(TorchFunctionMode):
    """Within it every function of torch has the backward pass of its rule, and forward the values it has."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` by its rule."""
        kwargs = kwargs or {}
        num = sum(map(_flows, tree_leaves((args, kwargs))))
        if not num:
            return func(*args, **kwargs)
        name, of_first = _name(func), num == 1 and bool(args) and _flows(args[0])
        if name in WEIGHTED and of_first:
            return self._weighted(func, *args, **kwargs)
        if name in PASSED and of_first:
            return _handed_on(func, *args, **kwargs)
        if name in GATES:
            return func(*args, **kwargs).detach()
        if name in NORMS and of_first:
            return _normed(func, *args, **kwargs)
        found = func(*args, **kwargs)
        known = name in LINEAR or (name in PRODUCTS and num == 1) or (name in QUOTIENTS and of_first)
        if name == "batch_norm" and (args[5:6] == (True,) or kwargs.get("training")):
            known = False  # its statistics are those of the pictures that came together
        if not known and any(map(_flows, tree_leaves(found))):
            raise _refused(name)
        return found

    def _weighted(
        self,
        func: Callable,
        value: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *rest: Any,
        **more: Any,
    ) -> Tensor:
        """A sum with weights; what speaks for the sign of the result counts ``1 + gamma`` times."""
        out = func(value, weight, bias, *rest, **more)
        if self.gamma == 0:
            return out
        up, down = (weight + self.gamma * part for part in (weight.clamp(min=0), weight.clamp(max=0)))
        above, below = F.relu(value), -F.relu(-value)
        signed = bool((value < 0).any())

        def total(for_above: Tensor, for_below: Tensor, kept: Tensor | None) -> Tensor:
            found = func(above, for_above, kept, *rest, **more)
            return found + func(below, for_below, None, *rest, **more) if signed else found

        most = least = None
        if bias is not None:
            most, least = (bias + self.gamma * part for part in (bias.clamp(min=0), bias.clamp(max=0)))
        share = torch.where(out > 0, total(up, down, most), total(down, up, least))
        return share * (out / torch.where(share == 0, 1, share)).detach()


def _refuse_unseen(segmenter: Segmenter) -> None:
    """Refuse networks whose functions can't be seen as they are called, and outputs that have no rule."""
    scripts = (torch.jit.ScriptModule, torch.jit.ScriptFunction)
    if any(isinstance(module, scripts) for module in segmenter.modules()):
        raise _refused("a compiled script (TorchScript), whose inside can't be seen")
    if segmenter.spec.outputs_are == "probabilities":
        raise _refused("an activation at the end (it puts out probabilities; their logits are needed)")


def _refuse_own_functions(logits: Tensor) -> None:
    """Refuse a network that has written its own backward pass: no rule takes its place."""
    seen, left = set(), [logits.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            raise _refused(f"{type(node).__name__.removesuffix('Backward')}, a function of its own")
        left += [following for following, _ in node.next_functions]


def _refused(what: str) -> ModelError:
    return ModelError(
        f"lrp has no rule for {what}, which this network has: it is for convolutional networks. Take another "
        "method, such as hires-cam or integrated-gradients."
    )


def _flows(value: object) -> bool:
    """Whether relevance comes back to it."""
    return isinstance(value, Tensor) and value.requires_grad


def _name(func: Callable) -> str:
    """The name of a function of torch; of one that works in place that of the other."""
    name: str = getattr(func, "__name__", str(func))
    return name if name.endswith("__") else name.removesuffix("_")


def _handed_on(func: Callable, value: Tensor, *rest: Any, **more: Any) -> Tensor:
    """``f(x)`` as ``x`` times a constant."""
    if bool(func(value.detach().new_zeros(1), *rest, **more).any()):
        raise _refused(f"{_name(func)} that is not 0 at 0")
    held = value.detach()
    changed = func(held.clone(), *rest, **more)
    found = value * torch.where(held == 0, 0, changed / held)
    in_place = more.get("inplace") or func.__name__.endswith("_")
    return value.copy_(found) if in_place else found


def _normed(func: Callable, *args: Any, **kwargs: Any) -> Tensor:
    """``(x - mean) / s * weight + bias``, with s a constant."""
    given = signature(func).bind(*args, **kwargs).arguments
    if not given.get("use_input_stats", True):
        return func(*args, **kwargs)
    value, weight, bias = given["input"], given.pop("weight", None), given.pop("bias", None)
    grouped = value.unflatten(1, (given["num_groups"], -1)) if "num_groups" in given else value
    first = -len(given["normalized_shape"]) if "normalized_shape" in given else 2
    centred = grouped - grouped.mean(tuple(range(first % grouped.ndim, grouped.ndim)), keepdim=True)
    centred = centred.view_as(value)
    held = centred.detach()
    found = centred * torch.where(held == 0, 0, func(**given).detach() / held)
    shape = [1, -1, *[1] * (value.ndim - 2)] if first == 2 else list(given["normalized_shape"])
    found = found if weight is None else found * weight.view(shape)
    return found if bias is None else found + bias.view(shape)
