"""Which signals end picowatch, and how they end it before it has begun."""

import os
import signal
from collections.abc import Sequence
from types import FrameType

from picowatch.errors import INTERRUPTED

ALWAYS_ENDING = (signal.SIGTERM, signal.SIGINT)
# Every signal that ends a process by default and that somebody may send: picowatch then ends the
# engine, and queues again what is in progress.
ENDING = (
    *ALWAYS_ENDING,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
)


def heed_early_signals(arguments: Sequence[str]) -> None:
    """End `run` and `make` as later while their modules are still imported: nothing has begun."""
    if arguments[:1] == ["make"]:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments[:1] != ["run"]:
        return

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(INTERRUPTED if "--once" in arguments else 0)

    for number in ALWAYS_ENDING:
        signal.signal(number, end)
