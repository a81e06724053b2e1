"""The texts in pictures, whoever wrote them: found without decoding a pixel.

Format of PNG: https://www.w3.org/TR/png-3/#5Chunk-layout, #11textinfo.
"""

import codecs
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import ExifTags, Image

from picowatch.errors import PictureUnreadable
from picowatch.files.inside import open_regular
from picowatch.files.pictures import MAX_BYTES, FewReads

PARAMETERS = "parameters"
PICOWATCH = "picowatch"

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Unpacked; what is longer is no settings, and a megabyte can be packed into a kilobyte.
MAX_TEXT_BYTES = 1024 * 1024
MAX_ALL_BYTES = 4 * MAX_TEXT_BYTES
MAX_TEXTS = 100
MAX_CHUNKS = 100_000
# A megabyte of text in UTF-16, and what else cameras write.
MAX_EXIF_BYTES = 3 * 1024 * 1024

_UNICODE = b"UNICODE\0"
_PREFIXES = (_UNICODE, b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * 8)
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# Settings are named in ASCII, whatever the prompt is written in.
_SURE_SIGNS = ("Steps: ", '": ', '":')
_UTF16 = ("utf-16-le", "utf-16-be")


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
        texts, exif = _png_texts(content)
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
    return _decoded_comment(comment) if isinstance(comment, bytes) else None


def _png_texts(content: bytes) -> tuple[dict[str, str], bytes]:
    """The texts of a PNG by keyword, and its EXIF data; no more is unpacked than the limits allow.

    From a truncated file, it returns what precedes the end.
    """
    texts: dict[str, str] = {}
    exif = b""
    for kind, body in _chunks(content):
        if kind == b"eXIf":
            exif = body
        elif kind in _READERS:
            if len(texts) == MAX_TEXTS:
                raise PictureUnreadable(f"it has more than {MAX_TEXTS} texts.")
            keyword, _, rest = body.partition(b"\0")
            name = keyword[:79].decode("latin-1")
            try:
                texts[name] = _READERS[kind](rest)
            except (zlib.error, ValueError, IndexError):
                raise PictureUnreadable(f"its text {name!r} is damaged.") from None
            if sum(map(len, texts.values())) > MAX_ALL_BYTES:
                raise PictureUnreadable(_TOO_LONG)
    return texts, exif


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of the chunks that hold texts or EXIF."""
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if len(content) < position + 12:
            return
        length, kind = struct.unpack_from(">I4s", content, position)
        start, position = position + 8, position + 12 + length
        if kind == b"IEND" or position > len(content):
            return
        if kind not in (*_READERS, b"eXIf"):
            continue
        body = content[start : start + length]
        (sum_,) = struct.unpack_from(">I", content, start + length)
        if zlib.crc32(kind + body) != sum_:
            raise PictureUnreadable(f"it is damaged: its {kind.decode()} chunk is not as written.")
        yield kind, body
    raise PictureUnreadable(f"it has more than {MAX_CHUNKS:,} chunks.")


def _plain(rest: bytes) -> str:
    return _short(rest).decode("latin-1")


def _packed(rest: bytes) -> str:
    return _unpacked(rest[1:]).decode("latin-1")


def _international(rest: bytes) -> str:
    """Whether it is packed, how, its language, the keyword in that language, the text in UTF-8."""
    is_packed = rest[0]
    _, _, text = rest[2:].split(b"\0", 2)
    return (_unpacked(text) if is_packed else _short(text)).decode("utf-8")


_TOO_LONG = "its texts are too long to be settings."
_READERS = {b"tEXt": _plain, b"zTXt": _packed, b"iTXt": _international}


def _unpacked(packed: bytes) -> bytes:
    return _short(zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES + 1))


def _short(text: bytes) -> bytes:
    if len(text) > MAX_TEXT_BYTES:
        raise PictureUnreadable(_TOO_LONG)
    return text


def _decoded_comment(comment: bytes) -> str:
    """The text of an EXIF user comment. What cannot be decoded becomes the replacement character.

    EXIF 2.32, 4.6.5: eight bytes name the encoding of what follows. Writers disagree on what
    "UNICODE" means: UTF-16 in either byte order, with or without a byte order mark, or UTF-8; and
    Fooocus writes no such bytes at all (https://github.com/lllyasviel/Fooocus,
    modules/meta_parser.py).
    """
    prefix = next((p for p in _PREFIXES if comment.startswith(p)), b"")
    return _decoded(comment[len(prefix) :], prefix == _UNICODE).rstrip("\0")


def _decoded(text: bytes, may_be_utf16: bool) -> str:
    for bom, encoding in _BOMS.items():
        if text.startswith(bom):
            return text[len(bom) :].decode(encoding, "replace")
    if b"\0" in text.rstrip(b"\0"):
        return max((text.decode(order, "replace") for order in _UTF16), key=_certainty)
    try:
        return text.decode()
    except UnicodeDecodeError:
        # UTF-16 without a single ASCII letter, or damaged text.
        return text.decode("utf-16-le" if may_be_utf16 else "utf-8", "replace")


def _certainty(text: str) -> tuple[bool, int]:
    """How likely this is the right byte order: in the wrong one, ASCII is Chinese."""
    return any(sign in text for sign in _SURE_SIGNS), sum(letter.isascii() for letter in text)
