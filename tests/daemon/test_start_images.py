"""Pictures that recipes name: start images, which are copied, and those with settings."""

import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from picowatch.errors import RenderFailed
from picowatch.metadata.embedded_text import read_texts
from tests.commands.picowatch import command, picowatch_here, ran
from tests.daemon.processes import without_privileges
from tests.digest_engine import Batch
from tests.engine.tiny_flows import tiny_flow
from tests.house import House, wait_for

RECIPE = "prompt: a corgi\nseed: 1\nimage: start.png\n"


@pytest.mark.parametrize(
    ("place", "written"),
    [
        ("inbox/pets/start.png", "start.png"),
        ("inbox/start.png", "start.png"),
        ("inbox/wh*t?.png", "'wh*t?.png'"),
        ("outbox/a/0001-5.png", "a/0001-5.png"),
        ("outbox/a/0001-5.png", "outbox/a/0001-5.png"),
    ],
)
def test_a_start_image_lies_beside_the_recipe_or_in_the_folders(
    house: House, place: str, written: str
) -> None:
    """Its own folder comes first. One path names one picture."""
    house.draw(f"../{place}")
    house.save("pets/a.yaml", f"prompt: a corgi\nimage: {written}\n")
    assert house.once(), house.error("pets/a.yaml")
    (request,) = house.requests("pets/a")
    assert request.image == written.strip("'")
    assert len(request.image_hash) == 64


def test_of_a_picture_that_may_not_be_read_is_said_what_helps(house: House) -> None:
    """In a recipe, and where its settings are to be shown."""
    house.draw("start.png").chmod(0)
    house.save("a.yaml", RECIPE)
    for words, said in (
        (("check", "inbox/a.yaml"), "'start.png' cannot be read: Permission denied."),
        (("show", "inbox/start.png"), "inbox/start.png cannot be read: Permission denied."),
    ):
        refused = ran(house.folder, *without_privileges(), *command(*words))
        assert refused.returncode == 1
        assert f"{said} Allow it with `chmod a+r`." in refused.stderr


def test_pictures_that_cannot_be_used_are_named_with_a_files_other_mistakes(house: House) -> None:
    """Each is named once, in the file's order, whichever entry it is in."""
    for name in ("there", "frames/1", "../secret"):
        house.draw(f"{name}.png")
    (house.inbox / "link.png").symlink_to(house.folder / "secret.png")
    house.save(
        "a.yaml",
        "- prompt: a\n  steps: 500\n  mask: m.png\n  image: i.png\n"
        "- prompt: b\n  image: there.png\n  sweep: {steps: [1, 2], image: [there.png, s.png]}\n"
        "- prompt: c\n  control: {image: c.png, model: demo-sketch}\n"
        "- prompt: d\n  count: 3\n  from: f.png\n"
        "- prompt: e\n  image: link.png\n"
        "- prompt: f\n  image: frames/*.png\n",
    )
    assert not house.once()
    error = house.error("a.yaml") or ""
    names = ("m.png", "i.png", "s.png", "c.png", "f.png", "link.png")
    said = ["steps must be", *(f"There is no picture '{name}'" for name in names)]
    said += ["save these fields there as _pictures.yaml"]
    places = [error.find(words) for words in said]
    assert -1 not in places and places == sorted(places), error
    assert error.count("line ") == len(said)
    assert "f.png: There" not in error


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("photos", "One path names one picture. For all pictures of a folder, save these"),
        ("X.PNG", "Did you mean 'x.png'?"),
        ("x", "Did you mean 'x.png'?"),
        ("photos/Dog.png", "Did you mean 'photos/Dog.JPG'?"),
        ("../x", "Put the picture beside the recipe"),
        ("linked", "Put it into the inbox beside the recipe"),
    ],
)
def test_a_path_of_no_picture_is_answered_by_what_is_there(
    house: House, written: str, remedy: str
) -> None:
    """A folder, or a picture with another ending."""
    for name in ("pets/x.png", "photos/Dog.JPG", "../out.png"):
        house.draw(name)
    (house.inbox / "linked.png").symlink_to("../out.png")
    house.save("pets/a.yaml", f"prompt: a\nimage: {written}\n")
    assert not house.once()
    assert remedy in (house.error("pets/a.yaml") or "")


# -- sizes


@pytest.mark.parametrize(
    ("size", "rest", "rendered"),
    [
        ((323, 197), "size: picture", (320, 200)),
        ((4000, 3000), "size: picture", (1632, 1224)),  # 2 megapixels
        ((1, 1), "size: picture", (64, 64)),
        ((20, 400), "size: picture", (64, 400)),
        ((3000, 300), "size: picture", (2048, 208)),
        ((320, 200), "size: picture\nhires: {scale: 4}", (320, 200)),
        ((1200, 800), "size: picture\nhires: {scale: 4}", (1024, 680)),  # 4096 after hires
    ],
)
def test_the_size_of_the_picture_is_rounded_and_capped(
    house: House, size: tuple[int, int], rest: str, rendered: tuple[int, int]
) -> None:
    """It is a multiple of what the family needs, within the limits."""
    house.draw("start.png", size=size)
    path = house.save("a.yaml", f"prompt: a corgi\nseed: 7\nimage: start.png\n{rest}\n")
    checked = picowatch_here(house.folder, "check", "--json", path)
    (image,) = json.loads(checked.stdout)["images"]
    assert (image["width"], image["height"]) == rendered


def test_a_sideways_photo_stands(house: House) -> None:
    """EXIF turns it; a width alone keeps its proportions. Results can have its name."""
    photo = Image.new("RGB", (128, 64))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(house.inbox / "photo.jpg", exif=exif)
    house.save("_defaults.yaml", "size: picture\n")
    for name, text in (("a", "image: photo.jpg"), ("b", "image: photo.jpg\nwidth: 256"), ("c", "")):
        house.save(f"{name}.yaml", f"prompt: a corgi\nseed: 7\n{text or 'size: 64x64'}\n")
    assert house.once(file_name="{picture}.{number}"), house.log()
    assert house.pictures() == ["a/photo.1.png", "b/photo.1.png", "c/1.png"], "none is hidden"
    requests = house.requests()
    assert [(image.width, image.height) for image in requests] == [(64, 128), (256, 512), (64, 64)]


# -- copies


def test_a_retry_after_a_restart_finds_the_picture(house: House) -> None:
    """The recipe's own picture has changed by then, and its next save would use the new one."""
    copies: list[bool] = []

    def look(batch: Batch) -> None:
        folder = house.outbox / ".picowatch/start-images"
        copies.extend((folder / digest).is_file() for digest in batch[0].pictures.values())
        if len(copies) == 1:
            raise RenderFailed("The first time it fails.")

    house.engine.before_batch = look
    (house.models / "checkpoints").mkdir()
    (house.models / "checkpoints/klein").symlink_to(tiny_flow("FLUX.2-klein"))
    house.draw("start.png")
    house.save("a.yaml", "prompt: a corgi\ncheckpoint: klein\nreferences: start.png\n")
    assert not house.once()
    house.draw("start.png", "blue")
    with house.running():
        house.tell("retry")
        wait_for(house.pictures, "the picture")
    assert copies == [True, True]


def test_a_recipe_is_answered_anew_when_its_missing_pictures_appear(house: House) -> None:
    """Pictures appear one by one, some by slow copying; the recipe need not be saved again."""
    whole, mask = house.draw("../whole.png").read_bytes(), house.outbox / "masks/mask.png"
    house.save("a.yaml", f"{RECIPE}mask: masks/mask.png\n")
    with house.running():
        wait_for(lambda: "no picture 'start.png'" in (house.error("a.yaml") or ""), "the error")
        house.draw("start.png")
        wait_for(lambda: "no picture 'masks/mask.png'" in (house.error("a.yaml") or ""), "the next")
        mask.parent.mkdir()
        mask.write_bytes(whole[:60])
        wait_for(lambda: "no picture" not in (house.error("a.yaml") or ""), "half of the mask")
        assert house.error("a.yaml")
    mask.write_bytes(whole)
    assert house.once()
    assert house.pictures("a") == ["a/0001-1.png"]
    assert house.error("a.yaml") is None


# -- `from:`: a recipe that starts from a picture's settings


@pytest.mark.parametrize("folder", ["", "other/"])
def test_a_recipe_starts_from_a_picture_of_the_outbox(house: House, folder: str) -> None:
    """Its start image is used, too, not a file of the same name beside the new recipe."""
    for place, colour in {"pets/": "red", "": "green", "other/": "blue"}.items():
        house.draw(f"{place}dog.png", colour)
    house.draw("pets/mask.png", "white")
    house.save("pets/a.yaml", "prompt: a\nseed: 7\nsteps: 9\nimage: dog.png\nmask: mask.png\n")
    assert house.once()
    house.save(f"{folder}b.yaml", "from: pets/a/0001-7.png\nsteps: 10\n")
    house.save(f"{folder}c.yaml", "from: pets/a/0001-7.png\nimage: dog.png\n")
    assert house.once(), house.error(f"{folder}b.yaml")
    old, other, given = (house.requests(name)[0] for name in ("pets/a", f"{folder}b", f"{folder}c"))
    assert (other.image_hash, other.mask_hash) == (old.image_hash, old.mask_hash)
    assert (other.prompt, other.seed, other.steps) == ("a", 7, 10)
    assert (given.steps, given.image_hash != old.image_hash) == (9, True)


def test_the_result_of_a_dropped_picture_is_told_from_the_picture(house: House) -> None:
    """Both have the same path, one in the inbox and one in the outbox."""
    house.save("a/_pictures.yaml", "prompt: a corgi\nseed: 7\n")
    house.draw("a/x.png")
    assert house.once()
    house.save("b.yaml", "from: a/x.png\n")
    assert not house.once()
    said = "For the result of a dropped picture, write outbox/ before its path."
    assert said in (house.error("b.yaml") or "")
    house.save("b.yaml", "from: outbox/a/x.png\n")
    assert house.once()
    assert house.seeds("b") == [7]


@pytest.mark.parametrize(
    ("before", "encoding"),
    [
        *((b"UNICODE\0", encoding) for encoding in ("utf-16-le", "utf-16-be", "utf-8")),
        *((b"UNICODE\0\xff\xfe", "utf-16-le"), (b"UNICODE\0\xfe\xff", "utf-16-be")),
        *((code, "utf-8") for code in (b"\0" * 8, b"", b"ASCII\0\0\0")),
    ],
)
def test_the_comment_of_a_jpeg_is_read(tmp_path: Path, before: bytes, encoding: str) -> None:
    """A1111 puts its text there, and programs write it in several encodings."""
    for prompt in ("a star", "日本の城、夜\u3000星", "Дом у реки", "🐕 runs", "“a star”", "Ünder"):
        text = f"{prompt}\nSteps: 8, Sampler: Euler a, CFG scale: 5, Seed: 3, Size: 128x128"
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = before + text.encode(encoding)
        Image.new("RGB", (16, 16)).save(tmp_path / "a.jpg", exif=exif)
        assert read_texts(tmp_path / "a.jpg")["parameters"] == text
