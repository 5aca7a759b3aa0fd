"""A tour over all commands on specimens, kept as one JSON file: does another tree's source do the same?

    OMP_NUM_THREADS=1 nice python -m benchmarks.golden --write golden.json
    PYTHONPATH=/that/tree/src:. python -m benchmarks.golden --against golden.json

Tiny pictures and a tiny network on the CPU, one thread, fixed seeds: about 3 minutes. Kept are the exit code
of each command, what it prints, and every file that it writes: numbers of JSON and CSV as they stand, a page
as its texts and data, a picture and an array as the hash of its values with shape, type, mean, deviation,
minimum and maximum. Left out by name, in ``VARIES``, are times and versions. ``--against`` prints each
difference by its key and ends with 1 where there is one.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

CPU = "--device cpu"
SMALL = "--image-size 32 --width 4 --epochs 8 --batch-size 2 --learning-rate 0.01 --seed 0"
LAYERS = "--layers encoder_last decoder_last"
CAMS = "grad-cam grad-cam++ hires-cam layer-cam xgrad-cam eigen-cam seg-xres-cam activation"
SAMPLED = "saliency input-x-gradient smoothgrad integrated-gradients expected-gradients"
MASKED = "score-cam occlusion superpixel-occlusion"
STAGES = {
    "heat": {"scales": [64], "side": 64},
    "spread": {"scales": [64], "rounds": 2},
    "patches": {"num_segments": 20},
}
TOUR = {
    "check": "data check set --json",
    "train": f"train set --model unet --run first {SMALL} --logger none --workers 0 {CPU}",
    "train another": f"train set --model unet --run second {SMALL} --aug --loss dice --logger none {CPU}",
    "adopt": "adopt first/model.safetensors --run adopted --model unet --width 4 --image-size 32 "
    "--classes background,object --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5",
    "layers": "layers first --json",
    "evaluate": f"evaluate first --save-images {CPU}",
    "evaluate another": f"evaluate second {CPU} --json",
    "evaluate mirrored": f"evaluate first --tta --split valid --out mirrored {CPU}",
    "predict": f"predict first set/test/images/0012.png set/test/images/0013.png --out predicted {CPU}",
    "explain": f"explain first {LAYERS} --methods {CAMS} {SAMPLED} {MASKED} --steps 8 --num-samples 3 {CPU}",
    "explain another": f"explain second {LAYERS} --methods grad-cam --num-samples 3 {CPU} --json",
    "explain mistakes": f"explain first {LAYERS} --target false-negative component:1 --methods grad-cam rise "
    f"--set rise.num_masks=32 --out mistakes --num-samples 2 {CPU}",
    "verify": f"verify first --num-samples 2 {CPU}",
    "judge": f"judge first {LAYERS} --methods grad-cam layer-cam saliency --num-samples 3 "
    f"--audit border corners --scores faithfulness context_faithfulness causal_agreement completeness "
    f"model_dependence stability attention {CPU}",
    "judge another": f"judge second {LAYERS} --methods grad-cam --scores faithfulness attention "
    f"--num-samples 2 {CPU} --json",
    "report": "report first",
    "report two": "report first second --out two.html --json",
    "compare": "compare first second --out compared",
    "compare on another split": f"compare first second --data set --split valid --out compared-valid {CPU}",
    "weak": "weak set --run weak --question imagenet:0-99 --classifier-weights classifier.pth "
    "--stages stages.json --student unet --width 4 --image-size 32 --epochs 1 --batch-size 4 --rounds 1 "
    f"--oracle --supervised {CPU}",
    "show": "data show set --image-size 32 --num-samples 2",
}
"""Commands, in the order in which they run."""

VARIES = re.compile(
    r"(^|/)(started|\w*seconds|took|once|images_per_second|versions|command)(/|$)|#\w+/.*/(assets|thumbnails)/"
)
"""Keys of what takes another time, or has another version, from run to run; embedded pictures."""
LEFT_OUT = re.compile(r"^set/|\.(ckpt|lock|pth)$")
TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ]\S*|\b\d+(\.\d+)? ?(ms|s|seconds?|minutes?|min|h)\b|\d+ images/s")


PREPARE = """
import timm, torch
from seglens.data.specimens import write_specimens
write_specimens("set", num_train=8, num_valid=4, num_test=4, size=48, seed=0, tag="with-object")
torch.manual_seed(0)
torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), "classifier.pth")
"""


def main() -> int:
    """Run the tour; write what came out, or compare it with what another tree gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="FILE")
    what.add_argument("--against", type=Path, metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a folder for the files, which stay there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = tour(folder.resolve())
    if options.write:
        options.write.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
        return 0
    expected = json.loads(options.against.read_text(encoding="utf-8"))
    different = [key for key in expected | found if expected.get(key) != found.get(key)]
    for key in different:
        print(f"{key}: {expected.get(key, 'nothing')!r:.300} -> {found.get(key, 'nothing')!r:.300}")
    print(f"{len(found)} values, {len(different)} differ from {options.against}")
    return int(bool(different))


def tour(folder: Path) -> dict[str, object]:
    """Run every command in ``folder``; return what each printed and wrote, by key."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "200"}
    subprocess.run([sys.executable, "-c", PREPARE], cwd=folder, env=environment, check=True)
    (folder / "stages.json").write_text(json.dumps(STAGES))
    found: dict[str, object] = {}
    for name, line in TOUR.items():
        print(f"seglens {line}", file=sys.stderr, flush=True)
        words = [sys.executable, "-m", "seglens", *line.split()]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        found[f"{name}/exit code"] = done.returncode
        parsed = "--json" in line and not done.returncode
        printed = json.loads(done.stdout) if parsed else done.stdout.splitlines()
        found |= dict(_flat(printed, f"{name}/printed"))
        found[f"{name}/warned"] = sorted(map(_same, done.stderr.splitlines()))
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(file.relative_to(folder))
        if not LEFT_OUT.search(name):
            found |= dict(_file(file, name))
    kept = {key: value for key, value in found.items() if not VARIES.search(key)}
    return json.loads(json.dumps(kept).replace(str(folder), "FOLDER"))


def _file(file: Path, name: str) -> Iterator[tuple[str, object]]:
    """Yield what is in one file, by key."""
    match file.suffix:
        case ".json":
            yield from _flat(json.loads(file.read_text(encoding="utf-8")), name)
        case ".csv":
            rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines(keepends=True))
            for number, row in enumerate(rows):
                yield from _flat(dict(row), f"{name}/{number}")
        case ".npz":
            with np.load(file) as arrays:
                for key in arrays.files:
                    yield f"{name}/{key}", _array(arrays[key])
        case ".safetensors":
            for key, value in sorted(load_file(file).items()):
                yield f"{name}/{key}", _array(value)
        case ".png":
            with Image.open(file) as picture:
                yield name, _array(np.asarray(picture))
        case ".html":
            page = file.read_text(encoding="utf-8")
            for place, data in re.findall(
                r'(?s)<script type="application/json" id="(\w+)">(.*?)</script>', page
            ):
                yield from _flat(json.loads(data), f"{name}#{place}")
            text = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page)
            words = [" ".join(unescape(part).split()) for part in re.split(r"(?s)<[^>]*>", text)]
            yield from _flat([part for part in words if part], name)
        case _:
            yield name, "there"


def _flat(value: object, key: str) -> Iterator[tuple[str, object]]:
    """Yield the leaves of ``value`` with their keys."""
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in pairs:
            yield from _flat(part, f"{key}/{name}")
    else:
        long = isinstance(value, str) and value.startswith("data:")
        yield key, _hash(str(value).encode()) if long else _same(value) if isinstance(value, str) else value


def _array(values: np.ndarray) -> dict[str, object]:
    """Return the hash of an array and what makes a difference readable."""
    about: dict[str, object] = {"sha256": _hash(np.ascontiguousarray(values).tobytes())}
    about |= {"shape": list(values.shape), "type": str(values.dtype)}
    numbers = values.astype(np.float64)[np.isfinite(values)]
    if numbers.size:
        about |= {name: float(getattr(numbers, name)()) for name in ("mean", "std", "min", "max")}
    return about


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _same(text: str) -> str:
    """Return ``text`` without the times that it names."""
    return TIMES.sub("TIME", text)


if __name__ == "__main__":
    sys.exit(main())
