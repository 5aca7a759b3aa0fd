import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

import seglens
from seglens.errors import CheckpointError, ModelError
from seglens.models.checkpoint import read_checkpoint
from seglens.models.unet import UNet
from seglens.models.weights import choose_state, fit, load_weights, read_state_dict, save_weights


def net(seed: int = 0, outputs: int = 1, width: int = 2) -> UNet:
    torch.manual_seed(seed)
    return UNet(channels=1, width=width, depth=2, outputs=outputs)


def same(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def prefixed(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".pth.tar", ".PTH", ".bin"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module._orig_mod.model."])
@pytest.mark.parametrize("nest", ["", "state_dict", "model_state_dict", "model"])
def test_every_way_to_keep_a_state_dict(tmp_path, suffix, prefix, nest):
    source, target = net(0), net(1)
    state = prefixed(prefix, source)
    torch.save(
        {nest: state, "epoch": 3, "optimizer": {"lr": [0.1]}} if nest else state, tmp_path / f"best{suffix}"
    )
    fit(target, read_state_dict(tmp_path / f"best{suffix}"))
    assert same(source, target)


def test_foreign_safetensors(tmp_path):
    source, target = net(0), net(1)
    save_file(prefixed("model.", source), tmp_path / "a.safetensors")
    fit(target, read_state_dict(tmp_path / "a.safetensors"))
    assert same(source, target)


def test_tensors_of_the_training_module_are_left_aside(tmp_path):
    """Lightning's checkpoint of a module that keeps the network under ``model`` and a buffer of its own."""
    source, target = net(0), net(1)
    state = prefixed("model.", source) | {"mean": torch.zeros(3), "loss.weight": torch.ones(1)}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.5"}, tmp_path / "a.ckpt")
    key, found = choose_state(target, read_checkpoint(tmp_path / "a.ckpt"), None, tmp_path / "a.ckpt")
    fit(target, found)
    assert key == "state_dict"
    assert same(source, target)


def test_step_counts_may_lack():
    source, target = net(0), net(1)
    fit(target, {name: value for name, value in source.state_dict().items() if "num_batches" not in name})
    torch.testing.assert_close(dict(target.named_parameters()), dict(source.named_parameters()))


def test_own_weights_come_back(tmp_path):
    source, target = net(0), net(1)
    save_weights(source, tmp_path / "model.safetensors")
    load_weights(target, tmp_path / "model.safetensors")
    assert same(source, target)


def test_tied_weights_can_be_kept(tmp_path):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    save_weights(module, tmp_path / "tied.safetensors")
    assert torch.equal(
        read_state_dict(tmp_path / "tied.safetensors")["1.weight"], module.state_dict()["0.weight"]
    )


def test_what_does_not_fit_is_listed_and_nothing_changes():
    target, before = net(0), net(0)
    state = net(1).state_dict()
    del state["head.bias"]
    state["extra"] = torch.zeros(1)
    state["encoder.0.0.weight"] = torch.zeros(2, 3, 3, 3)
    message = (
        r"1 missing in the file \(head.bias\); 1 unknown to the model \(extra\); 1 of another shape "
        r"\(encoder.0.0.weight: 2x3x3x3 in the file, 2x1x3x3 in the model\)"
    )
    with pytest.raises(CheckpointError, match=message):
        fit(target, state)
    assert same(target, before)


def test_long_lists_are_cut():
    with pytest.raises(CheckpointError, match=r"56 missing in the file \(.*, .*, .*, .*, .* and 51 more\)"):
        fit(net(), {"a": torch.zeros(1)})


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (net(outputs=3), "Only the head differs: check the number of classes"),
        (UNet(channels=3, width=2, depth=2), "Only one layer differs: check the number of image channels"),
        (net(width=4), "check the encoder or the width"),
        (nn.Conv2d(1, 1, 1), "Check the model's architecture and encoder"),
    ],
)
def test_advice(given, advice):
    with pytest.raises(CheckpointError, match=advice):
        fit(net(), given.state_dict())


@pytest.mark.parametrize(
    ("part", "advice"), [("weight", "prune.remove"), ("bias", "Check the model's architecture")]
)
def test_advice_on_weights_in_parts(part, advice):
    pruned = nn.Sequential(nn.Conv2d(3, 4, 3))
    wanted = nn.Sequential(nn.Conv2d(3, 4, 3))
    prune.l1_unstructured(pruned[0], part, 0.5)
    with pytest.raises(CheckpointError, match=advice):
        fit(wanted, pruned.state_dict())


def test_layers_that_wait_for_their_first_picture_have_no_weights():
    network = nn.Sequential(nn.LazyConv2d(4, 3, padding=1), nn.LazyConv2d(1, 1))
    with pytest.raises(ModelError, match=r"4 tensors that its first picture will make \(0\.weight"):
        seglens.wrap(network, classes=("background", "cell"), image_size=32)
    network(torch.rand(1, 3, 8, 8))
    seglens.wrap(network, classes=("background", "cell"), image_size=32)


def test_advice_on_another_encoder():
    wanted = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(1, 1))})
    given = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))})
    with pytest.raises(CheckpointError, match="Check the encoder"):
        fit(wanted, given.state_dict())


class Evil:
    def __reduce__(self):
        return print, ("this must not be printed",)


def test_pickles_that_run_code_are_refused(tmp_path, capsys):
    torch.save({"state_dict": net().state_dict(), "hooks": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"more than tensors \(print\), and to read the rest"):
        read_state_dict(tmp_path / "evil.pth")
    (tmp_path / "old.pkl.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match=r"old.pkl.pth"):
        read_state_dict(tmp_path / "old.pkl.pth")
    assert capsys.readouterr().out == ""


def test_whole_modules_are_refused(tmp_path):
    torch.save(net(), tmp_path / "module.pth")
    with pytest.raises(
        CheckpointError, match=r"save only the tensors: torch.save\(model.state_dict\(\), FILE\)"
    ):
        read_state_dict(tmp_path / "module.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 500])
def test_damaged_files(tmp_path, suffix, kept):
    file = tmp_path / f"a{suffix}"
    save_file(net().state_dict(), file) if suffix == ".safetensors" else torch.save(net().state_dict(), file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=f"a{suffix}"):
        read_state_dict(file)


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(CheckpointError, match="There is no weights file"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="There is no weights file"):
        load_weights(net(), tmp_path / "none.safetensors")
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"Allowed: .safetensors, .pth"):
        read_state_dict(tmp_path / "a.onnx")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"holds no state dict.* Found: epoch \(int\), lr"):
        read_state_dict(tmp_path / "a.pth")
    torch.save([1, 2], tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="Found: list"):
        read_state_dict(tmp_path / "b.pth")
    torch.save({}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="Found: nothing"):
        read_state_dict(tmp_path / "c.pth")
