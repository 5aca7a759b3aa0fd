"""Error detection against scikit-learn and plain loops, and disagreement of members that are known."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]
from tests.evaluated import TRUTH, bright_run, random_samples, split_of
from torch import nn

import seglens
from seglens.errors import SettingError
from seglens.evaluate.intervals import RESAMPLES, numbered
from seglens.evaluate.uncertainty import BINS, SMALLEST, area, auroc, best_area, conclude, count, risks
from seglens.models.ensemble import Ensemble
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.predict.original import Inference, place
from seglens.predict.uncertainty import disagreement, kinds_of


def steps_of(values):
    return np.round((np.log(np.clip(values, SMALLEST, 1)) / -np.log(SMALLEST) + 1) * (BINS - 1))


def made(seed, size=(20, 30)):
    rng = np.random.default_rng(seed)
    wrong = rng.random(size) < 0.2
    uncertain = 10 ** -(8 * rng.random(size)) * np.where(wrong, 1, 0.3)
    truth = torch.from_numpy(rng.integers(0, 2, size))
    guess = torch.where(torch.from_numpy(wrong), 1 - truth, truth)
    valid = torch.from_numpy(rng.random(size) < 0.9)
    return torch.from_numpy(uncertain), guess, truth, valid


def test_the_auroc_is_scikit_learns_and_the_curve_a_loops():
    pictures = [made(seed) for seed in range(4)]
    counted = [{"mirrors": count(*each)} for each in pictures]
    steps = np.concatenate([steps_of(each[0].numpy())[each[3].numpy()] for each in pictures])
    wrong = np.concatenate([(each[1] != each[2])[each[3]].numpy() for each in pictures])
    (found,) = conclude(counted, None)
    assert found.auroc.mean == pytest.approx(roc_auc_score(wrong, steps))
    assert found.error.mean == pytest.approx(wrong.mean())
    for row in found.curve:
        # Pixels of one step are answered in part, each as likely: the mean over their orders.
        wanted, seen, errors = row.coverage * len(steps), 0.0, 0.0
        for step in np.unique(steps):
            here = steps == step
            taken = min(max(wanted - seen, 0), here.sum())
            errors, seen = errors + taken * wrong[here].mean(), seen + here.sum()
        assert row.risk == pytest.approx(errors / wanted)
    # The interval resamples pictures, all of whose pixels go together.
    drawn = torch.randint(4, (RESAMPLES, 4), generator=torch.Generator().manual_seed(0))
    areas = []
    for rows in drawn[:200].tolist():
        parts = [counted[row]["mirrors"] for row in rows]
        pixels, errors_ = (sum(getattr(each, name) for each in parts) for name in ("pixels", "wrong"))
        areas.append(float(auroc(pixels[None].double(), errors_[None].double())[0]))
    assert np.quantile(areas, 0.1) > (found.auroc.low or 0) - 0.01
    assert (found.auroc.low or 0) < (found.auroc.mean or 0) < (found.auroc.high or 0)


def test_uncertainty_that_knows_and_uncertainty_that_does_not():
    _, guess, truth, valid = made(0)
    wrong = (guess != truth).double()
    knows, blind = (count(each, guess, truth, valid) for each in (wrong.clamp_min(1e-4), wrong * 0 + 0.3))
    pixels, errors = knows.pixels[None].double(), knows.wrong[None].double()
    share = float(errors.sum() / pixels.sum())
    assert float(auroc(pixels, errors)[0]) == 1
    assert float(area(pixels, errors)[0]) == pytest.approx(best_area(share), abs=1e-9)
    pixels, errors = blind.pixels[None].double(), blind.wrong[None].double()
    assert float(auroc(pixels, errors)[0]) == 0.5
    assert float(area(pixels, errors)[0]) == pytest.approx(share)
    assert risks(pixels, errors, torch.tensor([0.3], dtype=torch.float64))[0, 0] == pytest.approx(share)


def test_nothing_wrong_says_nothing():
    _, _, truth, valid = made(0)
    (found,) = conclude([{"doubt": count(torch.rand(20, 30), truth, truth, valid)}] * 2, numbered(["a", "b"]))
    assert "no pixel is wrong" in found.text


class Constant(nn.Module):
    """A logit that is the same everywhere, or rises from left to right."""

    def __init__(self, logit, *, rises=False):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(logit)))
        self.rises = rises

    def forward(self, images):
        flat = torch.zeros_like(images[:, :1])
        across = torch.linspace(-3, 3, images.shape[-1])
        return flat + self.weight + (across if self.rises else 0)


def segmenter_of(*networks):
    spec = ModelSpec(
        architecture="unet", image_size=16, mean=(0.0,) * 3, std=(1.0,) * 3, members=len(networks)
    )
    module = Ensemble(list(networks)) if len(networks) > 1 else networks[0]
    return Segmenter(module, spec).eval()


def test_folds_and_mirror_images_disagree_as_by_hand():
    placed = place(
        torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)), segmenter_of(Constant(0)).spec
    )
    several = segmenter_of(Constant(-1), Constant(0), Constant(2))
    chances = 1 / (1 + np.exp(-np.array([-1.0, 0.0, 2.0])))
    assert kinds_of(several) == ("folds", "mirrors")
    found = disagreement(several, placed, Inference("32"), "folds")
    assert found.numpy() == pytest.approx(np.full((16, 16), chances.std()), abs=1e-6)
    assert float(disagreement(several, placed, Inference("32"), "mirrors").max()) < 1e-3
    rises = segmenter_of(Constant(0, rises=True))
    line = 1 / (1 + np.exp(-np.linspace(-3, 3, 16)))
    expected = np.std([line, line[::-1]], axis=0)  # up and down change nothing
    found = disagreement(rises, placed, Inference("32"), "mirrors")
    assert found.numpy() == pytest.approx(np.tile(expected, (16, 1)), abs=1e-4)
    with pytest.raises(SettingError, match=r"The model has no folds to disagree; it has: mirrors"):
        disagreement(rises, placed, Inference("32"), "folds")


def test_an_evaluation_says_whether_uncertainty_finds_errors(tmp_path):
    samples = random_samples(4, sizes=((32, 32),))
    found = seglens.evaluate(bright_run(), split_of(*samples), uncertainty=True, out=tmp_path / "scores")
    assert [each.kind for each in found.uncertainty] == ["mirrors", "doubt"]
    rows = found.images
    wrong = sum((row.false_positive_pixels or 0) + (row.false_negative_pixels or 0) for row in rows)
    assert found.uncertainty[0].error.mean == pytest.approx(wrong / (4 * 32 * 32))
    assert seglens.evaluate(bright_run(), split_of(*samples)).uncertainty == ()


def test_a_prediction_writes_where_members_disagree(tmp_path):
    run = seglens.wrap(
        Constant(0, rises=True),
        classes=("background", "disc"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        image_size=32,
    )
    picture = (TRUTH[..., None].expand(32, 32, 3) * 200).to(torch.uint8)
    Image.fromarray(picture.numpy()).save(tmp_path / "one.png")
    seglens.predict_files(run, [tmp_path / "one.png"], out=tmp_path / "out", uncertainty=True)
    with np.load(tmp_path / "out/uncertainty/one.npz") as arrays:
        found = arrays["mirrors"]
    line = 1 / (1 + np.exp(-np.linspace(-3, 3, 32)))
    assert found == pytest.approx(np.tile(np.std([line, line[::-1]], axis=0), (32, 1)), abs=2e-3)
    grey = np.asarray(Image.open(tmp_path / "out/uncertainty/one-mirrors.png"))
    assert grey.astype(float) == pytest.approx(found * 510, abs=1)
