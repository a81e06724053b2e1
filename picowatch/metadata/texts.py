"""The texts in pictures, whoever wrote them: found without decoding a pixel."""

import os
import warnings
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import IO, cast

from PIL import Image, PngImagePlugin

from picowatch.errors import PictureUnreadable
from picowatch.files.inside import open_regular
from picowatch.files.pictures import MAX_BYTES, FewReads, refuse_many_segments
from picowatch.metadata.exif import texts_in_exif

PICOWATCH = "picowatch"

_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
# Start images in BMP, GIF and TIFF: no program writes its settings there.
_WITHOUT_TEXTS = (b"BM", b"GIF8", b"II*\0", b"MM\0*")
# Pillow reads no more of these than their beginning; the other formats whole.
_READ_IN_PIECES = (b"\x89PNG", b"\xff\xd8")
MAX_CHARACTERS = 4 * 1024 * 1024
# What Pillow keeps of a PNG's texts, where each character may take four bytes.
PngImagePlugin.MAX_TEXT_MEMORY = 4 * MAX_CHARACTERS


def read_texts(path: Path) -> dict[str, str]:
    """The texts of a picture by keyword; raises PictureUnreadable."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return texts_in(file)
    except FileNotFoundError as error:
        raise PictureUnreadable(f"There is no file {path}.") from error
    except OSError as error:
        raise PictureUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    except PictureUnreadable as error:
        raise PictureUnreadable(f"{path}: {error.message}", error.remedy) from error


def texts_of(content: bytes) -> dict[str, str]:
    """`texts_in` a picture's bytes."""
    return texts_in(BytesIO(content))


def texts_in(file: IO[bytes]) -> dict[str, str]:
    """The texts in a picture by keyword; those of a PNG stand before its pixels.

    An EXIF user comment, where A1111 puts its text in JPEGs and WebPs, is under "parameters".
    Raises PictureUnreadable.
    """
    size = file.seek(0, SEEK_END)
    file.seek(0)
    start = file.read(4)
    if start.startswith(_WITHOUT_TEXTS):
        return {}
    if size > MAX_BYTES and not start.startswith(_READ_IN_PIECES):
        raise PictureUnreadable(f"it has more than {MAX_BYTES / 1e6:.0f} MB.")
    refuse_many_segments(file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(cast(IO[bytes], FewReads(file)), formats=_FORMATS) as image:
                info, is_png = dict(image.info), image.format == "PNG"
        except Image.DecompressionBombError as error:
            raise PictureUnreadable("it has too many pixels.") from error
        # Pillow's readers raise whatever they stumble over: struct.error, IndexError, TypeError…
        except Exception as error:
            raise PictureUnreadable(
                "it is not a picture that can be read.", "PNG, JPEG, WebP and AVIF can."
            ) from error
    texts = texts_in_exif(info.get("exif"))
    for keyword, value in info.items() if is_png else ():
        if isinstance(value, str) and value:
            is_utf8 = isinstance(value, PngImagePlugin.iTXt)
            texts[str(keyword)] = str(value) if is_utf8 else as_utf8(value)
    if sum(map(len, texts.values())) > MAX_CHARACTERS:
        raise PictureUnreadable("its texts are too long to be settings.")
    return texts


def as_utf8(text: str) -> str:
    """Read as UTF-8 what is it, although tEXt is Latin-1: Stability Matrix writes it so."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
