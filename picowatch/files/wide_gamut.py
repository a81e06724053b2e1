"""Colour profiles: sRGB's, and those of photos that only name their colours.

HEICs and AVIFs do so by the code points of ITU-T H.273, cameras in EXIF (DCF 2.0, CIPA DC-009).
Those in profiles/ (ICC.1:2022) have primaries under D50, and sRGB's curve or Adobe's power.
"""

import struct
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from typing import IO, Any

from PIL import ExifTags, Image

_PQ, _HLG = 16, 18  # transfer characteristics
_BY_PRIMARIES = {9: "rec2020.icc", 12: "display-p3.icc"}  # by their code points
# In XYZ under D50.
SRGB_PRIMARIES = (
    (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410),
)  # fmt: skip
_ADOBE_SPACE, _OTHER_SPACE, _ADOBE_FILE = 2, 65_535, "R03"  # as EXIF says it
_MOST_EXIF_BYTES = 65_535  # cameras write it into a JPEG's segment
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
    if name := _BY_PRIMARIES.get(_nclx(info, "color_primaries")):
        return _profile(name)
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


def _nclx(info: Mapping[Any, Any], name: str) -> int:
    return int((info.get("nclx_profile") or {}).get(name, 0))


def _profile(name: str) -> bytes:
    return resources.files(__package__).joinpath("profiles", name).read_bytes()


SRGB, ADOBE = _profile("srgb.icc"), _profile("adobe-rgb.icc")
