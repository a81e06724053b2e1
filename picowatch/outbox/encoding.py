"""Encodes pictures in the format that their file's suffix names, with their texts inside."""

import logging
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from PIL import Image, PngImagePlugin

from picowatch.files.pictures import on_white
from picowatch.metadata.texts import MAX_JPEG_EXIF_BYTES, as_utf8, exif_of
from picowatch.outbox.names import PNG, Format, format_of
from picowatch.settings import LOSSLESS, WITH_LOSSLESS, Settings

log = logging.getLogger("picowatch")

SHEET_KEYWORD = "picowatch-sheet"  # of the text that says what a contact sheet shows
# zlib's level for PNGs: 6, Pillow's default, takes 2.2 to 2.6 times as long and saves 2 to 6 %
# (benchmarks/RESULTS.md).
_COMPRESSION = 4


def encode_png(picture: Image.Image, texts: Mapping[str, str]) -> bytes:
    """Return a PNG file's bytes; the texts, by keyword, precede the image data.

    Latin-1 goes into tEXt chunks, everything else into iTXt (UTF-8).
    """
    chunks = srgb()
    for keyword, text in texts.items():
        # Pillow would put a NUL into a tEXt chunk, where it is not allowed.
        is_plain = "\0" not in text and as_utf8(text) == text
        (chunks.add_text if is_plain else chunks.add_itxt)(keyword, text)
    file = BytesIO()
    picture.save(file, "PNG", pnginfo=chunks, compress_level=_COMPRESSION)
    return file.getvalue()


def srgb() -> PngImagePlugin.PngInfo:
    """Return PNG chunks with the one that says that colours are sRGB; more may be added.

    Its rendering intent is perceptual, as for photographs: https://www.w3.org/TR/png-3/#11sRGB.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"sRGB", b"\0")
    return chunks


def encoded(
    file: str,
    picture: Image.Image,
    texts: Mapping[str, str],
    settings: Settings,
) -> bytes:
    """Encode an RGB or RGBA picture with its texts, by keyword, in the format of the file's suffix.

    No larger picture than the format allows has such a suffix.
    """
    kind = format_of(file)
    if kind is PNG:
        return encode_png(picture, texts)
    exif = exif_of(texts)
    if kind.name == "jpeg" and len(exif) > MAX_JPEG_EXIF_BYTES:  # as that of large sheets
        log.warning("%s: its texts are left out, as a JPEG has only 64 kB for them", file)
        exif = exif_of({})
    content = BytesIO()
    # Full colour resolution where there is a choice, because drawings have edges between pure
    # colours. A JPEG without `optimize`: Pillow's buffer is too small for that if it is grainy.
    (picture if kind.transparent else on_white(picture)).save(
        content, kind.pillow_name, exif=exif, subsampling="4:4:4", **_quality(kind, settings)
    )
    return content.getvalue()


def _quality(kind: Format, settings: Settings) -> dict[str, Any]:
    """Return the options for `quality`; a file of another format than the setting gets the default.

    `format` may have changed since the file's name was reserved.
    """
    quality = settings.quality
    if kind.name != settings.format or quality == "auto":
        return {"quality": kind.quality}
    if quality == LOSSLESS:
        return {"lossless": True} if kind.name in WITH_LOSSLESS else {"quality": kind.quality}
    return {"quality": quality}
