"""The outbox' files, which nothing in a recipe can divert."""

import errno
import fcntl
import json
import logging
import os
import threading
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from docs.tables import DOCS
from picowatch.errors import OutboxInUse
from picowatch.files.atomic import append, write_atomically
from picowatch.files.essential import Writing
from picowatch.outbox.listing import Listing
from picowatch.outbox.lock import OutboxLock, is_held
from picowatch.outbox.log import FIELDS, LOG_FILES, LogFile, logging_to, set_log_format
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import STATUS, EngineStatus, FolderStatus, Status, read_status
from tests.digest_engine import fail_on_bad
from tests.fault_points import refusing
from tests.house import PATIENCE, House, wait_for


def test_a_file_is_replaced_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers see old or new bytes; a failed write leaves the old ones and no temporary file."""
    target = tmp_path / "deep/a.txt"
    write_atomically(target, b"old")
    monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))
    for write in (write_atomically, append):
        with pytest.raises(OSError, match="No space"):
            write(target, b"new")
        assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def test_a_start_leaves_the_file_that_another_picowatch_is_writing(house: House) -> None:
    """Each `picowatch make` writes its command there; only what is an hour old is a crash's."""
    house.save("a.yaml", "prompt: a\n")
    assert house.once()
    commands = house.outbox / ".picowatch/commands"
    written, old = (commands / f".picowatch-{number}.tmp" for number in (1, 2))
    left = house.outbox / "a/.picowatch-3.tmp"
    for path in (written, old, left):
        path.touch()
    os.utime(old, (0, 0))
    assert house.once()
    assert [path for path in (written, old, left) if path.exists()] == [written]


def test_pictures_behind_a_link_stay_and_all_others_are_deleted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that may not be deleted are named with what to do, for a relative outbox, too."""
    for name in "abcd":
        house.save(f"{name}.txt", "a corgi --seed 1\n")
    assert house.once()
    files = [f"{name}/0001-1.png" for name in "abcd"]
    for name in "ab":
        (house.outbox / name).rename(house.folder / name)
        (house.outbox / name).symlink_to(f"../{name}")
    (house.outbox / files[2]).unlink()
    (house.outbox / files[2]).mkdir()
    answer = house.answer("delete", None, *files)
    assert (answer.done, answer.text) == (
        False,
        "1 picture deleted. A link in its path leads out of the outbox: a/0001-1.png "
        "and b/0001-1.png. Delete it there, or put a folder in the link's place. It is a folder: "
        "c/0001-1.png. Move it away.",
    )
    monkeypatch.chdir(house.folder)
    root, given = Path("outbox"), {"file_name": "{number}", "sidecar": "none", "quality": "auto"}
    outbox = Outbox(root, Writing(Event(), root), picture_format="png", ai_mark=True, **given)
    outbox.gallery.catch_up()
    assert outbox.gallery.shown(files) == {path: [path] for path in files[:3]} | {files[3]: []}
    assert [*outbox.delete(files[:2])] == files[:2]
    assert [(house.outbox / file).exists() for file in files] == [True, True, True, False]


def test_a_second_picowatch_on_one_outbox_is_refused(tmp_path: Path) -> None:
    """Only the system's lock counts: another process may have the written id by now."""
    path = tmp_path / ".picowatch/lock"
    path.parent.mkdir()
    path.write_text(f"{os.getppid()} make")
    assert not is_held(tmp_path)
    for _ in range(2):
        lock = OutboxLock(tmp_path)
        assert is_held(tmp_path)
        with pytest.raises(OutboxInUse, match=rf"\(process {os.getpid()}\)"):
            OutboxLock(tmp_path)
        lock.release()
        assert not is_held(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert not is_held(tmp_path), "and nobody waits for its writer"


def test_a_check_of_the_lock_keeps_nobody_out(tmp_path: Path) -> None:
    """`picowatch status` may share the lock for a moment while another picowatch starts."""
    OutboxLock(tmp_path).release()
    taken: list[OutboxLock] = []
    starting = threading.Thread(target=lambda: taken.append(OutboxLock(tmp_path)))
    with (tmp_path / ".picowatch/lock").open() as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        starting.start()
        starting.join(0.1)
        assert starting.is_alive(), "it has given up"
    starting.join(PATIENCE)
    taken.pop().release()


def test_the_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not fill the disk while nobody looks for months."""
    monkeypatch.setattr("picowatch.outbox.log.LOG_BYTES", 1000)
    writing = Writing(Event(), tmp_path)
    with closing(LogFile(tmp_path / "picowatch.log", writing)) as log, logging_to(log):
        set_log_format("json")
        for number in range(500):
            logging.getLogger("picowatch").info("picture %s", number)
    files = list(tmp_path.iterdir())
    assert 2 <= len(files) <= 1 + LOG_FILES
    assert max(file.stat().st_size for file in files) <= 1000
    newest = (tmp_path / "picowatch.log").read_text().splitlines()[-1]
    assert json.loads(newest)["message"] == "picture 499"


def test_a_log_that_is_moved_or_deleted_continues_in_a_new_file(house: House) -> None:
    """As logrotate does. One line is one event, whatever is in a name."""
    log = house.outbox / "picowatch.log"
    with house.running():
        house.save("a.txt", "one --seed 1\n")
        wait_for(lambda: "a.txt: saved" in house.log() and "a/0001-1.png" in house.log())
        log.unlink()
        house.save("b.txt", "two --seed 2\n")
        wait_for(lambda: log.exists() and "b.txt: saved" in house.log())
        assert "a.txt: saved" not in house.log()
        log.rename(house.outbox / "old.log")
        log.touch()
        house.save("a\x1b[31m\n2026 fake line 日本.txt", "a corgi\n")
        wait_for(lambda: "fake line 日本.txt: saved" in house.log())
    assert "\x1b" not in house.log()
    assert not any(line.startswith("2026 fake") for line in house.log().splitlines())


@pytest.mark.parametrize("torn", [b"", b'{"file": "c' + b"x" * 3_000_000])
def test_a_long_line_of_the_list_stays_whole_at_a_start(tmp_path: Path, torn: bytes) -> None:
    """It is longer than what is read at once; the next line begins after it."""
    path = tmp_path / "images.jsonl"
    Listing(path).append({"file": "a.png"})
    Listing(path).append({"file": "b.png", "prompt": "x" * 2_500_000})
    with path.open("ab") as file:
        file.write(torn)
    assert "b.png" in Listing(path).recent_files()
    Listing(path).append({"file": "d.png"})
    assert [line["file"] for line in Listing(path).all()] == ["a.png", "b.png", "d.png"]
    assert len(path.read_bytes().splitlines()) == 3


def test_a_list_whose_end_is_not_as_it_was_written_loses_no_other_line(tmp_path: Path) -> None:
    """Editors leave the last end out; a power cut may lose the first sector of what was added."""
    path, (a, b, c) = tmp_path / "images.jsonl", ({"file": f"{letter}.png"} for letter in "abc")
    listing = Listing(path)
    listing.append(a)
    for later in (listing, Listing(path)):
        path.write_bytes(path.read_bytes().removesuffix(b"\n"))
        later.append(b)
    whole = path.read_bytes()
    Listing(path).append(b, c)
    path.write_bytes(whole.ljust(len(whole) + 8, b"\0") + path.read_bytes()[len(whole) + 8 :])
    Listing(path).append(b)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [a, b, b, c, b]


def test_names_can_be_read_and_searched_for_in_both_lists(house: House) -> None:
    house.save("Möbel.txt", "ein Stuhl 日本 --seed 1\n")
    house.save("Stühle.yaml", "promt: a typo\n")
    house.once()
    assert "Möbel/0001-1.png" in (house.outbox / "images.jsonl").read_text("utf-8")
    assert "ein Stuhl 日本" in (house.outbox / "images.jsonl").read_text("utf-8")
    assert '"Stühle.yaml"' in (house.outbox / "failures.jsonl").read_text("utf-8")


def test_a_name_that_is_no_unicode_is_listed_as_unicode(tmp_path: Path) -> None:
    """Half a surrogate pair, as of an undecodable byte, is escaped."""
    Listing(tmp_path / "list").append({"file": "ü\udce9\ud83d.png"})
    assert "\\udce9\\ud83d" in (tmp_path / "list").read_text("utf-8")
    assert Listing(tmp_path / "list").recent_files() == ["ü\udce9\ud83d.png"]


EXPECTED: list[dict[str, Any]] = [
    *({"event": "started"}, {"event": "finished", "seconds": 0.0}, {"event": "ended"}),
    {"event": "refused", "recipe": "wrong.yaml", "code": "mistake"},
    {"event": "refused", "recipe": "photos/no.png", "code": "unusable"},
    {"event": "ignored", "recipe": "notes.md", "code": "never_run"},
    *({"event": event, "recipe": "a.txt"} for event in ("warning", "saved", "loading", "failed")),
    {"event": "picture", "recipe": "a.txt", "picture": "a/0002-6.png", "seconds": 0.0},
]


def test_a_line_of_json_says_what_it_is_about(house: House) -> None:
    house.engine.before_batch = fail_on_bad
    house.save("a.txt", "bad --seed 5\none --seed 6\n")
    house.save("wrong.yaml", "promt: a corgi\n")
    house.save("photos/_pictures.yaml", "prompt: a corgi\n")
    house.save("photos/no.png", "no picture")
    house.save("notes.md", "mine")
    assert not house.once(batch_size=1, log_format="json")
    lines = [json.loads(line) for line in house.log().splitlines()]
    told = [{name: line[name] for name in FIELDS if name in line} for line in lines]
    assert [expected for expected in EXPECTED if expected not in told] == []
    page = (DOCS / "monitoring.md").read_text()
    assert all(f"\n| `{line['event']}` |" in page and line["message"] for line in lines)


# -- status.json, as `picowatch status` reads it


FOLDERS = (
    FolderStatus(folder="c", done=1, of=4, seconds_left=9.0),
    FolderStatus(folder="d", done=0, of=1),
)
WHOLE = Status(
    updated=2.5, started=1.0, images={"queued": 3}, recipe="a.yaml", seconds_left=40.0, paused=True,
    waiting=(("b.yaml", 2), ("c", 4)), folders=FOLDERS, pictures=("a/0001-1.png",),
    ignored=(("a.tmp", "it is no recipe"),),
    engines=(EngineStatus(number=0, device="cpu", memory_bytes=7), EngineStatus(number=1)),
    pid=7, host="lab",
)  # fmt: skip
WRONG: tuple[dict[str, Any], ...] = (
    *({"updated": "soon"}, {"updated": None}, {"images": []}, {"images": {"queued": "3"}}),
    *({"recipe": 1}, {"image": True}, {"waiting": [["b.yaml"]]}, {"waiting": {"b.yaml": 2}}),
    *({"pictures": "a.png"}, {"folders": [{"done": 1}]}, {"engines": [7]}),
)


def read(outbox: Path, text: str) -> Status | None:
    (outbox / STATUS).parent.mkdir(exist_ok=True)
    (outbox / STATUS).write_text(text)
    return read_status(outbox)


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Whole seconds, too; a later version's fields are ignored, an earlier one's are defaults."""
    values = json.loads(json.dumps(asdict(WHOLE)))
    assert read(tmp_path, json.dumps(values)) == WHOLE
    whole_seconds = {**values, "updated": 2, "new": [1], "engines": [{"number": 0, "new": 1}]}
    found = replace(WHOLE, updated=2.0, engines=(EngineStatus(number=0),))
    assert read(tmp_path, json.dumps(whole_seconds)) == found
    few: dict[str, Any] = {"updated": 1.0, "started": 1.0, "images": {}, "pid": 7, "host": "lab"}
    assert read(tmp_path, json.dumps(few)) == Status(**few)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", "7", "[" * 90_000, "\x00"),
        *(json.dumps(asdict(WHOLE) | changes) for changes in WRONG),
    ],
)
def test_what_is_no_status_is_none(tmp_path: Path, text: str) -> None:
    """Damaged, or with a value of another type, which nothing that is shown later may have."""
    assert read(tmp_path, text) is None
