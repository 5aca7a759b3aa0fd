"""Budgets of memory: what is measured against sums by hand, and results that no chunk size changes."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from seglens.arguments.byte_sizes import parse_bytes, say_bytes
from seglens.errors import NoMemoryError, SettingError
from seglens.explain import METHODS, explain, memory
from seglens.explain.explanation import Explanation
from seglens.explain.integrated import IntegratedGradients
from seglens.explain.memory import SCRATCH, LiveBytes, OverBudgetError
from seglens.explain.sampled import SmoothGrad
from seglens.explain.target import Target
from seglens.models.segmenter import Segmenter
from seglens.runtime import device
from seglens.runtime.device import free_bytes

MIB = 2**20


@pytest.fixture
def target(pixels) -> Target:
    return Target("region", 1, pixels)


@pytest.fixture
def stack() -> nn.Sequential:
    """Ten convolutions with a ReLU each; a picture of 4 x 256 x 256 floats, and every output, is 1 MiB."""
    parts = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(10)]
    return nn.Sequential(*parts).requires_grad_(False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4096", 4096), ("4GB", 4 * 10**9), ("1.5 gb", 15 * 10**8), ("512MiB", 512 * MIB), ("1KiB", 1024)],
)
def test_amounts_are_written_as_people_write_them(text, expected) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "4XB", "-4GB", "0", "0.4", "4 G B"])
def test_other_amounts_are_refused(text) -> None:
    with pytest.raises(SettingError, match="no amount of memory"):
        parse_bytes(text)


def test_bytes_are_said_with_three_digits() -> None:
    assert [say_bytes(n) for n in (999, 1500, 2_345_678, 4 * 10**9)] == ["999 B", "1.5 KB", "2.35 MB", "4 GB"]


def test_bytes_of_a_plain_forward_pass(stack) -> None:
    """At most a copy of the picture, the input of a layer and its two outputs are alive."""
    images = torch.rand(1, 4, 256, 256)
    with torch.no_grad(), LiveBytes() as live:
        stack(images.clone())
    assert live.peak == 4 * MIB
    gc.collect()
    assert live.live == 0


def test_bytes_that_autograd_keeps_for_the_backward_pass(stack) -> None:
    """The input and the output of ten ReLUs are kept; the backward pass adds a gradient or two."""
    with LiveBytes() as live:
        inputs = torch.rand(1, 4, 256, 256).requires_grad_()
        score = stack(inputs).sum()
        assert live.live == 11 * MIB + 4
        torch.autograd.grad(score, inputs)
    assert 12 * MIB <= live.peak <= 14 * MIB


def test_a_view_is_counted_once() -> None:
    with LiveBytes() as live:
        whole = torch.zeros(256)
        parts = [whole[:10], whole.view(16, 16), whole.add_(1)]
    assert live.peak == live.live == 1024
    del whole, parts
    assert live.live == 0


def assert_same(found: Explanation, expected: Explanation) -> None:
    """Up to rounding: as a share of the map's maximum, and of the scores that some are differences of."""
    assert found.status == expected.status
    scored = {"score-cam": 1e-5, "ablation-cam": 1e-5, "occlusion": 1e-6, "superpixel-occlusion": 1e-6}
    most = expected.map.nan_to_num().abs().max().item()
    least = scored.get(found.method, 1e-7)
    torch.testing.assert_close(
        found.map,
        expected.map,
        atol=2e-5 * most + least,
        rtol=0,
        equal_nan=True,
        msg=lambda text: found.name + text,
    )


def test_no_chunk_and_no_budget_changes_a_result(run, images, target, short) -> None:
    methods = list(short.values())
    whole = explain(run, images, target, methods=methods, layers=("deep", "up"), batch_size=1000)
    for batch_size, budget in ((1, None), (2, None), (7, None), (None, 60_000_000)):
        found = explain(
            run, images, target, methods=methods, layers=("deep", "up"), batch_size=batch_size, memory=budget
        )
        assert list(found) == list(whole)
        for key, expected in whole.items():
            assert_same(found[key], expected)


@contextmanager
def sizes_of(run, most: int = 1000, error: Exception | None = None) -> Iterator[list[int]]:
    """Note how many pictures are in each call of a model; more than ``most`` are an ``error``."""
    forward, sizes = Segmenter.forward, []

    def small(self, images, **how):
        sizes.append(len(images))
        if error is not None and len(images) > most:
            raise error
        return forward(self, images, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmenter, "forward", small)
        yield sizes


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory (pretended)"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
)


@pytest.mark.parametrize("method", METHODS)
def test_halved_chunks_give_what_small_ones_give(run, images, target, short, method) -> None:
    """Bit for bit: after 8 and 4 the chunks are those of 2 pictures from the beginning."""
    asked: dict[str, Any] = {"methods": [short[method]], "layers": ("deep",)}
    small = explain(run, images, target, batch_size=2, **asked)
    # One picture alone goes through the model twice in Ablation-CAM, and its chunk of 2 with one more.
    most = 3 if method == "ablation-cam" else 2
    with sizes_of(run, most, OUT_OF_MEMORY[0]) as sizes:
        found = explain(run, images, target, batch_size=8, **asked)
    assert max(sizes) > most
    for key, expected in small.items():
        assert found[key].status == expected.status
        torch.testing.assert_close(found[key].map, expected.map, atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_memory_that_ends_with_one_picture(run, images, target, error) -> None:
    with (
        sizes_of(run, 0, error) as sizes,
        pytest.raises(
            NoMemoryError, match=r"grad-cam on one picture of 32 x 40 pixels takes more memory than"
        ),
    ):
        explain(run, images, target, layers=("deep",))
    assert sizes == [3, 2, 1]


def test_other_errors_end_the_work_at_once(run, images, target) -> None:
    with (
        sizes_of(run, 0, RuntimeError("shapes differ")) as sizes,
        pytest.raises(RuntimeError, match="shapes"),
    ):
        explain(run, images, target, layers=("deep",))
    assert sizes == [3]


def bytes_of_one(run, images, target, **asked: Any) -> int:
    """Bytes that are needed for one picture, as they are said where nothing is allowed."""
    with pytest.raises(SettingError) as caught:
        explain(run, images[:1], target.select(slice(0, 1)), memory=1, **asked)
    assert isinstance(caught.value.__cause__, OverBudgetError)
    return caught.value.__cause__.bytes


def bytes_of_maps(found: Sequence[Explanation]) -> int:
    """What comes back doesn't count."""
    kept = [
        value
        for entry in found
        for value in (entry.map, entry.grid, entry.channels, *entry.diagnostics.values())
        if value is not None
    ]
    return sum(value.nbytes for value in kept)


@pytest.mark.parametrize("method", METHODS)
def test_a_pass_stays_within_its_budget(make_unet, make_run, short, method) -> None:
    """The tensors are counted by another counter around all of it, results included."""
    run = make_run(make_unet())
    run.segmenter.spec = run.segmenter.spec.model_copy(
        update={"image_size": 32}
    )  # layers are looked up on it
    images = torch.rand(8, 3, 32, 40)
    target = Target("region", 1, torch.ones(8, 32, 40, dtype=torch.bool))
    asked: dict[str, Any] = {"methods": [short[method]], "layers": ("deep", "up")}
    budget = round(3 * bytes_of_one(run, images, target, **asked) * SCRATCH)
    with LiveBytes() as live, sizes_of(run) as sizes:
        found = explain(run, images, target, memory=budget, **asked)
    assert max(sizes) >= 8 > sizes[-1]
    if method in ("grad-cam", "saliency"):  # one call of the model for each chunk
        assert sizes == [8, 4, 2, 2, 2, 2]
    largest = max(sizes) * 24 * 32 * 40 * 4  # the one with which a chunk of 8 was too much
    assert live.peak <= budget / SCRATCH + largest + 3 * bytes_of_maps(list(found.values()))


def test_a_budget_that_one_picture_breaks(run, images, target) -> None:
    with pytest.raises(SettingError, match=r"grad-cam on one picture of 32 x 40 pixels takes about .*1 KB"):
        explain(run, images, target, layers=("deep",), memory=1000)


def test_the_budget_that_is_named_suffices(run, images, target) -> None:
    """What is said of one picture is what it takes."""
    one = bytes_of_one(run, images, target, layers=("deep",))
    with pytest.raises(SettingError, match="more than the budget"):
        explain(run, images, target, layers=("deep",), memory=round((one - 1) * SCRATCH) - 1)
    with sizes_of(run) as sizes:
        explain(run, images, target, layers=("deep",), memory=round((one + 1) * SCRATCH) + 1)
    assert sizes[-3:] == [1, 1, 1]


def test_a_budget_that_is_kept_changes_nothing(run, images, target, short) -> None:
    """Bit for bit: counting is not computing."""
    methods = list(short.values())
    whole = explain(run, images, target, methods=methods, layers=("deep",))
    found = explain(run, images, target, methods=methods, layers=("deep",), memory=10**12)
    for key, expected in whole.items():
        torch.testing.assert_close(found[key].map, expected.map, atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("share", [1.2, 1.7, 2.2, 3.0])
def test_nothing_counts_twice_where_a_budget_ends_a_chunk(run, images, target, share) -> None:
    """Sums over the points of a path, wherever in the work the budget ends."""
    asked: dict[str, Any] = {"methods": [IntegratedGradients(steps=4), SmoothGrad(num_samples=3)]}
    whole = explain(run, images, target, **asked)
    budget = round(share * bytes_of_one(run, images, target, **asked) * SCRATCH)
    found = explain(run, images, target, memory=budget, **asked)
    for key, expected in whole.items():
        assert_same(found[key], expected)


@pytest.mark.parametrize(("free", "last"), [(10**12, 3), (2**20, 1)])
def test_without_a_budget_a_chunk_is_no_more_than_is_free(
    run, images, target, monkeypatch, free, last
) -> None:
    """One picture is tried all the same."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    monkeypatch.setattr(memory, "LEFT", 0.05)
    with sizes_of(run) as sizes:
        explain(run, images, target, layers=("deep", "up"))
    assert sizes[-1] == last


def test_a_chunk_in_a_chunk_is_held_to_the_budget_of_the_outer_one() -> None:
    with LiveBytes(limit=1024) as live:
        before = torch.zeros(1024)
        with live.chunk(alone=False):
            outer = torch.zeros(128)
            with pytest.raises(OverBudgetError) as caught, live.chunk(alone=False):
                torch.zeros(129)
            assert caught.value.bytes == 257 * 4
            with pytest.raises(OverBudgetError) as caught, live.chunk(alone=True):
                torch.zeros(300).neg()  # to the end
            assert caught.value.bytes == (128 + 2 * 300) * 4
            live.keep()
            torch.zeros(2000)
            del outer
    assert len(before) == 1024


def test_free_memory_is_what_the_system_says_or_what_a_container_may_take(tmp_path, monkeypatch) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:       100 kB\nMemAvailable:    50 kB\nHugePages_Total:       0\n")
    monkeypatch.setattr(device, "MEMINFO", told)
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    assert free_bytes(torch.device("cpu")) == 50 * 1024
    assert free_bytes(torch.device("cuda")) is None
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(torch.device("cpu")) == 50 * 1024
    (tmp_path / "memory.max").write_text("11000\n")
    assert free_bytes(torch.device("cpu")) == 10_000
    monkeypatch.setattr(device, "MEMINFO", tmp_path / "none")
    assert free_bytes(torch.device("cpu")) is None
