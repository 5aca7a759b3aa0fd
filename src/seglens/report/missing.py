"""The parts that a report lacks, and the commands that add them."""

import shlex
from dataclasses import dataclass

from seglens.report.contents import TABLES, RunContents

ERRORS = ("false-negative", "false-positive")


@dataclass(frozen=True)
class Missing:
    """A part that ``command`` would add to the report."""

    what: str
    command: str


def missing(run: RunContents) -> list[Missing]:
    """Return what the report of a run lacks, in the order in which the commands are used."""
    if run.record.kind in TABLES:
        return []
    folder, found = shlex.quote(str(run.folder)), []
    explained = bool(run.explanations)
    with_pictures = any(row.files for part in run.evaluations for row in part.table.images)
    if not run.evaluations:
        found.append(
            Missing(
                "Scores with intervals, calibration, and the worst pictures",
                f"seglens evaluate {folder} --save-images",
            )
        )
    elif not explained and not with_pictures:
        found.append(Missing("A gallery of all pictures", f"seglens evaluate {folder} --save-images --force"))
    if not explained:
        found.append(
            Missing(
                "Heat maps, and the reasons for its errors",
                f"seglens explain {folder} --num-images 24 --target predicted {' '.join(ERRORS)}",
            )
        )
    elif not any(target in ERRORS for part in run.explanations for target in part.table.targets):
        found.append(
            Missing(
                "The reasons for its errors",
                f"seglens explain {folder} --num-images 24 --target {' '.join(ERRORS)} "
                f"--out {shlex.quote(str(run.folder / 'explain' / 'errors'))}",
            )
        )
    if not run.scorecards:
        found.append(
            Missing(
                "A test of whether you can believe the heat maps", f"seglens judge {folder} --num-images 100"
            )
        )
    if not any(part.audit for part in run.scorecards):
        found.append(
            Missing(
                "A test of whether it reads borders, corners or marks",
                f"seglens judge {folder} --num-images 100 --audit border corners marks "
                f"--out {shlex.quote(str(run.folder / 'judge' / 'audit'))}",
            )
        )
    return found
