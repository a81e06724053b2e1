"""Pictures that are deleted by a command, and what `make` names: from another process."""

import hashlib
import json

import pytest

from picowatch.outbox.commands import Command, send, wait_for_answer
from picowatch.outbox.listing import TAIL_BYTES
from tests.commands.picowatch import picowatch
from tests.house import HeldEngine
from tests.house import PATIENCE, House, wait_for

FILES = ["a/0001-1.png", "a/0002-2.png", "a/0003-3.png"]
RECIPE = "prompt: a corgi\nseed: [1, 2, 3]\n"


def rendered(house: House, **settings: str) -> None:
    house.save("a.yaml", RECIPE)
    assert house.once(**settings)
    assert house.pictures() == FILES


def told(house: House, command: str, *files: str) -> dict[str, object]:
    """The answer of a run that finds the command."""
    path = send(house.outbox, Command(command, files=files))
    house.once()
    answer: dict[str, object] = json.loads(path.with_suffix(".answer").read_bytes())
    return answer


def test_commands_name_pictures_by_path_or_as_the_gallery_does(house: House) -> None:
    """With a running daemon; what is not a picture of the gallery is named."""
    rendered(house)
    with house.running():
        answer = picowatch(house.folder, "delete", FILES[1], f"outbox/{FILES[2]}", "a/9.png")
        assert answer.returncode == 1
        assert answer.stderr == "2 pictures deleted. Not in the gallery: a/9.png.\n"
    assert house.pictures() == [FILES[0]]
    assert "a/0002-2.png and 1 more: deleted, as requested" in house.log()


def test_a_command_that_a_browser_still_writes_is_answered_later(house: House) -> None:
    """Browsers create an empty file, and replace it when all is written."""
    rendered(house)
    path = house.outbox / ".picowatch/commands/1-gallery1.json"
    path.touch()
    assert house.once()
    assert path.exists()
    assert not path.with_suffix(".answer").exists()
    path.write_text(json.dumps({"command": "delete", "files": FILES[:1]}))
    assert house.once()
    assert house.pictures() == FILES[1:]
    assert not path.exists()


def test_a_deleted_picture_is_rendered_again_only_if_a_save_asks_for_it(house: House) -> None:
    """Not by a start, not by a new ledger; its line stays, and its number is not given again."""
    rendered(house)
    assert told(house, "delete", FILES[1]) == {
        "done": True, "text": "1 picture deleted.", "pictures": []
    }  # fmt: skip
    (house.outbox / ".picowatch/ledger.sqlite").unlink()
    assert house.once()
    assert house.pictures() == [FILES[0], FILES[2]]
    assert [line["file"] for line in house.listed()] == FILES
    house.save("a.yaml", RECIPE)
    assert house.once()
    assert house.pictures() == [FILES[0], FILES[2], "a/0004-2.png"]


def test_what_lies_beside_a_picture_goes_with_it(house: House) -> None:
    """Its sidecar, not another text of that name; latest.png becomes the newest that is left."""
    rendered(house, sidecar="txt")
    (house.outbox / "a/0002-2.txt").write_text("a note of mine")
    assert told(house, "delete", FILES[2])["done"]
    assert told(house, "delete", FILES[1])["done"]
    latest = house.outbox / "latest.png"
    assert latest.read_bytes() == (house.outbox / FILES[0]).read_bytes()
    assert sorted(path.name for path in (house.outbox / "a").glob("*.txt")) == [
        "0001-1.txt", "0002-2.txt"
    ]  # fmt: skip
    assert told(house, "delete", FILES[0])["done"]
    assert not latest.exists()


def test_latest_png_keeps_no_deleted_picture(house: House) -> None:
    """An older one that it shows because its recipe was saved again, unchanged."""
    rendered(house)
    house.save("b.txt", "a cat --seed 1\n")
    with house.running():
        latest = house.outbox / "latest.png"
        wait_for((house.outbox / "b/0001-1.png").exists, "the newest")
        house.save("a.yaml", RECIPE)
        older = [(house.outbox / file).read_bytes() for file in FILES]
        wait_for(lambda: latest.read_bytes() in older, "an older one")
        assert picowatch(house.folder, "delete", *FILES).returncode == 0
        assert latest.read_bytes() == (house.outbox / "b/0001-1.png").read_bytes()


def test_latest_png_is_found_behind_very_many_deleted_pictures(house: House) -> None:
    """More than the last lines of images.jsonl that are read at once."""
    rendered(house)
    left = (house.outbox / FILES[2]).read_bytes()
    house.save("b.yaml", f"prompt: {'a corgi, ' * 2000}\nseed: 1..60\n")
    assert house.once()
    assert (house.outbox / "images.jsonl").stat().st_size > TAIL_BYTES
    told(house, "delete", *house.pictures("b"))
    assert house.pictures() == FILES
    assert (house.outbox / "latest.png").read_bytes() == left


@pytest.mark.parametrize(
    "file",
    ["../secret.png", "/etc/hostname", "a/../../secret.png", ".picowatch/ledger.sqlite", "a", "",
     "latest.png", "a.yaml", "a/note.txt", "a/\0.png"],
)  # fmt: skip
def test_nothing_but_pictures_of_the_gallery_is_deleted(house: House, file: str) -> None:
    """Whoever may write to the outbox may write any command."""
    rendered(house)
    secret = house.folder / "secret.png"
    secret.write_bytes((house.outbox / FILES[0]).read_bytes())
    (house.outbox / "a/note.txt").write_text("mine")
    before = sorted(path for path in house.outbox.rglob("*") if "commands" not in path.parts)
    assert not told(house, "delete", file)["done"]
    assert secret.exists()
    assert sorted(p for p in house.outbox.rglob("*") if "commands" not in p.parts) == before


def test_no_link_leads_a_deletion_out_of_the_outbox(house: House) -> None:
    """A folder that was swapped for a link since the gallery was written."""
    rendered(house)
    elsewhere = house.folder / "elsewhere"
    (house.outbox / "a").rename(elsewhere)
    (house.outbox / "a").symlink_to(elsewhere)
    answer = told(house, "delete", FILES[0])
    assert not answer["done"]
    assert "leads out of the outbox" in str(answer["text"])
    assert (elsewhere / "0001-1.png").exists()


def test_the_status_names_no_picture_that_is_deleted(house: House) -> None:
    """By a command or by hand, now or before the start."""
    rendered(house)
    (house.outbox / FILES[0]).unlink()
    with house.running():
        assert house.status()["pictures"] == FILES[1:]
        assert picowatch(house.folder, "delete", FILES[2]).returncode == 0
        wait_for(lambda: house.status()["pictures"] == [FILES[1]], "the status")


def test_make_names_the_pictures_of_one_save(house: House) -> None:
    """An earlier save of the same bytes is still queued: its random seeds are others."""
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        house.save("first.txt", "in progress\n")
        hold.wait_until_held()
        path = house.save("x.yaml", "prompt: a corgi\ncount: 2\n")
        wait_for(lambda: "x.yaml: saved, 2 images queued" in house.log(), "the first save")
        path.touch()
        wait_for(lambda: "random seeds drawn again" in house.log(), "the second save")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        command = send(house.outbox, Command("make", "x.yaml", digest))
        hold.release()
        answer = wait_for_answer(command, PATIENCE)
        wait_for(lambda: len(house.pictures("x")) == 4, "the pictures of both saves")
    assert answer and answer.text == "2 images rendered."
    assert sorted(answer.pictures) == house.pictures("x")[2:]
