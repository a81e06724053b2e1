"""`picowatch` with an engine process that draws digests, for what no model changes.

    python -m tests.commands.digests COMMAND …

Everything else is the real command. To import torch would take longer than such a test.
"""

import sys
from functools import partial

from picowatch.engine.process import child
from picowatch.signals import heed_early_signals


def main() -> int:
    heed_early_signals(sys.argv[1:])
    # Before the commands are imported: they start what is named so.
    child.ChildEngine = partial(child.ChildEngine, program="tests.storm.engine")  # type: ignore
    from picowatch.cli import main as run_command

    return run_command()


if __name__ == "__main__":
    sys.exit(main())
