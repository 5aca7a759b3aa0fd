"""A training that was stopped: weights, optimizer and losses so far, in one safetensors file."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from seglens.errors import DataError
from seglens.files.output import new_file


def write_state(
    network: nn.Module, optimizer: torch.optim.Optimizer, history: list[float], file: Path
) -> None:
    """Write weights, the optimizer's state and the losses so far, whole or not at all."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    with new_file(file, force=True) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            temporary,
            metadata={"loss": json.dumps(history)},
        )


def read_state(network: nn.Module, optimizer: torch.optim.Optimizer, file: Path) -> list[float]:
    """Read what `write_state` wrote, where there is one; return the losses so far."""
    if not file.is_file():
        return []
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
            history = [float(loss) for loss in json.loads(opened.metadata()["loss"])]
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file} can't be read: {error}. Delete it; training begins anew.") from error
    try:
        network.load_state_dict(
            {name.removeprefix("network."): tensors[name] for name in tensors if name[0] == "n"}
        )
    except RuntimeError as error:
        raise DataError(f"{file} is of another network. Delete it; training begins anew.") from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return history
