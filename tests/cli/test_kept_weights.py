"""Weights of an epoch that ``--epoch`` asks for must be those that the training kept."""

from tests.data.layouts import write_pairs

SMALL = "--width 4 --image-size 32 --epochs 1 --batch-size 2 --device cpu --precision 32".split()


def test_other_weights_of_an_epoch_are_refused(seglens, tmp_path):
    write_pairs(tmp_path / "set", "abcdefgh")
    made = seglens("train", "set", "--run", "run", *SMALL, "--keep-every", "1")
    assert made.code == 0
    asked = ("evaluate", "run", "--epoch", "1", "--device", "cpu", "--out")
    assert seglens(*asked, "right").code == 0
    kept = tmp_path / "run" / "checkpoints" / "epoch-001.safetensors"
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1  # one bit of one weight: nothing but the hash can tell
    kept.write_bytes(content)
    ended = seglens(*asked, "wrong")
    assert ended.code != 0
    assert "epoch-001.safetensors holds other weights than run.json was written for" in ended.err
    assert not (tmp_path / "wrong").exists()
    assert seglens("evaluate", "run", "--device", "cpu", "--out", "last").code == 0
