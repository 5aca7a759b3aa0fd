"""``python -m seglens`` is the command ``seglens``."""

from seglens.cli import main

main()
