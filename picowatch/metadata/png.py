"""The texts of a PNG, whoever wrote it: how they are found and decoded.

Format: https://www.w3.org/TR/png-3/#5Chunk-layout, #11textinfo. Pillow writes PNGs: outbox/png.py.
"""

import codecs
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from picowatch.errors import PictureUnreadable

PARAMETERS = "parameters"
PICOWATCH = "picowatch"

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Unpacked; what is longer is no settings, and a megabyte can be packed into a kilobyte.
MAX_TEXT_BYTES = 1024 * 1024
MAX_ALL_BYTES = 4 * MAX_TEXT_BYTES
MAX_TEXTS = 100
MAX_CHUNKS = 100_000

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


@dataclass(frozen=True, slots=True)
class FoundInPng:
    """The texts of a PNG by keyword, and its EXIF data, empty if it has none."""

    texts: dict[str, str]
    exif: bytes


def found_in_png(content: bytes) -> FoundInPng:
    """What a PNG says of itself; no pixel is decoded, and no more unpacked than its limits.

    From a truncated file, it returns what precedes the end. Raises PictureUnreadable.
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
    return FoundInPng(texts, exif)


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


def decoded_comment(comment: bytes) -> str:
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
