"""The settings `format`, `quality` and `sidecar`; pictures of any format are found."""

import json
import logging
import shutil
from dataclasses import replace
from hashlib import shake_256
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

from picowatch.daemon import publish
from picowatch.engine.protocol import RenderedImage
from picowatch.files.colours import SRGB
from picowatch.files.decoding import Original
from picowatch.metadata.embedded_text import PARAMETERS, PICOWATCH, read_texts, texts_in
from picowatch.outbox import encoding
from picowatch.outbox.encoding import THUMBNAIL_SIDE, How, encode_apart, shrink
from picowatch.outbox.names import FORMATS, OutboxNames
from picowatch.outbox.photo_metadata import DRAWN, only_marked
from picowatch.recipe.request import ImageRequest
from tests import digest_engine
from tests.commands.picowatch import picowatch_here
from tests.digest_engine import digest_picture, digest_pixels
from tests.house import House
from tests.metadata import requests

CORGI = "prompt: ein Corgi 🐶, (猫:1.2)\nnegative_prompt: dim\nseed: 7\nsize: 128x64\n"
ENDING = {name: kind.ending for name, kind in FORMATS.items()}
OTHERS = ["jpeg", "webp", "avif"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_picture_of_each_format_holds_its_settings(house: House, name: str) -> None:
    """The lists, `show`, `from:`, its sidecar and the latest picture have them."""
    house.save("a.yaml", CORGI)
    assert house.once(format=name, sidecar="txt")
    file = f"a/0001-7{ENDING[name]}"
    path = house.outbox / file
    assert house.pictures() == [line["file"] for line in house.listed()] == [file]
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == (name.upper(), (128, 64))
    parameters = read_texts(path)[PARAMETERS]
    assert parameters.startswith("ein Corgi 🐶, (猫:1.2)\nNegative prompt: dim\nSteps: 24, ")
    assert path.with_suffix(".txt").read_text() == f"{parameters}\n"
    assert (house.outbox / f"latest{ENDING[name]}").read_bytes() == path.read_bytes()
    assert file in (house.outbox / ".picowatch/gallery/page-00001.js").read_text()
    house.save("b.yaml", picowatch_here(house.folder, "show", path).stdout)
    house.save("c.yaml", f"from: {file}\nseed: 8\n")
    assert house.once(format=name)
    request, shown, other = (house.chunk(picture).request for picture in house.pictures())
    assert (shown, other.prompt, other.seed) == (request, request.prompt, 8)


@pytest.mark.parametrize("name", OTHERS)
def test_the_text_stands_where_a1111_writes_it(name: str) -> None:
    """It begins with `UNICODE`, NUL, then big-endian UTF-16; our chunk is in MakerNote."""
    parameters, chunk = "ein Corgi 🐶\nSteps: 24, Sampler: Euler, CFG scale: 7", '{"a": "猫"}'
    texts = {PARAMETERS: parameters, PICOWATCH: chunk}
    content = encoded(name, texts)
    assert encoded(name, texts) == content, "the same bytes again"
    assert texts_in(BytesIO(content)) == texts
    with Image.open(BytesIO(content)) as picture:
        tags = picture.getexif().get_ifd(ExifTags.IFD.Exif)
    assert tags[ExifTags.Base.UserComment] == b"UNICODE\0" + parameters.encode("utf-16-be")
    assert tags[ExifTags.Base.MakerNote] == f"picowatch:{chunk}".encode()
    assert tags[ExifTags.Base.ColorSpace] == 1


def encoded(name: str, texts: dict[str, str], quality: str | int = "auto") -> bytes:
    """Noise in this format: an enlarged grainy photo, or a picture of one step, comes close."""
    picture = Image.frombytes("RGB", (256, 256), shake_256(b"").digest(256 * 256 * 3))
    return How(f"a{ENDING[name]}", texts, quality).encode(Original(picture))


def test_what_is_a_jpeg_has_room_for_its_settings(house: House) -> None:
    """If its 64 kB for EXIF are too few for any letters, the picture is a PNG, and that is told."""
    lengths = (1_000, 8_000)
    written = [letter * length for letter in ("a", "猫", "🐶", '"') for length in lengths]
    entries = [{"prompt": f"{{{prompt}|{prompt}}}", "seed": 7} for prompt in written]
    house.save("a.json", json.dumps(entries, ensure_ascii=False))
    assert house.once(format="jpeg"), house.log()
    endings = [Path(file).suffix for file in house.pictures()]
    assert house.prompts() == written
    assert (endings[::2], endings[1::2]) == ([".jpg"] * 4, [".png"] * 4)
    for file, prompt in zip(house.pictures(), written, strict=True):
        assert read_texts(house.outbox / file)[PARAMETERS].startswith(f"{prompt}\nSteps: ")
        said = "Its prompts are too long for JPEG's 64 kB of metadata, so it is a PNG."
        warned = [said] if file.endswith(".png") else []
        assert [*filter(said.__eq__, house.chunk(file).rendered["warnings"])] == warned
    assert (house.outbox / "a.json.warning.txt").read_text().count(said) == 1
    assert house.log().count("so it is a PNG") == 1


@pytest.mark.parametrize("name", ["png", "jpeg", "tiff"])
def test_contact_sheets_have_the_format_too(house: House, name: str) -> None:
    """A gallery is rebuilt from the descriptions inside. Every PNG has a profile."""
    star = "prompt: a star\nseed: 7\nsize: 64x64\nsweep: {steps: [2, 3]}\n"
    house.save("a.yaml", f"{star}format: {name}\n")
    assert house.once()
    assert f"a/0003-sheet{ENDING[name]}" in house.pictures()
    for file in house.pictures() if name == "png" else ():
        with Image.open(house.outbox / file) as made:
            assert made.info["icc_profile"] == SRGB
    page = house.outbox / ".picowatch/gallery/page-00001.js"
    before = page.read_text()
    assert f"/0002-7{ENDING[name]}" in next(
        line for line in before.splitlines() if '"cells"' in line
    )
    shutil.rmtree(page.parent)
    assert house.once(format="png")
    assert page.read_text() == before


def test_the_format_is_no_part_of_an_image(house: House) -> None:
    """The same recipe makes nothing new; numbers continue; a new ledger knows all pictures."""
    for number, name in enumerate(FORMATS, 1):
        house.save("a.yaml", f"prompt: a star\nsize: 64x64\nseed: {[*range(number)]}\n")
        assert house.once(format=name)
    expected = [f"a/{n + 1:04}-{n}{ending}" for n, ending in enumerate(ENDING.values())]
    assert house.pictures() == expected
    assert [path.name for path in house.outbox.glob("latest.*")] == ["latest.tif"]
    house.ledger.unlink()
    house.save("a.yaml", "prompt: a star\nsize: 64x64\nseed: [0, 1, 2, 3, 4, 5]\n")
    assert house.once(format="jpeg")
    assert house.pictures() == [*expected, "a/0006-5.jpg"]
    house.save("a.yaml", "prompt: a star\nsize: 64x64\nseed: [4, 3, 2, 1]\n")
    assert house.once(format="webp")
    assert house.pictures() == [*expected, "a/0006-5.jpg"]


def test_lossless_and_quality(house: House) -> None:
    """Lossless keeps the pixels; lower quality takes fewer bytes; nothing is too grainy."""
    house.save("a.yaml", "prompt: a star\nseed: 7\nsize: 64x64\n")
    assert house.once(format="webp", quality="lossless")
    with Image.open(house.outbox / "a/0001-7.webp") as picture:
        assert picture.tobytes() == digest_pixels(house.chunk("a/0001-7.webp").request)
    for name in OTHERS:
        sizes = [len(encoded(name, {}, quality=quality)) for quality in (20, "auto", 100)]
        assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("name", ["jpeg", "webp", "tiff"])
def test_transparency_is_written_where_a_format_has_it(
    house: House, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JPEG is on white; one warning says so for all pictures of the recipe or template."""

    monkeypatch.setattr(digest_engine, "digest_picture", half_transparent)
    house.save("a.yaml", "prompt: a star\nseed: 1..3\nsize: 64x64\n")
    house.save("photos/_pictures.yaml", "prompt: a star\nsize: 64x64\n")
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(house.inbox / f"photos/{number}.png")
    assert house.once(format=name)
    assert len(house.pictures()) == 6
    is_jpeg = name == "jpeg"
    for file in house.pictures():
        with Image.open(house.outbox / file) as picture:
            shown = picture if is_jpeg else picture.getchannel("A")
            expected = ((255, 255, 255), (0, 0, 0)) if is_jpeg else (0, 255)
            assert tuple(shown.getpixel((32, y)) for y in (8, 56)) == expected
    warnings = {path.name: path.read_text() for path in house.outbox.rglob("*.warning.txt")}
    assert set(warnings) == (
        {"a.yaml.warning.txt", "_pictures.yaml.warning.txt"} if is_jpeg else set()
    )
    assert all(text.count("it was put on white") == 1 for text in warnings.values())
    assert house.log().count("it was put on white") == len(warnings)


def half_transparent(request: ImageRequest, batch_size: int) -> RenderedImage:
    """The digest's picture with a transparent black upper half."""
    picture = digest_picture(request, batch_size)
    count = picture.width * picture.height // 2
    return replace(picture, pixels=bytes(6 * count), alpha=bytes(count) + b"\xff" * count)


def test_a_transparent_picture_that_is_not_redrawn_becomes_a_png(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one warning for each template; alpha that hides nothing and a background are JPEGs."""

    def as_given(request: ImageRequest, batch_size: int) -> RenderedImage:
        is_opaque = "opaque" in request.image or request.cutout or request.mask_is_alpha
        return (digest_picture if is_opaque else half_transparent)(request, batch_size)

    monkeypatch.setattr(digest_engine, "digest_picture", as_given)
    templates = {
        "big": "upscale: true",
        "shop": "cutout: {background: white}",
        "dogs": "detail: dog",
        "hats": "prompt: a hat\nmask: {find: hat}",
        "fill": "prompt: a hat\nmask: alpha",
    }
    for folder, text in templates.items():
        house.save(f"{folder}/_pictures.yaml", f"{text}\nformat: jpeg\n")
        inside = house.inbox / folder
        Image.new("RGBA", (64, 64), "#ff000000").save(inside / "clear.png")
        Image.new("P", (64, 64)).save(inside / "gif.png", transparency=0)
        Image.new("RGBA", (64, 64), "red").save(inside / "opaque.png")
    assert house.once()
    assert house.pictures() == [
        *("big/clear.png", "big/gif.png", "big/opaque.jpg"),
        *("dogs/clear.png", "dogs/gif.png", "dogs/opaque.jpg"),
        *("fill/clear.jpg", "fill/gif.jpg", "fill/opaque.jpg"),
        *("hats/clear.png", "hats/gif.png", "hats/opaque.jpg"),
        *("shop/clear.jpg", "shop/gif.jpg", "shop/opaque.jpg"),
    ]
    assert house.log().count("so it is a PNG") == 3
    for folder in ("big", "dogs", "hats"):
        warnings = (house.outbox / f"{folder}/_pictures.yaml.warning.txt").read_text()
        assert warnings.count("so it is a PNG") == 1


def test_a_reduced_photo_says_so_in_the_log_and_in_its_metadata(house: House) -> None:
    """Once each; where the recipe gives the size, nothing is reduced."""
    house.draw("photos/a.png", size=(640, 480))
    house.save("photos/_pictures.yaml", "prompt: a star\nsize: picture\n")
    house.save("b.yaml", "prompt: a star\nimage: photos/a.png\nseed: 7\nsize: 64x64\n")
    assert house.once(max_picture_megapixels=0.1)
    says = {file: house.chunk(file).rendered["warnings"] for file in house.pictures()}
    assert says["b/0001-7.png"] == []
    (said,) = says["photos/a.png"]
    assert said.startswith("A picture of 640x480 pixels becomes 368x272: max_picture_megapixels ")
    assert house.log().count(said) == 1


def test_a_recipe_a_template_and_a_photo_have_formats_of_their_own(house: House) -> None:
    """`same` is the photo's; what JPEG cannot hold is a PNG, with one warning."""
    pillow_heif.register_heif_opener()
    house.save("a.yaml", "prompt: a star\nseed: 7\nsize: 64x64\nformat: webp\nquality: lossless\n")
    house.save("b.yaml", "prompt: a star\nseed: 7\nsize: 64x64\nformat: jpg\nquality: 20\n")
    house.save("c.yaml", "prompt: a star\nseed: 7\nsize: 64x64\n")
    house.save("_defaults.yaml", "format: same\nquality: lossless\n")  # c.yaml has no picture
    house.save("d.yaml", "prompt: a star\nseed: 7\nsize: 64x64\nformat: jpg\n")
    maps = "".join(f"- {{image: {name}, model: demo-sketch}}\n" for name in ("s.png", "picture"))
    house.save("drawn/_pictures.yaml", f"prompt: a star\ncontrol:\n{maps}")
    house.draw("s.png"), house.draw("drawn/sketch.jpg")
    house.save("photos/_pictures.yaml", "prompt: a star\nformat: same\n")
    house.save("cut/_pictures.yaml", "cutout: true\nformat: same\n")
    for name in ("beach.jpg", "Möbel.webp", "old.BMP", "sub/x.JPEG", "a.avif", "phone.heic"):
        house.draw(f"photos/{name}")
    house.save("shop/_pictures.yaml", "cutout: {background: white, size: 64}\nformat: same\n")
    house.draw("cut/shoe.jpg"), house.draw("cut/boot.jpg"), house.draw("shop/hat.jpg")
    assert house.once(format="avif")
    assert house.pictures() == [
        *("a/0001-7.webp", "b/0001-7.jpg", "c/0001-7.avif", "cut/boot.png", "cut/shoe.png"),
        *("d/0001-7.jpg", "drawn/sketch.jpg"),
        *("photos/Möbel.webp", "photos/a.avif", "photos/beach.jpg", "photos/old.png"),
        *("photos/phone.jpg", "photos/sub/x.jpg", "shop/hat.jpg"),
    ]
    with Image.open(house.outbox / "a/0001-7.webp") as picture:
        assert picture.tobytes() == digest_pixels(house.chunk("a/0001-7.webp").request)
    shutil.copy(house.outbox / "photos/beach.jpg", house.inbox / "photos/again.jpg")
    house.save("b.yaml", "prompt: a star\nseed: 7\nsize: 64x64\nformat: jpg\nquality: 90\n")
    assert not house.once(format="avif")
    assert "would be rendered again" in (house.outbox / "photos/again.jpg.error.txt").read_text()
    low, high = (house.outbox / f"b/000{number}-7.jpg" for number in (1, 2))
    assert low.stat().st_size < high.stat().st_size


def test_a_stored_request_for_the_format_of_no_picture_is_a_png(tmp_path: Path) -> None:
    """Earlier versions stored such requests where a checkpoint took none of a folder's pictures."""
    request = replace(requests.CORGI, format="same")
    assert OutboxNames(tmp_path).why_png("a.yaml", request) == ""


def test_sidecars_are_neither_images_nor_problems(house: House) -> None:
    """With any name. What exists is never overwritten, and uses up its number."""
    (house.outbox / "a").mkdir(parents=True)
    mine = [house.outbox / "a/1.error_.txt", house.outbox / "a/2.error_.webp"]
    for path in mine:
        path.write_text("mine")
    house.save("a.yaml", CORGI + "count: 2\n")
    assert house.once(sidecar="txt", file_name="{number}.error", format="jpeg")
    assert house.pictures()[-2:] == ["a/3.error_.jpg", "a/4.error_.jpg"]
    assert (house.outbox / "a/3.error_.txt").read_text().startswith("ein Corgi")
    (house.outbox / "a/3.error_.txt").unlink()
    (house.outbox / "a/4.error_.jpg").unlink()
    assert house.once(sidecar="txt", file_name="{number}.error", format="jpeg")
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    names = sorted(path.name for path in (house.outbox / "a").iterdir())
    assert names == ["1.error_.txt", "2.error_.webp", "3.error_.jpg", "4.error_.txt"]


@pytest.mark.usefixtures("copies_here")
@pytest.mark.parametrize(("name", "most"), [("webp", 16_383), ("avif", 16_384)])
def test_a_picture_too_large_for_its_format_says_so(house: House, name: str, most: int) -> None:
    """Once for each template. One that just fits has the format."""
    for folder, width in (("fits", most), ("large", most + 1)):
        resized = f"resize_to: {{width: {width}, enlarge: true}}\nformat: {name}\n"
        house.save(f"{folder}/_pictures.yaml", resized)
        house.draw(f"{folder}/a.png", size=(4096, 16))
        house.draw(f"{folder}/b.png", size=(4096, 8))
    assert house.once(max_photo_megapixels=300)
    files = [f"{folder}/{stem}" for folder in ("fits", "large") for stem in "ab"]
    endings = [f".{name}", f".{name}", ".png", ".png"]
    assert house.pictures() == [*map("".join, zip(files, endings, strict=True))]
    said = f"A side has more than the {most:,} pixels of {name}, so it is a PNG."
    assert (house.outbox / "large/_pictures.yaml.warning.txt").read_text().count(said) == 1
    assert house.log().count("so it is a PNG") == 1


# -- large pictures are encoded in a process of their own, to the same bytes


RNG = np.random.default_rng(5)


def rendered(low: bytes = b"", alpha: bytes = b"", profile: bytes = b"") -> RenderedImage:
    return RenderedImage(
        width=500, height=40, pixels=RNG.bytes(500 * 40 * 3), low=low, alpha=alpha, profile=profile,
        device="cpu", precision="", batch_size=1, compiled=False, memory_rung="", chunks=1,
    )  # fmt: skip


LOW, ALPHA = RNG.bytes(500 * 40 * 3), RNG.bytes(500 * 40)


@pytest.mark.parametrize(
    ("name", "low", "alpha"),
    [("png", LOW, ALPHA), ("tiff", LOW, b""), ("jpeg", b"", ALPHA), ("webp", b"", b"")],
)
def test_a_process_writes_the_same_file(name: str, low: bytes, alpha: bytes) -> None:
    """It gives what the gallery shows, too."""
    picture = rendered(low, alpha, SRGB)
    how = How(
        file=f"a{FORMATS[name].ending}", texts={PARAMETERS: "a star"}, photo=only_marked(DRAWN)
    )
    small, content = encode_apart(picture.decoded, how)
    assert content == how.encode(picture.decoded())
    assert small.tobytes() == shrink(picture.decoded().picture).tobytes()
    assert small.size == (THUMBNAIL_SIDE, round(40 * THUMBNAIL_SIDE / 500))


def test_what_it_leaves_out_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    how = How(file="a.jpg", texts={PARAMETERS: "a" * 70_000})
    with caplog.at_level(logging.WARNING, "picowatch"):
        encode_apart(rendered().decoded, how)
    assert "its texts are left out" in caplog.text


def test_a_process_that_ends_fails_its_picture_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "LARGE_PIXELS", 5000)
    monkeypatch.setattr(encoding, "program", lambda *_: ["false"])
    house.save("a.yaml", "prompt: a star\nsize: 128x128\nseed: 7\n")
    house.save("b.yaml", "prompt: a star\nsize: 64x64\nseed: 7\n")
    assert not house.once()
    assert house.pictures() == ["b/0001-7.png"]
    assert "the process that encodes it has ended" in house.log()


def test_a_large_picture_is_published_as_any_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "LARGE_PIXELS", 5000)
    house.save("a.yaml", "prompt: a star\nsize: 128x128\nseed: 7\n")
    assert house.once()
    with Image.open(house.outbox / "a/0001-7.png") as made:
        assert made.size == (128, 128)
    assert house.chunk("a/0001-7.png").request.prompt == "a star"
    assert len([*(house.outbox / ".picowatch/gallery/thumbs").iterdir()]) == 1
