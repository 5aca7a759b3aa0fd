"""The whole way, with a stand-in for the pseudo-masks: what is bright enough, with a band that is ignored."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import seglens
from seglens.data.layout import DataSettings
from seglens.errors import CheckpointError, DataError, OutputExistsError, SettingError, UnknownNameError
from seglens.files.ownership import contents
from seglens.models.weights import read_state_dict
from seglens.train.lightning_module import SegmentationModule
from seglens.train.recipe import TrainSettings
from seglens.weak import rounds
from seglens.weak.classifier import ClassifierSettings
from seglens.weak.labels import Labelled
from seglens.weak.pseudo_masks import PseudoMasks
from seglens.weak.recipe import WeakSettings
from seglens.weak.self_training import TeacherSettings
from seglens.weak.settings import PseudoSettings, ScoreSettings, SpreadSettings
from seglens.weak.stage_cache import Stage

TINY = TrainSettings(
    model="unet",
    width=4,
    image_size=32,
    epochs=1,
    batch_size=4,
    augment=True,
    device="cpu",
    precision="32",
    loggers=("none",),
)
SETTINGS = WeakSettings(
    student=TINY,
    rounds=5,
    stop_at=1e-9,
    teacher=TeacherSettings(scales=(1.0,), refine="superpixels"),
    samples=(0, 5),
)
"""Students that have learned nothing agree well enough: one round follows the first."""


@dataclass(frozen=True)
class Bright(PseudoMasks):
    """Pseudo-masks by brightness alone."""

    labelled: Labelled | None = None

    def load_stage(self, name, index):
        assert self.labelled is not None
        image = self.labelled.split[index].image.mean(0)
        if name == "masks":
            return torch.where(image > 0.6, 1.0, torch.where(image < 0.4, 0.0, 0.5))
        return image

    def load_superpixels(self, index):
        rows, columns = torch.meshgrid(torch.arange(32) // 8, torch.arange(40) // 8, indexing="ij")
        return rows * 5 + columns


def _stand_in(labelled, settings, folder, *, device, seed):
    folder.mkdir(parents=True, exist_ok=True)
    stages = tuple(
        Stage(
            name=name,
            folder=folder / name,
            seconds=1.0,
            processor_seconds=1.0,
            once=0.0,
            threshold=None if name in ("patches", "masks") else 0.5,
            facts={},
        )
        for name in ("heat", "patches", "voted", "masks")
    )
    names = tuple(entry.name for entry in labelled.split.entries)
    sizes = ((32, 40),) * len(names)
    return Bright(folder, names, names, sizes, stages, labelled)


@pytest.fixture
def bright(monkeypatch):
    monkeypatch.setattr(rounds, "make_pseudo_masks", _stand_in)


@pytest.fixture(scope="module")
def done(tmp_path_factory, small_set):
    """A run that has ended; read it, don't change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "make_pseudo_masks", _stand_in)
        out = tmp_path_factory.mktemp("weak") / "run"
        settings = SETTINGS.model_copy(update={"oracle": True, "supervised": True})
        run = seglens.weak(DataSettings(path=small_set), settings, out)
    return out, run


def _record(out: Path):
    return json.loads((out / "run.json").read_text())


def test_the_run_folder_is_that_of_the_last_student(done, small_set):
    out, run = done
    last = read_state_dict(out / "rounds" / "1" / "student" / "model.safetensors")
    assert all(torch.equal(last[name], tensor) for name, tensor in run.segmenter.module.state_dict().items())
    student = seglens.load(out / "rounds" / "1" / "student", device="cpu")
    assert seglens.load(out, device="cpu").spec == student.spec
    # Later verbs see the user's own data, with their masks.
    split = seglens.open_split(run, "test")
    assert [entry.image.parent for entry in split.entries] == [small_set / "test" / "images"] * 3
    assert all(split[index].mask is not None for index in range(3))


def test_the_table_is_what_evaluate_says(done, tmp_path):
    out, run = done
    rows = {row["name"]: row for row in json.loads((out / "table.json").read_text())["rows"]}
    found = seglens.evaluate(run, seglens.open_split(run, "test"), out=tmp_path / "scores", precision="auto")
    last = rows["student, round 1 of self-training"]
    assert last["miou"] == pytest.approx(found.pooled["miou"])
    assert last["fg_iou"] == pytest.approx(found.pooled["iou"])
    assert [name for name, row in rows.items() if row["uses_masks"]] == [
        "class activation maps, oracle threshold",
        "+ superpixels, oracle threshold",
        "fully supervised student",
    ]
    assert rows["class activation maps, oracle threshold"]["miou"] >= rows["class activation maps"]["miou"]
    text = (out / "table.md").read_text()
    assert all(f"| {name}" in text for name in rows)


def test_every_use_of_a_mask_is_listed(done):
    uses = [use["purpose"] for use in _record(done[0])["results"]["mask_uses"]]
    assert uses == [
        "training the fully supervised student of the comparison",
        "final evaluation: class activation maps",
        "final evaluation: class activation maps, fixed threshold 0.4",
        "final evaluation: + superpixels",
        "final evaluation: pseudo-masks, where decided",
        "oracle: class activation maps, oracle threshold",
        "oracle: + superpixels, oracle threshold",
        "final evaluation: student",
        "final evaluation: student, round 1 of self-training",
        "final evaluation: fully supervised student",
        "the truth on the sheets of samples, after the evaluation",
    ]


def test_a_run_knows_its_files_and_no_others(done, tmp_path):
    assert contents(done[0]).others == ()
    out = shutil.copytree(done[0], tmp_path / "run")
    for name in ("pseudo/masks/train/images/a.jpg", "samples/notes.txt", "mine.png"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    assert contents(out).others == ("mine.png", "pseudo/masks/train/images/a.jpg", "samples/notes.txt")
    # While a run goes on it has no list, but names that its stages give.
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"files": []}))
    assert contents(out).others == ("mine.png", "samples/notes.txt")


def test_there_is_a_sheet_for_each_sample(done):
    assert sorted(file.name for file in (done[0] / "samples").iterdir()) == ["train-0.png", "valid-1.png"]


def test_a_finished_run_does_nothing_again(done, bright, small_set, capsys):
    out, _ = done
    before = (out / "model.safetensors").stat().st_mtime_ns, (out / "rounds/0/student/run.json").read_bytes()
    steps = (out / "steps.json").read_text()
    settings = SETTINGS.model_copy(update={"oracle": True, "supervised": True})
    seglens.weak(DataSettings(path=small_set), settings, out, resume=True)
    assert (out / "rounds/0/student/run.json").read_bytes() == before[1]
    assert (out / "steps.json").read_text() == steps
    assert "[" not in capsys.readouterr().err


def test_no_mask_is_opened_before_the_evaluation(tmp_path, bright, small_set, monkeypatch):
    """Every mask that is decoded while nothing is evaluated is one that the run wrote itself."""
    from seglens.data import labels, mask_values

    opened = []
    read = labels.read_mask

    def watch(file, *rest):
        opened.append(Path(file))
        return read(file, *rest)

    mask_values._values_of.cache_clear()
    for module in (labels, mask_values):  # every way to the values of a mask file
        monkeypatch.setattr(module, "read_mask", watch)
    out = tmp_path / "run"
    settings = SETTINGS.model_copy(update={"evaluate": False, "rounds": 0})
    seglens.weak(DataSettings(path=small_set), settings, out)
    assert opened
    assert all(out in file.parents for file in opened)
    assert _record(out)["results"]["mask_uses"] == []
    assert not (out / "table.md").exists()


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path, bright, small_set, done, monkeypatch):
    out = tmp_path / "run"
    step = SegmentationModule.training_step

    def stop(self, batch, batch_index):
        if len(list(out.rglob("answers"))) == 1 and batch_index == 0:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    data, settings = DataSettings(path=small_set), SETTINGS.model_copy(update={"evaluate": False})
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            seglens.weak(data, settings, out)
    assert _record(out)["state"] == "running"
    with pytest.raises(OutputExistsError, match=r"holds a run that has not ended. Go on with --resume"):
        seglens.weak(data, settings, out)
    other = settings.model_copy(update={"stop_at": 0.5})
    with pytest.raises(SettingError, match=r"was begun with the setting stop_at = 1e-09, received 0\.5"):
        seglens.weak(data, other, out, resume=True)
    run = seglens.weak(data, settings, out, resume=True)
    assert _record(out)["state"] == "finished"
    whole = read_state_dict(done[0] / "model.safetensors")
    assert all(torch.equal(whole[name], tensor) for name, tensor in run.segmenter.module.state_dict().items())


def test_the_split_and_the_pictures_are_part_of_the_run(tmp_path, bright, small_set):
    folder, out = tmp_path / "set", tmp_path / "run"
    shutil.copytree(small_set, folder)
    settings = SETTINGS.model_copy(update={"evaluate": False, "rounds": 0})
    data = DataSettings(path=folder)
    run = seglens.weak(data, settings, out)
    splits = json.loads((out / "split.json").read_text())["splits"]
    opened = {name: seglens.open_split(run, name) for name in ("train", "valid", "test")}
    assert {name: [*names] for name, names in splits.items()} == {
        name: [entry.name for entry in split.entries] for name, split in opened.items()
    }
    mask = opened["test"].entries[0].masks[0]
    before = mask.read_bytes()
    mask.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))  # of the same size
    with pytest.raises(DataError, match=r"changed since .*run was trained: 1 masks or outlines"):
        seglens.open_split(run, "test")
    with pytest.raises(DataError, match=r"have changed since .*: 1 masks or outlines"):
        seglens.weak(data, settings, out, resume=True)
    mask.write_bytes(before)
    seglens.weak(data, settings, out, resume=True)
    gone = opened["train"].entries[0]
    gone.image.unlink()
    gone.masks[0].unlink()
    with pytest.raises(DataError, match=rf"1 gone \({gone.name}\)"):
        seglens.weak(data, settings, out, resume=True)


def test_pictures_without_masks_are_part_of_the_run_too(tmp_path, bright, small_set):
    folder, out, table = tmp_path / "pictures", tmp_path / "run", tmp_path / "labels.csv"
    shutil.copytree(small_set / "train" / "images", folder)
    files = sorted(folder.iterdir())
    table.write_text("image,label\n" + "".join(f"{file.name},1\n" for file in files))
    settings = SETTINGS.model_copy(update={"labels": str(table), "rounds": 0, "samples": ()})
    data = DataSettings(path=folder)
    run = seglens.weak(data, settings, out)
    assert len(seglens.open_split(run, "train")) < len(files)  # the student's own, with pseudo-masks
    seglens.weak(data, settings, out, resume=True)
    before = table.read_text()
    table.write_text(before.replace(",1", ",0", 1))
    with pytest.raises(DataError, match=r"are not those that .*run was begun with"):
        seglens.weak(data, settings, out, resume=True)
    table.write_text(before)
    shutil.copyfile(files[0], folder / "new.png")
    table.write_text(before + "new.png,1\n")
    with pytest.raises(DataError, match="added"):
        seglens.weak(data, settings, out, resume=True)
    (folder / "new.png").unlink()
    table.write_text(before)
    shutil.copyfile(files[1], files[0])
    with pytest.raises(DataError, match=r"changed since .*: 1 pictures|not those that .*run was begun with"):
        seglens.weak(data, settings, out, resume=True)


def test_rounds_end_where_students_agree(done):
    results = _record(done[0])["results"]
    assert (results["rounds"], results["student"]) == (1, "rounds/1/student")
    assert len(results["agreement"]) == 2


def test_settings_that_contradict_one_another(small_set, tmp_path):
    with pytest.raises(SettingError, match="classifier can't be trained on labels='all'"):
        WeakSettings(question="labels")
    with pytest.raises(SettingError, match=r"WeakSettings: stop_at is not allowed: .*received"):
        WeakSettings(stop_at=1.5)
    with pytest.raises(
        SettingError, match=r"Picture 6 can\'t be drawn, because there is none\. .* have the numbers 0 to 5"
    ):
        seglens.weak(
            DataSettings(path=small_set), SETTINGS.model_copy(update={"samples": (6,)}), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("question", "error"),
    [
        (ScoreSettings(encoder="nope"), UnknownNameError),
        (ScoreSettings(weights="nowhere.safetensors"), CheckpointError),
        (ScoreSettings(positive=("nope",)), UnknownNameError),
        (ScoreSettings(positive=("99999",)), SettingError),
    ],
)
def test_a_classifier_that_cannot_be_had_is_refused_before_anything_is_made(
    tmp_path, small_set, question, error
):
    settings = SETTINGS.model_copy(update={"pseudo": PseudoSettings(question=question)})
    with pytest.raises(error, match=r"nope|nowhere|99999"):
        seglens.weak(DataSettings(path=small_set), settings, tmp_path / "run")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("encoder", "spread", "said"),
    [
        ("resnet18", None, r"heat\.maps asks for the layer 'blocks\.6' .*layer1, layer2, layer3, layer4\."),
        ("tf_efficientnet_lite0", ("blocks.9",), r"spread\.layers asks for the layer 'blocks\.9'"),
        ("vit_tiny_patch16_224", None, "returns no grid"),
        ("mobilenetv3_small_100", None, r"'blocks\.6'"),
    ],
)
def test_layers_that_a_classifier_lacks_are_refused_before_it_is_trained(
    tmp_path, small_set, encoder, spread, said
):
    pseudo = PseudoSettings(spread=SpreadSettings(layers=spread) if spread else None)
    own = ClassifierSettings(encoder=encoder, weights="none")
    settings = SETTINGS.model_copy(update={"question": "labels", "classifier": own, "pseudo": pseudo})
    with pytest.raises(SettingError, match=said):
        seglens.weak(DataSettings(path=small_set), settings, tmp_path / "run")
    assert not any(tmp_path.iterdir())


def test_a_run_that_has_made_nothing_leaves_nothing(tmp_path, small_set, monkeypatch):
    """Stopped before the first map, nothing is left but what the user put there; after it, all is kept."""

    def stop(labelled, settings, folder, *, device, seed):
        (folder / "heat").mkdir(parents=True)
        (folder / "heat" / "stage.json").write_text("{}")
        if put is not None:
            (folder.parent / put).write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "make_pseudo_masks", stop)
    run, a_map = tmp_path / "run", "pseudo/heat/one.npz"
    whole = {"run.json", "split.json", "pseudo/heat/stage.json", a_map}
    for put, left in ((None, set()), ("mine.json", {"mine.json"}), (a_map, whole)):
        with pytest.raises(KeyboardInterrupt):
            seglens.weak(DataSettings(path=small_set), SETTINGS, run)
        assert {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()} == left
        shutil.rmtree(run, ignore_errors=put is None)
    assert not any(tmp_path.iterdir())
