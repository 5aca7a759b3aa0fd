"""What is printed about volumes speaks of volumes and voxels: every command on a tiny set."""

import re

import pytest

pytest.importorskip("nibabel", reason="needs the extra medical")

from tests.cli.test_volumes import volume_set

from seglens.cli import terminal
from seglens.results.names import worded

OF_PICTURES = re.compile(r"(?i)\b(picture|pixel)s?\b")


def test_our_own_words_change_and_names_do_not():
    assert worded("3 pictures of 8 pixels. Pictures", 3) == "3 volumes of 8 voxels. Volumes"
    assert worded("3 pictures", 2) == "3 pictures"
    assert worded("No picture fits. It is no volume.", 3) == "No volume fits. It is no volume."
    for kept in ("runs/pictures is there", "pictures/a.nii", "'pixel'", "--max-pixels 3", "truth_pixels",
                 "it takes pictures, and this is a volume"):  # fmt: skip
        assert worded(kept, 3) == kept


def test_a_class_keeps_its_name_in_a_table(capsys):
    before = terminal._DIMS.set(3)
    try:
        terminal.print_table(("class", "picture"), [("pixel", "3 pictures"), ("Picture", "12")])
    finally:
        terminal._DIMS.reset(before)
    assert capsys.readouterr().out.split() == "class volume pixel 3 volumes Picture 12".split()


def test_a_tour_of_all_commands(seglens, tmp_path):
    data = volume_set(tmp_path / "set")
    lines: list[str] = []

    def run(*words: object, code: int = 0) -> None:
        ended = seglens(*words)
        assert ended.code == code, ended.err
        lines.extend(f"{words[0]}: {line}" for line in (ended.out + ended.err).splitlines())

    run("data", "check", data)
    words = "--model unet3d --image-size 16 --width 2 --epochs 1 --batch-size 2 --run balls"
    run("train", data, *words.split())
    run("evaluate", "balls")
    perturbing = "occlusion superpixel-occlusion rise score-cam ablation-cam"
    words = f"--methods {perturbing} --layers encoder_last --target class --dry-run --set occlusion.window=8"
    run("explain", "balls", *words.split(), "occlusion.stride=8")
    run("explain", "balls", "--methods", "hires-cam", "--layers", "encoder_last", "--target", "class")
    words = "--num-images 2 --methods hires-cam --layers encoder_last --scores attention --audit border"
    run("judge", "balls", *words.split(), "--target", "class")
    run("judge", "balls", "--recommend")
    run("predict", "balls", data / "imagesTs/ball4_0000.nii.gz", data / "none_0000.nii.gz", code=1)
    run("data", "show", data, "--run", "balls")
    assert "The picture is in" in lines[-1]
    run("layers", "balls")
    assert any("channels x slices x rows x columns" in line for line in lines)
    run("report", "balls")
    run("compare", "balls", "balls", code=2)
    assert [line for line in lines if OF_PICTURES.search(line) and "picture is in" not in line] == []
    page = (tmp_path / "balls/report.html").read_text()
    text = re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^>]*>", " ", page)
    assert "volumes" in text
    assert [found for found in re.findall(r"[^.]{0,40}\b[Pp]i(?:cture|xel)s?\b[^.]{0,40}", text)
            if "olume" not in found] == []  # fmt: skip
    heard = " ".join(re.findall(r' (?:aria-label|alt)="([^"]*)"', page))
    assert "volume" in heard
    assert OF_PICTURES.findall(heard.replace("Enlarged picture", "")) == []
    assert '"nouns":{"balls":"volume"}' in page  # by which scripts call what a card is about
    spoken = " ".join(re.findall(r'"([^"\n]*\b[Pp]icture\b[^"\n]*)"', page[page.index("const Maps") :]))
    assert re.sub("[Pp]icture file|other pictures beside", "", spoken).find("icture") == -1
