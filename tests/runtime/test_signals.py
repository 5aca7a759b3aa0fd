"""A signal ends the work where it stands, once, and what is half written goes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WORK = """
import os, signal, sys, time
from pathlib import Path
from seglens.files.output import new_folder
from seglens.runtime.signals import Terminated, ended_by_signals

def send(number=signal.{number}):
    os.kill(os.getpid(), number)
    for _ in range(1000):  # a signal is taken between two steps
        pass

# However this test itself was started.
for number in {ready}:
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

class Dying:
    def __del__(self):
        send()

try:
    with ended_by_signals(), new_folder(Path("out"), command="evaluate") as folder:
        (folder / "half").write_text("half")
        try:
            {body}
            time.sleep(20)
        finally:
            {cleaning}
            Path("cleaned").touch()
except (KeyboardInterrupt, Terminated) as error:
    sys.exit(130 if isinstance(error, KeyboardInterrupt) else error.code)
"""


READY = "(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)"


def run(folder: Path, number: str, body: str, cleaning: str = "pass") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", WORK.format(number=number, body=body, cleaning=cleaning, ready=READY)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
@pytest.mark.parametrize("body", ["send()", "Dying()"], ids=["at work", "while an object goes"])
def test_a_signal_ends_the_work_and_leaves_nothing(tmp_path, number, code, body):
    ended = run(tmp_path, number, body)
    assert (ended.returncode, ended.stderr) == (code, "")
    assert [path.name for path in tmp_path.iterdir()] == ["cleaned"]


def test_a_second_signal_does_not_disturb_the_cleaning(tmp_path):
    ended = run(tmp_path, "SIGINT", "send()", "send()")
    assert ended.returncode == 130
    assert ended.stderr == "seglens: Stopping. Once more ends at once, and leaves what is half written.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["cleaned"]


def test_the_third_one_ends_at_once(tmp_path):
    ended = run(tmp_path, "SIGTERM", "send()", "send(); send()")
    assert ended.returncode == 143
    assert not (tmp_path / "cleaned").exists()


def test_what_was_started_to_ignore_a_signal_ignores_it(tmp_path):
    first = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    work = WORK.format(number="SIGINT", body="send(); sys.exit(4)", cleaning="pass", ready="()")
    ended = subprocess.run([sys.executable, "-c", first + work], cwd=tmp_path, timeout=60)
    assert ended.returncode == 4


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_fault(tmp_path, streams):
    line = f"'{sys.executable}' -m seglens --version {streams}"
    assert subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True).returncode == 0


def test_a_full_stream_is_told(tmp_path):
    line = f"'{sys.executable}' -m seglens --version > /dev/full"
    ended = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (1, "seglens: No space left on device.\n")
    assert os.listdir(tmp_path) == []


def test_ctrl_c_before_anything_is_there_says_nothing():
    # A shell lets what it starts in the background ignore Ctrl-C, this test included.
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from seglens.runtime.signals import quiet_until_ready; quiet_until_ready(); "
        "os.kill(os.getpid(), signal.SIGINT)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")


WAITS = """
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from threading import Thread
from torch.distributed import TCPStore
from seglens.runtime.signals import ended_by_signals, watched_wait

begun = Path(sys.argv[1])
with socket.create_server(("127.0.0.1", 0)) as free:
    place = free.getsockname()


def tell():
    while socket.socket().connect_ex(place):
        time.sleep(0.05)
    print("waiting", flush=True)


Thread(target=tell, daemon=True).start()
with ended_by_signals(), watched_wait(timedelta(seconds=float(sys.argv[2])), "Nobody came.", begun.unlink):
    TCPStore(*place, 2, True, timeout=timedelta(minutes=5))
"""
"""Waits for another process in C++, where Python obeys no signal; says so once the store there listens."""


@pytest.mark.parametrize(
    ("seconds", "sent", "code", "words"),
    [("600", signal.SIGTERM, 143, "Stopped by signal 15."), ("5", None, 1, "Nobody came.")],
)
def test_a_wait_outside_python_ends_by_a_signal_or_in_time(tmp_path, seconds, sent, code, words):
    begun = tmp_path / "begun"
    begun.touch()
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, str(begun), seconds],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    if sent is not None:
        process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, f"seglens: {words}" in err, begun.exists()) == (code, True, False), err
