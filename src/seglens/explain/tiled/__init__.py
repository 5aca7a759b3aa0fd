"""Pictures larger than the training's: explanations of a prediction in windows, stitched from raw values.

A large picture is predicted in overlapping windows w, see ``predict/tiles.py``, whose weights a_w(p) sum to
1 at every pixel p. What is predicted there is blended from probabilities; an explanation is about logits, so
its one score is the blend of those::

    S  =  sum over w of S_w,      S_w  =  sum over p in M of a_w(p) z_w(p)

A window sees only its own pixels and has its own activations A_w, so the derivatives of S add up over windows
exactly, and a window without a pixel of M adds nothing and is not differentiated. Methods are of three kinds:

- Derivatives of the input, and methods whose map is linear in the score: maps are added up. Integrated
  Gradients are complete: the stitched map sums to S(x) - S(x0), where x0 has each window's own baseline.
  Units are those of the whole picture: what is per pixel of M is divided by the size of all of M.
- CAMs are made on one tiled grid of cells over the picture (``grid.py``), where the gradients of the windows
  are added, g = sum of g_w, and their activations are blended, A = sum of a_w A_w. Sums over the grid (the
  weights of Grad-CAM, Grad-CAM++ and XGrad-CAM, Eigen-CAM's vector) are sums over the whole of it: one set of
  channel weights for all windows, found in a first pass and applied in a second. With weights of its own,
  a window would light up by how much of M it happens to hold, and have an edge. HiResCAM is g_w A_w, added:
  its grid sums to the score less the bias as ever. ReLU and upsampling follow once, on the whole of it.
- Methods whose value in a window means nothing for the whole are refused; `OVER_WINDOWS` in ``stitching.py``
  names the others.

A network that looks at single pixels gives the map of the picture in one piece, and so does one that looks a
few pixels around, as long as M and the pixel are farther than that from the edges of windows. A network that
looks as far as its window reaches has derivatives right up to the edge: an edge in a map of the input is one
that the prediction has, and fading it out would break the sum. Of the size of the picture nothing is held but
the target and one tiled grid for each map; `layer-cam` and `grad-cam++` hold all channels of a row of windows
(of a volume, of all windows between two slices). Volumes have one more axis, and are no different else::

    windows = plan(pixels.shape[:2], run.spec, "auto")        # None: it fits into one input, use `explain`
    maps = explain_large(run, cut, windows, target, methods=("grad-cam",), layers=("encoder_last",))
    maps["grad-cam", "encoder_last"].at((1024, 768))          # to draw; ``bands()`` for the original size
    maps["grad-cam", "encoder_last"].explanation()            # an `Explanation` at the working scale
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from seglens.axes import axes
from seglens.errors import SettingError
from seglens.explain.cams import Cam
from seglens.explain.explanation import LEFT
from seglens.explain.gradients import InputGradient
from seglens.explain.memory import keep_chunk, within
from seglens.explain.methods import ON_INPUT, Method, Settings, parse
from seglens.explain.target import Target, for_head
from seglens.explain.tiled.grid import OpenRows, TiledGrid, View
from seglens.explain.tiled.map import LargeMap
from seglens.explain.tiled.members import mean_of_members
from seglens.explain.tiled.stitching import OVER_WINDOWS, stitch
from seglens.explain.trace import trace
from seglens.models.ensemble import Ensemble
from seglens.models.layers import resolve
from seglens.predict.original import AT_ONCE
from seglens.predict.tiles import Cut, Place, Windows, resized
from seglens.runs import Run

Key = str | tuple[str, str]

BATCH_SIZE = AT_ONCE[2]
"""Windows of pictures in the model at once."""


def explain_large(
    run: Run,
    cut: Cut,
    windows: Windows,
    target: Target,
    *,
    methods: Sequence[Method] = ("grad-cam",),
    layers: Sequence[str] = ("encoder_last", "decoder_last"),
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
) -> dict[Key, LargeMap]:
    """Explain the model's score of ``target`` in a picture that is predicted in windows.

    ``cut`` and ``windows`` are those of the prediction (`seglens.predict.tiles.plan`); ``target`` is of one
    picture at the working scale (`Windows.scaled`). At most ``batch_size`` windows are in the model at once
    (8 or, of volumes, 1 where it is left out), fewer where ``memory`` (bytes on top of picture, target and
    maps) allows no more; that changes nothing in the result, see `seglens.explain.explain`. What the stitched
    map is, method by method, the module's docstring says. Its ``settings`` are the method's, with the
    ``windows``. The diagnostic ``windows`` is how many hold a pixel of the target, ``score`` is S in the
    method's unit; others are means over those windows, weighted by their share of the target.

    Returns:
        The maps by ``(method, layer)``, or by ``method`` where there is no layer.

    Raises:
        UnknownNameError: no such method or layer.
        SettingError: a method means nothing over windows, the target is not at the working scale, or one
            window is more than the budget.
        ModelError: a layer can't be traced.
    """
    if target.pixels.shape != (1, *windows.scaled):
        raise SettingError(
            f"Target {target.label!r} has pixels of shape {tuple(target.pixels.shape)}, but must be of one "
            f"picture at the working scale, {(1, *windows.scaled)}. Scale its pixels to that."
        )
    asked = parse(methods)
    settings = (*asked.on_input, *asked.on_layers)
    names = (*asked.cams, *asked.gradients, *(entry.name for entry in settings))
    for name in names:
        if name not in OVER_WINDOWS:
            raise SettingError(
                f"Method {name!r} has no meaning over the windows of a large picture. Allowed: "
                f"{', '.join(OVER_WINDOWS)}. Or scale the picture into one input: tiles='never'."
            )
    layers = asked.layers(layers)
    resolve(run.segmenter, layers)  # A wrong name is an error before any work is done.
    run, cut = _opened(run, cut)
    most = AT_ONCE[run.spec.dims] if batch_size is None else batch_size
    seen = View(run.segmenter, cut, windows, for_head(target, run), most)

    def work(view: View, chosen: Sequence[Method]) -> list[LargeMap]:
        wanted = parse(chosen)
        with within(memory, names, view.images(view.every[:1]), most):
            found = [*_of_layers(view, wanted.cams, layers), *_of_input(view, wanted.gradients)]
            return found + [_linear(view, entry, seed) for entry in wanted.on_input]

    several = isinstance(run.segmenter.module, Ensemble)
    found = mean_of_members(run, seen, methods, work) if several else work(seen, methods)
    return {item.method if item.layer is None else (item.method, item.layer): item for item in found}


def _opened(run: Run, cut: Cut) -> tuple[Run, Cut]:
    """As `Run.opened`, of a picture that is cut out part by part."""
    window, bare = run.segmenter, run.opened(torch.zeros(0, run.spec.channels, *[1] * run.spec.dims))[0]
    return bare, cut if bare is run else lambda *part: window.open_window(cut(*part)[None])[0]


def _of_layers(view: View, cams: dict[str, Cam], layers: Sequence[str]) -> Iterator[LargeMap]:
    made = stitch(view, cams, layers)
    for name, cam in cams.items():
        diagnostics = {} if OVER_WINDOWS[name] == "blended" else {"score": math.fsum(made.scores)}
        for layer in layers:
            grid, cells = made.grids.get((name, layer)), made.cells.get(layer)
            settings = {"unit": "sum", **cam.settings}
            left = {LEFT: made.left[name, layer]} if (name, layer) in made.left else {}
            yield _large_map(view, name, layer, grid, cells, cam.relu, settings, diagnostics | left)


def _of_input(view: View, gradients: dict[str, InputGradient]) -> Iterator[LargeMap]:
    """Add up dS/dx over windows, and apply the formulas to each row that is done."""
    grids = {name: torch.zeros(view.windows.scaled) for name in gradients}
    count, rest = int(view.target.pixels.sum()), view.windows.scaled[1:]
    scores: list[float] = []
    held = OpenRows(*rest)

    def work(places: list[Place], after: int | None) -> None:
        images, target = view.images(places), view.targets(places)
        traced = trace(view.segmenter, images, (target,), (), input_gradient=True)[0]
        assert traced.input_gradient is not None  # it was asked for
        slopes = traced.input_gradient[(slice(None), slice(None), *view.windows.inner)].float().cpu()
        keep_chunk()
        scores.append(traced.score.sum(dtype=torch.float64).item())
        held.extend(slopes, view.pixels, places)
        done, gradient = held.finish(view.pixels.axes[0].offset(after))
        part = (done, *(slice(0, length) for length in rest))
        image = resized(view.cut, view.windows.native, view.windows.scaled, *part)
        for name, formula in gradients.items():
            channels = formula.formula(image[None], gradient[None] / count)
            grids[name][done] = formula.map_of(channels.float())[0]

    if gradients:
        view.run(view.aimed, work)
    for name, grid in grids.items():
        diagnostics = {"score": math.fsum(scores) / max(1, count)}
        yield _large_map(view, name, None, grid, view.pixels, False, {"unit": "mean"}, diagnostics)


def _linear(view: View, settings: Settings, seed: int) -> LargeMap:
    """Add up the maps of windows, each of its own mean, by its share of all pixels of the target.

    A window whose map is constant adds nothing; one that failed makes the whole fail.
    """
    grid, count = torch.zeros(view.windows.scaled), int(view.target.pixels.sum())
    recorded: dict[str, object] = asdict(settings)  # type: ignore[call-overload]
    diagnostics: dict[str, float] = {}

    def work(places: list[Place], after: int | None) -> None:
        images, target = view.images(places), view.targets(places)
        made = ON_INPUT[type(settings)](
            view.segmenter, images, (target,), settings, seed=seed, batch_size=view.batch_size
        )[0]
        assert target.weights is not None
        shares = target.weights * target.pixels
        shares = shares.sum(axes(shares, 1), dtype=torch.float64) / count
        keep_chunk()
        recorded.update(made.settings)
        for name, values in made.diagnostics.items():
            diagnostics[name] = diagnostics.get(name, 0.0) + float((values.cpu() * shares).nansum())
        for place, one, share, status in zip(places, made.map.cpu(), shares, made.status, strict=True):
            if status != "degenerate":
                grid[view.windows.part(place)] += one[view.windows.inner] * share

    view.run(view.aimed, work)
    name = settings.label or settings.name
    return _large_map(view, name, None, grid, view.pixels, False, recorded, diagnostics)


def _large_map(
    view: View,
    method: str,
    layer: str | None,
    grid: Tensor | None,
    cells: TiledGrid | None,
    relu: bool,
    settings: Mapping[str, object],
    diagnostics: dict[str, float],
) -> LargeMap:
    """Make the result; without a target there is no grid, and one cell of NaN stands for it."""
    windows = view.windows
    covered = {"size": windows.size, "overlap": windows.overlap, "number": len(view.every)}
    return LargeMap(
        method=method,
        layer=layer,
        target=view.target,
        windows=windows,
        grid=torch.full([1] * len(windows.scaled), torch.nan) if grid is None else grid,
        cells=view.pixels if cells is None else cells,
        relu=relu,
        settings={**settings, "windows": covered},
        diagnostics={**diagnostics, "windows": float(len(view.aimed))},
    )
