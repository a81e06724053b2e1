"""`from:`: a recipe that starts from a picture's settings."""

import json

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from tests.house import House


def test_a_recipe_starts_from_a_picture_of_the_outbox(house: House) -> None:
    """Its own fields override; the rest is the picture's, the seed too."""
    house.save("a.yaml", "prompt: a corgi\nseed: 7\nsteps: 9\ncfg_scale: 4\n")
    house.once()
    house.save("b.yaml", "from: a/0001-7.png\nsteps: 10\n")
    assert house.once()
    (picture,) = house.pictures("b")
    one, other = (house.chunk(file).request for file in ("a/0001-7.png", picture))
    assert other.steps == 10
    assert (other.prompt, other.seed, other.cfg_scale) == (one.prompt, one.seed, one.cfg_scale)


@pytest.mark.parametrize("folder", ["", "other/"])
def test_the_start_image_is_the_picture_s_own_from_any_folder(house: House, folder: str) -> None:
    """Not another one that is called like it where the new recipe lies."""
    for number, place in enumerate(("pets", "", "other")):
        path = house.inbox / place / "dog.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (number * 20, 0, 0)).save(path)
    Image.new("RGB", (64, 64), "white").save(house.inbox / "pets/mask.png")
    house.save("pets/a.yaml", "prompt: a\nseed: 7\nimage: dog.png\nmask: mask.png\n")
    assert house.once()
    house.save(f"{folder}b.yaml", "from: pets/a/0001-7.png\nsteps: 10\n")
    house.save(f"{folder}c.yaml", "from: pets/a/0001-7.png\nimage: dog.png\n")
    assert house.once(), house.error(f"{folder}b.yaml")
    one, other, given = (
        house.chunk(house.pictures(name)[0]).request
        for name in ("pets/a", f"{folder}b", f"{folder}c")
    )
    assert (other.image_hash, other.mask_hash) == (one.image_hash, one.mask_hash)
    assert given.image_hash != one.image_hash


def test_the_result_of_a_dropped_picture_is_told_from_the_picture(house: House) -> None:
    """Both have the same path, one below the inbox and one below the outbox."""
    house.save("a/_pictures.yaml", "prompt: a corgi\nseed: 7\n")
    Image.new("RGB", (64, 64)).save(house.inbox / "a/x.png")
    assert house.once()
    house.save("b.yaml", "from: a/x.png\n")
    assert not house.once()
    assert "To start from its result, write 'outbox/a/x.png'." in (house.error("b.yaml") or "")
    house.save("b.yaml", "from: outbox/a/x.png\n")
    assert house.once()
    assert house.chunk(house.pictures("b")[0]).request.seed == 7


VALUES = "Steps: 8, Sampler: Euler a, CFG scale: 5, Seed: 3, Size: 128x128"
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


@pytest.mark.parametrize(
    "prompt", ["a star", "日本の城、夜\u3000星", "Дом у реки", "🐕 runs", "“a star”", "Ünder"]
)
def test_the_comment_of_a_jpeg_is_read(house: House, prompt: str) -> None:
    """Where A1111 puts its text, in every encoding that programs write it in."""
    for name, (before, encoding) in COMMENTS.items():
        exif = Image.Exif()
        comment = before + f"{prompt}\n{VALUES}".encode(encoding)
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        Image.new("RGB", (16, 16)).save(house.inbox / f"{name}.jpg", exif=exif)
        house.save(f"{name}.yaml", f"from: {name}.jpg\n")
    assert house.once(), house.log()
    for name in COMMENTS:
        (picture,) = house.pictures(name)
        request = house.chunk(picture).request
        assert (request.prompt, request.steps, request.sampler) == (prompt, 8, "Euler a"), name


FOOOCUS = {
    "adm_guidance": "(1.5, 0.8, 0.3)",
    "base_model": "demo",
    "base_model_hash": "0123456789",
    "full_negative_prompt": ["dim"],
    "full_prompt": ["日本の城", "cinematic still"],
    "guidance_scale": 4,
    "loras": [],
    "negative_prompt": "",
    "performance": "Speed",
    "prompt": "日本の城",
    "refiner_model": "None",
    "resolution": "(128, 160)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "71415104642",
    "sharpness": 2.0,
    "steps": 9,
    "styles": "['SAI Cinematic']",
    "vae": "Default (model)",
    "version": "Fooocus v2.5.5",
}


@pytest.mark.parametrize("kind", ["jpg", "webp", "png"])
def test_pictures_of_fooocus_are_read(house: House, kind: str) -> None:
    """Its comment is text beside the Exif IFD; in a PNG it is the text "parameters"."""
    exif, info = Image.Exif(), PngImagePlugin.PngInfo()
    text = json.dumps(FOOOCUS)
    if kind == "png":
        info.add_text("parameters", text)
        info.add_text("fooocus_scheme", "fooocus")
        Image.new("RGB", (16, 16)).save(house.inbox / "f.png", pnginfo=info)
    else:
        exif[ExifTags.Base.UserComment] = text
        exif[ExifTags.Base.MakerNote] = "fooocus"
        Image.new("RGB", (16, 16)).save(house.inbox / f"f.{kind}", exif=exif)
    house.save("f.yaml", f"from: f.{kind}\n")
    assert house.once(), house.log()
    (picture,) = house.pictures("f")
    request = house.chunk(picture).request
    assert (request.prompt, request.negative_prompt) == ("日本の城, cinematic still", "dim")
    assert (request.sampler, request.schedule_type) == ("DPM++ 2M SDE", "karras")
    assert (request.width, request.height, request.seed) == (128, 160, 2695627906)
    warning = (house.outbox / "f.yaml.warning.txt").read_text()
    assert "sharpness: 2.0" in warning
    assert "71415104642 has more than 32 bits" in warning


def test_what_a_recipe_cannot_honour_is_said_beside_the_result(house: House) -> None:
    """In the log and in a file, until the next save without it."""
    text = "a star\nSteps: 8, Sampler: Euler a, Seed: 3, Size: 128x128, Face restoration: GFPGAN"
    house.save("a.txt", text)
    assert house.once()
    assert len(house.pictures()) == 1
    warning = house.outbox / "a.txt.warning.txt"
    assert "Face restoration" in warning.read_text()
    assert "warning a.txt: " in house.log()
    house.save("a.txt", text.replace(", Face restoration: GFPGAN", ""))
    assert house.once()
    assert not warning.exists()
