"""``--force``, and places that are read and written at once: whose files go, and whose never do."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.hostile import Case
from benchmarks.hostile.world import CPU, SMALL

NEVER = (
    r"never replaced|never written over|which this command reads|lies in the data|"
    r"doesn't replace|is no folder"
)

WRITING = {
    "evaluate": f"evaluate run {CPU} --out",
    "explain": f"explain run --split test --num-images 2 --layers encoder_last {CPU} --out",
    "judge": f"judge run --num-images 2 --scores attention --layers encoder_last {CPU} --out",
    "predict": f"predict run set/test/images/test-0.png {CPU} --out",
    "compare": "compare run results/trained --out",
    "adopt": "adopt run/model.safetensors --width 4 --image-size 32 --run",
    "train": f"train set --epochs 1 --logger none {SMALL} --run",
    "weak": f"weak set --epochs 1 --student unet --rounds 0 {SMALL} --run",
    "demo": "demo --out",
    "get": "data get dsb2018",
}
"""Commands that make a folder, up to its name."""

PAGES = {"report": "report run --out", "show": "data show set --num-images 2 --image-size 64 --out"}
"""Commands that make a file, up to its name."""

READS_RUN = ("evaluate", "explain", "judge", "predict", "compare", "adopt")
READS_SET = ("evaluate", "explain", "judge", "predict", "train", "weak")


def cases() -> list[Case]:
    """Return all cases of the two areas."""
    return [*_folders(), *_overlaps(), *_pages(), *_ours(), *_added(), *_kinds()]


def _folders() -> Iterator[Case]:
    """A place that holds anything of the user's is refused by every command, forced or not."""
    for command, line in WRITING.items():
        for place in ("photos", "photos/holiday", "page.html", ".", "..", "results"):
            for force in ("", " --force"):
                yield Case("force", f"{command} into {place}{force}", f"{line} {place}{force}", says=NEVER)
        yield Case("force", f"{command} into a link", f"{line} link --force", says="is a link", spoil=_link)
        yield Case("force", f"{command} below a file", f"{line} page.html/x", says="is no folder")
        yield Case("force", f"{command} into a long name", f"{line} {'x' * 300}", says="bytes long")


def _overlaps() -> Iterator[Case]:
    """What is read is never written over, nor changed by what is written into it."""
    for command in READS_RUN:
        for place in ("run", "set" if command in READS_SET else "run"):
            yield Case(
                "overlap", f"{command} over {place}", f"{WRITING[command]} {place} --force", says=NEVER
            )
    for command in READS_SET:
        for place in ("set", "set/test", "set/new", "set/test/images"):
            line = f"{WRITING[command]} {place} --force"
            yield Case("overlap", f"{command} over {place}", line, says=NEVER)
    for place in ("photos", "photos/holiday", "."):
        line = f"predict run photos/my-test-0.png photos/holiday/sea-test-1.png {CPU} --force --out {place}"
        yield Case("overlap", f"predict pictures of {place} over it", line, says=NEVER)
    yield Case("overlap", "train again over itself", "train --repeat run --run run --force", says=NEVER)


def _pages() -> Iterator[Case]:
    for command, line in PAGES.items():
        for place in (
            "page.html",
            "run/run.json",
            "run",
            "photos/notes.txt",
            "set/test/images/test-0.png",
            ".",
        ):
            for force in ("", " --force"):
                yield Case("force", f"{command} as {place}{force}", f"{line} {place}{force}", says=NEVER)
    made = "exists already. Name another place, or replace it with --force"
    for command, place in (("report", "results/page.html"), ("show", "results/set.png")):
        yield Case("force", f"{command} again", f"{PAGES[command]} {place}", says=made)
        yield Case(
            "force",
            f"{command} again by force",
            f"{PAGES[command]} {place} --force",
            (0,),
            may_change=(place,),
        )


MADE = {
    "evaluate": "results/evaluate",
    "explain": "results/explain",
    "judge": "results/judge",
    "predict": "results/predict",
    "adopt": "results/adopted",
    "train": "results/trained",
}


def _ours() -> Iterator[Case]:
    """What Seglens made is replaced by force, and only then."""
    for command, place in MADE.items():
        line = f"{WRITING[command]} {place}"
        yield Case("force", f"{command} again", line, says="replace it with --force")
        yield Case("force", f"{command} again by force", f"{line} --force", (0,), may_change=(f"{place}/",))


def _added() -> Iterator[Case]:
    """A file that the user added to what Seglens made is kept, whatever it is called."""
    for command, place in MADE.items():
        for name in (
            "notes.md",
            ".hidden",
            "samples/mine.png",
            "run.json.bak",
            "old/run.json",
            "report.html",
        ):

            def add(world: Path, file: str = f"{place}/{name}") -> None:
                (world / file).parent.mkdir(exist_ok=True)
                (world / file).write_text("mine")

            line = f"{WRITING[command]} {place} --force"
            yield Case("force", f"{command} over an added {name}", line, says=NEVER, spoil=add)


def _kinds() -> Iterator[Case]:
    """A result is not replaced by a run, nor a run by a result."""
    for command in ("evaluate", "explain", "judge", "predict"):
        line = f"{WRITING[command]} results/trained --force"
        yield Case("force", f"{command} over a run", line, says=NEVER)
    for command in ("train", "adopt"):
        line = f"{WRITING[command]} results/evaluate --force"
        yield Case("force", f"{command} over a result", line, says=NEVER)


def _link(world: Path) -> None:
    (world / "link").symlink_to(world / "photos")
