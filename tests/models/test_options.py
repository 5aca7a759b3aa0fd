"""Options of architectures: what the tensors show is found, what not is told; answers are the library's."""

import json
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch

import seglens
from seglens.errors import CheckpointError, SettingError, UnknownNameError
from seglens.models.options import SILENT, assumed, checked_options
from seglens.models.segmenter import ModelSpec
from seglens.results import record as records

FEW = (32, 16, 16, 8, 8)
TWO = ("background", "thing")
PLAIN: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "image_size": 64, "classes": TWO}


def theirs(name: str, **settings):
    torch.manual_seed(0)
    return getattr(smp, name)("resnet18", encoder_weights=None, classes=1, **settings).eval()


def same_answer(run, module) -> bool:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return bool(torch.allclose(run.predict(images).logits, module(images), atol=1e-5))


SHOWN = [
    ("resnet-unet", "Unet", {"encoder_depth": 4, "decoder_channels": [32, 16, 16, 8]}),
    ("resnet-unet", "Unet", {"decoder_channels": [64, 32, 32, 16, 16], "decoder_attention_type": "scse"}),
    ("unetplusplus", "UnetPlusPlus", {"encoder_depth": 3, "decoder_channels": [32, 16, 8]}),
    ("fpn", "FPN", {"decoder_merge_policy": "cat"}),
    ("deeplabv3plus", "DeepLabV3Plus", {"decoder_channels": 64}),
]


@pytest.mark.parametrize(("model", "name", "settings"), SHOWN)
def test_what_the_tensors_show_is_read_from_them(tmp_path, model, name, settings):
    module = theirs(name, **settings)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    run = seglens.adopt(tmp_path / "a.pth", model=model, encoder="resnet18", out=tmp_path / "run", **PLAIN)
    assert settings.items() <= run.spec.options.items()
    assert same_answer(run, module)
    assert same_answer(seglens.load(tmp_path / "run", device="cpu"), module)
    assert settings.items() <= records.read_record(tmp_path / "run").results["read_from_tensors"].items()


SILENT_ONES = [
    ("deeplabv3", "DeepLabV3", {"encoder_output_stride": 16, "decoder_channels": 32}),
    ("deeplabv3", "DeepLabV3", {"decoder_atrous_rates": [2, 4, 6], "decoder_channels": 32}),
    ("resnet-unet", "Unet", {"decoder_interpolation": "bilinear", "decoder_channels": list(FEW)}),
]


@pytest.mark.parametrize(("model", "name", "settings"), SILENT_ONES)
def test_what_no_tensor_shows_is_told_and_can_be_set(tmp_path, model, name, settings):
    module, silent = theirs(name, **settings), next(iter(settings))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    common = {"model": model, "encoder": "resnet18", **PLAIN}
    run = seglens.adopt(tmp_path / "a.pth", out=tmp_path / "guess", **common)
    assert silent in records.read_record(tmp_path / "guess").results["assumed"]
    assert not same_answer(run, module)
    run = seglens.adopt(
        tmp_path / "a.pth", out=tmp_path / "run", options={silent: settings[silent]}, **common
    )
    assert silent not in records.read_record(tmp_path / "run").results["assumed"]
    assert same_answer(run, module)
    assert same_answer(seglens.load(tmp_path / "run", device="cpu"), module)


def test_the_config_of_save_pretrained_is_read(tmp_path):
    module = theirs("Unet", decoder_interpolation="bilinear", decoder_channels=FEW, activation="sigmoid")
    module.save_pretrained(tmp_path / "theirs")
    run = seglens.adopt(tmp_path / "theirs", out=tmp_path / "run", **PLAIN)
    assert (run.spec.architecture, run.spec.encoder) == ("resnet-unet", "resnet18")
    assert run.spec.options["decoder_interpolation"] == "bilinear"
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(run.predict(images).probabilities[:, 1:], module(images))
    again = seglens.adopt(tmp_path / "theirs" / "model.safetensors", out=tmp_path / "file", **PLAIN)
    assert again.spec == run.spec
    with pytest.raises(SettingError, match=r"encoder is given as 'resnet34', and config.json .* 'resnet18'"):
        seglens.adopt(tmp_path / "theirs", encoder="resnet34", out=tmp_path / "other", **PLAIN)
    with pytest.raises(SettingError, match=r"model is given as 'fpn', and config.json .* 'resnet-unet'"):
        seglens.adopt(tmp_path / "theirs", model="fpn", out=tmp_path / "other", **PLAIN)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "is a folder, and not one that is known. Allowed are those with config.json"),
        ("{", "config.json can't be read"),
        (json.dumps({"_model_class": "Nope"}), "describes no network .*'Nope'.*Allowed: Unet"),
        (json.dumps({"architectures": ["SegformerForSemanticSegmentation"]}), "has no preprocessor_config"),
        (json.dumps([1]), "describes no network"),
    ],
)
def test_folders_of_something_else(tmp_path, config, message):
    theirs("Unet", decoder_channels=FEW).save_pretrained(tmp_path / "theirs")
    if config is None:
        (tmp_path / "theirs" / "config.json").unlink()
    else:
        (tmp_path / "theirs" / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=message):
        seglens.adopt(tmp_path / "theirs", out=tmp_path / "run", **PLAIN)


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("deeplabv3", {"encoder_output_stride": "16"}, {"encoder_output_stride": 16}),
        ("deeplabv3", {"decoder_atrous_rates": "6,12,18"}, {"decoder_atrous_rates": [6, 12, 18]}),
        ("deeplabv3", {"decoder_aspp_separable": "true"}, {"decoder_aspp_separable": True}),
        ("resnet-unet", {"decoder_attention_type": "none"}, {"decoder_attention_type": None}),
        ("resnet-unet", {"decoder_attention_type": "scse"}, {"decoder_attention_type": "scse"}),
        ("resnet-unet", {"decoder_channels": (8, 4)}, {"decoder_channels": [8, 4]}),
        ("resnet-unet", {"activation": "sigmoid"}, {}),
    ],
)
def test_options_are_read_by_their_type(model, options, expected):
    assert checked_options(model, options) == expected


@pytest.mark.parametrize(
    ("model", "options", "kind", "message"),
    [
        (
            "resnet-unet",
            {"decoder_interpolatoin": "nearest"},
            UnknownNameError,
            "mean 'decoder_interpolation'",
        ),
        ("resnet-unet", {"encoder_name": "resnet18"}, UnknownNameError, "Unknown option of resnet-unet"),
        ("unet", {"depth": "3"}, UnknownNameError, "Unknown option of unet 'depth'"),
        ("deeplabv3", {"encoder_output_stride": "12"}, SettingError, "can't be 12"),
        ("deeplabv3", {"encoder_output_stride": "wide"}, SettingError, "can't be 'wide'"),
        ("resnet-unet", {"encoder_depth": "deep"}, SettingError, "can't be 'deep'"),
        ("resnet-unet", {"activation": "tanh"}, SettingError, "gives no logits and no probabilities"),
    ],
)
def test_options_that_are_none(model, options, kind, message):
    with pytest.raises(kind, match=message):
        checked_options(model, options)


ALTERNATIVES = {
    "encoder_output_stride": 16,
    "decoder_interpolation": "bicubic",
    "decoder_atrous_rates": [1, 2, 3],
    "upsampling": 2,
}


@pytest.mark.parametrize("model", ["resnet-unet", "deeplabv3", "deeplabv3plus", "fpn", "pspnet", "upernet"])
def test_silent_options_leave_no_trace(model):
    spec = ModelSpec(architecture=model, encoder="resnet18")
    with torch.device("meta"):
        plain = seglens.models.segmenter.Segmenter.from_spec(spec).module.state_dict()
        for name in assumed(spec):
            changed = spec.model_copy(update={"options": {name: ALTERNATIVES[name]}})
            other = seglens.models.segmenter.Segmenter.from_spec(changed).module.state_dict()
            assert {key: value.shape for key, value in other.items()} == {
                key: value.shape for key, value in plain.items()
            }
    assert set(assumed(spec)) <= set(SILENT)


def test_a_folder_with_an_adapter_is_no_model(tmp_path):
    """What peft writes is the difference to a model: alone, and beside a model that lacks it."""
    theirs("Unet", decoder_channels=FEW).save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match=r"holds an adapter .*model\.merge_and_unload\(\)"):
        seglens.adopt(tmp_path / "theirs", out=tmp_path / "run", **PLAIN)
