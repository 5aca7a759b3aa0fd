"""Steps that are done once: what each took and found, kept beside the results, and the time that is left."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seglens import record as records

FILE_NAME = "steps.json"

Facts = dict[str, Any]


@dataclass
class Steps:
    """The steps of a job in ``folder``, in the order in which they were done.

    ``planned`` is how many there will be at most, for what is said on standard error.
    """

    folder: Path
    planned: int
    done: dict[str, Facts] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, planned: int) -> "Steps":
        """Return the steps that ``folder`` knows to be done; none in a new one."""
        file = folder / FILE_NAME
        done = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return cls(folder, planned, done)

    def take(self, name: str, work: Callable[[], Facts]) -> Facts:
        """Do ``work`` unless the step ``name`` was done before; return what it found, with its ``seconds``.

        A step that knows its own ``seconds`` (because it went on where it had been interrupted) keeps them.
        """
        if name in self.done:
            return self.done[name]
        print(f"[{len(self.done) + 1}/{self.planned}] {name}{self._left()}", file=sys.stderr)
        began = time.monotonic()
        found = work()
        self.done[name] = {"seconds": round(time.monotonic() - began, 3)} | found
        records.write_json(self.folder / FILE_NAME, self.done)
        return self.done[name]

    def _left(self) -> str:
        """Return in words the time that is left: steps to come take as long as those so far, on average."""
        known = [facts["seconds"] for facts in self.done.values()]
        if not known:
            return ""
        minutes = (self.planned - len(self.done)) * sum(known) / len(known) / 60
        return f" (about {minutes:.0f} min left at most)" if minutes >= 1 else ""
