"""Encodes pictures in the format that their file's suffix names, with their texts inside."""

import logging
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from PIL import Image, PngImagePlugin

from picowatch.files.pictures import on_white
from picowatch.metadata.texts import MAX_JPEG_EXIF_BYTES, XMP_KEYWORD, as_utf8, exif_of
from picowatch.outbox.names import PNG, Format, format_of
from picowatch.outbox.photo_metadata import (
    MAX_JPEG_XMP_BYTES,
    NONE,
    PhotoMetadata,
    mark_in,
    marked,
)
from picowatch.settings import LOSSLESS, WITH_LOSSLESS, Settings

log = logging.getLogger("picowatch")

SHEET_KEYWORD = "picowatch-sheet"  # of the text that says what a contact sheet shows
# zlib's level for PNGs: 6, Pillow's default, takes 2.2 to 2.6 times as long and saves 2 to 6 %
# (benchmarks/RESULTS.md).
_COMPRESSION = 4
AUTO = "auto"


def encode_png(
    picture: Image.Image, texts: Mapping[str, str], photo: PhotoMetadata = NONE
) -> bytes:
    """Return a PNG file's bytes; the texts, by keyword, precede the image data.

    Latin-1 goes into tEXt chunks, everything else into iTXt (UTF-8).
    """
    chunks = chunks_of(photo)
    for keyword, text in texts.items():
        # Pillow would put a NUL into a tEXt chunk, where it is not allowed.
        is_plain = "\0" not in text and as_utf8(text) == text
        (chunks.add_text if is_plain else chunks.add_itxt)(keyword, text)
    exif = {"exif": exif_of({}, photo.exif)} if photo.exif else {}
    file = BytesIO()
    picture.save(file, "PNG", pnginfo=chunks, compress_level=_COMPRESSION, **exif)
    return file.getvalue()


def chunks_of(photo: PhotoMetadata) -> PngImagePlugin.PngInfo:
    """Return PNG chunks: that colours are sRGB, and the photo's XMP. More may be added.

    Its rendering intent is perceptual, as for photographs: https://www.w3.org/TR/png-3/#11sRGB.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"sRGB", b"\0")
    if photo.xmp:
        chunks.add_itxt(XMP_KEYWORD, photo.xmp)
    return chunks


def encoded(
    file: str,
    picture: Image.Image,
    texts: Mapping[str, str],
    settings: Settings,
    *,
    quality: str | int = "",
    photo: PhotoMetadata = NONE,
) -> bytes:
    """Encode an RGB or RGBA picture with its texts, by keyword, in the format of the file's suffix.

    `quality` is the recipe's, "" for the setting. No larger picture than the format allows has such
    a suffix.
    """
    kind = format_of(file)
    if kind is PNG:
        return encode_png(picture, texts, photo)
    exif = exif_of(texts, photo.exif)
    if kind.name == "jpeg":
        exif, photo = _in_jpeg(file, exif, texts, photo)
    content = BytesIO()
    # Full colour resolution where there is a choice, because drawings have edges between pure
    # colours. A JPEG without `optimize`: Pillow's buffer is too small for that if it is grainy.
    (picture if kind.transparent else on_white(picture)).save(
        content,
        kind.pillow_name,
        exif=exif,
        subsampling="4:4:4",
        **({"xmp": photo.xmp.encode()} if photo.xmp else {}),
        **_quality(kind, quality, settings),
    )
    return content.getvalue()


def _in_jpeg(
    file: str, exif: bytes, texts: Mapping[str, str], photo: PhotoMetadata
) -> tuple[bytes, PhotoMetadata]:
    """Return what fits into a JPEG's segments of 64 kB, one for EXIF and one for XMP."""
    if len(exif) > MAX_JPEG_EXIF_BYTES and photo.exif:
        log.warning("%s: the photo's EXIF is left out, as a JPEG has only 64 kB for it", file)
        exif = exif_of(texts)
    if len(exif) > MAX_JPEG_EXIF_BYTES:  # as that of large sheets
        log.warning("%s: its texts are left out, as a JPEG has only 64 kB for them", file)
        exif = exif_of({})
    if len(photo.xmp.encode()) > MAX_JPEG_XMP_BYTES:
        log.warning("%s: the photo's XMP is left out, as a JPEG has only 64 kB for it", file)
        photo = marked(NONE, mark_in(photo.xmp))
    return exif, photo


def _quality(kind: Format, wanted: str | int, settings: Settings) -> dict[str, Any]:
    """Return the options for `quality`: the recipe's, or the setting for the setting's format.

    The setting `format` may have changed since the file's name was reserved.
    """
    quality = wanted or (settings.quality if kind.name == settings.format else AUTO)
    if quality == LOSSLESS and kind.name in WITH_LOSSLESS:
        return {"lossless": True}
    return {"quality": quality if isinstance(quality, int) else kind.quality}
