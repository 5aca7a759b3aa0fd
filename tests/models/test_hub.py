"""ImageNet weights by name come from a hub; here one that runs on this machine, rightly or wrongly."""

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from safetensors.torch import save
from segmentation_models_pytorch.encoders import get_encoder
from tests.hubs import asked_instead
from torch import Tensor, nn

from seglens.errors import ModelError
from seglens.models import zoo

COMMIT = 40 * "a"
NO_WEIGHTS = r"can't be had .* imagenet .* \| none \| FILE"


class Hub(ThreadingHTTPServer):
    """The files of all repositories by name, and what the hub does wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"config.json": b"{}"}
        self.status = 200
        self.lost = 0
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        contents = self.server.files.get(self.path.rpartition("/")[2], b"")
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        # What is lost is lost at every attempt.
        self.answer(contents[first : max(first, len(contents) - self.server.lost)], first)

    def answer(self, body: bytes, first: int = 0) -> None:
        contents = self.server.files.get(self.path.rpartition("/")[2])
        self.server.asked.append(f"{self.command} {self.path}")
        status = 404 if contents is None else self.server.status
        self.send_response(206 if first and status == 200 else status)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(contents or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(contents or b"") - first if status == 200 else 0))
        self.end_headers()
        if status == 200:
            self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[Hub]:
    """A hub with nothing in it, asked instead of the real one; nothing was fetched before."""
    server = Hub()
    with asked_instead(server, monkeypatch, tmp_path / "cache"):
        yield server


def serve(hub: Hub, module: nn.Module) -> dict[str, Tensor]:
    """Put random weights for ``module`` on the hub and return them."""
    generator = torch.Generator().manual_seed(3)
    state = {
        name: torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for name, tensor in module.state_dict().items()
    }
    hub.files["model.safetensors"] = save(state)
    return state


def test_weights_of_timm_arrive(hub):
    state = serve(hub, timm.create_model("test_resnet"))
    module, origin = zoo.build("resnet-unet", encoder="test_resnet", encoder_weights="imagenet")
    assert origin == "encoder: ImageNet weights from the hub"
    arrived = module.get_submodule("encoder.model").state_dict()
    assert len(arrived) > 50
    for name, tensor in arrived.items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
    assert hub.asked[-1] == "GET /timm/test_resnet.r160_in1k/resolve/main/model.safetensors"


def test_own_encoders_arrive(hub):
    """The encoders that segmentation-models-pytorch keeps itself are fetched by another way."""
    state = serve(hub, get_encoder("mobilenet_v2"))
    module, _ = zoo.build("resnet-unet", encoder="mobilenet_v2", encoder_weights="imagenet")
    for name, tensor in module.get_submodule("encoder").state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
    assert any(asked.startswith("GET /smp-hub/mobilenet_v2.imagenet/") for asked in hub.asked)


def test_fetched_once_is_enough(hub):
    state = serve(hub, timm.create_model("test_resnet"))
    zoo.build("resnet-unet", encoder="test_resnet", encoder_weights="imagenet")
    hub.status = 500
    module, _ = zoo.build("resnet-unet", encoder="test_resnet", encoder_weights="imagenet")
    first = module.get_submodule("encoder.model").state_dict()["conv1.0.weight"]
    torch.testing.assert_close(first, state["conv1.0.weight"], rtol=0, atol=0)


@pytest.mark.parametrize("status", [500, 503, 404, 401])
@pytest.mark.parametrize("encoder", ["test_resnet", "mobilenet_v2"])
def test_a_hub_that_fails(hub, encoder, status):
    hub.status = status
    with pytest.raises(ModelError, match=NO_WEIGHTS):
        zoo.build("resnet-unet", encoder=encoder, encoder_weights="imagenet")


def test_a_hub_that_breaks_off(hub):
    serve(hub, timm.create_model("test_resnet"))
    hub.lost = 1000
    with pytest.raises(ModelError, match=NO_WEIGHTS):
        zoo.build("resnet-unet", encoder="test_resnet", encoder_weights="imagenet")


def test_a_hub_with_something_else(hub):
    """What comes is no weights file at all, such as the page of a login."""
    hub.files["model.safetensors"] = b"<html>Please log in</html>"
    with pytest.raises(ModelError, match=NO_WEIGHTS):
        zoo.build("resnet-unet", encoder="test_resnet", encoder_weights="imagenet")
