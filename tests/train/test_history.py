"""Training on a handful of discs, drawn on the fly, with a network of a few hundred weights."""

from seglens.train.history import History


def test_history_decides_by_its_rows():
    history = History()
    for epoch, dice in enumerate((0.2, 0.5, 0.5, 0.4), start=1):
        history.add({"epoch": epoch, "valid_dice": dice})
    assert history.best()["epoch"] == 2
    assert history.is_over(2)
    assert not history.is_over(3)
    assert not history.is_over(None)
    unscored = History()
    for epoch in (1, 2):
        unscored.add({"epoch": epoch})
    assert unscored.best()["epoch"] == 2
    assert not unscored.is_over(1)
