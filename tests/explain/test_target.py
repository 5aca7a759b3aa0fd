import pytest
import torch
from torch import nn

from seglens.data.frame import fit_frame
from seglens.errors import SettingError, UnknownNameError
from seglens.explain import target as targets
from seglens.explain.target import Target
from seglens.explain.target_names import TARGETS, Scene, named_targets

ROWS = torch.arange(2)


def half(pictures=2, size=4):
    regions = torch.zeros(pictures, size, size, dtype=torch.bool)
    regions[:, :, : size // 2] = True
    return regions


class Fixed(nn.Module):
    """Says class 1 where the first channel is above one half."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.weight * (images[:, :1] - 0.5)


# The score, by hand.


def test_one_channel_counts_for_class_1_and_against_class_0():
    logits = torch.full((2, 1, 4, 4), 3.0)
    assert Target("t", 1, half()).score(logits, ROWS, "sum").tolist() == [24.0, 24.0]
    assert Target("t", 0, half()).score(logits, ROWS, "sum").tolist() == [-24.0, -24.0]
    assert Target("t", 1, half()).score(logits, ROWS, "mean").tolist() == [3.0, 3.0]


def test_one_channel_is_the_log_odds_of_one_class_against_the_other():
    logits = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    alone, against = Target("t", 1, half()), Target("t", 1, half(), against=0)
    torch.testing.assert_close(alone.score(logits, ROWS), against.score(logits, ROWS))
    two = torch.cat([torch.zeros_like(logits), logits], 1)  # the softmax with the same probabilities
    torch.testing.assert_close(against.score(two, ROWS), alone.score(logits, ROWS))


def test_against_is_the_difference_of_two_logits():
    logits = torch.tensor([1.0, 5.0, 2.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert Target("t", 2, half(), against=0).score(logits, ROWS, "mean").tolist() == [1.0, 1.0]
    assert Target("t", 2, half(), against=1).score(logits, ROWS, "mean").tolist() == [-3.0, -3.0]


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_probability_is_the_mean_class_probability(outputs):
    logits = 5 * torch.randn(2, outputs, 4, 4, generator=torch.Generator().manual_seed(0))
    both = torch.cat([torch.zeros_like(logits), logits], 1) if outputs == 1 else logits
    expected = both.softmax(1)[:, 1][half()].view(2, -1).mean(1)
    torch.testing.assert_close(Target("t", 1, half()).score(logits, ROWS, "probability"), expected)


def test_rows_say_which_frozen_pixels_a_copy_belongs_to():
    regions = torch.zeros(2, 2, 2, dtype=torch.bool)
    regions[0, 0, 0] = regions[1, 1] = True
    logits = torch.arange(4.0).view(1, 1, 2, 2).expand(3, 1, 2, 2)
    score = Target("t", 1, regions).score(logits, torch.tensor([1, 0, 1]), "sum")
    assert score.tolist() == [5.0, 0.0, 5.0]


@pytest.mark.parametrize("unit", ["sum", "mean", "probability"])
def test_a_picture_without_pixels_scores_nan_and_has_no_gradient(unit):
    regions = half()
    regions[1] = False
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    score = Target("t", 1, regions).score(logits, ROWS, unit)
    assert score.isnan().tolist() == [False, True]
    (gradient,) = torch.autograd.grad(score.sum(), logits)
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()


def test_values_outside_the_pixels_do_not_matter_even_if_nan():
    logits = torch.ones(2, 1, 4, 4)
    logits[:, :, :, 3] = torch.nan
    assert Target("t", 1, half()).score(logits, ROWS, "sum").tolist() == [8.0, 8.0]


def test_half_precision_is_summed_in_float32():
    logits = torch.full((1, 1, 64, 64), 1.0, dtype=torch.bfloat16)
    score = Target("t", 1, torch.ones(1, 64, 64, dtype=torch.bool)).score(logits, torch.tensor([0]), "sum")
    assert score.item() == 4096.0


def test_errors_name_the_class_and_the_size():
    with pytest.raises(SettingError, match="asks for class 2, but the model has classes 0 to 1"):
        Target("t", 2, half()).score(torch.zeros(2, 1, 4, 4), ROWS)
    with pytest.raises(SettingError, match=r"pictures of \(4, 4\) pixels, but the logits have \(8, 8\)"):
        Target("t", 1, half()).score(torch.zeros(2, 1, 8, 8), ROWS)
    with pytest.raises(SettingError, match="class 1 against 1"):
        Target("t", 1, half(), against=1)


# What the makers choose.


@pytest.fixture
def scene(make_run):
    """Truth and prediction overlap in part; the lower right corner is not valid; frames change nothing."""
    predicted = torch.zeros(2, 16, 16, dtype=torch.bool)
    predicted[:, 2:8, 2:8] = True
    predicted[:, 12:16, 12:16] = True
    images = predicted[:, None].float().expand(2, 3, 16, 16).contiguous()
    masks = torch.zeros(2, 16, 16, dtype=torch.long)
    masks[:, 4:10, 2:8] = 1
    valid = torch.ones(2, 16, 16, dtype=torch.bool)
    valid[:, 14:, 14:] = False
    return make_run(Fixed()), images, masks, valid, 1, [fit_frame((16, 16), 16)] * 2


def named(text, *scene):
    return named_targets((text,), Scene(*scene))[0]


def area(target):
    return target.pixels.sum((1, 2)).tolist()


@pytest.mark.parametrize("name", TARGETS)
def test_no_target_holds_an_invalid_pixel(name, scene):
    numbers = {"N": "1", "X0": "0", "Y0": "0", "X1": "16", "Y1": "16", "X": "15", "Y": "15"}
    text = ":".join(filter(None, (name, ",".join(numbers[n] for n in TARGETS[name].numbers))))
    made = named(text, *scene)
    assert made.label == text
    assert made.pixels.shape == (2, 16, 16)
    assert not (made.pixels & ~scene[3]).any()
    assert made.empty().all() == (name in ("point", "missed"))  # an ignored pixel; no object is missed
    if TARGETS[name].needs_truth:
        with pytest.raises(SettingError, match="needs the truth"):
            named(text, scene[0], scene[1], None, *scene[3:])
    else:
        assert torch.equal(named(text, scene[0], scene[1], None, *scene[3:]).pixels, made.pixels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("predicted", 36 + 12),
        ("truth", 36),
        ("false-positive", 12 + 12),
        ("false-negative", 12),
        ("class", 252),
        ("component:1", 36),
        ("component:2", 12),
        ("component:3", 0),
        ("missed:1", 0),  # at an overlap of .5 the object is found
        ("invented:1", 12),
        ("invented:2", 0),
        ("truth-component:1", 36),
        ("box:1,2,4,8", 18),
        ("point:5,6", 1),
    ],
)
def test_areas_by_hand(text, expected, scene):
    assert area(named(text, *scene)) == [expected, expected]


def test_components_touch_at_corners_and_are_counted_from_the_largest():
    region = torch.zeros(1, 8, 8, dtype=torch.bool)
    region[0, 0, 0] = region[0, 1, 1] = True
    region[0, 4:8, 4:8] = True
    assert area(targets.component(region, 1)) == [16]
    assert area(targets.component(region, 2)) == [2]
    with pytest.raises(SettingError, match="counted from 1"):
        targets.component(region, 0)


def test_boundary_is_three_pixels_either_side_and_not_at_the_edge_of_the_picture():
    region = torch.zeros(1, 20, 20, dtype=torch.bool)
    region[:, :, 10:] = True
    assert targets.boundary(region).pixels[0].any(0).nonzero()[:, 0].tolist() == [7, 8, 9, 10, 11, 12]
    assert targets.boundary(torch.ones_like(region)).empty().all()


def test_point_and_box_say_where_the_picture_ends():
    images = torch.zeros(1, 3, 8, 10)
    assert targets.point(images, 9, 7).pixels.nonzero().tolist() == [[0, 7, 9]]
    with pytest.raises(SettingError, match="columns 0 to 9 and rows 0 to 7"):
        targets.point(images, 10, 7)
    with pytest.raises(SettingError, match="must hold a pixel"):
        targets.box(images, 4, 4, 4, 6)


@pytest.mark.parametrize("native", [(40, 80), (8, 16), (31, 17)])
def test_native_points_land_where_the_frame_puts_them(native, scene):
    run, images, masks, valid, _, _ = scene
    frame = fit_frame(native, 16)
    for x, y in [(0, 0), (native[1] - 1, native[0] - 1), (native[1] // 2, native[0] // 3)]:
        made = named(f"point:{x},{y}", run, images[:1], masks[:1], torch.ones_like(valid[:1]), 1, [frame])
        rows, columns = made.pixels[0].nonzero().float().T
        there = frame.to_grid(x, y)
        assert abs(columns.mean().item() - there[0]) <= 0.5
        assert abs(rows.mean().item() - there[1]) <= 0.5


def test_a_native_box_covers_its_share_of_the_grid(scene):
    run, images, masks, valid, _, _ = scene
    frame = fit_frame((40, 80), 16)  # a fifth, four rows of padding above
    made = named("box:40,0,80,20", run, images[:1], masks[:1], torch.ones_like(valid[:1]), 1, [frame])
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:8, 8:16] = True
    assert torch.equal(made.pixels[0], expected)


def test_errors_on_the_command_line_name_what_would_work(scene):
    with pytest.raises(UnknownNameError, match="Did you mean 'predicted'"):
        named("predictd", *scene)
    with pytest.raises(SettingError, match="Write it as 'point:X,Y'"):
        named("point:3", *scene)
    with pytest.raises(SettingError, match="Write it as 'predicted'"):
        named("predicted:3", *scene)
    with pytest.raises(SettingError, match="'point:16,0' is not in the picture, which is 16 x 16"):
        named("point:16,0", *scene)


def test_several_targets_ask_the_model_once(scene):
    run, images, masks, valid, _, frames = scene
    passes = []
    run.segmenter.register_forward_hook(lambda *_: passes.append(1))
    texts = ("predicted", "false-positive", "false-negative", "component:1", "boundary", "predicted")
    made = named_targets(texts, Scene(run, images, masks, valid, 1, frames), against=0)
    assert len(passes) == 1
    assert [target.label for target in made] == list(dict.fromkeys(texts))
    assert {target.against for target in made} == {0}
    for target in made:
        assert torch.equal(target.pixels, named(target.label, *scene).pixels)
    named_targets(("truth", "class", "point:1,1"), Scene(run, images, masks, valid, 1, frames))
    assert len(passes) == 1 + len(made)


def test_the_functions_choose_what_the_names_choose(scene):
    run, images, masks, valid, class_index, _ = scene
    for make, name in (
        (targets.false_positive, "false-positive"),
        (targets.false_negative, "false-negative"),
    ):
        made = make(run, images, masks, class_index, valid)
        assert torch.equal(made.pixels, named(name, *scene).pixels)
    made = targets.predicted(run, images, class_index, valid)
    assert torch.equal(made.pixels, named("predicted", *scene).pixels)


@pytest.mark.parametrize("white", [255, 254, 65535])
@pytest.mark.parametrize("make", [targets.truth, targets.false_positive, targets.false_negative])
def test_masks_of_black_and_white_are_refused(make, white, scene):
    """White is no number of a class: no pixel would be truth, and all that is predicted invented."""
    run, images, masks, valid, *_ = scene
    ours = [] if make is targets.truth else [run, images]
    expected = make(*ours, masks > 0)
    assert torch.equal(make(*ours, masks).pixels, expected.pixels)
    with pytest.raises(SettingError, match=rf"values 0, {white}, which look black and white.*masks > 0"):
        make(*ours, masks * white)
    nobody = torch.where(valid, masks, white)  # white where nobody labelled
    pixels = make(*ours, nobody, valid=valid).pixels
    assert torch.equal(pixels, expected.pixels & valid)


def test_numbers_of_no_class_are_refused_where_the_model_is_known(scene):
    run, images, masks, *_ = scene
    with pytest.raises(SettingError, match=r"value 2 is no class of the model; allowed are 0 to 1"):
        targets.false_positive(run, images, masks * 2)
    with pytest.raises(SettingError, match=r"value 255 is no class.*valid=masks != 255"):
        targets.false_negative(run, images, masks.clone().index_fill_(1, torch.tensor([0]), 255))
    assert not targets.truth(masks * 2).pixels.any()  # of a model with three classes, on a picture without 1
