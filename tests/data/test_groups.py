"""Groups: who is in which, splits that keep them together, and tables that are refused by name."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import write_pair

import seglens
from seglens.data.check import check_data
from seglens.data.groups import grouping_of
from seglens.data.layout import DataSettings
from seglens.data.listing import write_listing
from seglens.data.opening import open_as_it_is, open_data
from seglens.errors import DataError, SettingError
from seglens.results import record as records
from seglens.runs.data import open_split

NAMES = [f"p{patient}_{number}" for patient in range(8) for number in range(3)]


def write_set(folder: Path, names: dict[str, list[str]]) -> Path:
    seed = 0
    for split, members in names.items():
        for name in members:
            write_pair(folder / split, name, seed)
            seed += 1
    return folder


def table(
    folder: Path, rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ("image", "group")
) -> Path:
    file = folder / "groups.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("whole"), {"": NAMES})


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with splits of its own, in which patient p1 is in two."""
    names = {"train": NAMES[:5], "valid": NAMES[6:9], "test": [*NAMES[9:12], NAMES[5]]}
    return write_set(tmp_path_factory.mktemp("parts"), names)


@pytest.mark.parametrize("seed", range(5))
def test_splits_never_part_a_group(whole: Path, seed: int) -> None:
    dataset = open_data(DataSettings(path=whole, group_from=r"^(p\d+)_", split_seed=seed))
    where: dict[str, str] = {}
    for split in dataset.splits.values():
        for entry in split.entries:
            assert entry.group == entry.name.split("_")[0]
            assert where.setdefault(entry.group, split.name) == split.name
    assert set(where.values()) == {"train", "valid", "test"}
    assert len(where) == 8


def test_a_table_says_the_same_as_file_names(whole: Path, tmp_path: Path) -> None:
    file = table(tmp_path, [(f"{name}.png", name.split("_")[0]) for name in NAMES])
    by_table = open_data(DataSettings(path=whole, groups=file))
    by_name = open_data(DataSettings(path=whole, group_from=r"^(p\d+)_"))
    for split, entries in by_name.splits.items():
        assert by_table.splits[split].entries == entries.entries
    assert grouping_of(by_table.split("all")).grouped == ("table", "groups.csv")
    assert grouping_of(by_name.split("all")).resampling(range(24)).num_groups == 8


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_the_byte_order_and_names_in_other_forms_are_read(
    whole: Path, tmp_path: Path, encoding: str
) -> None:
    rows = [
        *((f"images/{name}.png", "Müller") for name in NAMES[:12]),
        *((name, "Łoś") for name in NAMES[12:]),
    ]
    file = table(tmp_path, rows)
    file.write_text(file.read_text("utf-8"), encoding)
    dataset = open_as_it_is(DataSettings(path=whole, groups=file))
    assert {entry.group for entry in dataset.split("all").entries} == {"Müller", "Łoś"}


def test_a_group_in_two_splits_is_an_error(parts: Path) -> None:
    settings = DataSettings(path=parts, group_from=r"^(p\d+)_")
    with pytest.raises(DataError, match=r"Groups are in several splits.*1: p1 \(2 in train, 1 in test\)"):
        open_data(settings)
    (found,) = check_data(settings).of("groups-across-splits")
    assert (found.severity, found.names) == ("error", ("p1 (2 in train, 1 in test)",))
    assert not check_data(DataSettings(path=parts)).of("groups-across-splits")


def test_look_alikes_in_two_groups_are_a_note(tmp_path: Path) -> None:
    for name in ("a_1", "b_1", "c_1"):
        write_pair(tmp_path, name, 0 if name != "c_1" else 7)
    (found,) = check_data(DataSettings(path=tmp_path, group_from="^(.)_")).of("near-duplicates-across-groups")
    assert found.severity == "note"
    assert len(found.names) == 1
    assert "a_1 (a)" in found.names[0]
    assert "b_1 (b)" in found.names[0]


def test_near_duplicates_are_groups_where_nobody_said(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 3), ("c", 0)):
        write_pair(tmp_path, name, seed)
    split = open_as_it_is(DataSettings(path=tmp_path)).split("all")
    found = grouping_of(split)
    assert found.names == ("a", "b", "a")
    resampled = found.resampling([0, 1, 2])
    assert (resampled.by, resampled.num_groups, resampled.num_images) == ("near-duplicates", 2, 3)
    assert "pictures that look nearly the same count as one group" in resampled.text
    assert "2 pictures as if each were independent" in found.resampling([0, 1]).text


def test_the_list_of_slices_names_their_volumes(tmp_path: Path) -> None:
    write_set(tmp_path, {"train": ["v1_0000", "v1_0001", "v2_0000"]})
    rows = [(f"{name}.png", name[:2], "train", name[-1], "0") for name in ("v1_0000", "v1_0001", "v2_0000")]
    table(tmp_path, rows, ("image", "volume", "split", "slice", "position_mm")).rename(
        tmp_path / "slices.csv"
    )
    split = open_as_it_is(DataSettings(path=tmp_path)).split("all")
    assert grouping_of(split).names == ("v1", "v1", "v2")
    (tmp_path / "slices.csv").write_text("my,own\n1,2\n")  # somebody's own table of that name
    assert not open_as_it_is(DataSettings(path=tmp_path)).split("all").grouped.by


ROWS = [(name, name.split("_")[0]) for name in NAMES]


@pytest.mark.parametrize(
    ("rows", "header", "match"),
    [
        (ROWS[1:], ("image", "group"), r"has no row for 1 of 24 pictures: p0_0\. Add them"),
        ([*ROWS, ROWS[0]], ("image", "group"), r"names 'p0_0' twice, in rows 1 and 25"),
        ([(ROWS[0][0], " "), *ROWS[1:]], ("image", "group"), r"row 1 has no group of 'p0_0'"),
        ([("", "p0"), *ROWS], ("image", "group"), r"row 1 has no image"),
        (ROWS, ("image", "patient"), r"has no column 'group'; it has image, patient"),
        (ROWS, ("file", "group"), r"has no column 'image'; it has file, group"),
        ([(*row, "x") for row in ROWS], ("image", "group", "group"), r"two columns called 'group'"),
        ([*ROWS, ("p9",)], ("image", "group"), r"line 26 has 1 values, the first line names 2 columns"),
    ],
)
def test_bad_tables_are_refused_by_name(
    whole: Path, tmp_path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...], match: str
) -> None:
    file = table(tmp_path, rows, header)
    with pytest.raises(DataError, match=match) as caught:
        open_data(DataSettings(path=whole, groups=file))
    assert str(file) in str(caught.value)


def test_tables_with_other_marks_encodings_or_places_are_refused(whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    for text, encoding, match in (
        ("image;group\na;b\n", "utf-8", "parted by ';': save it with commas"),
        ("image,group\np0_0,Müller\n", "latin-1", "line 2 has the byte 0xfc, as Latin-1"),
        ('image,group\n"p0_0,a\n', "utf-8", "can't be read as a table"),
        ("", "utf-8", "has no column 'image'; it has none"),
    ):
        file.write_text(text, encoding)
        with pytest.raises(DataError, match=match):
            open_data(DataSettings(path=whole, groups=file))
    with pytest.raises(DataError, match="There is no file"):
        open_data(DataSettings(path=whole, groups=tmp_path / "nowhere.csv"))


def test_a_name_of_two_pictures_must_be_a_path(tmp_path: Path) -> None:
    write_set(tmp_path, {"train": ["a", "b"], "test": ["a"]})
    file = table(tmp_path, [("a", "x"), ("b", "y")])
    settings = DataSettings(path=tmp_path, groups=file)
    with pytest.raises(DataError, match=r"names 'a', and 2 pictures are called so.*train/images/a\.png"):
        open_as_it_is(settings)
    table(tmp_path, [("train/images/a.png", "x"), ("b", "y"), ("test/a", "z")])
    groups = [entry.group for entry in open_as_it_is(settings).split("all").entries]
    assert sorted(groups) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("expression", "error", "match"),
    [
        ("(p", SettingError, "is no regular expression"),
        (r"p\d", SettingError, "has no group in parentheses"),
        (r"^(p[0-6])_", DataError, r"finds no group in 3 of 24 file names: p7_0\.png, p7_1\.png, p7_2\.png"),
    ],
)
def test_expressions_that_find_nothing_are_refused(
    whole: Path, expression: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        open_data(DataSettings(path=whole, group_from=expression))


def test_a_table_and_an_expression_contradict_one_another(whole: Path, tmp_path: Path) -> None:
    file = table(tmp_path, ROWS)
    with pytest.raises(SettingError, match="--groups or --group-from, not both"):
        open_data(DataSettings(path=whole, groups=file, group_from="(.)"))


def test_a_table_in_the_set_moves_with_it(tmp_path: Path) -> None:
    inside = DataSettings(path=tmp_path / "a", groups=tmp_path / "a" / "tables" / "g.csv")
    assert inside.moved(tmp_path / "b").groups == tmp_path / "b" / "tables" / "g.csv"
    outside = DataSettings(path=tmp_path / "a", groups=tmp_path / "g.csv")
    assert outside.moved(tmp_path / "b").groups == tmp_path / "g.csv"


def test_groups_travel_from_the_training_to_later_commands(tmp_path: Path, whole: Path) -> None:
    settings = DataSettings(path=whole, group_from=r"^(p\d+)_")
    dataset = open_data(settings)
    run = seglens.wrap(
        torch.nn.Conv2d(3, 1, 1), classes=("background", "foreground"), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    folder = tmp_path / "run"
    folder.mkdir()
    record = records.start(
        "train", data=settings.model_dump(mode="json"), task=run.task.model_dump(mode="json")
    )
    record.model_copy(update={"data_sha256": dataset.sha256()}).write(folder)
    write_listing(folder, dataset)
    run = replace(run, folder=folder)
    split = open_split(run, "test")
    assert split.grouped == ("names", r"^(p\d+)_")
    assert all(entry.group == entry.name.split("_")[0] for entry in split.entries)
    assert open_split(run, "test", data=whole).grouped == split.grouped
    other = open_split(run, "test", group_from=r"^(p\d+_\d)")
    assert len(set(grouping_of(other).names)) == len(other)
    with pytest.raises(DataError, match="Groups are in several splits"):
        open_split(run, "test", group_from=r"_(\d)")


def test_names_that_differ_in_capital_letters_alone_are_warned_of(tmp_path: Path) -> None:
    write_set(tmp_path, {"": ["p1_0", "P1_1", "P1_0", "q1_0", "q2_0"]})
    names, groups = open_data(DataSettings(path=tmp_path, group_from=r"^(\w+)_")).warnings
    assert (names.kind, names.names) == ("names-alike", ("P1_0 and p1_0",))
    assert (groups.kind, groups.names) == ("names-alike", ("P1 and p1",))
    assert groups.text.startswith("Groups differ in capital letters")


def test_groups_that_are_one_number_or_differ_in_spaces_are_warned_of(whole: Path, tmp_path: Path) -> None:
    names = {0: "12", 1: "012", 2: "12.0", 3: "A 1", 4: "A  1", 5: "1_0", 6: "10"}
    file = table(tmp_path, [(name, names.get(int(name[1]), name)) for name in NAMES])
    (found,) = open_data(DataSettings(path=whole, groups=file)).warnings
    assert sorted(found.names) == ["12 and 012 and 12.0", "A 1 and A  1"]


@pytest.mark.parametrize("empty", ["nan", "NaN", "#N/A", "null"])
def test_no_value_is_no_group_and_an_unknown_stratum(whole: Path, tmp_path: Path, empty: str) -> None:
    header = ("", "image", "group", "scanner")
    rows = [(str(n), name, name[:2], empty if n else "A") for n, name in enumerate(NAMES)]
    entries = open_data(DataSettings(path=whole, groups=table(tmp_path, rows, header))).split("all").entries
    found = {entry.name: entry.strata for entry in entries}
    assert found == {name: (("scanner", "unknown" if n else "A"),) for n, name in enumerate(NAMES)}
    pairs = [(name, empty if name < "p2" else name) for name in NAMES]
    with pytest.raises(DataError, match=rf"row 1 has no group of 'p0_0' \('{empty}' is none\)"):
        open_data(DataSettings(path=whole, groups=table(tmp_path, pairs)))


def test_two_rows_for_one_picture_must_agree(whole: Path, tmp_path: Path) -> None:
    rows = [(name, name[:2]) for name in NAMES]
    same = table(tmp_path, [*rows, ("images/p0_0.png", "p0")])
    assert open_data(DataSettings(path=whole, groups=same)).splits
    other = table(tmp_path, [*rows, ("p0_0.png", "p7")])
    with pytest.raises(DataError, match=r"2 rows for one picture that differ: p0_0, p0_0.png \(rows 1, 25\)"):
        open_data(DataSettings(path=whole, groups=other))


def test_a_row_of_another_picture_is_no_second_one(tmp_path: Path) -> None:
    """'a.png' right in the set is a picture of its own, beside 'sub/a.png'."""
    write_set(tmp_path / "set", {"train": ["a", "b"], "test": ["a", "c"]})
    paths = [(f"{split}/{name}", f"{split}-{name}") for split in ("train", "test") for name in "abc"]
    dataset = open_data(DataSettings(path=tmp_path / "set", groups=table(tmp_path, paths)))
    assert {entry.group for entry in dataset.split("test").entries} == {"test-a", "test-c"}


def test_names_of_a_table_that_fit_no_picture_are_shown(whole: Path, tmp_path: Path) -> None:
    file = table(tmp_path, [(name.replace("p", ""), name) for name in NAMES])
    with pytest.raises(DataError, match=r"no row for 24 of 24 pictures.*that fit none name 0_0, 0_1, "):
        open_data(DataSettings(path=whole, groups=file))


def test_pictures_of_one_group_alone_make_no_splits(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"All 24 pictures are of one group, 'p' \(\^\(p\)\): no valid or test"
    ):
        open_data(DataSettings(path=whole, group_from="^(p)"))
    of_one = table(tmp_path, [(name, "p") for name in NAMES])
    with pytest.raises(DataError, match=r"of one group, 'p' \(groups.csv\)"):
        open_data(DataSettings(path=whole, groups=of_one))
    assert len(open_as_it_is(DataSettings(path=whole, groups=of_one)).split("all")) == 24  # to be evaluated
