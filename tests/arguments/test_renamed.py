"""Names of before do what the names of today do, with a warning; both at once are refused."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

import seglens
from seglens.arguments.renamed import renamed
from seglens.cli.command import renew_flags
from seglens.cli.settings import changed_methods
from seglens.errors import SettingError
from seglens.folder import partial

OLD = {
    "evaluate": {"flips": "tta"},
    "explain": {"chunk": "batch_size"},
    "explain_folder": {"chunk": "batch_size", "num_samples": "num_images"},
    "judge": {"chunk": "batch_size"},
    "judge_folder": {"chunk": "batch_size"},
    "plan": {"chunk": "batch_size"},
    "plan_folder": {"chunk": "batch_size", "num_samples": "num_images"},
    "plan_judging": {"chunk": "batch_size"},
    "predict_files": {"chunk": "batch_size", "flips": "tta"},
    "show_data": {"num": "num_images"},
}


@renamed(old="new")
def double(new: int) -> int:
    return 2 * new


@renamed(old="new")
@dataclass(frozen=True)
class Settings:
    new: int = 1


def test_an_argument_by_its_old_name_is_the_same_argument() -> None:
    with pytest.warns(FutureWarning, match=r"^double: old is now called new\. .* write new\.$") as said:
        assert double(old=3) == 6  # type: ignore[call-arg]
    assert len(said) == 1
    assert (double(3), double(new=3)) == (6, 6)


def test_a_field_by_its_old_name_is_the_same_field() -> None:
    with pytest.warns(FutureWarning, match="^Settings: old is now called new"):
        made = Settings(old=3)  # type: ignore[call-arg]
    assert (made, replace(made, new=4)) == (Settings(3), Settings(new=4))
    with pytest.warns(FutureWarning, match="^Settings: old is now called new"):
        assert made.old == 3  # type: ignore[attr-defined]
    assert repr(made) == "Settings(new=3)"


@pytest.mark.parametrize("taken", [double, Settings])
def test_both_names_at_once_are_refused(taken: Callable[..., Any]) -> None:
    with pytest.raises(
        SettingError, match=r"old is the old name of new, and both were given\. Give new only\."
    ):
        taken(old=1, new=2)


@pytest.mark.parametrize(("verb", "old"), [(verb, old) for verb, names in OLD.items() for old in names])
def test_every_public_function_takes_its_old_names(verb: str, old: str) -> None:
    """A number that is out of range is refused under the new name: it has reached the same check."""
    function, new = getattr(seglens, verb), OLD[verb][old]
    given: Any = {"batch_size": 0, "num_images": 0, "tta": "yes"}[new]
    call = {"run": (None,), "settings": (None, "a.png")}["settings" if verb == "show_data" else "run"]
    blank = [*call, *[None] * (2 if verb in ("explain", "judge", "plan") else 1 - (verb == "show_data"))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FutureWarning, match=f"{verb}: {old} is now called {new}"):
            function(*blank, **{old: given})
    with pytest.raises(SettingError, match=f"{old} is the old name of {new}"):
        function(*blank, **{old: given, new: given})


def test_an_old_flag_is_the_new_one() -> None:
    names = {"--num-samples": "--num-images"}
    with pytest.warns(FutureWarning, match="^--num-samples is now called --num-images"):
        assert renew_flags(["run", "--num-samples", "3"], names) == ["run", "--num-images", "3"]
    with pytest.warns(FutureWarning, match="^--num-samples is now called --num-images"):
        assert renew_flags(["--num-samples=3", "--", "--num-samples"], names) == [
            "--num-images=3",
            "--",
            "--num-samples",
        ]
    with pytest.raises(SettingError, match=r"^--num-samples is the old name of --num-images"):
        renew_flags(["--num-samples", "3", "--num-images=3"], names)


def test_a_folder_begun_under_old_names_can_be_resumed(tmp_path: Any) -> None:
    (tmp_path / partial.DONE).mkdir()
    asked = {"batch_size": 4, "num_images": 2, partial.PICTURES: []}
    (tmp_path / partial.DONE / partial.SETTINGS).write_text(
        json.dumps({"chunk": 4, "num_samples": 2, partial.PICTURES: []})
    )
    partial._refuse_others(tmp_path, asked)
    with pytest.raises(SettingError, match="batch_size was 4, now 8"):
        partial._refuse_others(tmp_path, asked | {"batch_size": 8})


@pytest.mark.parametrize("method", ["smoothgrad", "expected-gradients"])
def test_a_typed_setting_of_before_is_that_of_today(method: str) -> None:
    with pytest.warns(FutureWarning, match=f"--set {method}: samples is now called num_samples"):
        made = changed_methods([f"{method}.samples=3"], [method])
    assert made[method] == changed_methods([f"{method}.num_samples=3"], [method])[method]
    assert getattr(made[method], "num_samples", None) == 3
    with (
        pytest.warns(FutureWarning),
        pytest.raises(SettingError, match=rf"--set {method}\.num_samples is given twice"),
    ):
        changed_methods([f"{method}.num_samples=3", f"{method}.samples=3"], [method])
