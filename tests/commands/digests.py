"""`picowatch` with an engine process that draws digests, for what no model changes.

    python -m tests.commands.digests COMMAND …

Everything else is the real command. To import torch would take longer than such a test.
"""

import sys
from functools import partial
from typing import Any

from picowatch.engine.process import child
from picowatch.signals import heed_early_signals
from tests.digest_renderer import DigestRenderer


def main() -> int:
    heed_early_signals(sys.argv[1:])
    engine: Any = partial(child.ChildEngine, make_renderer=DigestRenderer)
    child.ChildEngine = engine  # type: ignore[misc]
    from picowatch.cli import main as run_command

    return run_command()


if __name__ == "__main__":
    sys.exit(main())
