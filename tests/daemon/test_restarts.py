"""picowatch restarts itself: the process stays the same, its program begins again."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from picowatch.commands.run import RESTART, run
from picowatch.daemon.settings_file import SettingsFile
from picowatch.errors import FAILED, LedgerCorrupt
from picowatch.ledger.ledger import Ledger
from picowatch.settings import load_settings
from tests.commands.picowatch import DIGESTS, picowatch, started
from tests.house import SETTLE_SECONDS, HeldEngine, House, wait_for

OWN = f"settle_seconds: {SETTLE_SECONDS}\n"


def test_it_starts_over_in_the_same_process(house: House) -> None:
    """What is lost is made again, and a valid save of the settings applies, all of them.

    The queue continues in the same process, which says why it starts over and keeps its lock.
    """
    state, log = house.outbox / ".picowatch", house.outbox / "picowatch.log"

    def save_settings() -> None:
        (house.folder / "elsewhere").mkdir()
        (house.folder / "picowatch.yaml").write_text("format: webp\nmodels: elsewhere\n")

    changes: list[Callable[[], object]] = [
        lambda: None,
        (state / "lock").unlink,
        (state / "ledger.sqlite").unlink,
        lambda: state.rename(house.folder / "deleted"),
        save_settings,
    ]
    with started(house.folder, "run", program=DIGESTS, PICOWATCH_SETTLE_SECONDS="0.05") as process:
        for count, change in enumerate(changes, 1):
            change()
            wait_for(lambda: log.exists() and house.log().count("is watching") == count, "a start")  # noqa: B023
            house.save(f"{count}.txt", "one --seed 3\n")
            wait_for(lambda: len(house.listed()) == count, "the picture")  # noqa: B023
        assert house.pictures("5") == ["5/0001-3.webp"]
        assert house.status()["pid"] == process.pid
        assert picowatch(house.folder, "run").returncode == 3
        process.terminate()
        assert process.wait(60) == 0
    assert house.log().count("; picowatch starts over") == len(changes) - 1
    assert "picowatch.yaml was saved; picowatch starts over" in house.log()
    assert len(house.pictures()) == len(changes)


def test_it_starts_over_while_the_settings_file_has_a_mistake(house: House) -> None:
    """All settings stay as they were, as the error says. A first start with the file ends."""
    log, error = house.outbox / "picowatch.log", house.outbox / "settings.error.txt"
    file = house.folder / "picowatch.yaml"
    file.write_text("format: webp\nexecutor: local:2\n")
    with started(house.folder, "run", program=DIGESTS, PICOWATCH_SETTLE_SECONDS="0.05") as process:
        wait_for(lambda: log.exists() and "is watching" in house.log(), "a start")
        file.write_text("format: webq\n")
        wait_for(error.exists, "the error file")
        (house.outbox / ".picowatch/lock").unlink()
        wait_for(lambda: house.log().count("is watching") == 2, "the second start")
        house.save("a.txt", "one --seed 3\n")
        wait_for(lambda: house.pictures() == ["a/0001-3.webp"], "the picture")
        assert "'webq'" in error.read_text()
        assert len(house.status()["engines"]) == 2
        process.terminate()
        assert process.wait(60) == 0
    assert picowatch(house.folder, "run", program=DIGESTS).returncode == 2


def test_a_ledger_that_is_damaged_again_at_once_ends_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would write to a broken disk forever; the first time, a new ledger is built."""

    def unreadable(ledger: Ledger) -> int:
        raise LedgerCorrupt("The ledger is damaged.")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "todo", unreadable)
        assert run(house.settings(), False, house.make_engine) == RESTART
        patched.setenv("PICOWATCH_RESTARTED", str(time.time()))
        assert run(house.settings(), False, house.make_engine) == FAILED
    assert house.log().count("The ledger is damaged. It is kept as ledger.sqlite.damaged-") == 2
    assert house.once()


# -- settings


@pytest.fixture
def file(house: House, monkeypatch: pytest.MonkeyPatch) -> SettingsFile:
    """Return a settings file that is checked often."""
    monkeypatch.setattr("picowatch.daemon.daemon.IDLE_SECONDS", 0.05)
    path = house.folder / "picowatch.yaml"
    path.write_text(OWN)
    flags = {"inbox": house.inbox, "outbox": house.outbox, "models": house.models}
    return SettingsFile(path, lambda: load_settings(flags, {}, path))


def moved_away_first(path: Path, text: str) -> None:
    """Save like vim and Emacs: rename the old file to a backup, and write a new one."""
    path.rename(path.with_name("picowatch.yaml~"))
    path.write_text(text)


def line_by_line(path: Path, text: str) -> None:
    """Save like a script; each prefix is valid."""
    with path.open("w") as file:
        for line in text.splitlines(keepends=True):
            file.write(line)
            file.flush()


def test_an_invalid_file_changes_nothing_until_it_is_fixed(
    house: House, file: SettingsFile
) -> None:
    """However an editor saves, the problem is shown until it is fixed or the file is deleted."""
    error = house.outbox / "settings.error.txt"
    ways = [moved_away_first, line_by_line]
    with house.running(settings_file=file):
        for number, save in enumerate(ways, 1):
            save(file.path, f"{OWN}max_images_per_save:  many # x\n")
            wait_for(error.exists, "the error file")
            said = error.read_text()
            assert said.startswith(f"{file.path}, line 2, column 23: max_images_per_save 'many': ")
            assert said.endswith("stay as they were. Fix the file and save it again.\n")
            wait_for(lambda: "line 2, column 23" in str(house.status()["errors"]), "the status")
            before = house.status()["started"]
            save(file.path, f"{OWN}max_images_per_save: {number}\n")
            wait_for(lambda: house.status()["started"] != before, "the start")  # noqa: B023
            assert house.log().count("picowatch.yaml was saved; picowatch starts over") == number
            assert house.status()["errors"] == []
            assert not error.exists()
        house.save("b.yaml", f"prompt: a\nseed: 1..{len(ways) + 1}\n")
        wait_for(lambda: f"may request {len(ways)} " in (house.error("b.yaml") or ""))
        file.path.write_text("settle_secs: 1\n")
        wait_for(error.exists, "the error file")
        file.path.unlink()
        wait_for(lambda: not error.exists(), "its end")
        wait_for(lambda: "settle_secs" not in str(house.status()["errors"]), "the status")


@pytest.mark.parametrize("taken_back", [False, True])
def test_a_batch_in_progress_is_finished_before_new_settings_apply(
    house: House, file: SettingsFile, taken_back: bool
) -> None:
    """No other batch begins; a save that undoes the change lets the queue continue."""
    hold = HeldEngine(house)
    with house.running(settings_file=file):
        house.save("a.yaml", "prompt: a\nseed: 1\n")
        hold.wait_until_held()
        house.save("b.yaml", "prompt: a\nseed: 2\n")
        file.path.write_text(f"{OWN}format: jpeg\n")
        wait_for(lambda: "takes effect after the batch in progress" in house.log(), "the save")
        if taken_back:
            file.path.write_text(f"{OWN}# no format\n")
            wait_for(lambda: "saved, nothing changed" in house.log(), "the second save")
        assert len(house.engine.batches) == 1
        hold.release()
        wait_for(lambda: len(house.pictures()) == 2, "both pictures")
    assert house.pictures() == ["a/0001-1.png", f"b/0001-2.{'png' if taken_back else 'jpg'}"]
    assert ("starts over" in house.log()) is not taken_back
