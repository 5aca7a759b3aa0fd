"""The direction of imports, where each library may be used, the size of files and the public names."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import seglens

SOURCE = Path(seglens.__file__).parent

ROOMS = (
    "errors axes "
    "shapes masks callable_module arguments files runtime results seeds data models drawing impute "
    "superpixels objects exports predict runs "
    "evaluate train explain judge weak folder inspection widget report "
    "sharing demo compare app cli __main__"
).split()
"""Folders, and files that are in none. One imports from itself and from those before it."""

ONLY_IN = {
    "huggingface_hub": {"runs.hub", "models.encoders"},
    "gradio": {"app", "app.page", "app.callbacks"},
    "jinja2": {"report.html"},
    "anywidget": {"widget.clickable"},
    "ipywidgets": {"widget"},
    "lightning": {
        "train",
        "train.dataset",
        "train.fit",
        "train.lightning_module",
        "train.tracking",
        "train.watching",
        "runtime.distributed",
    },
    "monai": {"models.adapters.monai_bundle.cases", "models.adapters.monai_bundle.parts"},
    "matplotlib": {"evaluate.calibration", "drawing.draw", "judge.figures", "train.history"},
    "pandas": {"drawing.notebook", "evaluate", "explain.statistics", "judge.scorecard"},
    "pooch": {"data.get"},
    "pycocotools": {"data.outlines"},
    "rich": {"runtime.progress", "cli.terminal"},
    "safetensors": {
        "folder.raw",
        "models.checkpoint",
        "models.weights",
        "report.encoded_maps",
        "weak.classifier",
    },
    "segmentation_models_pytorch": {"train.losses", "models.encoders", "models.zoo"},
    "skimage": {"superpixels", "objects"},
    "tifffile": {"data.tiff"},
    "timm": {"models.encoders", "models.zoo", "weak.classifier_score"},
    "nnunetv2": {
        "models.adapters.nnunet.cases",
        "models.adapters.nnunet.folder",
        "models.adapters.nnunet.network",
    },
    "transformers": {"models.adapters.hugging_face"},
    "typer": {
        "cli",
        "cli.command",
        "cli.compare",
        "cli.data",
        "cli.given_flags",
        "cli.judge",
        "cli.train",
        "cli.options",
        "cli.data_options",
        "cli.page",
        "cli.terminal",
        "cli.verify",
        "cli.weak",
    },
}
"""Libraries that are used in one place, so that they can be replaced there."""


def name_of(file: Path) -> str:
    """``explain/cams.py`` is ``explain.cams``, ``explain/__init__.py`` is ``explain``."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(SOURCE.rglob("*.py")) if file != SOURCE / "__init__.py"}


def imports_of(file: Path) -> set[str]:
    """Every dotted name that the file imports, in functions too; of ``from a import b`` both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(file: Path) -> set[str]:
    """The modules of the package that the file imports, by their names below ``seglens``."""
    names = {name.removeprefix("seglens.") for name in imports_of(file) if name.startswith("seglens.")}
    modules = names & set(FILES)
    # ``from seglens.data import coco`` means the module coco, not what else is in the package.
    return {name for name in modules if not any(other.startswith(f"{name}.") for other in names & set(FILES))}


def room_of(name: str) -> str:
    """``explain`` for ``explain.cams``."""
    return name.partition(".")[0]


def test_every_room_has_its_place():
    assert sorted(ROOMS) == sorted({room_of(name) for name in FILES})


@pytest.mark.parametrize("name", FILES)
def test_imports_point_downwards(name):
    allowed = ROOMS[: ROOMS.index(room_of(name)) + 1]
    assert {room_of(imported) for imported in own_imports(FILES[name])} <= set(allowed)


def test_no_module_imports_itself_through_others():
    """Raises CycleError otherwise, which names the way round."""
    TopologicalSorter({name: own_imports(FILES[name]) for name in FILES}).prepare()


def test_only_the_command_line_uses_the_public_names():
    users = {
        name
        for name, file in FILES.items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and "seglens" in {alias.name for alias in node.names}
    }
    assert {room_of(name) for name in users} <= {"app", "cli", "__main__"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_used_in_its_place_only(library):
    users = {
        name
        for name, file in FILES.items()
        if any(found.partition(".")[0] == library for found in imports_of(file))
    }
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize(
    "module",
    [
        *(name for name in FILES if name.startswith("results")),
        "report",
        "errors",
        "files.output",
        "runtime.progress",
        "callable_module",
        "cli",
    ],
)
def test_reports_and_records_need_no_torch(module):
    script = f"import sys, seglens.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_explain_knows_no_data_set():
    for name in FILES:
        if name.startswith("explain"):
            assert not {"data.layout", "data.opening"} & own_imports(FILES[name])


def test_the_walk_through_the_package_names_files_that_are_there():
    text = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = {path for path in re.findall(r"`([\w/]+\.py)`", text) if not path.startswith("tests/")}
    assert len(named) > 25
    assert {path for path in named if not (SOURCE / path).is_file()} == set()


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("name", FILES)
def test_no_postponed_annotations(name):
    """They are text then, and shapes go unchecked."""
    assert "__future__" not in imports_of(FILES[name])


def test_public_names_are_sorted_and_resolve():
    assert seglens.__all__ == sorted(set(seglens.__all__))
    assert set(seglens.__all__) == {*seglens._HOMES, *seglens._MODULES, "__version__"}
    for name in seglens.__all__:
        assert getattr(seglens, name) is not None


def test_every_verb_is_public_and_callable():
    for verb in (
        "adopt",
        "compare",
        "app",
        "demo",
        "evaluate",
        "explain",
        "judge",
        "layers",
        "load",
        "report",
        "train",
        "verify",
        "wrap",
    ):
        assert callable(getattr(seglens, verb))


def test_an_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'explane'"):
        _ = seglens.explane  # type: ignore[attr-defined]


def test_no_half_of_a_text_is_left_behind():
    """A string that stands alone in a block is no docstring there: a bracket about two lines is missing."""
    alone = [
        f"{file.relative_to(SOURCE)}:{each.lineno}"
        for file in SOURCE.rglob("*.py")
        for block in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(block, ast.FunctionDef | ast.If | ast.For | ast.With | ast.Try)
        for each in block.body[isinstance(block, ast.FunctionDef) :]
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) and each.value.value is not ...
    ]
    assert alone == []
