"""Pictures that come and go by hand while the gallery is open."""

import os
import shutil
from pathlib import Path

import pytest

from picowatch.outbox.walk import FolderWalk
from tests.house import House, wait_for
from tests.outcome import shown

OLD = 1e9


def aged(folder: Path) -> None:
    """Make all folders as old as if nobody had changed them for long."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            os.utime(path, (OLD, OLD))


def test_only_folders_that_have_changed_are_read(tmp_path: Path) -> None:
    """New folders are found in those above; none behind links, none of picowatch's own."""
    for name in ("a/1.png", "a/b/2.jpg", "c/note.txt", "c/3.control.png", ".picowatch/x/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    aged(tmp_path)
    walk = FolderWalk(tmp_path)
    assert walk.glance() == {"": set()}
    assert walk.glance() == {"a": {"a/1.png"}, "c": set()}
    assert walk.glance() == {"a/b": {"a/b/2.jpg"}}
    assert walk.glance() == {}
    (tmp_path / "a/b/5.png").touch()
    assert walk.glance() == {"a/b": {"a/b/2.jpg", "a/b/5.png"}} == walk.glance()
    aged(tmp_path)
    assert [walk.glance(), walk.glance()] == [{"a/b": {"a/b/2.jpg", "a/b/5.png"}}, {}]
    walk.look_again("a")
    shutil.rmtree(tmp_path / "a/b")
    assert walk.glance() == {"a": {"a/1.png"}, "a/b": set()}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picowatch.outbox.gallery.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("picowatch.outbox.gallery.SETTLED_SECONDS", -1.0)


@pytest.mark.usefixtures("quick")
def test_what_users_do_by_hand_is_seen_while_picowatch_runs(house: House) -> None:
    """Deleted pictures vanish, also with their folder; moved and copied ones appear."""

    def are_shown(*files: str) -> bool:
        return sorted(shown(house.outbox)) == sorted(files)

    house.save("a.yaml", "prompt: a corgi\nseed: [1, 2, 3]\n")
    house.save("b.yaml", "prompt: a cat\nseed: 1\n")
    with house.running():
        wait_for(lambda: len(list(shown(house.outbox))) == 4, "all pictures")
        folder = house.outbox / "mine/best"
        folder.mkdir(parents=True)
        (house.outbox / "a/0001-1.png").rename(folder / "moved.png")
        shutil.copy(house.outbox / "a/0002-2.png", folder)
        (folder / "of-others.png").write_bytes(b"no picture")
        (house.outbox / "a/0002-2.png").unlink()
        shutil.rmtree(house.outbox / "b")
        left = ["a/0003-3.png", "mine/best/0002-2.png", "mine/best/moved.png"]
        wait_for(lambda: are_shown(*left), "what is there")
        thumbnails = house.outbox / ".picowatch/gallery/thumbs"
        wait_for(lambda: len([*thumbnails.rglob("*.webp")]) == 3, "their thumbnails")
        (house.outbox / "a").rename(house.folder / "away")
        wait_for(lambda: are_shown(*left[1:]), "the rest")
        (house.folder / "away").rename(house.outbox / "a")
        wait_for(lambda: are_shown(*left), "they are back")
    assert [line["file"] for line in house.listed()][:3] == [
        "a/0001-1.png", "a/0002-2.png", "a/0003-3.png"
    ]  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_an_outbox_that_is_away_loses_no_picture(house: House) -> None:
    """An empty mount point is in its place for a while."""
    house.save("a.yaml", "prompt: a corgi\nseed: [1, 2]\n")
    with house.running():
        wait_for(lambda: len(list(shown(house.outbox))) == 2, "the pictures")
        house.outbox.rename(house.folder / "elsewhere")
        house.outbox.mkdir()
        house.wait_for_rounds(1)
        house.outbox.rmdir()
        (house.folder / "elsewhere").rename(house.outbox)
        house.wait_for_rounds(1)
        assert len(list(shown(house.outbox))) == 2
