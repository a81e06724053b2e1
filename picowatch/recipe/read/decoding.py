"""Bytes to text: UTF-8 or UTF-16 with a byte order mark, any line ending, nothing invisible."""

import codecs
import re
import string

from picowatch.recipe.messages.problems import Problems, refuse
from picowatch.recipe.written import FORBIDDEN, Position, Source, invisible

MAX_BYTES = 1024 * 1024
_BLANK = re.compile(r"^[ \t]+$", re.MULTILINE)


def is_empty(content: bytes) -> bool:
    """Return whether a file has only a byte order mark and white space: it is not ready yet."""
    return not content.decode(_encoding(content), "replace").strip(string.whitespace)


def decode(name: str, content: bytes) -> Source:
    """Return the text of a file, with "\\n" as its line ends.

    Raises RecipeInvalid for a file over 1 MiB, for any other encoding (with the first bad
    byte's line and column), and for characters that nobody can see.
    """
    if len(content) > MAX_BYTES:
        refuse(
            Position(Source(name, ""), 1, 1),
            f"the file is too long: a recipe may have up to {MAX_BYTES:,} bytes. Split it into "
            "several files.",
        )
    encoding = _encoding(content)
    try:
        # Some programs end a text with NUL or with DOS' end-of-file character; joined files have
        # byte order marks inside; editors leave tabs on otherwise empty lines.
        text = unix_line_ends(content.decode(encoding).rstrip("\0\x1a")).replace("\n\ufeff", "\n")
        source = Source(name, _BLANK.sub("", text))
    except UnicodeDecodeError as error:
        whole = unix_line_ends(content.decode(encoding, "backslashreplace"))
        refuse(*_bad_byte(Source(name, whole), encoding, error))
    _refuse_invisible(source)
    return source


def unix_line_ends(text: str) -> str:
    """Return the text with "\\n" for every line break."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _encoding(content: bytes) -> str:
    """Return the encoding by the byte order mark; UTF-32's begins like UTF-16's."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if is_utf16 and not content.startswith(codecs.BOM_UTF32_LE) else "utf-8-sig"


def _bad_byte(source: Source, encoding: str, error: UnicodeDecodeError) -> tuple[Position, str]:
    before = unix_line_ends(error.object[: error.start].decode(encoding))
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    what, width = "this is incomplete UTF-16, although the file begins like it", 1
    if encoding == "utf-8-sig":
        what, width = f"the byte {error.object[error.start]:#04x} is not UTF-8", 4
    message = f"{what}. Save it as UTF-8 (most editors: Save As, Encoding)."
    return Position(source, line, column, width), message


def _refuse_invisible(source: Source) -> None:
    problems = Problems()
    for number, line in enumerate(source.lines, 1):
        if problems.is_full:
            break
        if found := FORBIDDEN.search(line):
            position = Position(source, number, found.start() + 1)
            problems.add(position, f"{invisible(found[0])} is not allowed in a recipe. Delete it.")
    problems.raise_if_any()
