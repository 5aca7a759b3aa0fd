"""Volumes through nnU-Net's own preprocessing, windows and export, so that masks are those of its own tool.

Explanations work on what its preprocessing makes: there the network is, and there its windows lie. Masks and
probabilities are brought back by nnU-Net's functions, maps by the frame that says the same.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from seglens.data.frame import Frame
from seglens.data.prepared import Prepared
from seglens.data.volumes.grid import Grid
from seglens.errors import DataError, NonFiniteError
from seglens.models.adapters.nnunet.network import flat
from seglens.models.ensemble import Ensemble

Ends = tuple[float, float]

CODES: dict[str, Ends] = {
    "ZScoreNormalization": (-4.0, 12.0),
    "RescaleTo01Normalization": (0.0, 1.0),
    "RGBTo01Normalization": (0.0, 1.0),
}
"""The numbers that 0 and 1 stand for in a volume that was normalised so; those of others are in the plans."""
MOST = 2**22
"""Voxels of a volume whose slices go through a network of pictures all at once."""


def ends_of(scheme: str, found: Mapping[str, float]) -> Ends:
    """Return the numbers that 0 and 1 stand for; ``found`` are the plan's intensities of the channel.

    They hold 0, with which nnU-Net pads.
    """
    if scheme == "CTNormalization":
        deviation = max(found["std"], 1e-8)
        low, high = ((found[f"percentile_{end}"] - found["mean"]) / deviation for end in ("00_5", "99_5"))
    elif scheme == "NoNormalization":
        low, high = found["min"], found["max"]
    else:
        low, high = CODES[scheme]
    return min(low, 0.0), max(high, 0.0)


@dataclass(frozen=True)
class Cases:
    """What brings cases into the network of ``options`` (see ``folder.py``), and its answers back."""

    options: Mapping[str, Any]
    network: nn.Module | None
    """Of the configuration ``2d`` the network of pictures, into which weights are put before it is used."""

    @cached_property
    def plans(self) -> Any:  # nnU-Net has no types
        """nnU-Net's own reading of the plans, a ``PlansManager``."""
        return PlansManager(dict(self.options["plans"]))

    @cached_property
    def configuration(self) -> Any:
        """nnU-Net's own reading of the configuration, a ``ConfigurationManager``."""
        return self.plans.get_configuration(self.options["configuration"])

    @cached_property
    def labels(self) -> Any:
        """nnU-Net's own reading of the labels, a ``LabelManager``."""
        return self.plans.get_label_manager(dict(self.options["dataset"]))

    @cached_property
    def ends(self) -> tuple[Ends, ...]:
        """The numbers that 0 and 1 stand for, for each channel."""
        properties = self.plans.foreground_intensity_properties_per_channel
        schemes = self.configuration.normalization_schemes
        return tuple(ends_of(scheme, properties[str(n)]) for n, scheme in enumerate(schemes))

    def prepare(self, files: Sequence[Path], grid: Grid) -> Prepared:
        """Read the files of a case, one for each channel, and preprocess them as nnU-Net does.

        ``grid`` is that of the first file.

        Raises:
            DataError: nnU-Net can't read or preprocess them.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values, _, properties = DefaultPreprocessor(verbose=False).run_case(
                    [str(file) for file in files], None, self.plans, self.configuration, self._dataset
                )
        except Exception as error:  # Its readers and functions raise errors of many kinds.
            raise DataError(
                f"nnU-Net can't preprocess {files[0]}: {type(error).__name__}: {error}. Allowed is what "
                "nnUNetv2_predict takes."
            ) from error
        array = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        low, high = (torch.tensor(each).reshape(-1, 1, 1, 1) for each in zip(*self.ends, strict=True))
        image = ((array - low) / (high - low)).clamp(0, 1)
        frame, window = self._frame(array, properties, grid)
        blank = tuple(-low / (high - low) for low, high in self.ends)
        return Prepared(array, image, blank, frame, window, properties)

    def logits(self, module: nn.Module, prepared: Prepared) -> Tensor:
        """Return the logits ``[k *scaled]`` that nnU-Net's own windows give for ``module``.

        Those of several networks are averaged, mirror images too, as in ``nnUNetv2_predict``.

        Raises:
            NonFiniteError: they are not all finite.
        """
        networks = list(module.networks) if isinstance(module, Ensemble) else [module]
        device, benchmark = next(module.parameters()).device, torch.backends.cudnn.benchmark
        with redirect_stdout(io.StringIO()):  # it prints what a CPU can't do
            predictor = nnUNetPredictor(
                use_mirroring=bool(self.options["mirrored"]),
                perform_everything_on_device=device.type == "cuda",
                device=device,
                allow_tqdm=False,
            )
        total: Tensor | None = None
        flags = [(part, part.training) for part in module.modules()]
        try:
            for network in networks:
                used = network
                if self.network is not None:
                    self.network.load_state_dict(flat(network.state_dict()))
                    used = self.network
                predictor.manual_initialization(
                    used,
                    self.plans,
                    self.configuration,
                    None,
                    self._dataset,
                    self.options["trainer"],
                    tuple(self.options["mirrored"]) or None,
                )
                found = predictor.predict_sliding_window_return_logits(prepared.array).to("cpu")
                total = found.clone() if total is None else total.add_(found)
        except RuntimeError as error:
            if "Encountered inf" in str(error):
                raise NonFiniteError((0,)) from error
            raise
        finally:
            torch.backends.cudnn.benchmark = benchmark
            for part, training in flags:
                part.training = training
        assert total is not None
        mean = total.div_(len(networks)) if len(networks) > 1 else total
        if not bool(mean.isfinite().all()):
            raise NonFiniteError((0,))
        return mean

    def probabilities(self, logits: Tensor, prepared: Prepared, grid: Grid) -> Tensor:
        """Return the probabilities ``[classes slices rows columns]`` of a case on its own grid, by nnU-Net.

        Where rounding makes two classes alike, the one that nnU-Net takes by its logits is a step above. A
        region whose probability is .5 is a step below: nnU-Net doesn't take it.
        """
        notes, labels = prepared.properties, self.labels
        spacing = [notes["spacing"][axis] for axis in self.plans.transpose_forward]
        cut = notes["shape_after_cropping_and_before_resampling"]
        current = self.configuration.spacing
        current = current if len(current) == len(cut) else [spacing[0], *current]
        resampled = self.configuration.resampling_fn_probabilities(logits.numpy(), cut, current, spacing)
        found = torch.as_tensor(labels.apply_inference_nonlin(resampled)).clone()
        if labels.has_regions:
            found = torch.where(found == 0.5, torch.nextafter(found, torch.zeros_like(found)), found)
        else:
            chosen = torch.as_tensor(labels.convert_logits_to_segmentation(resampled)).long()[None]
            best = found.amax(0, keepdim=True)
            other = found.argmax(0, keepdim=True) != chosen
            above = torch.nextafter(best, torch.full_like(best, 2.0))
            found.scatter_(0, chosen, torch.where(other, above, found.gather(0, chosen)))
        whole = labels.revert_cropping_on_probabilities(
            found, notes["bbox_used_for_cropping"], notes["shape_before_cropping"]
        )
        if labels.has_regions:
            whole = torch.cat([(1 - whole).prod(0, keepdim=True), whole])  # as `Segmenter.probabilities`
        back = whole.permute(0, *(axis + 1 for axis in self.plans.transpose_backward)).numpy()
        return torch.from_numpy(np.stack([grid.to_zyx(each.transpose(2, 1, 0)) for each in back]))

    @property
    def _dataset(self) -> dict[str, Any]:
        return dict(self.options["dataset"])

    def _frame(
        self, array: Tensor, properties: Mapping[str, Any], grid: Grid
    ) -> tuple[Frame, tuple[int, ...]]:
        """Return how the preprocessed volume lies in the one of `Grid.to_zyx`, and the sides of a window."""
        scaled, patch = tuple(array.shape[1:]), tuple(self.configuration.patch_size)
        if len(patch) == 2:
            patch = (0 if scaled[0] * patch[0] * patch[1] <= MOST else 1, *patch)
        sides = tuple(max(length, side) for length, side in zip(scaled, patch, strict=True))
        native = tuple(grid.shape[axis] for axis in grid.file_axes)
        return Frame(
            native,
            sides,
            scaled,
            tuple((side - length) // 2 for side, length in zip(sides, scaled, strict=True)),
            grid.spacing_zyx,
            turned=grid.turned,
            # nnU-Net has the axes of a file in reverse, and then in the order of the plans.
            order=tuple(grid.file_axes.index(2 - axis) for axis in self.plans.transpose_forward),
            crop=tuple((int(first), int(last)) for first, last in properties["bbox_used_for_cropping"]),
        ), patch
