"""Start further processes of this program and watch them: an error in one is raised here, and all end.

The process that starts the others holds a `Launcher`; the others report to it (`reporting`). Needs no torch.
"""

import _thread
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock, Semaphore, Thread, main_thread
from types import TracebackType
from typing import Any

from seglens import errors
from seglens.errors import SeglensError, SettingError, SpreadError
from seglens.runtime.threads import refuse_without_room

STARTED = "SEGLENS_STARTED"
"""Environment variable of processes that a `Launcher` started."""

MARK = "\x1eseglens:"
"""The prefix of lines that are meant for the `Launcher`, among all that a process prints."""

KEPT = 400
"""Lines of a process's output that are kept, to be shown if it fails."""

EXIT_GRACE = 2.0
"""Seconds to wait for the last output of a process that has ended."""


class Launcher:
    """The processes that this one started, ``command`` once for each of ``environments``: a context.

    An error in one of them interrupts the block, and is raised at its end: an error of Seglens as it was,
    another one as a `SpreadError` that names it. However the block ends, none of them lives on. They read
    nothing, Ctrl-C doesn't reach them but through this process, and what they print is kept for the notes of
    the error. ``size`` is the number of processes of the whole job, which messages speak of.
    """

    command: list[str]
    environments: Sequence[Mapping[str, str]]
    size: int

    def __init__(self, command: Sequence[str], environments: Sequence[Mapping[str, str]], size: int) -> None:
        self.command, self.environments, self.size = list(command), environments, size
        self.failure: SeglensError | None = None
        self._processes: list[subprocess.Popen[str]] = []
        self._listeners: list[Thread] = []
        self._ready, self._lock = Semaphore(0), Lock()
        self._closing = self._stopped = False

    def __enter__(self) -> "Launcher":
        """Start the processes."""
        # Also where this program was started so that it ignores Ctrl-C, an error must interrupt it.
        self._on_interrupt = signal.getsignal(signal.SIGINT)
        if self._on_interrupt in (signal.SIG_IGN, signal.SIG_DFL, None):
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self._start()
        except BaseException:
            self.stop()
            signal.signal(signal.SIGINT, self._on_interrupt or signal.SIG_DFL)
            raise
        return self

    def _start(self) -> None:
        for number, environment in enumerate(self.environments):
            process = subprocess.Popen(
                self.command,
                env={**environment, STARTED: "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            listener = Thread(target=self._listen, args=(number, process), daemon=True)
            try:
                refuse_without_room()
                listener.start()
            except (
                RuntimeError,
                MemoryError,
            ) as error:  # no more threads: this process has nobody to stop it
                process.kill()
                process.wait()
                raise SpreadError(
                    f"Process {number + 2} of {self.size} could not be started: {error}. Take fewer devices."
                ) from error
            self._processes.append(process)
            self._listeners.append(listener)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all to end; after an error here, stop them.

        Raises:
            SeglensError: one of them failed.
        """
        try:
            if error is None:
                for listener in self._listeners:
                    listener.join()
        except KeyboardInterrupt as stopped:  # also of a process that ended just now
            error = stopped
        self.stop()
        signal.signal(signal.SIGINT, self._on_interrupt or signal.SIG_DFL)
        if self.failure is not None and (error is None or isinstance(error, KeyboardInterrupt | SpreadError)):
            raise self.failure from None
        if kind is None and error is not None:
            raise error

    def barrier(self) -> None:
        """Wait until every process is ready, or one has ended."""
        for _ in self._processes:
            self._ready.acquire()

    def stop(self) -> None:
        """Kill the processes that still run; read the last output of those that have ended."""
        with self._lock:
            self._closing = True
        for process, listener in zip(self._processes, self._listeners, strict=True):
            if process.poll() is not None:
                listener.join(EXIT_GRACE)
        with self._lock:
            self._stopped = True
        for process, listener in zip(self._processes, self._listeners, strict=True):
            process.kill()
            process.wait()
            listener.join(EXIT_GRACE)
            if process.stdin is not None:
                process.stdin.close()

    def _listen(self, number: int, process: subprocess.Popen[str]) -> None:
        """Read what a process prints until it ends (in a thread); interrupt the block if it failed."""
        assert process.stdout is not None
        printed: deque[str] = deque(maxlen=KEPT)
        last: dict[str, Any] = {}
        with process.stdout:
            for line in process.stdout:
                if line.startswith(MARK):
                    last = json.loads(line.removeprefix(MARK))
                    self._ready.release()
                else:
                    printed.append(line)
        code = process.wait()
        with self._lock:
            if last.get("state") != "done" and self.failure is None and not self._stopped:
                self.failure = _failure(f"Process {number + 2} of {self.size}", code, last, printed)
                if not self._closing:
                    _interrupt()
        self._ready.release()


@contextmanager
def reporting() -> Iterator[Callable[[], None]]:
    """Report to the `Launcher` how the block ends, and end this process when the one that started it ends.

    Yields a function that reports that this process is ready. Where no launcher started it, nothing happens.
    """
    if os.environ.pop(STARTED, None) is None:
        yield lambda: None
        return
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        yield lambda: _report(state="ready")
    except BaseException as error:
        _report(state="failed", kind=type(error).__name__, text=str(error))
        raise
    _report(state="done")


def same_command() -> list[str]:
    """Return the command that started this program.

    Raises:
        SettingError: it can't be started again, because it is a notebook or was typed in.
    """
    main = sys.modules["__main__"]
    if hasattr(sys, "ps1") or not (getattr(main, "__spec__", None) or os.path.isfile(sys.argv[0])):
        raise SettingError(
            "A notebook, or code that was typed in, can't be started again in further processes. Put it "
            "into a file, use the command line, or take one device."
        )
    spec = getattr(main, "__spec__", None)
    program = ["-m", spec.name] if spec is not None else [os.path.abspath(sys.argv[0])]
    return [sys.executable, *program, *sys.argv[1:]]


@contextmanager
def empty_input() -> Iterator[None]:
    """Make standard input empty: an answer typed into one process would not reach the others."""
    before = sys.stdin
    with open(os.devnull, encoding="utf-8") as nobody:
        sys.stdin = nobody
        try:
            yield
        finally:
            sys.stdin = before


@contextmanager
def environment_kept() -> Iterator[None]:
    """Leave the environment variables as they were."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _failure(who: str, code: int, last: Mapping[str, Any], printed: Sequence[str]) -> SeglensError:
    """Make the error of a process that ended with ``code``, by its ``last`` report."""
    if last.get("state") == "failed":
        kind = getattr(errors, last["kind"], None)
        if isinstance(kind, type) and issubclass(kind, SeglensError):
            error = kind(last["text"])
        else:
            error = SpreadError(f"{who} failed: {last['kind']}: {last['text']}")
    elif code == -signal.SIGKILL:
        error = SpreadError(
            f"{who} was killed from outside (signal 9), most often because the memory was not enough. "
            "Take fewer devices, or smaller batches."
        )
    else:
        said = next((line.strip() for line in reversed(printed) if line.strip()), "it printed nothing")
        error = SpreadError(f"{who} ended with code {code} before the work was done: {said}")
    error.add_note(f"{who} printed:\n{''.join(printed)}")
    return error


def _interrupt() -> None:
    """Raise KeyboardInterrupt in the main thread, also where it sleeps."""
    main = main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _report(**report: str) -> None:
    os.write(1, f"\n{MARK}{json.dumps(report)}\n".encode())


def _end_with_parent(stdin: int = 0) -> None:
    """End this process when its input is closed: the process that started it has ended."""
    while os.read(stdin, 1024):
        pass
    os._exit(1)
