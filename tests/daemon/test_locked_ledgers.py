"""A ledger that another program holds, as a backup or a shell may: picowatch waits."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from picowatch.ledger.database import Database
from tests.house import House, wait_for

# Transactions of a start, and of a whole life with one save and its picture, at most.
OF_A_START, OF_A_LIFE = 16, 60


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picowatch.files.retry.RETRY_SECONDS", 0.02)


def ledger(house: House) -> Path:
    return house.outbox / ".picowatch/ledger.sqlite"


def test_a_locked_ledger_is_waited_for(house: House) -> None:
    """It is said once."""
    house.save("a.txt", "one\n")
    with house.running():
        wait_for(lambda: house.prompts() == ["one"])
        other = sqlite3.connect(ledger(house), isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        house.save("b.txt", "two\n")
        wait_for(lambda: "cannot write: database is locked; waiting" in house.log())
        wait_for(lambda: house.status()["trouble"] == "database is locked")
        other.execute("ROLLBACK")
        other.close()
        wait_for(lambda: sorted(house.prompts()) == ["one", "two"])
        wait_for(lambda: "it can be written again" in house.log())
    assert house.log().count("is locked") == 1


def test_a_ledger_that_is_locked_at_the_start_is_waited_for(house: House) -> None:
    """Also while it is opened."""
    house.save("a.txt", "one\n")
    assert house.once()
    other = sqlite3.connect(ledger(house), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    house.save("b.txt", "two\n")

    def let_go_once_it_is_said() -> None:
        wait_for(lambda: "; waiting" in house.log())
        other.close()

    holder = threading.Thread(target=let_go_once_it_is_said)
    holder.start()
    with house.running():
        wait_for(lambda: sorted(house.prompts()) == ["one", "two"])
    holder.join()


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(range(OF_A_START), id="start"),
        pytest.param(range(OF_A_START, OF_A_LIFE), id="life", marks=pytest.mark.heavy),
    ],
)
def test_each_transaction_may_find_the_ledger_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: range
) -> None:
    """One after the other: nothing ends, nothing is rendered twice, no try leaves it open."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connected)
    for number in numbers:
        (tmp_path / str(number)).mkdir()
        house = House(tmp_path / str(number))
        house.save("a.txt", "one\n")
        assert house.once()
        house.save("b.txt", "two\n")
        with monkeypatch.context() as patch:
            patch.setattr(Database, "transaction", locked_once(number))
            with house.running():
                wait_for(partial(both_are_made, house), f"with transaction {number} refused")
    assert len(opened) > len(numbers)
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def both_are_made(house: House) -> bool:
    return sorted(house.prompts()) == ["one", "two"]


def locked_once(number: int) -> object:
    """A Database.transaction that finds the ledger locked at its call `number`."""
    transaction, calls = Database.transaction, iter(range(number + 1))

    @contextmanager
    def locked(database: Database) -> Iterator[sqlite3.Connection]:
        if next(calls, None) == number:
            raise sqlite3.OperationalError("database is locked")
        with transaction(database) as sql:
            yield sql

    return locked
