"""Plans: passes of the model as they are counted when the explanation is made."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from seglens.arguments.byte_sizes import say_seconds
from seglens.errors import SettingError
from seglens.explain import METHODS, explain
from seglens.explain.costs import COSTS
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.methods import ON_INPUT, ON_LAYERS, Method
from seglens.explain.plan import PassPlan, Plan, WindowsPlan, plan
from seglens.explain.sampled import ExpectedGradients
from seglens.explain.target import Target
from seglens.models.segmenter import Segmenter

LAYERS = ("deep.1", "up.1")
"""Batch norms: no channel is dead, which methods would leave out."""


@contextmanager
def counting(size: tuple[int, int]) -> Iterator[Counter[str]]:
    """Count pictures of ``size`` that go forward through a `Segmenter`, and calls of ``autograd.grad``.

    Pictures of other sizes are trials of faster copies of the model, on a noise image of its own size.
    """
    counts: Counter[str] = Counter()

    def note(module, given) -> None:
        if isinstance(module, Segmenter) and given[0].shape[-2:] == size:
            counts["forwards"] += len(given[0])
            counts["last"] = len(given[0])

    grad = torch.autograd.grad

    def counted(*args, **kwargs):
        counts["backwards"] += counts["last"]
        return grad(*args, **kwargs)

    handle = register_module_forward_pre_hook(note)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", counted)
        yield counts
    handle.remove()


@pytest.fixture
def targets(pixels) -> list[Target]:
    return [Target("region", 1, pixels), Target("rest", 0, ~pixels)]


@pytest.fixture(autouse=True)
def _trials_are_of_another_size(run) -> None:
    run.segmenter.spec = run.segmenter.spec.model_copy(update={"image_size": 64})


def test_every_method_with_settings_says_what_it_costs() -> None:
    assert set(COSTS) == {*ON_INPUT, *ON_LAYERS}


@pytest.mark.parametrize("method", METHODS)
def test_passes_are_those_that_are_counted(run, images, targets, short, method) -> None:
    asked = [short[method]]
    planned = plan(run, images, targets, methods=asked, layers=LAYERS)
    with counting((32, 40)) as counts:
        explain(run, images, targets, methods=asked, layers=LAYERS)
    assert planned.forwards == counts["forwards"]
    assert planned.backwards == counts["backwards"]


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_passes_in_small_chunks_are_counted(run, images, targets, short, method, batch_size):
    """3 pictures are a chunk of two and a lone one, or three lone ones: Ablation-CAM tries those twice."""
    asked: dict[str, Any] = {"methods": [short[method]], "layers": LAYERS, "batch_size": batch_size}
    planned = plan(run, images, targets, **asked)
    with counting((32, 40)) as counts:
        explain(run, images, targets, **asked)
    assert planned.forwards == counts["forwards"]
    assert planned.backwards == counts["backwards"]


def test_random_baselines_multiply_the_steps(run, images, targets) -> None:
    settings = IntegratedGradients(baseline="random", draws=2, steps=3)
    found = plan(run, images, targets[0], methods=[settings])
    assert found.forwards == 3 * (1 + 2 + 2 * 3)


def test_steps_that_may_be_doubled_are_told(run, images, targets) -> None:
    """2, 4, 8 and 16 steps are tried, where nothing is good enough; 2 of them are certain."""
    settings = IntegratedGradients(steps=2, max_steps=20, tolerance=1e-12)
    found = plan(run, images, targets[0], methods=[settings])
    with counting((32, 40)) as counts:
        explain(run, images, targets[0], methods=[settings])
    assert found.forwards == 3 * (2 + 2)
    assert found.passes[0].extra == 3 * (4 + 8 + 16)
    assert counts["forwards"] == found.forwards + found.passes[0].extra
    assert found.rows()[0]["forwards"] == "12 to 96"


def test_a_few_pictures_stand_for_many(run, images, targets) -> None:
    """References are looked at once in each of the 4 calls of explain."""
    settings = ExpectedGradients(num_samples=5, references=torch.rand(2, 3, 32, 40))
    asked: list[Method] = ["grad-cam", settings]
    found = plan(run, images, targets[0], methods=asked, layers=LAYERS, num_images=50, per_call=16)
    assert [entry.forwards for entry in found.passes] == [50, 50 * (1 + 5) + 4 * 2]
    assert found.passes[0].batch_size == 16
    assert found.num_images == 50


@pytest.mark.parametrize("memory", [None, 10**9])
def test_a_plan_leaves_the_pictures_unexplained_and_the_model_as_it_was(run, images, targets, memory) -> None:
    """With a budget 3 masks of one picture are tried, and the fourth is not begun: is one within it?"""
    run.segmenter.train()
    before = {name: value.clone() for name, value in run.segmenter.state_dict().items()}
    asked: dict[str, Any] = {"methods": ["rise"], "num_images": 1000, "memory": memory}
    with counting((32, 40)) as counts:
        planned = plan(run, images[:1], targets[0].select(slice(0, 1)), **asked)
    assert planned.forwards == 1000 * 1000
    assert counts["forwards"] == (0 if memory is None else 3 + 1)
    assert run.segmenter.training
    assert all(torch.equal(value, before[name]) for name, value in run.segmenter.state_dict().items())
    assert not any(module._forward_pre_hooks for module in run.segmenter.modules())


def test_a_plan_keeps_to_the_budget(run, images, targets) -> None:
    with pytest.raises(SettingError, match="more than the budget of 1 KB"):
        plan(run, images, targets[0], methods=["integrated-gradients"], memory=1000)
    one, eight = (plan(run, images, targets[0], methods=["occlusion"], batch_size=num) for num in (1, 8))
    assert (one.passes[0].batch_size, eight.passes[0].batch_size) == (1, 8)


@pytest.mark.parametrize("asked", [{"batch_size": 0}, {"num_images": 0}, {"per_call": -1}])
def test_numbers_that_nobody_means_are_refused(run, images, targets, asked) -> None:
    with pytest.raises(SettingError, match=r"is (0|-1), but must be (from 1 to|at least 1)"):
        plan(run, images, targets[0], layers=("deep",), **asked)


def test_sums_and_the_table() -> None:
    first = PassPlan(("grad-cam", "saliency"), 20, 40, 0, 16)
    second = PassPlan(("rise",), 10_000, 0, 0, 8)
    found = Plan(10, (32, 40), 2, (first, second), seconds=77.0)
    assert (found.forwards, found.backwards) == (10_020, 40)
    assert (found.to_json()["seconds"], found.to_json()["forwards"]) == (77.0, 10_020)
    rows = found.rows()
    assert rows[0] == {
        "methods": "grad-cam saliency",
        "forwards": "20",
        "backwards": "40",
        "batch_size": "16",
        "time": "",
    }
    assert rows[2]["methods"] == "all, 10 pictures of 32 x 40"
    assert rows[2]["time"] == "about 1 min 17 s"
    large = Plan(0, (32, 40), 1, (), WindowsPlan(2, 50, 150))
    assert [row["forwards"] for row in large.rows()] == ["at most 150", "150"]
    assert large.rows()[-1]["time"] == ""


def test_durations_are_said_as_people_do() -> None:
    assert [say_seconds(s) for s in (0.0423, 7.0, 75.0, 7300.0)] == [
        "0.042 s",
        "7 s",
        "1 min 15 s",
        "2 h 1 min",
    ]
