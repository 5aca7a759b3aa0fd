"""Classes by name: tables worked out by hand, and what is refused."""

from pathlib import Path

import pytest
import torch

from seglens.data.classes import class_table, in_classes_of
from seglens.data.layout import Entry, Split
from seglens.data.sample import Sample, Task, task_of
from seglens.errors import SettingError, UnknownNameError


def task(*classes: str, merged: tuple[str, ...] = (), unused: tuple[str, ...] = ()) -> Task:
    return Task(classes=("background", *classes), merged=merged, unused=unused)


@pytest.mark.parametrize(
    ("ours", "theirs", "class_map", "table"),
    [
        (task("blue", "red"), task("red", "blue"), {}, (0, 2, 1)),
        (task("blue", "red"), task("red", unused=("blue",)), {}, (0, 2)),
        (task("red"), task("red", unused=("green",)), {}, (0, 1)),
        (Task(classes=("other", "red")), task("red"), {}, (0, 1)),
        (Task(classes=("road", "car")), Task(classes=("car", "road")), {}, (1, 0)),
        (task("cat"), task("kitty"), {"kitty": "cat"}, (0, 1)),
        (task("pet"), task("cat", "dog"), {"cat": "pet", "dog": "pet"}, (0, 1, 1)),
        (task("cat"), task("dog", "cat"), {"dog": "background"}, (0, 0, 1)),
        (task("a", "b"), task("a", unused=("c",)), {"c": "b"}, (0, 1)),
        # Masks that name nothing, and a model of one class.
        (task("pet"), Task(), {}, (0, 1)),
        (task("foreground", merged=("cat", "dog")), Task(), {}, (0, 1)),
        # One foreground of several categories.
        (task("foreground", merged=("cat", "dog")), task("dog", "cat"), {}, (0, 1, 1)),
        (task("foreground", merged=("cat", "dog")), task("dog", unused=("cat",)), {}, (0, 1)),
        (task("foreground", merged=("cat", "dog")), task("foreground", merged=("dog", "cat")), {}, (0, 1)),
        (task("foreground", merged=("cat", "dog")), task("cow"), {"cow": "foreground"}, (0, 1)),
    ],
)
def test_classes_go_by_their_names(ours, theirs, class_map, table):
    assert class_table(ours, theirs, class_map) == table


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (task("blue", "red"), task("red"), r"list no 'blue'. The model has background, blue, red; the data"),
        (task("red"), task("red", "green"), r"knows no 'green'.*--class-map green=red.*--classes"),
        (task("red", "sky"), task("Red", "sky"), r"if 'Red' means 'red', --class-map Red=red"),
        (task("foreground", merged=("cat", "dog")), task("cow", "pig"), r"merged from cat, dog"),
        (task("foreground", merged=("cat", "dog")), task("cat"), r"the data list no 'dog'"),
        (task("cat"), task("foreground", merged=("cat", "dog")), r"knows no 'foreground'.*from cat, dog"),
        (Task(), task("foreground", merged=("cat", "dog")), r"merged from cat, dog"),
        (Task(), task("pet"), r"--class-map pet=foreground"),
        (task("a", "b"), Task(), r"knows no 'foreground'.*--classes names the values 0, 1"),
        (Task(classes=("road", "car")), task("road", "car"), r"knows no 'background'"),
    ],
)
def test_other_classes_are_refused(ours, theirs, message):
    with pytest.raises(SettingError, match=message):
        class_table(ours, theirs)


def test_a_map_names_what_is_there():
    with pytest.raises(UnknownNameError, match=r"class of the data 'kity'. Did you mean 'kitty'"):
        class_table(task("cat"), task("kitty"), {"kity": "cat"})
    with pytest.raises(UnknownNameError, match=r"class of the model 'cats'. Did you mean 'cat'"):
        class_table(task("cat"), task("kitty"), {"kitty": "cats"})


def test_spaces_around_names_are_no_part_of_them():
    assert class_table(task("red cell"), task(" red  cell ")) == (0, 1)
    assert class_table(task("cat"), task("kitty"), {"kitty ": " cat"}) == (0, 1)
    assert task_of(("background", "e\u0301clair"), what="") == task_of(("background", "\u00e9clair"), what="")
    with pytest.raises(SettingError, match=r"'cat' is named twice"):
        task("cat", "cat ")


def test_what_is_advised_is_for_a_shell():
    with pytest.raises(SettingError, match=r"--class-map 'grey mater=grey matter'"):
        class_table(task("grey matter"), task("grey mater"))


def test_masks_hold_the_indices_of_the_model():
    mask = torch.tensor([[0, 1], [2, 2]])
    read = Sample("a", torch.zeros(3, 2, 2), mask, torch.ones(2, 2, dtype=torch.bool))
    split = Split("test", task("red", "blue"), (Entry("a", Path("a.png")),), lambda entry: read)
    found = in_classes_of(task("blue", "red"), split)
    assert found.task == task("blue", "red")
    made = found[0].mask
    assert made is not None
    assert made.tolist() == [[0, 2], [1, 1]]


def test_labels_that_may_overlap_are_put_in_the_order_of_the_model():
    layers = torch.tensor([[[1, 0]], [[1, 1]]], dtype=torch.bool)
    read = Sample("a", torch.zeros(3, 1, 2), layers, torch.ones(1, 2, dtype=torch.bool))
    kinds = {"multilabel": True}
    split = Split(
        "test", task("red", "blue").model_copy(update=kinds), (Entry("a", Path("a.png")),), lambda _: read
    )
    ours = task("blue", "red").model_copy(update=kinds)
    made = in_classes_of(ours, split)[0].mask
    assert made is not None
    assert made.int().tolist() == [[[1, 1]], [[1, 0]]]
    with pytest.raises(SettingError, match="hold one class a pixel, those of the data may overlap"):
        in_classes_of(task("blue", "red"), split)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("background", "cat", "cat"), "'cat' is named twice.*rename"),
        (("other", "cat", "Background"), "'Background' can't be the background: that is the first, 'other'"),
    ],
)
def test_names_that_a_task_refuses(classes, message):
    with pytest.raises(SettingError, match=message):
        task_of(classes, what="--classes")
