"""Which texts go into a PNG, and in which kind of chunk. Writing the PNG is the outbox's."""

from collections.abc import Mapping
from dataclasses import dataclass

PARAMETERS = "parameters"
PICOWATCH = "picowatch"

# Readers take a key of this name for ComfyUI's or Easy Diffusion's.
_NEVER = "prompt"


@dataclass(frozen=True, slots=True)
class PngText:
    """A text for a PNG: Latin-1 goes into a tEXt chunk, everything else into iTXt (UTF-8)."""

    keyword: str
    text: str
    is_latin1: bool


def png_texts(texts: Mapping[str, str]) -> list[PngText]:
    """The chunks for these keywords and texts, in their order; write them before the pixels."""
    return [_png_text(keyword, text) for keyword, text in texts.items()]


def _png_text(keyword: str, text: str) -> PngText:
    if keyword.casefold() == _NEVER:
        raise ValueError(f"a PNG key called '{keyword}' is taken for another program's")
    if not 1 <= len(keyword) <= 79 or not keyword.isascii() or keyword != keyword.strip():
        raise ValueError(f"not a PNG keyword: {keyword!r}")
    return PngText(keyword, text, _is_latin1(text))


def _is_latin1(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return "\0" not in text
