"""Signals that end picowatch, also while it starts."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from picowatch.errors import INTERRUPTED

ALWAYS_ENDING = (signal.SIGTERM, signal.SIGINT)
# Every signal that somebody may send and that ends a process by default: picowatch then ends the
# engine, and queues images in progress again.
ENDING = (
    *ALWAYS_ENDING, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
)  # fmt: skip
# Whoever ends picowatch may wait two seconds; whatever takes longer is left as a crash leaves it.
END_SECONDS = 1.0


def heed_early_signals(arguments: Sequence[str]) -> None:
    """Let signals end `run` and `make` (as Ctrl-C does) properly even during imports."""
    for number in ENDING if arguments[:1] == ["make"] else ():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    code = INTERRUPTED if "--once" in arguments else 0
    for number in ALWAYS_ENDING if arguments[:1] == ["run"] else ():
        signal.signal(number, lambda *_: os._exit(code))


@contextmanager
def ended_by_signals(
    stop: threading.Event, wake: threading.Event, overdue: Callable[[], None] = lambda: None
) -> Iterator[list[int]]:
    """Set `stop` and `wake` at every signal that ends picowatch; yield the numbers so far.

    `overdue` is called if picowatch has not ended END_SECONDS later. A thread sets the events,
    because a handler interrupts the main thread, which may hold an event's lock while it waits for
    it: setting the event there would deadlock.
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

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        for number in ENDING:
            # `nohup` and shells start programs that ignore some of them.
            if number in ALWAYS_ENDING or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)  # the interpreter writes it to `write`
        yield signals
    finally:
        signal.set_wakeup_fd(before)
        os.close(write)
        listener.join(END_SECONDS)  # else a signal of just now would come too late to the list
        last.cancel()


def ignore_signals() -> None:
    """Ignore signals from now on: while Python ends, it removes handlers before it is gone."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
