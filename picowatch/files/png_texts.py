"""Limits for the texts of PNGs, and for their colour profiles: what is too long is left out.

Pillow refuses the whole picture, also for one compressed text of more than a megabyte, and counts
none that it drops because it has no name, is damaged, or is no UTF-8.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from PIL import PngImagePlugin
from PIL.PngImagePlugin import PngStream

MAX_BYTES = 16 * 1024 * 1024  # of all texts of a file, decompressed
LEFT_OUT = "texts left out"  # in what Pillow says of a picture
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_BYTES


def _limited(read: Callable[[PngStream, int, int], bytes]) -> Any:
    """Return a reader of chunks of one kind that leaves out what is too long."""

    def chunk(png: PngStream, position: int, length: int) -> bytes:
        before = png.text_memory
        with suppress(ValueError):  # beyond the limits
            if before + length <= MAX_BYTES:
                content = read(png, position, length)
                if png.text_memory == before:  # of a thousand bytes, zlib makes one at best
                    png.text_memory += min(MAX_BYTES // 8, 1000 * length)
                return content
        png.im_info[LEFT_OUT], png.text_memory = True, MAX_BYTES
        assert png.fp is not None
        png.fp.seek(position)
        return png.fp.read(length)

    return chunk


for _kind in ("chunk_tEXt", "chunk_zTXt", "chunk_iTXt", "chunk_iCCP"):
    setattr(PngStream, _kind, _limited(getattr(PngStream, _kind)))
