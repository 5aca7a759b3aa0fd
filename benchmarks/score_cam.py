"""Score-CAM with every channel of a layer: Seglens against pytorch-grad-cam, in time, memory and agreement.

    python -m benchmarks.score_cam [--size 256] [--layer encoder.layer4] [--ways peer float32 bf16 compiled]
    python -m benchmarks.score_cam --run RUN --layer LAYER --ways float32 bf16

The model is a U-Net with a ResNet-34 encoder and random weights, with one picture; encoder.layer4 has 512
channels, encoder.layer1 has 64 (a quick try). Each way runs in a process of its own, one after the other in
one run, so that its peak memory is its own: resident memory as the system counts it, with Python and PyTorch
in it. ``settled`` ends early. The time is that of one call after a warm forward pass; a compiler's time is
shown apart. Both sides
take 16 copies at a time. In half precision, channel scores and maps are compared with our own in float32 by
Spearman's rank correlation; the check that the method itself makes of 16 channels is part of its time. With
``--run`` the model is that of a run folder, asked about what it predicts on its first test picture.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

import seglens
from seglens.data.transforms import collate, letterbox
from seglens.explain import channels, masked
from seglens.explain.channels import ScoreCam, score_cam
from seglens.explain.target import Target
from seglens.models.segmenter import ModelSpec, Segmenter

WAYS = {
    "float32": ScoreCam(),
    "bf16": ScoreCam(precision="bf16"),
    "compiled": ScoreCam(precision="bf16", compile="always"),
    "settled": ScoreCam(settle=0.99),
}
CHUNK = 16

Found = dict[str, Any]
"""What one way came to: seconds, peak memory, and for ours scores, map and diagnostics."""


def model(size: int, device: torch.device) -> Segmenter:
    """The U-Net on pictures as they are: no normalisation, so that the peer needs none either."""
    torch.manual_seed(0)
    nothing, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    spec = ModelSpec(
        architecture="resnet-unet", encoder="resnet34", image_size=size, mean=nothing, std=one, divisor=32
    )
    segmenter = Segmenter.from_spec(spec)
    with torch.no_grad():  # batch normalisation as after training, not as at birth
        segmenter.train()
        for _ in range(5):
            segmenter(torch.rand(4, 3, 64, 64))
    return segmenter.eval().to(device)


def scene(size: int, device: torch.device) -> tuple[Tensor, Target]:
    """One picture, smooth and bright here and there, and a square in its middle."""
    coarse = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear").to(device)
    pixels = torch.zeros(1, size, size, dtype=torch.bool, device=device)
    middle = slice(size // 4, size // 2)
    pixels[:, middle, middle] = True
    return images, Target("middle", 1, pixels)


def trained(folder: Path, device: torch.device) -> tuple[Segmenter, Tensor, Target]:
    """The model of a run, the first picture of its test split, and what it predicts there."""
    run = seglens.load(folder, device=str(device))
    boxed, _ = letterbox(seglens.open_split(run, "test")[0], run.spec.image_size)
    images = collate([boxed]).images.to(device)
    return run.segmenter, images, seglens.targets.predicted(run, images)


def ours(settings: ScoreCam, segmenter: Segmenter, images: Tensor, target: Target, layer: str) -> Found:
    """One call; the channel scores are read where the method gets them."""
    kept: list[Tensor] = []
    original = masked.score_copies

    def noting(*given: object, **named: object) -> Tensor:
        kept.append(original(*given, **named))  # type: ignore[arg-type]
        return kept[-1]

    setattr(channels, "score_copies", noting)  # noqa: B010 - the name that the method uses
    began = time.perf_counter()
    found = score_cam(segmenter, images, (target,), (layer,), settings, batch_size=CHUNK)[0]
    shown = found.map[0].cpu()  # which waits for a GPU
    seconds = time.perf_counter() - began
    about = {name: values[0].item() for name, values in found.diagnostics.items()}
    return {
        "seconds": seconds,
        "scores": max(kept, key=Tensor.numel)[0].tolist(),
        "map": shown.flatten().tolist(),
        "status": found.status[0],
        **about,
    }


def theirs(segmenter: Segmenter, images: Tensor, target: Target, layer: str) -> Found:
    """As its documentation shows."""
    from pytorch_grad_cam import ScoreCAM

    network = segmenter.module
    began = time.perf_counter()
    with ScoreCAM(network, [network.get_submodule(layer)]) as cam:
        cam.batch_size = CHUNK
        cam(images, targets=[lambda out: (out[0] * target.pixels[0]).sum()])
    return {"seconds": time.perf_counter() - began}


def child(way: str, given: argparse.Namespace, device: torch.device) -> None:
    """Do one way, and write down what came of it."""
    if given.run is not None:
        segmenter, images, target = trained(given.run, device)
    else:
        segmenter, (images, target) = model(given.size, device), scene(given.size, device)
    with torch.no_grad():
        segmenter(images)
    work = theirs if way == "peer" else partial(ours, WAYS[way])
    found = work(segmenter, images, target, given.layer)
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    if device.type == "cuda":
        found["peak"] = torch.cuda.max_memory_allocated(device) / (1 << 20)
    given.out.write_text(json.dumps(found))


def main() -> None:
    """Run every way in a process of its own and print one line for each."""
    parser = argparse.ArgumentParser(description="All-channel Score-CAM against pytorch-grad-cam.")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--layer", default="encoder.layer4")
    parser.add_argument("--ways", nargs="+", choices=("peer", *WAYS), default=["peer", *WAYS])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--run", type=Path, help="a run folder, in place of random weights")
    parser.add_argument("--child", choices=("peer", *WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = torch.device(given.device)
    if given.child:
        child(given.child, given, device)
        return
    if given.run is not None and "peer" in given.ways:
        parser.error("--run is for our own ways: name them, as in --ways float32 bf16")
    what = f"{given.run}" if given.run else f"a U-Net-ResNet34, one picture of {given.size} px"
    print(
        f"Score-CAM, all channels of {given.layer} of {what}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads on {given.device}, "
        f"pytorch-grad-cam {version('grad-cam')}"
    )
    done: dict[str, Found] = {}
    with tempfile.TemporaryDirectory(prefix="seglens-score-cam-") as folder:
        for way in given.ways:
            out = Path(folder) / f"{way}.json"
            words = ["--size", str(given.size), "--layer", given.layer, "--device", given.device]
            words += ["--run", str(given.run)] if given.run else []
            command = [
                sys.executable,
                "-m",
                "benchmarks.score_cam",
                *words,
                "--child",
                way,
                "--out",
                str(out),
            ]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL if way == "peer" else None)
            done[way] = json.loads(out.read_text())
            print(line(way, done), flush=True)


def line(way: str, done: dict[str, Found]) -> str:
    """What is known of one way, against those before it."""
    here, peer = done[way], done.get("peer")
    compiling = here.get("compile_seconds", 0.0)
    seconds = here["seconds"] - compiling
    text = f"{way}: {seconds:.1f} s, peak {here['peak']:.0f} MiB"
    if peer is not None and way != "peer":
        text += f", {peer['seconds'] / seconds:.2f} times as fast as the peer"
    if compiling:
        text += f"; compiling took another {compiling:.0f} s"
    if way in ("bf16", "compiled"):
        text += f"; own check {here['rank_agreement']:.5f}"
        if "float32" in done:
            exact = done["float32"]
            scores, maps = (spearmanr(here[what], exact[what]).statistic for what in ("scores", "map"))
            text += f"; Spearman with float32: channel scores {scores:.5f}, map {maps:.5f}"
    if way == "settled":
        text += f"; {here['tried_channels']:.0f} channels tried"
        if "float32" in done:
            maps = spearmanr(here["map"], done["float32"]["map"]).statistic
            text += f"; Spearman of the map with float32 {maps:.5f}"
    if here.get("status", "ok") != "ok":
        text += f"; the map is {here['status']}"
    return text


if __name__ == "__main__":
    main()
