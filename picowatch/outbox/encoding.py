"""Encodes pictures in the format that their file's suffix names, with their texts inside.

Pillow writes none with 16 bits: TIFFs and such PNGs are written here, band by band, as differences
to the pixel on the left, which zlib compresses well. numpy takes 13 MB, so it is imported where it
is used. TIFF 6.0, section 14, and Adobe's Photoshop TIFF Technical Notes (2002) for Deflate; PNG
(third edition), 7.1 and 9.2.

An encoder takes up to 15 bytes for each pixel, which is a gigabyte for a photo of 61 megapixels.
So large pictures are encoded in a process of their own, whose memory ends with it.
"""

import json
import logging
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from logging.handlers import BufferingHandler
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin, TiffTags

from picowatch.files.colours import SRGB
from picowatch.files.decoding import Original, in_srgb, on_white
from picowatch.files.looking import APART, program
from picowatch.metadata.embedded_text import XMP_KEYWORD, as_utf8, exif_of
from picowatch.metadata.exif import MAX_JPEG_EXIF_BYTES, Directory, shortened
from picowatch.metadata.xmp import Xmp
from picowatch.outbox.names import PNG, TIFF, format_of
from picowatch.outbox.photo_metadata import MAX_JPEG_XMP_BYTES, NONE, PhotoMetadata
from picowatch.settings.settings import WITH_LOSSLESS
from picowatch.settings.values import LOSSLESS

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("picowatch")

SHEET_KEYWORD = "picowatch-sheet"  # of the text that says what a contact sheet shows
AUTO = "auto"
THUMBNAIL_SIDE = 384  # the longer side in pixels: sharp in rows of 190 on a dense display
_BAND_PIXELS = 1_000_000
_LEVEL = 4  # of zlib: 6 takes twice as long, and saves a fiftieth of a photo
_DEFLATE, _RGB, _DIFFERENCES, _UNASSOCIATED = 8, 2, 2, 2
_SUB, _METRE = 1, 1  # the filter of PNG's rows, and the unit of its resolution
_COLOUR_TYPES = {"RGB": 2, "RGBA": 6}
_EXIF = b"Exif\0\0"
_XMP, _ICC = 700, 34675
_INCH = 2
# Which all TIFFs have, the photo's or 72 a unit.
_RESOLUTION = {
    282: (TiffTags.RATIONAL, 72.0), 283: (TiffTags.RATIONAL, 72.0), 296: (TiffTags.SHORT, _INCH),
}  # fmt: skip
# Pillow changes the offsets of strips, so they are written as a tag that no file has, and renamed.
_STRIPS, _INSTEAD = 273, 275
_AT = 8  # of the first directory


@dataclass(frozen=True, slots=True)
class How:
    """How a picture's `file` is written: its texts by keyword, photo metadata and `quality`."""

    file: str
    texts: Mapping[str, str]
    quality: str | int = AUTO
    photo: PhotoMetadata = NONE

    def encode(self, original: Original) -> bytes:
        """Encode a picture in the format of the file's suffix, with an ICC profile in any case.

        No larger picture than the format allows has such a suffix. PNG and TIFF hold 16 bits.
        """
        kind, photo = format_of(self.file), self.photo
        picture, profile = original.picture, original.profile
        if kind is PNG:
            return encode_png(original, self.texts, photo)
        if kind is TIFF:
            return tiff(original, self.texts, photo.exif, photo.xmp.encode())
        exif = exif_of(self.texts, photo.exif, profile=profile)
        if kind.name == "jpeg":
            exif, photo = _in_jpeg(self.file, exif, self.texts, photo, profile)
        is_lossless = self.quality == LOSSLESS and kind.name in WITH_LOSSLESS
        number = self.quality if isinstance(self.quality, int) else kind.quality
        content = BytesIO()
        # Full colour resolution where there is a choice, because drawings have edges between pure
        # colours. A JPEG without `optimize`: Pillow's buffer is too small for that if it is grainy.
        (picture if kind.transparent else on_white(picture)).save(
            content,
            kind.name.upper(),
            exif=exif,
            icc_profile=profile or SRGB,
            subsampling="4:4:4",
            **({"xmp": photo.xmp.encode()} if photo.xmp else {}),
            **_resolution(photo),
            **({"lossless": True} if is_lossless else {"quality": number}),
        )
        return content.getvalue()


def encode_png(original: Original, texts: Mapping[str, str], photo: PhotoMetadata = NONE) -> bytes:
    """Return a PNG file's bytes; the texts, by keyword, precede the image data."""
    chunks = PngImagePlugin.PngInfo()
    if photo.xmp:
        chunks.add_itxt(XMP_KEYWORD, photo.xmp)
    for keyword, text in texts.items():
        # What is Latin-1. Pillow would put a NUL into a tEXt chunk, where it is not allowed.
        is_plain = "\0" not in text and as_utf8(text) == text
        (chunks.add_text if is_plain else chunks.add_itxt)(keyword, text)
    more = _resolution(photo)
    if photo.exif:
        more["exif"] = exif_of({}, photo.exif, profile=original.profile)
    more["icc_profile"] = original.profile or SRGB
    if original.low:
        return deep_png(original, chunks, **more)
    file = BytesIO()
    # Runs of bytes only: in filtered rows zlib finds hardly anything else (benchmarks/RESULTS.md).
    original.picture.save(file, "PNG", pnginfo=chunks, compress_type=zlib.Z_RLE, **more)
    return file.getvalue()


def shrink(picture: Image.Image) -> Image.Image:
    """Return a thumbnail for the gallery, in sRGB; this changes `picture`."""
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small = in_srgb(picture)
    small.info.pop("icc_profile", None)
    return small


def _in_jpeg(
    file: str, exif: bytes, texts: Mapping[str, str], photo: PhotoMetadata, profile: bytes
) -> tuple[bytes, PhotoMetadata]:
    """Return what fits into a JPEG's segments of 64 kB, one for EXIF and one for XMP."""
    if len(exif) > MAX_JPEG_EXIF_BYTES and photo.exif:
        log.warning("%s: the longest of the photo's EXIF is left out: a JPEG has only 64 kB", file)
        room = MAX_JPEG_EXIF_BYTES - len(exif_of(texts))
        exif = exif_of(texts, shortened(photo.exif, room), profile=profile)
    if len(exif) > MAX_JPEG_EXIF_BYTES:  # as that of large sheets
        log.warning("%s: its texts are left out, as a JPEG has only 64 kB for them", file)
        exif = exif_of({}, profile=profile)
    if len(photo.xmp.encode()) > MAX_JPEG_XMP_BYTES:
        log.warning("%s: the longest of the photo's XMP is left out: a JPEG has only 64 kB", file)
        xmp = Xmp(photo.xmp)
        xmp.shorten(MAX_JPEG_XMP_BYTES)
        photo = replace(photo, xmp=xmp.packet())
    return exif, photo


def _resolution(photo: PhotoMetadata) -> dict[str, Any]:
    return {"dpi": photo.dots_per_inch} if photo.dots_per_inch else {}


# -- TIFFs, and PNGs with 16 bits


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
        256: (TiffTags.LONG, width),
        257: (TiffTags.LONG, height),
        258: (TiffTags.SHORT, (16 if original.low else 8,) * channels),
        259: (TiffTags.SHORT, _DEFLATE),
        262: (TiffTags.SHORT, _RGB),
        277: (TiffTags.SHORT, channels),
        278: (TiffTags.LONG, max(1, _BAND_PIXELS // width)),
        279: (TiffTags.LONG, sizes),
        317: (TiffTags.SHORT, _DIFFERENCES),
        _ICC: (TiffTags.UNDEFINED, profile or SRGB),
    }
    if channels == 4:
        tags[338] = TiffTags.SHORT, _UNASSOCIATED
    if xmp:
        tags[_XMP] = TiffTags.BYTE, xmp
    head = b""
    for _ in range(2):  # to learn how long the directories are, then where the strips begin
        places, at = [], len(head)
        for size in sizes:
            places.append(at)
            at += size
        main = {**_RESOLUTION, **exif.get(0, {}), **tags, _INSTEAD: (TiffTags.LONG, tuple(places))}
        head = exif_of(texts, {**exif, 0: main}, profile=profile).removeprefix(_EXIF)
    wrong, right = struct.pack(">H", _INSTEAD), struct.pack(">H", _STRIPS)
    # The tags' numbers stand in the directory, each 12 bytes after the one before.
    at = next(at for at in range(_AT + 2, len(head), 12) if head[at : at + 2] == wrong)
    return b"".join((head[:at], right, head[at + 2 :], *strips))


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


# -- in a process of its own, which unpickles what the daemon sends; that reads JSON and bytes


def encode_apart(decode: Callable[[], Original], how: How) -> tuple[Image.Image, bytes]:
    """Return a small picture for the gallery, and the file's bytes. MemoryError if it failed."""
    process = subprocess.Popen(program(__name__), stdin=subprocess.PIPE, **APART)
    assert process.stdin and process.stdout
    try:
        with process:  # its end writes what is buffered
            pickle.dump((decode, how), process.stdin)  # pixels, too, which it does not copy
            process.stdin.close()
            mode, size, length, words = json.loads(process.stdout.readline())
            small, content = process.stdout.read(length), process.stdout.read()
    except (OSError, ValueError) as error:
        raise MemoryError("the process that encodes it has ended") from error
    for said in words:
        log.warning("%s", said)
    return Image.frombytes(mode, size, small), content


def main() -> None:
    """Encode what stands in the standard input."""
    kept = BufferingHandler(1000)  # lines; a picture has one or two
    log.addHandler(kept)
    log.propagate = False
    decode, how = pickle.load(sys.stdin.buffer)
    decoded = decode()
    content = how.encode(decoded)
    small = shrink(decoded.picture)
    thumbnail = small.tobytes()
    words = [record.getMessage() for record in kept.buffer]
    told = json.dumps([small.mode, small.size, len(thumbnail), words])
    sys.stdout.buffer.writelines((told.encode(), b"\n", thumbnail, content))
