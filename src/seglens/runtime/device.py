"""The device and the precision to compute with, by the names that users give; and free memory."""

import ctypes
import gc
import os
import platform
import re
import sys
import warnings
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Literal

import torch

from seglens.errors import SettingError

DEVICES = ("auto", "cpu", "cuda", "cuda:N", "mps")
PRECISIONS = ("auto", "32", "bf16")

PIXELS = 8 * 192**2
"""Pixels of a pass on a CPU. With more of them each layer asks the system for memory anew, which takes 20 to
40 % more time on 16 pictures of 256 px."""

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
"""The files of Linux with the free memory, and with the limit of a container."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``: one of ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ``mps``.

    ``auto`` is the first GPU, else the CPU. A GPU that is not there means the CPU, with a warning.

    Raises:
        SettingError: ``name`` is none of these.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise SettingError(f"Unknown device {name!r}. Allowed: {', '.join(DEVICES)}.")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if not _is_there(device):
        warnings.warn(f"There is no {name} on this machine: computing on the CPU.", UserWarning, stacklevel=2)
        return torch.device("cpu")
    return device


def choose_precision(name: str, device: torch.device) -> Literal["32", "bf16"]:
    """Return the precision called ``name``: ``auto``, ``32`` or ``bf16`` (mixed: weights stay float32).

    ``auto`` is ``bf16`` where the hardware multiplies bfloat16 matrices itself, else ``32``.

    Raises:
        SettingError: ``name`` is none of these.
    """
    match name:
        case "32":
            return "32"
        case "bf16":
            return "bf16"
        case "auto":
            return "bf16" if _has_bf16(device) else "32"
    raise SettingError(f"Unknown precision {name!r}. Allowed: {', '.join(PRECISIONS)}.")


def is_first_process(num_processes: int) -> bool:
    """Whether this process is the first of ``num_processes`` that work on one job, which writes its files.

    Lightning, torchrun and SLURM number processes in the environment before anything runs.
    """
    if num_processes == 1:
        return True
    ranks = ("RANK",) if "RANK" in os.environ else ("NODE_RANK", "GROUP_RANK", "LOCAL_RANK")
    known = [int(os.environ[name]) for name in ranks if name in os.environ]
    return not any(known or [int(os.environ.get("SLURM_PROCID", 0))])


def wait_for_all() -> None:
    """Wait until every process of this job has come here; alone, go on."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory could not be had, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def free_bytes(device: torch.device) -> int | None:
    """Return how many bytes of a CPU's memory are free to be taken, None where nobody says.

    A GPU says when it is full, and a batch is halved then: None.
    """
    if device.type != "cpu" or not MEMINFO.exists():
        return None
    told = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
    free = int(told["MemAvailable"].split()[0]) * 1024
    limit, used = (CGROUP / "memory.max", CGROUP / "memory.current")
    if limit.exists() and used.exists() and (allowed := limit.read_text(encoding="ascii").strip()) != "max":
        free = min(free, int(allowed) - int(used.read_text(encoding="ascii")))
    return max(free, 0)


def at_once(size: Sequence[int], device: torch.device, batch_size: int) -> int:
    """Return how many pictures of ``size`` (the length of each axis, in pixels) go through a model at once.

    They are ``batch_size``, and on a CPU no more than `PIXELS` have together, but one at least.
    """
    return min(batch_size, max(1, PIXELS // prod(size))) if device.type == "cpu" else batch_size


def release_memory() -> None:
    """Return unused memory to the system, and on a GPU to other processes.

    What threads have allocated and freed stays with glibc otherwise, in pieces that a long job adds to.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or torch.backends.mps.is_available()


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Without such instructions bfloat16 is emulated on a CPU, and slower than float32.
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, question, bool)() for question in questions)
