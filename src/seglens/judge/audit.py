"""The audit of a set: do maps light up where nothing should matter, and does it matter there?

Attribution alone is never called a shortcut: many maps light up edges, marks and corners of a model that
doesn't care. Attribution together with a causal effect is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from seglens.axes import LENGTHS, size_of
from seglens.errors import SettingError
from seglens.evaluate.intervals import Groups, Interval, interval, numbered
from seglens.explain.explanation import Explanation
from seglens.explain.masked import clean_scores
from seglens.explain.target import Target
from seglens.impute import noisy_linear
from seglens.judge.definitions import MIN_IMAGES
from seglens.judge.faithfulness import EVALUABLE
from seglens.judge.localisation import FLOOR
from seglens.judge.nulls import content_free, null_inputs
from seglens.judge.reading import score_unit
from seglens.judge.regions import elsewhere
from seglens.results.names import count, null_in_words
from seglens.results.scorecard import Audit, AuditedRegion, RegionMap, RegionOfPicture
from seglens.runs import Run
from seglens.seeds import content_generator, content_normal
from seglens.shapes import Images, Maps, PerImage, Regions

MATTERS = 0.05
"""A region that takes less than this share of the score, taken away, is of no account."""

DEFINITION = (
    "We ask two questions of each region. Does a heat map light up there? Does the answer change when "
    "the region is removed? A shortcut is claimed only where both are so. The target is never part of a "
    "region. Enrichment: how much the map prefers the region. 0 is what an even map gets, 1 is twice as "
    "much. (log2 of the region's share of the positive values outside the target, over its share of that "
    "area.) Drop: the share of the score that is lost when the region is filled from its surroundings. "
    "Control: the same for the region's shape at another place. The score is the mean probability of the "
    "class over the target. For missed regions it is the mean logit, and the drop is a difference. A "
    f"region matters where the drop is at least {MATTERS:.0%}, and above 0 and above the control for "
    "certain (95 % intervals). A map shows it where its enrichment is above 0 for certain. You must know "
    "whether the region should matter."
)


@dataclass(frozen=True)
class Audited:
    """One region, image by image on the CPU; NaN where it is empty or there is nothing to lose.

    ``area`` is its share of what is outside of the target; the rest is as in `DEFINITION`.
    """

    region: str
    area: PerImage
    drop: PerImage
    control: PerImage
    maps: dict[str, PerImage]
    nulls: dict[str, PerImage]


def audit(
    run: Run,
    images: Images,
    target: Target,
    maps: Sequence[Explanation],
    regions: Mapping[str, Regions],
    *,
    valid: Regions | None = None,
    seed: int = 0,
) -> list[Audited]:
    """Measure attribution and effect of each of ``regions`` on one batch of images in [0, 1].

    Raises:
        SettingError: a region is not of the pictures' size.
    """
    run, images = run.opened(images)
    for name, region in regions.items():
        if region.dtype != torch.bool or region.shape != (len(images), *size_of(images)):
            raise SettingError(
                f"The region {name!r} is {region.dtype} of shape {tuple(region.shape)}, but must be bool of "
                f"shape {(len(images), *size_of(images))} as the images (pictures, "
                f"{LENGTHS[images.ndim - 2]})."
            )
    inside = torch.ones_like(target.pixels) if valid is None else valid
    inside = inside.to(images.device)
    outside = inside & ~target.pixels.to(images.device)
    nulls = content_free(null_inputs(run, images, target, seed=seed))
    found = []
    for name, region in regions.items():
        zone = region.to(images.device) & outside
        other = elsewhere(zone, _shifts(images, seed)) & outside
        found.append(
            Audited(
                region=name,
                area=_share(outside.float(), zone, outside),
                drop=effect_of(run, images, target, zone, inside, seed=seed),
                control=effect_of(run, images, target, other, inside, seed=seed),
                maps={entry.name: enrichment(entry.map, zone, outside) for entry in maps},
                nulls={null: enrichment(stack, zone, outside) for null, stack in nulls.items()},
            )
        )
    return found


def effect_of(
    run: Run, images: Images, target: Target, zone: Regions, valid: Regions, *, seed: int = 0
) -> PerImage:
    """Return the share of the score that is lost without ``zone``, imputed from its surroundings."""
    unit = score_unit(target)
    noise = content_normal(images, tuple(images.shape[1:]), seed, "imputation")
    bare = torch.where(zone[:, None], noisy_linear(images, zone | ~valid, noise), images)
    full, without = (
        clean_scores(run.segmenter, pictures, (target,), unit=unit)[0].cpu() for pictures in (images, bare)
    )
    lost = full - without if unit == "mean" else torch.where(full > EVALUABLE, 1 - without / full, torch.nan)
    return torch.where(zone.flatten(1).any(1).cpu(), lost, torch.nan)


def enrichment(maps: Maps, zone: Regions, outside: Regions) -> PerImage:
    """Return log2 of the share of the positive attribution in ``zone`` over its share of the area.

    `FLOOR` where nothing lies there; NaN where the zone is empty or nothing lies ``outside`` at all.
    """
    mass, area = _share(maps.clamp(min=0), zone, outside), _share(torch.ones_like(maps), zone, outside)
    return torch.where(area > 0, (mass / area).log2().clamp_min(FLOOR), torch.nan).cpu()


def join_audits(parts: Sequence[Sequence[Audited]]) -> list[Audited]:
    """Put the batches of one set together."""
    return [
        Audited(
            region=of_region[0].region,
            area=torch.cat([part.area for part in of_region]),
            drop=torch.cat([part.drop for part in of_region]),
            control=torch.cat([part.control for part in of_region]),
            maps={n: torch.cat([part.maps[n] for part in of_region]) for n in of_region[0].maps},
            nulls={n: torch.cat([part.nulls[n] for part in of_region]) for n in of_region[0].nulls},
        )
        for of_region in zip(*parts, strict=True)
    ]


def conclude_audit(
    audited: Sequence[Audited],
    names: Sequence[str],
    groups: Mapping[str, str] | None = None,
    *,
    together: Sequence[str] | None = None,
    seed: int = 0,
) -> Audit:
    """Return the audit: regions with verdicts, groups of images, and images by their drop.

    ``names`` are those of the images, in order; ``groups`` say which group each is in, by name.
    ``together`` names for each image that with which it belongs together: intervals resample those.
    """
    clusters = None if together is None else numbered(together)
    every = torch.ones(len(names), dtype=torch.bool)
    members = dict.fromkeys((groups or {}).get(name, "") for name in names)
    return Audit(
        definition=DEFINITION,
        num_images=len(names),
        regions=tuple(_region_row(found, every, clusters, seed) for found in audited),
        groups=tuple(
            _region_row(
                found,
                torch.tensor([(groups or {}).get(n, "") == group for n in names]),
                clusters,
                seed,
                group=group,
            )
            for group in members
            for found in audited
        )
        if groups
        else (),
        images=tuple(image_rows(audited, names, groups)),
    )


def image_rows(
    audited: Sequence[Audited], names: Sequence[str], groups: Mapping[str, str] | None = None
) -> list[RegionOfPicture]:
    """Return one row for each image that holds a region, those that lose most first."""
    rows = [
        RegionOfPicture.model_validate(
            {
                "name": name,
                "region": found.region,
                "area": float(found.area[i]),
                "drop": float(found.drop[i]),
                "control": float(found.control[i]),
            }
            | ({"group": groups.get(name, "")} if groups else {})
            | {f"enrichment:{entry}": float(values[i]) for entry, values in found.maps.items()}
        )
        for found in audited
        for i, name in enumerate(names)
        if float(found.area[i]) > 0
    ]
    return sorted(
        rows, key=lambda row: float("inf") if row.drop is None or row.drop != row.drop else -row.drop
    )


def _region_row(
    found: Audited, which: torch.Tensor, members: Groups | None, seed: int, **group: str
) -> AuditedRegion:
    """One region over some of the images: its effect, and what each map makes of it."""
    within = partial(interval, groups=None if members is None else members[which], seed=seed)
    drop = within(found.drop[which])
    control = within(found.control[which])
    above = within((found.drop - found.control)[which])
    causal = drop.mean >= MATTERS and drop.low > 0 and above.low > 0
    maps = []
    for name, values in found.maps.items():
        shown = within(values[which])
        nulls = {null: float(other[which].nanmean()) for null, other in found.nulls.items()}
        verdict, reason = verdict_on(drop, shown, causal, nulls)
        if verdict == "not evaluable":
            reason = "; ".join([reason, *_missing(found, which)])
        maps.append(
            RegionMap.model_validate(
                {"map": name, "verdict": verdict, "reason": reason, "nulls": nulls}
                | _named("enrichment", shown)
            )
        )
    present = int((found.area[which] > 0).sum())
    return AuditedRegion.model_validate(
        {
            **group,
            "region": found.region,
            "num_present": present,
            "num_total": int(which.sum()),
            "area": float(found.area[which].nanmean()),
            **_named("drop", drop),
            **_named("control", control),
            **_named("difference", above),
            "matters": bool(causal),
            "maps": tuple(maps),
        }
    )


def verdict_on(drop: Interval, shown: Interval, causal: bool, nulls: Mapping[str, float]) -> tuple[str, str]:
    """Say what a map and an effect together mean; a shortcut needs both."""
    fewest = min(drop, shown, key=lambda found: found.independent)
    if fewest.independent < MIN_IMAGES:
        num, what = fewest.independent, "image" if fewest.independent == fewest.num else "group"
        return "not evaluable", f"only {count(num, what)} can be evaluated, at least {MIN_IMAGES} are needed"
    effect = f"removing the region costs {drop.mean:z.1%} [{drop.low:z.1%}, {drop.high:z.1%}] of the score"
    heat = f"log2 enrichment {shown.mean:z.2f} [{shown.low:z.2f}, {shown.high:z.2f}]"
    best = max(nulls, key=lambda name: nulls[name] if nulls[name] == nulls[name] else -torch.inf)
    if nulls[best] >= shown.mean:
        heat += f", no more than the reference map {null_in_words(best)} ({nulls[best]:z.2f})"
    if causal and shown.low > 0:
        return "shortcut", f"{effect}, and the map lights up there: {heat}"
    if causal:
        return "effect without attribution", f"{effect}, but the map does not show it: {heat}"
    if shown.low > 0:
        return "attribution without effect", f"the map lights up there ({heat}), but {effect}: no shortcut"
    return "nothing found", f"{effect}; {heat}"


def _missing(found: Audited, which: torch.Tensor) -> list[str]:
    """Say in how many images there is no region to remove, or nothing of the target to lose by it."""
    there = found.area[which] > 0
    empty = there & found.drop[which].isnan()
    images = count(int(empty.sum()), "image")
    said = [] if there.all() else [f"the region is in {int(there.sum())} of {count(len(there), 'image')}"]
    return said + ([f"in {images} with it there is nothing of the target"] if empty.any() else [])


def _named(name: str, found: Interval) -> dict[str, float | int]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_num": found.num}


def _share(values: Maps, zone: Regions, outside: Regions) -> PerImage:
    values = values.to(zone.device)
    inside, whole = (torch.where(part, values, 0).flatten(1).sum(1) for part in (zone, outside))
    return (inside / whole).cpu()


def _shifts(images: Images, seed: int) -> torch.Tensor:
    """A quarter to three quarters of the picture along each axis, keyed by seed and picture."""
    size = torch.tensor(size_of(images))
    drawn = torch.stack(
        [
            torch.rand(len(size), generator=content_generator(image, seed, "control region"))
            for image in images
        ]
    )
    return ((0.25 + 0.5 * drawn) * size).long()
