"""The texts of pictures that are no PNGs: written as EXIF, and read back from it.

A1111's text is the user comment, in the very form in which A1111 writes it (`UNICODE`, a NUL,
UTF-16 with the most significant byte first), which Civitai and sd-parsers read. Any other text
stands in MakerNote, after its keyword and a colon: the place for what only the maker understands
(EXIF 2.32, 4.6.5), so readers ignore it and no photo program shows JSON as a caption. ComfyUI
keeps its texts in the same form, but as the names of a camera:
https://github.com/comfyanonymous/ComfyUI, comfy_extras/nodes_images.py.

A JPEG has 64 kB for EXIF. Texts that are too long for that follow in comment segments, each of
them after the keyword and a colon; then only picowatch finds them.
"""

import codecs
import struct
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import ExifTags, Image

PARAMETERS = "parameters"
KEYWORDS = ("picowatch", "picowatch-sheet")

# A megabyte of text in UTF-16, and what else cameras write.
MAX_EXIF_BYTES = 3 * 1024 * 1024
# A segment's length has 16 bits and counts itself (ITU T.81, B.1.1.4).
MAX_SEGMENT_BYTES = 65_533

_COMFYUIS = ("prompt", "workflow")
_COMFYUI_TAGS = (ExifTags.Base.Model, ExifTags.Base.Make, ExifTags.Base.ImageDescription)

_EXIF = b"Exif\0\0"
_HEADER = b"MM\0*" + struct.pack(">I", 8)
_ENTRY = struct.Struct(">HHI4s")  # tag, type, count, value or its offset
_SHORT, _LONG, _UNDEFINED = 3, 4, 7
_VERSION = b"0232"
_SRGB = 1

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


def exif_of(texts: Mapping[str, str]) -> bytes:
    """The texts by keyword, "parameters" and at most one other, as EXIF data; sRGB, too.

    Written by hand, so that types, order and bytes are A1111's and always the same.
    """
    values = [(ExifTags.Base.ExifVersion, _UNDEFINED, _VERSION)]
    values += [
        (ExifTags.Base.MakerNote, _UNDEFINED, f"{keyword}:{text}".encode())
        for keyword, text in texts.items()
        if keyword != PARAMETERS
    ]
    if PARAMETERS in texts:
        comment = _UNICODE + texts[PARAMETERS].encode("utf-16-be")
        values.append((ExifTags.Base.UserComment, _UNDEFINED, comment))
    values.append((ExifTags.Base.ColorSpace, _SHORT, struct.pack(">HH", _SRGB, 0)))
    first = _directory([(ExifTags.IFD.Exif, _LONG, struct.pack(">I", 26))], 8)
    return _EXIF + _HEADER + first + _directory(values, len(_HEADER) + len(first))


def _directory(values: Iterable[tuple[int, int, bytes]], offset: int) -> bytes:
    """A directory of the TIFF structure that stands at `offset`, its long values after it."""
    values = list(values)
    entries, long_values = b"", b""
    start = offset + 2 + len(values) * _ENTRY.size + 4
    for tag, kind, value in values:
        count = len(value) if kind == _UNDEFINED else 1
        if len(value) > 4:
            entries += _ENTRY.pack(tag, kind, count, struct.pack(">I", start + len(long_values)))
            long_values += value + b"\0" * (len(value) % 2)
        else:
            entries += _ENTRY.pack(tag, kind, count, value)
    return struct.pack(">H", len(values)) + entries + bytes(4) + long_values


def fitting_into_jpeg(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts that fit into a JPEG's EXIF data. What other programs read comes first."""
    fitting: dict[str, str] = {}
    for keyword in sorted(texts, key=lambda keyword: keyword != PARAMETERS):
        if len(exif_of({**fitting, keyword: texts[keyword]})) <= MAX_SEGMENT_BYTES:
            fitting[keyword] = texts[keyword]
    return fitting


def comment_segments(texts: Mapping[str, str]) -> bytes:
    """Segments of a JPEG that hold the texts, each as many as it needs (ITU T.81, B.2.4.5)."""
    segments = b""
    for keyword, text in texts.items():
        mark, content = f"{keyword}:".encode(), text.encode()
        room = MAX_SEGMENT_BYTES - len(mark)
        for start in range(0, len(content), room):
            piece = mark + content[start : start + room]
            segments += b"\xff\xfe" + struct.pack(">H", 2 + len(piece)) + piece
    return segments


def texts_in_exif(exif: bytes) -> dict[str, str]:
    """The texts by keyword; damaged EXIF is as if there were none.

    The user comment belongs in the Exif IFD. Fooocus writes it beside that, as text.
    """
    if not exif or len(exif) > MAX_EXIF_BYTES:
        return {}
    tags = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tags.load(exif)
            inner = tags.get_ifd(ExifTags.IFD.Exif)
            comment = inner.get(ExifTags.Base.UserComment) or tags.get(ExifTags.Base.UserComment)
            note = inner.get(ExifTags.Base.MakerNote)
            names = [tags.get(tag) for tag in _COMFYUI_TAGS]
        except Exception:  # Pillow's readers raise whatever they stumble over
            return {}
    texts = {} if not _bytes(comment) else {PARAMETERS: _decoded_comment(_bytes(comment))}
    texts |= _keyed([_bytes(name) for name in names], _COMFYUIS)
    return texts | _keyed([_bytes(note)], KEYWORDS)


def texts_in_comments(comments: Iterable[bytes]) -> dict[str, str]:
    """The texts that did not fit into a JPEG's EXIF data, from its comment segments."""
    return _keyed(comments, (PARAMETERS, *KEYWORDS))


def _keyed(values: Iterable[bytes], keywords: Iterable[str]) -> dict[str, str]:
    """The texts that stand after one of these keywords and a colon, pieces joined."""
    found: dict[str, bytes] = {}
    for value in values:
        mark, colon, piece = value.partition(b":")
        for keyword in keywords:
            if colon and mark == keyword.encode():
                found[keyword] = found.get(keyword, b"") + piece
    return {keyword: text.decode("utf-8", "replace") for keyword, text in found.items()}


def _bytes(value: Any) -> bytes:
    """A tag's value; Pillow decodes texts, as Latin-1."""
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    return value if isinstance(value, bytes) else b""


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
