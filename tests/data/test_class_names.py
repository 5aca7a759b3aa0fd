"""Class names: each once, the background first."""

import pytest
from pydantic import ValidationError

from seglens.data.sample import Task


@pytest.mark.parametrize(
    ("classes", "message"),
    [(("background", "a", "a"), "'a' is named twice"), (("organ", "Background"), "can't be the background")],
)
def test_names_that_would_mix_classes_up_are_refused(classes, message):
    with pytest.raises(ValidationError, match=message):
        Task(classes=classes)
