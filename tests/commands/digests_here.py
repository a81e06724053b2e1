"""`picowatch` that draws digests itself, for what needs no engine process.

    python -m tests.commands.digests_here COMMAND …

Everything else is the real command.
"""

import sys
from typing import Any

from picowatch.signals import heed_early_signals


def main() -> int:
    heed_early_signals(sys.argv[1:])
    if {"make", "run"} & {*sys.argv}:  # other commands begin sooner without these
        from picowatch.engine.process import child
        from tests.digest_engine import DigestEngine

        here: Any = lambda options: DigestEngine()  # noqa: E731
        child.ChildEngine = child.started_engine = here  # type: ignore[misc]
    from picowatch.cli import main as run_command

    return run_command()


if __name__ == "__main__":
    sys.exit(main())
