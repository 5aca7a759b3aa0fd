"""``seglens explain --dry-run``: a table, and nothing on the disk."""


def test_a_dry_run_prints_a_table_and_writes_nothing(seglens, small_run):
    before = sorted(small_run.rglob("*"))
    words = "--num-images 1 --methods grad-cam --layers encoder_last"
    ended = seglens("explain", small_run, *words.split(), "--memory", "2GB", "--dry-run")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["methods", "forwards", "backwards", "batch_size", "time"]
    assert [line.split()[0] for line in lines[1:]] == ["grad-cam", "all,"]
    assert lines[1].split() == ["grad-cam", "1", "1", "1"]
    assert " about " in lines[2]
    assert sorted(small_run.rglob("*")) == before


def test_a_budget_that_is_no_number_of_bytes(seglens, small_run):
    ended = seglens("explain", small_run, "--memory", "much", "--dry-run")
    assert ended.code == 2
    assert ended.err.startswith("seglens: 'much' is no amount of memory.")
