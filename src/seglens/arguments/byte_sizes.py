"""Numbers of bytes and of seconds, as people write and read them."""

import re
from decimal import Decimal

from seglens.errors import SettingError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

MOST = 2**60
"""Bytes that nobody has: a number above is a mistake."""


def parse_bytes(text: str) -> int:
    """Return the bytes that ``text`` stands for: ``4GB`` is 4 * 10^9, ``4GiB`` 4 * 2^30, ``4096`` itself.

    >>> parse_bytes("1.5 GB")
    1500000000

    Raises:
        SettingError: it is no number with one of these units, not above 0, or more than `MOST`.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text, re.IGNORECASE)
    unit = found[2].upper() if found else None
    number = int(Decimal(found[1]) * UNITS[unit]) if found and unit in UNITS else 0
    if not 1 <= number <= MOST:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise SettingError(
            f"{shown!r} is no amount of memory. Write a number above 0, of at most 2^60 bytes, with B, "
            "KB, MB, GB, TB, KiB, MiB, GiB or TiB, as in 4GB or 512MiB."
        )
    return number


def say_bytes(number: int) -> str:
    """Write a number of bytes with its decimal unit and three digits.

    >>> say_bytes(1_234_000)
    '1.23 MB'
    """
    for unit in ("TB", "GB", "MB", "KB"):
        if number >= UNITS[unit]:
            return f"{number / UNITS[unit]:.3g} {unit}"
    return f"{number:.0f} B"


def say_seconds(seconds: float) -> str:
    """Write a duration with two digits or so.

    >>> say_seconds(0.0423), say_seconds(75), say_seconds(7300)
    ('0.042 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
