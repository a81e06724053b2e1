"""Start images: found, checked, snapshotted when the save is accepted, part of the identity."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from picowatch.commands.check import check
from picowatch.errors import RenderFailed
from picowatch.outbox.commands import Command, send
from picowatch.recipe.request import ImageRequest
from tests.house import HeldEngine, House, wait_for

RECIPE = "prompt: a corgi\nseed: 1\nimage: start.png\n"


def draw(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), colour).save(path)


@pytest.mark.parametrize(
    ("place", "written"),
    [
        ("inbox/pets/start.png", "start.png"),
        ("inbox/start.png", "start.png"),
        ("outbox/a/0001-5.png", "a/0001-5.png"),
        ("outbox/a/0001-5.png", "outbox/a/0001-5.png"),
    ],
)
def test_a_start_image_lies_beside_the_recipe_or_in_the_folders(
    house: House, place: str, written: str
) -> None:
    """Beside it first."""
    draw(house.folder / place, "red")
    house.save("pets/a.yaml", f"prompt: a corgi\nimage: {written}\n")
    assert house.once()
    (picture,) = house.pictures("pets/a")
    request = house.chunk(picture).request
    assert request.image == written
    assert len(request.image_hash) == 64


def test_the_smallest_picture_is_a_start_image(house: House) -> None:
    """It is enlarged like any other."""
    sizes = [(1, 1), (7, 900), (3000, 4)]
    for index, size in enumerate(sizes):
        Image.new("RGB", size, "red").save(house.inbox / f"{index}.webp")
        house.save(f"{index}.yaml", f"prompt: a corgi\nimage: {index}.webp\n")
    assert house.once(), house.log()
    assert len(house.pictures()) == 3


def test_a_pattern_is_told_of_the_template_folder(house: House) -> None:
    """One path names one picture: with `*` in it, too, if there is one of that name."""
    draw(house.inbox / "frames/1.png", "red")
    draw(house.inbox / "wh*t?.png", "red")
    house.save("a.yaml", "prompt: a corgi\nimage: frames/*.png\n")
    house.save("b.yaml", "prompt: a corgi\nimage: 'wh*t?.png'\n")
    assert not house.once()
    error = house.error("a.yaml") or ""
    assert "line 2, column 8" in error
    assert "There is no picture 'frames/*.png'" in error
    assert "save these fields there as _pictures.yaml" in error
    assert len(house.pictures("b")) == 1


@pytest.mark.parametrize(
    ("size", "rest", "rendered"),
    [
        ((320, 200), "size: picture", (320, 200)),
        ((323, 197), "size: picture", (320, 200)),
        ((4000, 3000), "size: picture", (1632, 1224)),  # 2 megapixels
        ((20, 400), "size: picture", (64, 400)),
        ((3000, 300), "size: picture", (2048, 208)),
        ((320, 200), "size: picture\nhires: {scale: 4}", (320, 200)),
        ((1200, 800), "size: picture\nhires: {scale: 4}", (1024, 680)),  # 4096 after hires
    ],
)
def test_the_size_of_the_picture_is_rounded_and_capped(
    house: House,
    capsys: pytest.CaptureFixture[str],
    size: tuple[int, int],
    rest: str,
    rendered: tuple[int, int],
) -> None:
    """To what the family needs, and to the limits."""
    Image.new("RGB", size, "red").save(house.inbox / "start.png")
    path = house.save("a.yaml", f"prompt: a corgi\nseed: 7\nimage: start.png\n{rest}\n")
    assert check(house.settings(), [path], as_json=True) == 0
    (image,) = json.loads(capsys.readouterr().out)
    assert (image["width"], image["height"]) == rendered


def test_a_sideways_photo_stands(house: House) -> None:
    """EXIF turns it; beside a width the height follows in proportion."""
    photo = Image.new("RGB", (128, 64))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(house.inbox / "photo.jpg", exif=exif)
    house.save("_defaults.yaml", "size: picture\n")
    house.save("a.yaml", "prompt: a corgi\nseed: 7\nimage: photo.jpg\n")
    house.save("b.yaml", "prompt: a corgi\nseed: 7\nimage: photo.jpg\nwidth: 256\n")
    assert house.once(), house.log()
    requests = [house.chunk(one).request for one in house.pictures()]
    assert [(one.width, one.height) for one in requests] == [(64, 128), (256, 512)]


def test_results_can_be_named_like_their_start_images(house: House) -> None:
    """Without one, no picture is hidden: no name begins with a dot."""
    draw(house.inbox / "frame.png", "red")
    house.save("a.yaml", "prompt: a corgi\nimage: frame.png\n")
    house.save("b.yaml", "prompt: a corgi\n")
    assert house.once(file_name="{picture}.{number}")
    assert house.pictures() == ["a/frame.1.png", "b/1.png"]


def test_a_changed_start_image_is_a_changed_request_at_the_next_save(house: House) -> None:
    """Its bytes are part of the identity; changing it triggers nothing by itself."""
    draw(house.inbox / "start.png", "red")
    path = house.save("a.yaml", RECIPE)
    house.once()
    draw(house.inbox / "start.png", "blue")
    house.once()
    assert len(house.pictures()) == 1
    path.touch()
    house.once()
    assert len(house.pictures()) == 2
    path.touch()
    house.once()
    assert len(house.pictures()) == 2


def test_what_was_requested_is_rendered_whatever_happens_to_the_start_image(house: House) -> None:
    """A copy is kept from the moment the save is accepted, and deleted when it is not needed."""
    draw(house.inbox / "start.png", "red")
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        house.save("first.txt", "in progress\n")
        hold.wait_until_held()
        house.save("a.yaml", RECIPE)
        wait_for(lambda: "a.yaml: saved" in house.log())
        copies = list((house.outbox / ".picowatch/start-images").iterdir())
        (house.inbox / "start.png").unlink()
        hold.release()
        wait_for(lambda: len(house.pictures()) == 2)
    request = house.chunk(house.pictures("a")[0]).request
    assert [copy.name for copy in copies] == [request.image_hash]
    house.once()
    assert list((house.outbox / ".picowatch/start-images").iterdir()) == []


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("missing.png", "There is no picture 'missing.png'"),
        ("text.png", "not a picture that can be read"),
        ("link.png", "There is no picture 'link.png'"),
    ],
)
def test_a_start_image_that_cannot_be_used_is_said_at_its_place(
    house: House, written: str, said: str
) -> None:
    """With line and column."""
    (house.inbox / "text.png").write_text("no picture")
    draw(house.folder / "secret.png", "red")
    (house.inbox / "link.png").symlink_to(house.folder / "secret.png")
    house.save("a.yaml", f"prompt: a corgi\nimage: {written}\n")
    assert not house.once()
    error = house.error("a.yaml") or ""
    assert "line 2, column 8" in error
    assert said in error


@pytest.mark.parametrize("written", ["../secret.png", "/etc/passwd", "a/../../secret.png"])
def test_a_start_image_is_never_taken_from_elsewhere(house: House, written: str) -> None:
    """Neither by '..' nor by an absolute path."""
    draw(house.folder / "secret.png", "red")
    house.save("a.yaml", f"prompt: a corgi\nimage: {written}\n")
    assert not house.once()
    assert house.engine.batches == []


def test_a_recipe_is_answered_anew_when_its_missing_pictures_appear(house: House) -> None:
    """One after the other, here with a restart between; the picture need not be touched again."""
    house.save("a.yaml", f"{RECIPE}mask: masks/mask.png\n")
    with house.running():
        wait_for(lambda: "no picture 'start.png'" in (house.error("a.yaml") or ""), "the error")
        draw(house.inbox / "start.png", "red")
        wait_for(lambda: "no picture 'masks/mask.png'" in (house.error("a.yaml") or ""), "the next")
    draw(house.outbox / "masks/mask.png", "white")
    assert house.once()
    assert house.pictures("a") == ["a/0001-1.png"]
    assert house.error("a.yaml") is None


def test_a_picture_that_is_still_being_copied_is_waited_for(house: House) -> None:
    """Half of it is refused, and the recipe is rendered once the rest is there."""
    draw(house.folder / "whole.png", "red")
    whole = (house.folder / "whole.png").read_bytes()
    (house.inbox / "start.png").write_bytes(whole[:60])
    with house.running():
        house.save("a.yaml", RECIPE)
        wait_for(lambda: house.error("a.yaml"), "the error")
        (house.inbox / "start.png").write_bytes(whole)
        wait_for(lambda: house.pictures("a"), "the picture")
    assert house.error("a.yaml") is None


def test_a_recipe_that_was_deleted_is_not_rendered_when_its_picture_appears(house: House) -> None:
    """Nor one that was saved again without it."""
    gone = house.save("gone.yaml", RECIPE)
    house.save("other.yaml", RECIPE)
    assert not house.once()
    gone.unlink()
    house.save("other.yaml", "prompt: a star\nseed: 1\n")
    assert house.once()
    draw(house.inbox / "start.png", "red")
    assert house.once()
    assert house.prompts() == ["a star"]


def test_a_daemon_that_runs_for_months_keeps_no_start_image_for_ever(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were rendered or replaced are deleted, those of queued images are not."""
    monkeypatch.setattr("picowatch.daemon.daemon.TIDY_SECONDS", 0.0)
    hold = HeldEngine(house)
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        draw(house.inbox / f"{name}.png", colour)
    folder = house.outbox / ".picowatch/start-images"
    writing = folder / ".picowatch-0.tmp"
    with house.running(batch_size=1):
        house.save("a.yaml", "prompt: a star\nimage: a.png\n")
        hold.wait_until_held()
        writing.touch()
        house.save("b.yaml", "prompt: a star\nimage: b.png\n")
        wait_for(lambda: house.status()["images"]["queued"] == 1, "the second one")
        house.save("b.yaml", "prompt: a star\nimage: c.png\n")
        needed = {hashed(house.inbox / "a.png"), hashed(house.inbox / "c.png"), writing.name}
        wait_for(lambda: names(folder) == needed, "the end of what was replaced")
        hold.release()
        wait_for(lambda: names(folder) == {writing.name}, "the end of all")
    assert len(house.pictures()) == 2


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def hashed(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_retry_after_a_restart_finds_the_start_image(house: House) -> None:
    """Though the recipe's own picture is another one by now, which its next save would use."""
    copies: list[bool] = []

    def look(batch: Sequence[ImageRequest]) -> None:
        folder = house.outbox / ".picowatch/start-images"
        copies.extend((folder / one.image_hash).is_file() for one in batch)
        if len(copies) == 1:
            raise RenderFailed("The first time it fails.")

    house.engine.before_batch = look
    draw(house.inbox / "start.png", "red")
    house.save("a.yaml", "prompt: a corgi\nimage: start.png\n")
    assert not house.once()
    draw(house.inbox / "start.png", "blue")
    with house.running():
        send(house.outbox, Command("retry"))
        wait_for(house.pictures, "the picture")
    assert copies == [True, True]


def test_pictures_that_are_missing_are_named_with_a_files_other_mistakes(house: House) -> None:
    """In the file's order, whichever entry they are in, each once."""
    draw(house.inbox / "there.png", "red")
    house.save(
        "a.yaml",
        "- prompt: a\n  steps: 500\n  mask: m.png\n  image: i.png\n"
        "- prompt: b\n  image: there.png\n  sweep: {steps: [1, 2], image: [there.png, s.png]}\n"
        "- prompt: c\n  control: {image: c.png, model: demo-sketch}\n"
        "- prompt: d\n  count: 3\n  from: f.png\n",
    )
    assert not house.once()
    error = house.error("a.yaml") or ""
    names = ("m.png", "i.png", "s.png", "c.png", "f.png")
    said = ["steps must be", *(f"There is no picture '{name}'" for name in names)]
    places = [error.find(words) for words in said]
    assert -1 not in places and places == sorted(places)
    assert error.count("line ") == len(said)
    assert "f.png: There" not in error
