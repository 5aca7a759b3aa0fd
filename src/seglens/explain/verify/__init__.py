"""Verification: do the identities that maps rest on hold on the user's own model and pictures?

`verify` runs every check of ``rules.py``. A check that fails is a bug in Seglens or something in the model
that maps can't be trusted with (chance that is never switched off, a state that changes from run to run, a
gradient that is not that of the output), and the number says how bad it is. ``bf16-scores`` and
``compiled-is-eager`` are about options: a failure says to leave these off with this model, whose maps by
default are no worse for it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch

from seglens.arguments import checked
from seglens.arguments.inputs import Pictures, as_images, names_of
from seglens.axes import widened
from seglens.callable_module import make_callable
from seglens.errors import SettingError
from seglens.explain.target import Target, predicted, targets_on
from seglens.explain.verify.case import Case, Snapshot
from seglens.explain.verify.rules import RULES
from seglens.models.ensemble import Ensemble
from seglens.models.layers import layers as list_layers
from seglens.models.layers import resolve
from seglens.models.members import explained
from seglens.runs import Run
from seglens.runtime.progress import track
from seglens.seeds import content_uniform

Outcome = Literal["pass", "fail", "not applicable"]

NOISE = 2
"""Pictures of noise where there are no others."""


@dataclass(frozen=True)
class Check:
    """One line: ``value`` passes where it is at most ``limit``; None is not applicable, ``note`` says why.

    ``option`` names what is off by default and fails here: the line is then no fault of the maps.
    """

    name: str
    about: str
    value: float | None
    limit: float
    note: str = ""
    option: str = ""

    @property
    def outcome(self) -> Outcome:
        """A value that is NaN fails."""
        if self.value is None:
            return "not applicable"
        return "pass" if self.value <= self.limit else "fail"


@dataclass(frozen=True)
class Verification:
    """Every check of one model; ``note`` says what else there is to know about the pictures."""

    checks: tuple[Check, ...]
    num_images: int
    layers: tuple[str, ...]
    seed: int
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether no check failed but those of options."""
        return not any(check.outcome == "fail" and not check.option for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        """Return the check called ``name``."""
        return {check.name: check for check in self.checks}[name]

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        checks = [asdict(check) | {"outcome": check.outcome} for check in self.checks]
        return asdict(self) | {"layers": list(self.layers), "checks": checks, "passed": self.passed}


@checked
def verify(
    run: Run,
    images: Pictures | None = None,
    target: Target | None = None,
    *,
    layers: str | Sequence[str] = ("encoder_last", "decoder_last"),
    seed: int = 0,
    compiled: bool = False,
) -> Verification:
    """Check on ``run`` and ``images`` in [0, 1] what has to hold of every map; nothing is written.

    A few pictures are enough. Without any, noise is taken, on which a trained model may find nothing to
    explain. The target left out is what the model predicts as class 1, or the whole picture where that is
    nothing. ``compiled`` also compiles a copy of the model, which takes a minute or more.

    Raises:
        UnknownNameError: no such layer.
        SettingError: there is no picture or no layer, or the target is empty in one of the pictures.
        ModelError: a layer can't be traced.
    """
    layers, note = names_of(layers), ""
    if images is None:
        blank = torch.zeros(NOISE, run.spec.channels, *run.spec.sides)
        blank += widened(torch.arange(NOISE), blank)  # noise is keyed by what a picture holds
        images = content_uniform(blank, blank.shape[1:], seed, "verify")
        note = f"There are no pictures, so {NOISE} of noise are taken."
    pictures = as_images(images, run.spec.channels, run.spec.dims)
    if not layers:
        raise SettingError("There is no layer to verify; name at least one, such as 'encoder_last'.")
    if isinstance(run.segmenter.module, Ensemble):
        note = f"{note} Of the ensemble its first network is verified, on pictures as they are.".strip()
        run = replace(run, segmenter=explained(run.segmenter))
    before = Snapshot.of(run.segmenter)
    modules = resolve(run.segmenter, layers)
    by_path = {info.name: info for info in list_layers(run)}
    paths = {module: path for path, module in run.segmenter.module.named_modules()}
    for name, module in modules.items():
        info = by_path.get(paths[module])
        if info is not None and info.averages_out:
            note += f"{' ' * bool(note)}{name}: {info.advice}."
    pictures = pictures.to(run.segmenter.device)
    if target is None:
        found = predicted(run, pictures)
        target = replace(found, pixels=found.pixels | widened(found.empty(), found.pixels))
    (target,) = targets_on(run, pictures, target)
    if target.empty().any():
        raise SettingError(
            f"Target {target.label!r} is empty in {int(target.empty().sum())} of {len(pictures)} pictures; "
            "leave those out."
        )
    run, pictures = run.opened(pictures)
    case = Case(run, pictures, target, layers, seed, compiled, before)
    checks = []
    for name, rule in track(RULES.items(), total=len(RULES), what="verifying"):
        value, about = rule.measure(case)
        checks.append(Check(name, rule.about, value, rule.limit, about, rule.option))
    return Verification(tuple(checks), len(pictures), layers, seed, note)


make_callable(__name__)
