"""Shares of a job, a job of one process, and settings that make no job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.jobs import ALONE_ENVIRONMENT, files_below

from seglens.errors import OutputExistsError, SettingError
from seglens.runtime.distributed import ALONE, Share, spread


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("num", [0, 1, 7, 16])
def test_every_item_is_in_one_share(num: int, size: int):
    shares = [Share(rank, size).of(num) for rank in range(size)]
    assert [item for part in shares for item in part] == list(range(num))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_is_the_whole_job(tmp_path: Path):
    with spread(device="cpu") as share:
        assert share == Share(0, 1, "cpu")
        assert share.first
        assert share.gather([1, 2]) == [1, 2]
        share.agree("anything", object())
        with share.folder(tmp_path / "out", command="evaluate") as folder:
            (folder / "file").write_text("x")
    assert files_below(tmp_path) == {"out", "out/file", "out/run.json"}
    with (
        pytest.raises(OutputExistsError, match="--force"),
        ALONE.folder(tmp_path / "out", command="evaluate"),
    ):
        pass


def test_one_process_needs_no_lightning():
    script = "import sys, seglens\nwith seglens.spread(): pass\nsys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env=ALONE_ENVIRONMENT).returncode == 0


def test_settings_that_make_no_job(monkeypatch: pytest.MonkeyPatch):
    def refused(**settings: object) -> pytest.ExceptionInfo[SettingError]:
        with pytest.raises(SettingError) as caught, spread(**settings):  # type: ignore[arg-type]
            pass
        return caught

    assert refused(devices=0).match("devices is 0, but must be from 1")
    assert refused(num_nodes=-1).match("num_nodes is -1")
    assert refused(devices=2, device="cuda:1").match("can't all be 'cuda:1'. Name the kind: 'cuda'")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refused(devices=2, device="cuda").match("2 GPUs were asked for, but there is none")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert refused(devices=3).match("3 devices were asked for, but there is 1 of the kind 'cuda'")


def test_who_started_the_processes_has_to_agree(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(SettingError, match="torchrun has started 2 processes, but the job is for 1"),
        spread(),
    ):
        pass
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with pytest.raises(SettingError, match="not 3 on each of 1 nodes"), spread(devices=3, device="cpu"):
        pass
    assert dict(os.environ) == before


def test_other_nodes_need_an_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", [__file__])  # whatever runs the tests, this could be started again
    with (
        pytest.raises(SettingError, match=r"job on 2 nodes .* MASTER_ADDR, MASTER_PORT, NODE_RANK"),
        spread(devices=2, num_nodes=2, device="cpu"),
    ):
        pass
