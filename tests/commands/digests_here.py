"""`picowatch` that draws digests itself, for what needs no engine process.

python -m tests.commands.digests_here COMMAND …
"""

import sys
from typing import Any

from tests.commands.digests import run_with


def by_digests_here(child: Any) -> None:
    from tests.digest_engine import DigestEngine

    child.ChildEngine = child.started_engine = lambda options: DigestEngine()


if __name__ == "__main__":
    sys.exit(run_with(by_digests_here))
