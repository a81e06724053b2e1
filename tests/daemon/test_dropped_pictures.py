"""`_pictures.yaml`: every picture saved in its folder or below is a request with these fields."""

import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest
from PIL import Image, PngImagePlugin

from picowatch.commands.check import check
from picowatch.files.inside import open_below
from picowatch.files.picture_names import ENDINGS
from picowatch.files.pictures import check_picture
from picowatch.inbox import inbox as inbox_module
from picowatch.inbox import watching
from picowatch.metadata import PICOWATCH, read_texts
from picowatch.outbox.commands import Command, send, wait_for_answer
from picowatch.outbox.names import OutboxNames
from picowatch.recipe.request import ImageRequest
from picowatch.settings import LocalSettings
from tests.house import HeldEngine
from tests.house import PATIENCE, House, one_waits_for_one, wait_for
from tests.meetings.test_dropped import ONE, RANDOM, drop
from tests.meetings.test_dropped import template as save_template
from tests.meetings.test_pairs import found
from tests.meetings.world import Action

TEMPLATE = "prompt: a corgi\nseed: 7\nsize: 64x64\n"


def draw(house: House, name: str, red: int = 100, folder: str = "inbox") -> Path:
    path = house.folder / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (red, 0, 0)).save(path)
    return path


def template(house: House, text: str = TEMPLATE, folder: str = "frames") -> Path:
    return house.save(f"{folder}/_pictures.yaml", text)


def copies(house: House) -> list[str]:
    folder = house.outbox / ".picowatch/start-images"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def errors(house: House) -> list[str]:
    return sorted(p.relative_to(house.outbox).as_posix() for p in house.outbox.rglob("*.error.txt"))


# -- names


def test_names_and_folders_are_those_of_the_pictures(house: House) -> None:
    """Later ones have a number; pictures that differ in their endings keep these."""
    template(house, TEMPLATE + "count: 2\n")
    for name in ("0001.jpg", "a/b/0002.PNG", "a/x.y.webp", "twin.jpg", "twin.png"):
        draw(house, f"frames/{name}")
    assert house.once()
    assert house.pictures() == [
        "frames/0001-2.png", "frames/0001.png", "frames/a/b/0002-2.png", "frames/a/b/0002.png",
        "frames/a/x.y-2.png", "frames/a/x.y.png", "frames/twin.jpg-2.png", "frames/twin.jpg.png",
        "frames/twin.png-2.png", "frames/twin.png.png",
    ]  # fmt: skip
    request = house.chunk("frames/0001.png").request
    assert (request.image, len(request.image_hash)) == ("frames/0001.jpg", 64)
    assert house.chunk("frames/0001.png").recipe == "frames/0001.jpg"
    assert copies(house) == [], "copies are for what is next"


def test_every_format_of_start_images_may_be_dropped(house: House) -> None:
    """Those that can hold no settings, too; following these is a mistake."""
    template(house)
    template(house, "from: picture\nprompt: a corgi\n", "again")
    for folder in ("frames", "again"):
        for index, kind in enumerate(ENDINGS):
            draw(house, f"{folder}/{index}{kind}")
    assert not house.once()
    assert house.pictures() == [f"frames/{index}.png" for index in range(len(ENDINGS))]
    assert len(errors(house)) == len(ENDINGS)
    assert "it contains no settings" in (house.error(f"again/0{ENDINGS[0]}") or "")


def test_no_name_is_given_twice(house: House) -> None:
    """Also where a picture is called like a later one of another, or what a user put there."""
    template(house, TEMPLATE + "count: 3\n")
    for name in ("1.png", "1-2.png", "1.control.png"):  # the last is a map's name
        draw(house, f"frames/{name}")
    draw(house, "frames/1-3.png", folder="outbox")
    assert house.once(batch_size=4)
    assert len(house.pictures()) == 10
    digests = [house.chunk(p).request.digest for p in house.pictures() if p != "frames/1-3.png"]
    assert len(set(digests)) == 9
    assert "frames/1.control_.png" in house.pictures()


def test_results_of_one_batch_differ_where_case_is_ignored(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one would be written over the other."""
    monkeypatch.setattr(OutboxNames, "ignores_case", True)
    template(house)
    for index, name in enumerate(("Anna.png", "anna.png", "ANNA.jpg")):
        draw(house, f"frames/{name}", index)
    assert house.once(batch_size=4)
    assert len({file.casefold() for file in house.pictures()}) == 3


def test_the_nearest_template_holds_and_folders_without_one_are_as_ever(house: House) -> None:
    template(house)
    template(house, "prompt: a star\nseed: 1\n", "frames/stars")
    for name in ("frames/1.png", "frames/stars/2.png", "frames/stars/deep/3.png", "other/4.png"):
        draw(house, name)
    house.save("other/a.txt", "a tree\n")
    assert house.once()
    assert house.pictures("other/a") != []
    assert [p for p in house.pictures() if not p.startswith("other")] == [
        "frames/1.png", "frames/stars/2.png", "frames/stars/deep/3.png",
    ]  # fmt: skip
    assert house.prompts("frames") == ["a corgi", "a star", "a star"]


# -- what lies beside a picture


def test_a_text_is_the_prompt_and_a_yaml_the_fields(house: House) -> None:
    """Both beat the template; alone they make nothing, nor does an ordinary recipe there."""
    template(house)
    for name in ("1.png", "2.png", "3.png"):
        draw(house, f"frames/{name}")
    house.save("frames/1.txt", "a star --steps 3\nat night\n")
    house.save("frames/2.yaml", "steps: 5\nseed: 9\n")
    house.save("frames/3.txt", "a tree")
    house.save("frames/3.yml", "steps: 4\n")
    house.save("frames/alone.txt", "a hat\na boat\n")
    house.save("frames/deep/alone.yaml", "prompt: a boat\n")
    assert house.once()
    requests = [house.chunk(f"frames/{n}.png").request for n in "123"]
    assert [one.prompt for one in requests] == ["a star --steps 3\nat night", "a corgi", "a tree"]
    assert [one.steps for one in requests] == [24, 5, 4]
    assert len(house.pictures()) == 3


def test_saving_what_lies_beside_a_picture_requests_it_again(house: House) -> None:
    """Removing it requests nothing: it is tidied up."""
    template(house, "prompt: a corgi\n")
    draw(house, "frames/1.png")
    assert house.once()
    beside = house.save("frames/1.txt", "a star")
    with house.running():
        wait_for(lambda: len(house.pictures()) == 2, "the picture with another prompt")
        house.save("frames/1.txt", "a tree")
        wait_for(lambda: len(house.pictures()) == 3, "another one")
    assert house.prompts() == ["a star", "a tree", "a corgi"]  # 1-2, 1-3, 1
    beside.unlink()
    assert house.once()
    assert house.once()
    assert len(house.pictures()) == 3


def test_a_mask_beside_a_picture_is_no_request(house: House) -> None:
    """Fields for masks in the template do not matter to pictures without one."""
    template(house, TEMPLATE + "mask_blur: 2\n")
    for name in ("1.png", "1.mask.png", "2.png", "alone.mask.png"):
        draw(house, f"frames/{name}")
    assert house.once(), errors(house)
    assert house.pictures() == ["frames/1.png", "frames/2.png"]
    requests = [house.chunk(name).request for name in house.pictures()]
    assert [(one.mask, bool(one.mask_hash)) for one in requests] == [
        ("frames/1.mask.png", True), ("", False),
    ]  # fmt: skip
    assert copies(house) == []
    draw(house, "frames/2.mask.png")
    assert house.once()
    assert house.chunk("frames/2-2.png").request.mask == "frames/2.mask.png"


# -- again, replaced, deleted, renamed


def test_another_template_holds_for_what_is_saved_from_then_on(house: House) -> None:
    """Changing it triggers nothing by itself, as with `_defaults.yaml`; a touch does."""
    path = template(house)
    first = draw(house, "frames/1.png")
    draw(house, "frames/2.png", 50)
    assert house.once()
    path.write_text("prompt: a star\nseed: 7\n")
    draw(house, "frames/3.png", 20)
    assert house.once()
    assert house.prompts() == ["a corgi", "a corgi", "a star"]
    assert "the pictures in its folder are rendered with it" in house.log()
    assert "it holds for pictures that are saved from now on" in house.log()
    first.touch()
    assert house.once()
    assert house.chunk("frames/1-2.png").request.prompt == "a star"
    assert len(house.pictures()) == 4


def test_a_copy_that_a_power_cut_damaged_is_not_rendered(house: House) -> None:
    """It has its name, and is empty: it is made again."""
    copied: list[int] = []

    def look(batch: Sequence[ImageRequest]) -> None:
        files = [house.outbox / ".picowatch/start-images" / one.image_hash for one in batch]
        copied.extend(file.stat().st_size for file in files)

    house.engine.before_batch = look
    template(house)
    with house.running():
        assert wait_for_answer(send(house.outbox, Command("pause")), PATIENCE)
        path = draw(house, "frames/1.png")
        wait_for(lambda: house.status()["images"]["queued"] == 1)
    folder = house.outbox / ".picowatch/start-images"
    folder.mkdir(exist_ok=True)
    (folder / hashlib.sha256(path.read_bytes()).hexdigest()).touch()
    with house.running():
        assert wait_for_answer(send(house.outbox, Command("resume")), PATIENCE)
        wait_for(house.pictures)
    assert copied == [path.stat().st_size]


# -- what is no picture


def test_a_result_names_the_picture_as_it_is_called_when_it_is_rendered(house: House) -> None:
    """Rename x queue x from: what its metadata name can be found."""
    hold = HeldEngine(house)
    template(house)
    with house.running(batch_size=1):
        draw(house, "frames/1.png")
        hold.wait_until_held()
        draw(house, "frames/2.png", 7)
        draw(house, "frames/2.mask.png")
        wait_for(lambda: one_waits_for_one(house))
        with house.seen_at_once():
            for name in ("2.png", "2.mask.png"):
                (house.inbox / "frames" / name).rename(house.inbox / "frames" / f"new-{name}")
        wait_for(lambda: "renamed to frames/new-2.png" in house.log())
        hold.release()
        wait_for(lambda: len(house.pictures()) == 2)
    request = house.chunk("frames/new-2.png").request
    assert (request.image, request.mask) == ("frames/new-2.png", "frames/new-2.mask.png")
    house.save("again.yaml", "from: outbox/frames/new-2.png\nsteps: 3\n")
    assert house.once(), house.error("again.yaml")


def test_a_name_that_begins_with_a_space_is_not_taken_for_another(house: House) -> None:
    """People sort with it."""
    template(house)
    for index, name in enumerate((" a.png", "a.png")):
        draw(house, f"frames/{name}", index)
    assert house.once(), errors(house)
    requests = [house.chunk(one).request for one in house.pictures()]
    assert sorted(one.image for one in requests) == ["frames/ a.png", "frames/a.png"]
    assert len({one.image_hash for one in requests}) == 2


def test_junk_is_ignored_and_other_formats_are_told_once_per_folder(house: House) -> None:
    template(house)
    draw(house, "frames/1.png")
    draw(house, "frames/._1.png")
    junk = ("Thumbs.db", ".DS_Store", "2.png.part", "2.jpg.crdownload", "desktop.ini", "a.tmp")
    for name in junk:
        house.save(f"frames/{name}", "junk")
    for name in ("b.HEIC", "a.cr2", "deep/c.mp4"):
        house.save(f"frames/{name}", "other")
    house.save("elsewhere/d.psd", "other")
    assert not house.once()
    assert house.pictures() == ["frames/1.png"]
    assert errors(house) == ["frames/_unreadable.error.txt", "frames/deep/_unreadable.error.txt"]
    error = house.error("frames/_unreadable") or ""
    for words in ("inbox/frames\n", "2 files", "a.cr2\nb.HEIC\n", "Convert them to PNG"):
        assert words in error
    assert house.once(), "told once"
    for name in ("a.cr2", "b.HEIC"):
        (house.inbox / "frames" / name).unlink()
    assert house.once()
    assert errors(house) == ["frames/deep/_unreadable.error.txt"]


def test_one_bad_picture_stops_no_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told with its name once it is left alone; gone with the picture, or when it is replaced."""
    looks: list[object] = []

    def look(file: IO[bytes]) -> None:
        looks.append(file)
        check_picture(file)

    monkeypatch.setattr(inbox_module, "HELD_OPEN_LIMIT", 1.5)
    monkeypatch.setattr("picowatch.files.pictures.check_picture", look)
    template(house)
    for number in (1, 2, 3):
        draw(house, f"frames/{number}.png", number)
    for name in ("bad.png", "gone.jpg"):
        house.save(f"frames/{name}", "no picture")
    house.save("frames/empty.png", "")
    with house.running():
        wait_for(lambda: len(errors(house)) == 2, "the bad ones")
        assert len(looks) <= 20, f"{len(looks)}: not in every round"
        wait_for(lambda: len(house.pictures()) == 3, "the good ones")
        assert "This picture cannot be used: It is not a picture" in (
            house.error("frames/bad.png") or ""
        )
        draw(house, "frames/bad.png", 4)
        (house.inbox / "frames/gone.jpg").unlink()
        wait_for(lambda: len(house.pictures()) == 4, "the picture that replaced the bad one")
        wait_for(lambda: errors(house) == [], "no error")


def test_a_picture_that_is_being_copied_slowly_is_no_error(house: House) -> None:
    """However long it pauses, within half a minute: it waits without an error, also when empty."""
    template(house)
    whole = draw(house, "elsewhere.png").read_bytes()
    with house.running():
        for part in (0, 60):
            house.save("frames/1.png", whole[:part])
            looks = len(house.console.shown) + 3
            wait_for(lambda: len(house.console.shown) > looks, "a while")  # noqa: B023
            assert errors(house) == []
        house.save("frames/1.png", whole)
        wait_for(lambda: house.pictures("frames"), "the picture")
    assert errors(house) == []


def test_a_picture_that_the_template_itself_rendered_is_refused(house: House) -> None:
    """A hook that copies results back would go on without end; elsewhere they are welcome."""
    template(house)
    template(house, "prompt: a star\nseed: 1\n", "stars")
    draw(house, "frames/1.png")
    assert house.once()
    shutil.copy(house.outbox / "frames/1.png", house.inbox / "frames/back.png")
    shutil.copy(house.outbox / "frames/1.png", house.inbox / "stars/on.png")
    assert not house.once()
    assert house.pictures() == ["frames/1.png", "stars/on.png"]
    assert "rendered with frames/_pictures.yaml" in (house.error("frames/back.png") or "")


def test_nothing_that_is_dropped_leads_out_of_the_inbox(house: House) -> None:
    """Links to pictures, prompts, masks and templates elsewhere are not followed, nor pipes."""
    template(house)
    draw(house, "frames/1.png")
    secret = draw(house, "secret.png", folder="elsewhere")
    (secret.parent / "secret.txt").write_text("a secret")
    (secret.parent / "_pictures.yaml").write_text("prompt: a secret\n")
    (house.inbox / "frames/1.txt").symlink_to(secret.parent / "secret.txt")
    (house.inbox / "frames/1.mask.png").symlink_to(secret)
    (house.inbox / "frames/2.png").symlink_to(secret)
    (house.inbox / "stars").mkdir()
    (house.inbox / "stars/_pictures.yaml").symlink_to(secret.parent / "_pictures.yaml")
    draw(house, "stars/3.png")
    os.mkfifo(house.inbox / "frames/4.png")
    draw(house, "frames/5.png")
    (house.inbox / "frames/5.mask.png").symlink_to(secret)
    assert not house.once()
    assert house.pictures() == ["frames/5.png"]
    assert house.chunk("frames/5.png").request.mask == ""
    assert "This picture cannot be read: a symbolic link in its path leads out" in (
        house.error("frames/1.png") or ""
    )


def test_pictures_wait_for_a_template_that_cannot_be_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error says so; thousands of pictures need none of their own."""
    can_be_read = threading.Event()

    def refuse(root: Path, path: str) -> int:
        if path == "frames/_pictures.yaml" and not can_be_read.is_set():
            raise OSError(errno.ESTALE, "Stale file handle")
        return open_below(root, path)

    monkeypatch.setattr("picowatch.inbox.files.open_below", refuse)
    template(house)
    draw(house, "frames/a.png")
    with house.running():
        wait_for(lambda: errors(house), "the error file")
        house.save("other.txt", "a star\n")
        wait_for(lambda: len(house.pictures()) == 1, "a recipe saved after it")
        assert errors(house) == ["frames/_pictures.yaml.error.txt"]
        can_be_read.set()
        wait_for(lambda: len(house.pictures()) == 2, "the picture")
    assert house.log().count("cannot be read") == 1


@pytest.mark.parametrize(
    "name", ["con.png", "x" * 240 + ".png", "ä.png", "what?*[1].png", "what? is*.jpg"]
)
def test_any_name_of_a_picture_gives_one_that_every_system_can_open(
    house: House, name: str
) -> None:
    template(house)
    draw(house, f"frames/{name}")
    draw(house, "frames/deep/what is.png")
    house.save("frames/a\x1b[31m\n.heic", "other")
    house.save("frames/b\x1b[31m.png", (house.inbox / "frames/deep/what is.png").read_bytes())
    house.once()
    picture, _ = sorted(house.pictures("frames"), key=lambda picture: "deep" in picture)
    assert picture.isprintable()
    said = [(house.outbox / file).read_text() for file in errors(house)]
    assert any("Rename it." in text for text in said)
    assert house.chunk(picture).request.prompt == "a corgi"
    assert "\x1b" not in house.log()
    house.once()
    assert len(house.pictures("frames")) == 2


# -- templates


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt: a corgi\nstesp: 3\n", "inbox/frames/_pictures.yaml, line 2, column 1"),
        ("prompt: a corgi\ncheckpoint: none-such\n", "line 2, column 13"),
        ("prompt: a corgi\nimage: other.png\n", "image is the dropped picture itself"),
        ("prompt: [\n", "_pictures.yaml"),
    ],
)
def test_a_wrong_template_is_one_error_and_fixing_it_runs_what_waits(
    house: House, text: str, said: str
) -> None:
    path = template(house, text)
    for number in (1, 2, 3):
        draw(house, f"frames/{number}.png", number)
    assert not house.once()
    assert errors(house) == ["frames/_pictures.yaml.error.txt"]
    assert said in (house.error("frames/_pictures.yaml") or "")
    assert house.engine.batches == []
    assert house.once(), "one error, once"
    draw(house, "frames/4.png", 4)
    assert house.once()
    assert errors(house) == ["frames/_pictures.yaml.error.txt"]
    path.write_text(TEMPLATE)
    assert house.once()
    assert len(house.pictures()) == 4
    assert errors(house) == []


def test_the_warning_goes_with_the_last_picture_that_waits_for_a_prompt(house: House) -> None:
    """Whether it gets one, or is deleted; other warnings stay, and another folder's."""
    text = "seed: 1\ncfg_scale: 1\nnegative_prompt: dim\n"
    for folder in ("frames", "others"):
        template(house, text, folder)
        for number in (1, 2, 3):
            draw(house, f"{folder}/{number}.png", number)
    warnings = [
        house.outbox / f"{name}/_pictures.yaml.warning.txt" for name in ("frames", "others")
    ]
    house.save("frames/1.txt", "a star")
    assert house.once()
    warnings = sorted(house.outbox.glob("*/_pictures.yaml.warning.txt"))
    house.save("frames/2.txt", "a tree")
    assert house.once()
    assert all("Pictures without a prompt" in one.read_text() for one in warnings)
    (house.inbox / "frames/3.png").unlink()
    assert house.once()
    assert "Pictures without a prompt" not in warnings[0].read_text()
    assert "negative prompt was ignored" in warnings[0].read_text()
    assert "Pictures without a prompt" in warnings[1].read_text()
    for number in (1, 2, 3):
        house.save(f"others/{number}.yaml", "prompt: a star\nnegative_prompt: ''\n")
    assert house.once()
    assert not warnings[1].exists()


def test_a_template_that_is_away_for_a_moment_makes_no_recipes_of_prompts(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its absence counts once it has settled, as a deletion does; here a look falls into it."""
    monkeypatch.setattr(watching.Watch, "start", lambda watch, root: None)
    path = template(house)
    draw(house, "frames/1.png")
    house.save("frames/1.txt", "a star")
    assert house.once()

    def wait_for_a_look() -> None:
        now = time.time()
        wait_for(lambda: house.console.shown[-1].scanned > now, "a look at the inbox")

    with house.running(settle_seconds=1.0):
        with house.seen_at_once():
            aside = path.rename(house.folder / "aside")
        wait_for_a_look()
        aside.rename(path)
        wait_for_a_look()
    assert house.once()
    assert house.pictures() == ["frames/1.png"]
    assert "deleted" not in house.log()


@pytest.mark.parametrize("end", ["kill", "stop"])
@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize("after", [0.2, 1.0, 3.2])
def test_a_folder_that_is_renamed_while_it_is_rendered_is_rendered_once(
    end: str, events: bool, after: float
) -> None:
    """Also where picowatch ends between the template's rename and that of its pictures."""
    meets: list[Action] = [
        ("pace", 0.3),
        save_template(RANDOM),
        *(drop(f"frames/a/{number}.png", number) for number in range(8)),
        ("wait", 4.3),
        ("move_folder", "frames", "film"),
        ("wait", after),
        (end,),
        ("start",),
        ("wait", 9.0),
    ]
    assert not found(*meets, events=events, batch_size=1)


def test_pictures_that_are_moved_while_their_template_is_saved_are_renamed() -> None:
    """They are looked at once the template is handled, here after a full disk; none is deleted."""
    assert not found(
        save_template(ONE),
        *(drop(f"frames/a/{number}.png", number) for number in range(3)),
        ("wait", 4.5),
        save_template(RANDOM),
        ("trouble", errno.ENOSPC),
        ("move_folder", "frames/a", "frames/b"),
        ("wait", 4.0),
        ("trouble", None),
        ("wait", 9.0),
        events=False,
    )


def test_a_template_without_a_prompt_needs_one_beside_each_picture(house: House) -> None:
    """Which is said once; a prompt in the template, or beside a picture, runs what waits for it."""
    path = template(house, "seed: 1\ncfg_scale: 1\nnegative_prompt: dim\n")
    for number in (1, 2, 3, 4):
        draw(house, f"frames/{number}.png", number)
    house.save("frames/1.txt", "a star")
    warnings = house.outbox / "frames/_pictures.yaml.warning.txt"
    with house.running():
        wait_for(lambda: house.prompts() == ["a star"], "the one with a prompt")
        wait_for(lambda: warnings.exists() and "like anna.txt" in warnings.read_text())
        house.save("frames/2.txt", "a tree")
        wait_for(lambda: house.prompts() == ["a star", "a tree"], "the next")
        path.write_text("seed: 1\nprompt: a hat\n")
        wait_for(lambda: len(house.pictures()) == 4, "the others")
    assert house.prompts() == ["a star", "a tree", "a hat", "a hat"]
    assert errors(house) == []
    assert list(house.outbox.rglob("*.warning.txt")) == []
    assert house.log().count("Pictures without a prompt") == 1
    assert house.log().count("negative prompt was ignored") == 1


def test_a_template_that_is_renamed_is_a_recipe_and_the_other_way_round(house: House) -> None:
    """What lies there is then what it would have been; nothing is cancelled."""
    path = template(house)
    draw(house, "frames/1.png")
    house.save("stars/_pictures.yaml", TEMPLATE.replace("corgi", "star"))
    assert house.once()
    recipe = path.rename(path.with_name("corgi.yaml"))
    draw(house, "frames/2.png", 20)
    assert house.once()
    assert house.pictures() == ["frames/1.png", "frames/corgi/0001-7.png"]
    recipe.rename(path)
    assert house.once()
    assert house.pictures() == ["frames/1.png", "frames/2.png", "frames/corgi/0001-7.png"]


def test_a_template_in_the_inbox_itself_is_refused(house: House) -> None:
    house.save("_pictures.yaml", TEMPLATE)
    draw(house, "1.png")
    house.save("a.txt", "a star\n")
    assert not house.once()
    assert house.prompts() == ["a star"]
    assert "Move it into a folder of its own" in (house.error("_pictures.yaml") or "")


def test_settings_inside_a_picture_can_be_followed(house: House) -> None:
    """`from: picture`: another program's prompt and seed."""
    template(house, "from: picture\nsteps: 3\n")
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a hat\nSteps: 9, Sampler: Euler a, Seed: 5, Size: 64x64")
    (house.inbox / "frames").mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(house.inbox / "frames/1.png", pnginfo=info)
    draw(house, "frames/2.png")
    assert not house.once()
    request = house.chunk("frames/1.png").request
    assert (request.prompt, request.seed, request.steps) == ("a hat", 5, 3)
    assert house.pictures() == ["frames/1.png"]
    said = house.error("frames/2.png") or ""
    assert said.startswith("inbox/frames/2.png\n\nframes/2.png: it contains no settings"), said
    assert "inbox/frames/2.png: frames/2.png: it contains no settings" in house.log()


def test_features_of_recipes_hold_for_dropped_pictures(house: House) -> None:
    """Size, hires, a sweep with its sheet, several recipes in a template."""
    template(
        house,
        "prompt: a corgi\nseed: 1\nsize: picture\nsweep: {steps: [1, 2]}\n---\n"
        "prompt: a star\nseed: 1\nhires: true\n",
    )
    path = house.inbox / "frames/1.png"
    Image.new("RGB", (133, 70)).save(path)
    assert house.once(), errors(house)
    made = house.pictures()
    sheets = [name for name in made if "sheet" in name]
    assert sheets == ["frames/1-sheet.png"]
    requests = [house.chunk(name).request for name in made if name not in sheets]
    assert sorted((r.prompt, r.width, r.height, bool(r.hires)) for r in requests) == [
        ("a corgi", 136, 72, False), ("a corgi", 136, 72, False), ("a star", 128, 128, True),
    ]  # fmt: skip


def test_check_lists_what_pictures_would_render(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """One picture, or all under a template in natural order; what is wrong is said as ever."""
    path = template(house, "prompt: a corgi\nseed: 7\nsize: picture\n")
    for name in ("10.png", "a/9.png", "2.png", "2.mask.png"):
        draw(house, f"frames/{name}")
    house.save("frames/10.txt", "a star")
    other = draw(house, "other/1.png")
    assert check(house.settings(), [path], as_json=True) == 0
    images = json.loads(capsys.readouterr().out)
    assert [(image["image"], image["prompt"], image["width"]) for image in images] == [
        ("frames/2.png", "a corgi", 64), ("frames/10.png", "a star", 64),
        ("frames/a/9.png", "a corgi", 64),
    ]  # fmt: skip
    assert check(house.settings(), [house.inbox / "frames/10.png"], as_json=True) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert check(house.settings(), [other], as_json=False) == 1
    assert "There is no _pictures.yaml in its folder" in capsys.readouterr().err
    path.write_text("prompt: a corgi\nsteps: 0\n")
    assert check(house.settings(), [path], as_json=False) == 1
    assert "frames/_pictures.yaml, line 2" in capsys.readouterr().err


@pytest.mark.parametrize("when_done", ["archive", "delete"])
def test_a_picture_is_archived_beside_its_result_or_deleted(house: House, when_done: str) -> None:
    template(house)
    path = draw(house, "frames/1.png")
    content = path.read_bytes()
    assert house.once(when_done=when_done)
    assert not path.exists()
    assert (house.inbox / "frames/_pictures.yaml").exists()
    archived = house.outbox / "frames/originals/1.png"
    assert archived.exists() == (when_done == "archive")
    assert not archived.exists() or archived.read_bytes() == content
    assert PICOWATCH in read_texts(house.outbox / "frames/1.png")


@pytest.mark.parametrize("when_done", ["archive", "delete"])
def test_what_lies_beside_a_picture_goes_with_it(house: House, when_done: str) -> None:
    """Once no other picture has it; the next picture of that name is not redrawn by it."""
    template(house, "seed: 7\nprompt: a star\n")
    for name in ("1.png", "2.png", "2.jpg"):
        draw(house, f"frames/{name}", len(name))
    house.save("frames/1.txt", "a corgi")
    draw(house, "frames/1.mask.png", 255)
    house.save("frames/2.yaml", "prompt: a heart\n")
    house.save("frames/other.txt", "of no picture")
    assert house.once(when_done=when_done)
    left = {path.name for path in (house.inbox / "frames").iterdir()}
    assert left == {"_pictures.yaml", "other.txt"}
    kept = {"1.mask.png", "1.png", "1.txt", "2.jpg", "2.png", "2.yaml"}
    folder = house.outbox / "frames/originals"
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert found == (kept if when_done == "archive" else set())
    draw(house, "frames/1.png", 99)
    assert house.once(when_done=when_done)
    assert house.chunk("frames/1-2.png").request.prompt == "a star"
    assert house.chunk("frames/1-2.png").request.mask == ""


def test_a_picture_stays_while_what_lies_beside_it_changes(house: House) -> None:
    """Its new prompt is a request; then the picture is archived."""
    hold = HeldEngine(house)
    template(house, "seed: 7\n")
    path = draw(house, "frames/1.png")
    beside = house.save("frames/1.txt", "a corgi")
    with house.running(when_done="archive"):
        hold.wait_until_held()
        beside.write_text("a star")
        hold.release()
        wait_for(lambda: not path.exists(), "the archive")
    results = ("frames/1.png", "frames/1-2.png")
    assert [house.chunk(one).request.prompt for one in results] == ["a corgi", "a star"]
    assert (house.outbox / "frames/originals/1.txt").read_text() == "a star"


def test_several_engines_share_the_copies_of_a_picture(house: House) -> None:
    """None is deleted while another image needs it, also where two pictures are the same."""
    template(house, TEMPLATE + "count: 8\n")
    for name in ("1.png", "same.png"):
        draw(house, f"frames/{name}")
    house.save("a.yaml", "prompt: a star\nseed: 1\ncount: 4\nimage: frames/1.png\n")
    assert house.once(batch_size=1, executor=LocalSettings(engines=3))
    assert len(house.pictures("frames")) == 16
    assert len(house.pictures("a")) == 4
