"""Which signals end picowatch, how they end it before it has begun, and what ignores them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


# Who ends it waits two seconds. What takes longer is left as a crash would leave it.
END_SECONDS = 1.0


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
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # blocked by the process before a restart


@contextmanager
def ended_by_signals(
    stop: threading.Event, wake: threading.Event, overdue: Callable[[], None] = lambda: None
) -> Iterator[list[int]]:
    """Set `stop` and `wake` at every signal that ends picowatch; gives the numbers so far.

    `overdue` is called if that has not ended it END_SECONDS later. A thread sets them. A handler
    interrupts the main thread, which may hold an event's lock at that moment, since it waits for
    it: to set the event would wait for ever then.
    """
    signals: list[int] = []
    read, write = os.pipe()
    os.set_blocking(write, False)
    last = threading.Timer(END_SECONDS, overdue)
    last.daemon = True

    def listen() -> None:
        while numbers := os.read(read, 64):
            signals.extend(number for number in numbers if number in ENDING)
            if signals:
                stop.set()
                wake.set()
                if last.ident is None:
                    last.start()
        os.close(read)

    threading.Thread(target=listen, name="signals", daemon=True).start()
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        for number in ENDING:
            # `nohup` and shells have some of them ignored.
            if number in ALWAYS_ENDING or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)  # the interpreter writes it to `write`
        yield signals
    finally:
        last.cancel()
        signal.set_wakeup_fd(before)
        os.close(write)


def ignore_signals() -> None:
    """Ignore signals while this process lives: its end takes handlers away before it is gone."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
