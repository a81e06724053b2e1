"""The text of an EXIF user comment, whichever way it was written.

EXIF 2.32, 4.6.5: eight bytes name the encoding of what follows. Writers disagree on what
"UNICODE" means: UTF-16 in either byte order, with or without a byte order mark, or UTF-8; and
Fooocus writes no such bytes at all (https://github.com/lllyasviel/Fooocus, modules/meta_parser.py).
"""

import codecs

_UNICODE = b"UNICODE\0"
_PREFIXES = (_UNICODE, b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * 8)
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# Settings are named in ASCII, whatever the prompt is written in.
_SURE_SIGNS = ("Steps: ", '": ', '":')


def decoded_comment(comment: bytes) -> str:
    """The text. What cannot be decoded becomes the replacement character."""
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


_UTF16 = ("utf-16-le", "utf-16-be")


def _certainty(text: str) -> tuple[bool, int]:
    """How likely this is the right byte order: in the wrong one, ASCII is Chinese."""
    return any(sign in text for sign in _SURE_SIGNS), sum(letter.isascii() for letter in text)
