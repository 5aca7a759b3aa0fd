"""Files of named arrays are closed in any case."""

from pathlib import Path

import numpy as np
import pytest

from seglens.files.arrays import open_npz


@pytest.fixture
def streams(monkeypatch):
    """What was opened, the last one last."""
    found, own = [], Path.open

    def recorded(self, *args, **rest):
        found.append(own(self, *args, **rest))
        return found[-1]

    monkeypatch.setattr(Path, "open", recorded)
    return found


def test_arrays_by_name(tmp_path, streams):
    np.savez_compressed(tmp_path / "some.npz", one=np.arange(3), two=np.eye(2))
    with open_npz(tmp_path / "some.npz") as arrays:
        assert set(arrays) == {"one", "two"}
        np.testing.assert_array_equal(arrays["one"], [0, 1, 2])
        with pytest.raises(KeyError, match="three"):
            arrays["three"]
    assert streams[-1].closed


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"PK\x03\x04", "damaged or cut short"), (b"", "no file of named"), (b"no arrays", "no file of named")],
)
def test_a_damaged_file_is_closed(tmp_path, streams, content, said):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ValueError, match=said), open_npz(tmp_path / "bad.npz"):
        pass
    assert streams[-1].closed


def test_objects_are_refused(tmp_path):
    np.savez(tmp_path / "some.npz", one=np.array([{}], object))
    with open_npz(tmp_path / "some.npz") as arrays, pytest.raises(ValueError, match="allow_pickle=False"):
        arrays["one"]
