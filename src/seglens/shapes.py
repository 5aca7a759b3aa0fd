"""Names of the array types, with every axis letter defined once.

=======  ==========================================================
letter   axis
=======  ==========================================================
``b``    images of a batch
``c``    channels of an image
``h w``  rows and columns of the input grid, in pixels
``k``    output channels of a model (1 where the head is a sigmoid)
``l``    labels that may overlap (head ``multilabel``); the background is none of them
``d``    channels of a layer
``gh gw``  rows and columns of a layer's grid
``n``    perturbed copies of images
=======  ==========================================================

Within one call the same letter means the same length; the test run checks that.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Image = Float[Tensor, "c h w"]
Images = Float[Tensor, "b c h w"]
Mask = Int[Tensor, "h w"]
Masks = Int[Tensor, "b h w"]
Labels = Bool[Tensor, "l h w"]
LabelMasks = Bool[Tensor, "b l h w"]
AnyMask = Mask | Labels
ResizedMask = Int[Tensor, "rows columns"] | Bool[Tensor, "labels rows columns"]
"""A mask beside a picture of another size."""
AnyMasks = Masks | LabelMasks
Region = Bool[Tensor, "h w"]
Regions = Bool[Tensor, "b h w"]
Logits = Float[Tensor, "b k h w"]
Probabilities = Float[Tensor, "b classes h w"]
Activations = Float[Tensor, "b d gh gw"]
Map = Float[Tensor, "h w"]
Maps = Float[Tensor, "b h w"]
Grids = Float[Tensor, "b gh gw"]
ChannelMaps = Float[Tensor, "b c h w"]
Rows = Int[Tensor, " n"]
Scores = Float[Tensor, " n"]
PerImage = Float[Tensor, " b"]
