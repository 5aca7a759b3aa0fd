"""Files of a kind that is not read are named by ``data check``, and never left out without a word."""

import pytest
from tests.data.layouts import write_nuclei, write_pairs

from seglens.data.check import check_data
from seglens.data.layout import DataSettings

PASSED_OVER = (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png")


@pytest.mark.parametrize(
    ("write", "place"),
    [(write_pairs, "images"), (write_pairs, "masks"), (write_nuclei, "a/images"), (write_nuclei, "a/masks")],
)
def test_a_file_of_another_kind_is_an_error(write, place, tmp_path):
    folder = write(tmp_path / "set", "abcdefgh")
    before = check_data(DataSettings(path=folder))
    for name in PASSED_OVER:
        (folder / place / name).write_bytes(b"left by a system")
    assert check_data(DataSettings(path=folder)).findings == before.findings
    (folder / place / "i.heic").write_bytes(b"a picture that nobody reads")
    (found,) = check_data(DataSettings(path=folder)).of("unknown-file")
    assert (found.severity, found.names) == ("error", (str(folder / place / "i.heic"),))
    assert ".png" in found.text
