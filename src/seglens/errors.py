"""Every error that Seglens raises on purpose.

::

    SeglensError
    ├── UserError                 a user's fault: one line, exit code 2
    │   ├── DataError             a file or folder that can't be used as it is
    │   │   ├── SizeMismatchError   a mask that is not of the size of its picture
    │   │   └── MaskValueError      a mask with values that mean nothing
    │   ├── UnknownNameError      no such model, layer, method, target, layout, class...
    │   ├── SettingError          a value outside of what is allowed
    │   ├── OutputExistsError     results are never overwritten silently
    │   │   └── OutputBusyError     another process writes there
    │   ├── CheckpointError       weights that are missing, unsafe or don't fit
    │   └── ModelError            a model that can't be traced or run as asked
    │       └── NonFiniteError      its answer holds NaN or infinity
    ├── TrainingError             training could not go on (a loss that is not finite...)
    ├── NoMemoryError             memory doesn't suffice for a single picture
    └── SpreadError               one of the processes of a job was lost

A ``SeglensWarning`` says what was done to an input (8-bit pictures are divided by 255).

A message says what was wrong, the value received, what is allowed, and what to do.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class SeglensError(Exception):
    """Root of all errors raised on purpose."""


class UserError(SeglensError):
    """Something that the user can mend; the command ends with exit code 2."""


class DataError(UserError):
    """A file or folder that can't be used as it is."""


class SizeMismatchError(DataError):
    """A mask, or an outline, that is not of the size of its picture."""


class MaskValueError(DataError):
    """A mask with values that stand for no class."""


class UnknownNameError(UserError):
    """A name that is not in the dict that it was looked up in."""


class SettingError(UserError):
    """A value outside of what is allowed."""


class OutputExistsError(UserError):
    """An output that is already there, and no leave to replace it."""


class OutputBusyError(OutputExistsError):
    """An output that another process is writing."""


class CheckpointError(UserError):
    """Weights that are missing, unsafe to load, or that don't fit the model."""


class ModelError(UserError):
    """A model that can't be run or traced as asked."""


class NonFiniteError(ModelError):
    """An answer of a model that holds NaN or infinity; ``rows`` are its pictures in the batch."""

    def __init__(self, rows: Sequence[int], names: Sequence[str] = ()) -> None:
        self.rows: tuple[int, ...] = tuple(rows)
        named = [repr(names[row]) if names else str(row) for row in self.rows]
        which = ("picture " if names else "picture number ") + ", ".join(named[:5])
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        super().__init__(
            f"The model's answer to {which}{more} is not finite (NaN or infinity): no mask is made of "
            "it. Check the picture's values, and the model's weights, mean and std."
        )


class SeglensWarning(UserWarning):
    """Something was done to what was given that its user should know; nothing is wrong."""


class TrainingError(SeglensError):
    """Training could not go on; what had been saved is intact."""


class NoMemoryError(SeglensError, MemoryError):
    """Memory doesn't suffice, not even for a single picture at a time."""


class SpreadError(SeglensError):
    """One of the processes of a job over several devices was lost, or failed unexpectedly."""


def unknown_name(kind: str, name: str, allowed: Iterable[str], meant: str | None = None) -> UnknownNameError:
    """Build the error for a name not in ``allowed``, with the one that is ``meant``, or the nearest."""
    names = [str(entry) for entry in allowed]
    nearest = [meant] if meant else get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    shown = ", ".join(names[:40]) + (f", ... ({len(names)} in all)" if len(names) > 40 else "")
    return UnknownNameError(f"Unknown {kind} {name!r}.{hint} Allowed: {shown or '(none)'}.")
