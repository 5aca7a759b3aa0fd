"""Closed and full streams, names that are no text, and signals at every moment."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.hostile import Case
from benchmarks.hostile.world import CPU

COMMANDS = {
    "version": "--version",
    "help": "--help",
    "layers": "layers run",
    "evaluate": f"evaluate run {CPU} --out new",
    "check": "data check set",
    "report": "report run --out new.html",
}


def cases() -> list[Case]:
    """Return all cases of the two areas."""
    return [*_streams(), *_names(), *_signals(), *_two()]


def _streams() -> Iterator[Case]:
    for command, line in COMMANDS.items():
        for how, redirect in (
            ("stdin", "<&-"),
            ("stdout", ">&-"),
            ("stderr", "2>&-"),
            ("all", "<&- >&- 2>&-"),
        ):
            yield Case("streams", f"{command}, {how} closed", codes=(0,), shell=f"$S {line} {redirect}")
    for command in ("layers", "help"):
        line = f"$S {COMMANDS[command]} >/dev/full"
        yield Case("streams", f"{command}, stdout full", codes=(1,), says="No space left", shell=line)
        yield Case("streams", f"{command}, nobody reads", codes=(0,), shell=f"$S {COMMANDS[command]} | true")


def _names() -> Iterator[Case]:
    odd = {
        "Latin-1": b"caf\xe9",
        "CJK": "細胞".encode() * 40,
        "newline": b"a\nb",
        "escape": b"a\x1b[31mb",
        "dash": b"-x",
    }
    for how, name in odd.items():

        def rename(world: Path, name: bytes = name) -> None:
            import os

            os.rename(
                world / "photos/my-test-0.png", os.fsencode(world / "photos") + b"/" + name[:200] + b".png"
            )

        for command, line in (("predict", "predict"), ("explain", "explain")):
            words = f"$S {line} run {CPU} --out new -- photos/holiday/sea-test-1.png photos/*.png"
            codes = (0, 1) if command == "explain" else (0,)
            check = _has_masks if command == "predict" else None
            yield Case(
                "streams",
                f"{command}, a name with {how}",
                codes=codes,
                shell=words,
                spoil=rename,
                check=check,
                may_change=("photos/my-test-0.png",),
            )

        def rename_set(world: Path, name: bytes = name) -> None:
            import os

            for kind in ("images", "masks"):
                place = os.fsencode(world / "set/test" / kind)
                os.rename(place + b"/test-0.png", place + b"/" + name[:200] + b".png")

        changed = ("set/test/",)
        yield Case(
            "streams",
            f"evaluate, a name with {how}",
            COMMANDS["evaluate"],
            (0, 2),
            spoil=rename_set,
            may_change=changed,
        )


def _has_masks(world: Path, out: str) -> str:
    num = len(list((world / "new/masks").glob("*.png")))
    return "" if num == 4 else f"{num} of 4 masks"


def _signals() -> Iterator[Case]:
    working = {
        "evaluate": f"evaluate run {CPU} --save-images --out new",
        "explain": f"explain run --split test --layers encoder_last {CPU} --out new",
        "judge": f"judge run --scores attention faithfulness --layers encoder_last {CPU} --out new",
        "predict": f"predict run set/test/images/test-0.png {CPU} --out new",
        "train": f"train set --epochs 3 --width 4 --image-size 32 {CPU} --logger none --run new",
    }
    for command, line in working.items():
        for signal, code in (("TERM", 143), ("INT", 130), ("HUP", 129)):
            for seconds in ("0.02", "0.3", "4"):
                # A process that a shell starts with & ignores Ctrl-C; Python gives it back.
                start = (
                    "import os,signal,sys;signal.signal(signal.SIGINT,signal.default_int_handler);"
                    "os.execvp(sys.argv[1],sys.argv[1:])"
                )
                shell = f"python3 -c '{start}' $S {line} & P=$!; sleep {seconds}; kill -{signal} $P; wait $P"
                codes = (code, 0, {"TERM": -15, "INT": -2, "HUP": -1}[signal])
                yield Case(
                    "signals",
                    f"{command}, {signal} after {seconds} s",
                    codes=codes,
                    shell=shell,
                    may_change=("new",),
                )


def _two() -> Iterator[Case]:
    """The second command on one output is told so; the first one ends as if it were alone."""
    for command in ("evaluate", "report", "train", "explain", "judge"):
        line = {
            "evaluate": f"evaluate run {CPU} --out new",
            "explain": f"explain run --split test --layers encoder_last {CPU} --out new",
            "judge": f"judge run --scores attention --layers encoder_last {CPU} --out new",
            "report": "report run --out new.html",
            "train": f"train set --epochs 1 --width 4 --image-size 32 {CPU} --logger none --run new",
        }[command]
        both = f"$S {line} & A=$!; $S {line} & B=$!; wait $A; A=$?; wait $B; B=$?"
        shell = f"{both}; test $A -eq 0 -o $B -eq 0 && exit $((A + B))"
        yield Case(
            "signals",
            f"{command} twice at once",
            codes=(2,),
            says="exists already|another command",
            shell=shell,
        )
