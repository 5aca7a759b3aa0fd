"""Where the roles lie in a network whose parts have no names that say so: told by resolution.

An encoder-decoder goes down to its coarsest grid and up again. The last layer of each grid on the way down
ends a stage; what comes after the coarsest one is the decoder, and what returns the logits is the head. A
network that doesn't come up again shows no such places, and none are guessed.
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
    turn = layers.index(deep[-1])
    if all(cells[path] <= coarsest for path in layers[turn + 1 :]):
        return []
    down = layers[: turn + 1]
    ends = {cells[path]: path for path in down}
    stages = [ends[length] for length in sorted(ends, reverse=True)]
    if len(stages) >= FEW:
        return stages
    lists: dict[str, list[str]] = {}
    for path in down:
        around, _, last = path.rpartition(".")
        if last.isdigit() and around not in calls:  # a list of modules is never called itself
            lists.setdefault(around, []).append(path)
    blocks = max(lists.values(), key=len, default=[])
    return [*blocks, stages[-1]] if len(blocks) >= FEW else stages


def head_by_answer(answers: Sequence[str], deepest: str, calls: Mapping[str, Call]) -> str | None:
    """Return the outermost part that returns the logits and works on one grid only, unlike a decoder.

    None where it would hold the ``deepest`` layer.
    """
    grids = {path: call.layouts[0].cells for path, call in calls.items() if call.can_be_tapped}
    parts = [
        part
        for part in answers
        if not _holds(part, deepest)
        and len({cells for path, cells in grids.items() if _holds(part, path)}) == 1
    ]
    return min(parts, key=lambda path: (path.count("."), -list(calls).index(path)), default=None)


def blocks_by_grid(layers: Sequence[str], deepest: str, head: str | None) -> list[str]:
    """Return the outermost of the ``layers`` that end after the ``deepest`` one, and are not in the head."""
    after = layers[layers.index(deepest) + 1 :]
    after = [path for path in after if not _holds(path, deepest) and (head is None or not _holds(head, path))]
    return [path for path in after if not any(other != path and _holds(other, path) for other in after)]


def _holds(part: str, path: str) -> bool:
    return f"{path}.".startswith(f"{part}.")
