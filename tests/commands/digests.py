"""`picowatch` with an engine process that draws digests, for what no model changes.

    python -m tests.commands.digests COMMAND …

Everything else is the real command, but for shorter waits AT_TESTS_PACE. To import torch would
take longer than such a test.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from picowatch.signals import heed_early_signals


def run_with(replace_engine: Callable[[Any], None]) -> int:
    """Run a command, whose engine is replaced in the module `child`."""
    heed_early_signals(sys.argv[1:])
    if {"make", "run"} & {*sys.argv}:  # other commands begin sooner without it
        from picowatch.engine.process import child
        from tests.pace import AT_TESTS_PACE, set_pace

        replace_engine(child)
        if AT_TESTS_PACE in os.environ:
            set_pace()
            os.environ.setdefault("PICOWATCH_SETTLE_SECONDS", "0.05")
    from picowatch.cli import main

    return main()


def by_digests(child: Any) -> None:
    from tests.digest_renderer import DigestRenderer

    child.ChildEngine = partial(child.ChildEngine, make_renderer=DigestRenderer)


if __name__ == "__main__":
    sys.exit(run_with(by_digests))
