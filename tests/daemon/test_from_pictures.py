"""`from:`: a recipe that starts from a picture's settings."""

import pytest
from PIL import ExifTags, Image

from picowatch.metadata import read_texts
from tests.house import House


@pytest.mark.parametrize("folder", ["", "other/"])
def test_a_recipe_starts_from_a_picture_of_the_outbox(house: House, folder: str) -> None:
    """In any folder, its own fields override the picture's, whose start image is used, too.

    A file of the same name beside the new recipe is not taken for it.
    """
    for place, colour in {"pets/": "red", "": "green", "other/": "blue"}.items():
        house.draw(f"{place}dog.png", colour)
    house.draw("pets/mask.png", "white")
    house.save("pets/a.yaml", "prompt: a\nseed: 7\nsteps: 9\nimage: dog.png\nmask: mask.png\n")
    assert house.once()
    house.save(f"{folder}b.yaml", "from: pets/a/0001-7.png\nsteps: 10\n")
    house.save(f"{folder}c.yaml", "from: pets/a/0001-7.png\nimage: dog.png\n")
    assert house.once(), house.error(f"{folder}b.yaml")
    one, other, given = (house.requests(name)[0] for name in ("pets/a", f"{folder}b", f"{folder}c"))
    assert (other.image_hash, other.mask_hash) == (one.image_hash, one.mask_hash)
    assert (other.prompt, other.seed, other.steps) == ("a", 7, 10)
    assert (given.steps, given.image_hash != one.image_hash) == (9, True)


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


# What stands before the text, and its encoding.
COMMENTS = {
    "le": (b"UNICODE\0", "utf-16-le"),
    "be": (b"UNICODE\0", "utf-16-be"),
    "le-marked": (b"UNICODE\0\xff\xfe", "utf-16-le"),
    "be-marked": (b"UNICODE\0\xfe\xff", "utf-16-be"),
    "utf-8": (b"UNICODE\0", "utf-8"),
    "undefined": (b"\0" * 8, "utf-8"),
    "bare": (b"", "utf-8"),
    "ascii": (b"ASCII\0\0\0", "utf-8"),
}


@pytest.mark.parametrize(("before", "encoding"), COMMENTS.values(), ids=COMMENTS)
def test_the_comment_of_a_jpeg_is_read(house: House, before: bytes, encoding: str) -> None:
    """A1111 puts its text there, and programs write it in several encodings."""
    for prompt in ("a star", "日本の城、夜\u3000星", "Дом у реки", "🐕 runs", "“a star”", "Ünder"):
        text = f"{prompt}\nSteps: 8, Sampler: Euler a, CFG scale: 5, Seed: 3, Size: 128x128"
        exif = Image.Exif()
        comment = before + text.encode(encoding)
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        Image.new("RGB", (16, 16)).save(house.inbox / "a.jpg", exif=exif)
        assert read_texts(house.inbox / "a.jpg")["parameters"] == text
