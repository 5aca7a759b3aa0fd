"""Pictures and volumes through a bundle's own transforms and inferer, so that masks are those of MONAI.

Explanations work on what the preprocessing makes. Masks are brought back by MONAI's ``Invertd``, maps by a
`Frame` that is read off the affine that MONAI's transforms write.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from torch import Tensor, nn

from seglens.data.frame import Frame
from seglens.data.images import read_size_and_turn
from seglens.data.orientation import UPRIGHT
from seglens.data.prepared import Prepared
from seglens.data.volumes.grid import CLOSE, Grid
from seglens.errors import DataError, ModelError, NonFiniteError
from seglens.models.adapters.monai_bundle import parts
from seglens.models.adapters.monai_bundle.config import TARGET
from seglens.models.outputs import Choice, find_output
from seglens.models.segmenter import evaluating

Ends = tuple[float, float]
Z_SCORES: Ends = (-4.0, 12.0)
"""What 0 and 1 stand for where intensities have mean 0 and deviation 1."""
BYTES: Ends = (0.0, 255.0)
_EXACT = 1e-4
"""Voxels by which a grid may be off one whose axes run along those of the file."""


def ends_of(before: Sequence[Mapping[str, Any]], dims: int) -> Ends:
    """Return the numbers that 0 and 1 stand for once ``before`` is done: what was scaled last says so.

    They hold 0, with which MONAI pads.

    Raises:
        ModelError: nothing says so.
    """
    scaled = [step for step in before if step[TARGET] in parts.INTENSITIES]
    scaled = [step for step in scaled if step[TARGET] != "ThresholdIntensityd"]
    ends: tuple[Any, Any] = BYTES if dims == 2 else (None, None)
    if scaled:
        last = scaled[-1]
        kind, given = last[TARGET], last.get
        if kind == "NormalizeIntensityd":
            low, scale = given("subtrahend"), given("divisor")
            ends = Z_SCORES
            if dims == 2 and isinstance(low, int | float) and isinstance(scale, int | float) and scale:
                ends = (0 - low) / scale, (255 - low) / scale
        elif kind == "ScaleIntensityd":
            ends = given("minv", 0.0), given("maxv", 1.0)
        else:
            ends = given("b_min"), given("b_max")
    if None in ends or ends[0] == ends[1]:
        raise ModelError(
            "The bundle's preprocessing doesn't say to which range it scales intensities "
            f"({scaled[-1][TARGET] if scaled else 'it scales none'}): explanations need what black and white "
            "stand for. Add ScaleIntensityRanged with b_min and b_max."
        )
    low, high = sorted(map(float, ends))
    return min(low, 0.0), max(high, 0.0)


@dataclass(frozen=True)
class Cases:
    """What brings cases into the network of ``options`` (see ``bundle.py``), and its answers back."""

    options: Mapping[str, Any]

    @cached_property
    def before(self) -> Compose:
        """The preprocessing."""
        return Compose([parts.make(step) for step in self.options["preprocessing"]])

    @cached_property
    def key(self) -> str:
        """What the bundle calls the picture."""
        keys = self.options["preprocessing"][0]["keys"]
        return str(keys[0] if isinstance(keys, list) else keys)

    @property
    def ends(self) -> Ends:
        """The numbers that 0 and 1 stand for."""
        return ends_of(self.options["preprocessing"], self.options["dims"])

    def prepare(self, files: Sequence[Path], grid: Grid | None) -> Prepared:
        """Read the files of a case, one for each channel, and do to them what the bundle says.

        ``grid`` is that of the first file, None of pictures.

        Raises:
            DataError: MONAI can't read or prepare them, or turns them between the axes of the file.
        """
        named = [str(file) for file in files]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self.before({self.key: named[0] if len(named) == 1 else named})[self.key]
        except Exception as error:  # Its readers and transforms raise errors of many kinds.
            root = error.__cause__ or error
            raise DataError(
                f"MONAI can't prepare {files[0]}: {type(root).__name__}: {str(root).partition(chr(10))[0]}. "
                "Allowed is what the bundle's own preprocessing takes."
            ) from error
        dims, channels = self.options["dims"], self.options["channels"]
        if not isinstance(found, MetaTensor) or found.ndim != dims + 1 or len(found) != channels:
            raise DataError(
                f"{files[0]} becomes {tuple(getattr(found, 'shape', ()))} by the bundle's preprocessing; the "
                f"network takes {channels} channels and {dims} axes. Give files with so many channels, as "
                "the bundle's metadata.json says."
            )
        array = found.as_tensor().detach().to(torch.float32).contiguous()
        low, high = self.ends
        frame, window = self._frame(found, files, grid)
        value = float(self.options["inferer"].get("cval", 0.0))
        blank = ((value - low) / (high - low),) * channels
        image = ((array - low) / (high - low)).clamp(0, 1)
        return Prepared(array, image, blank, frame, window, {"found": found})

    def logits(self, module: nn.Module, prepared: Prepared) -> Tensor:
        """Return the logits ``[k *scaled]`` that the bundle's own inferer gives for ``module``.

        Raises:
            NonFiniteError: they are not all finite.
        """
        device = next(module.parameters()).device
        inferer = parts.make(self.options["inferer"])

        def answer(images: Tensor) -> Tensor:
            choice: Choice = self.options["output"]
            wanted = (self.options["outputs"],)
            return find_output(module(images), wanted, len(images), choice, self.options["dims"]).tensor

        with evaluating(module), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MONAI, on how it uses torch
            found: Tensor = inferer(prepared.array[None].to(device), answer)[0].float().cpu()
        if not bool(found.isfinite().all()):
            raise NonFiniteError((0,))
        return found

    def probabilities(self, logits: Tensor, prepared: Prepared, grid: Grid | None) -> Tensor:
        """Return the probabilities of a case on its own grid, by the bundle's postprocessing.

        Where it decides otherwise than they do (it may decide before it goes back to the grid of the file),
        the class that it takes is a step above the others.
        """
        steps = self.options["postprocessing"]
        kept = [step for step in steps if step[TARGET] != "AsDiscreted"]
        found = self._after(kept, logits, prepared, nearest=False)
        if not any(step[TARGET] == "Activationsd" for step in kept):
            found = found.softmax(0)
        whole = found if self.options["head"] == "softmax" else _with_background(found)
        if any(step[TARGET] == "AsDiscreted" for step in steps):
            whole = self._decided(whole, self._after(steps, logits, prepared))
        if grid is None:
            return whole.transpose(1, 2)
        return torch.from_numpy(np.stack([grid.to_zyx(each) for each in whole.numpy()]))

    def _after(
        self, steps: Sequence[Mapping[str, Any]], logits: Tensor, prepared: Prepared, *, nearest: bool = True
    ) -> Tensor:
        """Do to the logits what ``steps`` say; without ``nearest`` what is brought back is interpolated."""
        data: dict[str, Any] = {self.key: prepared.properties["found"], "pred": MetaTensor(logits.clone())}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for step in steps:
                more: dict[str, Any] = {"transform": self.before} if step[TARGET] == "Invertd" else {}
                more |= {} if nearest or not more else {"nearest_interp": False}
                data = parts.make(step, **more)(data)
        found = data["pred"]
        return (found.as_tensor() if isinstance(found, MetaTensor) else found).detach().float().cpu()

    def _decided(self, probabilities: Tensor, decision: Tensor) -> Tensor:
        """Return probabilities ``[classes *size]`` whose mask is the bundle's decision."""
        if self.options["head"] != "softmax":
            taken, threshold = decision > 0.5, self.options["threshold"]
            labels = probabilities[1:]
            below = torch.nextafter(torch.tensor(threshold), torch.tensor(0.0)).item()
            labels = torch.where(taken, labels.clamp(min=threshold), labels.clamp(max=below))
            return torch.cat([(1 - labels).prod(0, keepdim=True), labels])
        one_hot = len(decision) == len(probabilities)
        chosen = decision.argmax(0, keepdim=True) if one_hot else decision.round().long()
        best = probabilities.amax(0, keepdim=True)
        other = probabilities.argmax(0, keepdim=True) != chosen
        above = torch.nextafter(best, torch.full_like(best, 2.0))
        return probabilities.scatter(0, chosen, torch.where(other, above, probabilities.gather(0, chosen)))

    def _frame(
        self, found: MetaTensor, files: Sequence[Path], grid: Grid | None
    ) -> tuple[Frame, tuple[int, ...]]:
        """Return how the prepared array lies in its file, and the sides of a window."""
        scaled, dims = tuple(found.shape[1:]), self.options["dims"]
        roi = self.options["inferer"].get("roi_size", 0)
        sides = [roi] * dims if isinstance(roi, int) or roi is None else list(roi)
        window = tuple(max(0, side or 0) for side in sides)
        size = tuple(max(pair) for pair in zip(scaled, window, strict=True))
        corner = tuple((side - length) // 2 for side, length in zip(size, scaled, strict=True))
        if grid is None:
            (rows, columns), turn = read_size_and_turn(files[0])
            if turn != UPRIGHT:
                raise DataError(
                    f"{files[0]} is stored turned (EXIF orientation {turn}), which MONAI doesn't look at. "
                    "Save it upright without that tag."
                )
            # MONAI's reader of pictures has columns first.
            lying = Lying((rows, columns), (), (), (1, 0))
            start = torch.eye(3, dtype=torch.float64)
        else:
            native = tuple(grid.shape[axis] for axis in grid.file_axes)
            order = tuple(np.argsort(grid.file_axes).tolist())
            lying = Lying(native, grid.spacing_zyx, grid.turned, order)
            start = torch.from_numpy(grid.affine)
            original = torch.as_tensor(np.asarray(found.meta["original_affine"]), dtype=torch.float64)
            if (original - start).abs().max() > CLOSE * min(grid.spacing):
                raise DataError(
                    f"MONAI reads another place of the voxels from {files[0]} than its header has here: "
                    f"{original.tolist()}, not {start.tolist()}. Write a new header for the file."
                )
        moved = torch.linalg.inv(start) @ _affine(found.affine, dims)
        axes, turned, reach = _along(moved, scaled, lying, files[0])
        frame = Frame(
            lying.native, size, scaled, corner, lying.spacing, turned=turned, order=axes, reach=reach
        )
        return frame, window


@dataclass(frozen=True)
class Lying:
    """How a picture lies in its file, as everything here has it.

    ``order`` says which axis of the picture each axis of the file is, ``turned`` which axes of the picture
    run against the file's.
    """

    native: tuple[int, ...]
    spacing: tuple[float, ...]
    turned: tuple[int, ...]
    order: tuple[int, ...]


def _along(
    moved: Tensor, scaled: Sequence[int], lying: Lying, file: Path
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[float, float], ...]]:
    """Return ``order``, ``turned`` and ``reach`` of the `Frame` of an array ``scaled`` voxels long.

    Its voxel x is the voxel ``moved @ x`` of the file.

    Raises:
        DataError: an axis of the array runs along none of the file.
    """
    axes, turned, reach = list[int](), set(lying.turned), list[tuple[float, float]]()
    for column, length in enumerate(scaled):
        steps = moved[:-1, column]
        of_file = int(steps.abs().argmax())
        axis, step = lying.order[of_file], float(steps[of_file])
        if float(steps.abs().sum()) - abs(step) > _EXACT or axis in axes:
            raise DataError(
                f"The bundle's preprocessing turns {file} between the axes of the file (Spacingd with "
                "diagonal=True does), so that maps can't be brought back to it. Leave that out."
            )
        # From the outer side of its first voxel to that of its last, in voxels of the file.
        first = float(moved[of_file, -1]) + 0.5 - step / 2
        last = first + step * length
        if step < 0:
            first, last = lying.native[axis] - first, lying.native[axis] - last
            turned ^= {axis}
        axes.append(axis)
        reach.append((first, last))
    return tuple(axes), tuple(sorted(turned)), tuple(reach)


def _affine(affine: Any, dims: int) -> Tensor:
    """Return an affine of ``dims`` axes."""
    whole = torch.as_tensor(np.asarray(affine), dtype=torch.float64)
    kept = [*range(dims), len(whole) - 1]
    return whole[kept][:, kept]


def _with_background(labels: Tensor) -> Tensor:
    """Put the probability that no label is there in front."""
    return torch.cat([(1 - labels).prod(0, keepdim=True), labels])
