"""Threads are started only where memory suffices for them; Python would wait for ever otherwise."""

import subprocess
import sys

import pytest

from seglens.runtime.threads import ROOM, Pool, read_ahead

FULL = """
import resource
from seglens.runtime.threads import ROOM, read_ahead

def within(spare):
    held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + spare, resource.RLIM_INFINITY))
    try:
        return list(read_ahead(str, range(4), threads=2))
    except MemoryError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

for spare in (4 * ROOM, 0, ROOM // 2, 4 * ROOM):
    print(within(spare))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_no_thread_is_started_without_room():
    """Later Python has the stacks of the first threads at hand, and would start them all the same."""
    ended = subprocess.run(
        [sys.executable, "-c", FULL], capture_output=True, text=True, timeout=120, check=True
    )
    done, refused = "['0', '1', '2', '3']", f"There are no {ROOM >> 20} MB of memory to start a thread in."
    assert ended.stdout.splitlines() == [done, refused, refused, done]


def test_reading_ahead_keeps_the_order():
    assert list(read_ahead(lambda item: item * item, range(50), threads=4)) == [n * n for n in range(50)]
    with Pool(2) as pool:
        assert list(pool.map(str, range(9))) == list(map(str, range(9)))
