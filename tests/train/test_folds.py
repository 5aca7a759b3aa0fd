"""Folds: who learns from what, what each network says of pictures it hasn't seen, and their mean by hand."""

import json

import pytest
import torch
from PIL import Image

import seglens
from seglens.data.layout import DataSettings
from seglens.errors import DataError, SeglensWarning, SettingError
from seglens.models.ensemble import Ensemble
from seglens.train import train
from seglens.train.fit import fit_module


@pytest.fixture(scope="module")
def pool(tmp_path_factory, write_discs):
    """Six patients with two pictures each, and their table."""
    folder = tmp_path_factory.mktemp("pool") / "set"
    write_discs(folder, 12)
    rows = [
        f"{file.name},p{i // 2},{'ab'[i // 6]}"
        for i, file in enumerate(sorted((folder / "images").iterdir()))
    ]
    table = folder.parent / "patients.csv"
    table.write_text("\n".join(["image,group,site", *rows]))
    return DataSettings(path=folder, layout="pairs", groups=table)


@pytest.fixture(scope="module")
def three(tmp_path_factory, pool, tiny):
    out = tmp_path_factory.mktemp("folds") / "run"
    settings = tiny(
        epochs=2, learning_rate=0.01, batch_size=4, augment=False, calibrate=True, loggers=("none",)
    )
    return train(pool.model_copy(update={"folds": 3}), settings, out), settings


def test_every_picture_is_held_out_once_and_no_group_is_parted(pool):
    held = []
    for fold in range(3):
        data = seglens.open_data(pool.model_copy(update={"folds": 3, "fold": fold}))
        train_, valid = (data.splits[name].entries for name in ("train", "valid"))
        assert len(train_) + len(valid) == 12
        assert not {entry.group for entry in train_} & {entry.group for entry in valid}
        # Two sites of three patients: every fold has one of each.
        assert sorted(dict(entry.strata)["site"] for entry in valid) == ["a", "a", "b", "b"]
        held += [entry.name for entry in valid]
    assert len(held) == len(set(held)) == 12
    assert list(seglens.open_data(pool.model_copy(update={"folds": 3})).splits) == ["train"]


def test_a_test_split_of_the_set_stays_apart(discs):
    data = seglens.open_data(discs.model_copy(update={"folds": 4, "fold": 1}))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 9, "valid": 3, "test": 4}


def test_the_run_is_the_mean_of_its_folds(three, pool):
    run, _ = three
    assert isinstance(run.segmenter.module, Ensemble)
    assert (run.spec.members, len(run.segmenter.module.networks)) == (3, 3)
    images = seglens.read_images(sorted((pool.path / "images").iterdir())[:2], size=32)
    each = [seglens.load(run.folder / "folds" / str(fold)) for fold in range(3)]
    with torch.no_grad():
        # The logits of a fold were divided by its own temperature.
        logits = sum(one.segmenter(images) * one.spec.temperature for one in each) / 3
        torch.testing.assert_close(run.segmenter(images) * run.spec.temperature, logits, rtol=1e-4, atol=1e-4)
    again = seglens.load(run.folder)
    torch.testing.assert_close(again.segmenter(images), run.segmenter(images))


def test_an_evaluation_pools_what_networks_say_of_pictures_they_have_not_seen(three, pool):
    run, _ = three
    split = seglens.open_split(run)
    assert (split.name, len(split), split.folds) == ("folds", 12, (0,) * 4 + (1,) * 4 + (2,) * 4)
    found = seglens.evaluate(run, split, precision="32", batch_size=3)
    rows = {row.name: row for row in found.images}
    counts = torch.zeros(3)
    for fold in range(3):
        one = seglens.load(run.folder / "folds" / str(fold))
        spec = one.spec.model_copy(
            update={"threshold": run.spec.threshold, "temperature": run.spec.temperature}
        )
        one.segmenter.spec = spec
        valid = seglens.open_split(one, "valid")
        alone = seglens.evaluate(one, valid, precision="32", out=run.folder.parent / f"alone-{fold}")
        for row in alone.images:
            assert rows[row.name].dice == pytest.approx(row.dice)
            truth, guess = row.truth_pixels or 0, row.predicted_pixels or 0
            counts += torch.tensor([truth - (row.false_negative_pixels or 0), truth, guess])
    assert found.pooled.dice == pytest.approx(float(2 * counts[0] / (counts[1] + counts[2])))
    results = json.loads((run.folder / "run.json").read_text())["results"]
    # The threshold is that of all held-out pictures together.
    assert results["valid_at_threshold"]["dice"] == pytest.approx(found.pooled.dice, abs=2e-3)
    assert results["threshold"]["split"] == "folds"
    assert (run.folder / "evaluate/folds/scores.json").is_file()
    assert "were chosen on 12 of these 12 pictures" in found.advice[0].text
    assert not found.trained_on


def test_the_run_explains_judges_and_predicts_as_one(three, pool, tmp_path):
    run, _ = three
    files = sorted((pool.path / "images").iterdir())[:1]
    done = seglens.explain_folder(
        run, files, out=tmp_path / "maps", methods=("grad-cam",), layers=("decoder_last",)
    )
    assert done.num_done == 1
    images = seglens.read_images(files, size=32)
    target = seglens.targets.predicted(run, images, class_index=1)
    maps = seglens.explain(run, images, target, methods=("integrated-gradients",))
    assert int(maps["integrated-gradients"].diagnostics["folds"][0]) == 3
    assert seglens.predict_files(run, files, out=tmp_path / "masks").num_done == 1


def test_maps_of_the_pictures_of_the_folds_are_said_to_be_of_networks_that_know_them(three, pool, tmp_path):
    run, _ = three
    with pytest.warns(SeglensWarning, match=r"Only evaluate asks.*'folds'.*all but one have learned"):
        seglens.explain_folder(
            run, seglens.open_split(run), out=tmp_path / "maps", methods=("saliency",), num_images=1
        )


def test_temperature_is_kept_and_bettered_the_loss(three):
    run, _ = three
    found = json.loads((run.folder / "run.json").read_text())["results"]["calibration"]
    assert run.spec.temperature == pytest.approx(found["temperature"])
    assert found["loss_after"] <= found["loss_before"]
    assert {"error_before", "error_after", "pixels", "split"} <= found.keys()


def test_folds_go_on_where_they_stopped_and_end_with_the_same_weights(
    pool, tmp_path, three, interrupt, monkeypatch, weights_of, assert_same_weights
):
    whole, settings = three
    data = pool.model_copy(update={"folds": 3})
    calls = []

    def stop(*args, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit_module(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr("seglens.train.fit_module", stop)
        with pytest.raises(KeyboardInterrupt):
            train(data, settings, tmp_path / "run")
    run = train(data, settings, tmp_path / "run", resume=True)
    assert_same_weights(weights_of(run.folder), weights_of(whole.folder))
    assert train(data, settings, tmp_path / "run", resume=True).sha256 == run.sha256


def test_a_run_that_has_ended_is_not_taken_for_one_of_other_settings_or_data(
    pool, tmp_path, three, write_discs, capsys
):
    whole, settings = three
    data = pool.model_copy(update={"folds": 3})
    assert train(data, settings, whole.folder, resume=True).sha256 == whole.sha256
    assert "is finished: there is nothing to resume" in capsys.readouterr().err
    longer = settings.model_copy(update={"epochs": 4})
    with pytest.raises(SettingError, match=r"begun with the setting epochs = 2, received 4"):
        train(data, longer, whole.folder, resume=True)
    with pytest.raises(SettingError, match=r"begun with the data setting folds = 3, received 2"):
        train(pool.model_copy(update={"folds": 2}), settings, whole.folder, resume=True)
    write_discs(tmp_path / "set", 12, first=40)
    with pytest.raises(DataError, match=r"not those that .* was trained with: 12 gone .* and 12 added"):
        train(
            data.model_copy(update={"path": tmp_path / "set", "groups": None}),
            settings,
            whole.folder,
            resume=True,
        )
    mask = pool.path / "masks/disc-03.png"
    before = mask.read_bytes()
    try:
        Image.new("L", (32, 32), 1).save(mask)
        with pytest.raises(DataError, match=r"1 masks or outlines \(disc-03\)"):
            train(data, settings, whole.folder, resume=True)
    finally:
        mask.write_bytes(before)


def test_what_cannot_be_is_refused(pool, tmp_path, tiny, three, discs):
    with pytest.raises(SettingError, match=r"fold is 3, and there are 3 folds, from 0"):
        DataSettings(path=pool.path, folds=3, fold=3)
    with pytest.raises(SettingError, match=r"fold is 0, and folds is left out"):
        DataSettings(path=pool.path, fold=0)
    with pytest.raises(DataError, match=r"12 pictures to train on, in 6 groups, for 7 folds"):
        train(pool.model_copy(update={"folds": 7}), tiny(), tmp_path / "run")
    with pytest.raises(SettingError, match=r"Folds are trained one after the other on one device"):
        train(pool.model_copy(update={"folds": 3}), tiny(devices=2), tmp_path / "run")
    with pytest.raises(SettingError, match=r"torchvision-fcn can't be one model"):
        train(
            pool.model_copy(update={"folds": 3}), tiny(model="torchvision-fcn", width=None), tmp_path / "run"
        )
    one = seglens.load(three[0].folder / "folds/0")
    with pytest.raises(SettingError, match=r"has no folds, so that there is no split 'folds'"):
        seglens.open_split(one, "folds")
    assert not (tmp_path / "run").exists()


def test_a_set_with_names_that_come_twice(tmp_path, write_discs):
    for split in ("train", "valid"):
        write_discs(tmp_path / split, 3)
    for file in (tmp_path / "valid/images").iterdir():
        Image.open(file).rotate(90).save(file)
    data = seglens.open_data(DataSettings(path=tmp_path, folds=3, fold=0, group_from=r"(-\d+)"))
    names = [entry.name for split in data.splits.values() for entry in split.entries]
    assert sorted(names)[0] == "train/disc-00"
    assert len(set(names)) == 6
