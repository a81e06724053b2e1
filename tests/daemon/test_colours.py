"""`colour: same`: photos keep their colours and bits wherever no model draws."""

import shutil
import struct
import subprocess
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from picowatch.files.pictures import decode_original
from picowatch.files.wide_gamut import SRGB, profile_of
from picowatch.metadata import PICOWATCH, read_texts
from picowatch.outbox.lossless import Pixels, tiff
from tests.house import House

Numbers = np.ndarray[Any, np.dtype[np.uint16]]
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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


def deep_photo(numbers: Numbers, icc: bytes = ADOBE) -> bytes:
    high, low = (Image.fromarray(part.astype(np.uint8)) for part in (numbers >> 8, numbers & 255))
    return tiff(Pixels(high, low), {}, {}, b"", icc)


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


def saved(house: House, name: str, content: bytes) -> None:
    path = house.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(("kind", "ending"), [("same", "tif"), ("png", "png")])
def test_a_copy_has_the_photos_numbers_and_its_profile(
    house: House, kind: str, ending: str
) -> None:
    """It has its settings, too, and says nothing of bits that it keeps."""
    photo = RNG.integers(0, 65_536, (50, 70, 3)).astype(np.uint16)
    saved(house, "p/a.tif", deep_photo(photo))
    house.save("p/_pictures.yaml", f"format: {kind}\ncolour: same\n")
    assert house.once()
    (file,) = house.pictures()
    assert file == f"p/a.{ending}"
    content = (house.outbox / file).read_bytes()
    assert (numbers_in(content) == photo).all()
    assert decode_original(content).profile == ADOBE
    with Image.open(BytesIO(content)) as made:
        assert made.getexif().get_ifd(0x8769)[0xA001] == 65_535 if ending == "tif" else True
    assert PICOWATCH in read_texts(house.outbox / file)
    assert house.chunk(file).rendered["warnings"] == []


def test_bits_and_colours_that_are_lost_are_told_once(house: House) -> None:
    """By default a result is in sRGB with 8 bits."""
    photo = smooth()
    for name in ("a", "b"):
        saved(house, f"p/{name}.tif", deep_photo(photo))
    house.save("p/_pictures.yaml", "format: png\n")
    house.save("q/_pictures.yaml", "format: jpeg\ncolour: same\n")
    saved(house, "q/c.tif", deep_photo(photo))
    assert house.once()
    warning = (house.outbox / "p/_pictures.yaml.warning.txt").read_text()
    assert warning.count("more than 8 bits") == 1 and "colour: same" in warning
    assert "more than 8 bits" in (house.outbox / "q/_pictures.yaml.warning.txt").read_text()
    made = decode_original((house.outbox / "p/a.png").read_bytes())
    assert (made.low, made.profile) == (None, b"")
    with Image.open(house.outbox / "q/c.jpg") as kept:
        assert kept.info["icc_profile"] == ADOBE


def test_a_smaller_copy_is_light_by_the_profiles_curve(house: House) -> None:
    """All 16 bits of it, and the numbers of a plain area stay."""
    lines = np.zeros((64, 64, 3), np.uint16)
    lines[:, ::2] = 65_535
    saved(house, "p/lines.tif", deep_photo(lines))
    saved(house, "p/plain.tif", deep_photo(np.full((64, 64, 3), (1234, 30_000, 65_534), np.uint16)))
    house.save("p/_pictures.yaml", "resize_to: 16\nformat: same\ncolour: same\n")
    assert house.once()
    made = numbers_in((house.outbox / "p/lines.tif").read_bytes())
    half = round(65_535 * 0.5 ** (1 / (563 / 256)))  # curv: u8Fixed8Number
    assert np.abs(made.astype(int)[4:-4, 4:-4] - half).max() <= 32
    plain = numbers_in((house.outbox / "p/plain.tif").read_bytes()).astype(int)
    assert np.abs(plain - (1234, 30_000, 65_534)).max() <= 1


@pytest.mark.parametrize("mode", ["CMYK", "L", "P"])
def test_other_modes_are_read_in_colours_that_a_result_can_have(house: House, mode: str) -> None:
    """CMYK becomes sRGB, with a word; grey and palettes are RGB."""
    file = BytesIO()
    Image.linear_gradient("L").resize((64, 48)).convert("RGB").convert(mode).save(file, "TIFF")
    saved(house, "p/a.tif", file.getvalue())
    house.save("p/_pictures.yaml", "format: same\ncolour: same\n")
    assert house.once()
    with Image.open(house.outbox / "p/a.tif") as made:
        assert (made.mode, made.info["icc_profile"]) == ("RGB", SRGB)
    says = (house.outbox / "p/_pictures.yaml.warning.txt").exists()
    assert says is (mode == "CMYK")


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_grey_with_16_bits_keeps_them(house: House, kind: str) -> None:
    photo = smooth()[..., 0]
    file = BytesIO()
    Image.fromarray(photo).save(file, kind)
    saved(house, f"p/a.{kind.lower()}", file.getvalue())
    house.save("p/_pictures.yaml", "format: png\ncolour: same\n")
    assert house.once()
    made = numbers_in((house.outbox / "p/a.png").read_bytes())
    assert (made == photo[..., None]).all()


@pytest.mark.parametrize("compression", [1, 8])
def test_16_bits_whose_channels_lie_apart_become_8_with_a_word(
    house: House, compression: int
) -> None:
    """Pillow reads no lower bytes of such a TIFF, and takes uncompressed numbers for 8 bits."""
    photo = smooth()
    planes = [photo[..., at].astype(">u2").tobytes() for at in range(3)]
    planes = [zlib.compress(plane) for plane in planes] if compression == 8 else planes
    tags = ImageFileDirectory_v2(b"MM\0*\0\0\0\x08")
    sizes, (high, wide, _) = tuple(map(len, planes)), photo.shape
    written = {256: wide, 257: high, 258: (16,) * 3, 259: compression, 262: 2, 277: 3, 278: high}
    for tag, value in (written | {279: sizes, 284: 2, 339: (1,) * 3}).items():
        tags[tag] = value
    tags[273] = (0, sizes[0], sizes[0] + sizes[1])  # from the end of the directory, for Pillow
    saved(house, "p/a.tif", b"MM\0*\0\0\0\x08" + tags.tobytes(8) + b"".join(planes))
    house.save("p/_pictures.yaml", "format: same\ncolour: same\n")
    assert house.once(), house.log()
    made = decode_original((house.outbox / "p/a.tif").read_bytes())
    assert made.low is None
    assert np.abs(np.asarray(made.picture).astype(int) - (photo >> 8)).max() <= 1
    assert "8 bits" in (house.outbox / "p/_pictures.yaml.warning.txt").read_text()


@pytest.mark.parametrize("icc", [ADOBE[:200], b"garbage" * 40, ADOBE + bytes(5_000_000)])
def test_a_profile_of_garbage_is_not_kept(house: House, icc: bytes) -> None:
    """The numbers stay, as by default."""
    photo = smooth()
    saved(house, "p/a.tif", deep_photo(photo, icc))
    house.save("p/_pictures.yaml", "format: same\ncolour: same\n")
    assert house.once()
    content = (house.outbox / "p/a.tif").read_bytes()
    assert (decode_original(content).profile, len(content) < 500_000) == (b"", True)
    assert (numbers_in(content) == photo).all()


def test_what_is_drawn_says_that_it_has_no_colours_to_keep(house: House) -> None:
    house.draw("a.png")
    house.save("b.yaml", "prompt: a star\nimage: a.png\ncolour: same\n")
    assert house.once()
    assert "colour: same has no effect here" in (house.outbox / "b.yaml.warning.txt").read_text()


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_turned_photo_is_upright_with_all_bits(turned: int, tmp_path: Path) -> None:
    """Both halves of its numbers are turned."""
    photo = RNG.integers(0, 65_536, (4, 6, 3)).astype(np.uint16)
    high, low = (Image.fromarray(part.astype(np.uint8)) for part in (photo >> 8, photo & 255))
    content = tiff(Pixels(high, low), {}, {0: {274: (3, turned)}}, b"", b"")
    made = decode_original(content)
    assert made.low
    for part, given in ((made.picture, high), (made.low, low)):
        upright = given.transpose(UPRIGHT[turned]) if turned in UPRIGHT else given
        assert (np.asarray(part) == np.asarray(upright)).all()


PROFILES = {
    "Adobe RGB": ADOBE,
    "ProPhoto RGB": profile((0.7977, 0.2880, 0.0), 1.8),
    "Display P3": profile_of({"nclx_profile": {"color_primaries": 12}}),
    "sRGB": SRGB,
}


@pytest.mark.skipif(not shutil.which("tificc"), reason="Debian's liblcms2-utils has it")
@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_become_those_of_littlecms(
    house: House, tmp_path: Path, name: str, bits: int
) -> None:
    """One step of 8 bits at most, also of dark colours, which 16 bits hold more of."""
    photo, icc = smooth(), PROFILES[name] or b""
    dark = photo // 16
    for number, numbers in enumerate((photo, dark)):
        if bits == 8:
            file = BytesIO()
            eight = Image.fromarray((numbers >> 8).astype(np.uint8))
            eight.save(file, "TIFF", icc_profile=icc)
            saved(house, f"p/{number}.tif", file.getvalue())
        else:
            saved(house, f"p/{number}.tif", deep_photo(numbers, icc))
    house.save("p/_pictures.yaml", "format: png\n")
    assert house.once()
    target = tmp_path / "srgb.icc"
    target.write_bytes(SRGB)
    for number in (0, 1):
        theirs = tmp_path / f"{number}.tif"
        given = house.inbox / f"p/{number}.tif"
        # Without -c0 it reads a table of 33 steps, which is wrong by 15 in dark colours.
        subprocess.run(
            ["tificc", "-c0", "-t1", f"-w{bits}", "-e", f"-o{target}", given, theirs],
            check=True,
            capture_output=True,
        )
        content = theirs.read_bytes()
        if bits == 16:
            expected = numbers_in(content) / 257
        else:
            expected = np.asarray(decode_original(content).picture).astype(float)
        made = decode_original((house.outbox / f"p/{number}.png").read_bytes()).picture
        assert np.abs(np.asarray(made) - expected).max() <= 1
