"""Writes TIFFs, and PNGs with 16 bits, which Pillow cannot: band by band, without numpy.

Numbers of 16 bits come as two pictures, of their higher and their lower bytes. Pillow's arithmetic
of bytes makes of them what zlib compresses well: differences to the pixel on the left.
TIFF 6.0, section 14, and Adobe's Photoshop TIFF Technical Notes (2002) for Deflate; PNG (third
edition), 7.1 and 9.2.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image, ImageChops, PngImagePlugin, TiffTags

from picowatch.files.colours import SRGB
from picowatch.files.decoding import Original
from picowatch.metadata.embedded_text import exif_of
from picowatch.metadata.exif import Directory

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


def _bands(original: Original) -> Iterator[tuple[Image.Image, Image.Image | None]]:
    """Yield some rows at a time, as grey pictures in which channels stand side by side."""
    picture, low = original.picture, original.low
    rows = max(1, _BAND_PIXELS // picture.width)
    wide = picture.width * original.channels
    for top in range(0, picture.height, rows):
        box = 0, top, picture.width, min(top + rows, picture.height)
        high, size = picture.crop(box), (wide, box[3] - top)
        lower = low.crop(box) if low else None
        if lower and high.mode == "RGBA":  # transparency has 8 bits, and white is 65,535
            lower.putalpha(high.getchannel("A"))
        yield (
            Image.frombytes("L", size, high.tobytes()),
            Image.frombytes("L", size, lower.tobytes()) if lower else None,
        )


def tiff(
    original: Original, texts: Mapping[str, str], exif: Mapping[int, Directory], xmp: bytes
) -> bytes:
    """Return a TIFF's bytes, compressed without loss; its directories stand before its pixels."""
    width, height = original.picture.size
    channels, profile = original.channels, original.profile
    strips = [zlib.compress(_differences(*band, channels), _LEVEL) for band in _bands(original)]
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


def _differences(high: Image.Image, low: Image.Image | None, channels: int) -> bytes:
    """Return each number minus that of the pixel on the left."""
    if low is None:
        return _minus(high, _moved(high, channels)).tobytes()
    left = _moved(low, channels)
    borrowed = ImageChops.subtract(left, low).point(lambda more: 1 if more else 0)
    higher = _minus(_minus(high, _moved(high, channels)), borrowed)
    return Image.merge("LA", (higher, _minus(low, left))).tobytes()


def _minus(image: Image.Image, other: Image.Image) -> Image.Image:
    return ImageChops.subtract_modulo(image, other)


def _moved(rows: Image.Image, by: int) -> Image.Image:
    """Return rows whose numbers stand so much further to the right, behind zeros."""
    moved = Image.new("L", rows.size)
    moved.paste(rows.crop((0, 0, rows.width - by, rows.height)), (by, 0))
    return moved


def deep_png(
    original: Original,
    chunks: PngImagePlugin.PngInfo,
    *,
    icc_profile: bytes,
    exif: bytes = b"",
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """Return the bytes of a PNG with 16 bits; the chunks precede its pixels."""
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
    by = 2 * original.channels
    for high, low in _bands(original):
        assert low
        size = 2 * high.width, high.height
        rows = Image.frombytes("L", size, Image.merge("LA", (high, low)).tobytes())
        filtered = Image.new("L", (size[0] + 1, size[1]), _SUB)
        filtered.paste(_minus(rows, _moved(rows, by)), (1, 0))
        if packed := packer.compress(filtered.tobytes()):
            written.append(_chunk(b"IDAT", packed))
    written += [_chunk(b"IDAT", packer.flush()), _chunk(b"IEND", b"")]
    return b"".join(written)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
