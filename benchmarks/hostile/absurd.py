"""Numbers that nobody means, what was refused only after long work, and text that others read as commands."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.hostile import Case, Spoil
from benchmarks.hostile.world import CPU, SMALL

HUGE = ("-1", "0", str(2**32), str(2**63), str(2**64), str(10**12), "9" * 400, "1e3", "nan", "3.5", "")
"""Whole numbers of flags; 0 and 2^32 are allowed for some."""

WILD = ("nan", "inf", "-inf", "-1", "1e400", "1e-400", "x", "")
"""Fractions of flags."""

PICTURE = "photos/my-test-0.png"
EXPLAIN = f"explain run {PICTURE} --layers encoder_last {CPU} --out new"
TRAIN = f"train set --epochs 1 --logger none {SMALL} --run new"
WEAK = f"weak set --epochs 1 --student unet --rounds 0 {SMALL} --run new"
ADOPT = "adopt run/model.safetensors --run new"
JUDGE = f"judge run --num-images 2 --scores attention --layers encoder_last {CPU} --out new"

WHOLE = {
    TRAIN: (
        "--seed --split-seed --image-size --width --batch-size --epochs --workers --devices --num-nodes "
        "--patience --keep-every --freeze-encoder --channels --ignore"
    ),
    WEAK: (
        "--seed --pseudo-seed --split-seed --image-size --width --batch-size --epochs --rounds --channels "
        "--samples"
    ),
    ADOPT: "--image-size --width --channels",
    EXPLAIN: "--seed --steps --epoch --memory --devices --num-nodes --max-pixels",
    f"explain run --split test --layers encoder_last {CPU} --out new": "--samples --num-images",
    f"evaluate run {CPU} --out new": "--batch-size --epoch --devices --num-nodes",
    JUDGE: "--seed --num-images --samples --epoch",
    f"verify run {CPU}": "--num-images --seed",
    "compare run results/trained --out new": "--top --seed",
    "data show set --image-size 64 --out new.png": "--num-images --seed",
    "data show set --num-images 1 --out new.png": "--image-size",
    "demo --out new": "--seed",
    f"app run {CPU}": "--port",
}
"""The flags of each command that are whole numbers."""

REAL = {
    TRAIN: (
        "--threshold --learning-rate --encoder-rate --weight-decay --clip --ema --rotation "
        "--class-weights --mean --std --window"
    ),
    WEAK: "--stop-at --learning-rate",
    ADOPT: "--mean --std",
    "data get dsb2018 new": "--stall-seconds",
}
"""Those that are fractions."""

ALLOWED = {
    "0": (
        "--seed", "--split-seed", "--pseudo-seed", "--workers", "--freeze-encoder", "--rounds", "--samples",
        "--ignore", "--top",
    ),
    "-1": ("--rotation", "--mean"),
    str(2**32): ("--max-pixels", "--memory", "--ignore"),
    str(10**12): ("--max-pixels", "--memory"),
    "1e-400": ("--weight-decay", "--ema", "--rotation", "--mean"),
}  # fmt: skip
"""Values that some flags take: then the command ends well, or refuses for another reason."""

SETTINGS = {
    "integrated-gradients": {"steps": "whole", "max_steps": "whole", "draws": "whole", "tolerance": "real",
                             "blur": "real"},
    "smoothgrad": {"num_samples": "whole", "noise": "real"},
    "expected-gradients": {"num_samples": "whole"},
    "rise": {"num_masks": "whole", "cells": "whole", "probability": "real"},
    "occlusion": {"window": "whole", "stride": "whole"},
    "superpixel-occlusion": {"num_segments": "whole", "compactness": "real"},
    "seg-xres-cam": {"window": "whole"},
}  # fmt: skip
"""Settings of methods, and what they are."""


def cases() -> list[Case]:
    """Return all cases of the areas."""
    return [*_flags(), *_methods(), *_records(), *_stages(), *_late(), *_paths(), *_text()]


def _flags() -> Iterator[Case]:
    for table, values in ((WHOLE, HUGE), (REAL, WILD)):
        for line, flags in table.items():
            for flag in flags.split():
                for value in values:
                    taken = flag in ALLOWED.get(value, ())
                    if taken and line.startswith(("demo", "app")):
                        continue
                    yield Case(
                        "numbers",
                        f"{line.split()[0]} {flag} {value[:24] or 'nothing'}",
                        (*line.split(), f"{flag}={value}"),
                        (0, 2) if taken else (2,),
                        says=".",
                    )


def _methods() -> Iterator[Case]:
    for method, settings in SETTINGS.items():
        for setting, kind in settings.items():
            for value in HUGE if kind == "whole" else WILD:
                yield Case(
                    "numbers",
                    f"explain --set {method}.{setting}={value[:24] or 'nothing'}",
                    (*EXPLAIN.split(), "--methods", method, "--set", f"{method}.{setting}={value}"),
                    (0, 2) if (setting, value) in (("samples", "0"),) else (2,),
                    says=setting,
                )


def _records() -> Iterator[Case]:
    odd: tuple[object, ...] = (
        0,
        -1,
        10**6,
        10**12,
        2**64,
        10**400,
        3.5,
        float("nan"),
        float("inf"),
        True,
        "7",
        None,
        [1],
        {},
    )
    for field in ("image_size", "width", "channels", "classes", "divisor", "threshold", "scale", "mean"):
        for value in odd:
            if (field, value) in (("width", None), ("scale", None), ("scale", True), ("divisor", True)):
                continue
            yield _record("model", field, value)
    for value in ("red", "#zzzzzz", "url(x)", "#000;}*{", "", "\u202e#000000", 7, None, "#12345"):
        yield _record("task", "palette", ["#000000", value])


def _record(part: str, field: str, value: object) -> Case:
    def spoil(world: Path) -> None:
        file = world / "run/run.json"
        table = json.loads(file.read_text())
        table[part][field] = value
        file.write_text(json.dumps(table))

    command = "report run --out new.html" if field == "palette" else "layers run"
    name = f"{command.split()[0]}, run.json with {field} = {str(value)[:24]!r}"
    # What means the same as before, or as a default, is taken.
    same = (0, 2) if field in ("classes", "scale", "threshold") or value in ("7",) else (2,)
    return Case("numbers", name, command, same, says=r"run\.json", spoil=spoil, may_change=("run/run.json",))


def _stages() -> Iterator[Case]:
    texts = {
        "a list": "[]",
        "null": "null",
        "a number": "7",
        "question null": '{"question": null}',
        "question a list": '{"question": [1]}',
        "question text": '{"question": "pets"}',
        "heat text": '{"heat": "x"}',
        "unknown": '{"surprise": 1}',
        "unknown within": '{"heat": {"surprise": 1}}',
        "deep": "[" * 100000,
        "NaN": '{"threshold": {"rule": "fixed", "value": NaN}}',
        "threshold of 7": '{"threshold": {"rule": "fixed", "value": 7}}',
        "no such rule": '{"threshold": {"rule": "nope"}}',
        "no such refinement": '{"refine": {"method": "nope"}}',
        "no such map": '{"heat": {"maps": ["nope@blocks.6"]}}',
        "a map without layer": '{"heat": {"maps": ["grad-cam"]}}',
        "no map": '{"heat": {"maps": []}}',
        "no scale": '{"heat": {"scales": []}}',
        "scale 0": '{"heat": {"scales": [0]}}',
        "scale 10^12": '{"heat": {"scales": [1000000000000]}}',
        "side -1": '{"heat": {"side": -1}}',
        "side 10^12": '{"heat": {"side": 1000000000000}}',
        "stride 0": '{"spread": {"stride": 0}}',
        "rounds 10^12": '{"spread": {"rounds": 1000000000000}}',
        "sure NaN": '{"spread": {"sure": NaN}}',
        "penalty -1": '{"spread": {"penalty": -1}}',
        "steps 2^64": '{"refine": {"steps": 18446744073709551616}}',
        "colour 0": '{"refine": {"colour": 0}}',
        "no superpixel": '{"patches": {"num_segments": 0}}',
        "10^12 superpixels": '{"patches": {"num_segments": 1000000000000}}',
        "sigma Infinity": '{"patches": {"sigma": Infinity}}',
        "opening -3": '{"masks": {"opening": -3}}',
        "opening 10^9": '{"masks": {"opening": 1000000000}}',
        "margin 2": '{"masks": {"margin": 2}}',
        "Latin-1": "\xe9",
        "twice": '{"heat": {}, "heat": {"side": "x"}}',
        "a long number": '{"heat": {"side": ' + "9" * 5000 + "}}",
    }
    for how, text in texts.items():

        def spoil(world: Path, text: str = text) -> None:
            (world / "stages.json").write_bytes(text.encode("latin-1"))

        yield Case(
            "late",
            f"weak --stages with {how}",
            f"{WEAK} --stages stages.json",
            says="stage|Unknown|The map|Heat",
            spoil=spoil,
        )


def _late() -> Iterator[Case]:
    """What can be known before any work is refused before it: nothing is begun."""
    for flags in (
        "--student nope",
        "--precision 7",
        "--encoder resnet18",
        "--encoder-weights imagenet",
        "--student resnet-unet --encoder nope",
        "--student resnet-unet --encoder-weights nowhere.pth",
        "--student resnet-unet --encoder resnet18 --width 4",
        "--student resnet-unet --encoder resnet18 --image-size 17 --width 1",
        "--classifier nope",
        "--classifier-weights nowhere.pth",
        "--refine nope",
        "--pseudo nowhere",
        "--labels nowhere.csv",
        "--question imagenet:nope",
        "--question imagenet:99999",
        "--device nope",
        "--samples 10000",
    ):
        words = [*WEAK.split(), *flags.split()]
        yield Case("late", f"weak {flags}", tuple(words), says=".", check=_nothing_new)
    for flags in ("--model nope", "--precision 7", "--encoder resnet18", "--loss nope", "--logger nope"):
        yield Case("late", f"train {flags}", f"{TRAIN} {flags}", says=".", check=_nothing_new)
    for command, line in {
        "train": TRAIN,
        "evaluate": f"evaluate run {CPU} --out new",
        "explain": EXPLAIN,
        "judge": JUDGE,
    }.items():
        yield Case("late", f"{command} --num-nodes 2", f"{line} --num-nodes 2", says="nodes")
        yield Case("late", f"{command} --devices 2000", f"{line} --devices 2000", says="devices")


def _nothing_new(world: Path, out: str) -> str:
    return "new is there" if (world / "new").exists() else ""


def _paths() -> Iterator[Case]:
    """Paths that are not there are found before torch is loaded."""
    for line in (
        "explain nowhere",
        "explain run nowhere.png",
        "evaluate nowhere",
        "evaluate run --data nowhere",
        "predict nowhere photos/my-test-0.png",
        "predict run nowhere.png",
        "layers nowhere",
        "verify nowhere",
        "judge nowhere",
        "judge run --data nowhere",
        "report nowhere",
        "report run --shortcut nowhere.json",
        "compare run nowhere",
        "app nowhere",
        "train nowhere --run new",
        "train --repeat nowhere --run new",
        "weak nowhere --run new",
        "weak set --run new --stages nowhere.json",
        "weak set --run new --pseudo nowhere",
        "adopt nowhere.pth --run new",
        "data check nowhere",
        "data show nowhere",
    ):
        yield Case("late", f"{line}: before torch", codes=(2,), says="nowhere", shell=_without_torch(line))
        for how, name in (("too long", "x" * 300), ("Latin-1", "caf$(printf '\\351')")):
            shell = f"$S {line.replace('nowhere', name)}"
            yield Case("late", f"{line.split()[0]}, a path that is {how}: {line}", codes=(2,), shell=shell)


def _without_torch(line: str) -> str:
    """A shell line that runs the command where torch can't be imported."""
    code = (
        "import sys; sys.modules['torch'] = None; from seglens.cli import command; "
        "sys.exit(command(sys.argv[1:]))"
    )
    return f'{sys.executable} -c "{code}" {line}'


def _text() -> Iterator[Case]:
    for line in ("layers run", f"{EXPLAIN}", TRAIN, f"{JUDGE}", f"evaluate run {CPU} --out new"):
        shell = f"MPLBACKEND=nope $S {line}"
        yield Case("names", f"{line.split()[0]}, MPLBACKEND=nope", codes=(0,), shell=shell)
    for word in ("\x1b[31mred", "a\x07b", "a\x9bb", "a\u202eb", "a\nb", "a\rb"):
        for line in (f"layers {word}", f"explain run {word}.png", f"explain run {PICTURE} --class {word}"):
            words = tuple(line.replace(word, "@").split())
            words = tuple(part.replace("@", word) for part in words)
            yield Case("names", f"{words[0]} {len(words)}, {word!r} on the terminal", words, says=PLAIN)
    for name in ("=1+1", "+1", "-1", "@x", "\tx", "\rx", " =1", "=HYPERLINK(1)"):
        for line, file in (
            (f"evaluate run {CPU} --out new", "new"),
            (f"{JUDGE}", "new"),
            (f"explain run --split test --num-images 1 --layers encoder_last {CPU} --out new", "new"),
        ):

            def check(world: Path, out: str, file: str = file) -> str:
                return _formulas(world / file)

            yield Case(
                "names",
                f"{line.split()[0]}, a class called {name!r}",
                line,
                (0,),
                spoil=_called(name),
                check=check,
                may_change=("run/run.json",),
            )


PLAIN = r"\A[^\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+\Z"
"""Standard error without a character that a terminal obeys, but for the end of a line."""


def _called(name: str) -> Spoil:
    def spoil(world: Path) -> None:
        file = world / "run/run.json"
        table = json.loads(file.read_text())
        table["task"]["classes"][1] = name
        if table["data"]:
            table["data"] |= {"classes": ["background", name], "masks": "foreground"}
        file.write_text(json.dumps(table))

    return spoil


def _formulas(folder: Path) -> str:
    """Say which cell of a table below a spreadsheet would run."""
    for file in folder.rglob("*.csv"):
        with file.open(newline="", encoding="utf-8") as stream:
            for row in csv.reader(stream):
                for cell in row:
                    if cell[:1] in ("=", "+", "@", "\t", "\r") or (cell[:1] == "-" and not _is_number(cell)):
                        return f"{file.name}: {cell!r}"
    return ""


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
