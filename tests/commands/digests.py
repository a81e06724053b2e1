"""`picowatch` with an engine process that draws digests, for what no model changes.

    python -m tests.commands.digests COMMAND …

Everything else is the real command. To import torch would take longer than such a test.
"""

import sys

from picowatch.engine.process import command
from picowatch.signals import heed_early_signals


def main() -> int:
    heed_early_signals(sys.argv[1:])
    command.ENGINE_PROGRAM = "tests.storm.engine"
    from picowatch.cli import main as run_command

    return run_command()


if __name__ == "__main__":
    sys.exit(main())
