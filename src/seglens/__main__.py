"""The command ``seglens``, which is also ``python -m seglens``."""

import os

from seglens.runtime.signals import open_streams, quiet_until_ready

SPINS = "5000"
"""Turns in which a thread of OpenMP waits for the others before it sleeps (benchmarks/RESULTS.md).

GNU's 300,000 last about as long as a core is lent to another program. On busy cores every step then waits for
that program, again and again.
"""


def main() -> None:
    """Run the command line of this process; the heavy part of it is imported where Ctrl-C is no fault."""
    if "OMP_WAIT_POLICY" not in os.environ:  # read where torch is imported
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    quiet_until_ready()
    open_streams()
    from seglens.cli import main as run

    run()


if __name__ == "__main__":
    main()
