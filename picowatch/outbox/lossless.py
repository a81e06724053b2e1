"""Writes TIFFs, and PNGs with 16 bits, which Pillow cannot, band by band.

zlib compresses well what stands in both: differences to the pixel on the left. numpy takes 13 MB,
and few pictures need it, so it is imported where it is used.
TIFF 6.0, section 14, and Adobe's Photoshop TIFF Technical Notes (2002) for Deflate; PNG (third
edition), 7.1 and 9.2.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from PIL import PngImagePlugin, TiffTags

from picowatch.files.colours import SRGB
from picowatch.files.decoding import Original
from picowatch.metadata.embedded_text import exif_of
from picowatch.metadata.exif import Directory

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BAND_PIXELS = 1_000_000
_LEVEL = 4  # of zlib: 6 takes twice as long, and saves a fiftieth of a photo
_DEFLATE, _RGB, _DIFFERENCES, _UNASSOCIATED = 8, 2, 2, 2
_SUB, _METRE = 1, 1  # the filter of PNG's rows, and the unit of its resolution
_COLOUR_TYPES = {"RGB": 2, "RGBA": 6}
_EXIF = b"Exif\0\0"
_TAGS = TiffTags
_XMP, _ICC = 700, 34675
_INCH = 2
# Which all TIFFs have, the photo's or 72 a unit.
_RESOLUTION = {
    282: (_TAGS.RATIONAL, 72.0), 283: (_TAGS.RATIONAL, 72.0), 296: (_TAGS.SHORT, _INCH),
}  # fmt: skip
# Pillow changes the offsets of strips, so they are written as a tag that no file has, and renamed.
_STRIPS, _INSTEAD = 273, 275
_AT = 8  # of the first directory


def _bands(original: Original) -> "Iterator[NDArray[Any]]":
    """Yield some rows at a time, as numbers of 8 or 16 bits, the higher byte first."""
    import numpy as np

    width, height = original.picture.size
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        part = original.crop((0, top, width, min(top + rows, height)))
        numbers = np.asarray(part.picture)
        if part.low:
            low = numbers.copy()  # transparency has 8 bits, and white is 65,535
            low[..., :3] = part.low
            numbers = (numbers.astype("u2") << 8 | low).astype(">u2")
        yield numbers


def _differences(numbers: "NDArray[Any]") -> "NDArray[Any]":
    """Return each number minus that of the pixel on the left, modulo what it can be."""
    import numpy as np

    differences = np.diff(numbers, axis=1, prepend=np.zeros_like(numbers[:, :1]))
    return differences.astype(numbers.dtype)


def tiff(
    original: Original, texts: Mapping[str, str], exif: Mapping[int, Directory], xmp: bytes
) -> bytes:
    """Return a TIFF's bytes, compressed without loss; its directories stand before its pixels."""
    width, height = original.picture.size
    channels, profile = original.channels, original.profile
    strips = [zlib.compress(_differences(band).tobytes(), _LEVEL) for band in _bands(original)]
    sizes = tuple(map(len, strips))
    tags: dict[int, tuple[int, Any]] = {
        256: (_TAGS.LONG, width),
        257: (_TAGS.LONG, height),
        258: (_TAGS.SHORT, (16 if original.low else 8,) * channels),
        259: (_TAGS.SHORT, _DEFLATE),
        262: (_TAGS.SHORT, _RGB),
        277: (_TAGS.SHORT, channels),
        278: (_TAGS.LONG, max(1, _BAND_PIXELS // width)),
        279: (_TAGS.LONG, sizes),
        317: (_TAGS.SHORT, _DIFFERENCES),
        _ICC: (_TAGS.UNDEFINED, profile or SRGB),
    }
    if channels == 4:
        tags[338] = _TAGS.SHORT, _UNASSOCIATED
    if xmp:
        tags[_XMP] = _TAGS.BYTE, xmp
    head = b""
    for _ in range(2):  # to learn how long the directories are, then where the strips begin
        places, at = [], len(head)
        for size in sizes:
            places.append(at)
            at += size
        main = {**_RESOLUTION, **exif.get(0, {}), **tags, _INSTEAD: (_TAGS.LONG, tuple(places))}
        head = exif_of(texts, {**exif, 0: main}, profile=profile).removeprefix(_EXIF)
    return b"".join((_with_strips(head), *strips))


def _with_strips(head: bytes) -> bytes:
    """Return a TIFF's beginning, in which the tag that stands for strips has its own number."""
    (count,) = struct.unpack_from(">H", head, _AT)
    numbers = {at: head[at : at + 2] for at in range(_AT + 2, _AT + 2 + 12 * count, 12)}
    at = next(at for at, number in numbers.items() if number == struct.pack(">H", _INSTEAD))
    return head[:at] + struct.pack(">H", _STRIPS) + head[at + 2 :]


def deep_png(
    original: Original,
    chunks: PngImagePlugin.PngInfo,
    *,
    icc_profile: bytes,
    exif: bytes = b"",
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """Return the bytes of a PNG with 16 bits; the chunks precede its pixels."""
    import numpy as np

    width, height = original.picture.size
    kind = _COLOUR_TYPES[original.picture.mode]
    per_metre = [round(dots / 0.0254) for dots in dpi or ()]
    written = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        _chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile)),
        *([_chunk(b"pHYs", struct.pack(">IIB", *per_metre, _METRE))] if dpi else []),
        *(_chunk(chunk[0], chunk[1]) for chunk in chunks.chunks),
        *([_chunk(b"eXIf", exif.removeprefix(_EXIF))] if exif else []),
    ]
    packer = zlib.compressobj(strategy=zlib.Z_RLE)
    for band in _bands(original):
        rows = _differences(band.view("u1")).reshape(len(band), -1)
        if packed := packer.compress(np.insert(rows, 0, _SUB, axis=1).tobytes()):
            written.append(_chunk(b"IDAT", packed))
    written += [_chunk(b"IDAT", packer.flush()), _chunk(b"IEND", b"")]
    return b"".join(written)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
