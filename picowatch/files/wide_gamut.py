"""Colour profiles: sRGB's, and those of photos that only name their colours.

HEICs and AVIFs do so by the code points of ITU-T H.273, cameras in EXIF (DCF 2.0, CIPA DC-009). The
profile's format is ICC.1:2022.
"""

import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from PIL import ExifTags, Image

_PQ, _HLG = 16, 18  # transfer characteristics
# The primaries in XYZ under D50, by their code points: sRGB, Rec. 2020, and Display P3.
_PRIMARIES = {
    1: ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
    9: ((0.67348, 0.27904, -0.00194), (0.16566, 0.67535, 0.02998), (0.12505, 0.04561, 0.79686)),
    12: ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
}
SRGB_PRIMARIES = _PRIMARIES[1]
# Adobe RGB (1998) Color Image Encoding, version 2005-05: primaries under D50, and the power.
_ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
_ADOBE_CURVE = (563 / 256,)
_ADOBE_SPACE, _OTHER_SPACE, _ADOBE_FILE = 2, 65_535, "R03"  # as EXIF says it
_MOST_EXIF_BYTES = 65_535  # cameras write it into a JPEG's segment
_D50 = (0.9642, 1.0, 0.8249)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_HEADER_BYTES, _ROW_BYTES = 128, 12
_COLOURS = b"colrnclx"  # the box with code points (ISO/IEC 14496-12, 12.1.5)
_BOX_WITHIN = 64 * 1024  # bytes at the beginning of an AVIF, before its pixels


def code_points(avif: IO[bytes]) -> dict[str, int]:
    """Return the code points that an AVIF begins with, as pillow-heif tells those of a HEIC."""
    avif.seek(0)
    box = avif.read(_BOX_WITHIN).partition(_COLOURS)[2]
    if len(box) < struct.calcsize(">HH"):
        return {}
    primaries, transfer = struct.unpack_from(">HH", box)
    return {"color_primaries": primaries, "transfer_characteristics": transfer}


def is_hdr(info: Mapping[Any, Any]) -> bool:
    """Return whether a picture's brightness reaches beyond white, by what Pillow tells of it."""
    return _nclx(info, "transfer_characteristics") in (_PQ, _HLG)


def profile_of(info: Mapping[Any, Any]) -> bytes | None:
    """Return an ICC profile for wide primaries; None for all others."""
    code = _nclx(info, "color_primaries")
    names = {9: "Rec. 2020 primaries, sRGB curve", 12: "Display P3"}
    if code in names:
        return _profile(_PRIMARIES[code], names[code])
    return ADOBE if _is_adobe(info.get("exif") or b"") else None


def _is_adobe(exif: bytes) -> bool:
    """Return whether EXIF says that the colours are those of Adobe RGB (1998)."""
    if len(exif) > _MOST_EXIF_BYTES:
        return False
    with suppress(Exception):  # Pillow's reader raises whatever it stumbles over
        tags = Image.Exif()
        tags.load(exif)
        space = tags.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        file = tags.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
        return space == _ADOBE_SPACE or (space == _OTHER_SPACE and file == _ADOBE_FILE)
    return False


def _profile(
    primaries: tuple[tuple[float, ...], ...], name: str, curve: tuple[float, ...] = _SRGB_CURVE
) -> bytes:
    """Return a display's ICC profile, with sRGB's curve or a power."""
    stored_curve = b"para\0\0\0\0" + struct.pack(">HH", 3 if len(curve) > 1 else 0, 0)
    stored_curve += _numbers(curve)
    tags = {b"desc": _text(name), b"cprt": _text("No copyright"), b"wtpt": _xyz(_D50)}
    for letter, primary in zip(b"rgb", primaries, strict=True):
        tags |= {bytes([letter]) + b"XYZ": _xyz(primary), bytes([letter]) + b"TRC": stored_curve}
    begin, rows, stored = _HEADER_BYTES + 4 + _ROW_BYTES * len(tags), b"", b""
    for tag, content in tags.items():
        if content not in stored:  # the curves are one
            stored += content.ljust(-(-len(content) // 4) * 4, b"\0")
        rows += tag + struct.pack(">II", begin + stored.index(content), len(content))
    at, rows = begin + len(stored), struct.pack(">I", len(tags)) + rows
    header = struct.pack(">I4x", at) + b"\x04\x30\0\0mntrRGB XYZ " + bytes(12) + b"acsp"
    header = header.ljust(68, b"\0") + _numbers(_D50)
    return header.ljust(_HEADER_BYTES, b"\0") + rows + stored


def _nclx(info: Mapping[Any, Any], name: str) -> int:
    return int((info.get("nclx_profile") or {}).get(name, 0))


def _text(text: str) -> bytes:
    """Return a text in English, as a multiLocalizedUnicodeType."""
    content = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(content), 28) + content


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + _numbers(values)


def _numbers(values: tuple[float, ...]) -> bytes:
    """Return s15Fixed16 numbers."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


SRGB = _profile(SRGB_PRIMARIES, "sRGB")
ADOBE = _profile(_ADOBE, "Compatible with Adobe RGB (1998)", _ADOBE_CURVE)
