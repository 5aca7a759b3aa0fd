"""What users see who hand over something else, in a process without the type checks of the test run.

One process runs every line of `CASES`; each has to end in a ``UserError`` of one line that matches.
"""

import json
import re
import subprocess
import sys

import pytest

import seglens

SCENE = """
from pathlib import Path
import numpy as np, torch, seglens
from PIL import Image
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1)).eval()
run = seglens.wrap(net, classes=("background", "pet"), image_size=16)
grey = seglens.wrap(nn.Conv2d(1, 1, 1), classes=("background", "pet"), channels=1, image_size=16)
images = torch.rand(2, 3, 16, 16)
masks = torch.zeros(2, 16, 16, dtype=torch.long)
target = seglens.targets.box(images, 2, 2, 9, 9)
heat = torch.rand(2, 16, 16)
mine = seglens.Explanation(method="mine", layer=None, target=target, map=heat)
"""

PICTURES = {
    "images * 255": r"values from .* to 25\d.*raw pictures lie in \[0, 1\].*Divide",
    "images * 2 - 1": r"values from -.*the model normalises them itself",
    "images.long()": r"int64 pixels.*uint8 and uint16",
    "images > 0.5": "bool pixels",
    "images * torch.nan": "NaN",
    "images / 0": "NaN or infinite",
    "images[0]": r"3 axes.*\[b c h w\].*images\[None\]",
    "images[0, 0]": r"2 axes",
    "images[None]": r"5 axes",
    "images[:, :1]": "1 channels in shape .* takes 3",
    "images.permute(0, 2, 3, 1)": r"come last: write permute\(0, 3, 1, 2\)",
    "images[:0]": "no pixel",
    "'cat.jpg'": r"'cat.jpg' \(str\).*read_images",
    "['cat.jpg']": "read_images",
    "None": "be None",
    "[]": "empty list",
    "[images[0], images[0, :, :8]]": "2: .*(rows, columns)",
    "[images[0].permute(1, 2, 0)]": r"permute\(2, 0, 1\)",
    "np.zeros((16, 16, 4), np.uint8)": r"neither .* alpha take \[..., :3\]",
    "np.zeros((3, 16, 3))": r"as \[c h w\] and as \[h w c\]",
    "np.zeros((2, 3, 16, 3))": r"as \[b c h w\] and as \[b h w c\]",
    "np.zeros((16, 16), np.int32)": "int32 pixels",
    "np.zeros((16, 16), object)": "object",
    "np.full((16, 16, 3), 200.0)": "values from 200 to 200.*Divide",
    "Image.new('LAB', (16, 16))": "mode LAB",
}
"""Pictures that `Run.predict`, and all that take pictures, refuse."""

CASES = {
    **{f"run.predict({given})": told for given, told in PICTURES.items()},
    **{f"seglens.explain(run, {given}, target)": told for given, told in PICTURES.items() if given != "None"},
    "seglens.explain(run, None, target)": "images",
    # Files are read when they are shown; a page that can't be says so in its place.
    **{
        f"seglens.show(run, {given})": told
        for given, told in PICTURES.items()
        if given not in ("None", "[]") and "cat.jpg" not in given
    },
    "seglens.show(run, [])": "There are no pictures",
    **{
        f"seglens.{verb}": told
        for given, told in PICTURES.items()
        if given != "None"
        for verb in (
            f"judge(run, {given}, target, [mine])",
            f"plan(run, {given}, target)",
            f"verify(run, {given})",
            f"targets.predicted(run, {given})",
        )
    },
    **{
        f"seglens.{verb}": "run must be a (Run|HasSegmenter)"
        for given in ("net.state_dict()", "net.forward")
        for verb in (
            f"explain({given}, images, target)",
            f"judge({given}, images, target, [mine])",
            f"plan({given}, images, target)",
            f"verify({given})",
            f"layers({given})",
            f"evaluate({given}, 'test')",
            f"explain_folder({given}, ['a.png'])",
            f"judge_folder({given}, ['a.png'])",
            f"plan_folder({given}, ['a.png'])",
            f"plan_judging({given}, ['a.png'])",
            f"predict_files({given}, ['a.png'], out='x')",
            f"export({given}, 'x.onnx')",
            f"open_split({given})",
            f"app({given})",
            f"targets.predicted({given}, images)",
        )
    },
    "seglens.explain(run, images, target, layers=())": "layers is empty, and 'grad-cam' looks at layers",
    "seglens.plan(run, images, target, layers=[])": "layers is empty, and 'grad-cam' looks at layers",
    "seglens.plan(run, images, 'predicted')": "target must be a Target",
    "seglens.verify(run, images, 'predicted')": "target must be a Target",
    "seglens.from_torch(torch.utils.data.TensorDataset(images, masks), classes=2)": "classes must be",
    "seglens.DataSettings(path='set', classes=2)": "classes is not allowed.*received 2",
    "seglens.Task(classes=2)": "classes is not allowed.*received 2",
    "grey.predict(images)": "3 channels in shape .* takes 1",
    "grey.predict(np.zeros((16, 16, 3)))": "neither",
    "seglens.judge(run, images * 255, target, [mine])": "raw pictures",
    "seglens.plan(run, images * 255, target)": "raw pictures",
    "seglens.verify(run, images - 0.5)": "normalises them itself",
    "seglens.targets.predicted(run, images * 255)": "raw pictures",
    # runs
    "seglens.wrap(net.state_dict(), classes=('a', 'b'))": "module must be a Module.*load_state_dict",
    "seglens.wrap(lambda x: x, classes=('a', 'b'))": "module must be a Module",
    "seglens.wrap(nn.Conv2d, classes=('a', 'b'))": "the class Conv2d itself",
    "seglens.wrap(net, classes=2)": r"classes must be a list or tuple .* received 2 \(int\)",
    "seglens.wrap(net, classes='pet')": r"classes .*'pet' \(str\).*Write \('pet',\)",
    "seglens.wrap(net, classes=('pet',))": "a background and at least one class",
    "seglens.wrap(net, classes=('a', 'b'), mean=0.5)": "mean must be",
    "seglens.wrap(net, classes=('a', 'b'), mean=(.5,), std=(.5,))": "one value for each of 3 channels",
    "seglens.wrap(net, classes=('a', 'b'), std=(0., 1., 1.))": "std must be",
    "seglens.wrap(net, classes=('a', 'b'), channels='3')": "channels must be a whole number",
    "seglens.wrap(net, classes=('a', 'b'), head='relu')": "head must be 'sigmoid'",
    "seglens.load(net)": "folder must be a text or a path",
    "seglens.load('nowhere')": "no such folder",
    "seglens.push('nowhere', 'anna/pets')": r"nowhere",
    "seglens.push('nowhere', 'pets of anna')": r"OWNER/NAME|anna/pets",
    "seglens.adopt('x.pt', model='unet', classes=2, image_size=64, out='y')": "classes must be",
    # runs and targets that are something else
    "seglens.explain(net, images, target)": "run must be a Run.*seglens.wrap",
    "seglens.explain('runs/pets', images, target)": "run must be a Run.*seglens.load",
    "seglens.explain(run, images, 'predicted')": "target must be a Target.*seglens.targets.predicted",
    "seglens.explain(run, images, masks)": "target must be a Target .* received Tensor of int64",
    "seglens.explain(run, images, [])": "At least one target",
    "seglens.explain(run, images[:1], target)": "from the same images",
    "seglens.judge(run, images, 'predicted', [mine])": "target must be a Target",
    "seglens.judge(run, images, target, mine)": "maps must be",
    "seglens.judge(run, images, target, heat)": "maps must be .* seglens.Explanation",
    "seglens.judge(run, images, target, [heat])": "maps must be",
    "seglens.judge(run, images, target, [])": "map",
    "seglens.judge(run, images, target, [mine], valid=heat)": "valid must be a bool tensor",
    "seglens.judge(run, images, target, [mine], settings={'scores': ()})": "settings must be a JudgeSettings",
    "seglens.layers(net)": "run must be a HasSegmenter.*seglens.wrap",
    "seglens.verify(net)": "run must be a Run",
    "seglens.verify(run, images, layers=())": "no layer",
    "seglens.statistics(heat)": "explanation must be an Explanation",
    "seglens.statistics(mine, predicted=masks)": "predicted must be a bool tensor",
    # methods and layers
    "seglens.explain(run, images, target, methods='grad-kam', layers='0')": "Did you mean 'grad-cam'",
    "seglens.explain(run, images, target, methods=seglens.IntegratedGradients)": r"class: write .*\(\)",
    "seglens.explain(run, images, target, methods=[3])": "methods must be",
    "seglens.explain(run, images, target, methods=())": "At least one method",
    "seglens.explain(run, images, target, layers=3)": "layers must be",
    "seglens.explain(run, images, target, layers='nine')": "Unknown layer 'nine'",
    "seglens.explain(run, images, target, layers='0', seed='7')": "seed must be a whole number",
    "seglens.explain(run, images, target, layers='0', where='inside')": "choice of 'where'",
    "seglens.IntegratedGradients(steps='64')": "steps must be a whole number",
    "seglens.IntegratedGradients(baseline=3)": "baseline",
    "seglens.IntegratedGradients(baseline='black')": "Baseline 'black' is unknown",
    "seglens.SmoothGrad(num_samples='4')": "samples must be a whole number",
    "seglens.ExpectedGradients(num_samples='4')": "samples must be a whole number",
    "seglens.ScoreCam(label=3)": "label must be a text",
    "seglens.AblationCam(label=3)": "label must be a text",
    "seglens.Rise(label=3)": "label must be a text",
    "seglens.Occlusion(label=3)": "label must be a text",
    "seglens.SuperpixelOcclusion(label=3)": "label must be a text",
    "seglens.SegXResCam(label=3)": "label must be a text",
    "seglens.JudgeSettings(num_again='3')": "num_again must be a whole number",
    # targets and explanations
    "seglens.targets.predicted(net, images)": "run must be a Run",
    "seglens.targets.predicted(run, images, 'pet')": "class_index must be a whole number",
    "seglens.targets.predicted(run, images, 7)": "no class 7.*1 pet",
    "seglens.targets.truth(torch.rand(2, 16, 16))": "fractions.*PILToTensor",
    "seglens.targets.truth(masks[0])": r"shape \(16, 16\).*mask\[None\]",
    "seglens.targets.truth('a.png')": "masks",
    "seglens.targets.false_positive(run, images, masks[:, :8])": "masks has shape",
    "seglens.targets.false_negative(run, images, masks[:1])": "masks has shape",
    "seglens.targets.component(masks)": "region must be a bool tensor",
    "seglens.targets.boundary(masks)": "region must be a bool tensor",
    "seglens.targets.whole_class(masks)": "valid must be a bool tensor",
    "seglens.targets.box(images, 0, 0, 99, 4)": "lie in the picture",
    "seglens.targets.point(images, 0.5, 4)": "x must be a whole number",
    "seglens.Target('mine', 1, masks)": "must be a bool tensor .* masks == 1",
    "seglens.Target('mine', 'pet', masks == 1)": "a class can't be 'pet'",
    "seglens.Explanation(method='mine', layer=None, target='predicted', map=heat)": "target must be a Target",
    "seglens.Explanation(method='mine', layer=None, target=target, map=heat.numpy())": "map must be a float",
    "seglens.Explanation(method='mine', layer=None, target=target, map=heat[:, :8])": r"Bring the map",
    "seglens.Explanation(method=3, layer=None, target=target, map=heat)": "method must be a text",
    # folders, data, training
    "seglens.evaluate(run, 'test')": r"split must be a Split.*seglens.open_split",
    "seglens.evaluate(net, 'test')": "run must be a Run",
    "seglens.explain_folder(run, 'pictures')": "pictures must be",
    "seglens.explain_folder(run, [3])": "pictures must be",
    "seglens.judge_folder(run, 'pictures')": "pictures must be",
    "seglens.predict_files(run, 'a.png', out='x')": "pictures must be",
    "seglens.plan_folder(run, 'pictures')": "pictures must be",
    "seglens.plan_judging(run, 'pictures')": "split must be a Split",
    "seglens.train('data', seglens.TrainSettings(), 'out')": "data must be .*seglens.DataSettings",
    "seglens.train({'train': 'data'}, seglens.TrainSettings(), 'out')": "Training takes .*'valid'",
    "seglens.train(seglens.DataSettings(path='data'), {'epochs': 3}, 'out')": "settings must be a Train",
    "seglens.TrainSettings(epochs='many')": "epochs",
    "seglens.weak('data', seglens.WeakSettings(), 'out')": "data must be a DataSettings",
    "seglens.from_torch([(images, masks)])": "data must be a Dataset",
    "seglens.open_data('data')": "settings must be a DataSettings",
    "seglens.open_split('runs/pets')": "run must be a Run",
    "seglens.check_data('data')": "settings must be a DataSettings",
    "seglens.show_data('data', 'out.png')": "settings must be a DataSettings",
    "seglens.get_data(3, 'data')": "name must be a text",
    "seglens.slice_volumes(3, 'slices')": r"source must be a text or a path",
    "seglens.read_images('cat.jpg', size=64)": r"files .*Write \('cat.jpg',\)",
    "seglens.read_images(['cat.jpg'], size='64')": "size must be a whole number",
    "seglens.report('runs/pets')": r"runs .*Write \('runs/pets',\)",
    "seglens.compare('runs/pets')": "runs must be",
    "seglens.app('runs/pets')": "run must be a Run",
    "seglens.demo(3)": "out must be",
    "seglens.spread(devices='2').__enter__()": "devices must be a whole number",
}

RUNNER = """
import json, sys, warnings
warnings.simplefilter("ignore")
exec(SCENE)
told = {}
for line in CASES:
    try:
        eval(line)
        told[line] = ["nothing", ""]
    except Exception as error:
        ours = isinstance(error, seglens.UserError)
        told[line] = ["UserError" if ours else type(error).__name__, str(error)]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told():
    script = f"SCENE = {SCENE!r}\nCASES = {list(CASES)!r}\n{RUNNER}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("line", CASES)
def test_what_a_user_is_told(line, told):
    kind, text = told[line]
    assert kind == "UserError", text
    assert re.search(CASES[line], text), text
    assert "\n" not in text


def test_every_public_function_is_in_the_table():
    functions = [name for name in seglens.__all__ if name[0].islower() and name not in ("targets",)]
    assert [name for name in functions if not any(f"seglens.{name}(" in line for line in CASES)] == []
