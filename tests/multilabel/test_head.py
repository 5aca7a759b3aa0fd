"""A multilabel head on a network that is known by algebra: masks, probabilities, targets, maps."""

from typing import Any

import pytest
import torch
from tests.multilabel.networks import squares, two_labels

import seglens
from seglens.errors import ModelError, SettingError
from seglens.explain.target import Target
from seglens.masks import class_pixels, foreground, of_class, only_valid
from seglens.models.segmenter import ModelSpec


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("classes", [("man", "shirt"), ("background", "man", "shirt")])
def test_labels_overlap_and_each_has_its_own_probability(sigmoid, classes):
    run = two_labels(sigmoid=sigmoid, classes=classes)
    said = run.predict(squares())
    assert run.task.classes == ("background", "man", "shirt")
    assert torch.equal(said.mask, squares()[:, :2] == 1)
    p = torch.sigmoid(torch.tensor(10.0))
    both, none = said.probabilities[0, :, 15, 15], said.probabilities[0, :, 0, 0]
    assert torch.allclose(both, torch.stack([(1 - p) ** 2, p, p]), atol=1e-6)
    assert torch.allclose(none, torch.stack([p**2, 1 - p, 1 - p]), atol=1e-6)


@pytest.mark.parametrize("classes", [("man",), ("a", "b", "c"), ("background", "man"), ("Background",)])
def test_outputs_and_labels_must_be_as_many(classes):
    with pytest.raises(ModelError, match=r"1 x 2 x .* the classes need \d output channels"):
        two_labels(classes=classes)


def test_a_threshold_for_each_label():
    assert ModelSpec(architecture="unet", classes=3, head="multilabel").thresholds == (0.5, 0.5)
    with pytest.raises(SettingError, match="1 thresholds; a multilabel head has one for each label"):
        ModelSpec(architecture="unet", classes=3, head="multilabel", thresholds=(0.5,))
    with pytest.raises(SettingError, match="0 and 1"):
        ModelSpec(architecture="unet", classes=3, head="multilabel", thresholds=(0.5, 1.0))
    run = two_labels()
    run.segmenter.spec = run.spec.model_copy(update={"thresholds": (0.5, 0.99)})
    grey = torch.full((1, 3, 8, 8), 0.6)  # logits 2: sigmoid .88
    assert run.predict(grey).mask.flatten(2).all(2).tolist() == [[True, False]]


def test_mirror_images_are_averaged_label_by_label():
    from seglens.predict import infer

    run, images = two_labels(), squares()
    assert torch.allclose(
        infer(run.segmenter, images, tta=True).probabilities, run.predict(images).probabilities, atol=1e-5
    )


def test_masks_of_both_kinds_are_asked_alike():
    index = torch.tensor([[0, 1, 2], [2, 1, 0]])
    stack = torch.stack([index == 1, index == 2])
    valid = torch.tensor([[True, True, True], [False, True, True]])
    for class_index in range(3):
        assert torch.equal(of_class(stack, class_index, 2), of_class(index, class_index, 2))
    assert torch.equal(foreground(stack, 2), foreground(index, 2))
    assert torch.equal(
        of_class(only_valid(stack, valid, 2), 2, 2), of_class(only_valid(index, valid, 2), 2, 2)
    )
    assert class_pixels(stack, valid, 3).tolist() == class_pixels(index, valid, 3).tolist() == [2, 2, 1]


def test_a_target_reads_the_output_of_its_own_label():
    run, images = two_labels(), squares()
    logits, rows = run.predict(images).logits, torch.arange(1)
    target = seglens.targets.predicted(run, images, class_index=2)
    assert torch.equal(target.pixels, images[:, 1] == 1)
    assert target.score(logits, rows, "sum").item() == 256 * 10
    assert target.score(logits, rows, "probability").item() == pytest.approx(1 / (1 + 2.718281828**-10))
    against = Target("shirt", 2, target.pixels, against=1, multilabel=True)
    # Against 'man': nothing to choose on the 64 pixels that are both, 20 on the other 192.
    assert against.score(logits, rows, "sum").item() == 192 * 20


def test_errors_are_those_of_the_label():
    run, images = two_labels(), squares()
    truth = torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    truth[:, 0, 4:20, 4:20] = truth[:, 1, 12:28, 4:20] = True
    assert seglens.targets.false_positive(run, images, truth, 1).empty().all()
    assert seglens.targets.false_positive(run, images, truth, 2).pixels.sum() == 16 * 8
    assert seglens.targets.false_negative(run, images, truth, 2).pixels.sum() == 16 * 8


def test_class_0_is_no_target():
    run, images = two_labels(), squares()
    with pytest.raises(SettingError, match="class 0 of a multilabel model is what has no label"):
        seglens.targets.predicted(run, images, class_index=0)
    everywhere = torch.ones(1, 32, 32, dtype=torch.bool)
    with pytest.raises(SettingError, match="class 0 of a multilabel model"):
        seglens.explain(run, images, seglens.targets.whole_class(everywhere, 0), layers=("mix",))
    with pytest.raises(SettingError, match=r"no class 3\. Allowed: 0 background, 1 man, 2 shirt"):
        seglens.explain(run, images, seglens.targets.whole_class(everywhere, 3), layers=("mix",))


def test_maps_are_of_the_label_whoever_made_the_target():
    run, images = two_labels(), squares()
    pixels = torch.zeros(1, 32, 32, dtype=torch.bool)
    pixels[:, :8, :8] = True
    target = Target("corner", 1, pixels)  # knows nothing of the head
    maps = seglens.explain(run, images, target, methods=("hires-cam", "input-x-gradient"), layers=("mix",))
    # S is the sum of z_0 over the corner, and the layer gives z itself: its HiResCAM is z there, 0 elsewhere.
    z = run.predict(images).logits[:, 0]
    assert torch.equal(maps["hires-cam", "mix"].map, (z * pixels).clamp(min=0))
    # And the gradient of z_0 is 20 in the red channel alone, of the mean over 64 pixels 20 / 64.
    channels = maps["input-x-gradient"].channels
    assert channels is not None
    assert torch.allclose(channels[:, 0], images[:, 0] * pixels * 20 / 64)
    assert not channels[:, 1:].any()


def test_a_target_of_overlapping_masks_is_not_for_one_class_a_pixel():
    images = squares()
    stack = torch.zeros(len(images), 2, *images.shape[-2:], dtype=torch.bool)
    stack[:, :, :8, :8] = True
    network = torch.nn.Conv2d(images.shape[1], 3, 1)
    run = seglens.wrap(network, classes=("background", "man", "shirt"))
    target = seglens.targets.truth(stack, 2)
    with pytest.raises(SettingError, match=r"Target 'truth' was made of a stack of masks that may overlap"):
        seglens.explain(run, images, target, methods=("input-x-gradient",))


def test_verify_passes():
    found = seglens.verify(two_labels(), squares(), layers=("mix",))
    assert [check.name for check in found.checks if check.outcome == "fail"] == []


def test_a_checkpoint_of_a_multilabel_network(tmp_path):
    network = seglens.models.segmenter.Segmenter.from_spec(
        ModelSpec(architecture="unet", width=4, classes=3, head="multilabel")
    ).module
    torch.save(network.state_dict(), tmp_path / "net.pth")
    common: dict[str, Any] = {"model": "unet", "width": 4, "image_size": 32, "head": "multilabel"}
    run = seglens.adopt(tmp_path / "net.pth", classes=("man", "shirt"), out=tmp_path / "run", **common)
    again = seglens.load(tmp_path / "run", device="cpu")
    assert again.task == run.task
    assert again.task.multilabel
    assert again.spec.thresholds == (0.5, 0.5)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(again.predict(images).logits, run.predict(images).logits)
    with pytest.raises(ModelError, match="has 2 outputs, but 3 labels are named"):
        seglens.adopt(tmp_path / "net.pth", classes=("a", "b", "c"), out=tmp_path / "other", **common)
