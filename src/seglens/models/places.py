"""Where the roles lie in a network whose parts have no names that say so: told by resolution.

An encoder-decoder goes down to its coarsest grid and up again. The last layer of each grid on the way down
ends a stage; what comes after the coarsest one is the decoder, and what returns the logits is the head. A
network that doesn't come up again shows no such places, and none are guessed. One that works on a single grid
has no encoder: it shows its last layer before the logits, as ``decoder_last``, and its head.
"""

from collections.abc import Mapping, Sequence

from seglens.models.probing import Call

FEW = 3
"""Fewer stages have no early, middle and last: a transformer on one grid, whose blocks are taken."""


def stages_by_grid(layers: Sequence[str], calls: Mapping[str, Call]) -> list[str]:
    """Return the last of the ``layers`` (in the order in which they end) on each grid down to the coarsest.

    None where no layer after the coarsest is finer.
    """
    if not layers:
        return []
    cells = {path: calls[path].layouts[0].cells for path in layers}
    coarsest = min(cells.values())
    deep = [path for path in layers if cells[path] == coarsest]
    # What a part of the decoder begins with, before it goes up, belongs to the decoder.
    firsts = {part: next(path for path in layers if _holds(part, path)) for part in layers}
    up = [part for part in layers if cells[part] > coarsest and cells[firsts[part]] == coarsest]
    deep = [path for path in deep if not any(_holds(part, path) for part in up)] or deep
    # Where nothing finer follows, a head of several grids may end it: it went up before, after the first run.
    first = layers.index(next(path for path in layers if cells[path] == coarsest))
    run = next((i for i, path in enumerate(layers) if i > first and cells[path] > coarsest), len(layers))
    for turn in (layers.index(deep[-1]) + 1, run):
        if any(cells[path] > coarsest for path in layers[turn:]):
            break
    else:
        return []
    down = layers[:turn]
    lengths = sorted({cells[path] for path in down}, reverse=True)
    stages = [_last_on(length, down, cells) for length in lengths]
    if len(stages) >= FEW:
        return stages
    lists: dict[str, list[str]] = {}
    for path in down:
        around, _, last = path.rpartition(".")
        if last.isdigit() and around not in calls:  # a list of modules is never called itself
            lists.setdefault(around, []).append(path)
    blocks = max(lists.values(), key=len, default=[])
    return [*blocks, stages[-1]] if len(blocks) >= FEW else stages


def _last_on(length: int, down: Sequence[str], cells: Mapping[str, int]) -> str:
    """Return the last of the layers with ``length`` cells, but not what the next stage begins with.

    A part that goes down belongs to where most of its layers are: a block with a stride in the middle to the
    next stage, a stage with a pooling at its end to its own.
    """
    there = [path for path in down if cells[path] == length]
    for part in down:
        held = [path for path in down if path != part and _holds(part, path)]
        coarser = sum(cells[path] < length for path in held)
        if cells[part] < length and 2 * coarser > len(held):
            there = [path for path in there if path not in held] or there
    return there[-1]


def head_by_answer(answers: Sequence[str], deepest: str, calls: Mapping[str, Call]) -> str | None:
    """Return the outermost part that returns the logits and works, unlike a decoder, on one grid only.

    Or on several, where they are summed of what has as many channels on each. None where it would hold the
    ``deepest`` layer.
    """
    grids = {path: call.layouts[0].cells for path, call in calls.items() if call.can_be_tapped}
    parts = []
    for part in answers:
        held = [path for path in grids if _holds(part, path)]
        alike = len({grids[path] for path in held}) == 1 or len({calls[path].channels for path in held}) == 1
        if alike and not _holds(part, deepest):
            parts.append(part)
    return min(parts, key=lambda path: (path.count("."), -list(calls).index(path)), default=None)


def blocks_by_grid(layers: Sequence[str], deepest: str, head: str | None) -> list[str]:
    """Return the outermost of the ``layers`` that end after the ``deepest`` one, and are not in the head."""
    after = layers[layers.index(deepest) + 1 :]
    after = [path for path in after if not _holds(path, deepest) and (head is None or not _holds(head, path))]
    return _outermost(after)


def outermost_in(part: str, layers: Sequence[str]) -> list[str]:
    """Return those of the ``layers`` in ``part`` that no other of them holds."""
    return _outermost([path for path in layers if path != part and _holds(part, path)])


def _outermost(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not any(other != path and _holds(other, path) for other in paths)]


def _holds(part: str, path: str) -> bool:
    return f"{path}.".startswith(f"{part}.")
