"""The score of a classifier: one number for each picture, whose gradient shows what raises it.

The score compares groups of classes ("a pet, or anything else?"), not single ones ("which breed?"), so that
the whole object raises it and not only face and ears. The classifier was trained on labels of whole pictures
only: those of ImageNet, or those of the user's own set.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seglens.errors import CheckpointError, ModelError, SettingError, unknown_name
from seglens.models.encoders import ask_hub, load_encoder, pretrained_normalisation, quiet
from seglens.models.probing import intercepted
from seglens.shapes import Activations, Images, Scores

IMAGENET = 1000
"""Classes of ImageNet-1k, which the classifiers of timm tell apart."""

Outputs = Float[Tensor, "b outputs"]


@dataclass(frozen=True, eq=False)
class ClassifierScore:
    """A classifier, and which of its outputs mean that the object is there (``positive``).

    Pictures are normalised by ``mean`` and ``std``, in [0, 1]. ``about`` says in a sentence where its labels
    came from. The network is in evaluation mode and its weights need no gradient.
    """

    network: nn.Module
    positive: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    about: str

    def outputs(self, images: Images) -> Outputs:
        """Return the classifier's logits of raw pictures in [0, 1]."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1).to(images) for values in (self.mean, self.std))
        outputs: Outputs = self.network((images - mean) / std)
        return outputs

    def score(self, outputs: Outputs) -> Scores:
        """``logsumexp(positive logits) - logsumexp(the others)``: the log odds of the object.

        The output of a classifier with one output is already that.
        """
        if outputs.shape[1] == 1:
            return outputs[:, 0]
        chosen = _chosen(self.positive, outputs)
        return outputs[:, chosen].logsumexp(1) - outputs[:, ~chosen].logsumexp(1)


@dataclass(frozen=True, eq=False)
class ScoreTrace:
    """The score of some pictures, and of each layer its activation and the gradient of the score there."""

    score: Scores
    taps: dict[str, tuple[Activations, Activations]]


def trace_score(classifier: ClassifierScore, images: Images, layers: Sequence[str]) -> ScoreTrace:
    """Return the score of pictures, with activations and gradients of ``layers``, by one backward pass.

    Raises:
        UnknownNameError: the network has no such layer.
        ModelError: a layer returns no grid, or didn't run.
    """
    kept: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        # Clones: what works in place behind the layer would rewrite what is kept.
        kept[name] = output.clone() if output.requires_grad else output.detach().clone().requires_grad_()
        return kept[name].clone()

    with torch.enable_grad():
        score = classifier.score(_run(classifier, images, layers, keep))
        gradients = torch.autograd.grad(score.sum(), [kept[name] for name in layers])
    pairs = zip(layers, gradients, strict=True)
    return ScoreTrace(score.detach(), {name: (kept[name].detach(), gradient) for name, gradient in pairs})


def features(classifier: ClassifierScore, images: Images, layers: Sequence[str]) -> dict[str, Activations]:
    """Return what layers of the classifier give for pictures: one forward pass, no gradient.

    Raises:
        UnknownNameError: the network has no such layer.
        ModelError: a layer returns no grid, or didn't run.
    """
    kept: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        kept[name] = output.clone()
        return output

    with torch.no_grad():
        _run(classifier, images, layers, keep)
    return kept


def _run(
    classifier: ClassifierScore, images: Images, layers: Sequence[str], keep: Callable[[str, Tensor], Tensor]
) -> Outputs:
    """Run the classifier, and let ``keep`` see and replace what each of ``layers`` returns."""
    modules = dict(classifier.network.named_modules())
    for name in layers:
        if name not in modules or not name:
            raise unknown_name(
                "layer", name, [module for module in modules if module.count(".") < 2 and module]
            )
    seen: set[str] = set()

    def called(name: str, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ModelError(
                f"The layer {name!r} returns no grid of shape (b, channels, rows, columns). A heat map needs "
                "one. Name a convolution, or a block of convolutions."
            )
        seen.add(name)
        return keep(name, output)

    with ExitStack() as stack:
        for name in layers:
            stack.enter_context(intercepted(modules[name], partial(called, name)))
        outputs = classifier.outputs(images)
    missing = [name for name in layers if name not in seen]
    if missing:
        raise ModelError(f"The classifier didn't run its layer {missing[0]!r}. Name a layer that it runs.")
    return outputs


def imagenet_score(
    encoder: str, weights: str, positive: Sequence[str], *, device: torch.device
) -> ClassifierScore:
    """Return a classifier of ImageNet that is asked whether a picture shows one of ``positive``.

    ``encoder`` is a network of timm with 1000 outputs; ``weights`` is ``imagenet`` (from the hub) or a file,
    paired by name or in order, as for the encoders of `seglens train`. Nothing is trained.

    Raises:
        UnknownNameError: there is no such network, or no such group of classes.
        SettingError: ``positive`` names no class, or all of them.
        CheckpointError, ModelError: the weights don't fit, or can't be had.
    """
    network = classifier_network(encoder, weights)
    chosen = class_numbers(positive)
    mean, std = pretrained_normalisation(f"tu-{encoder}")
    about = (
        f"{encoder} with ImageNet weights, never trained further; {len(chosen)} of the {IMAGENET} ImageNet "
        f"classes mean yes ({', '.join(positive)}). Labels used: those of whole pictures of ImageNet."
    )
    return ClassifierScore(network.to(device), chosen, mean, std, about)


def classifier_network(encoder: str, weights: str, num_outputs: int = IMAGENET) -> nn.Module:
    """Return timm's network ``encoder`` with its ImageNet weights, ready to be asked.

    With another number of outputs than `IMAGENET` the last layer is a new one, drawn from torch's random
    state.

    Raises:
        UnknownNameError, CheckpointError, ModelError: see `imagenet_score`.
    """
    with quiet():
        import timm

    check_classifier(encoder, weights)
    if weights == "imagenet":
        with ask_hub(encoder):
            network: nn.Module = timm.create_model(encoder, pretrained=True)
    else:
        network = timm.create_model(encoder)
        if weights != "none":
            load_encoder(nn.ModuleDict({"encoder": network}), Path(weights))
    if num_outputs != IMAGENET:
        network.reset_classifier(num_outputs)  # type: ignore[operator]
    return network.eval().requires_grad_(False)


def check_classifier(encoder: str, weights: str) -> None:
    """Refuse what `classifier_network` can't make, as far as that is known without making it.

    Raises:
        UnknownNameError: timm has no such network.
        CheckpointError: there is no such file of weights.
    """
    with quiet():
        import timm

    if not timm.is_model(encoder):
        raise unknown_name("classifier of timm", encoder, timm.list_models())
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise CheckpointError(
            f"The file {weights} with weights of {encoder} doesn't exist. Name a file that does, or "
            "write imagenet or none."
        )


def check_layers(encoder: str, setting: str, layers: Sequence[str], sides: Sequence[int]) -> None:
    """Refuse layers that the classifier can't give for pictures of ``sides`` pixels; ``setting`` names them.

    The classifier runs on torch's meta device, where nothing is computed: no weights are needed.

    Raises:
        SettingError: it has no such layer, the layer gives no grid, or pictures of that size don't fit.
    """
    with quiet(), torch.device("meta"):
        import timm

        network = timm.create_model(encoder).eval()
    classifier = ClassifierScore(network, (), (0.0,), (1.0,), "")
    usual = [str(info["module"]) for info in getattr(network, "feature_info", [])]
    advice = f" Its stages are {', '.join(usual)}." if usual else ""
    for side in sides:
        for layer in layers:
            try:
                features(classifier, torch.empty(1, 3, side, side, device="meta"), [layer])
            except Exception as error:  # the network is timm's, and may raise anything
                raise SettingError(
                    f"{setting} asks for the layer {layer!r} of the classifier {encoder}, and it isn't there "
                    f"for pictures of {side} x {side} pixels. {error}{advice} Name layers of {encoder} in a "
                    "file of settings (--stages FILE), or choose another classifier."
                ) from error


def class_numbers(positive: Sequence[str]) -> tuple[int, ...]:
    """Return the ImageNet classes that are meant by numbers, ranges (``151-268``) and names of `GROUPS`.

    Raises:
        UnknownNameError: a word is none of these.
        SettingError: a number is above 999, or no class or all classes are named.
    """
    chosen: set[int] = set()
    for word in positive:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if not found and word not in GROUPS:
            raise unknown_name(
                "group of ImageNet classes", word, (*GROUPS, "a number", "a range such as 151-268")
            )
        chosen |= set(range(int(found[1]), int(found[2] or found[1]) + 1)) if found else set(GROUPS[word])
    if not chosen or max(chosen) >= IMAGENET or len(chosen) == IMAGENET:
        raise SettingError(
            f"The ImageNet classes of the object are given as: {', '.join(positive) or 'none'}. Allowed are "
            f"numbers from 0 to {IMAGENET - 1} and the groups {', '.join(GROUPS)}: at least one class, and "
            "not all."
        )
    return tuple(sorted(chosen))


def _chosen(positive: Sequence[int], outputs: Outputs) -> Bool[Tensor, " outputs"]:
    chosen = torch.zeros(outputs.shape[1], dtype=torch.bool, device=outputs.device)
    chosen[list(positive)] = True
    return chosen


GROUPS: dict[str, tuple[int, ...]] = {
    "dogs": tuple(range(151, 269)),
    "cats": tuple(range(281, 286)),
    "pets": (*range(151, 269), *range(281, 286)),
    "birds": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "fish": (*range(0, 7), *range(389, 398)),
    "insects": tuple(range(300, 327)),
    "animals": tuple(range(0, 398)),
}
"""Groups of ImageNet classes under one word. To add one: one line. Wild dogs (269 to 280) are no pets."""
