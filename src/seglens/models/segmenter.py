"""The one wrapper around every network: raw images in, logits of the same size out.

Trained here, adopted or wrapped, a model is a ``Segmenter`` to everything above: it owns the intensity
window, the normalisation, padding and cropping, and what the network's output has to be unwrapped from.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from seglens.arguments.default_type import callers_default
from seglens.axes import (
    LENGTHS,
    InputSize,
    axes,
    cropped,
    interpolated,
    padded_size,
    sides_of,
    size_of,
    spelled,
)
from seglens.errors import ModelError, UserError
from seglens.models import adapters, zoo
from seglens.models.adapters import ADAPTERS, Call, Tool
from seglens.models.dimensions import FOR, check_dimensions, fitting_layers
from seglens.models.ensemble import Ensemble
from seglens.models.outputs import Selector, check_alike, check_resolution, find_output, listed
from seglens.models.spec import WRAPPED as WRAPPED
from seglens.models.spec import Head as Head
from seglens.models.spec import ModelSpec as ModelSpec
from seglens.models.spec import Normalise as Normalise
from seglens.models.spec import complete as complete
from seglens.runtime.device import is_out_of_memory
from seglens.shapes import AnyMasks, Images, Logits, Probabilities

_EVEN = 1e-5
"""The smallest deviation that is divided by, as a share of the mean: that of an even picture is rounding."""
_SMALLEST = 1e-6
"""Probabilities are kept this far from 0 and 1 before the logarithm, so that logits stay finite."""


class RefusedSizeError(ModelError, RuntimeError):
    """Somebody else's network failed on images of another size than it was tried with."""


class FailedNetworkError(ModelError, RuntimeError):
    """Somebody else's network failed on images of the size that it was tried with."""


class Segmenter(nn.Module):
    """A network together with what has to happen before and after it.

    Its state dict is the network's under ``module.``; the normalisation belongs to the spec. ``origin`` says
    where the network's first weights came from, where that is known. ``select``, a function, takes the logits
    out of what the network returns, in the place of ``spec.output``. ``call``, a function, calls the network
    with normalised pictures, in the place of ``module(pictures)``.
    """

    origin: str = ""
    module: nn.Module
    spec: ModelSpec
    select: Selector | None
    call: Call

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        spec: ModelSpec,
        select: Selector | None = None,
        call: Call | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.spec = spec
        self.select = select
        self.call = call or _with_pictures_alone
        like = next((entry for entry in module.parameters() if entry.is_floating_point()), torch.empty(0))
        for name, values in self._normalisation(like.device).items():
            # Not in the state dict, so that the weights are the network's alone.
            self.register_buffer(name, values, persistent=False)

    def _normalisation(self, device: torch.device) -> dict[str, Tensor]:
        """Mean and std of each channel, in float32 at least: rounded to half they shift logits."""
        dtype = torch.promote_types(torch.float32, self.dtype)
        given = {"mean": self.spec.mean, "std": self.spec.std}
        # Of volumes with a batch axis: torch has a memory format for five axes and none for four of them.
        shape = (*[1] * (self.spec.dims - 2), -1, *[1] * self.spec.dims)
        return {
            name: torch.tensor(values, dtype=dtype, device=device).view(shape)
            for name, values in given.items()
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Segmenter":
        """Convert or move the network (``half()``, ``to()``); mean and std are moved, never rounded."""
        before = self.mean.dtype, self.mean.device
        super()._apply(fn, recurse)
        if (self.mean.dtype, self.mean.device) != before:
            for name, values in self._normalisation(self.mean.device).items():
                setattr(self, name, values)
        return self

    @classmethod
    def from_spec(cls, spec: ModelSpec, encoder_weights: str = "none") -> "Segmenter":
        """Build the network that ``spec`` describes; see ``zoo.build`` for ``encoder_weights`` and errors."""
        if spec.architecture in ADAPTERS:
            module, call = adapters.build(spec.architecture, spec.options)
            return cls(module, spec, call=call)
        spec = complete(spec)
        built = [
            zoo.build(
                spec.architecture,
                encoder=spec.encoder,
                encoder_weights=encoder_weights,
                channels=spec.channels,
                outputs=spec.outputs,
                width=spec.width,
                options=spec.options,
            )
            for _ in range(spec.members)
        ]
        module, origin = built[0]
        if spec.members > 1:
            module = Ensemble([network for network, _ in built])
        segmenter = cls(module, spec)
        segmenter.origin = origin
        return segmenter

    @property
    def tool(self) -> Tool | None:
        """What prepares files for the network as its own library does; None where this package does it."""
        if "_tool" not in vars(self):
            vars(self)["_tool"] = adapters.tool(self.spec.architecture, self.spec.options)
        found: Tool | None = vars(self)["_tool"]
        return found

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in, of the first of its weights."""
        weights = (entry.dtype for entry in self.module.parameters() if entry.is_floating_point())
        return next(weights, torch.float32)

    def forward(self, images: Images, *, normalised: bool = False) -> Logits:
        """Return logits at the resolution of ``images``, which lie in [0, 1] and are not ``normalised`` yet.

        Raises:
            ModelError: the images have other axes or channels, or the network's output is no logits.
        """
        # A copy of what is the caller's, since a network may change its pictures in place.
        padded = pad_to_divisor(images.clone() if normalised else self.normalise(images), self.spec.divisor)
        logits = self.read_output(self._run(padded), images.shape[0])
        if size_of(logits) != size_of(padded):
            check_resolution(size_of(logits), size_of(padded))
            if self.spec.foreign and self.spec.dims == 2:
                tried = padded_size(self.spec.sides, self.spec.divisor)
                check_alike(size_of(logits), size_of(padded), tried)
            logits = interpolated(logits, size_of(padded))
        return cropped(logits, size_of(images))

    def _run(self, padded: Images) -> Any:
        """Run the network; one of somebody else's may take pictures of one size only, and then says so."""
        try:
            with callers_default():
                return self.call(self.module, padded)
        except (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError) as error:
            size = size_of(padded)
            tried = padded_size(self.spec.sides, self.spec.divisor)
            if not self.spec.foreign or is_out_of_memory(error) or isinstance(error, UserError):
                raise
            if size == tried:
                low, high = (float(end) for end in padded.detach().aminmax())
                raise FailedNetworkError(
                    f"The network failed on images of {spelled(size)} pixels, which it was tried with, of "
                    f"values from {low:.3g} to {high:.3g}: {_reason(error)}. {_todo(len(padded))}"
                ) from error
            raise RefusedSizeError(
                f"The network can't take images of {spelled(size)} pixels, and was tried with "
                f"{spelled(tried)}: {_reason(error)}. Scale the images to that size"
                f"{f' (read_images has size={tried})' if len(tried) == 2 else ''}."
            ) from error

    def normalise(self, images: Images) -> Images:
        """Map the window to [0, 1], subtract the mean, divide by the standard deviation.

        Those of the spec, or with ``normalise="image"`` each picture's own.
        """
        if images.ndim != self.spec.dims + 2:
            raise ModelError(
                f"The model is {self.spec.dims}-D, for {FOR[self.spec.dims]}: it takes (batch, channels, "
                f"{LENGTHS[self.spec.dims]}), received shape {tuple(images.shape)}."
            )
        if images.shape[1] != self.spec.channels:
            raise ModelError(
                f"The images have {images.shape[1]} channels, the model takes {self.spec.channels}. "
                f"Read them with channels={self.spec.channels}."
            )
        opened = self.open_window(images)
        if self.spec.normalise == "image":
            return _standardised(opened).to(self.dtype)
        return ((opened - self.mean) / self.std).to(self.dtype)

    def open_window(self, images: Images) -> Images:
        """Map the intensity window to [0, 1]; what lies outside becomes 0 or 1, as it does when drawn."""
        low, high = self.spec.window
        if (low, high) == (0.0, 1.0):
            return images
        return ((images - low) / (high - low)).clamp(0, 1)

    def read_output(self, output: Any, batch: int) -> Tensor:
        """Return the logits ``[b, k, rows, columns]``, of any resolution, in what the network returned.

        Raises:
            ModelError: there are none, or their channels are not those of the head.
        """
        raw = self.answer(output, (self.spec.outputs,), batch)
        # Half precision is too coarse to sum over pixels.
        raw = raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw
        if self.spec.outputs_are == "probabilities":
            softmax = self.spec.head == "softmax"
            raw = raw.clamp_min(_SMALLEST).log() if softmax else torch.logit(raw, eps=_SMALLEST)
        return raw if self.spec.temperature == 1 else raw / self.spec.temperature

    def answer(self, output: Any, channels: Collection[int], batch: int = 1) -> Tensor:
        """Return the tensor of so many ``channels`` that is the answer to ``batch`` pictures in ``output``.

        Raises:
            ModelError: there is none, it isn't clear which one is, or ``select`` fails.
        """
        if self.select is None:
            return find_output(output, channels, batch, self.spec.output, self.spec.dims).tensor
        try:
            chosen = self.select(output)
        except (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError) as error:
            if is_out_of_memory(error) or isinstance(error, UserError):
                raise
            raise ModelError(
                "The function that takes the logits out of what the network returns failed: "
                f"{_reason(error)}. It was given {type(output).__name__} of "
                f"{listed(output, self.spec.dims)}. Give output=... a function that returns one of them."
            ) from error
        return find_output(chosen, channels, batch, dims=self.spec.dims).tensor

    def probabilities(self, logits: Logits) -> Probabilities:
        """Return the probability of every class, the background first.

        That of a multilabel head is the probability that no label is there, ``prod_i (1 - p_i)``, as if the
        labels came independently of one another.
        """
        if self.spec.head == "softmax":
            return logits.softmax(dim=1)
        return torch.cat([(-logits).sigmoid().prod(dim=1, keepdim=True), logits.sigmoid()], dim=1)

    def mask(self, logits: Logits) -> AnyMasks:
        """Return the class index of every pixel: sigmoid heads by the threshold, others the largest logit.

        Of a multilabel head the pixels of each label ``[b, l, h, w]``, by the label's threshold.
        """
        if self.spec.head == "multilabel":
            thresholds = torch.tensor(self.spec.thresholds, dtype=logits.dtype, device=logits.device)
            return logits.sigmoid() >= thresholds.view(-1, *[1] * self.spec.dims)
        if self.spec.head == "sigmoid":
            return (logits[:, 0].sigmoid() >= self.spec.threshold).long()
        return logits.argmax(dim=1)

    def try_out(self, size: InputSize) -> Tensor:
        """Return the network's answer ``[1, k, rows, columns]`` for noise, see `trial`.

        Raises:
            ModelError: the network can't take such an image, or returns nothing that could be logits.
        """
        return self.answer(self.trial(size), (self.spec.outputs,))

    def trial(
        self,
        size: InputSize,
        contrast: float = 1.0,
        *,
        beside: float | None = None,
        inverted: tuple[slice, ...] | None = None,
    ) -> Any:
        """Return what the network returns for noise of ``size``, one length for all sides or one for each.

        The noise is uniform in [0, 1]; ``contrast`` multiplies its distance from grey. With ``beside`` the
        same noise of that contrast is a second picture of the batch. Light and dark change places in the part
        ``inverted``.

        Raises:
            ModelError: the network can't take such an image.
        """
        shape = (1, self.spec.channels, *sides_of(size, self.spec.dims))
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        if inverted is not None:
            part = (slice(None), slice(None), *inverted)
            noise[part] = 1 - noise[part]
        contrasts = [contrast] if beside is None else [contrast, beside]
        images = torch.cat([0.5 + each * (noise.to(self.mean) - 0.5) for each in contrasts])
        padded = pad_to_divisor(self.normalise(images), self.spec.divisor)
        # Not inference_mode: what a network stores for later (a mask, an embedding) must serve gradients too.
        with evaluating(self.module), torch.no_grad(), fitting_layers(self.module, self.spec.dims):
            try:
                with callers_default():
                    output = self.call(self.module, padded)
            except UserError:
                raise
            except Exception as error:  # Whatever somebody else's network raises.
                check_dimensions(self.module, self.spec.dims)
                raise ModelError(
                    f"The network can't take an image of shape {tuple(padded.shape[1:])}: {_reason(error)}. "
                    f"{_advice(error)}"
                ) from error
        check_dimensions(self.module, self.spec.dims, output)
        return output


def _with_pictures_alone(module: nn.Module, images: Tensor) -> Any:
    return module(images)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    # The interpreter of TorchScript says what was wrong below where.
    first = "".join(lines[-1:] if "TorchScript interpreter" in str(error) else lines[:1]).rstrip(".")
    if isinstance(error, KeyError):  # whose text is the key alone
        return f"there is no key {first}"
    return first or type(error).__name__


def _todo(num_pictures: int) -> str:
    """Say what a network that failed on so many pictures must be able to do."""
    blank = "It must take black and even pictures, too: what is left of one where the rest is removed."
    if num_pictures == 1:
        return blank
    return (
        f"It was given {num_pictures} at once. One that takes single pictures only: "
        f"call=lambda net, x: torch.cat([net(each) for each in x.split(1)]). {blank}"
    )


def _advice(error: Exception) -> str:
    if "required positional argument" in str(error):
        return (
            "It takes more than one input: say how it is called, such as call=lambda net, x: net(x, other), "
            "or wrap a module whose forward takes the images alone and passes the others on."
        )
    if isinstance(error, IndexError | KeyError) or "indices" in str(error):
        return (
            "Check channels, image size and divisor. One that wants a dictionary or a list says so by its "
            "call: call=lambda net, x: net({'image': x})."
        )
    return "Check channels, image size and divisor."


def _standardised(images: Images) -> Images:
    """Return ``(x - m) / s`` with mean m and standard deviation s of each picture and channel.

    Of its pixels that are not black in every channel, as nnU-Net does with its non-zero mask (Isensee et al.
    2021): padding is black, and how much of it there is says nothing about the picture.
    """
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    shown = (wide != 0).any(1, keepdim=True)
    every = axes(images)
    count = shown.sum(every, keepdim=True).clamp(min=1)
    mean = (wide * shown).sum(every, keepdim=True) / count
    variance = ((wide - mean).square() * shown).sum(every, keepdim=True) / count
    least = (_EVEN * mean).square() + _SMALLEST**4  # below the root, whose slope at 0 is infinite
    return (wide - mean) / torch.maximum(variance, least).sqrt()


def pad_to_divisor(images: Tensor, divisor: int) -> Tensor:
    """Repeat the last row and column (and slice) until all lengths are divisible by ``divisor``."""
    # Not functional.pad: on a GPU the gradient of its border modes is not the same from run to run.
    for axis in axes(images):
        missing = -images.shape[axis] % divisor
        if missing:
            last = images.narrow(axis, -1, 1)
            images = torch.cat([images, *[last] * missing], dim=axis)
    return images


@contextmanager
def each_pass(tell: Callable[[int], None]) -> Iterator[None]:
    """Tell how many pictures go through any `Segmenter` within, before each of its calls."""

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, Segmenter):
            tell(len(given[0]))

    handle = register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part of ``module`` in evaluation mode, and each back as it was, on an error too.

    Raises:
        ModelError: a part of somebody else's refuses that.
    """
    # Frozen TorchScript has no such flag.
    training = {part: part.training for part in module.modules() if hasattr(part, "training")}
    try:
        try:
            module.eval()
        except NotImplementedError:  # programs of torch.export stay in the mode that they were exported in
            for part in training:
                part.training = False
        except Exception as error:  # whatever somebody else's train() raises
            raise ModelError(
                f"The network can't be put in evaluation mode, its train(False) fails: {_reason(error)}. "
                "Correct its train(mode), or leave that method to torch.nn.Module."
            ) from error
        yield
    finally:
        for part, flag in training.items():
            # One of their own may do more than set a flag: adapters (LoRA) add to weights, and take back.
            if part.training != flag and type(part).train is not nn.Module.train:
                part.train(flag)
            part.training = flag
