"""The threshold of a sigmoid head, chosen where the model was chosen: on the valid split."""

from functools import reduce
from operator import add

from seglens.calibration import Thresholds, count_thresholds
from seglens.data.layout import Split
from seglens.native import Inference, native_probabilities, prepared
from seglens.runs import Run
from seglens.threads import read_ahead


def best_threshold(run: Run, split: Split, *, batch_size: int, precision: str) -> dict[str, float | str]:
    """Return the ``threshold`` of the highest pooled Dice on ``split``, and the Dice there and at 0.5.

    Measured as `seglens.evaluate` does: at native size, on valid pixels. A threshold where no pixel of the
    split is foreground says nothing, and is 0.5.
    """
    run = prepared(run, Inference(precision))
    counts: list[Thresholds] = []
    pictures = read_ahead(lambda index: split[index], range(len(split)))
    waiting = []
    for position, sample in enumerate(pictures, start=1):
        waiting.append(sample)
        if len(waiting) == batch_size or position == len(split):
            found = native_probabilities(run, [each.image for each in waiting], precision=precision)
            for probabilities, each in zip(found, waiting, strict=True):
                assert each.mask is not None
                counts.append(count_thresholds(probabilities[1], each.mask, each.valid))
            counts, waiting = [reduce(add, counts)], []
    total = counts[0]
    threshold, dice = total.best()
    return {"split": split.name, "threshold": threshold, "dice": dice, "dice_at_half": total.dice(0.5)}
