"""What cannot be done now holds up nothing else, and is tried again later."""

import errno
import threading
from collections import deque
from pathlib import Path

import pytest

from picowatch.daemon.attempts import Attempts
from picowatch.files.retry import RETRY_SECONDS, Retry


class Clock:
    """Stands still unless it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def attempts(folder: Path, clock: Clock, *, keeps_trying: bool = True) -> Attempts:
    retry = Retry(threading.Event(), folder, keeps_trying=keeps_trying)
    return Attempts(retry, go_on=lambda: None, steady=clock)


def test_what_is_hindered_holds_up_no_other_action(tmp_path: Path) -> None:
    """It is tried again two seconds later, and not before."""
    clock, done = Clock(), []
    tried = attempts(tmp_path, clock)
    tried.all_of([full, lambda: done.append(1)])
    assert done == [1]
    assert not tried.are_due()
    clock.now += RETRY_SECONDS
    assert tried.are_due()


def test_what_is_hindered_stays_in_its_queue(tmp_path: Path) -> None:
    """The others are taken out of it."""
    queue, done = deque(["a", "full", "b"]), []

    def do(what: str) -> None:
        if what == "full":
            full()
        done.append(what)

    with pytest.raises(OSError, match="No space"):
        attempts(tmp_path, Clock()).each(queue, do)
    assert (done, list(queue)) == (["a", "b"], ["full"])


def test_a_single_run_waits_for_nothing(tmp_path: Path) -> None:
    """Whoever started it sees it."""
    with pytest.raises(OSError, match="No space"):
        attempts(tmp_path, Clock(), keeps_trying=False).all_of([full])
