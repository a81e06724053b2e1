"""The command `picowatch`, also as `python -m picowatch`."""

import gc
import sys

from picowatch.errors import INTERRUPTED
from picowatch.signals import heed_early_signals, ignore_signals


def main() -> int:
    """Run one command; return its exit code. Imports come after the signal handlers."""
    heed_early_signals(sys.argv[1:])
    try:
        from picowatch.cli import main as run_command

        return run_command()
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        ignore_signals()  # a second signal might come while Python ends
        gc.freeze()  # else Python searches everything for garbage before it ends: 50 ms


if __name__ == "__main__":
    sys.exit(main())
