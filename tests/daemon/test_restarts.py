"""picowatch starts over in its process: with new settings, or with what was lost."""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import psutil  # type: ignore[import-untyped]
import pytest

from picowatch.commands.run import run
from picowatch.daemon.build import check_folders
from picowatch.daemon.settings_file import SettingsFile
from picowatch.errors import FAILED, LedgerCorrupt
from picowatch.ledger import followups
from picowatch.outbox.lock import OutboxLock, is_held
from picowatch.settings.settings import load_settings
from picowatch.sources import FOLDERS
from tests.commands.picowatch import DIGESTS, picowatch, picowatch_here, started
from tests.daemon.processes import ends, process, without_privileges
from tests.daemon.test_disks import locked
from tests.house import SETTLE_SECONDS, House, wait_for

OWN = f"settle_seconds: {SETTLE_SECONDS}\n"


def test_it_starts_over_in_the_same_process(house: House) -> None:
    """What is lost is made again, and saved settings apply, while it keeps its lock."""
    state, log = house.outbox / ".picowatch", house.outbox / "picowatch.log"
    (house.inbox / "notes.txt").symlink_to("/nowhere")  # told at once: no program renames it

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
    with started(house.folder, "run", program=DIGESTS) as process:
        for count, change in enumerate(changes, 1):
            change()
            wait_for(lambda: log.exists() and house.log().count("is watching") == count, "a start")  # noqa: B023
            house.save(f"{count}.txt", "one --seed 3\n")
            wait_for(lambda: len(house.listed()) == count, "the picture")  # noqa: B023
        children = psutil.Process(process.pid).children()
        assert psutil.STATUS_ZOMBIE not in [child.status() for child in children]
        assert house.pictures("5") == ["5/0001-3.webp"]
        assert house.status()["pid"] == process.pid
        assert picowatch_here(house.folder, "run").returncode == 3
        process.terminate()
        assert process.wait(60) == 0
    assert house.log().count("; picowatch starts over") == len(changes) - 1
    assert "picowatch.yaml was saved; picowatch starts over" in house.log()
    assert house.log().count("notes.txt is not run") == 1
    assert len(house.pictures()) == len(changes)


def test_it_starts_over_while_the_settings_file_has_a_mistake(house: House) -> None:
    """All settings stay as they were. Nobody named the models folder: it need not be there."""
    log, error = house.outbox / "picowatch.log", house.outbox / "settings.error.txt"
    file = house.folder / "picowatch.yaml"
    file.write_text("format: webp\nexecutor: local:2\n")
    with started(house.folder, "run", program=DIGESTS) as process:
        wait_for(lambda: log.exists() and "is watching" in house.log(), "a start")
        house.models.rmdir()
        file.write_text("format: webq\n")
        wait_for(error.exists, "the error file")
        (house.outbox / ".picowatch/lock").unlink()
        wait_for(lambda: house.log().count("is watching") == 2, "the second start")
        house.save("a.txt", "one --seed 3\n")
        wait_for(lambda: house.pictures() == ["a/0001-3.webp"], "the picture")
        assert "'webq'" in error.read_text()
        wait_for(lambda: len(house.status()["engines"]) == 2, "its engines")
        process.terminate()
        assert process.wait(60) == 0
    assert picowatch_here(house.folder, "run").returncode == 2


def test_a_ledger_damaged_twice_ends_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would write to a broken disk forever; the first time, a new ledger is built."""
    damaged = LedgerCorrupt("The ledger is damaged.")
    with monkeypatch.context() as patched:
        patched.setattr(followups, "todo", Mock(side_effect=damaged))
        assert run(house.settings(), False, house.make_engine) == FAILED
    assert house.log().count("The ledger is damaged. It is kept as ledger.sqlite.damaged-") == 2
    assert house.once()


# -- settings


@pytest.fixture
def file(house: House) -> SettingsFile:
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


def test_an_invalid_file_changes_nothing_until_fixed(house: House, file: SettingsFile) -> None:
    """However an editor saves, the problem is shown until it is fixed or the file is deleted."""
    error = house.outbox / "settings.error.txt"
    ways = [moved_away_first, line_by_line]
    with house.running(settings_file=file):
        for number, save in enumerate(ways, 1):
            save(file.path, f"{OWN}max_images_per_save:  many # x\n")
            wait_for(error.exists, "the error file")
            said = error.read_text()
            assert said.startswith(f"{file.path}, line 2, column 23: max_images_per_save 'many': ")
            assert said.endswith("stay as they were. Fix this and save the file again.\n")
            wait_for(lambda: "line 2, column 23" in str(house.status()["errors"]), "the status")
            assert picowatch_here(house.folder, "status").stdout.count("line 2, column 23") == 1
            started = house.status()["started"]
            save(file.path, f"{OWN}max_images_per_save: {number}\n")
            wait_for(lambda: house.status()["errors"] == [], "the end of the problem")
            wait_for(lambda: not error.exists(), "the end of its file")
            said = "picowatch.yaml was saved; picowatch starts over"
            wait_for(lambda: house.log().count(said) == number, "a start")  # noqa: B023
            assert house.status()["started"] == started, "the same process goes on"
        house.save("b.yaml", f"prompt: a\nseed: 1..{len(ways) + 1}\n")
        wait_for(lambda: f"may request {len(ways)} " in (house.error("b.yaml") or ""))
        file.path.write_text("settle_secs: 1\n")
        wait_for(error.exists, "the error file")
        file.path.unlink()
        file.path.symlink_to("nothing")
        wait_for(lambda: "Cannot read" in str(house.status()["errors"]), "a link to nothing")
        file.path.unlink()
        wait_for(lambda: not error.exists(), "its end")
        wait_for(lambda: "settle_secs" not in str(house.status()["errors"]), "the status")


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_the_running_time_is_right_after_the_clock_was_set(
    house: House, file: SettingsFile, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """Boards without one of their own set it after picowatch has begun."""
    now = time.time
    with house.running(settings_file=file):
        began = house.status()["started"]
        monkeypatch.setattr(time, "time", lambda: now() + ahead)
        wait_for(lambda: house.status()["started"] == began + ahead, "the time of the start")
        file.path.write_text(f"{OWN}max_images_per_save: 5\n")
        wait_for(lambda: house.log().count("is watching") == 2, "the new settings")
    assert house.status()["started"] == began + ahead, "the same process goes on"


@pytest.mark.parametrize("taken_back", [False, True])
def test_a_batch_in_progress_is_finished_before_new_settings_apply(
    house: House, file: SettingsFile, taken_back: bool
) -> None:
    """No other batch begins; a save that undoes the change lets the queue continue."""
    with house.held("a.yaml", "prompt: a\nseed: 1\n", settings_file=file) as hold:
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


CANNOT_WORK = {
    "metrics_address: 127.0.0.1:{taken}": "Address already in use",
    "metrics_address: a..b:9464": "cannot serve there",
    "outbox: {folder}/other": "already using the outbox",
    "outbox: {folder}/" + "x" * 300: "too long",
    "outbox: {folder}/file/outbox": "must be a folder",
    "outbox: /proc/outbox": "cannot be written",
    "outbox: {folder}/loop": "Symlink loop",
    "inbox: {folder}/file": "There is no inbox folder",
    'inbox: "{folder}/\\udcff"': "not valid UTF-8",
    'models: "{folder}/\\ud800"': "not valid UTF-8",
    "executor: ray": "needs Ray",
}


def written(house: House, **values: str) -> str:
    """Return the text of a settings file with these values, and the house's folders."""
    folders = {name: f'"{house.folder / name}"' for name in FOLDERS}
    values = {"settle_seconds": str(SETTLE_SECONDS), **folders, **values}
    return "".join(f"{name}: {value}\n" for name, value in values.items())


@pytest.fixture
def whole_file(house: House, file: SettingsFile) -> SettingsFile:
    """Return a settings file with folders, which is read as `run` reads it."""
    file.path.write_text(written(house))
    return replace(file, load=lambda: check_folders(load_settings({}, {}, file.path), waits=True))


def test_settings_that_cannot_work_keep_the_old_ones(
    house: House, whole_file: SettingsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused like invalid ones: the daemon goes on, or starts again as it was."""
    monkeypatch.setattr("picowatch.daemon.build.find_spec", lambda name: None)
    error, folder = house.outbox / "settings.error.txt", house.folder
    (folder / os.fsdecode(b"\xff")).mkdir()
    (folder / "file").touch()
    (folder / "loop").symlink_to("loop")
    (folder / "other").mkdir()
    lock = OutboxLock(folder / "other")
    with socket.create_server(("127.0.0.1", 0)) as taken, house.running(settings_file=whole_file):
        port = taken.getsockname()[1]
        for count, (setting, why) in enumerate(CANNOT_WORK.items(), 1):
            name, _, value = setting.format(folder=folder, taken=port).partition(": ")
            whole_file.path.write_text(written(house, **{name: value}))
            wait_for(lambda: error.exists() and why in error.read_text(), setting)  # noqa: B023
            assert "Fix this and save the file again" in error.read_text()
            wait_for(lambda: why in str(house.status()["errors"]), "the status")  # noqa: B023
            wait_for(lambda: why in house.log(), "the log")  # noqa: B023
            house.save(f"{count}.txt", "one --seed 3\n")
            wait_for(lambda: house.pictures(str(count)), "a picture")  # noqa: B023
        lock.release()
        whole_file.path.write_text(written(house, outbox=str(folder / "other")))
        wait_for(lambda: not error.exists(), "the end of the problem")
        wait_for((folder / "other/latest.png").exists, "pictures in the other outbox")
        assert not is_held(house.outbox)
        assert house.status()["ended"]
        assert is_held(folder / "other")


def test_hooks_go_on_when_it_starts_over(house: House, file: SettingsFile) -> None:
    """Running and queued calls are those of the settings under which they were made."""
    notes, go = house.folder / "notes", house.folder / "go"
    script = f"until [ -e {go} ]; do sleep 0.02; done; echo {{}} >> {notes}"

    def saved(name: str) -> str:
        program = json.dumps(["sh", "-c", script.format(name)])
        return f"{OWN}hooks: {{picture: {program}}}\n"

    file.path.write_text(saved("old"))
    with house.running(settings_file=file, hooks={"picture": ["sh", "-c", script.format("old")]}):
        house.save("a.txt", "a star --seed 1\na star --seed 2\na star --seed 3\n")
        wait_for(lambda: len(house.listed()) == 3, "the pictures")
        file.path.write_text(saved("new"))
        wait_for(lambda: "starts over" in house.log(), "the new settings")
        house.save("b.txt", "a heart --seed 1\n")
        wait_for(lambda: house.pictures("b"), "another picture")
        go.touch()
        wait_for(lambda: notes.exists() and notes.read_text().count("\n") == 4, "all calls")
    assert notes.read_text().split() == ["old"] * 3 + ["new"]


def test_no_make_takes_the_outbox_while_it_starts_over(house: House) -> None:
    """All pictures after the save of settings have the new format."""
    file, hold = house.folder / "picowatch.yaml", house.folder / "hold"
    file.write_text("batch_size: 1\n")
    for name in ("a", "b"):
        (house.folder / f"{name}.yaml").write_text(f"prompt: {name}\nseed: 1\ncount: 4\n")
    hold.touch()
    with started(house.folder, "run", program=DIGESTS) as process:
        wait_for((house.outbox / "now.txt").exists, "the start")
        with ThreadPoolExecutor() as makes:
            made = [
                makes.submit(picowatch, house.folder, "make", f"{name}.yaml", program=DIGESTS)
                for name in ("a", "b")
            ]
            wait_for(lambda: house.status()["images"]["queued"] == 7, "both recipes")
            file.write_text("batch_size: 1\nformat: webp\n")
            wait_for(lambda: "takes effect after the batch" in house.log(), "the save")
            hold.unlink()
            assert [future.result().returncode for future in made] == [0, 0]
        ends(process)
    assert Counter(Path(line["file"]).suffix for line in house.listed()) == {".png": 1, ".webp": 7}


def test_settings_apply_while_a_disk_is_waited_for(house: House, whole_file: SettingsFile) -> None:
    """The setting may be the remedy: a batch that cannot be published is not waited for."""
    other = house.folder / "other"
    with house.held("a.txt", "a star --seed 1\n", settings_file=whole_file) as hold:
        house.outbox.rename(house.folder / "away")
        hold.release()
        wait_for(lambda: house.console.shown[-1].trouble, "the trouble")
        whole_file.path.write_text(written(house, outbox=str(other)))
        wait_for((other / "a/0001-1.png").exists, "the picture")


def test_a_renamed_outbox_is_used_by_its_new_name(house: House, whole_file: SettingsFile) -> None:
    """It is the same outbox, with its pictures and its lock."""
    with house.running(settings_file=whole_file):
        house.save("a.txt", "a star --seed 1\n")
        wait_for(lambda: house.listed(), "the first picture")
        new = house.outbox.rename(house.folder / "renamed")
        whole_file.path.write_text(written(house, outbox=str(new)))
        house.save("b.txt", "a star --seed 2\n")
        wait_for((new / "b/0001-2.png").exists, "the second one")
        assert not house.outbox.exists()
    assert not is_held(new)


def test_other_settings_wait_with_a_batch_for_its_disk(
    house: House, whole_file: SettingsFile, caplog: pytest.LogCaptureFixture
) -> None:
    """What is rendered is not thrown away, and nobody died."""
    house.console.handler = caplog.handler
    with house.held("a.txt", "a star --seed 1\n", settings_file=whole_file) as hold:
        away = house.outbox.rename(house.folder / "away")
        hold.release()
        wait_for(lambda: house.console.shown[-1].trouble, "the trouble")
        whole_file.path.write_text(written(house, format="webp"))
        wait_for(lambda: "takes effect after the batch in progress" in caplog.text, "the save")
        away.rename(house.outbox)
        wait_for(lambda: "saved; picowatch starts over" in house.log(), "the end")
        house.save("b.txt", "a star --seed 2\n")
        wait_for((house.outbox / "b/0001-2.webp").exists, "the next picture")
    assert house.pictures() == ["a/0001-1.png", "b/0001-2.webp"]
    assert house.started() == ["a star", "a star"]
    assert "was killed" not in house.log()


@pytest.mark.parametrize(("name", "mode"), [("inbox", 0), ("outbox", 0o555)])
def test_settings_saved_while_a_folder_was_closed_apply(house: House, name: str, mode: int) -> None:
    """Nothing is wrong in the file, so nobody has to save it again."""
    file, folder = house.folder / "picowatch.yaml", house.folder / name
    with process(house, *without_privileges()) as daemon:
        wait_for(lambda: house.status().get("scanned"), "the start")
        folder.chmod(mode)
        file.write_text("format: webp\n")
        said = f"The {name} "
        wait_for(lambda: said in str(house.status().get("errors")), "the problem")
        folder.chmod(0o755)
        wait_for(lambda: "picowatch.yaml was saved; picowatch starts over" in house.log(), "it")
        house.save("a.txt", "a star --seed 1\n")
        wait_for(lambda: house.pictures() == ["a/0001-1.webp"], "the picture")
        wait_for(lambda: said not in str(house.status()["errors"]), "the end of the problem")
        assert not (house.outbox / "settings.error.txt").exists()
        ends(daemon)


def test_settings_apply_while_a_start_waits(house: House) -> None:
    """Here another program has the ledger. Until then no other picowatch takes the outbox."""
    assert house.once()
    with locked(house), process(house) as daemon:
        console = house.folder / "console"
        wait_for(lambda: "locked; waiting" in console.read_text(), "the trouble")
        assert picowatch_here(house.folder, "run", "--once").returncode == 3
        assert picowatch_here(house.folder, "status").returncode == 0
        (house.folder / "picowatch.yaml").write_text("outbox: other\n")
        wait_for((house.folder / "other/now.txt").exists, "a start")
        assert not is_held(house.outbox)
        ends(daemon)
