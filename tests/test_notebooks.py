"""The notebooks run from top to bottom, and are kept without outputs."""

import os
import warnings
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks():
    assert [file.name for file in NOTEBOOKS] == ["foreign_model.ipynb", "integrated_gradients.ipynb"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_outputs_are_stripped(file):
    for cell in nbformat.read(file, as_version=4).cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)


@pytest.mark.pages
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file, tmp_path):
    book = nbformat.read(file, as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
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
