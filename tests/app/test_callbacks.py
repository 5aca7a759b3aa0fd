"""What the callbacks of the page return: only what has changed, so that no other choice is lost."""

import gc
from asyncio import BaseEventLoop
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import pytest

import seglens

gradio = pytest.importorskip("gradio", reason="gradio is not installed")


@pytest.fixture
def callbacks(one_run, small_set, tmp_path):
    """The callbacks of a page whose widgets are their names."""
    from seglens.app.callbacks import Callbacks, Widgets

    run = seglens.load(one_run, device="cpu")
    names = Widgets(**{field.name: field.name for field in fields(Widgets)})
    return Callbacks(run, seglens.open_split(run, "test"), tmp_path, names)


def clicked(callbacks, shown, target):
    """Click on native pixel (11, 7) of a picture of 40 x 32."""
    width, height = shown["picture"].size
    place = (11.5 / 40 * width, 7.5 / 32 * height)
    event = gradio.SelectData(target=None, data={"index": place, "value": None})
    rest = ("grad-cam", "decoder_last", callbacks.run.task.classes[1], "(none)", "region", "zero")
    return callbacks.click(shown["seen"], target, *rest, event)


def test_a_click_leaves_what_was_chosen(callbacks):
    opened = callbacks.choose(0, "component")
    shown = clicked(callbacks, opened, "point")
    assert shown["map"]["label"] == "Why: point:11,7 by grad-cam@decoder_last"
    assert not {"target", "class_name"} & set(shown)
    # A click asks about what is under it, whatever was asked before.
    shown = clicked(callbacks, opened, "point:3,4")
    assert shown["target"] == "component"


def test_another_picture_keeps_the_kind_of_question(callbacks):
    for target in ("point", "box", "predicted"):
        shown = callbacks.choose(1, target)["target"]
        assert target in shown["choices"]
        assert "value" not in shown
    for target in ("point:3,4", "component:2"):
        assert callbacks.choose(1, target)["target"]["value"] == "component"


def test_a_kind_that_another_picture_does_not_have(callbacks, small_set, tmp_path):
    picture = next((small_set / "test").rglob("*.png"))
    shown = callbacks.drop(str(picture), "truth-component")["target"]
    assert "truth-component" not in shown["choices"]
    assert shown["value"] == "component"


def test_no_event_loop_is_left_open(one_run):
    """Gradio makes one for each of its locks where none runs; what nobody closes warns at any later time."""

    def open_loops():
        gc.collect()
        loops = [one for one in gc.get_objects() if issubclass(type(one), BaseEventLoop)]
        return {id(one) for one in loops if not one.is_closed()}

    run = seglens.load(one_run, device="cpu")

    def serve():
        before = open_loops()
        seglens.app(run, seglens.open_split(run, "test")).close()
        return open_loops() - before

    with ThreadPoolExecutor() as pool:  # the browser of other tests may have left a loop running in this one
        assert pool.submit(serve).result() == set()
