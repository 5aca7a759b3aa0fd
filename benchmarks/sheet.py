"""A whole sheet for the model of a well-known project: U-Net++ with EfficientNet-B5 at 640 px.

    python -m benchmarks.sheet [--size 640] [--steps 8] [--encoder efficientnet-b5] [--device cpu]

Four gradient CAMs at five layers (the encoder at three depths, the decoder's last block, the head) and
Integrated Gradients, of one picture, random weights. Each side runs in a process of its own: seconds without
start-up and without a first forward pass, and the peak of its resident memory (or the GPU's).
The peers are used as their documentation shows: pytorch-grad-cam with one object a map, captum with all steps
in one batch unless ``--batch-size`` says otherwise.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
from torch import Tensor

import seglens
from seglens.explain import explain
from seglens.models.layers import resolve
from seglens.runs import Run

CAMS = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "hires-cam": "HiResCAM",
    "layer-cam": "LayerCAM",
}
ROLES = ("encoder_early", "encoder_mid", "encoder_last", "decoder_last", "seg_head")


def scene(options: argparse.Namespace) -> tuple[Run, Tensor, seglens.Target]:
    """The model, one picture, and a square in the middle of it as the target."""
    torch.manual_seed(0)
    module = smp.UnetPlusPlus(options.encoder, encoder_weights=None, classes=1).eval().to(options.device)
    for parameter in module.parameters():
        parameter.requires_grad_(False)  # both sides are spared the gradients of the weights
    run = seglens.wrap(
        module,
        classes=("background", "object"),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        image_size=options.size,
        divisor=32,
    )
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, options.size, options.size, generator=generator).to(options.device)
    pixels = torch.zeros(1, options.size, options.size, dtype=torch.bool, device=options.device)
    pixels[:, options.size // 4 : options.size // 2, options.size // 4 : options.size // 2] = True
    return run, image, seglens.Target("middle", 1, pixels)


def here(run: Run, image: Tensor, target: seglens.Target, options: argparse.Namespace) -> dict[str, float]:
    """Seglens: one call for the CAMs, one for the path."""
    return {
        "CAMs": timed(lambda: explain(run, image, target, methods=tuple(CAMS), layers=ROLES), image),
        "Integrated Gradients": timed(
            lambda: explain(
                run,
                image,
                target,
                methods=[seglens.IntegratedGradients(steps=options.steps)],
                batch_size=options.batch_size,
            ),
            image,
        ),
    }


def there(run: Run, image: Tensor, target: seglens.Target, options: argparse.Namespace) -> dict[str, float]:
    """The peers: one object a map, and captum."""
    import pytorch_grad_cam
    from captum.attr import IntegratedGradients

    modules = resolve(run.segmenter, ROLES)
    picture = image.clone().requires_grad_()

    def maps() -> None:
        for peer in CAMS.values():
            for layer in modules.values():
                with getattr(pytorch_grad_cam, peer)(run.segmenter.module, [layer]) as cam:
                    cam(picture, targets=[lambda out: (out[0] * target.pixels[0]).sum()])

    def path() -> None:
        def score(rows: Tensor) -> Tensor:
            owner = torch.zeros(len(rows), dtype=torch.int64)
            return target.score(run.segmenter.module(rows), owner, "mean")

        IntegratedGradients(score).attribute(
            image, n_steps=options.steps, method="gausslegendre", internal_batch_size=options.batch_size
        )

    return {"CAMs": timed(maps, image), "Integrated Gradients": timed(path, image)}


def timed(work: Callable[[], object], image: Tensor) -> float:
    """Seconds of ``work``."""
    began = time.perf_counter()
    work()
    if image.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


SIDES = {"seglens": here, "peers": there}


def main() -> None:
    """Run both sides in turn, each in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description="A whole sheet for U-Net++ with EfficientNet-B5.")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument(
        "--batch-size", type=int, default=2, help="pictures in the model at once along the path"
    )
    parser.add_argument("--encoder", default="efficientnet-b5")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", choices=SIDES, help="run this side only and print JSON")
    options = parser.parse_args()
    if options.side:
        run, image, target = scene(options)
        run.predict(image)
        found = SIDES[options.side](run, image, target, options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if image.is_cuda:
            peak = torch.cuda.max_memory_allocated() / 2**30
        print(json.dumps(found | {"peak memory, GiB": peak}))
        return
    command = [sys.executable, "-m", "benchmarks.sheet"]
    for name in ("size", "steps", "batch_size", "encoder", "device"):
        command += [f"--{name}", str(getattr(options, name))]
    results = {}
    for side in SIDES:
        done = subprocess.run([*command, "--side", side], capture_output=True, text=True, check=True)
        results[side] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"U-Net++ / {options.encoder}, {options.size} px, {len(CAMS)} CAMs x {len(ROLES)} layers, "
        f"IG with {options.steps} steps; torch {torch.__version__}, {torch.get_num_threads()} threads\n"
    )
    print("| | Seglens | peers | ratio |\n|---|---|---|---|")
    for what, mine in results["seglens"].items():
        other = results["peers"][what]
        print(f"| {what} | {mine:.2f} | {other:.2f} | {other / mine:.1f} |")


if __name__ == "__main__":
    main()
