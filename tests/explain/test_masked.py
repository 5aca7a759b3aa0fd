"""The perturbation engine: scores by row against scores one by one, whatever the chunks and the memory."""

import pytest
import torch
from torch import nn

from seglens import wrap
from seglens.errors import SettingError
from seglens.explain import masked
from seglens.explain.masked import (
    Prepared,
    clean_scores,
    faded,
    prepare,
    rank_agreement,
    score_copies,
)
from seglens.explain.target import Target
from seglens.models.segmenter import ModelSpec, Segmenter, each_pass
from seglens.runtime import device


@pytest.fixture
def run():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))
    return wrap(module, classes=("background", "cell"), mean=(0.5,) * 3, std=(0.25,) * 3, image_size=16)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def target() -> Target:
    pixels = torch.zeros(3, 16, 16, dtype=torch.bool)
    for row in range(3):
        pixels[row, 2 : 6 + row, 3:9] = True
    return Target("box", 1, pixels)


ROWS = torch.tensor([0, 2, 2, 1, 0, 1, 2])


def masked_scores(segmenter, *asked, **how):
    """`score_copies` by the model as it is."""
    return score_copies(Prepared(segmenter), *asked, **how)


def prepared_scores(segmenter, images, targets, rows, perturb, *, unit="probability", batch_size=16, **how):
    """`masked_scores` by a model that is prepared for this call."""
    model = prepare(segmenter, images, forwards=len(rows), batch_size=batch_size, **how)
    return score_copies(model, images, targets, rows, perturb, unit=unit, batch_size=batch_size)


def dim(images: torch.Tensor, copies: torch.Tensor) -> torch.Tensor:
    """Copy i is darkened by i tenths."""
    return images * (1 - copies.to(images) / 10)[:, None, None, None]


@pytest.mark.parametrize("unit", ["sum", "mean", "probability"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_scores_are_those_of_the_copies_one_by_one(run, images, target, unit, batch_size) -> None:
    found = masked_scores(run.segmenter, images, (target,), ROWS, dim, unit=unit, batch_size=batch_size)[0]
    for copy, row in enumerate(ROWS.tolist()):
        logit = run.predict(images[row : row + 1] * (1 - copy / 10)).logits[0, 0][target.pixels[row]]
        expected = {"sum": logit.sum(), "mean": logit.mean(), "probability": logit.sigmoid().mean()}[unit]
        torch.testing.assert_close(found[copy], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("pixels", "passes"), [(1, [1] * 7), (2 * 16**2, [2, 2, 2, 1]), (8 * 16**2, [7])])
def test_a_cpu_gets_few_pixels_at_once(run, images, target, monkeypatch, pixels, passes) -> None:
    expected = masked_scores(run.segmenter, images, (target,), ROWS, dim)
    monkeypatch.setattr(device, "PIXELS", pixels)
    seen: list[int] = []
    with each_pass(seen.append):
        found = masked_scores(run.segmenter, images, (target,), ROWS, dim)
    assert seen == passes
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert device.at_once((16, 16), torch.device("cuda"), 9) == 9


def test_memory_that_runs_out_halves_the_chunk(run, images, target) -> None:
    sizes = []

    def greedy(copies: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        sizes.append(len(copies))
        if len(copies) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return dim(copies, which)

    found = masked_scores(run.segmenter, images, (target,), ROWS, greedy, unit="mean", batch_size=8)[0]
    torch.testing.assert_close(
        found, masked_scores(run.segmenter, images, (target,), ROWS, dim, unit="mean")[0]
    )
    assert sizes[:3] == [7, 4, 2]


def test_memory_that_is_not_enough_for_one_copy_is_an_error(run, images, target) -> None:
    def hopeless(copies: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory (pretended)")

    with pytest.raises(torch.OutOfMemoryError, match="pretended"):
        masked_scores(run.segmenter, images, (target,), ROWS, hopeless)[0]


def test_the_model_is_left_as_found(run, images, target) -> None:
    run.segmenter.train()
    before = {name: value.clone() for name, value in run.segmenter.state_dict().items()}
    scores = masked_scores(run.segmenter, images, (target,), ROWS, dim)[0]
    assert run.segmenter.training
    assert not scores.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in run.segmenter.state_dict().items())


def test_a_picture_without_a_target_scores_nan(run, images, target) -> None:
    pixels = target.pixels.clone()
    pixels[1] = False
    scores = clean_scores(run.segmenter, images, (Target("box", 1, pixels),))[0]
    assert scores.isnan().tolist() == [False, True, False]


# Precision and compilation.


@pytest.fixture
def own() -> Segmenter:
    """A network of our own, with batch norms that are no identities, in training mode."""
    torch.manual_seed(0)
    spec = ModelSpec(architecture="unet", width=4, image_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    segmenter = Segmenter.from_spec(spec)
    for module in segmenter.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return segmenter.train()


def test_a_prepared_model_gives_the_same_scores_and_leaves_the_given_one_alone(own, images, target) -> None:
    before = {name: value.clone() for name, value in own.state_dict().items()}
    model = prepare(own, images, forwards=7, batch_size=4)
    assert model.segmenter is not own
    found = score_copies(model, images, (target,), ROWS, dim, unit="mean", batch_size=4)
    expected = masked_scores(own, images, (target,), ROWS, dim, unit="mean")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(module.training for module in own.modules())
    assert all(parameter.requires_grad for parameter in own.parameters())
    assert all(value.is_contiguous() for value in own.state_dict().values())
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_half_precision_keeps_the_scores_to_a_percent_whatever_the_chunk(
    own, images, target, batch_size
) -> None:
    found = prepared_scores(
        own, images, (target,), ROWS, dim, unit="mean", batch_size=batch_size, precision="bf16"
    )
    expected = masked_scores(own, images, (target,), ROWS, dim, unit="mean")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02 * expected.abs().max().item())
    assert not torch.equal(found, expected)


def test_the_caller_s_autocast_does_not_reach_the_judges(run, images, target) -> None:
    expected = clean_scores(run.segmenter, images, (target,))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clean_scores(run.segmenter, images, (target,)), expected)


class Compiled(nn.Module):
    """Stands for a compiled network: it notes the shapes that a compiler would see."""

    def __init__(self, network: nn.Module, sizes: list[int], limit: int) -> None:
        super().__init__()
        self.network, self.sizes, self.limit = network, sizes, limit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return self.network(images)


@pytest.fixture
def compiler(monkeypatch) -> list[int]:
    """Compilation that is quick; the sizes of chunks are noted."""
    sizes: list[int] = []
    monkeypatch.setattr(torch, "compile", lambda network, **options: Compiled(network, sizes, 100))
    return sizes


def test_a_compiled_network_sees_one_size_of_chunk_only(own, images, target, compiler) -> None:
    found = prepared_scores(own, images, (target,), ROWS, dim, unit="mean", batch_size=4, compile="always")
    expected = masked_scores(own, images, (target,), ROWS, dim, unit="mean")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert compiler == [4, 4, 4]  # once to compile, then 4 and 3 copies
    assert prepare(own, images, forwards=7, batch_size=4, compile="always").seconds > 0


def test_a_foreign_network_is_left_alone_when_it_is_compiled(run, images, target, compiler) -> None:
    run.segmenter.train()
    prepared_scores(
        run.segmenter, images, (target,), ROWS, dim, batch_size=4, precision="bf16", compile="always"
    )
    assert all(module.training for module in run.segmenter.modules())
    assert all(parameter.is_contiguous() for parameter in run.segmenter.parameters())
    assert compiler == [4, 4, 4]


def test_a_compiled_network_halves_its_chunk_too(own, images, target, monkeypatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(torch, "compile", lambda network, **options: Compiled(network, sizes, 100))
    model = prepare(own, images, forwards=7, batch_size=4, compile="always")
    network = model.segmenter.module
    assert isinstance(network, Compiled)
    network.limit = 2
    found = score_copies(model, images, (target,), ROWS, dim, unit="mean", batch_size=4)
    expected = masked_scores(own, images, (target,), ROWS, dim, unit="mean")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert sizes == [4, 4, 2, 2, 2, 1]  # the first size that fits what is left


def test_few_forwards_are_not_compiled(own, images, target, compiler) -> None:
    prepared_scores(own, images, (target,), ROWS, dim, compile="auto")
    assert compiler == []


def test_many_forwards_are_compiled_where_that_is_quicker(own, images, compiler, monkeypatch) -> None:
    monkeypatch.setattr(masked, "PAYS", 100)
    for seconds, kept in (({True: 1.0, False: 2.0}, True), ({True: 2.0, False: 1.0}, False)):
        monkeypatch.setattr(masked, "_seconds", lambda model, trial, took=seconds: took[model.size > 0])
        assert (prepare(own, images, forwards=1000, batch_size=4, compile="auto").size > 0) is kept


def test_without_a_compiler_it_says_so_and_goes_on(own, images, target, monkeypatch) -> None:
    def broken(network: nn.Module, **options: object) -> nn.Module:
        class Broken(nn.Module):
            def forward(self, images: torch.Tensor) -> torch.Tensor:
                raise RuntimeError("No working C++ compiler found\nand a long log")

        return Broken()

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(
        UserWarning, match="runs uncompiled.*No working C\\+\\+ compiler found. Install"
    ) as said:
        found = prepared_scores(
            own, images, (target,), ROWS, dim, unit="mean", batch_size=2, compile="always"
        )
    assert len(said) == 1
    expected = masked_scores(own, images, (target,), ROWS, dim, unit="mean")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_settings_that_are_not_there(own, images, target) -> None:
    with pytest.raises(SettingError, match=r"Unknown precision '16'. Allowed: auto, 32, bf16"):
        prepared_scores(own, images, (target,), ROWS, dim, precision="16")
    with pytest.raises(SettingError, match=r"compile is 'yes'. Allowed: never, auto, always"):
        masked.check_compile("yes")


def test_rank_agreement_is_spearman_s(run, images, target) -> None:
    from scipy.stats import spearmanr

    rows = torch.arange(60) % 3
    scores = masked_scores(run.segmenter, images, (target,), rows, dim, unit="mean")
    noisy = (scores + 0.3 * torch.randn(scores.shape)).round(decimals=1)  # with ties
    found = rank_agreement(run.segmenter, images, (target,), rows, dim, noisy, unit="mean")
    for row in range(3):
        mine = (rows == row).nonzero()[:, 0]
        mine = mine[torch.linspace(0, len(mine) - 1, masked.SAMPLE).round().long()]
        expected = spearmanr(noisy[0, mine], scores[0, mine]).statistic
        assert found[0, row].item() == pytest.approx(expected, abs=1e-6)
    few = rank_agreement(run.segmenter, images, (target,), rows[:4], dim, noisy[:, :4], unit="mean")
    assert few.isnan().all()


def test_faded_is_a_mask_on_the_normalised_picture(images) -> None:
    spec = ModelSpec(
        architecture="wrapped", window=(0.1, 0.7), mean=(0.2, 0.5, 0.4), std=(0.3, 0.2, 0.1), classes=2
    )
    segmenter = Segmenter(nn.Conv2d(3, 1, 1), spec)
    masks = torch.rand(3, 16, 16)
    found = segmenter.normalise(faded(segmenter, images, masks))
    torch.testing.assert_close(found, masks[:, None] * segmenter.normalise(images), rtol=1e-4, atol=1e-5)
