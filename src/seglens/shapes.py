"""Names of the array types, with every axis letter defined once.

=========  ==========================================================
letter     axis
=========  ==========================================================
``b``      images of a batch
``c``      channels of an image
``*size``  the spatial axes of the input grid: rows and columns, or slices, rows and columns
``k``      output channels of a model (1 where the head is a sigmoid)
``l``      labels that may overlap (head ``multilabel``); the background is none of them
``d``      channels of a layer
``*grid``  the same axes of a layer's grid, in its cells
``n``      perturbed copies of images
=========  ==========================================================

Within one call the same letter means the same length; the test run checks that. Pictures and volumes have one
code: see ``axes.py``.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Image = Float[Tensor, "c *size"]
Images = Float[Tensor, "b c *size"]
Mask = Int[Tensor, "*size"]
Masks = Int[Tensor, "b *size"]
Labels = Bool[Tensor, "l *size"]
LabelMasks = Bool[Tensor, "b l *size"]
AnyMask = Mask | Labels
ResizedMask = Int[Tensor, "rows columns"] | Bool[Tensor, "labels rows columns"]
"""A mask beside a picture of another size."""
AnyMasks = Masks | LabelMasks
Region = Bool[Tensor, "*size"]
Regions = Bool[Tensor, "b *size"]
Logits = Float[Tensor, "b k *size"]
Probabilities = Float[Tensor, "b classes *size"]
Activations = Float[Tensor, "b d *grid"]
Map = Float[Tensor, "*size"]
Maps = Float[Tensor, "b *size"]
Grids = Float[Tensor, "b *grid"]
Channels = Float[Tensor, "b d"]
"""A number for each channel of a layer."""
ChannelMaps = Float[Tensor, "b c *size"]
Rows = Int[Tensor, " n"]
Scores = Float[Tensor, " n"]
PerImage = Float[Tensor, " b"]
