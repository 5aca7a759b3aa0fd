"""The notebooks run from top to bottom; they are kept without outputs, but for the one in `STORED`."""

import os
import re
import warnings
from pathlib import Path
from queue import Empty
from time import monotonic

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks():
    assert [file.name for file in NOTEBOOKS] == [
        "foreign_model.ipynb",
        "integrated_gradients.ipynb",
        "r1_unet_heatmaps.ipynb",
        "r2_unet_from_scratch.ipynb",
        "r3_weak_supervision.ipynb",
        "r4_cams_of_unetplusplus.ipynb",
    ]


STORED = "integrated_gradients"
"""The notebook whose outputs are kept: its pictures are of specimens that it draws itself."""


@pytest.mark.parametrize(
    "file", [file for file in NOTEBOOKS if file.stem != STORED], ids=lambda file: file.stem
)
def test_outputs_are_stripped(file):
    for cell in nbformat.read(file, as_version=4).cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)


def test_stored_outputs_have_pictures_and_tell_nothing_of_the_machine():
    file = FOLDER / f"{STORED}.ipynb"
    assert file.stat().st_size < 3 * 2**20
    book = nbformat.read(file, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [one for one in outputs if one.output_type == "error" or one.get("name") == "stderr"]
    assert sum("image/png" in one.get("data", {}) for one in outputs) >= 4
    (channels,) = [cell for cell in code if "def show_channels" in cell.source]
    assert sum("image/png" in one.get("data", {}) for one in channels.outputs) == 2
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"/(root|home|work|Users)/|seglens-notebook-\w{8}", text)


def look_again(client):
    """Let a client look for replies every second.

    The client of Jupyter sends what a widget says by a second handle of the socket that replies come on, and
    that can take away the signal of a reply that is there already: the event loop is never woken for it. The
    kernel is idle then, and the client waits until its time is over (integrated_gradients, three times).
    """
    start = client.async_start_new_kernel_client

    async def started():
        found = await start()
        receive = found.shell_channel.get_msg

        async def receive_soon(timeout=None):
            end = float("inf") if timeout is None else monotonic() + timeout
            while True:
                try:
                    return await receive(timeout=max(0.0, min(1.0, end - monotonic())))
                except Empty:
                    if monotonic() >= end:
                        raise

        found.shell_channel.get_msg = receive_soon
        return found

    client.async_start_new_kernel_client = started


@pytest.mark.pages
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file, tmp_path):
    book = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(book, timeout=900, kernel_name="python3", resources=resources)
    look_again(client)
    surroundings = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path)}
    with warnings.catch_warnings():
        # The client's own: sockets and event loops that it closes when it is collected.
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        client.execute(env=surroundings)
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [one for one in outputs if one.output_type == "error"]
    assert [one.text for one in outputs if one.get("name") == "stderr" and "Warning" in one.text] == []
    cards = [one.data["text/html"] for one in outputs if "text/html" in one.get("data", {})]
    assert sum("seglens-card" in card for card in cards) >= 4
