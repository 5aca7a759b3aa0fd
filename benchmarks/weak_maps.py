"""Two roles of a map: does it outline the object, and does it say what the classifier's answer rests on?

    python -m benchmarks.weak_maps --data FOLDER [--num 24]

Every map is made by the same classifier for the same question ("a pet, or anything else?") on pets of
trainval, letterboxed to 224 pixels. *Outline*: object IoU, pooled, of the map at the threshold that Otsu's
rule chooses without masks, and at the best threshold (marked: chosen on masks). *Faithfulness*: ROAD by the
judge's own function (`seglens.judge.faithfulness.road`) of the classifier's probability of "a pet": mean
over nine fractions of (least relevant removed first - most relevant removed first), over what blurring
takes; 0 for an order that knows nothing. Beside the maps stand what knows nothing of the classifier: a blob
in the middle, and the true mask.
About a minute on one core. Results go to standard output as a Markdown table.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.removing import road
from benchmarks.training import lite0_file
from seglens.data.layout import DataSettings
from seglens.data.transforms import letterbox
from seglens.evaluate.intervals import interval
from seglens.evaluate.scores import confusion, scores
from seglens.explain.target import Target
from seglens.runs import wrap
from seglens.weak.classifier_score import ClassifierScore, imagenet_score
from seglens.weak.data import open_weak_data
from seglens.weak.heat import fused_heat
from seglens.weak.settings import HeatSettings, ThresholdSettings
from seglens.weak.threshold import choose_threshold, count_values

SIZE = 224

MAPS = {
    "Grad-CAM++, last layer (reference)": HeatSettings(maps=("grad-cam++@bn2",), scales=(224,), flips=False),
    "Grad-CAM, last layer": HeatSettings(maps=("grad-cam@bn2",), scales=(224,), flips=False),
    "HiResCAM, last block": HeatSettings(maps=("hires-cam@blocks.6",), scales=(224,), flips=False),
    "Layer-CAM, last block": HeatSettings(maps=("layer-cam@blocks.6",), scales=(224,), flips=False),
    "the pipeline's: HiResCAM and Layer-CAM, four scales, both ways round": HeatSettings(),
}


class Everywhere(nn.Module):
    """The classifier's answer as a segmenter's: its log odds at every pixel, so that judges can read it."""

    def __init__(self, question: ClassifierScore) -> None:
        super().__init__()
        self.network, self.question = question.network, question

    def forward(self, images: Tensor) -> Tensor:
        score = self.question.score(self.network(images))
        return score[:, None, None, None].expand(-1, 1, *images.shape[-2:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds oxford-iiit-pet")
    parser.add_argument("--num", type=int, default=24, help="pictures, evenly over trainval")
    arguments = parser.parse_args()
    weak_data = open_weak_data(DataSettings(path=arguments.data / "oxford-iiit-pet"), "all")
    truth = weak_data.truth("learning", "outlines of maps, for a table")
    assert truth is not None
    chosen = range(0, len(truth.split), len(truth.split) // arguments.num)
    samples = [letterbox(truth.split[index], SIZE)[0] for index in list(chosen)[: arguments.num]]
    images = torch.stack([sample.image for sample in samples])
    masks = torch.stack([sample.mask for sample in samples if sample.mask is not None])
    valid = torch.stack([sample.valid for sample in samples])

    question = imagenet_score(
        "tf_efficientnet_lite0", str(lite0_file()), ("pets",), device=torch.device("cpu")
    )
    run = wrap(
        Everywhere(question),
        classes=("rest", "pet"),
        mean=question.mean,
        std=question.std,
        image_size=SIZE,
        head="sigmoid",
        outputs_are="logits",
    )
    maps = {
        name: torch.stack([fused_heat(question, image, replace(settings, side=SIZE))[0] for image in images])
        for name, settings in MAPS.items()
    }
    centre = torch.linspace(-1, 1, SIZE)
    blob = torch.exp(-(centre[:, None] ** 2 + centre**2) / 0.5).expand_as(masks)
    maps |= {"a blob in the middle": blob * valid, "the true mask, blurred": _blurred(masks.float())}

    target = Target("pet", 1, torch.ones_like(valid))
    curves = road(run.segmenter, images, target, maps, valid=valid)
    print(f"{len(images)} pictures of trainval, {SIZE} px; a pet: mean probability {_mean(curves):.3f}\n")
    print(
        "| map | object IoU at Otsu's threshold | at the best threshold * | faithfulness (95 %) | pictures |"
    )
    print("|---|---|---|---|---|")
    for name, stack in maps.items():
        cut = choose_threshold(count_values(list(stack)), ThresholdSettings()).middle
        best = max(_iou(stack, masks, valid, float(step)) for step in torch.arange(0.05, 1, 0.025))
        found = interval(curves[name].value)
        print(
            f"| {name} | {_iou(stack, masks, valid, cut):.3f} | {best:.3f} | {found.mean:+.3f} "
            f"({found.low:+.3f} to {found.high:+.3f}) | {found.num} |"
        )
    print("\n\\* chosen on masks: a bound, no result of weak supervision.")


def _mean(curves: dict) -> float:
    return float(next(iter(curves.values())).full.mean())


def _blurred(masks: Tensor) -> Tensor:
    return F.avg_pool2d(masks[:, None], 31, 1, 15)[:, 0]


def _iou(maps: Tensor, masks: Tensor, valid: Tensor, threshold: float) -> float:
    each = zip(maps, masks, valid, strict=True)
    counts = sum(confusion((heat >= threshold).long(), mask, region, 2) for heat, mask, region in each)
    return float(scores(torch.as_tensor(counts))["iou"])


if __name__ == "__main__":
    main()
