"""Records are written whole, read back equal, and say what is wrong with them."""

import hashlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seglens.errors import DataError
from seglens.results import record as records
from seglens.results.record import Record


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = records.start("evaluate", seed=7, device="cpu", settings={"split": "test"})
    assert record.state == "running"
    finished = records.finish(record, time.monotonic() - 2, results={"dice": 0.5})
    finished.write(tmp_path)
    assert records.read_record(tmp_path) == finished
    assert finished.state == "finished"
    assert finished.duration_seconds == pytest.approx(2, abs=1)
    assert set(finished.versions) >= {"python", "platform", "seglens", "torch"}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "run.json is not a record of schema 1: Invalid JSON"),
        ("[]", "run.json is not a record of schema 1"),
        (
            '{"kind": "train", "schema_number": 2}',
            "schema_number is not allowed: Input should be 1, received 2",
        ),
        ('{"schema_number": 1}', "kind is missing: name it"),
        ('{"kind": "train", "colour": 1}', r"there is no setting colour\."),
    ],
)
def test_a_damaged_record(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        records.read_record(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_record(tmp_path):
    with pytest.raises(DataError, match=r"is not a run folder: the folder has no run\.json"):
        records.read_record(tmp_path)
    with pytest.raises(DataError, match="is not a run folder: there is no such folder"):
        records.read_record(tmp_path / "absent")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_json_is_strict_and_keeps_what_it_can_say(value):
    def known(item):
        if isinstance(item, float) and (item != item or abs(item) == float("inf")):
            return None
        if isinstance(item, dict):
            return {key: known(inner) for key, inner in item.items()}
        return [known(inner) for inner in item] if isinstance(item, list) else item

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    assert json.loads(records.to_json(value), parse_constant=refuse) == known(value)


def test_json_of_paths_and_tuples():
    assert json.loads(records.to_json({1: (Path("a") / "b", "ä")})) == {"1": ["a/b", "ä"]}
    assert "ä" in records.to_json("ä")


def test_a_file_that_can_t_be_written_leaves_what_was(tmp_path):
    records.write_json(tmp_path / "table.json", {"old": 1})
    with pytest.raises(TypeError):
        records.write_json(tmp_path / "table.json", {"new": object()})
    assert {path.name for path in tmp_path.iterdir()} == {"table.json"}
    assert json.loads((tmp_path / "table.json").read_text()) == {"old": 1}


def test_sha256_is_that_of_the_contents_in_order(tmp_path):
    contents = [b"one" * 500_000, b"", b"three"]
    files = [tmp_path / str(index) for index in range(3)]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    assert records.sha256(files) == hashlib.sha256(b"".join(contents)).hexdigest()
    assert records.sha256(files[::-1]) != records.sha256(files)


def test_a_package_that_lacks_is_said_so(monkeypatch):
    monkeypatch.setattr(records, "PACKAGES", ("seglens", "no-such-package"))
    assert records.versions()["no-such-package"] == "not installed"


def test_mutable_defaults_are_not_shared():
    Record(kind="train").settings["epochs"] = 3
    assert Record(kind="train").settings == {}


def test_a_folder_that_is_no_run_is_guessed(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    with pytest.raises(DataError, match=r"no such folder\. Did you mean .*first\? Make one"):
        records.read_record(tmp_path / "frist")
    with pytest.raises(DataError, match=r"no run\.json\. It holds run folders: first, second\. Make one"):
        records.read_record(tmp_path)
