"""Whether a picowatch works with an outbox, as far as this machine can tell."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from picowatch.outbox.lock import is_held
from picowatch.outbox.status import read_status

# A status is written every five seconds; a share's cache and two clocks may differ by as much
# again.
FRESH_SECONDS = 30.0


def seems_to_run(outbox: Path) -> bool:
    """The lock says it on one machine, and over most network file systems.

    Where locks do not reach, the status of another machine is fresh or not.
    """
    return is_held(outbox) or _is_fresh_elsewhere(read_status(outbox) or {})


def _is_fresh_elsewhere(status: Mapping[str, Any]) -> bool:
    if status.get("ended") or status.get("host", socket.gethostname()) == socket.gethostname():
        return False
    return abs(time.time() - float(status.get("updated", 0.0))) < FRESH_SECONDS
