"""An explanation of one picture: the map, and its numbers next to those of its null maps."""

from dataclasses import dataclass

from seglens.explain.explanation import Explanation
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.methods import METHODS, Method, parse
from seglens.explain.sampled import needs_references
from seglens.explain.statistics import statistics
from seglens.explain.target import Target
from seglens.folder.heatmaps import Heatmaps, with_limits
from seglens.folder.measuring import maps_of
from seglens.folder.raw import Arrays, raw_arrays
from seglens.folder.request import request_of, targets_of
from seglens.folder.writer import map_row
from seglens.inspection.opened import Opened
from seglens.judge.localisation import attention, summarise
from seglens.judge.nulls import NullInputs
from seglens.masks import of_class
from seglens.models.layers import layers as layers_of
from seglens.results.maps import OneMap
from seglens.runs import Run

SEED = 0
"""Of everything random on the page: one click gives one answer."""


@dataclass(frozen=True)
class ExplainRequest:
    """What to explain: the names of the command line, the class and the one against it by their names.

    ``baseline`` is for Integrated Gradients alone.
    """

    target: str = "predicted"
    method: str = "grad-cam"
    layer: str = "decoder_last"
    baseline: str = "zero"
    class_name: str | None = None
    against: str | None = None
    where: str = "region"


@dataclass(frozen=True, eq=False)
class ExplainedPicture:
    """The map, the row that ``explanations.json`` would have for it, and its raw arrays.

    ``label`` is "restates the prediction" or empty, by the rule of `seglens.judge.localisation.summarise`.
    """

    request: ExplainRequest
    explanation: Explanation
    row: OneMap
    heatmaps: Heatmaps
    arrays: Arrays
    label: str

    @property
    def target(self) -> Target:
        """The frozen pixels."""
        return self.explanation.target

    @property
    def status(self) -> str:
        """``ok``, or why there is no map."""
        return self.explanation.status[0]


def explain_picture(run: Run, opened: Opened, request: ExplainRequest) -> ExplainedPicture:
    """Explain one picture. The raw map and its numbers are those of `seglens.explain_folder`.

    Null maps are those that cost no run of the model: the random network isn't asked, nor are other pictures.

    Raises:
        UnknownNameError: no such method, layer, target or class.
        SettingError: the target needs a truth that is not known, or the method means nothing over windows.
        ModelError: the layer can't be traced.
    """
    checked = request_of(
        run,
        opened.split,
        (requested_method(request),),
        (request.layer,),
        request.target,
        request.class_name,
        request.against,
        request.where,
        SEED,
    )
    part, prediction = opened.part, opened.prediction
    targets = targets_of(
        run,
        part,
        checked.targets,
        checked.class_index,
        against=checked.against,
        prediction=prediction,
    )
    (entry,) = maps_of(run, part, targets, checked)
    probability = prediction.probabilities[:, checked.class_index]
    inputs = NullInputs(part.batch.images, targets[0].pixels.to(probability.device), probability, SEED)
    predicted = of_class(prediction.mask, checked.class_index, run.spec.dims)
    numbers = statistics(entry, predicted=predicted, valid=part.batch.valid)
    measured = attention(entry, inputs, measured=numbers, valid=part.batch.valid), numbers
    row = map_row(entry, measured, 0)
    arrays = raw_arrays([entry], 0, opened.frame)
    heatmaps = with_limits(Heatmaps([row], arrays, opened.frame, run.spec))
    return ExplainedPicture(request, entry, heatmaps.rows[0], heatmaps, arrays, summarise(measured[0]).label)


def requested_method(request: ExplainRequest) -> Method:
    """Return the method that is asked for, with its baseline where it has one."""
    if request.method == IntegratedGradients.name:
        return IntegratedGradients(baseline=request.baseline)
    return request.method


def method_names(known_data: bool) -> list[str]:
    """Return the methods that can be asked for: without data there are no pictures to refer to."""
    return [name for name in METHODS if known_data or not needs_references([name])]


def layer_names(run: Run) -> list[str]:
    """Return the layers by which maps can be asked for: every role that is played, then module paths."""
    found = layers_of(run)
    roles = [role for layer in found for role in layer.roles]
    return [*roles, *(layer.name for layer in found if not layer.roles)]


def needs_layer(method: str) -> bool:
    """Return whether a method needs a layer."""
    return parse((method,)).need_layers
