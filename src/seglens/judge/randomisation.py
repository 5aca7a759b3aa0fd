"""Model dependence: does a map change when the model forgets what it learned?

Adebayo et al. 2018, "Sanity checks for saliency maps"; Hedström et al. 2024, "A fresh look at sanity checks
for saliency maps". The frozen region is that of the trained model throughout.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from seglens.judge.case import JudgedBatch, Key, Reason, ScoreValues
from seglens.judge.cells import PerCell, rank_correlation
from seglens.judge.nulls import content_free, has_weights, null_inputs, randomised
from seglens.judge.rerun import Recipes
from seglens.models.segmenter import evaluating
from seglens.results.names import map_name
from seglens.results.scorecard import Cascade
from seglens.runs import Run
from seglens.shapes import Maps, PerImage

REPEATS = 0.9
"""A map that correlates less than this with itself, made again with the same seed, is noise to begin with."""

BINS = 100
"""Of the histogram whose entropy is a map's complexity."""

ENCODERS = ("encoder", "backbone")
"""What the part of a network is called that a decoder comes after."""

NO_WEIGHTS = Reason(
    "no_weights", "the network is a file with its own code, whose weights can't be made random"
)

SEED = 101
"""The first set of random weights; attention's null draws others."""


def model_dependence(case: JudgedBatch, found: Recipes) -> tuple[ScoreValues, Cascade]:
    """Measure ``rho(map, map made again) - mean over seeds |rho(map, map of random weights)|`` per image.

    Rank correlations over the cells. Content-free maps are held to the same: they change as far as they look
    at the model (only ``probability`` does). Images where rho of the repeat is below `REPEATS` are not
    evaluable. Details: ``repeat``, ``randomised`` (the mean of the absolute values), ``decoder_only`` (the
    same with a trained encoder), ``entropy_gain`` (`complexity` gained by randomising, as a share of the most
    that there can be, log `BINS`). Hedström's eMPRT divides by the complexity of the map itself, and a mean
    of that is ruled by maps that have next to none; this one lies between -1 and 1.

    Returns:
        The score, and for the cascade of `stages` the mean absolute rho of every map.
    """
    if not has_weights(case.run):
        unknown = torch.full((len(case.images),), torch.nan)
        reasons = dict.fromkeys(case.maps, NO_WEIGHTS)
        none = {name: unknown for name in case.nulls}
        return ScoreValues(dict.fromkeys(case.maps, unknown), none, reasons=reasons), Cascade()
    own = {key: case.cells(entry.map) for key, entry in case.maps.items() if key in found.keys}
    nulls = {name: case.cells(maps) for name, maps in case.nulls.items()}
    again = found.make(case.run, case.images, case.target, batch_size=case.batch_size)
    repeat = {key: _alike(case, cells, case.cells(again[key])) for key, cells in own.items()}
    apart: dict[Key, list[PerImage]] = {key: [] for key in own}
    gained: dict[Key, list[PerImage]] = {key: [] for key in own}
    null_apart: dict[str, list[PerImage]] = {name: [] for name in nulls}
    for number in range(case.settings.num_models):
        other = randomised(case.run, case.images, seed=SEED + case.seed + number)
        for key, maps in found.make(other, case.images, case.target, batch_size=case.batch_size).items():
            apart[key].append(_alike(case, own[key], case.cells(maps)).abs())
            gained[key].append((complexity(maps) - complexity(case.maps[key].map)) / math.log(BINS))
        for name, maps in content_free(null_inputs(other, case.images, case.target, seed=case.seed)).items():
            null_apart[name].append(_alike(case, nulls[name], case.cells(maps)).abs())
    changed = {key: torch.stack(each).mean(0) for key, each in apart.items()}
    details = {
        key: {
            "repeat": repeat[key],
            "randomised": changed[key],
            "entropy_gain": torch.stack(gained[key]).mean(0),
        }
        for key in own
    }
    cascade = _cascade(case, found, own, changed)
    parts = _decoder(case)
    if parts:
        other = randomised(case.run, case.images, seed=SEED + case.seed, only=parts)
        for key, maps in found.make(other, case.images, case.target, batch_size=case.batch_size).items():
            details[key]["decoder_only"] = _alike(case, own[key], case.cells(maps)).abs()
    nothing = torch.full((len(case.images),), torch.nan)
    values = {
        key: torch.where(repeat[key] >= REPEATS, repeat[key] - changed[key], torch.nan)
        if key in own
        else nothing
        for key in case.maps
    }
    usable = (~case.target.empty()).cpu()
    references = {
        name: torch.where(usable, 1 - torch.stack(each).mean(0), torch.nan)
        for name, each in null_apart.items()
    }
    measured = ScoreValues(values, references, details=details, reasons=dict(found.reasons))
    return measured, cascade


def _alike(case: JudgedBatch, cells: PerCell, others: PerCell) -> PerImage:
    """The rank correlation with the map of the trained model; 1 where a flat null stays the same."""
    found = rank_correlation(others, cells, case.counted)
    same = (torch.where(case.counted, cells - others, 0) == 0).all(1).cpu()
    return torch.where(same, 1, found)


def complexity(maps: Maps) -> PerImage:
    """Return the entropy of the histogram of each map's values (`BINS` bins over its range), on the CPU.

    Hedström et al. 2024, section 4.3: a map of a random model should be less orderly. NaN for NaN.
    """
    found = []
    for one in maps.detach().float().cpu():
        if not bool(one.isfinite().all()):
            found.append(torch.nan)
            continue
        share = torch.histc(one, BINS) / one.numel()
        found.append(float(torch.special.entr(share).sum()))
    return torch.tensor(found)


def stages(run: Run, image: Tensor, num: int) -> list[list[str]]:
    """Split the modules that hold weights into ``num`` steps from the output to the input, cumulatively.

    Modules are taken in the order in which they run; the last step holds all of them.
    """
    ran = modules_in_order(run, image)
    num = min(num, len(ran))
    return [ran[len(ran) - len(ran) * step // num :] for step in range(1, num + 1)]


def modules_in_order(run: Run, image: Tensor) -> list[str]:
    """Return the paths of the modules with weights of their own, in the order in which they first run."""
    network, order, hooks = run.segmenter.module, [], []
    for name, module in network.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            hooks.append(module.register_forward_pre_hook(lambda _, __, name=name: order.append(name)))
    try:
        with evaluating(network), torch.no_grad():
            run.segmenter(image.to(run.segmenter.device))
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(order))


def _decoder(case: JudgedBatch) -> Sequence[str]:
    """Return the modules that run after the last one of the encoder; none where no part is called that."""
    ran = modules_in_order(case.run, case.images[:1])
    inside = [place for place, path in enumerate(ran) if set(path.split(".")) & set(ENCODERS)]
    return ran[inside[-1] + 1 :] if inside else []


def _cascade(
    case: JudgedBatch, found: Recipes, own: dict[Key, PerCell], last: dict[Key, PerImage]
) -> Cascade:
    """Randomise the network step by step from its output to its input; ``last`` is the last step."""
    steps = stages(case.run, case.images[:1], case.settings.stages)
    correlations: dict[str, list[float]] = {map_name(*key): [1.0] for key in own}
    for names in steps[:-1]:
        other = randomised(case.run, case.images, seed=SEED + case.seed, only=names)
        for key, maps in found.make(other, case.images, case.target, batch_size=case.batch_size).items():
            correlations[map_name(*key)].append(_mean(_alike(case, own[key], case.cells(maps)).abs()))
    total = len(steps[-1])
    return Cascade(
        share_of_modules=(0.0, *(len(names) / total for names in steps)),
        maps={map_name(*key): (*correlations[map_name(*key)], _mean(alike)) for key, alike in last.items()},
    )


def _mean(values: PerImage) -> float:
    return float(values.nanmean())
