"""Where a program spends its time, by looking at the stacks of its threads many times a second.

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
    ("data: read, wait", "torch/utils/data/dataloader.py", ""),
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
    ("plots", "matplotlib/", ""),
    ("boundary scores", "seglens/surfaces.py", ""),
    ("calibration", "seglens/calibration.py", ""),
    ("to native size", "", "maps_to_native"),
    ("network", "seglens/predict.py", ""),
    ("network", "segmentation_models_pytorch/base/model.py", "forward"),
    ("network", "benchmarks/plain_loop.py", "forward"),
    ("tiles", "seglens/tiles.py", ""),
    ("loss", "segmentation_models_pytorch/losses/", ""),
    ("scores", "segmentation_models_pytorch/metrics/", ""),
    ("intervals", "seglens/intervals.py", ""),
    ("scores", "seglens/scores.py", ""),
    ("write", "seglens/results/record.py", ""),
    ("write", "seglens/evaluate.py", "_write"),
    ("write", "seglens/draw.py", ""),
    ("letterbox", "", "letterbox_image"),
    ("read", "seglens/data/", ""),
    ("read, wait for it", "seglens/scoring.py", "_predicted"),
    ("read, wait for it", "torch/utils/data/dataloader.py", ""),
    ("wait for threads", "seglens/threads.py", ""),
)

IDLE = ("concurrent/futures/thread.py", "/threading.py", "/selectors.py", "/queue.py", "/connection.py")
"""Where a thread is that has nothing to do."""


class Sampler(threading.Thread):
    """Looks at the stacks while ``on``; ``seconds`` holds what was seen of the main thread, by stage.

    ``beside`` holds the same of all other threads together that were at work.
    """

    def __init__(self, rules: Sequence[Rule], *, every: float = 0.004) -> None:
        super().__init__(daemon=True)
        self.rules, self.every = rules, every
        self.seconds: dict[str, float] = defaultdict(float)
        self.beside: dict[str, float] = defaultdict(float)
        self.on = False
        self._main = threading.get_ident()
        self._over = threading.Event()

    def run(self) -> None:
        last = time.perf_counter()
        while not self._over.wait(self.every):
            now = time.perf_counter()
            for thread, frame in sys._current_frames().items() if self.on else ():
                if thread == self._main:
                    self.seconds[stage(frame, self.rules)] += now - last
                elif thread != self.ident and not frame.f_code.co_filename.endswith(IDLE):
                    name = stage(frame, self.rules)
                    if name != REST:  # progress bars and loggers
                        self.beside[name] += now - last
            last = now

    def stop(self) -> tuple[dict[str, float], dict[str, float]]:
        """End, and return the seconds of every stage, longest first: of the main thread, of the others."""
        self._over.set()
        self.join()
        main, beside = (
            dict(sorted(found.items(), key=lambda item: -item[1])) for found in (self.seconds, self.beside)
        )
        return main, beside


def stage(frame: FrameType, rules: Sequence[Rule]) -> str:
    """Return the stage that a stack belongs to."""
    places, here = [], frame
    while True:
        places.append((here.f_code.co_filename, here.f_code.co_name))
        if here.f_back is None:
            break
        here = here.f_back
    for name, path, function in rules:
        if any(path in file and function in ("", called) for file, called in places):
            return name
    return REST
