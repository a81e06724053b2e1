"""Pictures that come and go by hand while the gallery is open."""

import shutil

import pytest

from tests.house import House, shown, wait_for


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
        (house.outbox / "linked").symlink_to(folder)
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
        house.outbox.rename(house.folder / "elsewhere")  # with an empty mount point in its place
        house.outbox.mkdir()
        house.wait_for_rounds(1)
        house.outbox.rmdir()
        (house.folder / "elsewhere").rename(house.outbox)
        house.wait_for_rounds(1)
        assert are_shown(*left), "an outbox that was away loses no picture"
    assert [line["file"] for line in house.listed()][:3] == [
        "a/0001-1.png", "a/0002-2.png", "a/0003-3.png"
    ]  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_a_picture_that_is_copied_slowly_is_shown_once_it_is_whole(house: House) -> None:
    house.save("a.yaml", "prompt: a corgi\nseed: 1\n")
    with house.running():
        wait_for(lambda: house.listed(), "the picture")
        content = (house.outbox / "a/0001-1.png").read_bytes()
        slow, whole = (house.outbox / f"mine/{name}.png" for name in ("slow", "whole"))
        slow.parent.mkdir()
        slow.write_bytes(content[:100])
        whole.write_bytes(content)  # it is looked at after the other
        wait_for(lambda: "mine/whole.png" in shown(house.outbox), "what is whole")
        assert "mine/slow.png" not in shown(house.outbox)
        slow.write_bytes(content)
        wait_for(lambda: "mine/slow.png" in shown(house.outbox), "the other")
