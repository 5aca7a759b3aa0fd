"""Budgets of memory: what is measured against sums by hand, and results that no chunk size changes."""

import gc

import pytest
import torch
from torch import nn

from seglens.arguments.byte_sizes import parse_bytes, say_bytes
from seglens.errors import SettingError
from seglens.explain import METHODS, explain, memory
from seglens.explain.explanation import Explanation
from seglens.explain.memory import Need, Needs
from seglens.explain.methods import sorted_out
from seglens.explain.passes import passes
from seglens.explain.target import Target
from seglens.explain.watch import LiveBytes, metering
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


def test_laps_begin_with_what_is_alive() -> None:
    with LiveBytes() as live:
        kept = torch.zeros(256)
        torch.zeros(512)
        assert live.lap() == 3 * 1024
        assert live.lap() == 1024
        del kept
        assert live.lap() == 1024
        assert live.lap() == 0


def test_a_view_is_counted_once() -> None:
    with LiveBytes() as live:
        whole = torch.zeros(256)
        parts = [whole[:10], whole.view(16, 16), whole.add_(1)]
    assert live.peak == live.live == 1024
    del whole, parts
    assert live.live == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bytes_on_a_gpu_are_those_of_its_allocator() -> None:
    with metering(torch.device("cuda")) as meter:
        torch.zeros(MIB, device="cuda")
        assert 4 * MIB <= meter.lap() < 5 * MIB
        assert meter.lap() == 0


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


def test_halved_chunks_change_no_result(run, images, target, short, monkeypatch) -> None:
    methods = list(short.values())
    whole = explain(run, images, target, methods=methods, layers=("deep",), batch_size=8)
    forward = type(run.segmenter).forward

    def small(self, images):
        if len(images) > 2:  # one picture alone goes through the model twice in Ablation-CAM
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return forward(self, images)

    monkeypatch.setattr(type(run.segmenter), "forward", small)
    found = explain(run, images, target, methods=methods, layers=("deep",), batch_size=8)
    for key, expected in whole.items():
        assert_same(found[key], expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_pass_stays_within_its_budget(make_unet, make_run, short, method) -> None:
    """The tensors of the pass itself, as they are counted while it runs in full."""
    run = make_run(make_unet())
    run.segmenter.spec = run.segmenter.spec.model_copy(update={"image_size": 32})
    images = torch.rand(4, 3, 32, 40)
    target = Target("region", 1, torch.ones(4, 32, 40, dtype=torch.bool))
    step = passes(run.segmenter, sorted_out([short[method]]), ("deep", "up"), seed=0)[0]
    need = memory.measure(step, run.segmenter, images, [target])
    batch_size = memory.batch_size_of(
        step, run.segmenter, images, [target], num=4, batch_size=None, memory=need.of(3)
    )
    assert 3 <= batch_size <= 4
    with LiveBytes() as live:
        step.work(images, [target], 3)
    assert 0.4 * need.of(3) <= live.peak <= need.of(3)


def test_a_budget_that_one_picture_breaks(run, images, target) -> None:
    with pytest.raises(SettingError, match=r"grad-cam on one picture of 32 x 40 pixels takes about .*1 KB"):
        explain(run, images, target, layers=("deep",), memory=1000)


def test_chunks_follow_from_the_budget() -> None:
    need = Needs((Need(fixed=100, each=30),))
    assert [need.most(budget) for budget in (129, 130, 159, 160, 1000)] == [0, 1, 1, 2, 30]
    assert need.of(30) <= 1000 < need.of(31)
    both = Needs((Need(fixed=100, each=30), Need(fixed=500, each=1)))
    assert (both.of(2), both.of(20)) == (502, 700)
    assert [both.most(budget) for budget in (500, 502, 700)] == [0, 2, 20]
    assert Need.through(2, 160, 220) == Need(fixed=100, each=30)
    assert Need.through(1, 160, 160) == Need(fixed=159, each=1)


@pytest.mark.parametrize(("free", "expected"), [(10**12, 16), (2**20, 1)])
def test_without_a_budget_a_chunk_is_no_more_than_is_free(
    run, images, target, monkeypatch, free, expected
) -> None:
    step = passes(run.segmenter, sorted_out(["grad-cam"]), ("deep", "up"), seed=0)[0]
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    found = memory.batch_size_of(step, run.segmenter, images, [target], num=50, batch_size=None, memory=None)
    assert found == expected


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
