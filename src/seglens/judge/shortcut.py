"""The planted shortcut: which of two models reads a tag, by attribution and by what the tag does.

Both models were trained on the same pictures and labels. In the training pictures of the *cheat* the tag
goes with the object, so that reading the tag pays; in those of the *honest* model it stands independently of
it. Both are shown the same tagged test pictures. Attribution alone is never called a shortcut, and a method
that lights up the tag in the honest model as well is not detecting one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from seglens.axes import LENGTHS, size_of
from seglens.errors import DataError, SettingError
from seglens.explain import explain
from seglens.explain.explanation import Explanation
from seglens.explain.methods import Method
from seglens.explain.target import Target, for_head, predicted
from seglens.judge.agreement import CHEAT, DROP, HONEST, STILL, TagShare, conclude, invalid_because, tag_share
from seglens.judge.causal import Effect, effect, occlusion_map, without
from seglens.results.scorecard import TagTest
from seglens.runs import Run
from seglens.shapes import Images, Regions, Rows

DEFINITION = (
    "Two models learned from the same pictures. Only in one of them does a tag stand beside every "
    "object. We remove the tag, or move it to a free place, and ask both models again. The score is the "
    "mean probability over the region that the model marked. A drop is the share of the score that is "
    f"lost. The test is valid if removing the tag costs the cheat more than {DROP:.0%}, and moving it "
    f"changes less than {STILL:.0%}. The honest model must change less than {STILL:.0%} both times. Share: "
    "how much of the heat outside the marked regions lies on the tag (grown by half a cell of the map). "
    "Chance share: the same for an even map. AUROC: how often the cheat has the larger share, .5 if the "
    "method cannot tell the models apart. Intervals are 95 % bootstrap intervals over pictures. This is "
    "one experiment with one pair of models."
)


@dataclass(frozen=True)
class Shortcut:
    """The outcome, and what is needed to draw it.

    ``rows`` are the pictures that were used (tagged, and with a region in both models); everything per
    picture is about these, in this order. ``maps[model]`` are that model's explanations, the last one its
    occlusion map, which covers the first ``num_occluded`` pictures only.
    """

    rows: Rows
    effects: Mapping[str, Effect]
    methods: tuple[TagShare, ...]
    valid: bool
    verdict: str
    reason: str
    untagged: Images
    targets: Mapping[str, Target]
    maps: Mapping[str, tuple[Explanation, ...]]
    seed: int

    @property
    def table(self) -> TagTest:
        """The outcome as it stands in ``shortcut.json``, without pictures."""
        areas = {name: float(target.pixels.float().mean()) for name, target in self.targets.items()}
        return TagTest(
            definition=DEFINITION,
            models={
                name: {"num_images": len(self.rows), "predicted_area": area} for name, area in areas.items()
            },
            causal={name: found.table(seed=self.seed) for name, found in self.effects.items()},
            methods=tuple(row.table for row in self.methods),
            valid=self.valid,
            verdict=self.verdict,
            reason=self.reason,
        )

    def to_json(self) -> dict[str, object]:
        """Return the outcome as plain data, without pictures."""
        return self.table.plain()


def planted_shortcut(
    honest: Run,
    cheat: Run,
    images: Images,
    tags: Bool[Tensor, "tags rows columns"],
    *,
    methods: Sequence[Method] = ("grad-cam", "layer-cam", "integrated-gradients"),
    layers: Sequence[str] = ("encoder_last", "decoder_last"),
    objects: Regions | None = None,
    seed: int = 0,
    num_occluded: int = 8,
    occlusion_cells: int = 16,
) -> Shortcut:
    """Compare the two models on the same tagged pictures, by attribution and by causal effect.

    Args:
        honest: trained with the tag standing independently of the object.
        cheat: trained with the tag going with the object.
        images: tagged test pictures in [0, 1].
        tags: where the tag stands; pictures without one are left out.
        methods: as in `explain`.
        layers: as in `explain`.
        objects: where no tag may be moved to, besides what the models predict: objects and their look-alikes.
        seed: of noise, places and bootstrap.
        num_occluded: how many pictures the occlusion map is made for (``occlusion_cells`` squared runs each).
        occlusion_cells: rows and columns of the occlusion map.

    Raises:
        SettingError: ``tags`` don't belong to ``images``.
        DataError: no picture holds a tag and a region in both models.
    """
    if tags.shape != (len(images), *size_of(images)):
        raise SettingError(
            f"The tags have shape {tuple(tags.shape)}, but the images {(len(images), *size_of(images))} "
            f"(pictures, {LENGTHS[images.ndim - 2]}). Give one tag region per image."
        )
    runs = {HONEST: honest, CHEAT: cheat}
    regions = {name: predicted(run, images).pixels for name, run in runs.items()}
    rows = (
        tags.flatten(1).any(1) & torch.stack([r.flatten(1).any(1) for r in regions.values()]).all(0)
    ).nonzero()[:, 0]
    if len(rows) == 0:
        raise DataError(
            f"None of {len(images)} pictures holds a tag and a region that both models predict. "
            "Check the tags, or train longer."
        )
    images, tags = images[rows], tags[rows]
    targets = {
        name: for_head(Target("predicted", 1, pixels[rows]), honest) for name, pixels in regions.items()
    }
    answers = targets[HONEST].pixels | targets[CHEAT].pixels
    occupied = answers if objects is None else answers | objects[rows]
    effects = {
        name: effect(run.segmenter, images, targets[name], tags, occupied, seed=seed)
        for name, run in runs.items()
    }
    maps = {
        name: (
            *explain(run, images, targets[name], methods=methods, layers=layers, seed=seed).values(),
            occlusion_map(
                run.segmenter,
                images[:num_occluded],
                targets[name].select(slice(num_occluded)),
                cells=occlusion_cells,
                seed=seed,
            ),
        )
        for name, run in runs.items()
    }
    shares = tuple(
        tag_share(first, second, tags[: len(first.map)], ~answers[: len(first.map)], seed=seed)
        for first, second in zip(maps[HONEST], maps[CHEAT], strict=True)
    )
    failures = invalid_because(effects, seed=seed)
    verdict, reason = conclude(effects, shares, failures, seed=seed)
    return Shortcut(
        rows=rows,
        effects=effects,
        methods=shares,
        valid=not failures,
        verdict=verdict,
        reason=reason,
        untagged=without(images, tags, seed=seed),
        targets=targets,
        maps=maps,
        seed=seed,
    )
