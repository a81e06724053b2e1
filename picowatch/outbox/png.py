"""PNG files with metadata: written from RGB bytes, read back for their texts."""

import os
import warnings
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

from picowatch.errors import PictureUnreadable
from picowatch.files.inside import open_regular
from picowatch.files.pictures import MAX_BYTES, FewReads
from picowatch.metadata import PARAMETERS, found_in_png
from picowatch.metadata.png import SIGNATURE, decoded_comment

SHEET_KEYWORD = "picowatch-sheet"  # of the text in which a contact sheet says what it shows
# zlib's level: 6, Pillow's own, takes 2.2 to 2.6 times as long for 2 to 6 % less
# (benchmarks/RESULTS.md).
_COMPRESSION = 4
# A megabyte of text in UTF-16, and what else cameras write.
MAX_EXIF_BYTES = 3 * 1024 * 1024


class _Parts(BytesIO):
    """Pillow writes to it part by part: `go_on` may raise between two of them."""

    def __init__(self, go_on: Callable[[], None]) -> None:
        super().__init__()
        self._go_on = go_on

    def write(self, part: Any) -> int:
        self._go_on()
        return super().write(part)


def encode_png(
    width: int,
    height: int,
    pixels: bytes,
    texts: Mapping[str, str],
    go_on: Callable[[], None] = lambda: None,
) -> bytes:
    """A PNG file's bytes; `pixels` are RGB triples, the texts by keyword precede the image data.

    Latin-1 goes into tEXt chunks, everything else into iTXt (UTF-8). `go_on` is called repeatedly
    meanwhile; what it raises ends the writing.
    """
    image = Image.frombytes("RGB", (width, height), pixels)
    chunks = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        _check_keyword(keyword)
        # Pillow would put a NUL into a tEXt chunk, where it is not allowed.
        (chunks.add_itxt if "\0" in text else chunks.add_text)(keyword, text)
    file = _Parts(go_on)
    image.save(file, "PNG", pnginfo=chunks, compress_level=_COMPRESSION)
    return file.getvalue()


def _check_keyword(keyword: str) -> None:
    """Readers take `prompt` for ComfyUI's or Easy Diffusion's."""
    is_plain = keyword.isascii() and keyword == keyword.strip()
    if keyword.casefold() == "prompt" or not is_plain or not 1 <= len(keyword) <= 79:
        raise ValueError(f"not a PNG keyword of ours: {keyword!r}")


def encode_enlarged(width: int, height: int, pixels: bytes, scale: int) -> bytes:
    """A PNG file's bytes of the pixels, each so many times as wide and as high, smoothly."""
    image = Image.frombytes("RGB", (width, height), pixels)
    image = image.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def read_texts(path: Path) -> dict[str, str]:
    """The texts of a picture by keyword; raises PictureUnreadable."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return texts_of(file.read(MAX_BYTES + 1))
    except FileNotFoundError as error:
        raise PictureUnreadable(f"There is no file {path}.") from error
    except OSError as error:
        raise PictureUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    except PictureUnreadable as error:
        raise PictureUnreadable(f"{path}: {error.message}", error.remedy) from error


def texts_of(content: bytes) -> dict[str, str]:
    """The texts in a picture's bytes by keyword; no pixel is decoded.

    An EXIF user comment, where A1111 puts its text in JPEGs and WebPs, is under
    "parameters". Raises PictureUnreadable.
    """
    if len(content) > MAX_BYTES:
        raise PictureUnreadable(f"it has more than {MAX_BYTES / 1e6:.0f} MB.")
    if content.startswith(SIGNATURE):
        found = found_in_png(content)
        texts, exif = found.texts, found.exif
    else:
        texts, exif = {}, _exif_of(content)
    comment = _user_comment(exif)
    return texts if comment is None else {PARAMETERS: comment, **texts}


def _exif_of(content: bytes) -> bytes:
    """A JPEG's or WebP's EXIF data; empty if it has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the number of pixels does not matter here
        try:
            with Image.open(FewReads(content), formats=("JPEG", "WEBP")) as image:
                exif = image.info.get("exif", b"")
        # Pillow's readers raise whatever they stumble over: struct.error, IndexError, TypeError…
        except Exception as error:
            raise PictureUnreadable(
                "it is not a picture that can be read.", "PNG, JPEG and WebP can."
            ) from error
    return exif if isinstance(exif, bytes) else b""


def _user_comment(exif: bytes) -> str | None:
    """The text of an EXIF user comment; damaged EXIF is as if there were none.

    It belongs in the Exif IFD. Fooocus writes it beside that, as text.
    """
    if not exif or len(exif) > MAX_EXIF_BYTES:
        return None
    tags = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tags.load(exif)
            comment = tags.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
            if not comment:
                comment = tags.get(ExifTags.Base.UserComment)
        except Exception:  # Pillow's readers raise whatever they stumble over
            return None
    if isinstance(comment, str):
        comment = comment.encode("latin-1", "replace")  # as Pillow decodes it
    return decoded_comment(comment) if isinstance(comment, bytes) else None
