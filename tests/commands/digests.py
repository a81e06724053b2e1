"""`picowatch` with an engine process that draws digests, for what no model changes.

    python -m tests.commands.digests COMMAND …

Everything else is the real command. To import torch would take longer than such a test.
"""

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

        replace_engine(child)
    from picowatch.cli import main

    return main()


def by_digests(child: Any) -> None:
    from tests.digest_renderer import DigestRenderer

    child.ChildEngine = partial(child.ChildEngine, make_renderer=DigestRenderer)


if __name__ == "__main__":
    sys.exit(run_with(by_digests))
