"""One job over several devices or nodes: every process does its share, and the first one writes and prints.

The processes are started here, or by torchrun, SLURM and whatever else Lightning knows; they exchange plain
objects only, by gloo, also where they compute on GPUs: gloo needs no GPU memory and notices at once that a
process has ended. With one process nothing of this is imported.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from seglens.arguments import checked
from seglens.callable_module import make_callable
from seglens.errors import SettingError, SpreadError
from seglens.files.output import new_folder
from seglens.runtime.device import choose_device
from seglens.runtime.launcher import (
    STARTED,
    Launcher,
    empty_input,
    environment_kept,
    reporting,
    same_command,
)
from seglens.runtime.signals import ended_by_signals

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

__all__ = ["ALONE", "Share", "kind_of_devices", "spread"]

START_TIMEOUT = timedelta(minutes=10)
"""How long the processes wait for one another at the start."""

LEAST = 8
"""Processes that a machine without a GPU may share the work among, however few cores it has."""

FINISH_TIMEOUT = timedelta(days=1)
"""The longest time that one process waits for another to finish its share."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class _Links:
    """The connections of a process: the group of all, and the processes that it started."""

    group: Any
    launcher: Launcher | None


@dataclass(frozen=True)
class Share:
    """One process's part of a job: it is number ``rank`` of ``size``, and computes on ``device``.

    All processes of a job must call `gather`, `agree`, `wait` and `folder` in the same order.
    """

    rank: int = 0
    size: int = 1
    device: str = "auto"
    links: _Links | None = field(default=None, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the common files and prints."""
        return self.rank == 0

    def of(self, num: int) -> range:
        """Return which of ``num`` items are this process's: neighbours, of each item one process.

        Examples:
            >>> [Share(rank, 3).of(7) for rank in range(3)]
            [range(0, 2), range(2, 4), range(4, 7)]
        """
        return range(num * self.rank // self.size, num * (self.rank + 1) // self.size)

    def gather(self, items: Sequence[_Item]) -> list[_Item]:
        """Return the items of all processes, in the order of their ranks, in every process.

        Raises:
            SpreadError: another process has ended.
        """
        if self.links is None:
            return list(items)
        parts: list[Any] = [None] * self.size
        try:
            torch.distributed.all_gather_object(parts, list(items), group=self.links.group)
        except RuntimeError as error:
            if self.links.launcher is not None:
                time.sleep(1.0)  # Until the launcher has read why that process ended.
            raise SpreadError(
                f"Another of the {self.size} processes ended before the work was done; "
                "its own message says why."
            ) from error
        return [item for part in parts for item in part]

    def agree(self, what: str, value: object) -> None:
        """Make sure that all processes have the same ``value``.

        Raises:
            SettingError: they differ, so that the parts would not make a whole.
        """
        others = [rank for rank, theirs in enumerate(self.gather([value])) if theirs != value]
        if others:
            raise SettingError(
                f"The processes of the job don't have the same {what}: processes {self.rank + 1} and "
                f"{others[0] + 1} of {self.size} differ. Start all with one command, on folders that all "
                "nodes share."
            )

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.gather([])

    @contextmanager
    def folder(self, path: Path, *, command: str, force: bool = False) -> Iterator[Path]:
        """Yield one `new_folder` for all processes, which the first makes, and moves when all are done.

        Raises:
            OutputExistsError: ``path`` holds something and ``force`` is not given.
        """
        if not self.first:
            yield self.gather([])[0]
            self.wait()
        else:
            with new_folder(path, command=command, force=force) as folder:
                try:
                    self.gather([folder])
                    yield folder
                    self.wait()
                except BaseException:
                    # Before the folder is removed, nobody must write into it any more.
                    if self.links is not None and self.links.launcher is not None:
                        self.links.launcher.stop()
                    raise
        self.wait()


ALONE = Share()
"""The share of the only process: the whole job."""


@checked
@contextmanager
def spread(*, devices: int = 1, num_nodes: int = 1, device: str = "auto") -> Iterator[Share]:
    """Yield this process's `Share` of a job over ``devices`` on each of ``num_nodes``.

    ::

        with seglens.spread(devices=2) as share:
            run = seglens.load("runs/pets", device=share.device)
            found = seglens.evaluate(run, seglens.open_split(run), share=share)
        print(found.pooled)      # by the first process only: the others end with the block

    Unless torchrun, SLURM or the like have started all processes, this starts the others of this node, by
    the command that started the program itself; so there can be one such block in a program. With ``device``
    ``auto`` they compute on the GPUs, one each, and on a machine without on the CPU. An error in one ends
    all, and is raised in the first.

    Raises:
        SettingError: a number is not allowed, there are fewer GPUs, the program can't be started again (a
            notebook), or the starter made another number of processes.
        SpreadError: a process was lost, or they didn't find one another.
    """
    refuse_lone_node(num_nodes)
    size = devices * num_nodes
    if size == 1:
        _refuse_torchrun()
        yield Share(device=device)
        return
    kind = kind_of_devices(device, devices)
    with empty_input(), environment_kept(), ended_by_signals(), reporting() as ready:
        fabric, environment = _fabric(kind, devices, num_nodes)
        launcher = None
        if not environment.creates_processes_externally:
            command = same_command()
            os.environ |= _addresses(environment, size)
            others = [os.environ | {"LOCAL_RANK": str(rank)} for rank in range(1, devices)]
            os.environ["LOCAL_RANK"] = "0"
            launcher = Launcher(command, others, size)
        with launcher or nullcontext():
            if launcher is not None:
                launcher.barrier()
            ready()
            try:
                yield _join(fabric, size, launcher)
            finally:
                if torch.distributed.is_initialized():
                    torch.distributed.destroy_process_group()
            rank = fabric.global_rank
    if rank:
        raise SystemExit(0)


def kind_of_devices(device: str, devices: int) -> str:
    """Return on what kind of device to compute: ``cuda`` or ``cpu``.

    Raises:
        SettingError: there are fewer than ``devices`` of them, or one of them is named.
    """
    if ":" in device:
        raise SettingError(
            f"The devices of a job can't all be {device!r}. Name the kind: {device.split(':')[0]!r}."
        )
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingError(f"{devices} GPUs were asked for, but there is none here. Choose the device 'cpu'.")
    kind = choose_device(device).type
    num = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, max(os.cpu_count() or 1, LEAST))
    if num < devices:
        raise SettingError(
            f"{devices} devices were asked for, but there {'is' if num == 1 else 'are'} {num} of the kind "
            f"{kind!r} here. Ask for at most {num}, or choose the device 'cpu'."
        )
    return kind


def _fabric(kind: str, devices: int, num_nodes: int) -> "tuple[Fabric, ClusterEnvironment]":
    """Let Lightning detect what has started the processes.

    Raises:
        SettingError: they are not those asked for.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)  # or it announces the processes that it counts
    strategy = DDPStrategy(process_group_backend="gloo", timeout=START_TIMEOUT)
    try:
        fabric = Fabric(accelerator=kind, devices=devices, num_nodes=num_nodes, strategy=strategy)
        environment = strategy.cluster_environment
        assert environment is not None
        environment.validate_settings(devices, num_nodes)
    except (
        ValueError,
        RuntimeError,
    ) as error:  # how Lightning says that SLURM or torchrun were asked otherwise
        raise SettingError(
            f"The processes that were started are not {devices} on each of {num_nodes} nodes. {error} Give "
            "--devices the number of processes on a node, and --num-nodes that of the nodes."
        ) from error
    return fabric, environment


def refuse_lone_node(num_nodes: int, patience: timedelta = START_TIMEOUT) -> None:
    """Raise where other nodes take part but no address is set: the job would wait for ever.

    Otherwise print what is waited for, and until when: ``patience`` from now.

    Raises:
        SettingError: it is so.
    """
    if num_nodes == 1:
        return
    from lightning.fabric.plugins.environments.lsf import LSFEnvironment
    from lightning.fabric.plugins.environments.mpi import MPIEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    clusters = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if missing and not any(cluster.detect() for cluster in clusters):
        raise SettingError(
            f"A job on {num_nodes} nodes must be started on each of them: by torchrun, by SLURM's srun, or "
            f"by hand with {', '.join(missing)} in the environment."
        )
    if int(os.environ.get("LOCAL_RANK", 0)) == 0 and STARTED not in os.environ:
        where = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT") if name in os.environ)
        hours, minutes = divmod(int(patience.total_seconds()) // 60, 60)
        print(
            f"Waiting for the processes of {num_nodes} nodes{f' at {where}' if where else ''}, for at most "
            f"{f'{hours} hours' if hours else f'{minutes} minutes'}, until "
            f"{datetime.now() + patience:%Y-%m-%d %H:%M}. Start the same command on each.",
            file=sys.stderr,
        )


def _addresses(environment: "ClusterEnvironment", size: int) -> dict[str, str]:
    """Return the environment variables that tell the processes started here where the first one listens."""
    return {
        "MASTER_ADDR": environment.main_address,
        "MASTER_PORT": str(environment.main_port),
        "NODE_RANK": str(environment.node_rank()),
        "WORLD_SIZE": str(size),
    }


def _join(fabric: "Fabric", size: int, launcher: Launcher | None) -> Share:
    """Meet the other processes and return this one's share.

    Raises:
        SpreadError: not all of them came.
    """
    try:
        fabric.launch()
        # The limit for the start is short; that for finishing a share of the work is long.
        group = torch.distributed.new_group(timeout=FINISH_TIMEOUT)
    except RuntimeError as error:
        raise SpreadError(
            f"Not all {size} processes of the job found one another within "
            f"{START_TIMEOUT.seconds // 60} minutes: {str(error).splitlines()[0]} On every node the same "
            "command must be started, under SLURM by srun."
        ) from error
    return Share(fabric.global_rank, size, str(fabric.device), _Links(group, launcher))


def _refuse_torchrun() -> None:
    """Raise where torchrun has started several processes, each of which would do the whole job."""
    num = int(os.environ.get("WORLD_SIZE", 1)) if torch.distributed.is_torchelastic_launched() else 1
    if num > 1:
        raise SettingError(
            f"torchrun has started {num} processes, but the job is for 1 device. Give --devices the number "
            "of processes on a node (torchrun's --nproc-per-node), and --num-nodes that of the nodes."
        )


make_callable(__name__)
