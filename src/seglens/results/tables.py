"""The base of all result types: how their files are read and written."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from seglens.errors import DataError
from seglens.files.output import table_cell

Number = float | None
"""A number of a table; None where there is none: JSON can't say NaN."""


class Result(BaseModel):
    """A result, or a part of one, under the names that it has in its file.

    What a file of an older version lacks has its default, what other versions know besides is kept.
    ``row["dice"]`` is ``row.dice``, so that rows read as the tables that they become.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="allow", strict=True, protected_namespaces=(), arbitrary_types_allowed=True
    )

    def __getitem__(self, name: str) -> Any:
        """Return the field called ``name``."""
        if name not in self.model_fields_set and name not in type(self).model_fields:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        """Whether a value was given under ``name``."""
        return name in self.model_fields_set

    def plain(self) -> dict[str, object]:
        """Return what was given as plain data, the contents of the file."""
        return self.model_dump(mode="json", exclude_unset=True)


Kind = TypeVar("Kind", bound=Result)


def read_table(file: Path, kind: type[Kind]) -> Kind:
    """Read a result of which ``kind`` says what stands in it.

    Raises:
        DataError: the file is missing, is not JSON, or a value in it is not what Seglens writes there.
    """
    try:
        content = file.read_bytes()
        table = json.loads(content)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {file}. Make it with the command that writes it.") from error
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}). Make it again with --force.") from error
    except RecursionError as error:
        raise DataError(f"{file} is nested too deep to be a table. Make it again with --force.") from error
    if not isinstance(table, dict):
        raise DataError(f"{file} holds a {type(table).__name__}, not an object. Make it again with --force.")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise DataError(
            f"{file} is damaged: {where!r} in it is not what Seglens writes there "
            f"({error.errors()[0]['msg']}). Make it again with --force."
        ) from error


def write_rows(rows: Sequence[Mapping[str, object]], file: Path) -> None:
    """Write rows as comma-separated values; what a row doesn't have, or isn't a number, is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if "error" in columns:
        columns.append(columns.pop(columns.index("error")))
    with file.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([table_cell(name) for name in columns])
        writer.writerows([table_cell(row.get(name)) for name in columns] for row in rows)
