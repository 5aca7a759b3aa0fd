"""A network of fastai, as the page on own models wraps it: held against the answers of fastai's own `Learner`."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.docs.pages import PYTHON, ROOT, blocks

import seglens

pytestmark = pytest.mark.foreign

SIZE = 256


@pytest.fixture
def learn(tmp_path):
    """A `Learner` with random weights on four pictures of noise and one class, normalised as ImageNet."""
    vision = pytest.importorskip("fastai.vision.all", reason="fastai is not installed (make test-foreign)")
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(tmp_path / f"{number}.png")
    torch.manual_seed(0)
    data = vision.SegmentationDataLoaders.from_label_func(
        tmp_path,
        sorted(tmp_path.glob("*.png")),
        lambda _: vision.PILMask.create(np.zeros((SIZE, SIZE), np.uint8)),
        codes=["background", "cell"],
        bs=2,
        batch_tfms=vision.Normalize.from_stats(*vision.imagenet_stats),
        num_workers=0,
    )
    return vision.unet_learner(data, vision.resnet18, pretrained=False, n_out=2)


def test_the_block_of_the_page_answers_as_the_learner_does(learn, tmp_path):
    (block,) = [
        block
        for block in blocks(ROOT / "docs" / "own-model.md")
        if block.language == PYTHON and "learn.model" in block.text
    ]
    names = {"learn": learn, "seglens": seglens}
    exec(compile("\n" * block.line + block.text, str(block.page), "exec"), names)
    run = names["run"]
    files = sorted(tmp_path.glob("*.png"))
    probabilities, _ = learn.get_preds(dl=learn.dls.test_dl(files), reorder=True)

    prediction = run.predict(seglens.read_images(files, size=SIZE))

    torch.testing.assert_close(prediction.probabilities, probabilities, atol=1e-5, rtol=0)
