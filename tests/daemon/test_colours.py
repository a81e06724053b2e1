"""`colour: same`: photos keep their colours and bits wherever no model draws."""

import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from picowatch.files.colours import SRGB, profile_of
from picowatch.files.decoding import Original, decode_original, decode_picture
from picowatch.metadata.embedded_text import PICOWATCH, read_texts
from picowatch.outbox.encoding import tiff
from tests.house import House
from tests.pictures import encoded

Numbers = np.ndarray[Any, np.dtype[np.uint16]]
RNG = np.random.default_rng(3)


def profile(red: tuple[float, float, float], gamma: float) -> bytes:
    """Return a profile with sRGB's green and blue, another red, and a power for its curve."""
    made = SRGB
    for name, values in (
        (b"rXYZ", b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in red)),
        *((name, b"curv\0\0\0\0" + struct.pack(">IH2x", 1, round(gamma * 256)))
          for name in (b"rTRC", b"gTRC", b"bTRC")),
    ):  # fmt: skip
        at = made.index(name)
        made = (
            made[: at + 4] + struct.pack(">II", len(made), len(values)) + made[at + 12 :] + values
        )
    return struct.pack(">I", len(made)) + made[4:]


ADOBE = profile((0.60974, 0.31111, 0.01947), 2.2)  # the red of Adobe RGB (1998)


def deep_photo(numbers: Numbers, icc: bytes = ADOBE, mode: str = "RGB") -> bytes:
    high, low = (Image.fromarray(part.astype(np.uint8)) for part in (numbers >> 8, numbers & 255))
    return tiff(Original(high.convert(mode), low, icc), {}, {}, b"")


def premultiplied(numbers: Numbers) -> bytes:
    """Return a TIFF with 16 bits whose opaque colours are multiplied by alpha."""
    extra_samples = struct.pack(">HHL", 338, 3, 1)
    content = deep_photo(numbers, mode="RGBA")
    return content.replace(extra_samples + b"\0\2", extra_samples + b"\0\1")


def numbers_in(content: bytes) -> Numbers:
    picture, low, _ = decode_original(content)
    assert low
    high = np.asarray(picture.convert("RGB")).astype(np.uint16)
    return np.asarray(high << 8 | np.asarray(low))


def smooth(size: tuple[int, int] = (160, 120)) -> Numbers:
    small = RNG.integers(0, 65_536, (6, 8, 3)).astype(np.float32)
    planes = [
        np.asarray(Image.fromarray(small[..., at]).resize(size, Image.Resampling.BICUBIC))
        for at in range(3)
    ]
    return np.stack(planes, axis=-1).clip(0, 65_535).astype(np.uint16)


def planar(numbers: Numbers, compression: int, order: str = "MM", photometric: int = 2) -> bytes:
    """Return a TIFF with 16 bits whose channels lie apart, compressed (8) or not (1)."""
    begins = order.encode() + (b"\0*\0\0\0\x08" if order == "MM" else b"*\0\x08\0\0\0")
    high, wide, count = numbers.shape
    kind = ">u2" if order == "MM" else "<u2"
    planes = [numbers[..., at].astype(kind).tobytes() for at in range(count)]
    planes = [zlib.compress(plane) for plane in planes] if compression == 8 else planes
    tags = ImageFileDirectory_v2(begins)
    sizes = tuple(map(len, planes))
    written = {256: wide, 257: high, 258: (16,) * count, 259: compression, 262: photometric}
    written |= {277: count, 278: high, 279: sizes, 284: 2 if count > 1 else 1, 339: (1,) * count}
    for tag, value in written.items():
        tags[tag] = value
    # From the end of the directory, for Pillow.
    tags[273] = tuple(sum(sizes[:at]) for at in range(count))
    return begins + tags.tobytes(8) + b"".join(planes)


NOISE = RNG.integers(0, 65_536, (50, 70, 3)).astype(np.uint16)
SMOOTH = smooth()
LINES = np.zeros((64, 64, 3), np.uint16)
LINES[:, ::2] = 65_535
PLAIN = 1234, 30_000, 65_534
GRADIENT = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
GARBAGE = {"short": ADOBE[:200], "cut": ADOBE[:300], "text": b"garbage" * 40}
GARBAGE["large"] = ADOBE + bytes(5_000_000)
PROFILES = {
    "Adobe RGB": ADOBE,
    "ProPhoto RGB": profile((0.7977, 0.2880, 0.0), 1.8),
    "Display P3": profile_of({"nclx_profile": {"color_primaries": 12}}),
    "sRGB": SRGB,
}
TEMPLATES = {
    "same": "format: same\ncolour: same\n",
    "png": "format: png\ncolour: same\n",
    "jpeg": "format: jpeg\ncolour: same\n",
    "plain": "format: png\n",
    "small": "resize_to: 16\nformat: same\ncolour: same\n",
}
PHOTOS = {
    "same/a": deep_photo(NOISE),
    "png/a": deep_photo(NOISE),
    "png/grey": encoded(Image.fromarray(SMOOTH[..., 0]), "TIFF"),
    "plain/a": deep_photo(SMOOTH),
    "jpeg/a": deep_photo(SMOOTH),
    "small/lines": deep_photo(LINES),
    "small/plain": deep_photo(np.full((64, 64, 3), PLAIN, np.uint16)),
    **{f"same/{mode}/a": encoded(GRADIENT.convert(mode), "TIFF") for mode in ("CMYK", "L", "P")},
    **{f"same/planar{way}/a": planar(SMOOTH, way) for way in (1, 8)},
    "same/premultiplied/a": premultiplied(SMOOTH),
    **{f"same/{name}": deep_photo(SMOOTH, icc) for name, icc in GARBAGE.items()},
}
for _name, _icc in PROFILES.items():
    for _tone, _numbers in (("bright", SMOOTH), ("dark", SMOOTH // 16)):
        _eight = Image.fromarray((_numbers >> 8).astype(np.uint8))
        PHOTOS[f"plain/{_name}/16 {_tone}"] = deep_photo(_numbers, _icc or b"")
        PHOTOS[f"plain/{_name}/8 {_tone}"] = encoded(_eight, "TIFF", icc_profile=_icc)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house in which copies of all photos were made in one run."""
    house = House(tmp_path_factory.mktemp("colours"))
    for name, text in TEMPLATES.items():
        house.save(f"{name}/_pictures.yaml", text)
    for name in PHOTOS:  # warnings are told once for each template
        if name.startswith(("same/CMYK", "same/L", "same/P", "same/p")):
            house.save(f"{name.rpartition('/')[0]}/_pictures.yaml", TEMPLATES["same"])
    for name, content in PHOTOS.items():
        house.save(f"{name}.tif", content)
    assert house.once(), house.log()
    assert len(house.listed()) == len(PHOTOS)
    yield house


def copy(house: House, name: str) -> bytes:
    return (house.outbox / name).read_bytes()


def warning(house: House, folder: str) -> str:
    file = house.outbox / f"{folder}/_pictures.yaml.warning.txt"
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize("file", ["same/a.tif", "png/a.png"])
def test_a_copy_has_the_photos_numbers_and_its_profile(made: House, file: str) -> None:
    """It has its settings, too, and says nothing of bits that it keeps."""
    content = copy(made, file)
    assert (numbers_in(content) == NOISE).all()
    assert decode_original(content).profile == ADOBE
    with Image.open(BytesIO(content)) as opened:
        exif = opened.getexif().get_ifd(0x8769)
        assert exif[0xA001] == 65_535 if file.endswith("tif") else True
    assert PICOWATCH in read_texts(made.outbox / file)
    assert made.chunk(file).rendered["warnings"] == []


def test_bits_and_colours_that_are_lost_are_told_once(made: House) -> None:
    """By default a result is in sRGB with 8 bits."""
    told = warning(made, "plain")
    assert told.count("more than 8 bits") == 1 and "colour: same" in told
    assert "As TIFF or PNG with colour: same" in warning(made, "jpeg"), "which has colour: same"
    plain = decode_original(copy(made, "plain/a.png"))
    assert (plain.low, plain.profile) == (None, b"")
    with Image.open(made.outbox / "jpeg/a.jpg") as kept:
        assert kept.info["icc_profile"] == ADOBE


def test_a_smaller_copy_is_light_by_the_profiles_curve(made: House) -> None:
    """All 16 bits of it, and the numbers of a plain area stay."""
    lines = numbers_in(copy(made, "small/lines.tif")).astype(int)
    half = round(65_535 * 0.5 ** (1 / (563 / 256)))  # curv: u8Fixed8Number
    assert np.abs(lines[4:-4, 4:-4] - half).max() <= 32
    assert np.abs(numbers_in(copy(made, "small/plain.tif")).astype(int) - PLAIN).max() <= 1


@pytest.mark.parametrize("mode", ["CMYK", "L", "P"])
def test_other_modes_are_read_in_colours_that_a_result_can_have(made: House, mode: str) -> None:
    """CMYK becomes sRGB, with a word; grey and palettes are RGB."""
    with Image.open(made.outbox / f"same/{mode}/a.tif") as result:
        assert (result.mode, result.info["icc_profile"]) == ("RGB", SRGB)
    assert ("is in CMYK; the picture's" in warning(made, f"same/{mode}")) is (mode == "CMYK")


def test_grey_with_16_bits_keeps_them(made: House) -> None:
    assert (numbers_in(copy(made, "png/grey.png")) == SMOOTH[..., :1]).all()


@pytest.mark.parametrize("kind", ["planar1", "planar8", "premultiplied"])
def test_16_bits_of_which_pillow_reads_8_become_8_with_a_word(made: House, kind: str) -> None:
    """If channels lie apart, or colours are divided by alpha; it takes uncompressed ones for 8."""
    result = decode_original(copy(made, f"same/{kind}/a.tif"))
    assert result.low is None
    assert np.abs(np.asarray(result.picture).astype(int) - (SMOOTH >> 8)).max() <= 1
    assert "8 bits" in warning(made, f"same/{kind}")


@pytest.mark.parametrize("name", GARBAGE)
def test_a_profile_of_garbage_is_not_kept(made: House, name: str) -> None:
    """The numbers stay, as by default."""
    content = copy(made, f"same/{name}.tif")
    assert (decode_original(content).profile, len(content) < 500_000) == (b"", True)
    assert (numbers_in(content) == SMOOTH).all()


def test_a_profile_of_megabytes_is_not_used() -> None:
    """It would take fifteen times its size in memory."""
    photo = Image.fromarray((SMOOTH >> 8).astype(np.uint8))
    large = decode_picture(encoded(photo, "TIFF", icc_profile=GARBAGE["large"]))
    assert (np.asarray(large) == np.asarray(photo)).all()
    usual = decode_picture(encoded(photo, "TIFF", icc_profile=ADOBE))
    assert (np.asarray(usual) != np.asarray(photo)).any()


def test_what_is_drawn_says_that_it_has_no_colours_to_keep(house: House) -> None:
    house.draw("a.png")
    house.save("b.yaml", "prompt: a star\nimage: a.png\ncolour: same\n")
    assert house.once()
    assert "colour: same has no effect here" in (house.outbox / "b.yaml.warning.txt").read_text()


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("compression", [1, 8])
def test_grey_with_16_bits_has_either_byte_order_and_0_is_white_or_black(
    order: str, photometric: int, compression: int
) -> None:
    """Scanners and microscopes write it so."""
    content = planar(SMOOTH[..., :1], compression, order, photometric)
    grey = SMOOTH[..., :1] if photometric else 65_535 - SMOOTH[..., :1]
    assert (numbers_in(content) == grey).all()
    assert np.abs(np.asarray(decode_picture(content)).astype(int) - grey / 257).max() <= 1


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_turned_photo_is_upright_with_all_bits(turned: int, tmp_path: Path) -> None:
    """Both halves of its numbers are turned."""
    photo = RNG.integers(0, 65_536, (4, 6, 3)).astype(np.uint16)
    high, low = (Image.fromarray(part.astype(np.uint8)) for part in (photo >> 8, photo & 255))
    content = tiff(Original(high, low), {}, {0: {274: (3, turned)}}, b"")
    made = decode_original(content)
    assert made.low
    for part, given in ((made.picture, high), (made.low, low)):
        given.getexif()[ExifTags.Base.Orientation] = turned
        assert (np.asarray(part) == np.asarray(ImageOps.exif_transpose(given))).all()


@pytest.mark.skipif(not shutil.which("tificc"), reason="Debian's liblcms2-utils has it")
@pytest.mark.parametrize("name", PROFILES)
def test_colours_become_those_of_littlecms(made: House, tmp_path: Path, name: str) -> None:
    """One step of 8 bits at most, also of dark colours, which 16 bits hold more of."""
    target, theirs = tmp_path / "srgb.icc", tmp_path / "theirs.tif"
    target.write_bytes(SRGB)
    for bits, tone in ((8, "bright"), (8, "dark"), (16, "bright"), (16, "dark")):
        file = f"plain/{name}/{bits} {tone}"
        # Without -c0 it reads a table of 33 steps, which is wrong by 15 in dark colours.
        how = ["-c0", "-t1", f"-w{bits}", "-e", f"-o{target}"]
        photo = made.inbox / f"{file}.tif"
        subprocess.run(["tificc", *how, photo, theirs], check=True, capture_output=True)
        content = theirs.read_bytes()
        if bits == 16:
            expected = numbers_in(content) / 257
        else:
            expected = np.asarray(decode_original(content).picture).astype(float)
        ours = decode_original(copy(made, f"{file}.png")).picture
        assert np.abs(np.asarray(ours) - expected).max() <= 1, file
