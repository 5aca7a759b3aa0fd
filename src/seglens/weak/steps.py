"""Steps that are done once: the time and the findings of each are kept, and the time left is estimated."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from seglens.errors import DataError
from seglens.results import record as records

FILE_NAME = "steps.json"

Facts = dict[str, Any]


@dataclass
class Steps:
    """The steps of a job in ``folder``, in the order in which they were done.

    ``planned`` are the kinds of the steps that there will be at most, in order, for what is said on standard
    error; the kind of a step is what follows the colon in its name, or ``score``.
    """

    folder: Path
    planned: tuple[str, ...]
    done: dict[str, Facts] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, planned: tuple[str, ...]) -> "Steps":
        """Return the steps that ``folder`` knows to be done; none in a new one."""
        file = folder / FILE_NAME
        try:
            done = json.loads(file.read_bytes()) if file.is_file() else {}
            whole = all(isinstance(facts["seconds"] + facts["took"], float | int) for facts in done.values())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            whole = False
        if not whole:
            raise DataError(
                f"{file} is damaged, so that the list of finished steps is lost. Delete it to go on with the "
                "results that are there, or start again with --force and without --resume."
            )
        return cls(folder, planned, done)

    def take(self, name: str, work: Callable[[], Facts]) -> Facts:
        """Run ``work`` unless the step ``name`` was done before; return what it found, with its ``seconds``.

        A step that knows its own ``seconds`` (because it went on where it had been interrupted) keeps them.
        ``took`` are those of this call, and ``processor_seconds`` those in which this process computed in it.
        """
        if name in self.done:
            return self.done[name]
        print(f"[{len(self.done) + 1}/{len(self.planned)}] {name}{self._left()}", file=sys.stderr)
        began, computing = time.monotonic(), time.process_time()
        found = work()
        took = round(time.monotonic() - began, 3)
        computed = round(time.process_time() - computing, 3)
        self.done[name] = {"seconds": took, "took": took, "processor_seconds": computed} | found
        records.write_json(self.folder / FILE_NAME, self.done)
        return self.done[name]

    def _left(self) -> str:
        """Return in words the time that is left: a step takes as long as those of its kind took so far.

        Kinds that were not done yet are not counted.
        """
        known: dict[str, list[float]] = {}
        for name, facts in self.done.items():
            known.setdefault(kind_of(name), []).append(facts["took"])
        to_come = list(self.planned)
        for name in self.done:
            if kind_of(name) in to_come:
                to_come.remove(kind_of(name))
        seconds = [mean(known[kind]) for kind in to_come if kind in known]
        if sum(seconds) < 60:
            return ""
        least = "" if len(seconds) == len(to_come) else "at least "
        return f" ({least}{sum(seconds) / 60:.0f} min left)"


def kind_of(name: str) -> str:
    """Return the kind of a step: ``student`` of ``round 1: student``, ``score`` of ``score: heat``."""
    return "score" if name.startswith("score: ") else name.rpartition(": ")[2]
