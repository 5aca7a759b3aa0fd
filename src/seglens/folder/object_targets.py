"""``missed:all`` and ``invented:all``: a question for each object of the picture that has the most."""

import warnings
from collections.abc import Sequence
from functools import partial

from seglens.data.layout import Split
from seglens.errors import SeglensWarning, SettingError
from seglens.explain.target import unmatched
from seglens.explain.target_names import EACH_OBJECT, Scene
from seglens.folder.chunks import CHUNK, read_chunks
from seglens.folder.large import pieces_of, predict_large
from seglens.results.names import count
from seglens.runs import Run
from seglens.shapes import AnyMasks

ALL = "all"
"""Stands for every object, after a colon."""

MOST = 32
"""Objects of a picture that are asked about, the largest first."""


def each_object(
    run: Run, split: Split, texts: Sequence[str], class_index: int, *, tiles: str = "auto"
) -> tuple[str, ...]:
    """Return the targets with ``missed:all`` as ``missed:1``, ``missed:2`` ... and so for ``invented:all``.

    For this every picture is predicted once. A picture with fewer such objects has no target for the rest.

    Raises:
        SettingError: no picture has such an object, or the truth is not known.
    """
    asked = [text for text in texts if text in {f"{name}:{ALL}" for name in EACH_OBJECT}]
    if not asked:
        return tuple(texts)
    most = dict.fromkeys(asked, 0)
    for part in read_chunks(run, split, most=CHUNK, failed=[], targets=asked, what="counting objects"):
        for piece in pieces_of(run, part, tiles):
            said = (predict_large(run, piece) if piece.windows else run.predict(piece.batch.images)).mask
            batch = piece.batch
            predict = partial(_same, said)
            scene = Scene(run, batch.images, batch.masks, batch.valid, class_index, piece.frames, predict)
            for text in asked:
                own, other = EACH_OBJECT[text.partition(":")[0]](scene)
                found = [len(unmatched(*pair)) for pair in zip(own.cpu(), other.cpu(), strict=True)]
                most[text] = max(most[text], *found)
    made: list[str] = []
    for text in texts:
        name, num = text.partition(":")[0], most.get(text)
        if num is None:
            made.append(text)
            continue
        if not num:
            raise SettingError(
                f"No object is {name} in {count(len(split), 'picture')} of {split.name!r}, so that {text!r} "
                "asks nothing. Leave it out, or name other pictures."
            )
        if num > MOST:
            warning = f"A picture has {num} {name} objects; of each the {MOST} largest are asked about."
            warnings.warn(warning, SeglensWarning, stacklevel=2)
        made += [f"{name}:{number}" for number in range(1, min(num, MOST) + 1)]
    return tuple(dict.fromkeys(made))


def _same(masks: AnyMasks) -> AnyMasks:
    return masks
