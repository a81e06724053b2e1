"""Bytes to text: UTF-8, UTF-8 with BOM, UTF-16 with BOM; any line ending; nothing invisible."""

import codecs
import re
import unicodedata

from picowatch.recipe.messages.problems import Problems
from picowatch.recipe.written import Position, Source

MAX_BYTES = 1024 * 1024

_UTF16_BOMS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_UTF32_BOMS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)

# Controls other than tab and line break, what YAML and Unicode count as further line breaks
# (lines would be counted differently than an editor counts them), and non-characters.
_HIDDEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff"
FORBIDDEN = re.compile(f"[{_HIDDEN}]")
NEVER_IN_NAMES = re.compile(f"[\t\n{_HIDDEN}]")


def is_empty(content: bytes) -> bool:
    """Whether a file holds nothing but a byte order mark and white space: not ready yet."""
    for bom, encoding in (*_UTF16_BOMS.items(), (codecs.BOM_UTF8, "utf-8")):
        if content.startswith(bom):
            return not content[len(bom) :].decode(encoding, "replace").strip()
    return not content.strip()


def decode(name: str, content: bytes) -> Source:
    """The text of a file, its lines ended by "\\n" alone.

    Raises RecipeInvalid for a file over 1 MiB, for any other encoding (with the first bad
    byte's line and column), and for characters that nobody can see.
    """
    _refuse_too_long(name, content)
    bom, encoding = _encoding(content)
    body = content[len(bom) :]
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        _refuse_byte(name, body, encoding, error)
        raise AssertionError("unreachable") from error
    source = Source(name, text.replace("\r\n", "\n").replace("\r", "\n"))
    _refuse_invisible(source)
    return source


def _encoding(content: bytes) -> tuple[bytes, str]:
    if content.startswith(codecs.BOM_UTF8):
        return codecs.BOM_UTF8, "utf-8"
    if not content.startswith(_UTF32_BOMS):
        for bom, encoding in _UTF16_BOMS.items():
            if content.startswith(bom):
                return bom, encoding
    return b"", "utf-8"


def _refuse_too_long(name: str, content: bytes) -> None:
    if len(content) > MAX_BYTES:
        _refuse(
            Position(Source(name, ""), 1, 1),
            f"the file is too long: a recipe may have up to {MAX_BYTES:,} bytes. Split it into "
            "several files.",
        )


def _refuse_byte(name: str, body: bytes, encoding: str, error: UnicodeDecodeError) -> None:
    before = body[: error.start].decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    whole = body.decode(encoding, "backslashreplace").replace("\r\n", "\n").replace("\r", "\n")
    if encoding == "utf-8":
        what = f"the byte {body[error.start]:#04x} is not UTF-8. Save it as UTF-8"
    else:
        what = "this is incomplete UTF-16, although the file begins like it. Save it as UTF-8"
    _refuse(
        Position(Source(name, whole), line, column, 4 if encoding == "utf-8" else 1),
        f"{what} (most editors: Save As, Encoding).",
    )


def _refuse_invisible(source: Source) -> None:
    problems = Problems()
    for number, line in enumerate(source.lines, 1):
        found = FORBIDDEN.search(line)
        if problems.is_full:
            break
        if found:
            position = Position(source, number, found.start() + 1)
            problems.add(position, f"{invisible(found[0])} is not allowed in a recipe. Delete it.")
    problems.raise_if_any()


def invisible(character: str) -> str:
    """How a character that cannot be seen is called in a message."""
    code = f"U+{ord(character):04X}"
    if character == "\0":
        return f"the NUL character ({code})"
    name = unicodedata.name(character, "")
    return f"the invisible character {code}" + (f" ({name.lower()})" if name else "")


def _refuse(position: Position, message: str) -> None:
    problems = Problems()
    problems.add(position, message)
    problems.raise_if_any()
