"""How far apart maps are."""


def normalised(maps):
    """Each map scaled to [0, 1], as the peers return theirs."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def largest(one, other):
    """The largest difference, as a share of the map's maximum."""
    return ((one - other).abs().amax((1, 2)) / other.abs().amax((1, 2))).max().item()
