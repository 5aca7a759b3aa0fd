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


def test_of_epochs_of_one_dice_that_of_the_lowest_loss_is_the_best():
    """While nothing is found Dice is 0; the first epoch is the one that has learned the least."""
    history = History()
    best = []
    for epoch, loss in enumerate((1.0, 0.8, 0.9, 0.8, 0.7), start=1):
        history.add({"epoch": epoch, "valid_dice": 0.0, "valid_loss": loss})
        best.append(history.best()["epoch"])
        assert not history.is_over(3)
    assert best == [1, 2, 2, 2, 5]
    history.add({"epoch": 6, "valid_dice": 0.1, "valid_loss": 2.0})
    assert history.best()["epoch"] == 6
