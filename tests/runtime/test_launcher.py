"""A launcher of processes: how it ends, whoever fails, and what can't be started again."""

import signal
import sys
import time
from pathlib import Path

import pytest
from tests.jobs import ALONE_ENVIRONMENT

from seglens.errors import DataError, SettingError, SpreadError
from seglens.runtime import launcher
from seglens.runtime.launcher import Launcher


def test_what_was_typed_in_is_not_started_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(SettingError, match="A notebook, or code that was typed in"):
        launcher.same_command()


def launcher_of(tmp_path: Path, *bodies: str) -> Launcher:
    """A launcher of small programs, each of which is ready and then does what its body says."""
    file = tmp_path / "member.py"
    programs = "\n".join(
        f"    if os.environ['MEMBER'] == '{number}':\n        {body}" for number, body in enumerate(bodies)
    )
    file.write_text(
        "import os, signal, sys, time\nfrom seglens.errors import DataError\n"
        "from seglens.runtime.launcher import reporting\nprint('hello')\n"
        f"with reporting() as ready:\n    ready()\n{programs}\n"
    )
    environments = [{**ALONE_ENVIRONMENT, "MEMBER": str(number)} for number in range(len(bodies))]
    return Launcher([sys.executable, str(file)], environments, len(bodies) + 1)


def test_a_crew_that_ends_well(tmp_path: Path):
    with launcher_of(tmp_path, f"open({str(tmp_path / 'a')!r}, 'w').close()", "pass") as launcher:
        launcher.barrier()
    assert (tmp_path / "a").exists()
    assert launcher.failure is None


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("raise DataError('a.png is broken')", DataError, r"^a\.png is broken\n"),
        ("1 / 0", SpreadError, r"^Process 3 of 3 failed: ZeroDivisionError: division by zero\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", SpreadError, r"^Process 3 of 3 was killed from outside"),
        ("os.write(1, b'bye\\n'); os._exit(3)", SpreadError, r"^Process 3 of 3 ended with code 3 .*: bye\n"),
    ],
)
def test_an_error_in_a_crew_ends_all(tmp_path: Path, body: str, kind: type[Exception], message: str):
    began, launcher = time.monotonic(), launcher_of(tmp_path, "time.sleep(600)", body)

    def wait() -> None:
        with launcher:
            launcher.barrier()
            time.sleep(600)

    with pytest.raises(kind, match=message) as caught:
        wait()
    assert time.monotonic() - began < 600, "nobody waits for the others to end"
    assert "Process 3 of 3 printed:\nhello\n" in caught.value.__notes__[0]
    assert all(process.returncode is not None for process in launcher._processes)


def test_an_error_here_ends_the_processes(tmp_path: Path):
    launcher = launcher_of(tmp_path, "time.sleep(60)")

    def fail() -> None:
        with launcher:
            launcher.barrier()
            raise DataError("mine")

    with pytest.raises(DataError, match="mine"):
        fail()
    assert [process.returncode for process in launcher._processes] == [-signal.SIGKILL]


def test_a_crew_does_not_outlive_the_process_that_started_it(tmp_path: Path):
    launcher = launcher_of(tmp_path, "time.sleep(60)")

    def vanish() -> None:
        with launcher:
            launcher.barrier()
            stdin = launcher._processes[0].stdin
            assert stdin is not None
            stdin.close()  # which is what the system does when the process that started it is gone
            time.sleep(60)

    with pytest.raises(SpreadError, match="Process 2 of 2 ended with code 1 before the work was done: hello"):
        vanish()


def test_a_process_that_is_killed_while_the_first_waits_for_its_end_is_named(tmp_path: Path):
    """The work here is done; the interruption meant for it must not look like Ctrl-C."""
    body = "    os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(SpreadError, match="was killed from outside"), launcher_of(tmp_path, body) as launcher:
        launcher.barrier()
