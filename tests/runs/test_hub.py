"""Runs on the hub: a server that speaks as much of its protocol as the client asks for, on this machine."""

import base64
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from tests.hubs import asked_instead
from typer.testing import CliRunner

import seglens
from seglens.cli import app
from seglens.data.sample import Task
from seglens.errors import DataError, SettingError
from seglens.models.segmenter import ModelSpec, Segmenter
from seglens.report.contents import read_run
from seglens.report.model_card import model_card
from seglens.results import record as records
from seglens.runs.saving import save_run
from seglens.sharing import push

# The client hands bytes to its library in a way that this calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

COMMIT = 40 * "a"
SECRET = "hf_" + "q" * 34


class Hub(ThreadingHTTPServer):
    """The files of all repositories; ``status`` is what it answers where it isn't 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.status = 200
        self.tokens: set[str | None] = set()
        self.bodies: list[bytes] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def body(self) -> bytes:
        found = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.bodies.append(found)
        return found

    def answer(self, content: object = b"", status: int = 200, **headers: str) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("X-Repo-Commit", COMMIT)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def handle_any(self) -> None:
        server, path, body = self.server, self.path.partition("?")[0], self.body()
        self.server.tokens.add(self.headers.get("Authorization"))
        if server.status != 200:
            return self.answer({"error": f"no, {SECRET}"}, server.status)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            server.repositories.setdefault(name, {})
            return self.answer({"url": f"{server.address}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if path.startswith("/objects/"):
            server.objects[path.removeprefix("/objects/")] = body
            return self.answer()
        if path.endswith("/info/lfs/objects/batch"):
            made = [
                {**each, "actions": {"upload": {"href": f"{server.address}/objects/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": made})
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            name = "/".join(parts[2:4])
            files = server.repositories.get(name)
            if files is None:
                return self.answer({"error": "none"}, 404, X_Error_Code="RepoNotFound")
            return self.of_repository(files, parts[4:], body)
        files = server.repositories.get("/".join(parts[:2]), {})
        found = files.get("/".join(parts[4:]))
        if found is None:
            return self.answer(b"", 404, X_Error_Code="EntryNotFound")
        return self.answer(found, ETag=f'"{hashlib.sha256(found).hexdigest()}"')

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def of_repository(self, files: dict[str, bytes], asked: list[str], body: bytes) -> None:
        if asked[:1] == ["preupload"]:
            names = [each["path"] for each in json.loads(body)["files"]]
            kinds = [
                {
                    "path": each,
                    "uploadMode": "lfs" if each.endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for each in names
            ]
            return self.answer({"files": kinds})
        if asked[:1] == ["commit"]:
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
            address = f"{self.server.address}/{'/'.join(self.path.split('/')[3:5])}/commit/{COMMIT}"
            return self.answer({"commitUrl": address, "commitOid": COMMIT})
        if asked[:1] == ["tree"]:
            return self.answer(
                [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(content),
                        "oid": hashlib.sha1(content).hexdigest(),
                    }
                    for name, content in files.items()
                ]
            )
        siblings = [{"rfilename": name} for name in files]
        return self.answer({"id": "x/y", "sha": COMMIT, "siblings": siblings, "private": True, "tags": []})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with nothing in it, asked instead of the real one."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    server = Hub()
    with asked_instead(server, monkeypatch, tmp_path / "cache"):
        yield server


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run folder with random weights, whose record names places on this machine."""
    spec = ModelSpec(architecture="unet", width=4, classes=2, image_size=32)
    torch.manual_seed(0)
    folder = tmp_path / "mine-alone" / "first"
    folder.mkdir(parents=True)
    record = records.start(
        "train",
        settings={"logger": None, "weights": str(tmp_path / "mine-alone" / "best.pth"), "epochs": 3},
        results={"num_train": 12, "best": {"file": str(tmp_path / "mine-alone" / "x.pt")}},
        data={"path": str(tmp_path / "mine-alone" / "patients"), "layout": "pairs"},
    )
    save_run(folder, Segmenter.from_spec(spec).eval(), Task(classes=("background", "a|b")), record)
    return folder


def test_a_run_goes_there_and_back(hub: Hub, run_folder: Path, tmp_path: Path) -> None:
    address = push(run_folder, "anna/pets")
    assert address.endswith("anna/pets")
    sent = hub.repositories["anna/pets"]
    assert sorted(name for name in sent if name != ".gitattributes") == [
        "README.md",
        "model.safetensors",
        "run.json",
    ]
    run = seglens.adopt("hf://anna/pets", out=tmp_path / "back")
    images = torch.rand(2, 3, 32, 32)
    expected = seglens.load(run_folder).predict(images)
    assert torch.equal(seglens.load(tmp_path / "back").predict(images).logits, expected.logits)
    assert run.task.classes == ("background", "a|b")
    assert records.read_record(tmp_path / "back").results["first_weights"] == "hf://anna/pets"


def test_nothing_private_is_sent_or_written_down(hub: Hub, run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "report.html").write_text("a picture")
    push(run_folder, "anna/pets")
    seglens.adopt("hf://anna/pets", out=tmp_path / "back")
    assert f"Bearer {SECRET}" in hub.tokens  # it was asked for, and used
    everything = b"".join(hub.bodies) + b"".join(hub.repositories["anna/pets"].values())
    everything += b"".join(
        base64.b64decode(json.loads(line)["value"]["content"])
        for body in hub.bodies
        for line in body.splitlines()
        if line.startswith(b'{"key": "file"')
    )
    written = b"".join(file.read_bytes() for file in (tmp_path / "back").rglob("*") if file.is_file())
    for secret in (SECRET, str(tmp_path), "mine-alone", "patients", "a picture"):
        assert secret.encode() not in everything, secret
    assert SECRET.encode() not in written
    kept = json.loads(hub.repositories["anna/pets"]["run.json"])
    assert kept["settings"]["weights"] == "best.pth"
    assert kept["command"] == []


def test_the_commands_say_where_it_is(hub: Hub, run_folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["push", str(run_folder), "anna/pets"])
    assert done.exit_code == 0, done.output
    assert "anna/pets" in done.output
    assert json.loads(hub.bodies[0])[
        "visibility" if "visibility" in json.loads(hub.bodies[0]) else "private"
    ] in (True, "private")
    done = CliRunner().invoke(app, ["adopt", "hf://anna/pets", "--run", str(tmp_path / "back")])
    assert done.exit_code == 0, done.output


def test_other_folders_on_the_hub_are_adopted_as_here(hub: Hub, tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    network = smp.Unet(
        "tu-test_resnet", encoder_weights=None, classes=1, decoder_channels=(16, 12, 8, 6, 4)
    ).eval()
    network.save_pretrained(tmp_path / "smp")
    files = {file.name: file.read_bytes() for file in (tmp_path / "smp").iterdir() if file.is_file()}
    hub.repositories["bert/unet"] = {**files, "evil.py": b"raise SystemExit"}
    run = seglens.adopt("hf://bert/unet", image_size=64, out=tmp_path / "run")
    images = torch.rand(1, 3, 64, 64)
    normalised = (images - run.segmenter.mean) / run.segmenter.std
    with torch.no_grad():
        torch.testing.assert_close(run.predict(images).logits, network(normalised))
    assert not list((tmp_path / "cache").rglob("*.py"))  # code isn't even fetched


@pytest.mark.parametrize(
    ("status", "words"), [(401, "hf auth login"), (403, "may write"), (503, "the hub answered 503")]
)
def test_refusals_are_one_line_without_a_token(hub: Hub, run_folder: Path, status: int, words: str) -> None:
    hub.status = status
    with pytest.raises(DataError, match=words) as caught:
        push(run_folder, "anna/pets")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repository_that_isnt_there(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"anna/none can't be fetched: there is no such repository"):
        seglens.adopt("hf://anna/none", out=tmp_path / "run")
    with pytest.raises(SettingError, match="names no repository"):
        seglens.adopt("hf://anna", out=tmp_path / "run")


def test_offline_is_one_clear_line(
    hub: Hub, run_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for work in (
        lambda: push(run_folder, "anna/pets"),
        lambda: seglens.adopt("hf://anna/pets", out=tmp_path / "o"),
    ):
        with pytest.raises(DataError, match=r"can't be (written|fetched): the hub can't be reached. Connect"):
            work()


def test_a_card_says_what_was_measured_and_what_was_not(run_folder: Path) -> None:
    card = model_card(read_run(run_folder, "first"), "anna/pets")
    assert "a\\|b" in card
    assert "Don't use it before it is: `seglens evaluate`" in card
    assert "It was not audited for shortcuts" in card
    assert "train: 12" in card
    place = run_folder / "evaluate" / "test"
    place.mkdir(parents=True)
    table = {
        "split": "test",
        "num_images": 7,
        "per_image": {"dice": {"mean": 0.8125, "low": 0.7, "high": 0.9, "num": 7}},
        "images": [{"name": "patient-1", "dice": 0.8}],
    }
    (place / "scores.json").write_text(json.dumps(table))
    records.start("evaluate").write(place)
    card = model_card(read_run(run_folder, "first"), "anna/pets")
    assert "| test | dice | 0.812 | 0.700 to 0.900 | 7 |" in card
    assert "patient" not in card
