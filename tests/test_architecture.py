"""The direction of imports, where each library may be used, the size of files and the public names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import seglens

SOURCE = Path(seglens.__file__).parent

LEVELS = {
    0: "shapes masks errors arguments sizes verb signals owned locks places outputs results.names "
    "results.record results.tables results.scores results.maps results.scorecard results.comparison results "
    "arrays progress threads processes device seeds",
    1: "inputs data.limits data.tables data.palette data.picture_files data.stored data.tiff "
    "data.sample data.transforms data.images data.labels data.orientation data.outlines data.layout "
    "data.mask_values data.intensity data.classes data.folders "
    "data.splits data.from_torch data.coco_file data.coco_places data.outlined data.coco data.labelme "
    "data.oxford_pet data.pairs data.class_folders data.nuclei data.opening data.listing data.check "
    "data.planting data.specimens data.download data.unpack data.get data "
    "models.unet models.checkpoint models.weights models.encoders models.dimensions models.zoo "
    "models.outputs models.segmenter models.options models.folding models.layout models.probing "
    "models.places models.layers models",
    2: "intervals losses scores surfaces calibration impute superpixels draw display",
    3: "predict tiles runs native sources spread gallery",
    4: "scoring evaluate train.recipe train.history train.curves train.feed train.batches "
    "train.schedule train.tracking train.learner train.memory train.threshold train.fit train",
    5: "explain.target explain.target_names explain.trace explain.explanation explain.cams "
    "explain.gradients explain.baselines explain.integrated explain.sampled explain.references "
    "explain.masked explain.channels explain.ablation explain.occlusion explain.rise "
    "explain.methods explain.statistics "
    "explain.passes explain.costs explain.watch explain.memory explain.plan explain "
    "explain.lattice explain.large_map explain.large_targets explain.pooled explain.stitching "
    "explain.windows "
    "explain.verify.snapshot explain.verify.case explain.verify.identities explain.verify.numerics "
    "explain.verify.rules explain.verify",
    6: "judge.nulls judge.localisation judge.cells judge.reading judge.faithfulness judge.case judge.rerun "
    "judge.context judge.effects judge.randomisation judge.stability judge.definitions judge.judgement "
    "judge.restating judge.scorecard judge.verdicts judge.evidence judge.costs judge.figures "
    "judge.regions judge.audit "
    "judge.causal judge.agreement judge.detection judge.shortcut judge "
    "weak.labels weak.settings weak.question weak.checkpoint weak.classifier weak.heat weak.threshold "
    "weak.patches weak.refine weak.banded weak.spreading weak.shelf weak.cutouts weak.making weak.pseudo "
    "weak.table weak.students weak.self_training weak.material weak.recipe weak.stages weak.pictures "
    "weak.rows weak.rounds weak",
    7: "batch.chunks batch.scales batch.raw batch.heats batch.sheets batch.partial batch.ledger "
    "batch.prediction batch.asking batch.large batch.measuring batch.explaining batch.planning "
    "batch.auditing batch.judge_plan batch "
    "inspection.opened inspection.pointing inspection.asking inspection.removing inspection.drawing "
    "inspection.words inspection "
    "report.contents report.glossary report.words report.figures report.curves report.pictures "
    "report.rasters report.cards report.album report.findings report.missing report.mistakes report.tables "
    "report.html report demo "
    "compare.matching compare.differences compare.settings compare.verdicts compare.attention "
    "compare.drawing compare.tables compare.page compare",
    8: "app.policy app.widgets app.wires app.page app "
    "cli.settings cli.names cli.examples cli.typos cli.terminal cli.given cli.command cli.options "
    "cli.reading cli.summaries cli.data_verbs cli.making cli.verifying cli.judging cli.showing cli.comparing "
    "cli.weakly cli __main__",
}
"""Every module; it may import those listed before it, on lower levels and on its own."""

ORDER = [name for level in LEVELS.values() for name in level.split()]

ONLY_IN = {
    "gradio": {"app", "app.page", "app.wires"},
    "jinja2": {"report.html"},
    "lightning": {"train", "train.batches", "train.fit", "train.learner", "train.tracking", "spread"},
    "matplotlib": {"calibration", "draw", "judge.figures", "train.curves"},
    "pandas": {"display", "evaluate", "explain.statistics", "judge.scorecard"},
    "pooch": {"data.get"},
    "pycocotools": {"data.outlines"},
    "rich": {"progress", "cli.terminal"},
    "safetensors": {"batch.raw", "models.checkpoint", "models.weights", "report.rasters", "weak.checkpoint"},
    "segmentation_models_pytorch": {"losses", "models.encoders", "models.zoo"},
    "skimage": {"superpixels"},
    "tifffile": {"data.tiff"},
    "timm": {"models.encoders", "models.zoo", "weak.question"},
    "typer": {
        "cli",
        "cli.command",
        "cli.comparing",
        "cli.data_verbs",
        "cli.given",
        "cli.judging",
        "cli.making",
        "cli.options",
        "cli.reading",
        "cli.showing",
        "cli.terminal",
        "cli.verifying",
        "cli.weakly",
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


def test_every_module_has_its_place():
    assert sorted(ORDER) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_imports_point_downwards(name):
    before = set(ORDER[: ORDER.index(name)])
    assert own_imports(FILES[name]) <= before


def test_only_the_command_line_uses_the_public_names():
    users = {
        name
        for name, file in FILES.items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and "seglens" in {alias.name for alias in node.names}
    }
    assert users <= set(LEVELS[8].split())


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_used_in_its_place_only(library):
    users = {
        name
        for name, file in FILES.items()
        if any(found.partition(".")[0] == library for found in imports_of(file))
    }
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize(
    "module", ["report", "results.record", "results.names", "errors", "outputs", "progress", "verb", "cli"]
)
def test_reports_and_records_need_no_torch(module):
    script = f"import sys, seglens.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_explain_knows_no_data_set():
    for name in FILES:
        if name.startswith("explain"):
            assert not {"data.layout", "data.opening"} & own_imports(FILES[name])


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
