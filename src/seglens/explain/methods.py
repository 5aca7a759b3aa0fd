"""Every method by name, what runs it, and what its results are called.

A method is its name, or its settings object where it has settings. To add one: its module, one line here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

from seglens.arguments import in_words
from seglens.arguments.inputs import names_of
from seglens.errors import SettingError, unknown_name
from seglens.explain.ablation import AblationCam, ablation_cam
from seglens.explain.cams import CAMS, Cam, SegXResCam
from seglens.explain.channels import ScoreCam, score_cam
from seglens.explain.explanation import Explanation
from seglens.explain.extremal import ExtremalMask, extremal_mask
from seglens.explain.fused import FusedHiResCam, fused_hires_cam
from seglens.explain.gradients import GRADIENTS, InputGradient
from seglens.explain.integrated import IntegratedGradients, integrated_gradients
from seglens.explain.lrp import Lrp, lrp
from seglens.explain.occlusion import Occlusion, SuperpixelOcclusion, occlusion, superpixel_occlusion
from seglens.explain.rise import Rise, rise
from seglens.explain.sampled import ExpectedGradients, SmoothGrad, expected_gradients, smoothgrad
from seglens.explain.shapley import Shapley, shapley


@runtime_checkable
class Settings(Protocol):
    """A frozen dataclass of settings; ``label`` is what results are called by, ``name`` where it is empty."""

    name: ClassVar[str]

    @property
    def label(self) -> str:
        """A name of the user's, or empty."""


Method = str | Settings


Pass = Callable[..., list[Explanation]]
"""Runs a method: ``(segmenter, images, targets, settings, *, seed, chunk)``, with ``layers`` after
``targets`` where it looks at layers. Gives an explanation for each target and layer, targets outermost."""

ON_INPUT: dict[type, Pass] = {
    SmoothGrad: smoothgrad,
    IntegratedGradients: integrated_gradients,
    ExpectedGradients: expected_gradients,
    Occlusion: occlusion,
    SuperpixelOcclusion: superpixel_occlusion,
    Rise: rise,
    Shapley: shapley,
    ExtremalMask: extremal_mask,
    FusedHiResCam: fused_hires_cam,
    Lrp: lrp,
}
"""What runs the methods that have settings and no layer."""

ON_LAYERS: dict[type, Pass] = {ScoreCam: score_cam, AblationCam: ablation_cam}
"""What runs the methods that have settings and layers."""

METHODS: dict[str, Cam | InputGradient | Settings] = {
    **CAMS,
    SegXResCam.name: SegXResCam(),
    **GRADIENTS,
    SmoothGrad.name: SmoothGrad(),
    IntegratedGradients.name: IntegratedGradients(),
    ExpectedGradients.name: ExpectedGradients(),
    ScoreCam.name: ScoreCam(),
    AblationCam.name: AblationCam(),
    Occlusion.name: Occlusion(),
    SuperpixelOcclusion.name: SuperpixelOcclusion(),
    Rise.name: Rise(),
    Shapley.name: Shapley(),
    ExtremalMask.name: ExtremalMask(),
    FusedHiResCam.name: FusedHiResCam(),
    Lrp.name: Lrp(),
}
"""Every method: a formula over one trace, or the settings that the bare name stands for."""


@dataclass(frozen=True)
class ParsedMethods:
    """Methods, each once, by the pass that it needs."""

    cams: dict[str, Cam]
    gradients: dict[str, InputGradient]
    on_input: tuple[Settings, ...]
    on_layers: tuple[Settings, ...]

    @property
    def need_layers(self) -> bool:
        """Whether any of them looks at layers."""
        return bool(self.cams or self.on_layers)

    def layers(self, given: str | Sequence[str]) -> tuple[str, ...]:
        """Return the layers to look at, each once; none where no method looks at any.

        Raises:
            SettingError: a method does, and none is given.
        """
        if not self.need_layers:
            return ()
        if not given:
            needy = next(iter((*self.cams, *(entry.name for entry in self.on_layers))))
            raise SettingError(
                f"layers is empty, and {needy!r} looks at layers. Name at least one, such as 'encoder_last'; "
                "'seglens layers' (seglens.layers) lists them."
            )
        return names_of(given)


def methods_of(methods: Method | Sequence[Method]) -> tuple[Method, ...]:
    """Return methods as a tuple; one alone need not stand in one.

    Raises:
        SettingError: there is none, or one is neither a name nor a settings object.
    """
    found = tuple(methods) if isinstance(methods, list | tuple) else (methods,)
    if not found:
        raise SettingError(f"At least one method is needed. Allowed: {', '.join(METHODS)}.")
    for method in found:
        if isinstance(method, type):
            raise SettingError(
                f"{method.__name__} is a class: write seglens.{method.__name__}(), with settings or none."
            )
        if not isinstance(method, str) and type(method) not in (*ON_INPUT, *ON_LAYERS, SegXResCam):
            raise SettingError(
                f"A method can't be {in_words(method)}. Allowed are settings such as "
                f"seglens.IntegratedGradients(), and names: {', '.join(METHODS)}."
            )
    return found


def parse(methods: Sequence[Method]) -> ParsedMethods:
    """Sort ``methods`` by the pass that each needs; settings get labels that tell them apart.

    Raises:
        UnknownNameError: there is no method of that name; the nearest is named.
        SettingError: a label is another method's name, or two settings have the same.
    """
    for method in methods:
        if isinstance(method, str) and method not in METHODS:
            raise unknown_name("method", method, METHODS)
    named = {method: METHODS[method] for method in methods if isinstance(method, str)}
    values = [named[method] if isinstance(method, str) else method for method in methods]
    settings = labelled([value for value in values if not isinstance(value, Cam | InputGradient)])
    cams = {name: value for name, value in named.items() if isinstance(value, Cam)}
    for entry in settings:
        if isinstance(entry, SegXResCam):
            key = entry.label or entry.name
            if key in cams or (entry.label and entry.label in METHODS):
                raise SettingError(f"Two methods are called {key!r}. Give the settings another label.")
            cams[key] = entry.cam
    return ParsedMethods(
        cams=cams,
        gradients={name: value for name, value in named.items() if isinstance(value, InputGradient)},
        on_input=tuple(entry for entry in settings if type(entry) in ON_INPUT),
        on_layers=tuple(entry for entry in settings if type(entry) in ON_LAYERS),
    )


def labelled(settings: Sequence[Settings]) -> list[Settings]:
    """Return each of ``settings`` once, named by what tells it from others of its type.

    As in ``integrated-gradients(baseline=blur, steps=64)``; one alone keeps its empty label.
    """
    once = list(dict.fromkeys(settings))
    return [_labelled(entry, [other for other in once if type(other) is type(entry)]) for entry in once]


def _labelled(entry: Any, alike: Sequence[Any]) -> Any:
    unnamed = [other for other in alike if not other.label]
    if entry.label or len(unnamed) < 2:
        return entry
    apart = [
        field.name
        for field in fields(entry)
        if field.compare and len({getattr(other, field.name) for other in unnamed}) > 1
    ]
    values = ", ".join(f"{name}={getattr(entry, name)}" for name in apart)
    return replace(entry, label=f"{entry.name}({values})")
