import pytest
import torch

from seglens.errors import SettingError
from seglens.runtime.device import choose_device, choose_precision


def test_cpu_is_the_cpu():
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_takes_what_is_there():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device().type == expected


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
def test_absent_device_is_the_cpu_with_a_warning(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.warns(UserWarning, match=f"no {name} on this machine"):
        assert choose_device(name) == torch.device("cpu")


def test_numbered_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.warns(UserWarning, match="no cuda:2"):
        assert choose_device("cuda:2") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_unknown_device(name):
    with pytest.raises(SettingError, match=r"Unknown device .* Allowed: auto, cpu, cuda, cuda:N, mps"):
        choose_device(name)


def test_precision_named():
    assert choose_precision("32", torch.device("cpu")) == "32"
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


def test_precision_auto_asks_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == "32"
    assert choose_precision("auto", torch.device("mps")) == "32"


def test_precision_auto_without_the_question(monkeypatch):
    for question in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, question, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == "32"


def test_unknown_precision():
    with pytest.raises(SettingError, match=r"Unknown precision '16'. Allowed: auto, 32, bf16"):
        choose_precision("16", torch.device("cpu"))
