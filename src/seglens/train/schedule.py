"""Learning-rate schedules: the share of the highest rate at every step of a training."""

from collections.abc import Callable
from math import cos, pi

Schedule = Callable[[int, int], float]


def cosine(step: int, num_steps: int) -> float:
    """Return a linear warm-up over 5 % of the steps, then half a cosine to 0.

    Goyal et al. (2017, section 2.2); Loshchilov, Hutter (2017, eq. 5) without restarts.
    """
    warm_up = max(1, num_steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return _falling((step - warm_up) / max(1, num_steps - warm_up))


def one_cycle(step: int, num_steps: int) -> float:
    """Return half a cosine from 1/25 up to 1 over 30 % of the steps, then half a cosine down to 0.

    Smith, Topin (2018), in the form with cosines that is usual today; the momentum is left alone.
    """
    rise = max(1, round(0.3 * num_steps))
    if step < rise:
        return 1 / 25 + (1 - 1 / 25) * (1 - _falling(step / rise))
    return _falling((step - rise) / max(1, num_steps - rise))


def constant(step: int, num_steps: int) -> float:
    """Return 1 after the same warm-up as `cosine`."""
    return min(1.0, (step + 1) / max(1, num_steps // 20))


def _falling(part: float) -> float:
    return 0.5 * (1 + cos(pi * min(1.0, part)))


SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "one-cycle": one_cycle, "constant": constant}
"""The first is the default."""
