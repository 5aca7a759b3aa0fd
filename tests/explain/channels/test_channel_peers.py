"""Score-CAM and Ablation-CAM against pytorch-grad-cam, where it is right."""

import pytest
import torch
from tests.explain.cams.compared import normalised
from tests.explain.channels.cases import cam, strong
from torch import nn

from seglens.explain.ablation import AblationCam
from seglens.explain.channels import ScoreCam


def their_targets(target):
    return [lambda output, region=region: output[0][region].sum() for region in target.pixels]


@pytest.mark.parametrize("layer", ["down", "deep"])
def test_grad_cam_s_score_cam_agrees_under_the_same_choice(layer, run, images, target, monkeypatch) -> None:
    """Softmax on the same sum; theirs upsamples masks with aligned corners, which is changed here to ours."""
    from pytorch_grad_cam import ScoreCAM

    class Bilinear(nn.Upsample):
        def __init__(self, size):
            super().__init__(size, mode="bilinear", align_corners=False)

    monkeypatch.setattr(nn, "UpsamplingBilinear2d", Bilinear)
    module = run.segmenter.module
    with ScoreCAM(module, [module.get_submodule(layer)]) as theirs:
        expected = torch.from_numpy(theirs(images, targets=their_targets(target)))
    found = cam(run, images, target, ScoreCam("softmax"), layer)
    assert found.status == ("ok",) * 3
    torch.testing.assert_close(normalised(found.map), expected, rtol=0, atol=1e-4)


def test_grad_cam_s_ablation_cam_agrees_after_a_relu_where_scores_are_positive(run, images, target) -> None:
    from pytorch_grad_cam import AblationCAM

    with torch.no_grad():
        strong(run).segmenter.module.deep[1].bias[0] = -100.0  # theirs ablates to -1e7 where no value is 0
    module = run.segmenter.module
    found = cam(run, images, target, AblationCam(), "deep")
    with AblationCAM(module, [module.deep]) as theirs:
        expected = torch.from_numpy(theirs(images, targets=their_targets(target)))
    torch.testing.assert_close(normalised(found.map), expected, rtol=0, atol=1e-4)
