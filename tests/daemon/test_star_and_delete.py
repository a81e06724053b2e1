"""Stars, and pictures that are deleted by a command: from the gallery or a terminal."""

import json
import shutil
import threading
from collections.abc import Sequence

import pytest

from picowatch.outbox.commands import Command, send
from picowatch.outbox.listing import TAIL_BYTES
from picowatch.outbox.outbox import Outbox
from picowatch.recipe.request import ImageRequest
from tests.commands.picowatch import picowatch
from tests.house import House, wait_for

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


def starred(house: House) -> list[str]:
    lines = (house.outbox / "stars.jsonl").read_text().splitlines()
    return [json.loads(line)["file"] for line in lines]


def test_commands_name_pictures_by_path_or_as_the_gallery_does(house: House) -> None:
    """With a running daemon; what is not a picture of the gallery is named."""
    rendered(house)
    with house.running():
        answer = picowatch(house.folder, "star", f"outbox/{FILES[2]}", FILES[0])
        assert (answer.returncode, answer.stdout) == (0, "2 pictures starred.\n"), answer.stderr
        assert sorted(starred(house)) == [FILES[0], FILES[2]]
        assert picowatch(house.folder, "unstar", FILES[0]).stdout == "1 picture without a star.\n"
        answer = picowatch(house.folder, "delete", FILES[1], FILES[2], "a/9.png")
        assert answer.returncode == 1
        assert answer.stderr == "2 pictures deleted. Not in the gallery: a/9.png.\n"
    assert house.pictures() == [FILES[0]]
    assert starred(house) == []
    assert "a/0002-2.png and 1 more: deleted, as requested" in house.log()


def test_a_command_that_a_browser_still_writes_is_answered_later(house: House) -> None:
    """Browsers create an empty file, and replace it when all is written."""
    rendered(house)
    path = house.outbox / ".picowatch/commands/1-gallery1.json"
    path.touch()
    assert house.once()
    assert path.exists()
    assert not path.with_suffix(".answer").exists()
    path.write_text(json.dumps({"command": "star", "files": FILES[:1]}))
    assert house.once()
    assert starred(house) == FILES[:1]
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


def test_a_contact_sheet_is_starred_and_deleted_like_a_picture(house: House) -> None:
    """It is not drawn again; its pictures stay."""
    house.save("s.yaml", "prompt: a corgi\nseed: 1\nsweep: {steps: [2, 3]}\n")
    assert house.once()
    (sheet,) = (file for file in house.pictures() if "-sheet" in file)
    assert told(house, "star", sheet)["done"]
    assert starred(house) == [sheet]
    assert told(house, "delete", sheet)["done"]
    assert house.once()
    assert len(house.pictures()) == 2
    assert starred(house) == []


def test_stars_outlive_the_gallery_and_their_export(house: House) -> None:
    """Both are written again from `.picowatch/stars.jsonl`."""
    rendered(house)
    assert told(house, "star", FILES[1])["done"]
    (house.outbox / "stars.jsonl").write_text("{}\n")
    for path in (house.outbox / ".picowatch/gallery").glob("*.js"):
        path.unlink()
    assert house.once()
    assert starred(house) == [FILES[1]]
    assert FILES[1] in (house.outbox / ".picowatch/gallery/stars.js").read_text()


def test_stars_outlive_what_is_hidden(house: House) -> None:
    """A cron job deletes old files, or somebody all of `.picowatch`: then stars.jsonl counts."""
    rendered(house)
    for file in (FILES[1], FILES[0]):
        assert told(house, "star", file)["done"]
    before = (house.outbox / "stars.jsonl").read_bytes()
    shutil.rmtree(house.outbox / ".picowatch")
    assert house.once()
    assert (house.outbox / "stars.jsonl").read_bytes() == before
    assert told(house, "unstar", FILES[1])["done"]
    assert house.once()
    assert starred(house) == [FILES[0]]


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


def test_pictures_may_be_published_while_the_status_is_made(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of those that it names is looked for, which takes long on a slow disk."""
    looks_for = Outbox.exists
    go_on = threading.Event()

    def slowly(outbox: Outbox, file: str) -> bool:
        if file == "a/0001-1.png" and not go_on.is_set():
            go_on.set()
            wait_for(lambda: "a/0002-2.png" in house.log(), "another picture")
        return looks_for(outbox, file)

    def hold_the_second(batch: Sequence[ImageRequest]) -> None:
        if batch[0].seed == 2:
            wait_for(go_on.is_set, "a look for the first picture")

    monkeypatch.setattr(Outbox, "exists", slowly)
    house.engine.before_batch = hold_the_second
    house.save("a.txt", "a --seed 1\na --seed 2\n")
    with house.running(batch_size=1):
        both = ["a/0001-1.png", "a/0002-2.png"]
        wait_for(lambda: sorted(house.status().get("pictures", [])) == both, "both of them")
    assert "RuntimeError" not in house.log()
