"""Making maps again: for a model with other weights, or for pictures that were changed a little."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from seglens.explain import explain
from seglens.explain.explanation import Explanation
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.methods import METHODS, Method
from seglens.explain.target import Target
from seglens.judge.case import Explainer, JudgedBatch, Key, Reason
from seglens.results.names import map_name
from seglens.runs import Run
from seglens.shapes import Images, Maps

NO_WAY = Reason("no_explainer", "nobody said how to make this map again: give an explainer")


@dataclass(frozen=True)
class Recipes:
    """How the maps of a case are made again; ``reasons`` say which are not, and why."""

    built_in: Mapping[Key, Method]
    own: Mapping[Key, Explainer]
    reasons: Mapping[Key, Reason]
    seeds: Mapping[Key, int]

    @property
    def keys(self) -> list[Key]:
        """The maps that can be made again."""
        return [*self.built_in, *self.own]

    def make(self, run: Run, images: Images, target: Target, *, batch_size: int) -> dict[Key, Maps]:
        """Make every map again, one pass for all that share one."""
        found: dict[Key, Maps] = {}
        for seed in dict.fromkeys(self.seeds[key] for key in self.built_in):
            chosen = {key: method for key, method in self.built_in.items() if self.seeds[key] == seed}
            layers = list(dict.fromkeys(layer for _, layer in chosen if layer is not None))
            methods: list[Method] = []
            for method in chosen.values():
                methods += [] if method in methods else [method]
            made = explain(
                run, images, target, methods=methods, layers=layers, seed=seed, batch_size=batch_size
            )
            entries = {(entry.method, entry.layer): entry.map for entry in made.values()}
            found |= {key: entries[key] for key in chosen}
        return found | {
            key: explainer(run, images, target).to(images.device) for key, explainer in self.own.items()
        }

    def without(self, reasons: Mapping[Key, Reason]) -> "Recipes":
        """Return the recipes without the maps of ``reasons``, which are added to those of before."""
        return Recipes(
            {key: method for key, method in self.built_in.items() if key not in reasons},
            {key: explainer for key, explainer in self.own.items() if key not in reasons},
            {**self.reasons, **reasons},
            self.seeds,
        )


def recipes(case: JudgedBatch) -> Recipes:
    """Find out how each map of ``case`` is made again, and leave out what takes too long."""
    built_in: dict[Key, Method] = {}
    own: dict[Key, Explainer] = {}
    reasons: dict[Key, Reason] = {}
    seeds: dict[Key, int] = {}
    for key, entry in case.maps.items():
        seed = entry.settings.get("seed")
        seeds[key] = seed if isinstance(seed, int) else case.seed
        explainer = case.explainers.get(map_name(*key), case.explainers.get(entry.method))
        method = method_of(entry)
        if explainer is not None:
            own[key] = explainer
        elif isinstance(method, IntegratedGradients) and method.one_for_each:
            reasons[key] = Reason("no_explainer", "its baselines belong to these pictures only")
        elif method is not None:
            built_in[key] = method
        else:
            reasons[key] = NO_WAY
    found = Recipes(built_in, own, reasons, seeds)
    return found.without(_slow(case, found))


def method_of(entry: Explanation) -> Method | None:
    """Return the name, or the settings, that made ``entry``; None where none of ours did.

    A map of somebody else's that is called like one of ours has no settings of ours.
    """
    if not entry.settings:
        return None
    known: dict[str, Any] = dict(METHODS)
    if entry.method in known and not _has_settings(known[entry.method]):
        return entry.method
    named = entry.method.partition("(")[0]
    candidates = [known[named]] if named in known else list(known.values())
    fitting = [
        settings
        for settings in candidates
        if _has_settings(settings) and _names(settings) <= {*entry.settings, "label"}
    ]
    if not fitting:
        return None
    closest = max(fitting, key=lambda settings: len(_names(settings)))
    values = {name: _frozen(entry.settings[name]) for name in _names(closest) if name in entry.settings}
    label = "" if entry.method == closest.name else entry.method
    return replace(closest, **{**values, "label": label})


def _has_settings(method: Any) -> bool:
    return (
        is_dataclass(method) and "label" in _names(method) and isinstance(getattr(method, "name", None), str)
    )


def _names(settings: Any) -> set[str]:
    return {field.name for field in fields(settings)} if is_dataclass(settings) else set()


def _frozen(value: Any) -> Any:
    """Lists, which is what tuples become in a file, as tuples."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list | tuple) else value


def _slow(case: JudgedBatch, found: Recipes) -> dict[Key, Reason]:
    """Time each method on the first image with a target; say which take too long."""
    usable = (~case.target.empty()).nonzero()[:, 0][:1]
    if len(usable) == 0:
        return {}
    images, target = case.images[usable.to(case.images.device)], case.target.select(usable)
    slow: dict[Key, Reason] = {}
    limit = case.settings.max_seconds
    for group in _groups(found):
        alone = found.without({key: NO_WAY for key in found.keys if key not in group})
        seconds = _seconds(case, alone, images, target)
        if seconds > limit:  # The first time holds what is only done once.
            seconds = min(seconds, _seconds(case, alone, images, target))
        if seconds > limit:
            text = f"the method takes {seconds:.2g} s an image, more than {limit:g} s"
            slow |= dict.fromkeys(group, Reason("too_slow", text))
    return slow


def _seconds(case: JudgedBatch, alone: Recipes, images: Images, target: Target) -> float:
    began = time.perf_counter()
    for maps in alone.make(case.run, images, target, batch_size=case.batch_size).values():
        maps.sum().item()  # waits for the device
    return time.perf_counter() - began


def _groups(found: Recipes) -> list[Collection[Key]]:
    """The maps of one method at all layers are one group."""
    names = dict.fromkeys(method for method, _ in found.keys)
    return [[key for key in found.keys if key[0] == name] for name in names]
