"""Methods that try channels one by one, and a network in which none of their maps is flat."""

import torch
from torch import nn

from seglens.explain.ablation import AblationCam, ablation_cam
from seglens.explain.channels import ScoreCam, score_cam

CAMS = [ScoreCam(), ScoreCam("softmax"), AblationCam()]


def cam(run, images, target, settings, layer="deep", **options):
    """What one method finds at one layer."""
    work = score_cam if isinstance(settings, ScoreCam) else ablation_cam
    return work(run.segmenter, images, (target,), (layer,), settings, **options)[0]


def close(one, other):
    """Equal up to 1e-5 of the largest value, and not NaN."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * other.nan_to_num().abs().max().item())


def strong(run):
    """The same network with weights above zero: every channel speaks for the class, and no map is flat."""
    with torch.no_grad():
        for part in run.segmenter.module.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.abs_()
    return run
