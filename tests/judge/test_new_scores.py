"""Context, causal agreement, model dependence and stability on models whose answers can be written down."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import seglens
from seglens import wrap
from seglens.errors import SettingError, UnknownNameError
from seglens.explain.explanation import Explanation
from seglens.explain.methods import Method
from seglens.explain.target import Target
from seglens.impute import blurred
from seglens.judge import case as cases
from seglens.judge import effects, evidence, randomisation, rerun, stability
from seglens.judge.case import JudgeSettings, Measured
from seglens.judge.cells import CELLS, cell_means, cell_of_pixel, cell_sums, grid_cells, ranks, spearman
from seglens.judge.context import context_reliance
from seglens.judge.faithfulness import FRACTIONS, road
from seglens.judge.nulls import NULLS, content_free, randomised, surface
from seglens.judge.verdicts import compared_rows

SIZE = 32  # cells of 2 x 2 pixels
NUM = 10


class Contrast(nn.Module):
    """Probability everywhere = mean contrast |2x - 1| over ``where``; ``gain`` is a weight to forget."""

    def __init__(self, where: torch.Tensor) -> None:
        super().__init__()
        self.where = where
        self.gain = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.gain.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        contrast = self.gain((2 * images - 1).abs().mean(1, keepdim=True))[:, 0]
        mean = (contrast * self.where).flatten(1).sum(1) / self.where.sum()
        return torch.logit(mean, eps=1e-6)[:, None, None, None].expand(-1, 1, *images.shape[-2:])


def checkered(cells: torch.Tensor) -> torch.Tensor:
    """Pictures whose 2 x 2 cells are checkerboards .5 +- cell/2: mean .5 everywhere, contrast = cell."""
    sign = (-1.0) ** (torch.arange(SIZE)[:, None] + torch.arange(SIZE)[None])
    return (0.5 + 0.5 * wide(cells) * sign)[:, None].repeat(1, 3, 1, 1)


def wide(cells: torch.Tensor) -> torch.Tensor:
    return cells.repeat_interleave(2, 1).repeat_interleave(2, 2)


def run_of(where: torch.Tensor):
    return wrap(
        Contrast(where.float()),
        classes=("background", "cell"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        image_size=SIZE,
    )


def square(num: int = NUM) -> Target:
    pixels = torch.zeros(num, SIZE, SIZE, dtype=torch.bool)
    pixels[:, 12:20, 12:20] = True
    return Target("square", 1, pixels)


def far() -> torch.Tensor:
    """What is more than a cell away from the square: all but 12 x 12 pixels."""
    where = torch.ones(SIZE, SIZE, dtype=torch.bool)
    where[10:22, 10:22] = False
    return where


@pytest.fixture
def cells() -> torch.Tensor:
    return torch.rand(NUM, CELLS, CELLS, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.4


def case_of(where: torch.Tensor, cells: torch.Tensor, maps: dict[str, torch.Tensor], **changes) -> cases.Case:
    run, images, target = run_of(where), checkered(cells), square(len(cells))
    seen = surface(run, images, target)
    values = {
        "run": run,
        "images": images,
        "target": target,
        "maps": {(name, None): Explanation(name, None, target, heat) for name, heat in maps.items()},
        "seen": seen,
        "nulls": {name: heat for name, heat in content_free(seen).items() if name in ("random", "mirror-4")},
        "valid": torch.ones_like(target.pixels),
        "partition": grid_cells(images, target.pixels, CELLS),
        "settings": JudgeSettings(),
        "explainers": {},
        "seed": 0,
        "chunk": 64,
    }
    return cases.Case(**{**values, **changes})


def test_rank_correlation_is_scipy_s_with_ties_and_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 5, (4, 30), generator=generator).double()
    truth = torch.randn(4, 30, generator=generator).double()
    counted = torch.rand(4, 30, generator=generator) > 0.3
    expected = [
        spearmanr(a[which], b[which]).statistic for a, b, which in zip(values, truth, counted, strict=True)
    ]
    torch.testing.assert_close(spearman(values, truth, counted), torch.tensor(expected), check_dtype=False)
    assert ranks(torch.tensor([3.0, 1.0, 3.0])).tolist() == [2.5, 1, 2.5]
    flat = torch.ones(1, 30).double()
    every = torch.ones(1, 30, dtype=torch.bool)
    assert spearman(flat, truth[:1], every).tolist() == [0]
    assert spearman(truth[:1], flat, every).isnan().all()
    assert spearman(truth[:1] * torch.nan, truth[:1], every).isnan().all()


def test_cells_leave_out_what_is_not_counted() -> None:
    maps = torch.rand(1, SIZE, SIZE)
    counted = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    counted[:, :, 29:] = False
    grid = grid_cells(maps[:, None], counted, CELLS)
    means = cell_means(maps, grid, counted).view(1, CELLS, CELLS)
    assert means[0, :, 15].isnan().all()
    torch.testing.assert_close(means[0, 0, 14].float(), maps[0, :2, 28].mean())
    torch.testing.assert_close(cell_sums(maps, grid, counted)[0, 14].float(), maps[0, :2, 28].sum())


def test_padding_is_neither_ranked_nor_removed_nor_used(cells: torch.Tensor) -> None:
    """A model that reads padding alone can't be moved; what a map says of it changes nothing."""
    valid = torch.ones(NUM, SIZE, SIZE, dtype=torch.bool)
    valid[:, 24:] = False
    heat = wide(cells)
    loud = torch.where(valid, heat, 9.0)
    images, target = checkered(cells), square()
    reads_padding = run_of(~valid[0]).segmenter
    found = road(reads_padding, images, target, {"loud": loud}, valid=valid, chunk=64)["loud"]
    torch.testing.assert_close(found.most_first, found.full[:, None].expand(-1, len(FRACTIONS)))
    reads_picture = run_of(valid[0]).segmenter
    changed = torch.where(valid[:, None], images, 0.9)
    first = road(reads_picture, images, target, {"a": heat, "b": loud}, valid=valid, chunk=64)
    # Noise is keyed by the picture, so that the two differ by it; holes are not filled from the padding.
    second = road(reads_picture, changed, target, {"a": heat}, valid=valid, chunk=64)
    torch.testing.assert_close(first["a"].most_first, first["b"].most_first)
    torch.testing.assert_close(first["a"].most_first, second["a"].most_first, atol=5e-3, rtol=0)


def test_the_context_s_oracle_has_the_curve_of_sorted_cells(cells: torch.Tensor) -> None:
    case = case_of(far(), cells, {"oracle": wide(cells)})
    curves = road(
        case.run.segmenter,
        case.images,
        case.target,
        {"oracle": wide(cells)},
        kept=~far().expand(NUM, -1, -1),
        imputer=lambda images, removed, noise: torch.where(removed[:, None], 0.5, images),
    )["oracle"]
    outside = far()[::2, ::2].flatten()
    falling = cells.flatten(1)[:, outside].sort(1, descending=True).values
    num = falling.shape[1]
    for column, fraction in enumerate(FRACTIONS):
        gone = round(fraction * num)
        torch.testing.assert_close(
            curves.most_first[:, column], falling[:, gone:].sum(1) / num, atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            curves.least_first[:, column], falling[:, : num - gone].sum(1) / num, atol=1e-5, rtol=0
        )
    # A share of what blurring the whole picture takes, as over the whole picture.
    gap = (curves.least_first - curves.most_first).mean(1) / (falling.mean(1) - curves.base)
    torch.testing.assert_close(curves.value, gap, atol=1e-5, rtol=0)


def test_reliance_tells_who_reads_the_context(cells: torch.Tensor) -> None:
    """Of the means c of the contexts: ``1 - mean(c of the four next) / c``."""
    found = context_reliance(case_of(far(), cells, {"any": wide(cells)}))
    context = wide(cells)[:, far()].mean(1)
    others = torch.stack([context.roll(-shift) for shift in range(1, 5)]).mean(0)
    torch.testing.assert_close(found, 1 - others / context, atol=1e-5, rtol=0)
    target = square()
    blind = context_reliance(case_of(target.pixels[0], cells, {"any": wide(cells)}))
    torch.testing.assert_close(blind, torch.zeros(NUM), atol=1e-5, rtol=0)
    alone = context_reliance(case_of(far(), cells[:1], {"any": wide(cells[:1])}))
    assert alone.isnan().all()


def test_a_model_without_context_is_not_evaluable_and_not_bad(cells: torch.Tensor) -> None:
    case = case_of(square().pixels[0], cells, {"any": wide(cells)})
    found = evidence.gather(
        case.run,
        case.images,
        case.target,
        list(case.maps.values()),
        settings=JudgeSettings(("context_faithfulness",)),
        chunk=64,
    )
    row = evidence.score(found).rows[0]
    assert (row.score, row.verdict, row.num_evaluable) == ("context_faithfulness", "not evaluable", 0)
    assert "the model hardly uses the context: its reliance is 0.000, below 0.02" in row.reason
    assert row.details["context_reliance"].num == NUM


def test_effects_of_cells_are_what_they_hold(cells: torch.Tensor) -> None:
    case = case_of(torch.ones(SIZE, SIZE), cells, {"oracle": wide(cells)})
    found = effects.effects(case)
    inner = torch.zeros(CELLS, CELLS, dtype=torch.bool)
    inner[4:-4, 4:-4] = True  # the blur meets the border's repeated pixels elsewhere
    left = (2 * blurred(case.images) - 1).abs().mean(1)
    for name, effect in found.items():
        blur = cell_means(left, case.partition).view_as(cells)
        expected = (cells - (0 if name == "noisy-linear" else blur)) / CELLS**2
        # Noise of .01 leaves a contrast of .016 in what was filled in.
        torch.testing.assert_close(
            effect.view(-1, CELLS, CELLS)[:, inner],
            expected[:, inner].float(),
            atol=5e-4 if name == "noisy-linear" else 1e-5,
            rtol=0,
        )


def test_cells_are_imputed_as_in_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seglens.impute.TOLERANCE", 1e-7)
    from seglens.impute import noisy_linear

    grid = cell_of_pixel(37, 50, 8)
    which = torch.arange(64)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 37, 50, generator=generator).expand(64, -1, -1, -1)
    noise = torch.randn(1, 3, 37, 50, generator=generator).expand(64, -1, -1, -1)
    valid = torch.ones(64, 37, 50, dtype=torch.bool)
    removed = grid == which[:, None, None]
    removed[5] = False  # nothing to remove
    removed[6] = (torch.arange(37)[:, None] - torch.arange(50)).abs() < 3  # a patch of another shape
    found = effects._impute_in_box(images, removed, valid, noise)
    torch.testing.assert_close(found, noisy_linear(images, removed, noise), atol=1e-5, rtol=0)


def test_agreement_of_oracle_and_opposite_and_the_other_imputer_for_occlusion(cells: torch.Tensor) -> None:
    maps = {"oracle": wide(cells), "opposite": -wide(cells)}
    case = case_of(torch.ones(SIZE, SIZE), cells, maps)
    made = Explanation("occluded", None, case.target, maps["oracle"], settings={"imputer": "noisy-linear"})
    case = replace(case, maps={**case.maps, ("occluded", None): made})
    found, points = effects.causal_agreement(case)
    assert set(found) == {
        f"{score}{imputer}" for score in (effects.WHOLE, effects.CONTEXT) for imputer in ("", ":blur")
    }
    whole = found[effects.WHOLE]
    assert (whole.values["oracle", None] > 0.95).all()
    torch.testing.assert_close(whole.values["opposite", None], -whole.values["oracle", None])
    assert set(found[f"{effects.WHOLE}:blur"].values) == {("occluded", None)}
    assert (whole.about["ceiling"] > 0.9).all()
    assert abs(float(whole.references["random"].mean())) < 3 / (CELLS * NUM**0.5)
    # Outside of its margin the mirror is flat.
    assert (found[effects.CONTEXT].references["mirror-4"].abs() < 0.2).all()
    rows = compared_rows("square", f"{effects.WHOLE}:blur", found[f"{effects.WHOLE}:blur"], seed=0)
    assert [(row.score, row.verdict) for row in rows] == [("causal_agreement", "pass")]
    assert "effects by blur" in rows[0].reason
    assert len(points["oracle"]["attribution"]) == effects.SHOWN * CELLS**2


def test_large_superpixels_agree_with_nothing_by_being_large(cells: torch.Tensor) -> None:
    """Every pixel matters alike: what occluding a patch does grows with its size, and no map knows more."""
    case = case_of(torch.ones(SIZE, SIZE), torch.full_like(cells, 0.8), {"any": wide(cells)})
    columns = torch.arange(8).repeat_interleave(torch.tensor([1, 2, 3, 4, 4, 5, 6, 7]))
    flat = torch.full((NUM, SIZE, SIZE), 0.3)
    case = replace(case, partition=columns.expand(NUM, SIZE, SIZE).contiguous(), nulls={"flat": flat})
    found, _ = effects.causal_agreement(case)
    assert found[effects.WHOLE].references["flat"].tolist() == [0] * NUM
    sizes = torch.bincount(columns).double()
    raw = effects.effects(case)["noisy-linear"]
    assert spearman(sizes.expand(NUM, -1), raw, torch.ones_like(raw, dtype=torch.bool)).min() > 0.9


def test_no_agreement_of_imputers_no_verdict() -> None:
    noise = torch.randn(20, generator=torch.Generator().manual_seed(0))
    measured = Measured(
        {("mine", None): torch.ones(20)}, {"random": torch.zeros(20)}, {"ceiling": noise - noise.mean()}
    )
    row = compared_rows("t", "causal_agreement", measured, seed=0)[0]
    assert row.verdict == "not evaluable"
    assert "two imputers don't agree" in row.reason


class Small(nn.Module):
    """An encoder of one layer and a decoder of one, with weights to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU())
        self.decoder = nn.Sequential(nn.Conv2d(6, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(self.encoder(images)))


def small_case(methods: Sequence[Method], own: dict | None = None, **changes) -> cases.Case:
    """Maps of methods and of own explainers on noise pictures."""
    torch.manual_seed(0)
    run = wrap(Small(), classes=("a", "b"), mean=(0.5,) * 3, std=(1.0,) * 3, image_size=SIZE)
    images = torch.rand(NUM, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    images = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    target = square()
    made = seglens.explain(run, images, target, methods=methods, layers=("encoder",)).values()
    maps = {(entry.method, entry.layer): entry for entry in made}
    for name, explainer in (own or {}).items():
        maps[name, None] = Explanation(name, None, target, explainer(run, images, target))
    seen = surface(run, images, target)
    values = {
        "run": run,
        "images": images,
        "target": target,
        "maps": maps,
        "seen": seen,
        "nulls": content_free(seen),
        "valid": torch.ones_like(target.pixels),
        "partition": grid_cells(images, target.pixels, CELLS),
        "settings": JudgeSettings(max_seconds=1e9),
        "explainers": own or {},
        "seed": 0,
        "chunk": 64,
    }
    return cases.Case(**{**values, **changes})


def centre_blob(run, images, target) -> torch.Tensor:
    return content_free(surface(run, images, target))["centre"]


def fresh_noise(run, images, target) -> torch.Tensor:
    return torch.rand(len(images), *images.shape[-2:])


def test_model_dependence_is_what_scipy_says() -> None:
    case = small_case(("grad-cam", "saliency"), {"centre": centre_blob, "noise": fresh_noise})
    found = rerun.recipes(case)
    measured, cascade = randomisation.model_dependence(case, found)
    assert measured.values["centre", None].tolist() == [0] * NUM
    assert measured.values["noise", None].isnan().all()
    apart = []
    for number in range(3):
        other = randomised(case.run, case.images, seed=randomisation.SEED + number)
        maps = seglens.explain(other, case.images, case.target, methods=("saliency",))["saliency"].map
        rows = zip(case.cells(maps), case.cells(case.maps["saliency", None].map), strict=True)
        apart.append(torch.tensor([abs(spearmanr(a, b).statistic) for a, b in rows]))
    expected = 1 - torch.stack(apart).mean(0)
    torch.testing.assert_close(
        measured.values["saliency", None], expected, check_dtype=False, atol=1e-5, rtol=0
    )
    assert {"repeat", "randomised", "emprt", "decoder_only"} == set(measured.details["saliency", None])
    for name in set(NULLS) - {"probability"}:
        assert measured.references[name].tolist() == pytest.approx([0] * NUM)
    assert (measured.references["probability"] > 0).all()
    made = {row.method: row for row in compared_rows("t", "model_dependence", measured, seed=0)}
    assert made["centre"].verdict == "fail"
    assert made["noise"].verdict == "not evaluable"
    assert "made again with the same seed the map correlates" in made["noise"].reason
    assert made["saliency"].reference == "probability"
    assert set(cascade["maps"]) == {"grad-cam@encoder", "saliency", "centre", "noise"}
    assert cascade["share_of_modules"] == [0, 0.25, 0.5, 0.75, 1]
    assert cascade["maps"]["centre"] == [1] * 5


def test_steps_lead_from_the_output_to_the_input() -> None:
    case = small_case(("saliency",))
    order = randomisation.modules_in_order(case.run, case.images[:1])
    assert order == ["encoder.0", "encoder.1", "decoder.0", "head"]
    assert randomisation.stages(case.run, case.images[:1], 3) == [order[3:], order[2:], order]
    changed = randomised(case.run, case.images, seed=1, only=["head"]).segmenter.module.state_dict()
    trained = case.run.segmenter.module.state_dict()
    assert torch.equal(changed["encoder.0.weight"], trained["encoder.0.weight"])
    assert not torch.equal(changed["head.weight"], trained["head.weight"])


def test_complexity_of_flat_and_of_even_histograms() -> None:
    flat = torch.ones(1, 10, 10)
    even = torch.arange(100.0).view(1, 10, 10)
    found = randomisation.complexity(torch.cat([flat, even, flat * torch.nan]))
    assert found[0] == 0
    assert float(found[1]) == pytest.approx(4.6052, abs=1e-3)  # log of a hundred bins
    assert found[2].isnan()


def brightness(run, images, target) -> torch.Tensor:
    return images.mean(1)


def test_stability_of_a_map_that_is_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "PERTURBATIONS", {"brighter": stability.brighter})
    monkeypatch.setattr(stability, "_answer", lambda run, images, target: target.pixels)
    case = small_case((), {"centre": centre_blob, "picture": brightness})
    measured = stability.stability(case, rerun.recipes(case))
    size = cell_means(case.images.mean(1), case.partition).norm(dim=1)
    expected = 1 - stability.STEP * CELLS / size  # clipped nowhere
    torch.testing.assert_close(measured.values["picture", None], expected.float(), atol=1e-5, rtol=0)
    assert measured.values["centre", None].tolist() == [1] * NUM
    torch.testing.assert_close(measured.details["picture", None]["flip"], torch.ones(NUM))
    rows = {row.method: row for row in compared_rows("t", "stability", measured, seed=0)}
    # Where the answer stands still its mirrors do as well, and who restates it can't be beaten.
    assert rows["centre"].verdict == "warn"
    assert rows["picture"].verdict == "fail"
    assert rows["picture"].nulls[rows["picture"].reference] == 1
    assert rows["picture"].reference != "centre"


def test_where_the_answer_changes_stability_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = small_case((), {"picture": brightness})

    def answer(run, images, target):
        return target.pixels if torch.equal(images, case.images) else ~target.pixels

    monkeypatch.setattr(stability, "_answer", answer)
    measured = stability.stability(case, rerun.recipes(case))
    assert measured.values["picture", None].isnan().all()
    assert measured.details["picture", None]["flip"].isnan().all()


def test_methods_are_made_again_from_what_they_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = seglens.IntegratedGradients(baseline="blur", steps=3, label="mine")
    case = small_case(("grad-cam", "saliency", mine, seglens.IntegratedGradients(steps=2)))
    foreign = Explanation("saliency", None, case.target, torch.rand(NUM, SIZE, SIZE))
    assert rerun.method_of(foreign) is None
    found = rerun.recipes(case)
    assert found.built_in["mine", None] == mine
    again = found.make(case.run, case.images, case.target, chunk=64)
    for key, entry in case.maps.items():
        torch.testing.assert_close(again[key], entry.map)
    unknown = rerun.recipes(replace(case, maps={("saliency", None): foreign}))
    assert unknown.reasons == {("saliency", None): rerun.NO_WAY}
    monkeypatch.setattr(rerun, "_seconds", lambda *_: 2.0)
    slow = rerun.recipes(replace(case, settings=JudgeSettings(max_seconds=1.0)))
    assert not slow.keys
    assert "takes 2 s an image, more than 1 s" in slow.reasons["mine", None].text


def test_settings_are_checked_and_stability_never_stands_alone() -> None:
    assert JudgeSettings(("stability",)).scores == ("faithfulness", "stability")
    with pytest.raises(UnknownNameError, match="Unknown score 'stabilty'"):
        JudgeSettings(("stabilty",))
    with pytest.raises(SettingError, match="num_again is 0"):
        JudgeSettings(num_again=0)
    with pytest.raises(UnknownNameError, match=r"cells 'superpixel'\. Did you mean 'superpixels'"):
        JudgeSettings(cells="superpixel")
    with pytest.raises(SettingError, match="No score was asked for"):
        JudgeSettings(())


def test_in_bfloat16_the_table_says_how_well_scores_are_ranked(cells: torch.Tensor) -> None:
    case = case_of(far(), cells, {"oracle": wide(cells)})
    maps, kept = {"oracle": wide(cells)}, ~far().expand(NUM, -1, -1)
    exact, found = (
        road(case.run.segmenter, case.images, case.target, maps, kept=kept, precision=precision)["oracle"]
        for precision in ("32", "bf16")
    )
    assert exact.rank_agreement is None
    assert found.rank_agreement is not None
    assert (found.rank_agreement > 0.9).all()
    torch.testing.assert_close(found.most_first, exact.most_first, atol=0.02, rtol=0)
    with pytest.raises(SettingError, match="16"):
        JudgeSettings(precision="16")
