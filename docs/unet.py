"""Draw the figures of unet.md, and work out its numbers: from the network and the scores of the package.

``python docs/unet.py`` writes ``docs/unet/*.svg``. A test draws them again and compares, and looks for every
one of `numbers` on the page.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seglens.evaluate.scores import counted, pooled_scores
from seglens.models.unet import DecoderBlock, UNet
from seglens.train.losses import bce

OUT = Path(__file__).with_suffix("")
INK, FAINT, PAPER = "#1f2430", "#6b7280", "#ffffff"
SKY, ORANGE, GREEN = "#56b4e9", "#e69f00", "#009e73"
"""Of Okabe and Ito: down, up, and what both give."""

NUMBERS = torch.tensor([[1, 3, 2, 0], [4, 2, 1, 1], [0, 1, 5, 2], [2, 0, 3, 7]])
"""What is pooled in the figure."""

TRUTH = torch.tensor([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
PREDICTED = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
"""The worked example: 1 is a pixel of the cell."""

LOGITS = (2.0, -1.0, 0.0)
"""Three pixels, all of them of the cell."""


def main() -> None:
    """Write the figures."""
    OUT.mkdir(exist_ok=True)
    for name, drawn in figures().items():
        (OUT / f"{name}.svg").write_text(drawn, encoding="utf-8")


def figures() -> dict[str, str]:
    """Return every figure by its name."""
    return {"network": network(), "down": down(), "up": up(), "concatenation": joined(), "overlap": overlap()}


def numbers() -> dict[str, str]:
    """Return what the page says of the worked examples, as it says it."""
    valid = torch.ones_like(TRUTH, dtype=torch.bool)
    found = pooled_scores(counted(PREDICTED, TRUTH, valid, 2))
    each = [
        float(bce(torch.tensor([[[[z]]]]), torch.ones(1, 1, 1).long(), torch.ones(1, 1, 1).bool()))
        for z in LOGITS
    ]
    both = int((TRUTH & PREDICTED).sum())
    return {
        "both": f"**{both}** pixels",
        "missed": f"**{int((TRUTH & ~PREDICTED & 1).sum())}** are missed",
        "invented": f"**{int((PREDICTED & ~TRUTH & 1).sum())}** are invented",
        "iou": f"= {float(found['iou']):.3f}",
        "dice": f"= {float(found['dice']):.3f}",
        **{
            f"p {z:g}": f"| {z:g} | {float(torch.tensor(z).sigmoid()):.3f} | {loss:.3f} |"
            for z, loss in zip(LOGITS, each, strict=True)
        },
        "mean": f"mean is **{sum(each) / len(each):.3f}**",
        "weights": f"{sum(p.numel() for p in UNet().parameters()):,} weights",
    }


def network() -> str:
    """Draw the U with what each block gives for a picture of 256 x 256: measured on the network itself."""
    boxes: list[tuple[str, Tensor]] = []
    with torch.device("meta"):
        made, picture = UNet().eval(), torch.empty(1, 3, 256, 256)
    for name, block in made.named_modules():
        step = name.count(".") == 1 and name.startswith(("encoder", "decoder"))
        if step or name == "bottleneck":
            block.register_forward_hook(lambda block, _, out, name=name: boxes.append((name, out)))
    logits = made(picture)
    parts, places = [], {}
    for at, (name, out) in enumerate(boxes):
        kind, _, number = name.partition(".")
        level = int(number) if kind == "encoder" else 4 if kind == "bottleneck" else 3 - int(number)
        x, y = 70 + at * 82, 60 + level * 72
        places[kind, level] = (x, y)
        colour = {"encoder": SKY, "decoder": ORANGE}.get(kind, GREEN)
        parts.append(f'<rect x="{x}" y="{y}" width="66" height="40" rx="4" fill="{colour}"/>')
        parts.append(_text(x + 33, y + 18, f"{out.shape[1]}", bold=True))
        parts.append(_text(x + 33, y + 33, f"{out.shape[2]} x {out.shape[3]}", size=11))
    parts += [_text(30, 78, "image"), _text(30, 93, "3", size=11), _arrow(50, 80, 68, 80)]
    for level in range(4):
        x, y = places["encoder", level]
        to, below = places["decoder", level], places.get(("encoder", level + 1), places["bottleneck", 4])
        parts.append(_arrow(x + 68, y + 12, to[0] - 3, y + 12, dash=True))
        parts.append(_arrow(x + 50, y + 42, below[0] + 20, below[1] - 3))
        start = places.get(("decoder", level + 1), places["bottleneck", 4])
        parts.append(_arrow(start[0] + 45, start[1] - 3, to[0] + 15, to[1] + 43))
    last = places["decoder", 0]
    parts += [_arrow(last[0] + 68, 80, last[0] + 86, 80), _text(last[0] + 116, 78, "logits")]
    parts.append(_text(last[0] + 116, 93, f"{logits.shape[1]}", size=11))
    words = "blue: down (max-pool 2); green: bottleneck; orange: up (transposed convolution 2); dashed: skip"
    parts.append(_text(430, 418, words, colour=FAINT))
    return _svg(
        870, 434, parts, "The U-Net: four steps down, the bottleneck, four steps up, with skips across"
    )


def down() -> str:
    """Draw a max-pool: of each block of 2 x 2 the largest number stays."""
    small = F.max_pool2d(NUMBERS[None, None].float(), 2)[0, 0].long()
    tint = [[SKY if (r // 2 + c // 2) % 2 else "#cfe8f8" for c in range(4)] for r in range(4)]
    parts = [*_grid(20, 20, NUMBERS, tint), _arrow(200, 100, 250, 100), _text(225, 88, "max")]
    parts += _grid(270, 60, small, [["#cfe8f8", SKY], [SKY, "#cfe8f8"]])
    return _svg(370, 200, parts, "A max-pool keeps the largest of each four numbers")


def up() -> str:
    """Draw a transposed convolution of stride 2: each number spreads over four, by learned weights."""
    coarse, weight = torch.tensor([[1, 2], [0, 3]]), torch.tensor([[1, 2], [3, 0]])
    fine = F.conv_transpose2d(coarse[None, None].float(), weight[None, None].float(), stride=2)[0, 0].long()
    tint = [["#f6dca8" if (r // 2 + c // 2) % 2 else ORANGE for c in range(4)] for r in range(4)]
    parts = _grid(20, 60, coarse, [[ORANGE, "#f6dca8"], ["#f6dca8", ORANGE]])
    parts += [_text(125, 105, "x", size=18), *_grid(145, 60, weight, [[PAPER] * 2] * 2)]
    parts += [
        _text(185, 158, "weights", colour=FAINT),
        _arrow(240, 100, 285, 100),
        *_grid(300, 20, fine, tint),
    ]
    return _svg(480, 200, parts, "A transposed convolution spreads each number over four")


def joined() -> str:
    """Draw a concatenation: the channels of both lie behind one another, none is added to another."""
    block = DecoderBlock(8, 4)
    assert isinstance(block.upsample, nn.ConvTranspose2d)
    parts = []
    for count, x, colour, word in ((4, 40, SKY, "skip"), (4, 190, ORANGE, "from below")):
        parts += _sheets(x, 40, [colour] * count) + [_text(x + 45, 160, f"{word}: {count} channels")]
    parts += [_text(160, 95, "+", size=22), _arrow(300, 90, 345, 90)]
    parts += _sheets(365, 30, [SKY] * 4 + [ORANGE] * 4) + [_text(430, 175, "joined: 8 channels")]
    parts += [
        _arrow(510, 90, 590, 90),
        _text(550, 78, "two 3 x 3", size=11),
        _text(550, 106, "convolutions", size=11),
    ]
    parts += _sheets(610, 40, [GREEN] * 4) + [_text(655, 160, "4 channels")]
    return _svg(730, 190, parts, "A concatenation puts the channels of both behind one another")


def overlap() -> str:
    """Draw the worked example: truth, prediction, and which pixels both have."""
    parts = []
    for x, mask, word in ((20, TRUTH, "truth"), (240, PREDICTED, "prediction")):
        tint = [[SKY if value else PAPER for value in row] for row in mask.tolist()]
        parts += [*_grid(x, 20, mask, tint, blank=True), _text(x + 100, 200, word)]
    kinds = {(1, 1): GREEN, (1, 0): SKY, (0, 1): ORANGE, (0, 0): PAPER}
    tint = [
        [kinds[t, p] for t, p in zip(*rows, strict=True)]
        for rows in zip(TRUTH.tolist(), PREDICTED.tolist(), strict=True)
    ]
    parts += [
        *_grid(460, 20, TRUTH, tint, blank=True),
        _text(560, 200, "both (green), missed (blue), invented (orange)", size=11),
    ]
    return _svg(700, 215, parts, "Truth and prediction share four of eight pixels")


def _sheets(x: int, y: int, colours: list[str]) -> list[str]:
    return [
        f'<rect x="{x + 9 * at}" y="{y + 8 * at}" width="64" height="64" fill="{colour}" stroke="{INK}"/>'
        for at, colour in reversed(list(enumerate(colours)))
    ]


def _grid(x: int, y: int, values: Tensor, tint: list[list[str]], *, blank: bool = False) -> list[str]:
    parts = []
    for r, row in enumerate(values.tolist()):
        for c, value in enumerate(row):
            place = f'x="{x + 40 * c}" y="{y + 40 * r}"'
            parts.append(f'<rect {place} width="40" height="40" fill="{tint[r][c]}" stroke="{INK}"/>')
            parts += [] if blank else [_text(x + 40 * c + 20, y + 40 * r + 25, str(value), size=15)]
    return parts


def _text(x: float, y: float, words: str, *, size: int = 13, bold: bool = False, colour: str = INK) -> str:
    weight = ' font-weight="700"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}"{weight}>{words}</text>'


def _arrow(x0: float, y0: float, x1: float, y1: float, *, dash: bool = False) -> str:
    style = ' stroke-dasharray="6 4"' if dash else ""
    line = f'x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}"'
    return f'<line {line} stroke="{INK}" stroke-width="1.5" marker-end="url(#head)"{style}/>'


def _svg(width: int, height: int, parts: list[str], title: str) -> str:
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker>'
    )
    begin = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img"'
    )
    style = 'font-family="system-ui, sans-serif" text-anchor="middle"'
    lines = [f"{begin} {style}>", f"<title>{title}</title>", f"<defs>{head}</defs>"]
    lines.append(f'<rect width="{width}" height="{height}" fill="{PAPER}"/>')
    return "\n".join([*lines, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
