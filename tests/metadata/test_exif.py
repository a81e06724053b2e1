"""EXIF is read within limits; values are of types that their tags have."""

import struct
from io import BytesIO
from typing import Any

import pytest
from PIL import ExifTags, Image, TiffTags

from picowatch.metadata.embedded_text import exif_of, texts_in_exif
from picowatch.metadata.exif import EXIF_TYPES, MAX_KEPT_BYTES, Directory, read_exif, without_places

TAGS = ExifTags.Base
# Bytes of a value, by its type; 0, 99 and 129 are no types.
SIZES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
    0: 1, 99: 1, 129: 1,
}  # fmt: skip

MAIN = [
    *(TAGS.ImageDescription, TAGS.Make, TAGS.XResolution, TAGS.YResolution, TAGS.ResolutionUnit),
    *(TAGS.DateTime, TAGS.Artist, TAGS.Copyright, TAGS.Rating, TAGS.XPTitle, 0xFDE8),
]
Tags = dict[int, tuple[int, bytes]]


def tiff(main: Tags, exif: Tags) -> bytes:
    """Return EXIF with tags of any types and bytes."""
    start = 8 + 2 + 12 * (len(main) + 1) + 4
    directory, more = written(main, start)
    place = start + len(more)
    inner, values = written(exif, place + 2 + 12 * len(exif) + 4)
    pointer = struct.pack(">HHLL", TAGS.ExifOffset, 4, 1, place)
    count = struct.pack(">H", len(main) + 1)
    head = b"MM\0*\0\0\0\x08" + count + directory + pointer + bytes(4)
    return head + more + struct.pack(">H", len(exif)) + inner + bytes(4) + values


def written(tags: Tags, place: int) -> tuple[bytes, bytes]:
    entries, values = b"", b""
    for tag, (kind, content) in sorted(tags.items()):
        count = len(content) // SIZES[kind]
        if len(content) <= 4:
            entries += struct.pack(">HHL4s", tag, kind, count, content)
        else:
            entries += struct.pack(">HHLL", tag, kind, count, place + len(values))
            values += content
    return entries, values


def read(main: Tags, exif: Tags) -> tuple[dict[int, Directory], list[str]]:
    return read_exif(BytesIO(tiff(main, exif)))


def test_values_are_converted_to_what_their_tags_have() -> None:
    main: Tags = {TAGS.XResolution: (3, struct.pack(">H", 300)), TAGS.Make: (7, b"Canon\0")}
    third = struct.pack(">LL", 1, 3)
    exif: Tags = {
        TAGS.ExposureTime: (5, third),
        TAGS.LensModel: (1, b"50 mm"),
        TAGS.FNumber: (3, b"\0\2"),
    }
    directories, _ = read(main, exif)
    values = {**directories[0], **directories[ExifTags.IFD.Exif]}
    assert {ExifTags.TAGS[tag]: value for tag, (_, value) in values.items()} == {
        "XResolution": 300, "Make": "Canon", "ExposureTime": pytest.approx(1 / 3),
        "LensModel": "50 mm", "FNumber": 2,
    }  # fmt: skip


def test_values_that_cannot_be_of_their_tags_are_lost() -> None:
    """Each alone, and by name; a picture with them can be opened."""
    found, lost = read(
        {TAGS.XResolution: (2, b"many\0"), TAGS.Model: (2, b"EOS R5\0")},
        {TAGS.FNumber: (7, b"wide"), TAGS.ISOSpeedRatings: (2, b"fast\0")},
    )
    assert sorted(lost) == ["FNumber", "ISOSpeedRatings", "XResolution"]
    content = BytesIO()
    Image.new("RGB", (8, 8)).save(content, "JPEG", exif=exif_of({}, found))
    with Image.open(content) as picture:
        assert picture.getexif()[TAGS.Model] == "EOS R5"


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_value_of_any_type_gives_a_picture_without_a_warning(kind: int, count: int) -> None:
    """Whatever its tag is; Pillow warns of numbers that are too many."""
    for content in (bytes(SIZES[kind] * count), b"\xff" * SIZES[kind] * count):
        found, _ = read(*(dict.fromkeys(tags, (kind, content)) for tags in (MAIN, EXIF_TYPES)))
        exif = exif_of({}, found)
        file = BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif)
        with Image.open(file) as picture:
            tags = picture.getexif()
            said = {**tags, **tags.get_ifd(ExifTags.IFD.Exif)}
        _, lost = read_exif(BytesIO(exif.removeprefix(b"Exif\0\0")))
        assert not lost
        assert {tag for tags in found.values() for tag in tags} <= said.keys()


def test_what_is_too_large_is_left_out() -> None:
    """Not a maker's notes, which are never kept."""
    large = (7, b"x" * (MAX_KEPT_BYTES - 100))
    found, lost = read(
        {TAGS.ImageDescription: (2, b"x" * 200), TAGS.Model: (2, b"EOS R5\0")},
        {TAGS.MakerNote: large, TAGS.DeviceSettingDescription: large},
    )
    assert lost == ["DeviceSettingDescription"]
    assert found[0].keys() == {TAGS.ImageDescription, TAGS.Model}


def test_several_numbers_are_written_where_another_directory_has_one() -> None:
    """Without a warning, which Pillow has for JPEGProc."""
    found, lost = read({}, {512: (3, b"\0\1\0\1")})
    assert found[ExifTags.IFD.Exif] == {512: (3, (1, 1))} and not lost
    assert exif_of({}, found)


def test_pillow_looks_for_no_resolution_in_a_jpegs_exif() -> None:
    """It would decode millions of numbers; its method is private and may get another name."""
    exif = tiff({TAGS.XResolution: (5, struct.pack(">LL", 300, 1))}, {})
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=b"Exif\0\0" + exif)
    with Image.open(file) as picture:
        assert "exif" in picture.info and "dpi" not in picture.info


def test_places_on_the_ground_are_places() -> None:
    """As GPS, a GeoTIFF's tie points say where each pixel is."""
    points: Any = (TiffTags.DOUBLE, (0.0, 0.0, 0.0, 11.5, 48.1, 0.0))
    model: Any = {TAGS.Model: (TiffTags.ASCII, "FC6310")}
    photo: dict[int, Directory] = {0: {33922: points, **model}}
    photo[ExifTags.IFD.GPSInfo] = {1: (TiffTags.ASCII, "N")}
    assert without_places(photo) == {0: model}


@pytest.mark.parametrize("kind", [5, 12, 3])
def test_millions_of_numbers_are_no_settings(kind: int) -> None:
    exif = tiff({TAGS.Model: (kind, bytes(2_000_000))}, {TAGS.UserComment: (kind, bytes(800_000))})
    assert texts_in_exif(b"Exif\0\0" + exif) == {}
