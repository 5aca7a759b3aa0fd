"""Where a program spends its time, by looking at the stack of its main thread many times a second.

Nothing of what is measured has to know. A look costs some ten microseconds, and what a thread does in native
code counts for the Python line that called it. On a GPU the program should be started with
``CUDA_LAUNCH_BLOCKING=1``: kernels then count for the line that launched them.
"""

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from types import FrameType

Rule = tuple[str, str, str]
"""A stage, a part of a file's path, and the name of a function in it ("": any)."""

REST = "rest"

TRAINING: tuple[Rule, ...] = (
    ("data: augment", "seglens/data/transforms.py", "augment"),
    ("data: collate", "seglens/data/transforms.py", "collate"),
    ("data: read, wait", "torch/utils/data/dataloader.py", "__next__"),
    ("data: to the device", "", "batch_to_device"),
    ("data: to the device", "", "transfer_batch_to_device"),
    ("loss", "segmentation_models_pytorch/losses/", ""),
    ("loss", "seglens/losses.py", ""),
    ("scores", "segmentation_models_pytorch/metrics/", ""),
    ("scores", "seglens/scores.py", ""),
    ("backward", "torch/autograd/__init__.py", "backward"),
    ("forward", "segmentation_models_pytorch/base/model.py", "forward"),
    ("forward", "seglens/models/segmenter.py", ""),
    ("forward", "benchmarks/plain_loop.py", "forward"),
    ("average of weights", "torch/optim/swa_utils.py", ""),
    ("clip gradients", "torch/nn/utils/clip_grad.py", ""),
    ("optimiser", "torch/optim/", ""),
)
"""The first rule that a stack fits decides. The optimiser's step is around the others, so it comes last."""

EVALUATION: tuple[Rule, ...] = (
    ("boundary scores", "seglens/surfaces.py", ""),
    ("calibration", "seglens/calibration.py", ""),
    ("to native size", "seglens/data/transforms.py", "maps_to_native"),
    ("letterbox", "seglens/data/transforms.py", "letterbox_image"),
    ("network", "seglens/models/segmenter.py", "forward"),
    ("network", "segmentation_models_pytorch/base/model.py", "forward"),
    ("network", "benchmarks/plain_loop.py", "forward"),
    ("network", "seglens/predict.py", ""),
    ("tiles", "seglens/tiles.py", ""),
    ("loss", "segmentation_models_pytorch/losses/", ""),
    ("scores", "segmentation_models_pytorch/metrics/", ""),
    ("intervals", "seglens/intervals.py", ""),
    ("intervals", "seglens/scores.py", "summary"),
    ("scores", "seglens/scores.py", ""),
    ("read, wait", "seglens/threads.py", ""),
    ("read, wait", "torch/utils/data/dataloader.py", ""),
    ("write", "seglens/record.py", ""),
    ("write", "seglens/evaluate.py", "_write_table"),
    ("write", "seglens/outputs.py", ""),
    ("write", "seglens/draw.py", ""),
)


class Sampler(threading.Thread):
    """Looks at the main thread while ``on``; ``seconds`` holds what was seen, by stage."""

    def __init__(self, rules: Sequence[Rule], *, every: float = 0.004) -> None:
        super().__init__(daemon=True)
        self.rules, self.every = rules, every
        self.seconds: dict[str, float] = defaultdict(float)
        self.on = False
        self._main = threading.get_ident()
        self._over = threading.Event()

    def run(self) -> None:
        last = time.perf_counter()
        while not self._over.wait(self.every):
            now = time.perf_counter()
            if self.on:
                frame = sys._current_frames().get(self._main)
                self.seconds[stage(frame, self.rules)] += now - last
            last = now

    def stop(self) -> dict[str, float]:
        """End, and return the seconds of every stage, longest first."""
        self._over.set()
        self.join()
        return dict(sorted(self.seconds.items(), key=lambda item: -item[1]))


def stage(frame: FrameType | None, rules: Sequence[Rule]) -> str:
    """Return the stage that a stack belongs to."""
    places = []
    while frame is not None:
        places.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    for name, path, function in rules:
        if any(path in file and function in ("", called) for file, called in places):
            return name
    return REST
