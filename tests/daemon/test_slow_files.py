"""Nothing waits for a file that takes long to read."""

import threading
from pathlib import Path
from typing import IO

import pytest

from picowatch.files.safe_paths import open_below
from tests.house import House, wait_for


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> "SlowFile":
    file = SlowFile()
    monkeypatch.setattr("picowatch.files.safe_paths.open_below", file.open_below)
    return file


class SlowFile:
    """A file below the inbox that nobody can open until `arrives` is set."""

    def __init__(self) -> None:
        self.path = ""
        self.arrives = threading.Event()
        self.is_wanted = threading.Event()

    def open_below(self, root: Path, path: str) -> IO[bytes]:
        if path == self.path:
            self.is_wanted.set()
            self.arrives.wait()
        return open_below(root, path)


TEMPLATE = "photos/_pictures.yaml"


@pytest.mark.parametrize(
    ("path", "files", "answer"),
    [
        ("photos/1.png", {TEMPLATE: "prompt: a corgi\n"}, "photos/1.png"),
        ("photos/1.txt", {"photos/1.png": "", TEMPLATE: "steps: 3\n"}, "photos/1.png"),
        (TEMPLATE, {"photos/1.png": "", TEMPLATE: "steps: 3"}, "photos/*.error.txt"),
        ("slow.txt", {"slow.txt": "a corgi\n"}, "slow/*.png"),
        ("start.png", {"slow.yaml": "prompt: a corgi\nimage: start.png\n"}, "slow/*.png"),
        ("start.png", {"slow.yaml": "prompt: a corgi\nfrom: start.png\n"}, "slow.yaml.error.txt"),
        ("pets/_defaults.yaml", {"pets/slow.txt": "a corgi\n"}, "pets/slow/*.png"),
    ],
)
def test_nothing_waits_for_a_slow_file(
    house: House, slow: SlowFile, path: str, files: dict[str, str], answer: str
) -> None:
    """Engines, the status and other saves go on; then it is rendered, too."""
    slow.path = path
    with house.held("first.yaml", "prompt: first\ncount: 3\n", after=1, batch_size=1) as hold:
        for name in {path, *files}:
            if name.endswith(".png"):
                house.draw(name)
            else:
                house.save(name, files.get(name, "a corgi\n" if "_" not in name else "steps: 4\n"))
        wait_for(slow.is_wanted.is_set, "the reading of the slow file")
        house.wait_for_rounds(5)
        house.save("other.txt", "other\n")
        wait_for(lambda: "other.txt: saved" in house.log(), "another save")
        hold.release()
        wait_for(lambda: len(house.pictures("first")) == 3 and house.pictures("other"), "pictures")
        slow.arrives.set()
        wait_for(lambda: [*house.outbox.glob(answer)], answer)


def test_many_slow_files_hold_up_no_other(house: House, slow: SlowFile) -> None:
    """Other photos of the same folder are read meanwhile."""
    house.save("photos/_pictures.yaml", "prompt: a corgi\n")
    slow.path = "photos/1.png"
    with house.running():
        for number in range(1, 4):
            house.draw(f"photos/{number}.png")
        wait_for(slow.is_wanted.is_set, "the first photo")
        wait_for(lambda: house.pictures() == ["photos/2.png", "photos/3.png"], "the others")
        slow.arrives.set()
        wait_for(lambda: len(house.pictures()) == 3, "the first")


def test_a_new_ledger_waits_for_no_file_that_may_be_renamed(house: House, slow: SlowFile) -> None:
    """A file with the bytes of a finished save is a copy if that is still there."""
    house.save("slow.txt", "a corgi\n")
    assert house.once()
    house.ledger.unlink()
    slow.path = "slow.txt"
    house.save("copy.txt", "a corgi\n")
    with house.running():
        wait_for(slow.is_wanted.is_set, "the reading of the slow file")
        house.wait_for_rounds(5)
        house.save("other.txt", "other\n")
        wait_for(lambda: house.pictures("other"), "another save")
        assert not house.pictures("copy")
        slow.arrives.set()
        wait_for(lambda: house.pictures("copy"), "the copy")
    assert len(house.pictures()) == 3


def test_a_round_waits_only_for_what_is_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once enough is read ahead nothing is read until the round has taken some of it."""
    monkeypatch.setattr("picowatch.daemon.round.WAKE_SECONDS", 3600.0)
    monkeypatch.setattr("picowatch.daemon.reader.MOST_AHEAD", 4)
    for seed in range(20):
        house.save(f"{seed}.yaml", f"prompt: a corgi\nseed: {seed}\n")
    with house.running():
        wait_for(lambda: len(house.pictures()) == 20, "all pictures")
