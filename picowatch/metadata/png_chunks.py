"""What a PNG says of itself, wherever it stands in the file, without decoding pixels."""

import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any

from picowatch.files.pictures import FewReads

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS, _END = (b"IDAT", b"fdAT"), b"IEND"
_CRC_BYTES = 4


def is_png(file: IO[bytes]) -> bool:
    file.seek(0)
    return file.read(len(_SIGNATURE)) == _SIGNATURE


def without_pixels(file: IO[bytes]) -> BytesIO:
    """Return a PNG with all but its pixels, so that what stood behind them is before their place.

    Raises OSError if it has too many parts, or too large parts.
    """
    few = FewReads(file)
    few.seek(len(_SIGNATURE))
    kept = [_SIGNATURE]
    while len(start := few.read(8)) == 8:
        size, kind = struct.unpack(">L4s", start)
        if kind == _END:
            break
        if kind in _PIXELS:
            few.seek(size + _CRC_BYTES, 1)
        else:
            kept += [start, few.read(size + _CRC_BYTES)]
    return BytesIO(b"".join([*kept, *map(_empty, (_PIXELS[0], _END))]))


def _empty(kind: bytes) -> bytes:
    return struct.pack(">L4sL", 0, kind, zlib.crc32(kind))


def raw_profile(info: Mapping[Any, Any], kind: str) -> bytes:
    """Return a profile that ImageMagick or digiKam wrote as text; empty if there is none.

    The lines are an empty line, the kind, the size, and hexadecimal digits. Raises ValueError.
    """
    return bytes.fromhex("".join(str(info.get(f"Raw profile type {kind}", "")).split("\n")[3:]))
