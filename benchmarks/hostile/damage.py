"""Files that Seglens wrote itself, damaged: cut short, emptied, of another kind, or with other contents."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.hostile import Case, Spoil
from benchmarks.hostile.world import CPU, SMALL

NAMED = {
    "run.json": "run",
    "model.safetensors": "model",
    "checkpoint": "ckpt",
}


def cases() -> list[Case]:
    """Return all cases of the area."""
    return [*_records(), *_weights(), *_tables(), *_checkpoints(), *_resumed()]


def _cut(file: str) -> Spoil:
    def spoil(world: Path) -> None:
        data = (world / file).read_bytes()
        (world / file).write_bytes(data[: len(data) // 2])

    return spoil


def _put(file: str, data: bytes) -> Spoil:
    def spoil(world: Path) -> None:
        (world / file).parent.mkdir(parents=True, exist_ok=True)
        (world / file).write_bytes(data)

    return spoil


def _set(file: str, change: Callable[[dict], None]) -> Spoil:  # type: ignore[type-arg]
    def spoil(world: Path) -> None:
        table = json.loads((world / file).read_text())
        change(table)
        (world / file).write_text(json.dumps(table))

    return spoil


def _ways(file: str) -> dict[str, Spoil]:
    return {
        "cut": _cut(file),
        "empty": _put(file, b""),
        "zeros": _put(file, b"\0" * 4096),
        "a list": _put(file, b"[1, 2]"),
        "null": _put(file, b"null"),
        "an empty object": _put(file, b"{}"),
        "Latin-1": _put(file, '{"kind": "\xe9"}'.encode("latin-1")),
        "nested deep": _put(file, b"[" * 100000),
        "a picture": _put(file, b"\x89PNG\r\n\x1a\n" + b"\0" * 64),
    }


USING_RUN = {
    "evaluate": f"evaluate run {CPU} --out new",
    "layers": "layers run",
    "report": "report run --out new.html",
    "predict": f"predict run photos/my-test-0.png {CPU} --out new",
}


def _records() -> Iterator[Case]:
    for how, spoil in _ways("run/run.json").items():
        for command, line in USING_RUN.items():
            yield Case(
                "damaged",
                f"{command}, run.json {how}",
                line,
                says=r"run\.json",
                spoil=spoil,
                may_change=("run/run.json",),
            )
    changes: dict[str, Callable[[dict], object]] = {  # type: ignore[type-arg]
        "without a model": lambda table: table.update(model=None),
        "an unknown field": lambda table: table.update(surprise=1),
        "a model that is text": lambda table: table.update(model="unet"),
        "a task that is a list": lambda table: table.update(task=[]),
        "a palette that is text": lambda table: table["task"].update(palette="red"),
        "classes that are a number": lambda table: table["task"].update(classes=3),
        "an image size of 0": lambda table: table["model"].update(image_size=0),
        "a huge image size": lambda table: table["model"].update(image_size=10**12),
        "a width of 10^6": lambda table: table["model"].update(width=10**6),
        "a negative width": lambda table: table["model"].update(width=-4),
        "schema 7": lambda table: table.update(schema_number=7),
    }
    for how, change in changes.items():
        for command in ("evaluate", "layers"):
            spoil = _set("run/run.json", lambda table, change=change: change(table))  # type: ignore[misc]
            yield Case(
                "damaged",
                f"{command}, run.json with {how}",
                USING_RUN[command],
                (1, 2),
                spoil=spoil,
                may_change=("run/run.json",),
            )


def _weights() -> Iterator[Case]:
    for how, spoil in _ways("run/model.safetensors").items():
        for command in ("evaluate", "layers"):
            yield Case(
                "damaged",
                f"{command}, weights {how}",
                USING_RUN[command],
                says="safetensors",
                spoil=spoil,
                may_change=("run/model.safetensors",),
            )


SHOWN = {
    "evaluate/scores.json": "report results/evaluate --out new.html",
    "explain/explanations.json": "report results/explain --out new.html",
    "judge/scorecard.json": "report results/judge --out new.html",
}


def _tables() -> Iterator[Case]:
    for table, line in SHOWN.items():
        file = f"results/{table}"
        for how, spoil in _ways(file).items():
            yield Case(
                "damaged",
                f"report, {table} {how}",
                line,
                says=Path(table).stem,
                spoil=spoil,
                may_change=(file,),
            )
        for key in ("images", "samples", "summary", "rows", "pooled", "definitions"):
            for value in (None, 7, "text", [1], {"a": 1}):

                def change(found: dict, key: str = key, value: object = value) -> None:  # type: ignore[type-arg]
                    found[key] = value

                yield Case(
                    "damaged",
                    f"report, {key} of {table} is {value!r}",
                    line,
                    (0, 2),
                    spoil=_set(file, change),
                    may_change=(file,),
                )
    for how, spoil in _ways("results/trained/history.csv").items():
        yield Case(
            "damaged",
            f"report, history.csv {how}",
            "report results/trained --out new.html",
            (0, 2),
            spoil=spoil,
            may_change=("results/trained/history.csv",),
        )


RESUMED = f"train set --epochs 2 --logger none {SMALL} --run results/stopped --resume"


def _stopped(world: Path) -> None:
    """Make of the training that has ended one that stopped after its first epoch."""
    (world / "results/trained").rename(world / "results/stopped")
    file = world / "results/stopped/run.json"
    record = json.loads(file.read_text())
    record["state"], record["settings"]["epochs"], record["files"] = "running", 2, []
    file.write_text(json.dumps(record))
    (world / "results/stopped/model.safetensors").unlink()


def _checkpoints() -> Iterator[Case]:
    kept = ("results/trained", "results/stopped")
    yield Case("damaged", "resume as it should be", RESUMED, (0,), spoil=_stopped, may_change=kept)
    for how, spoil in _ways("results/stopped/checkpoints/last.ckpt").items():

        def both(world: Path, spoil: Spoil = spoil) -> None:
            _stopped(world)
            spoil(world)

        yield Case(
            "damaged", f"resume, last.ckpt {how}", RESUMED, says=r"last\.ckpt", spoil=both, may_change=kept
        )


EXPLAINED = f"explain run --split test --layers encoder_last {CPU} --out new --resume"


def _half_explained(world: Path) -> None:
    """Leave an explanation of which a chunk is done, as a kill does."""
    (world / "results/explain").rename(world / ".new.partial")
    (world / ".new.partial/.done").mkdir()
    (world / ".new.partial/.done/settings.json").write_text("{}")
    (world / ".new.partial/.done/000000.json").write_text("{}")


def _resumed() -> Iterator[Case]:
    for how, spoil in _ways(".new.partial/.done/settings.json").items():

        def both(world: Path, spoil: Spoil = spoil) -> None:
            _half_explained(world)
            spoil(world)

        yield Case(
            "damaged",
            f"resume of explain, settings {how}",
            EXPLAINED,
            says="can't be resumed",
            spoil=both,
            may_change=("results/explain", ".new.partial"),
        )
