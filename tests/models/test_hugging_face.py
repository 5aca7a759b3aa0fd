"""Models of transformers: masks are those of their own post-processing, without their folder."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import seglens
from seglens.cli import app
from seglens.errors import CheckpointError, ModelError, SeglensWarning, SettingError

pytestmark = pytest.mark.foreign

hf: Any = pytest.importorskip("transformers", reason="needs the extra huggingface")

SIZE = {"height": 64, "width": 64}
NAMES = {0: "wall", 1: "sky", 2: "tree"}
SWIN: dict[str, Any] = {
    "image_size": 64,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 2,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 64,
    "patch_size": 16,
}
SMALL: dict[str, Any] = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 16,
    "dim_feedforward": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "num_queries": 6,
}


def lively(model: nn.Module) -> Any:
    """Give ``model`` weights as large as trained ones: the library's first ones hardly move a logit."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return model.eval()


def segformer() -> Any:
    config = hf.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 3, 4],
        depths=[1] * 4,
        decoder_hidden_size=16,
        id2label=NAMES,
    )
    return hf.SegformerForSemanticSegmentation(config)


def upernet() -> Any:
    config = hf.UperNetConfig(
        backbone_config=hf.SwinConfig(**SWIN),
        hidden_size=16,
        pool_scales=[1, 2],
        auxiliary_in_channels=32,
        auxiliary_channels=8,
        id2label=NAMES,
    )
    return hf.UperNetForSemanticSegmentation(config)


def beit() -> Any:
    return hf.BeitForSemanticSegmentation(hf.BeitConfig(**VIT, out_indices=[1, 2, 3, 4], id2label=NAMES))


def data2vec() -> Any:
    config = hf.Data2VecVisionConfig(**VIT, out_indices=[1, 2, 3, 4], id2label=NAMES)
    config.out_indices = [0, 1, 2, 3]
    return hf.Data2VecVisionForSemanticSegmentation(config)


def dpt() -> Any:
    config = hf.DPTConfig(
        **VIT,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        id2label=NAMES,
    )
    return hf.DPTForSemanticSegmentation(config)


def mobilevit() -> Any:
    return hf.MobileViTForSemanticSegmentation(hf.MobileViTConfig(image_size=64, id2label=NAMES))


def mobilevit_v2() -> Any:
    config = hf.MobileViTV2Config(image_size=64, width_multiplier=0.25, id2label=NAMES)
    return hf.MobileViTV2ForSemanticSegmentation(config)


def mobilenet() -> Any:
    return hf.MobileNetV2ForSemanticSegmentation(hf.MobileNetV2Config(image_size=64, id2label=NAMES))


def mask2former() -> Any:
    config = hf.Mask2FormerConfig(backbone_config=hf.SwinConfig(**SWIN), id2label=NAMES, **SMALL)
    return hf.Mask2FormerForUniversalSegmentation(config)


def maskformer() -> Any:
    detr = hf.DetrConfig(
        d_model=16,
        decoder_layers=1,
        encoder_layers=1,
        decoder_ffn_dim=16,
        encoder_ffn_dim=16,
        decoder_attention_heads=2,
        encoder_attention_heads=2,
        num_queries=6,
    )
    config = hf.MaskFormerConfig(
        backbone_config=hf.SwinConfig(**SWIN),
        decoder_config=detr.to_dict(),
        fpn_feature_size=32,
        mask_feature_size=32,
        id2label=NAMES,
    )
    return hf.MaskFormerForInstanceSegmentation(config)


def eomt() -> Any:
    config = hf.EomtConfig(**VIT, num_blocks=1, num_upscale_blocks=1, num_queries=6, id2label=NAMES)
    return hf.EomtForUniversalSegmentation(config)


CROPPED = {"size": {"shortest_edge": 64}, "crop_size": SIZE}
MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "segformer": (segformer, lambda: hf.SegformerImageProcessor(size=SIZE)),
    "upernet": (upernet, lambda: hf.SegformerImageProcessor(size=SIZE)),
    "beit": (beit, lambda: hf.BeitImageProcessor(size=SIZE, do_reduce_labels=True)),
    "data2vec": (data2vec, lambda: hf.BeitImageProcessor(size=SIZE)),
    "dpt": (dpt, lambda: hf.DPTImageProcessor(size=SIZE)),
    "mobilevit": (mobilevit, lambda: hf.MobileViTImageProcessor(**CROPPED)),
    "mobilevit v2": (mobilevit_v2, lambda: hf.MobileViTImageProcessor(**CROPPED)),
    "mobilenet": (mobilenet, lambda: hf.MobileNetV2ImageProcessor(**CROPPED)),
    "rescaled": (segformer, lambda: hf.SegformerImageProcessor(size=SIZE, rescale_factor=1 / 127.5)),
    "mask2former": (mask2former, lambda: hf.Mask2FormerImageProcessor(size=SIZE)),
    "maskformer": (maskformer, lambda: hf.MaskFormerImageProcessor(size=SIZE)),
    "eomt": (eomt, lambda: hf.EomtImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})),
}


@pytest.mark.parametrize("name", MODELS)
def test_masks_are_those_of_the_models_own_tool(name, tmp_path):
    torch.manual_seed(0)
    make, processing = MODELS[name]
    model, processor = lively(make()), processing()
    cropped = bool(getattr(processor, "do_center_crop", False))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        made = model(**processor(images=list(pixels), return_tensors="pt"))
    expected = torch.stack(processor.post_process_semantic_segmentation(made, target_sizes=[(64, 64)] * 2))
    with pytest.warns(SeglensWarning, match="takes the middle 64 x 64") if cropped else nullcontext():
        run = seglens.wrap(model, processor=processor)
    assert run.task.classes == ("wall", "sky", "tree")
    assert run.spec.image_size == 64
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    found = run.predict(images)
    # Where two classes are equal but for rounding either is right.
    two = found.logits.topk(2, dim=1).values
    clear = (two[:, 0] - two[:, 1]) > 1e-4 * two.abs().max()
    assert clear.float().mean() > 0.5
    assert torch.equal(found.mask[clear], expected[clear].long())
    run.save(tmp_path / "run")
    again = seglens.load(tmp_path / "run")
    assert torch.equal(again.predict(images).logits, found.logits)


def test_rows_and_columns_may_differ():
    """The oracle is the model's own tool, on pictures that have the size already."""
    torch.manual_seed(0)
    model = lively(segformer())
    processor = hf.SegformerImageProcessor(size={"height": 64, "width": 96})
    run = seglens.wrap(model, processor=processor)
    assert run.spec.image_size == (64, 96)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    with torch.no_grad():
        made = model(**processor(images=list(pixels), return_tensors="pt"))
    (expected,) = processor.post_process_semantic_segmentation(made, target_sizes=[(64, 96)])
    found = run.predict(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)
    assert (found.mask[0] == expected).float().mean() > 0.999
    odd = hf.SegformerImageProcessor(size={"longest_edge": 64})
    with pytest.raises(ModelError, match=r"longest_edge.*known here are height and width"):
        seglens.wrap(model, processor=odd)
    assert seglens.wrap(model, processor=odd, image_size=64).spec.image_size == 64


@pytest.mark.parametrize(("model", "kind"), [(segformer, "Segformer"), (mobilevit, "MobileViT")])
def test_colours_change_places_where_the_tool_does_it(model, kind):
    """Files of one processor are read by another, which passes over what it doesn't know."""
    torch.manual_seed(0)
    model = lively(model())
    processor = getattr(hf, f"{kind}ImageProcessor")(
        size={"shortest_edge": 64} if kind == "MobileViT" else SIZE,
        do_center_crop=False,
        do_flip_channel_order=True,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = model(**processor(images=list(pixels), return_tensors="pt")).logits
    run = seglens.wrap(model, processor=processor, image_size=64)
    found = run.predict(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).logits
    expected = nn.functional.interpolate(expected, (64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_a_folder_is_adopted_and_needed_no_more(tmp_path):
    torch.manual_seed(0)
    model, processor = segformer().eval(), hf.SegformerImageProcessor(size=SIZE)
    folder = tmp_path / "theirs"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    result = CliRunner().invoke(app, ["adopt", str(folder), "--run", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    folder.rename(tmp_path / "away")
    run = seglens.load(tmp_path / "run")
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(
        run.predict(images).logits, seglens.wrap(model, processor=processor).predict(images).logits
    )
    assert str(tmp_path / "theirs") not in (tmp_path / "run" / "run.json").read_text("utf-8")


def changed(folder: Path, **entries: Any) -> Path:
    """A folder of SegFormer whose config.json says something else."""
    segformer().save_pretrained(folder)
    hf.SegformerImageProcessor(size=SIZE).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | entries), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("entries", "error", "reason"),
    [
        ({"auto_map": {"AutoModel": "theirs.Model"}}, ModelError, "code of its own"),
        ({"architectures": ["SamModel"]}, ModelError, "needs points or a box"),
        ({"architectures": ["CLIPSegForImageSegmentation"]}, ModelError, "needs a text"),
        ({"architectures": ["OneFormerForUniversalSegmentation"]}, ModelError, "words of its task"),
        ({"architectures": ["BertModel"]}, ModelError, "no model of transformers that is known here"),
        ({"backbone": "microsoft/resnet-50"}, ModelError, "nothing is fetched here"),
        ({"decoder_hidden_size": 8}, CheckpointError, "of another shape"),
    ],
)
def test_a_folder_that_is_not_understood_is_refused(tmp_path, entries, error, reason):
    with pytest.raises(error, match=reason):
        seglens.adopt(changed(tmp_path / "theirs", **entries), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_its_processor_is_refused(tmp_path):
    (changed(tmp_path / "theirs") / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        seglens.adopt(tmp_path / "theirs", out=tmp_path / "run")


def test_what_the_folder_says_itself_is_not_taken(tmp_path):
    with pytest.raises(SettingError, match="received model, encoder"):
        seglens.adopt(changed(tmp_path / "a"), model="unet", encoder="resnet18", out=tmp_path / "run")


def test_a_wrapped_module_is_not_saved(tmp_path):
    run = seglens.wrap(nn.Conv2d(3, 2, 1), classes=("background", "cell"), image_size=16)
    with pytest.raises(ModelError, match="wrapped Conv2d, whose code is not stored"):
        run.save(tmp_path / "run")


def test_a_network_of_the_zoo_is_saved_again(tmp_path):
    from seglens.models.segmenter import ModelSpec, Segmenter

    spec = ModelSpec(architecture="unet", width=4, image_size=32)
    run = seglens.Run(Segmenter.from_spec(spec).eval(), seglens.Task())
    run.save(tmp_path / "run")
    images = torch.rand(1, 3, 32, 32)
    loaded = seglens.load(tmp_path / "run")
    assert torch.equal(loaded.predict(images).logits, run.predict(images).logits)


def test_one_class_is_a_sigmoid():
    config = segformer().config
    config.id2label = {0: "cell"}
    model = lively(hf.SegformerForSemanticSegmentation(config))
    run = seglens.wrap(model, processor=hf.SegformerImageProcessor(size=SIZE))
    assert (run.task.classes, run.spec.head) == (("background", "cell"), "sigmoid")


def test_masks_of_a_model_with_reduced_labels_are_doubted(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("images/a.png", "masks/a.png"):
        Image.fromarray(np.eye(64, dtype=np.uint8) * (255 if "images" in name else 1)).save(tmp_path / name)
    data = seglens.DataSettings(path=tmp_path, classes=tuple(NAMES.values()))
    for reduced in (True, False):
        processor = hf.BeitImageProcessor(size=SIZE, do_reduce_labels=reduced)
        run = seglens.wrap(lively(beit()), processor=processor)
        with pytest.warns(SeglensWarning, match="'wall' is 1 there") if reduced else nullcontext():
            seglens.open_split(run, data=data)


def test_one_number_for_all_channels_of_a_processor():
    processor = hf.SegformerImageProcessor(size=SIZE, image_mean=0.4, image_std=0.2)
    run = seglens.wrap(lively(segformer()), processor=processor)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    theirs = processor(images=picture, return_tensors="pt")["pixel_values"]
    ours = run.segmenter.normalise(torch.from_numpy(picture / 255).float().permute(2, 0, 1)[None])
    torch.testing.assert_close(ours, theirs)
    processor.image_mean = None
    with pytest.raises(ModelError, match="its image_mean is None"):
        seglens.wrap(segformer(), processor=processor)


def test_other_processors_and_classes_are_refused():
    with pytest.raises(ModelError, match="image processor of transformers is wanted"):
        seglens.wrap(segformer(), processor=SimpleNamespace())
    with pytest.raises(SettingError, match="classes is left out"):
        seglens.wrap(segformer())
    with pytest.raises(ModelError, match="no model of transformers that is known here"):
        seglens.wrap(nn.Conv2d(3, 2, 1), processor=hf.SegformerImageProcessor())


def test_without_transformers_the_extra_is_named(monkeypatch):
    from seglens.models import adapters

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name, name="transformers")

    monkeypatch.setattr(adapters, "import_module", missing)
    with pytest.raises(ModelError, match=r"pip install 'seglens\[huggingface\]'"):
        adapters.build(adapters.HUGGING_FACE, {})


def test_a_picture_of_which_the_tool_cuts_the_middle_out(tmp_path):
    """The tool sees 64 of 96 rows; a folder is adopted with a warning that says both numbers."""
    model, folder = lively(mobilenet()), tmp_path / "theirs"
    processor = hf.MobileNetV2ImageProcessor(size={"shortest_edge": 96}, crop_size=SIZE)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    with pytest.warns(SeglensWarning, match="shortest side to 96 and takes the middle 64 x 64 of a picture"):
        run = seglens.adopt(folder, out=tmp_path / "run")
    assert run.spec.image_size == 64


def test_a_processor_that_does_more_than_it_says_is_refused():
    """That of EfficientNet divides by the std a second time (include_top), which no usual setting tells."""
    processor = hf.EfficientNetImageProcessor(size=SIZE)
    pixels = np.full((64, 64, 3), 255, np.uint8)
    theirs = float(processor(images=[pixels], return_tensors="np")["pixel_values"].max())
    once = max((1 - mean) / std for mean, std in zip(processor.image_mean, processor.image_std, strict=True))
    assert theirs > 1.5 * once
    with pytest.raises(ModelError, match="makes other numbers of a picture than its rescale_factor"):
        seglens.wrap(segformer().eval(), processor=processor)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"do_normalize": False, "image_mean": [0.1, 0.2, 0.3]},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.25, 0.125]},
        {"size": 64},
        {"image_mean": [0.5], "image_std": [0.5]},
    ],
)
def test_numbers_of_a_picture_are_the_processors_own(settings):
    processor = hf.SegformerImageProcessor(**{"size": SIZE, **settings})
    run = seglens.wrap(lively(segformer()), processor=processor)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    theirs = processor(images=picture, return_tensors="pt")["pixel_values"].float()
    ours = run.segmenter.normalise(torch.from_numpy(picture / 255).float().permute(2, 0, 1)[None])
    torch.testing.assert_close(ours, theirs)
