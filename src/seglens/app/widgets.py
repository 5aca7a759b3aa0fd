"""What is on the page: everything that is read or written, by name."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Widgets:
    """Everything on the page that is read or written."""

    seen: Any
    message: Any
    sample: Any
    upload: Any
    about: Any
    target: Any
    method: Any
    layer: Any
    class_name: Any
    against: Any
    where: Any
    baseline: Any
    again: Any
    picture: Any
    map: Any
    evidence: Any
    told: Any
    sheet: Any
    raw: Any
    brush: Any
    imputer: Any
    removed: Any
    changed: Any

    @property
    def question(self) -> list[Any]:
        """What a question is read from, in the order of `Wires.ask`."""
        return [
            self.seen,
            self.target,
            self.method,
            self.layer,
            self.class_name,
            self.against,
            self.where,
            self.baseline,
        ]

    @property
    def answer(self) -> list[Any]:
        """What a question may change."""
        return [
            self.seen,
            self.message,
            self.target,
            self.class_name,
            self.map,
            self.evidence,
            self.told,
            self.sheet,
            self.raw,
        ]

    @property
    def view(self) -> list[Any]:
        """What another picture changes."""
        return [*self.answer, self.picture, self.about, self.brush, self.removed, self.changed]
