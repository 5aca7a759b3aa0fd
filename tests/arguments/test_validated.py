"""Wrong values of settings end in one line that says what, what was received, and what is allowed."""

import re
from typing import Any

import pytest

import seglens
from seglens.demo import DemoSettings
from seglens.errors import SettingError

CASES: list[tuple[type, dict[str, Any], str]] = [
    (seglens.DataSettings, {}, r"DataSettings: path is missing: name it\."),
    (seglens.DataSettings, {"path": 3}, r"DataSettings: path is not allowed: .*path.*, received 3\."),
    (
        seglens.DataSettings,
        {"path": "set", "border": "blue"},
        r"border is not allowed: Input should be 'foreground', 'background', 'ignore' or 'class', received",
    ),
    (
        seglens.DataSettings,
        {"path": "set", "boarder": "class"},
        r"there is no setting boarder\. Did you mean border\? Allowed: path, layout, .*, group_from, folds, "
        r"fold\.$",
    ),
    (
        seglens.DataSettings,
        {"path": "set", "channels": 0},
        "channels is not allowed: .*or equal to 1, received 0",
    ),
    (seglens.DataSettings, {"path": "set", "classes": 2}, "classes is not allowed: .*tuple, received 2"),
    (
        seglens.ModelSpec,
        {"architecture": "unet", "classes": "2"},
        r"ModelSpec: classes .*received '2' \(str\)",
    ),
    (
        seglens.ModelSpec,
        {"architecture": "unet", "std": (0.0,) * 3},
        "ModelSpec: std must be finite and at least",
    ),
    (
        seglens.ModelSpec,
        {"architecture": "unet", "mean": (0.5,)},
        "ModelSpec: .*one value for each of 3 channels",
    ),
    (seglens.TrainSettings, {"epochs": "many"}, r"TrainSettings: epochs is not allowed: .*integer.* 'many'"),
    (
        seglens.TrainSettings,
        {"epoch": 3},
        r"TrainSettings: there is no setting epoch\. Did you mean epochs\?",
    ),
    (
        seglens.WeakSettings,
        {"rounds": -1},
        "WeakSettings: rounds is not allowed: .*or equal to 0, received -1",
    ),
    (seglens.WeakSettings, {"student": {"epochs": 0}}, "TrainSettings: epochs is not allowed"),
    (seglens.Task, {"classes": ("pet",)}, "Task: a task needs a background and at least one class"),
    (seglens.Task, {"classes": ("a", "b", "b")}, "Task: the class 'b' is named twice"),
    (DemoSettings, {"size": "large"}, r"DemoSettings: size is not allowed: .*received 'large' \(str\)"),
]


@pytest.mark.parametrize(("kind", "values", "told"), CASES)
@pytest.mark.parametrize("way", ["made", "read"])
def test_one_line_of_ours(kind: Any, values: dict[str, Any], told: str, way: str) -> None:
    with pytest.raises(SettingError) as caught:
        kind(**values) if way == "made" else kind.model_validate(values)
    assert re.search(told, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)
