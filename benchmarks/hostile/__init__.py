"""Hostile cases: what people, disks and other programs do to Seglens, and the outcomes that are allowed.

    python -m benchmarks.hostile [--area force streams ...] [--only WORD] [--write]

A case is a row: how to spoil a small world (`world.py`), a command line, and what may come of it. It is run
in a process of its own, with limits on time and memory. To add cases, append to a table of an area, or add a
file with a function that returns `Case`s and name it in `AREAS` of `__main__.py`.

Whatever a row allows, these are faults in every case: a line with "Unexpected", a trace, death by a signal,
more than `SECONDS` or `MEMORY`, a file of the world that has changed or gone (but those that ``may_change``
names), and what is half written left behind.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS, MEMORY = 120, 6 << 30

Spoil = Callable[[Path], None]
Check = Callable[[Path, str], str]


@dataclass(frozen=True)
class Case:
    """A hostile case. ``command`` is typed in the world's folder, words apart by blanks or one by one.

    ``codes`` are the exit codes that are allowed; ``says`` is a regular expression that standard error must
    match where the code is not 0. ``check`` gets the world and standard output, and returns what is wrong, or
    nothing. ``may_change`` are the files of the world that the command is meant to write. ``shell`` is a line
    for ``sh`` instead, in which ``$S`` is the command (for streams and signals).
    """

    area: str
    name: str
    command: str | tuple[str, ...] = ""
    codes: tuple[int, ...] = (2,)
    says: str = ""
    spoil: Spoil | None = None
    check: Check | None = None
    may_change: tuple[str, ...] = ()
    shell: str = ""
