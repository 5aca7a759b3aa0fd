"""What a scorecard is made of: one number per image, map and score, which batches can be joined of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from seglens.errors import SettingError
from seglens.explain import explain
from seglens.explain.cams import CAMS
from seglens.explain.explanation import Explanation
from seglens.explain.target import Target
from seglens.judge.faithfulness import road
from seglens.judge.localisation import Attention, attention, join, summarise
from seglens.judge.nulls import content_free, randomised, surface
from seglens.judge.scorecard import (
    NULL,
    Judgement,
    Scorecard,
    attention_row,
    completeness_row,
    faithfulness_rows,
)
from seglens.runs import Run
from seglens.shapes import Images, PerImage

Key = tuple[str, str | None]
"""Method and layer of a map."""


@dataclass(frozen=True)
class Evidence:
    """The numbers of one batch of images, on the CPU; NaN where an image is not evaluable."""

    target: str
    faithfulness: dict[Key, PerImage]
    references: dict[str, PerImage]
    attention: dict[Key, Attention]
    completeness: dict[Key, tuple[PerImage, PerImage]]


def gather(
    run: Run,
    images: Images,
    target: Target,
    maps: Sequence[Explanation],
    *,
    seed: int = 0,
    chunk: int = 16,
) -> Evidence:
    """Measure every map of ``maps``, and the content-free ones, on ``images``.

    Raises:
        SettingError: a map is not of this target, or two maps share method and layer.
    """
    by_key = _by_key(maps, target)
    seen = surface(run, images, target, seed=seed)
    nulls = content_free(seen)
    named = {_name(key): entry.map for key, entry in by_key.items()}
    named |= {NULL + name: null for name, null in nulls.items()}
    curves = road(run.segmenter, images, target, named, seed=seed, chunk=chunk)
    chance = _on_randomised(run, images, target, by_key, seed=seed, chunk=chunk)
    return Evidence(
        target=target.label,
        faithfulness={key: curves[_name(key)].value for key in by_key},
        references={name: curves[NULL + name].value for name in nulls},
        attention={key: attention(entry, seen, randomised=chance.get(key)) for key, entry in by_key.items()},
        completeness={
            key: (entry.diagnostics["completeness_error"].cpu(), entry.diagnostics["small_denominator"].cpu())
            for key, entry in by_key.items()
            if "completeness_error" in entry.diagnostics
        },
    )


def combine(parts: Sequence[Evidence]) -> Evidence:
    """Put the batches of one set of images together; all must hold the same maps."""
    first = parts[0]

    def together(rows: Iterable[PerImage]) -> PerImage:
        return torch.cat(list(rows))

    return Evidence(
        target=first.target,
        faithfulness={key: together(part.faithfulness[key] for part in parts) for key in first.faithfulness},
        references={name: together(part.references[name] for part in parts) for name in first.references},
        attention={key: join([part.attention[key] for part in parts]) for key in first.attention},
        completeness={
            key: (
                together(part.completeness[key][0] for part in parts),
                together(part.completeness[key][1] for part in parts),
            )
            for key in first.completeness
        },
    )


def score(evidence: Evidence, *, seed: int = 0) -> Scorecard:
    """Turn the numbers of all images into rows with intervals and verdicts."""
    rows: list[Judgement] = faithfulness_rows(
        evidence.target, evidence.faithfulness, evidence.references, seed=seed
    )
    rows += [attention_row(summarise(entry, seed=seed)) for entry in evidence.attention.values()]
    rows += [
        completeness_row(evidence.target, *key, error, small, seed=seed)
        for key, (error, small) in evidence.completeness.items()
    ]
    return Scorecard(tuple(rows), len(next(iter(evidence.references.values()))))


def _by_key(maps: Sequence[Explanation], target: Target) -> dict[Key, Explanation]:
    """Index the maps, and refuse those that answer another question."""
    found: dict[Key, Explanation] = {}
    for entry in maps:
        key = (entry.method, entry.layer)
        same = entry.target.class_index == target.class_index and entry.target.against == target.against
        if not (same and torch.equal(entry.target.pixels.cpu(), target.pixels.cpu())):
            raise SettingError(
                f"Map {entry.name!r} explains target {entry.target.label!r} of class "
                f"{entry.target.class_index}, but is to be judged for {target.label!r} of class "
                f"{target.class_index}, or on other pixels. Judge it for its own target."
            )
        if key in found:
            raise SettingError(f"Two maps are called {entry.name!r}. Give one of them another method name.")
        found[key] = entry
    if not found:
        raise SettingError("There is no map to judge. Give at least one explanation.")
    return found


def _on_randomised(
    run: Run, images: Images, target: Target, maps: Mapping[Key, Explanation], *, seed: int, chunk: int
) -> dict[Key, Explanation]:
    """Run the CAMs among ``maps`` again on the model with random weights; other methods cost too much."""
    cams = [(method, layer) for method, layer in maps if method in CAMS and layer is not None]
    if not cams:
        return {}
    methods, layers = (tuple(dict.fromkeys(part)) for part in zip(*cams, strict=True))
    found = explain(
        randomised(run, images, seed=seed),
        images,
        target,
        methods=methods,
        layers=layers,
        seed=seed,
        chunk=chunk,
    )
    return {(entry.method, entry.layer): entry for entry in found.values()}


def _name(key: Key) -> str:
    return "@".join(part for part in key if part is not None)
