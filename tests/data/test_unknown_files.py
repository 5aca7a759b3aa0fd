"""Files of a kind that is not read are named by ``data check``, and never left out without a word."""

import pytest
from tests.data.layouts import BOX, WRITERS, save, scene, write_nuclei, write_pairs, write_pets

from seglens.data.check import check_data
from seglens.data.layout import DataSettings

PASSED_OVER = (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png", "README.md", "LICENSE", "README.set.txt")


def pets(folder, names):
    return write_pets(folder, names[:-2], names[-2:])


def by_class(folder, names):
    write_pairs(folder, names)
    for name in names:
        save(folder / "masks" / "cell" / f"{name}.png", BOX * 255)
        (folder / "masks" / f"{name}.png").unlink()
    return folder


@pytest.mark.parametrize(
    ("write", "place", "severity"),
    [
        (write_pairs, "images", "error"),
        (write_pairs, "masks", "error"),
        (by_class, "masks/cell", "error"),
        (write_nuclei, "a/images", "error"),
        (write_nuclei, "a/masks", "error"),
        (WRITERS["labelme"], ".", "error"),
        (WRITERS["coco"], ".", "warning"),
        (pets, "images", "warning"),
        (pets, "annotations/trimaps", "warning"),
    ],
)
def test_a_file_of_another_kind_is_named(write, place, severity, tmp_path):
    folder = write(tmp_path / "set", "abcdefgh")
    settings = DataSettings(path=folder, multilabel=write is by_class)
    before = check_data(settings)
    for name in PASSED_OVER:
        (folder / place / name).write_bytes(b"left by a system")
    assert check_data(settings).findings == before.findings
    (folder / place / "i.heic").write_bytes(b"a picture that nobody reads")
    (found,) = check_data(settings).of("unknown-file")
    assert (found.severity, found.names) == (severity, (str(folder / place / "i.heic"),))
    assert ".png" in found.text


@pytest.mark.parametrize(
    ("write", "place"),
    [*((WRITERS[name], ".") for name in ("coco", "labelme")), (pets, "images"), (write_pairs, "images")],
)
def test_a_folder_of_pictures_that_is_not_read_is_named(write, place, tmp_path):
    folder = write(tmp_path / "set", "abcdefgh")
    save(folder / place / "more" / "i.png", scene(1))
    (found,) = check_data(DataSettings(path=folder)).of("unread-folder")
    assert (found.severity, found.names) == ("warning", (str(folder / place / "more"),))


def test_pictures_that_the_lists_of_the_pets_leave_out_are_a_note(tmp_path):
    folder = pets(tmp_path / "set", "abcdefgh")
    save(folder / "images" / "cat_i.jpg", scene(1))
    (folder / "images" / "cat_a.mat").write_bytes(b"as in the original set")
    found = check_data(DataSettings(path=folder))
    assert not found.of("unknown-file")
    assert [(each.severity, each.names) for each in found.of("unlisted")] == [("note", ("cat_i",))]
