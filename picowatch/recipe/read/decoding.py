"""Bytes to text: UTF-8, UTF-16 or Windows-1252, any line ending, nothing invisible."""

import codecs
import re
import string
from contextlib import suppress

from picowatch.recipe.messages.problems import Problems, refuse, shown
from picowatch.recipe.written import FORBIDDEN, Position, Source, invisible

MAX_BYTES = 1024 * 1024
MAX_LINES = 40_000
_READ_AS = "{} is not UTF-8: it was read as {}. If letters are wrong, save it as UTF-8."
_GUESSED = {"cp1252": "Windows-1252", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}
_UTF8_LETTER = re.compile(rb"[\xc3-\xf4][\x80-\xbf]")
_BLANK = re.compile(r"^[ \t]+$", re.MULTILINE)


def is_empty(content: bytes) -> bool:
    """Return whether a file has only a byte order mark and white space: it is not ready yet."""
    return not content.decode(_encoding(content), "replace").strip(string.whitespace)


def decode(name: str, content: bytes) -> Source:
    """Return the text of a file, with "\\n" as its line ends.

    What has no mark and is neither UTF-8 nor UTF-16 is Windows-1252, with a warning. Raises
    RecipeInvalid for a file over 1 MiB or MAX_LINES, for any other encoding (with the first bad
    byte's line and column), and for characters that nobody can see.
    """
    if len(content) > MAX_BYTES:
        what = f"the file is too long: a recipe may have up to {MAX_BYTES:,} bytes."
        refuse(Position(Source(name, ""), 1, 1), f"{what} Split it into several files.")
    text, encoding = _decoded(name, content)
    # Some programs end a text with NUL or with DOS' end-of-file character; joined files have
    # byte order marks inside; editors leave tabs on otherwise empty lines.
    text = unix_line_ends(text.rstrip("\0\x1a")).replace("\n\ufeff", "\n")
    if text.count("\n") > MAX_LINES:
        what = f"the file has more than {MAX_LINES:,} lines. Split it into several files."
        refuse(Position(Source(name, ""), 1, 1), what)
    guessed = _GUESSED.get(encoding, "")
    source = Source(name, _BLANK.sub("", text), guessed and _READ_AS.format(shown(name), guessed))
    problems = Problems()
    for number, line in enumerate(source.lines, 1):
        if found := FORBIDDEN.search(line):
            position = Position(source, number, found.start() + 1)
            problems.add(position, f"{invisible(found[0])} is not allowed in a recipe. Delete it.")
    problems.raise_if_any()
    return source


def _decoded(name: str, content: bytes) -> tuple[str, str]:
    """Return the text, and the encoding. RecipeInvalid if there is none."""
    encoding = _encoding(content)
    try:
        return content.decode(encoding), encoding
    except UnicodeDecodeError as error:
        # UTF-8 with a damaged byte would be read as Windows-1252, too, and wrongly.
        if encoding == "utf-8-sig" and not _UTF8_LETTER.search(content):
            with suppress(UnicodeDecodeError):
                return content.decode("cp1252"), "cp1252"
        source = Source(name, unix_line_ends(content.decode(encoding, "backslashreplace")))
        before = unix_line_ends(error.object[: error.start].decode(encoding))
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        what, width = "this is incomplete UTF-16, although the file begins like it", 1
        if encoding == "utf-8-sig":
            what, width = f"the byte {error.object[error.start]:#04x} is not UTF-8", 4
        message = f"{what}. Save it as UTF-8 (most editors: Save As, Encoding)."
        refuse(Position(source, line, column, width), message)


def unix_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _encoding(content: bytes) -> str:
    """Return the encoding by the byte order mark, or by the zeros, half of the bytes in UTF-16."""
    if content.startswith(codecs.BOM_UTF32_LE):  # which begins as UTF-16's does
        return "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(content) % 2 or content.count(0) <= len(content) // 4:
        return "utf-8-sig"
    return {(True, False): "utf-16-be", (False, True): "utf-16-le"}.get(
        (content[0] == 0, content[1] == 0), "utf-8-sig"
    )
