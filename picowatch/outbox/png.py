"""PNG files with texts."""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from PIL import Image, PngImagePlugin

SHEET_KEYWORD = "picowatch-sheet"  # of the text in which a contact sheet says what it shows
# zlib's level: 6, Pillow's own, takes 2.2 to 2.6 times as long for 2 to 6 % less
# (benchmarks/RESULTS.md).
_COMPRESSION = 4


class _Parts(BytesIO):
    """Pillow writes to it part by part: `go_on` may raise between two of them."""

    def __init__(self, go_on: Callable[[], None]) -> None:
        super().__init__()
        self._go_on = go_on

    def write(self, part: Any) -> int:
        self._go_on()
        return super().write(part)


def encode_png(
    picture: Image.Image, texts: Mapping[str, str], go_on: Callable[[], None] = lambda: None
) -> bytes:
    """A PNG file's bytes; the texts by keyword precede the image data.

    Latin-1 goes into tEXt chunks, everything else into iTXt (UTF-8). `go_on` is called repeatedly
    meanwhile; what it raises ends the writing.
    """
    chunks = srgb()
    for keyword, text in texts.items():
        _check_keyword(keyword)
        # Pillow would put a NUL into a tEXt chunk, where it is not allowed.
        (chunks.add_itxt if "\0" in text else chunks.add_text)(keyword, text)
    file = _Parts(go_on)
    picture.save(file, "PNG", pnginfo=chunks, compress_level=_COMPRESSION)
    return file.getvalue()


def srgb() -> PngImagePlugin.PngInfo:
    """The chunk that says what the numbers of a picture mean; more may be added.

    Its rendering intent is perceptual, as for photographs: https://www.w3.org/TR/png-3/#11sRGB.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"sRGB", b"\0")
    return chunks


def _check_keyword(keyword: str) -> None:
    """Readers take `prompt` for ComfyUI's or Easy Diffusion's."""
    is_plain = keyword.isascii() and keyword == keyword.strip()
    if keyword.casefold() == "prompt" or not is_plain or not 1 <= len(keyword) <= 79:
        raise ValueError(f"not a PNG keyword of ours: {keyword!r}")
