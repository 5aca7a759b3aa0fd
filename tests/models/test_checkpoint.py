"""Files of weights: what may stand in them, and what is refused by name."""

import argparse
import datetime
import errno
import zipfile
from pathlib import Path, PosixPath

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from seglens.errors import CheckpointError
from seglens.models.checkpoint import read_checkpoint
from seglens.models.weights import choose_state, fit, read_state_dict, refuse_unnamed, save_weights


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))


def prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def chosen(tmp_path: Path, content: object, key: str | None = None) -> tuple[str, nn.Module]:
    """Save, choose and fit; return the key that was chosen and the network."""
    file, target = tmp_path / "a.pth", net(9)
    torch.save(content, file)
    name, state = choose_state(target, read_checkpoint(file), key, file)
    fit(target, state)
    return name, target


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


BESIDE = {
    "numpy scalar": np.float64(0.81),
    "numpy integer": np.int64(3),
    "numpy bool": np.bool_(True),
    "numpy array": np.zeros(4, dtype=np.float32),
    "list of scalars": [np.float32(0.1), np.float16(2)],
    "namespace": argparse.Namespace(lr=1e-3, out=PosixPath("some/where")),
    "date": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
}


@pytest.mark.parametrize("beside", BESIDE)
def test_data_that_can_do_nothing_may_stand_beside_the_tensors(tmp_path, beside):
    content = {"state_dict": net().state_dict(), "epoch": 3, "more": {"x": BESIDE[beside]}}
    key, target = chosen(tmp_path, content)
    assert key == "state_dict"
    assert same(net(), target)


@pytest.mark.parametrize("pickled", [print, zipfile.ZipFile, np.random.RandomState(0)], ids=str)
def test_anything_else_is_refused(tmp_path, pickled):
    torch.save({"state_dict": net().state_dict(), "more": pickled}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"holds more than tensors .*would run code"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (net().state_dict(), ""),
        (net().state_dict() | {"mask_values": [0, 255]}, ""),  # of a well-known U-Net
        (net().state_dict() | {"epoch": 3, "name": "best"}, ""),
        ({"loss": torch.tensor(0.5), "state_dict": net().state_dict()}, "state_dict"),
        ({"model_dict": net().state_dict()}, "model_dict"),
        ({"state_dict": prefixed("segmentation_model.", net())}, "state_dict"),
        ({"ema_shadow": net().state_dict(), "optimizer": {"state": {}}}, "ema_shadow"),
        ({"module": prefixed("module.", net()) | {"n_averaged": torch.tensor(3)}}, "module"),
        ({"a": {"b": net().state_dict()}}, "a.b"),
        ({"model": net().state_dict(), "model_ema": net().state_dict()}, "model"),  # the same twice
        ({"discriminator": nn.Linear(2, 2).state_dict(), "generator": net().state_dict()}, "generator"),
    ],
)
def test_the_weights_that_fit_are_found(tmp_path, content, key):
    found, target = chosen(tmp_path, content)
    assert found == key
    assert same(net(), target)


TWICE = [
    ({"model": net(1).state_dict(), "model_ema": net().state_dict()}, "model, model_ema", "model_ema"),
    ({"state_dict": prefixed("student.", net(1)) | prefixed("teacher.", net())},
     "state_dict.student, state_dict.teacher", "teacher"),
    (prefixed("model.", net(1)) | prefixed("ema_model.", net()), "model, ema_model", "ema_model"),
    (net(1).state_dict() | prefixed("ema.", net()), "ema", "ema"),
    ({"state_dict": net(1).state_dict(), "state_dict_ema": net().state_dict()},
     "state_dict, state_dict_ema", "state_dict_ema"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "listed", "key"), TWICE)
def test_weights_that_fit_twice_are_not_guessed_between(tmp_path, content, listed, key):
    with pytest.raises(CheckpointError, match=rf"2 sets of weights that fit.*{listed}.*--weights-key"):
        chosen(tmp_path, content)
    _, target = chosen(tmp_path, content, key)
    assert same(net(), target)
    with pytest.raises(CheckpointError, match=r"holds no weights 'none'\. Allowed: .*"):
        chosen(tmp_path, content, "none")


def test_a_running_average_without_names_is_not_passed_over(tmp_path):
    module, file = net(), tmp_path / "a.pth"
    ours = [parameter.detach().clone() for parameter in module.parameters()]
    other = {
        "model": module.state_dict(),
        "ema": {"decay": 0.9, "shadow_params": [each + 1 for each in ours]},
    }
    with pytest.raises(CheckpointError, match=r"without names \(ema\.shadow_params\).*--weights-key"):
        refuse_unnamed(module, other, module.state_dict(), file)
    for held in (ours, ours[:-1], [torch.zeros(2)] * len(ours), [3] * len(ours)):  # the same, and no weights
        refuse_unnamed(module, {"shadow_params": held}, module.state_dict(), file)


def test_an_encoder_file_of_several_state_dicts_is_refused(tmp_path):
    torch.save({"model": net().state_dict(), "model_ema": net(1).state_dict()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"several state dicts: model, model_ema\. Save the one"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore")
def test_torchscript_says_what_to_do(tmp_path):
    torch.jit.trace(net().eval(), torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "a.pt"))
    with pytest.raises(CheckpointError, match=r"TorchScript archive.*torch\.jit\.load\(FILE\)\.state_dict"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_zip_file_that_would_fill_the_memory_is_not_unpacked(tmp_path):
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"weight": torch.zeros(20_000_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < 200_000
    with pytest.raises(CheckpointError, match=r"would unpack to 80,\d+,\d+: at most 10 times its size"):
        read_checkpoint(bomb)


def test_a_packed_file_of_usual_size_is_read(tmp_path):
    torch.save(net().state_dict(), tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as source:
        with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in source.infolist():
                packed.writestr(entry.filename, source.read(entry))
    assert read_checkpoint(tmp_path / "a.pth")[""].keys() == net().state_dict().keys()


UNUSUAL = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "empty": lambda: torch.zeros(4, device="meta"),
    "nested": lambda: torch.nested.as_nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "quantised": lambda: torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNUSUAL)
def test_tensors_of_other_kinds(tmp_path, kind):
    torch.save({"model": {"conv.weight": UNUSUAL[kind]()}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"holds an? {kind} .*conv.weight under model"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "junk",
    [3, "text", [torch.zeros(2)], torch.zeros(2), {}, {"a": 1}, {"x": torch.zeros(1), "y": None}, None],
)
def test_files_that_hold_no_state_dict(tmp_path, junk):
    torch.save(junk, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"holds no state dict .*Found: "):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04 cut", b"\x80\x05\x95", b"(lp0\n" * 50, bytes(500)]
)
@pytest.mark.parametrize("suffix", [".pth", ".tar", ".safetensors"])
def test_files_of_something_else(tmp_path, suffix, content):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="can't be read") as caught:
        read_checkpoint(file)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no weights file .*none\.pth"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path / "folder.pth")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match="can't be read: Not a directory"):
        read_checkpoint(tmp_path / "file" / "a.pth")


def changed(name: str, value: Tensor) -> dict[str, Tensor]:
    return {**net().state_dict(), name: value}


WEIGHT = net().state_dict()["0.weight"]
NAN, INF = WEIGHT.clone(), WEIGHT.clone()
NAN[0, 0, 0, 0], INF[0, 0] = torch.nan, torch.inf


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed("0.weight", NAN), "0.weight has 1 values that are NaN or infinite"),
        (changed("0.weight", INF), "0.weight has 9 values that are NaN or infinite"),
        (changed("0.weight", WEIGHT.double() * 1e300), "0.weight has .* values that are NaN or infinite"),
        (changed("1.running_var", -torch.ones(4)), "1.running_var has a negative variance, -1"),
        (changed("0.weight", WEIGHT.to(torch.int8)), "0.weight is int8 in place of float32"),
        (changed("0.weight", WEIGHT.to(torch.int32)), "0.weight is int32 in place of float32"),
        (changed("0.weight", WEIGHT > 0), "0.weight is bool in place of float32"),
        (changed("0.weight", WEIGHT.to(torch.complex64)), "0.weight is complex64 in place of float32"),
        (changed("1.num_batches_tracked", torch.tensor(1.5)), "is float32 in place of int64"),
        (changed("1.num_batches_tracked", torch.tensor(True)), "is bool in place of int64"),
    ],
)
def test_numbers_that_are_no_weights(state, message):
    target = net(1)
    with pytest.raises(CheckpointError, match=rf"can't be used, 1 of 9 tensors are wrong: .*{message}"):
        fit(target, state)
    assert same(net(1), target)


def test_half_and_double_precision_are_weights():
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        fit(
            net(1),
            {
                name: value.to(kind) if value.is_floating_point() else value
                for name, value in net().state_dict().items()
            },
        )


def test_a_full_disk_is_an_error_of_the_disk(tmp_path, monkeypatch):
    """In the words of safetensors, whose error is not one of the disk."""

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("seglens.models.weights.save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save_weights(net(), tmp_path / "a.safetensors")
    assert caught.value.errno == errno.ENOSPC


def test_tensors_that_share_one_number_are_not_made_whole_to_be_refused(tmp_path):
    """A file of a few bytes whose tensor has 10^12 elements: its shape is looked at first."""
    torch.save({"0.weight": torch.zeros(1).expand(10**12)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="don't fit"):
        fit(net(), read_state_dict(tmp_path / "a.pth"))


def test_safetensors_of_other_numbers(tmp_path):
    save_file({**net().state_dict(), "0.weight": WEIGHT.to(torch.int32)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"0\.weight is int32 in place of float32"):
        fit(net(), read_state_dict(tmp_path / "a.safetensors"))


def test_reading_leaves_torch_as_it_was(tmp_path):
    """What is let through here is not let through by torch elsewhere in the process."""
    before = set(torch.serialization.get_safe_globals())
    torch.save({"state_dict": net().state_dict(), "best": np.float64(1)}, tmp_path / "a.pth")
    read_checkpoint(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before
