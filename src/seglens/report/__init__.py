"""The report: one HTML file that opens anywhere, from what commands left in run folders. Needs no torch."""

from collections.abc import Sequence
from pathlib import Path

from seglens import callable_module
from seglens.arguments import checked
from seglens.files import output
from seglens.files.overwrite import check_file
from seglens.report import html
from seglens.report.contents import RunPart, read_runs
from seglens.results.scorecard import TagTest
from seglens.results.tables import read_table

FILE_NAME = "report.html"
SHORTCUT = "shortcut.json"


@checked
def report(
    runs: Sequence[Path | str],
    *,
    out: str | Path | None = None,
    shortcut: str | Path | None = None,
    force: bool = False,
) -> Path:
    """Write one offline HTML report of one or several run folders, and return where it is.

    A run folder is one of ``train`` or ``adopt`` with whatever ``evaluate``, ``explain`` and ``judge`` left
    in it; the folder of one such result does too. Several runs are shown side by side. The page brings its
    pictures, style and script along, asks the network for nothing, and stays below 15 MB.

    Args:
        runs: run folders, at least one.
        out: the file to write; ``report.html`` in the first run by default.
        shortcut: the ``shortcut.json`` of a planted-shortcut check, which becomes a section of its own.
        force: replace a report that is there.

    Raises:
        SettingError: no run was given, or one was given twice.
        DataError: a folder is no run, or a table in it is damaged.
        OutputExistsError: the file exists and ``force`` is not given.
    """
    folders = [Path(folder) for folder in runs]
    contents = read_runs(folders)
    file = Path(out) if out is not None else folders[0] / FILE_NAME
    tables = [Path(shortcut)] if shortcut is not None else []
    check_file(file, force=force, runs=folders, files=tables)
    checked = _shortcut(Path(shortcut)) if shortcut is not None else None
    page = html.render(contents, checked, beside=file.resolve().parent)
    with output.output_file(file, force=force) as temporary:
        html.write_html(page, temporary)
    return file


def _shortcut(file: Path) -> RunPart[TagTest]:
    table = file / SHORTCUT if file.is_dir() else file
    return RunPart("shortcut", table, read_table(table, TagTest))


callable_module.make_callable(__name__)
