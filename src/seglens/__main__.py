"""The command ``seglens``, which is also ``python -m seglens``."""

from seglens.runtime.signals import open_streams, quiet_until_ready


def main() -> None:
    """Run the command line of this process; the heavy part of it is imported where Ctrl-C is no fault."""
    quiet_until_ready()
    open_streams()
    from seglens.cli import main as run

    run()


if __name__ == "__main__":
    main()
