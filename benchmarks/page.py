"""How long a person waits on the interactive page: from a click to the map, its numbers and its files.

    python -m benchmarks.page                                       # resnet-unet, random weights, 256 px
    python -m benchmarks.page --run runs/pets-unet --image cat.jpg   # a run of one's own

Everything that the page does between the click and the answer is in it, but for the browser and its wires.
The wall clock is the median of several answers; the seconds of CPU beside it are of all threads together, and
don't depend much on what else the machine does.

With ``OMP_NUM_THREADS=1`` and ``--repeats 5``, resnet-unet with ResNet-34, 256 px, one core of an AMD EPYC
with AVX-512: .21 s to open and predict, .39 s for grad-cam, .36 s for hires-cam and layer-cam, .42 s for
eigen-cam, .60 s for saliency; removing a sixteenth of the picture, with four controls elsewhere, 2.3 s.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

import seglens
from seglens.data.sample import Task
from seglens.data.specimens import specimens
from seglens.inspection import clicks, drawing, explaining, sentences
from seglens.inspection.opened import Opened, open_file
from seglens.inspection.removing import remove_region
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.runs import Run

METHODS = ("grad-cam", "hires-cam", "layer-cam", "eigen-cam", "saliency")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = asked.image or _specimen(Path(scratch) / "specimen.png", asked.size)
        run = seglens.load(asked.run, device="cpu") if asked.run else _untrained(asked.size)
        print(f"{run.spec.architecture} with {run.spec.encoder}, {run.spec.image_size} px, {file.name}, "
              f"{torch.get_num_threads()} threads")  # fmt: skip
        opened = open_file(run, file)
        _report("open and predict", asked.repeats, lambda: _show(run, file))
        for method in METHODS:
            _report(method, asked.repeats, lambda method=method: _answer(run, opened, method, Path(scratch)))
        region = torch.zeros(opened.frame.native, dtype=torch.bool)
        region[: region.shape[0] // 4, : region.shape[1] // 4] = True
        target = explaining.explain_picture(run, opened, explaining.ExplainRequest("class")).target
        _report("remove a sixteenth", asked.repeats, lambda: remove_region(run, opened, region, target))


def _show(run: Run, file: Path) -> None:
    opened = open_file(run, file)
    drawing.predicted_over(run, opened)
    sentences.about_picture(run, opened)


def _answer(run: Run, opened: Opened, method: str, scratch: Path) -> None:
    """All that a click on the middle of the picture costs."""
    width, height = drawing.drawn_to(opened)
    place = drawing.native_place(opened, width / 2, height / 2)
    target = clicks.text_of("point", opened, 1, [place])
    answer = explaining.explain_picture(run, opened, explaining.ExplainRequest(str(target), method))
    drawn = drawing.answered(run, opened, answer)
    sentences.about_answer(answer)
    drawing.save(run, opened, answer, drawn, None, scratch)


def _report(what: str, repeats: int, work: Callable[[], object]) -> None:
    work()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(f"{what:20} {statistics.median(walls):6.2f} s, {statistics.median(cpus):6.2f} s of CPU")


def _specimen(file: Path, size: int) -> Path:
    pixels = (specimens(1, size=size)[0].sample.image * 255).round().to(torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)
    return file


def _untrained(size: int) -> Run:
    torch.manual_seed(0)
    middle = (0.5, 0.5, 0.5)
    spec = ModelSpec(
        architecture="resnet-unet",
        encoder="resnet34",
        image_size=size,
        head="sigmoid",
        mean=middle,
        std=middle,
    )
    return Run(Segmenter.from_spec(spec).eval(), Task())


if __name__ == "__main__":
    main()
