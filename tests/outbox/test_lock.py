"""The lock also tells whether the last daemon ended by itself."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from picowatch.outbox.lock import OutboxLock


def test_a_full_disk_at_the_start_after_a_crash_does_not_hide_the_crash(tmp_path: Path) -> None:
    """The lock is tried again until it can be written; what it said of the crash must stay."""
    (tmp_path / ".picowatch").mkdir()
    (tmp_path / ".picowatch" / "lock").write_text("12345")
    with no_room(), pytest.raises(OSError, match="too large"):
        OutboxLock(tmp_path)
    lock = OutboxLock(tmp_path)
    assert lock.after_crash
    lock.release()
    again = OutboxLock(tmp_path)
    assert not again.after_crash
    again.release()


@contextmanager
def no_room() -> Iterator[None]:
    """Meanwhile no file of this process takes a byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
