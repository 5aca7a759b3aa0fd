"""Images per second of training and of evaluation: Seglens against the plain loop, on one machine in one run.

    python -m benchmarks.training_speed [--data FOLDER] [--device auto] [--epochs N] [--rounds R]

The plain loop is the example of segmentation-models-pytorch with Lightning (``benchmarks/plain_loop.py``),
in float32 as it stands, and once more in mixed bfloat16 where the machine has that. Both sides train the same
network (U-Net, random weights) on the same pictures, split alike, with Dice loss, the same rate, batch size
and epochs: the Oxford pets below FOLDER, else drawn specimens. Everything else is what each side does by
itself; Seglens is called by its public functions.

- *training*: pictures a second, from the end of the third step (what comes before warms up) to the last step,
  without validation. On a GPU the clock is read when the device has caught up.
- *validation*: pictures a second of the validations of a training, loading included: both sides count pixels
  at the network's size, the same work.
- *evaluation*: pictures of the train split over the seconds of the whole call, ``seglens.evaluate`` or
  ``Trainer.validate``, after a call on the valid split that warms up. They don't do the same: `evaluate`
  scores every picture at its native size, with boundary scores, intervals and files; the plain loop counts
  pixels at the network's size.
- *Dice*: pooled over the valid split at native size and threshold 0.5, by the same functions for both.
- *command*: seconds of the whole process that trains; *memory*: the highest sum over the process and its
  workers (PSS), looked at every second, and the GPU's highest allocation.

Sides alternate within a round; a ratio is that of one round, and its median and range are printed. Afterwards
each side trains one more epoch and evaluates once more while its stack is sampled (see
``benchmarks/sampling.py``; on a GPU with blocking launches): the tables of where the time goes.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import seglens
from benchmarks.workload import Job
from seglens.data.specimens import write_specimens
from seglens.runtime.device import choose_device, choose_precision

Result = dict[str, Any]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder that holds oxford-iiit-pet")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder", default="resnet34")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=64, help="specimens to train on, without --data")
    parser.add_argument("--augment", action="store_true", help="Seglens augments, the plain loop does not")
    parser.add_argument("--compile", action="store_true", help="Seglens compiles, the plain loop does not")
    parser.add_argument("--sides", nargs="*", choices=("plain", "plain-bf16", "seglens"))
    parser.add_argument("--no-tables", action="store_true", help="leave out where the time goes")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    return parser.parse_args()


def prepare(options: argparse.Namespace, work: Path) -> tuple[Path, dict[str, list[tuple[str, str]]]]:
    """Return the folder of the data set, and the files of every split as Seglens splits it."""
    if options.data is None:
        size, num = max(48, options.image_size * 3 // 2), options.pictures
        folder = write_specimens(
            work / "specimens", num_train=num, num_valid=max(8, num // 4), num_test=2, size=size
        )
    else:
        folder = (options.data / "oxford-iiit-pet").resolve()
    splits = seglens.open_data(seglens.DataSettings(path=folder)).splits
    return folder, {
        name: [(str(entry.image), str(entry.masks[0])) for entry in split.entries]
        for name, split in splits.items()
    }


def perform(job: Job, log: Path) -> Result:
    """Do a job in a process of its own; add its seconds and its memory."""
    answer = job.work / "answer.json"
    answer.unlink(missing_ok=True)
    environment = dict(os.environ)
    if job.sampled and job.device.startswith("cuda"):
        environment["CUDA_LAUNCH_BLOCKING"] = "1"
    asked = json.dumps(asdict(job), default=str)
    began, highest = time.monotonic(), 0
    with log.open("a") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workload", asked, str(answer)],
            stdout=stream,
            stderr=stream,
            env=environment,
        )
        looked = began
        while process.poll() is None:
            time.sleep(0.05)
            if time.monotonic() - looked >= 1:
                highest, looked = max(highest, memory(process.pid)), time.monotonic()
    seconds = time.monotonic() - began
    if process.returncode:
        sys.exit(f"{job.side} could not {job.task}:\n" + log.read_text()[-3000:])
    return json.loads(answer.read_text()) | {"command_seconds": seconds, "memory_bytes": highest}


def memory(process: int) -> int:
    """Return the bytes that a process and those below it hold; what is shared counts once (Linux; else 0)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has just ended, or this is no Linux
        return 0
    own = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return own + sum(memory(int(child)) for child in below)


def run_rounds(job: Job, sides: list[str], rounds: int, log: Path) -> dict[str, list[Result]]:
    """Let the sides train and evaluate in turn; the seed is the number of the round."""
    found: dict[str, list[Result]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            this = replace(job, side=side, seed=number)
            trained = perform(replace(this, task="train"), log)
            evaluated = perform(replace(this, task="evaluate"), log)
            found[side].append({"train": trained, "evaluate": evaluated})
            print(
                f"round {number + 1}, {side}: training {trained['rate']:.2f} images/s, "
                f"validation {trained['validation_rate']:.2f} images/s, "
                f"command {trained['command_seconds']:.1f} s; evaluation {evaluated['rate']:.2f} images/s; "
                f"Dice {evaluated['dice']:.4f}; memory {_gib(trained)}, {_gib(evaluated)} GiB"
                + (f"; GPU {trained['gpu_bytes'] / 2**30:.2f} GiB" if trained["gpu_bytes"] else ""),
                flush=True,
            )
    return found


def compare(found: dict[str, list[Result]]) -> Result:
    """Print, and return, the ratios of Seglens to every other side."""
    questions: dict[str, Callable[[Result], float]] = {
        "training, images/s": lambda result: result["train"]["rate"],
        "validation in training, images/s": lambda result: result["train"]["validation_rate"],
        "evaluation, images/s": lambda result: result["evaluate"]["rate"],
        "seconds of the training command": lambda result: result["train"]["command_seconds"],
        "Dice on the valid split": lambda result: result["evaluate"]["dice"],
    }
    summary: Result = {}
    print(f"\nmedian (range) over {len(found['seglens'])} rounds")
    for what, read in questions.items():
        for side, results in found.items():
            ours, values = [read(result) for result in found["seglens"]], [read(each) for each in results]
            line = f"{what}: {side} {_spread(values)}"
            summary.setdefault(what, {})[side] = {"values": values}
            if side != "seglens" and "Dice" in what:
                line += f", seglens minus it {_spread([a - b for a, b in zip(ours, values, strict=True)])}"
            elif side != "seglens":
                ratios = [a / b for a, b in zip(ours, values, strict=True)]
                if "seconds" in what:
                    ratios = [1 / ratio for ratio in ratios]
                summary[what][side]["ratios"] = ratios
                line += f", seglens {_spread(ratios)} times as fast"
            print(line)
    return summary


def tables(job: Job, sides: list[str], log: Path) -> Result:
    """Print, and return, where each side's time goes."""
    found: Result = {}
    for task, unit in (("train", "step"), ("evaluate", "picture")):
        done = {
            side: perform(replace(job, side=side, task=task, epochs=1, sampled=True), log) for side in sides
        }
        for threads, what in (("stages", "the main thread"), ("beside", "other threads at work")):
            table = {
                side: {name: 1000 * seconds / max(1, one["units"]) for name, seconds in one[threads].items()}
                for side, one in done.items()
            }
            found.setdefault(task, {})[what] = table
            if any(table.values()):
                print(f"\n{task}: milliseconds a {unit}, {what}")
                print_table(table)
    return found


def print_table(table: dict[str, dict[str, float]]) -> None:
    print(f"{'':20}" + "".join(f"{side:>14}" for side in table))
    for name in dict.fromkeys(name for column in table.values() for name in column):
        print(f"{name:20}" + "".join(f"{column.get(name, 0):14.2f}" for column in table.values()))
    print(f"{'all':20}" + "".join(f"{sum(column.values()):14.2f}" for column in table.values()))


def _spread(values: list[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    digits = 4 if high < 1 else 2
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _gib(result: Result) -> str:
    return f"{result['memory_bytes'] / 2**30:.2f}"


def main() -> None:
    options = parse()
    device = choose_device(options.device)
    precision = choose_precision("auto", device)
    sides = options.sides or ["plain", *(["plain-bf16"] if precision == "bf16" else []), "seglens"]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    with tempfile.TemporaryDirectory(prefix="training-speed-") as folder:
        work = Path(folder)
        data, files = prepare(options, work)
        job = Job(
            side="",
            task="",
            work=work,
            data=data,
            files=files,
            device=str(device),
            epochs=options.epochs,
            encoder=options.encoder,
            image_size=options.image_size,
            batch_size=options.batch_size,
            augment=options.augment,
            compile=options.compile,
        )
        machine = (
            f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
            f"Python {sys.version.split()[0]}, seglens in {precision}"
        )
        print(
            f"U-Net-{options.encoder}, {options.image_size} px, batch {options.batch_size}, {options.epochs} "
            f"epochs of {len(files['train'])} pictures, {len(files['valid'])} to validate "
            f"({'pets' if options.data else 'specimens'}); {machine}",
            flush=True,
        )
        log = work / "log.txt"
        found = run_rounds(job, sides, options.rounds, log)
        summary = compare(found) if "seglens" in found else {}
        where = {} if options.no_tables else tables(job, sides, log)
    if options.json:
        everything = {
            "machine": machine,
            "options": {name: str(value) for name, value in vars(options).items()},
            "rounds": found,
            "summary": summary,
            "milliseconds": where,
        }
        options.json.write_text(json.dumps(everything, indent=1) + "\n")


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
