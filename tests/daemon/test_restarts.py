"""picowatch restarts itself: the process stays the same, its program begins again."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from picowatch.commands.run import RESTART, run
from picowatch.errors import FAILED, LedgerCorrupt
from picowatch.ledger.ledger import Ledger
from tests.commands.picowatch import DIGESTS, start
from tests.house import House, wait_for


@contextmanager
def running(house: House) -> Iterator["subprocess.Popen[str]"]:
    """The real command, ended by SIGTERM with exit code 0."""
    (house.folder / "picowatch.yaml").touch()
    process = start(house.folder, "run", program=DIGESTS, PICOWATCH_SETTLE_SECONDS="0.05")
    try:
        starts(house, 1)
        yield process
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def starts(house: House, count: int) -> None:
    """Wait until the daemon has started so many times."""
    log = house.outbox / "picowatch.log"
    wait_for(lambda: log.exists() and house.log().count("is watching") == count, "a start")


@pytest.mark.parametrize("lost", ["lock", "ledger.sqlite"])
def test_what_is_lost_while_it_runs_is_made_again(house: House, lost: str) -> None:
    """The queue goes on in the same process, which says why it starts over."""
    house.save("a.txt", "one\n")
    with running(house) as process:
        wait_for(lambda: len(house.pictures()) == 1, "the first picture")
        (house.outbox / ".picowatch" / lost).unlink()
        starts(house, 2)
        house.save("b.txt", "two\n")
        wait_for(lambda: len(house.pictures()) == 2, "the second picture")
        assert process.poll() is None
    assert house.log().count("; picowatch starts over") == 1
    assert sorted(house.prompts()) == ["one", "two"]


def test_a_ledger_that_is_damaged_again_at_once_ends_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken disk would be written to for ever; the first time, a new ledger is built."""

    def unreadable(ledger: Ledger) -> int:
        raise LedgerCorrupt("The ledger is damaged.")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "todo", unreadable)
        assert run(house.settings(), False, house.make_engine) == RESTART
        patched.setenv("PICOWATCH_RESTARTED", str(time.time()))
        assert run(house.settings(), False, house.make_engine) == FAILED
    assert house.log().count("The ledger is damaged. It is kept as ledger.sqlite.damaged-") == 2
    assert house.once()
