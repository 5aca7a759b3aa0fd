"""Signals that end a command: Ctrl-C, and SIGTERM, which SLURM, Docker and ``kill`` send.

Either ends the work where it stands, by an exception, so that what is half written is removed and processes
that were started end. While that goes on, further signals don't disturb it; the third one ends at once.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from threading import Event, Thread, Timer, current_thread, main_thread
from types import FrameType

from seglens.runtime.threads import refuse_without_room

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that ask a process to end; a terminal that is closed sends the second."""

HANDLED_WITHIN = 3.0
"""Seconds in which Python must handle a signal while the process waits in code outside Python."""

_HANDLED: ContextVar[bool] = ContextVar("caught", default=False)
"""Whether signals raise exceptions already."""


class Terminated(SystemExit):
    """The process was asked to end by a signal; the exit code is 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within, signals that end the process raise `Terminated`, and Ctrl-C KeyboardInterrupt.

    While such an exception is on its way, and what it leaves is put right, further ones don't disturb.
    A signal that the process was started to ignore stays ignored. In other threads than the main one nothing
    happens.
    """
    if current_thread() is not main_thread() or _HANDLED.get():
        yield
        return
    within, hook = _HANDLED.set(True), sys.unraisablehook
    again: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        if not _is_ending(sys.exc_info()[1]):
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
        again.append(number)
        if len(again) > 1:
            os._exit(128 + number)
        os.write(2, b"seglens: Stopping. Once more ends at once, and leaves what is half written.\n")

    def send_again(lost: "sys.UnraisableHookArgs") -> None:
        # Raised where nothing can catch it, as while an object is thrown away, it would be lost.
        if not _is_ending(lost.exc_value):
            hook(lost)
            return
        number = lost.exc_value.number if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        Timer(0.05, signal.pthread_kill, (main_thread().ident, number)).start()

    before = {}
    for number in (signal.SIGINT, *ENDING):
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, end)
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
        _HANDLED.reset(within)


@contextmanager
def watched_wait(patience: timedelta, late: str, leave: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Run a thread that ends this process by a signal or after ``patience``, until the yielded function runs.

    For a wait outside Python, as for the processes of other nodes, in which no exception can be raised. A
    signal that Python doesn't obey within some seconds ends the process with the signal's usual code, the
    end of ``patience`` with code 1 and the words ``late``; before that ``leave`` removes what was begun.
    """
    if current_thread() is not main_thread():
        yield lambda: None
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    over = Event()

    def watch() -> None:
        number = -1
        while number not in (0, signal.SIGINT, *ENDING):
            ready, _, _ = select.select([reader], [], [], patience.total_seconds())
            number = os.read(reader, 1)[0] if ready else 0
        if over.wait(HANDLED_WITHIN if number else 0):
            return
        with suppress(OSError):
            leave()
        os.write(2, f"seglens: {f'Stopped by signal {number}.' if number else late}\n".encode())
        os._exit(128 + number if number else 1)

    def reached() -> None:
        over.set()
        os.write(writer, b"\0")

    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = Thread(target=watch, daemon=True)
    refuse_without_room()
    watcher.start()
    try:
        yield reached
    finally:
        reached()
        watcher.join()
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def _is_ending(error: BaseException | None) -> bool:
    """Whether this is, or comes of, one of the exceptions that signals raise."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt | Terminated):
            return True
        error = error.__context__
    return False


def quiet_until_ready() -> None:
    """Make Ctrl-C end the process without a message while nothing is written yet."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def open_streams() -> None:
    """Open closed standard streams on the null device: the next opened file would take their place.

    Bytes of file names that are no text are printed as their numbers.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Discard output that can't be written: its reader is gone, or the disk is full."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
