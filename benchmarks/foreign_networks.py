"""Networks that other people wrote: three CAMs at early, middle and last layers against hand-made ones.

``python -m benchmarks.foreign_networks [--only NAME] [--again] [--write]`` runs what has no outcome yet, one
network after the other on one core, and writes ``FOREIGN.md`` from ``foreign_networks.jsonl``; with
``--write`` it writes the page only. Everything runs in float64 with random weights on small pictures; nothing
is downloaded.

The hand-made values share no code with the package: a hook that is set before all others hands on a clone and
keeps it; gradients come from ``Tensor.backward``; the slope is a central difference of the score with the
layer's forward replaced. For Ablation-CAM every channel is set to zero by hand.
"""

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import seglens
import seglens.errors
from benchmarks import foreign_files
from benchmarks.foreign_models import NETWORKS, Network

HERE = Path(__file__).parent
CASES = HERE / "foreign_cases.json"
KEPT, PAGE = HERE / "foreign_networks.jsonl", HERE / "FOREIGN.md"
CHANNELS = 32
"""Channels that are ablated by hand at once, each in a copy of the picture."""

CLASSES = ("background", "thing")
ASIDE = 1e-2
"""Share of a layer's magnitude by which it is moved where the slope is held against differences."""

PLACES = ("encoder_early", "encoder_mid", "encoder_last", "decoder_last")


class Hand:
    """Activation, gradient and slopes of one layer, by hand: of the logits' difference over the pixels."""

    def __init__(self, network: nn.Module, layer: str, images: Tensor, pixels: Tensor) -> None:
        self.network, self.images, self.pixels = network, images, pixels
        self.part: Any = network.get_submodule(layer)
        self.output, self.slope = self.hooked(lambda output: output)

    def hooked(self, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The layer's changed output and the slope of the score there."""
        kept: list[Tensor] = []

        def first(module: nn.Module, given: object, output: Tensor) -> Tensor:
            output = change(output)
            kept.append(
                output.detach().clone().requires_grad_() if not output.requires_grad else output.clone()
            )
            kept[0].retain_grad()
            return kept[0].clone()

        handle = self.part.register_forward_hook(first, prepend=True)
        self.scores().sum().backward()
        handle.remove()
        gradient = kept[0].grad
        assert gradient is not None
        return kept[0].detach(), gradient

    def scores(self, copies: int = 1) -> Tensor:
        output = self.network(self.images.expand(copies, -1, -1, -1))
        if isinstance(output, dict | list | tuple) and not hasattr(output, "logits"):
            output = output["out"] if isinstance(output, dict) else output[0]
        logits = getattr(output, "logits", output)
        logits = functional.interpolate(logits, self.images.shape[-2:], mode="bilinear", align_corners=False)
        return ((logits[:, 1] - logits[:, 0]) * self.pixels).sum((1, 2))

    def replaced(self, change: Callable[[Tensor], Tensor], copies: int = 1) -> list[float]:
        """The scores of copies of the picture with another output of the layer."""
        forward = self.part.forward
        self.part.forward = lambda *given, **named: change(forward(*given, **named))
        try:
            with torch.no_grad():
                return self.scores(copies).tolist()
        finally:
            del self.part.forward

    def difference(self) -> float:
        """Error of the gradient against a central difference along itself, as a share of ``|g|^2``.

        At the output moved a little aside by noise: zeros that a ReLU put out have no slope where another
        ReLU or a maximum follows.
        """
        size = self.output.square().mean().sqrt()
        noise = torch.randn(
            self.output.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        aside = ASIDE * size * noise
        _, gradient = self.hooked(lambda output: output + aside)
        along = gradient / gradient.norm().clamp(min=1e-300) * size
        slope, errors = (gradient * along).sum().item(), []
        for step in (1e-8, 1e-7, 1e-6, 1e-5, 1e-4):
            (high,), (low,) = (
                self.replaced(lambda out, by=s * step * along: out + aside + by) for s in (1, -1)
            )
            errors.append(abs((high - low) / (2 * step) - slope) / max(abs(slope), 1e-300))
        return min(errors)


def as_map(value: Tensor, cells: tuple[int, int], channels: int) -> Tensor:
    """Rows and columns last, whatever the network's own layout; by shape alone."""
    if value.ndim == 3:
        rows, columns = cells
        return value[:, -rows * columns :].mT.reshape(1, channels, rows, columns)
    return value if tuple(value.shape[1:]) == (channels, *cells) else value.permute(0, 3, 1, 2)


def far(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    return ((ours.double() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-300)).item()


def trained(network: nn.Module, like: Network) -> nn.Module:
    """In float64, with statistics of its own activations, as after a training."""
    network = network.double()
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        network.train()(torch.randn(2, like.channels, like.size, like.size, dtype=torch.float64))
    return network.eval().requires_grad_(True)


def wrapped(network: nn.Module, like: Network) -> seglens.Run:
    zero, one = (0.0,) * like.channels, (1.0,) * like.channels
    return seglens.wrap(
        network, classes=CLASSES, image_size=like.size, channels=like.channels, mean=zero, std=one, dims=2
    )


def measure(name: str) -> dict[str, Any]:
    """Run one network; return its outcome."""
    like = NETWORKS[name]
    torch.manual_seed(0)
    network = like.make()
    if like.refused:
        return refusal(name, network.eval(), like)
    network, size, channels = trained(network, like), like.size, like.channels
    run = wrapped(network, like)
    images = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(1)).double()
    pixels = torch.zeros(1, size, size, dtype=torch.bool)
    pixels[0, size // 8 : size // 2, size // 4 : size - 5] = True
    target = seglens.Target("region", 1, pixels, against=0)
    infos = seglens.layers(run)
    roles = {role: info for info in infos for role in info.roles}
    layers = {role: roles[role] for role in PLACES if role in roles}
    if not layers:  # neither encoder nor decoder: at a quarter, half and three quarters of the way
        layers = {role: infos[len(infos) * (i + 1) // 4] for i, role in enumerate(PLACES[:3])}
    row: dict[str, Any] = {"name": name, "roles": len(roles), "layers": len(infos)}
    found = seglens.explain(
        run, images, target, methods=("grad-cam", "hires-cam", "ablation-cam"),
        layers=[info.name for info in layers.values()],
    )  # fmt: skip
    for role, info in layers.items():
        hand = Hand(network, info.name, images, pixels)
        cells = (info.shape[1], info.shape[2])
        maps, slope = (as_map(value, cells, info.shape[0]) for value in (hand.output, hand.slope))
        grad = (slope.mean((2, 3), keepdim=True) * maps).sum(1)
        item = found["grad-cam", info.name]
        lost = item.status[0] == "degenerate" and bool(item.grid.isnan().all())
        row[f"{role} grad-cam"] = "averages out" if lost else far(item.grid, grad)
        row[f"{role} hires-cam"] = far(found["hires-cam", info.name].grid, (slope * maps).sum(1))
        row[f"{role} slope"] = hand.difference()
        row[f"{role} ablation-cam"] = ablated(hand, found["ablation-cam", info.name].grid, maps, cells)
    checks = seglens.verify(run, images, target, layers=[info.name for info in layers.values()][-2:]).checks
    row["verify"] = [
        f"{check.name}: {check.value:.1e}" for check in checks if check.outcome == "fail" and not check.option
    ]
    row["adopt"] = adopted(network.float(), like, images.float())
    return row


def on_the_way(name: str) -> dict[str, float]:
    """How the score goes from a black picture to the picture, by hand: why Integrated Gradients miss a part.

    ``slope`` is the largest error of its gradient along the way against a central difference; ``first`` what
    it moves in the first hundredth of the way and ``length`` what it moves in all, both over its change;
    ``left`` what 80 points miss that lie closer the nearer they are to black, over the change.
    """
    like = NETWORKS[name]
    torch.manual_seed(0)
    network, size = trained(like.make(), like), like.size
    chance = torch.Generator().manual_seed(1)
    picture = torch.rand(1, like.channels, size, size, generator=chance).double()
    pixels = torch.zeros(1, size, size, dtype=torch.bool)
    pixels[0, size // 8 : size // 2, size // 4 : size - 5] = True
    segmenter = wrapped(network, like).segmenter

    def score(image: Tensor) -> Tensor:
        logits = segmenter(image)
        return ((logits[:, 1] - logits[:, 0]) * pixels).sum() / pixels.sum()

    def at(share: float) -> float:
        with torch.no_grad():
            return score(picture * share).item()

    def slope(share: float) -> float:
        image = (picture * share).requires_grad_()
        return (torch.autograd.grad(score(image), image)[0] * picture).sum().item()

    change, errors = at(1.0) - at(0.0), []
    for share in (0.013, 0.11, 0.37, 0.62, 0.93):
        found = slope(share)
        steps = [(at(share + by) - at(share - by)) / (2 * by) for by in (1e-9, 1e-8, 1e-7)]
        errors.append(min(abs(step - found) for step in steps) / max(abs(found), 1e-9))
    length = sum(abs(one - other) for one, other in pairwise(at(i / 256) for i in range(257))) / abs(change)
    whole, num = math.log(1e8), 80
    shares = [math.exp(whole * ((i + 0.5) / num - 1)) for i in range(num)]
    summed = sum(slope(share) * share for share in shares) * whole / num
    left = abs(summed - (at(1.0) - at(1e-8))) / abs(change)
    return {"slope": max(errors), "first": (at(0.01) - at(0.0)) / change, "length": length, "left": left}


def refusal(name: str, network: nn.Module, like: Network) -> dict[str, Any]:
    """A network of which no map can be made: what is said."""
    try:
        wrapped(network, like)
    except seglens.errors.UserError as error:
        said = str(error)
        right = "as it must" if like.refused in said else f"without naming {like.refused}"
        return {"name": name, "refused": right, "said": f"{type(error).__name__}: {said}"}
    return {"name": name, "refused": "not refused", "said": ""}


def adopted(network: nn.Module, like: Network, images: Tensor) -> str:
    """A checkpoint of it in a run folder: the same logits, or a refusal by name."""
    with TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / "weights.pth"
        torch.save(network.state_dict(), file)
        zero, one = (0.0,) * like.channels, (1.0,) * like.channels
        try:
            run = seglens.adopt(
                file, classes=CLASSES, head="softmax", image_size=like.size, channels=like.channels,
                mean=zero, std=one, out=Path(folder) / "run", **like.adopt,
            )  # fmt: skip
        except seglens.errors.UserError as error:
            return f"refused: {type(error).__name__}"
        ours, theirs = run.segmenter.eval()(images), network(images)
        return (
            "same logits"
            if far(ours, theirs.double()) < 1e-5
            else f"logits differ by {far(ours, theirs):.0e}"
        )


def ablated(hand: Hand, grid: Tensor, maps: Tensor, cells: tuple[int, int]) -> float:
    """Ablation-CAM by hand, some channels at a time: each copy of the picture loses another one."""
    total, weights = maps.shape[1], list[float]()
    for begin in range(0, total, CHANNELS):
        channels = torch.arange(begin, min(begin + CHANNELS, total))

        def silence(output: Tensor, channels: Tensor = channels) -> Tensor:
            changed, rows = output.clone(), torch.arange(len(channels))
            if output.ndim == 3:
                for row, channel in zip(rows, channels, strict=True):
                    changed[row, -cells[0] * cells[1] :, channel] = 0
            elif tuple(output.shape[2:]) == cells:
                changed[rows, channels] = 0
            else:
                changed[rows, ..., channels] = 0
            return changed

        (full,) = hand.replaced(lambda output: output)
        lost = hand.replaced(silence, copies=len(channels))
        weights += [(full - score) / abs(full) for score in lost]
    expected = (torch.tensor(weights, dtype=torch.float64)[None, :, None, None] * maps).sum(1)
    return far(grid, expected)


def kept() -> dict[str, dict[str, Any]]:
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def numbers(row: dict[str, Any], what: str) -> Iterator[float]:
    yield from (value for key, value in row.items() if key.endswith(what) and isinstance(value, float))


def page(rows: list[dict[str, Any]]) -> str:
    """The section: one line a network, the worst of its layers."""
    methods = ("grad-cam", "hires-cam", "ablation-cam", "slope")
    head = ("network", "roles", "layers compared", *methods, "Grad-CAM averages out at", "verify", "adopt")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    compared = [row for row in rows if "error" not in row and "refused" not in row]
    for row in compared:
        places = [place for place in PLACES if f"{place} slope" in row]
        worst = [f"{max(numbers(row, method), default=math.nan):.0e}" for method in methods]
        lost = ", ".join(place for place in places if row.get(f"{place} grad-cam") == "averages out")
        cells = (
            row["name"], f"{row['roles']} of 7", str(len(places)), *worst, lost,
            "; ".join(row["verify"]) or "passed", row["adopt"],
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |".replace(" nan ", "  "))
    refused = [f"- {row['name']}: {row['refused']}. {row['said']}" for row in rows if "refused" in row]
    failed = [f"- {row['name']}: {row['error']}" for row in rows if "error" in row]
    about = (
        f"{len(compared)} networks with random weights in float64, by `python -m "
        "benchmarks.foreign_networks`: the largest difference of the signed grid from a hand-made one as a "
        "share of its largest value, over early, middle and last encoder layer and last decoder layer; "
        "`slope` is the error of the hand-made gradient against a central difference with the layer's "
        "forward replaced. Grids are kept in float32. `verify` is of the same network in float64; `adopt` is "
        "of its state dict: networks that Seglens builds must give the same logits, and all others must be "
        "refused. Where `ig-completeness` fails it is the steps, see below the table. "
        "fastai's DynamicUnet ends in a module that rounds to "
        "float32, so that its differences are good for a hundredth; without it all four slopes of the one "
        "with xresnet agree to 2e-9."
    )
    parts = ["## Networks", "", about, "", *lines, *ways(compared)]
    if refused:
        parts += ["", "What is no grid of logits is refused by name:", "", *refused]
    if failed:
        parts += ["", "Not compared:", "", *failed]
    return "\n".join(parts)


def ways(rows: list[dict[str, Any]]) -> list[str]:
    """Why ``ig-completeness`` fails, of the rows that were looked at."""
    known = [(row["name"], row["way"]) for row in rows if "way" in row]
    if not known:
        return []
    about = (
        "Why `ig-completeness` fails, of some networks of each kind (`--way`; by hand but for the wrapper): "
        "the gradient is the score's slope on the whole way from black to the picture, so none of these is a "
        "fault of it. Networks that normalise pictures or positions by themselves (instance, group and layer "
        "norm) move most of their way in the first hundredth of it, or sooner: even steps miss that, 80 "
        "points that lie closer near black miss some percent (of Swin more). The score of the others, of "
        "many bent units without a training, moves up to hundreds of times its change, there and back, and "
        "takes as many more steps. `verify` measures the same and says which."
    )
    head = ("network", "error of the slope", "moved in the first hundredth", "moved in all", "80 points miss")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [
        f"| {name} | {way['slope']:.0e} | {way['first']:.2g} | {way['length']:.3g} | {way['left']:.1g} |"
        for name, way in known
    ]
    return ["", about, "", *lines]


def cases() -> str:
    """The section on small inputs, read by hand from what their scripts print."""
    lines = ["| case | as expected | what comes |", "|---|---|---|"]
    for row in json.loads(CASES.read_text(encoding="utf-8")):
        lines.append(f"| {row['case']} | {'yes' if row['met'] else 'no'} | {row['outcome']} |")
    about = (
        "Small inputs after public bug reports and questions. Each prints what is right and what comes; the "
        "outcomes were read by hand, and are kept in `foreign_cases.json`."
    )
    return "\n".join(["## Cases", "", about, "", *lines])


def write(rows: list[dict[str, Any]]) -> None:
    files = foreign_files.section(foreign_files.kept())
    text = f"# Other people's data and networks\n\n{files}\n\n{page(rows)}\n\n{cases()}\n"
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="networks whose name holds this")
    parser.add_argument("--again", action="store_true", help="also those that have an outcome")
    parser.add_argument("--write", action="store_true", help="only write the page of what is kept")
    parser.add_argument("--way", action="store_true", help="only the way of scores from black")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    done = kept()
    for name, row in done.items() if chosen.way else ():
        if (chosen.only or "") in name and any("ig-completeness" in each for each in row.get("verify", ())):
            row["way"] = on_the_way(name)
            print(f"{name}: {row['way']}", flush=True)
            KEPT.write_text("".join(json.dumps(each) + "\n" for each in done.values()), encoding="utf-8")
    for name in NETWORKS:
        if (
            chosen.way
            or chosen.write
            or (chosen.only or "") not in name
            or (name in done and not chosen.again)
        ):
            continue
        began = time.monotonic()
        try:
            done[name] = measure(name)
        except Exception as error:  # One network's failure is an outcome of its own.
            said = (str(error).splitlines() or ["no reason given"])[0]
            done[name] = {"name": name, "error": f"{type(error).__name__}: {said[:150]}"}
        print(f"{name}: {time.monotonic() - began:.1f} s", done[name].get("error", ""), flush=True)
        order = [done[each] for each in NETWORKS if each in done]
        KEPT.write_text("".join(json.dumps(row) + "\n" for row in order), encoding="utf-8")
        write(order)
    write([done[each] for each in NETWORKS if each in done])


if __name__ == "__main__":
    main()
