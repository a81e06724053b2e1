"""Users' pictures: decoded alike everywhere, or refused with a message."""

import hashlib
import os
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image, ImageCms

from picowatch.errors import PictureUnreadable
from picowatch.files import looking, pictures
from picowatch.files.colours import ADOBE
from picowatch.files.decoding import decode_mask, decode_original, decode_picture, decode_with_alpha
from picowatch.files.looking import look
from picowatch.files.pictures import USUAL_PIXELS, check_picture, picture_size
from picowatch.files.safe_paths import sha256_of
from tests.fault_points import preceded_by, wrap
from tests.pictures import encoded

pillow_heif.register_heif_opener()
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
QUARTERS = {(8, 8): RED, (24, 8): GREEN, (8, 24): BLUE, (24, 24): WHITE}  # by their middles


def quarters(mode: str = "RGB") -> Image.Image:
    picture = Image.new("RGB", (32, 32))
    for (x, y), colour in QUARTERS.items():
        picture.paste(colour, (x - 8, y - 8, x + 8, y + 8))
    return picture.convert(mode)


def near(picture: Image.Image, place: tuple[int, int], colour: tuple[int, ...]) -> bool:
    found = picture.getpixel(place)
    assert isinstance(found, tuple)
    return all(abs(a - b) <= 6 for a, b in zip(found, colour, strict=True))


def is_quarters(picture: Image.Image) -> bool:
    assert picture.mode == "RGB"
    return all(near(picture, middle, colour) for middle, colour in QUARTERS.items())


KINDS: list[tuple[str, str, dict[str, Any]]] = [
    *(("PNG", mode, {}) for mode in ("RGB", "P", "RGBA")),
    *(("JPEG", mode, {"quality": 95}) for mode in ("RGB", "CMYK")),
    *(("TIFF", mode, {}) for mode in ("RGB", "CMYK")),
    ("GIF", "P", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("AVIF", "RGB", {"quality": 95}),
    ("BMP", "RGB", {}),
    *(("HEIF", mode, {"quality": 95}) for mode in ("RGB", "RGBA")),
]


@pytest.mark.parametrize(("kind", "mode", "options"), KINDS)
def test_every_kind_of_picture_is_read(kind: str, mode: str, options: dict[str, Any]) -> None:
    """It becomes 8-bit RGB."""
    assert is_quarters(decode_picture(encoded(quarters(mode), kind, **options)))


T = Image.Transpose
TURNS = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE}
TURNS |= {6: T.ROTATE_90, 7: T.TRANSVERSE, 8: T.ROTATE_270}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(orientation: int) -> None:
    """Phones store the sensor's orientation; a size that is read before decoding is upright."""
    turn = TURNS.get(orientation)
    stored = quarters() if turn is None else quarters().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert is_quarters(decode_picture(encoded(stored, "JPEG", exif=exif, quality=95)))
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "HEIF"):
        content = encoded(Image.new("RGB", (24, 8)), kind, exif=exif)
        assert picture_size(BytesIO(content)) == decode_picture(content).size


def test_transparent_pixels_are_white_in_a_picture_and_black_in_a_mask() -> None:
    """Half-transparent ones are in between."""
    picture = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 128))
    picture.putpixel((2, 0), (255, 255, 255, 255))
    content = encoded(picture)
    assert [decode_picture(content).getpixel((x, 0)) for x in (0, 2)] == [WHITE, WHITE]
    assert near(decode_picture(content), (1, 0), (127, 127, 127))
    assert [decode_mask(content).getpixel((x, 0)) for x in range(3)] == [0, 0, 255]
    palette = quarters("P")  # as in old GIFs and small PNGs
    content = encoded(palette, transparency=palette.getpixel((0, 0)))
    assert near(decode_picture(content), (8, 8), WHITE)
    assert near(decode_picture(content), (24, 8), GREEN)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_pictures_are_masks(mode: str) -> None:
    """Pixels may have one bit, eight, or transparency."""
    grey = Image.new("L", (2, 1))
    grey.putpixel((1, 0), 255)
    mask = decode_mask(encoded(grey.convert(mode)))
    assert [mask.getpixel((x, 0)) for x in range(2)] == [0, 255]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is in /proc")
def test_a_large_mask_without_transparency_takes_few_bytes_a_pixel(tmp_path: Path) -> None:
    """A bitonal one of 40 megapixels is a file of kilobytes."""
    Image.new("1", (8_000, 5_000), 1).save(tmp_path / "mask.png")
    code = """
import re, sys
from pathlib import Path
from picowatch.files.decoding import decode_mask
peak = lambda: int(re.search("VmHWM:.*?([0-9]+)", Path("/proc/self/status").read_text())[1])
before = peak()
decode_mask(Path(sys.argv[1]).read_bytes())
print(peak() - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "mask.png")]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert taken < 8 * 40_000  # KiB


@pytest.mark.parametrize(
    ("brightest", "kind"),
    [
        *((1.0, np.float32), (255.0, np.float32), (65535.0, np.float32)),
        *((65535, np.int32), (65535, np.uint16)),
    ],
)
def test_grey_in_more_than_8_bits_is_scaled_and_not_cut(brightest: float, kind: type) -> None:
    """In depth maps and masks of other programs, white may be 1, 255 or 65535."""
    shares = np.linspace(0, 1, 64, dtype=np.float64).reshape(1, 64).repeat(8, axis=0)
    content = encoded(Image.fromarray((shares * brightest).astype(kind)), "TIFF")
    check_picture(BytesIO(content))
    for decoded in (decode_picture(content).convert("L"), decode_mask(content)):
        assert np.abs(np.asarray(decoded) - shares * 255).max() <= 1


def animated(kind: str) -> bytes:
    blue = Image.new("RGB", (32, 32), BLUE)
    return encoded(quarters(), kind, save_all=True, append_images=[blue])


def huge(side: int) -> bytes:
    content = encoded(quarters(), "BMP")
    return content[:18] + struct.pack("<ii", side, side) + content[26:]


KINDS_WITH_FRAMES = ("GIF", "WEBP", "AVIF", "PNG", "TIFF")
NO_PICTURES = [b"", b"not a picture", b"<svg></svg>", b"%PDF-1.4", bytes(100)]
OF_FLOATS = {ExifTags.Base.SampleFormat: (3, 3, 3)}  # for colours, which Pillow does not read
REFUSED: dict[str, list[bytes]] = {
    r"a TIFF that is not whole, or not read, .* 32 bits a channel\. Export it again, with 8": [
        encoded(quarters(), "TIFF", tiffinfo=OF_FLOATS),
        encoded(quarters(), "TIFF", compression="tiff_lzw")[:-20],
    ],
    r"It has [\w ,]+ million pixels; the limit is 1000 m": [*map(huge, (32_000, 90_000))],
    r"not a picture that can be read\. Readable formats: PNG": NO_PICTURES,
    r"animated or has several pages\. Save the frame": [*map(animated, KINDS_WITH_FRAMES)],
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_used_is_refused_in_words(words: str) -> None:
    """By its header: no pixel is decoded."""
    for content in REFUSED[words]:
        with pytest.raises(PictureUnreadable, match=words):
            decode_picture(content)


def test_a_huge_file_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 2_000_000)
    with pytest.raises(PictureUnreadable, match=r"It has 3 MB; the limit is 2 MB\."):
        decode_picture(bytes(3_000_000))


def test_a_photo_with_a_preview_behind_it_is_the_photo() -> None:
    """Sony, Nikon, Panasonic and Apple write such JPEGs."""
    preview = Image.new("RGB", (8, 8), BLUE)
    content = encoded(quarters(), "MPO", save_all=True, append_images=[preview])
    assert picture_size(BytesIO(content)) == (32, 32)
    check_picture(BytesIO(content))
    photo = encoded(quarters(), "JPEG")
    assert decode_picture(content).tobytes() == decode_picture(photo).tobytes()


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Its tags of red and green have each other's names.
SWAPPED = SRGB.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")

GREY = ADOBE.replace(b"RGB ", b"GRAY", 1).replace(b"rTRC", b"kTRC")  # its power makes dark darker


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_the_colours_are_those_of_srgb(mode: str) -> None:
    """Numbers are read with their profile; with a useless one, they stay."""
    strong = Image.new("RGB", (8, 8), (200, 100, 50)).convert(mode)
    for profile, expected in [
        (SWAPPED, (100, 200, 50)),
        (SRGB, (200, 100, 50)),
        (SWAPPED[:200], (200, 100, 50)),
    ]:
        content = encoded(strong, icc_profile=profile)
        assert near(decode_picture(content), (4, 4), expected)
        picture = decode_with_alpha(content)
        assert near(picture, (4, 4), expected) and picture.mode == "RGB"
    grey = encoded(strong.convert("L"), icc_profile=SWAPPED)
    assert near(decode_picture(grey), (4, 4), (124, 124, 124))


@pytest.mark.parametrize(
    ("space", "file", "icc", "meant"),
    [
        (65_535, "R03", b"", (200, 64, 48)),
        (2, "", b"", (200, 64, 48)),
        (1, "R03", b"", (173, 66, 52)),
        (65_535, "R98", b"", (173, 66, 52)),
        (65_535, "R03", SRGB, (173, 66, 52)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_adobe_rgb_by_exif_becomes_srgb(
    kind: str, space: int, file: str, icc: bytes, meant: tuple[int, int, int]
) -> None:
    """Cameras write no profile; where there is one, it counts."""
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {0xA001: space, ExifTags.IFD.Interop: {1: file}}
    photo = Image.new("RGB", (8, 8), (173, 66, 52))
    options = {"quality": 100, "subsampling": "4:4:4"} if kind == "JPEG" else {}
    content = encoded(photo, kind, exif=exif, icc_profile=icc or None, **options)
    found = np.asarray(decode_picture(content)).astype(int)
    assert np.abs(found - meant).max() <= 2, found[4, 4]
    own = decode_original(content)
    assert np.abs(np.asarray(own.picture).astype(int) - (173, 66, 52)).max() <= 2
    assert own.profile == (icc or (ADOBE if meant[0] == 200 else b""))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_transparency_is_read_with_its_profile(kind: str) -> None:
    grey = Image.new("L", (8, 8), 10)
    clear = Image.merge("LA", [grey, Image.new("L", (8, 8), 99)])
    opaque, found, by_number = (
        decode_with_alpha(encoded(picture, kind, icc_profile=GREY, **options))
        for picture, options in ((grey, {}), (clear, {}), (grey, {"transparency": 10}))
    )
    assert (opaque.mode, found.mode) == ("RGB", "RGBA")
    assert opaque.getpixel((4, 4)) == (3, 3, 3)
    assert found.convert("RGB").tobytes() == opaque.tobytes()
    assert found.getchannel("A").getextrema() == (99, 99)
    if kind == "PNG":
        assert by_number.getpixel((4, 4)) == (3, 3, 3, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "HEIF"])
def test_a_picture_that_breaks_off_is_refused(kind: str) -> None:
    """It may end anywhere; a half-copied file is never a half-grey start image."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    whole = encoded(noise, kind)
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(PictureUnreadable):
            decode_picture(whole[: int(len(whole) * share)])


# The same colours in sRGB and, by CSS Color 4's matrices, in Display P3 and Rec. 2020; code points.
WIDE = {12: ((200, 64, 48), (185, 74, 57)), 9: ((200, 64, 48), (166, 83, 57))}


@pytest.mark.parametrize("primaries", WIDE)
@pytest.mark.parametrize("bits", [8, 10])
def test_wide_colours_of_a_heic_become_srgb(primaries: int, bits: int) -> None:
    """Without an ICC profile its code points say which colours they are; 10 bits become 8."""
    meant, stored = WIDE[primaries]
    deep = np.full((32, 32, 3), np.array(stored) * 257, np.uint16)
    picture = pillow_heif.from_bytes("RGB;16", (32, 32), deep.tobytes())
    if bits == 8:
        picture = pillow_heif.from_pillow(Image.new("RGB", (32, 32), stored))
    file = BytesIO()
    codes = {"color_primaries": primaries, "transfer_characteristics": 13}
    picture.save(file, quality=98, chroma=444, matrix_coefficients=6, full_range_flag=1, **codes)
    found = np.asarray(decode_picture(file.getvalue())).astype(int)
    assert np.abs(found - meant).max() <= 2, found[9, 9]


@pytest.mark.parametrize("primaries", WIDE)
def test_wide_colours_of_an_avif_become_srgb(primaries: int) -> None:
    """By its code points, as Android writes it; a profile beside them counts before them."""
    meant, stored = WIDE[primaries]
    picture = Image.new("RGB", (32, 32), stored)
    options = {"quality": 98, "subsampling": "4:4:4"}
    found = np.asarray(decode_picture(with_points(encoded(picture, "AVIF", **options), primaries)))
    assert np.abs(found.astype(int) - meant).max() <= 2, found[9, 9]
    own = with_points(encoded(picture, "AVIF", icc_profile=SRGB, **options), primaries)
    assert np.abs(np.asarray(decode_picture(own)).astype(int) - stored).max() <= 2
    with pytest.raises(PictureUnreadable, match=r"HDR picture .* Export it as JPEG"):
        check_picture(BytesIO(with_points(encoded(picture, "AVIF"), primaries, 16)))


def with_points(avif: bytes, primaries: int, transfer: int = 13) -> bytes:
    """Return an AVIF that names its colours by these code points (ITU-T H.273)."""
    head, box, rest = avif.partition(b"colrnclx")
    return head + box + struct.pack(">HH", primaries, transfer) + rest[4:]


def test_without_its_package_a_heic_is_told_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """An AVIF and a film begin alike."""
    heic = encoded(quarters(), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureUnreadable, match=r"pip install 'picowatch-diffusion\[heic\]'"):
        check_picture(BytesIO(heic))
    check_picture(BytesIO(encoded(quarters(), "AVIF")))
    with pytest.raises(PictureUnreadable, match="not a picture"):
        check_picture(BytesIO(b"\0\0\0\x20ftypisom" + bytes(99)))


# -- photos of cameras' sizes are checked without the daemon's memory


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the questions that processes are asked; all pictures are large."""
    monkeypatch.setattr(pictures, "SMALL_PIXELS", dict.fromkeys(pictures.SMALL_PIXELS, 0))
    found: list[str] = []
    note = preceded_by(lambda question, _: found.append(question))
    wrap("picowatch.files.looking:_asked", note, monkeypatch.setattr)
    return found


def test_a_process_answers_as_the_daemon_does(tmp_path: Path, asked: list[str]) -> None:
    """A photo that was checked is not checked again until it is saved again."""
    path = tmp_path / "a.png"
    picture = Image.new("RGBA", (20, 10), (255, 255, 255, 128))
    picture.paste((0, 0, 0, 255), (0, 0, 5, 10))
    picture.save(path)
    for _ in range(2):
        with path.open("rb") as file:
            assert look("check", file, USUAL_PIXELS) is None
            assert look("greys_of_alpha", file, USUAL_PIXELS)[0] == 50
            assert sum(look("greys_of_mask", file, USUAL_PIXELS)) == 200
    others = ["greys_of_alpha", "greys_of_mask"]
    assert asked == ["check", *others, *others]
    os.utime(path, (1, 1))
    with path.open("rb") as file:
        look("check", file, USUAL_PIXELS)
    assert asked[-1] == "check"


def test_a_file_reads_the_same_after_a_process_has_looked(tmp_path: Path, asked: list[str]) -> None:
    """The process moves the position that both share, unnoticed by a buffer of the daemon's."""
    path = tmp_path / "a.bmp"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    with path.open("rb") as file:
        look("check", file, USUAL_PIXELS)
        assert sha256_of(file) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert asked == ["check"]


def test_damage_and_too_many_pixels_are_told_alike(tmp_path: Path, asked: list[str]) -> None:
    """The limit is the setting's; a picture beyond it is not decoded."""
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    with path.open("rb") as file, pytest.raises(PictureUnreadable, match="It is damaged: "):
        look("check", file, USUAL_PIXELS)
    words = r"It has 1 million pixels; the limit is 0.004 million\. .*, or raise max_photo_megap"
    with path.open("rb") as file, pytest.raises(PictureUnreadable, match=words):
        look("check", file, 4000)
    assert asked == ["check"]


def test_a_process_without_memory_is_an_answer(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_BYTES_BESIDE", 1000)
    path = tmp_path / "a.png"
    Image.new("RGB", (900, 900)).save(path)
    with path.open("rb") as file, pytest.raises(PictureUnreadable, match="too much memory"):
        look("check", file, USUAL_PIXELS)
