"""The wheel and the sdist: built, installed alone, and with every file that the package needs."""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import seglens

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "seglens"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build both of a copy of what git knows, with the build backend that is installed."""
    pytest.importorskip("build", reason="build is not installed")
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_the_package_whole(built):
    with zipfile.ZipFile(built[0]) as wheel:
        there = {name.removeprefix("seglens/") for name in wheel.namelist() if name.startswith("seglens/")}
    wanted = {
        file.relative_to(SOURCE).as_posix()
        for file in SOURCE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert there == wanted


def test_what_the_wheel_says_of_itself(built):
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
        said = Parser().parsestr(wheel.read(name).decode())
        scripts = next(entry for entry in wheel.namelist() if entry.endswith("entry_points.txt"))
        assert "seglens = seglens.__main__:main" in wheel.read(scripts).decode()
    assert said["Version"] == seglens.__version__
    assert said["License-Expression"] == "Apache-2.0"
    assert {"app", "notebook"} <= set(said.get_all("Provides-Extra") or ())
    needs = [need for need in (said.get_all("Requires-Dist") or ()) if "extra ==" not in need]
    assert any(need.startswith("torch>=") for need in needs)
    assert not any("@" in need or "://" in need for need in needs), "no addresses"


def test_the_sdist_holds_what_a_reader_needs(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "src/seglens/__init__.py"} <= names
    assert not [name for name in names if name.startswith((".venv", "runs/", "demo/"))]


def test_the_wheel_runs_where_the_sources_are_not(built, tmp_path):
    """Installed alone into an empty folder, beside the dependencies that are here."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--disable-pip-version-check", "--target", str(tmp_path / "there"), str(built[0])),
        ],
        check=True,
        capture_output=True,
        timeout=300,
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'there')!r}); "
        "import seglens; print(seglens.__file__); "
        "sys.argv = ['seglens', '--version']; from seglens.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert str(tmp_path / "there") in done.stdout, done.stderr
    assert seglens.__version__ in done.stdout.splitlines()[-1]
