"""To add a class activation map, touch two places in one file: a function, and a line in `CAMS`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

FUNCTION = '''
def element_cam(activation: Activations, gradient: Activations) -> Grids:
    """``sum_k relu(g_k A_k)``: the parts of HiResCAM that speak for the class."""
    return (gradient * activation).relu().sum(1)


CAMS: dict[str, Cam] = {
    "element-cam": Cam(element_cam, relu=False),
'''

TESTS = (
    "tests/explain/cams/test_cam_properties.py",
    "tests/explain/test_windows.py::test_a_method_without_a_meaning_over_windows_is_refused",
    "tests/cli/test_feel.py::test_names_are_those_of_the_registries",
    "tests/cli/test_options.py",
    "tests/docs/test_site.py::test_every_method_has_its_place_on_the_page_of_methods",
)


def test_a_cam_that_is_added_in_two_places_passes_the_tests_of_all_cams(tmp_path):
    """In a copy of the package, in a process of its own."""
    for part in ("src", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "*.jsonl"))
    for file in ROOT.glob("*.*"):
        if file.is_file():
            shutil.copy(file, tmp_path)
    module = tmp_path / "src" / "seglens" / "explain" / "cams.py"
    source = module.read_text(encoding="utf-8")
    changed = source.replace("\nCAMS: dict[str, Cam] = {\n", FUNCTION)
    assert changed != source
    module.write_text(changed, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", *TESTS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "[element-cam]" in done.stdout
