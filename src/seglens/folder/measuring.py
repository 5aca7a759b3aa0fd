"""The maps of a chunk of pictures, and their numbers next to those of their nulls."""

from collections.abc import Sequence
from dataclasses import replace

from seglens.explain import explain
from seglens.explain.cams import CAMS
from seglens.explain.explanation import Explanation
from seglens.explain.statistics import statistics
from seglens.explain.target import Target
from seglens.folder.chunks import Chunk
from seglens.folder.large import maps_of_large, windows_of
from seglens.folder.partial import Measured
from seglens.folder.request import Request
from seglens.judge.localisation import attention
from seglens.judge.nulls import NullInputs, randomised
from seglens.masks import of_class
from seglens.predict import Prediction
from seglens.runs import Run


def maps_of(run: Run, part: Chunk, targets: Sequence[Target], request: Request) -> list[Explanation]:
    """Return the maps of all targets, in the order of the targets."""
    if part.windows is not None:
        return maps_of_large(run, part, targets, request)
    found = explain(
        run,
        part.batch.images,
        targets,
        methods=request.methods,
        layers=request.layers,
        where=request.where,
        seed=request.seed,
        memory=request.memory,
    ).values()
    order = {target.label: position for position, target in enumerate(targets)}
    return sorted(found, key=lambda entry: order[entry.target.label])


def measure(
    run: Run,
    part: Chunk,
    targets: Sequence[Target],
    request: Request,
    maps: Sequence[Explanation],
    prediction: Prediction,
) -> list[Measured]:
    """Measure each map and its nulls, image by image."""
    images, valid = part.batch.images, part.batch.valid
    probability = prediction.probabilities[:, request.class_index]
    predicted = of_class(prediction.mask, request.class_index, valid.ndim - 1)
    inputs = {
        target.label: NullInputs(images, target.pixels.to(probability.device), probability, request.seed)
        for target in targets
    }
    cams = [entry for entry in maps if entry.method in CAMS and entry.layer is not None]
    chance = {}
    if cams:
        methods = tuple(dict.fromkeys(entry.method for entry in cams))
        layers = tuple(dict.fromkeys(str(entry.layer) for entry in cams))
        seen_by_norms = images if part.windows is None else windows_of(run, part)
        unlearned = randomised(run, seen_by_norms, seed=request.seed)
        found = maps_of(unlearned, part, targets, replace(request, methods=methods, layers=layers))
        chance = {(entry.target.label, entry.name): entry for entry in found}
    measured: list[Measured] = []
    for entry in maps:
        label, numbers = entry.target.label, statistics(entry, predicted=predicted, valid=valid)
        null = chance.get((label, entry.name))
        measured.append(
            (attention(entry, inputs[label], measured=numbers, randomised=null, valid=valid), numbers)
        )
    return measured
