"""What the command sets before torch is imported."""

import os

import pytest

from seglens import __main__ as entry


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["nothing given", "own count", "own policy"],
)
def test_threads_that_wait_sleep_soon_unless_told_otherwise(monkeypatch, given, spins):
    environment = {
        name: value for name, value in os.environ.items() if "GOMP" not in name and "OMP_W" not in name
    }
    monkeypatch.setattr(os, "environ", environment | given)
    seen = []
    monkeypatch.setattr("seglens.cli.main", lambda: seen.append(os.environ.get("GOMP_SPINCOUNT")))
    monkeypatch.setattr(entry, "quiet_until_ready", lambda: None)
    monkeypatch.setattr(entry, "open_streams", lambda: None)
    entry.main()
    assert seen == [spins]
