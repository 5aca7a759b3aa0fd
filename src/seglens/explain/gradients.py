"""Gradients of the score with respect to the input: pure functions of the pictures and ``dS/dx``.

S is the mean of the class's logits over the target's pixels, so that targets of different size give maps in
one unit: logits per unit of intensity. Pictures are raw, in [0, 1]. `GRADIENTS` at the foot names them all.
"""

from collections.abc import Callable
from dataclasses import dataclass

from seglens.shapes import ChannelMaps, Images, Maps


def saliency(images: Images, gradient: Images) -> ChannelMaps:
    """``|dS/dx|``: how much each pixel matters, in whichever direction. Simonyan et al. 2013, section 3.1."""
    return gradient.abs()


def input_x_gradient(images: Images, gradient: Images) -> ChannelMaps:
    """``x dS/dx``. Shrikumar et al. 2016, section 3.1: for a linear score, its parts; black pixels get 0."""
    return images * gradient


@dataclass(frozen=True)
class InputGradient:
    """A formula, and whether the map is the largest channel (as in its source) or the sum over channels."""

    formula: Callable[[Images, Images], ChannelMaps]
    largest: bool = False

    def map_of(self, channels: ChannelMaps) -> Maps:
        """One value a pixel."""
        return channels.amax(1) if self.largest else channels.sum(1)


GRADIENTS: dict[str, InputGradient] = {
    "saliency": InputGradient(saliency, largest=True),
    "input-x-gradient": InputGradient(input_x_gradient),
}
"""Every map that the input's gradient of one trace gives. To add one: one function, one line."""
