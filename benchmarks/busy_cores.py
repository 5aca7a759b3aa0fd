"""Training beside another program: how long threads of OpenMP wait for one another before they sleep.

    python -m benchmarks.busy_cores

Steps of a small U-Net (ResNet18, 4 pictures of 96 pixels) on all cores, with nothing beside them and with one
core busy by a program of another session, by ``GOMP_SPINCOUNT``; the command sets `seglens.__main__.SPINS`
where nothing is set. Each in a process of its own, since the count is read where torch is imported.
"""

import os
import subprocess
import sys
import time

from seglens.__main__ import SPINS

COUNTS = ("300000", "100000", "20000", SPINS, "1000")
"""The first is GNU's own."""

STEPS = 8


def step_seconds() -> float:
    """Train in this process; return the seconds of a step."""
    import torch
    from segmentation_models_pytorch import Unet

    torch.manual_seed(0)
    network = Unet("resnet18", encoder_weights=None)
    optimizer = torch.optim.Adam(network.parameters())
    images, masks = torch.rand(4, 3, 96, 96), (torch.rand(4, 1, 96, 96) > 0.5).float()
    for number in range(STEPS + 1):
        if number == 1:  # the first one makes ready
            began = time.monotonic()
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(images), masks).backward()
        optimizer.step()
    return (time.monotonic() - began) / STEPS


def measured(count: str) -> float:
    """Return the seconds of a step in a process with this count."""
    words = [sys.executable, "-m", "benchmarks.busy_cores", "--step"]
    done = subprocess.run(
        words, env=os.environ | {"GOMP_SPINCOUNT": count}, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def main() -> None:
    """Print the table."""
    if "--step" in sys.argv:
        print(step_seconds())
        return
    print("| turns of waiting | ms a step, nothing beside it | one core busy |\n|---|---|---|")
    for count in COUNTS:
        alone = measured(count)
        with subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) as busy:
            beside = measured(count)
            busy.kill()
        print(f"| {count} | {1000 * alone:.0f} | {1000 * beside:.0f} |", flush=True)


if __name__ == "__main__":
    main()
