"""Bits and colours of pictures: numbers of 16 bits, and the profiles of photos and of sRGB.

Pillow 13 has grey of 16 bits, but no colours. Pictures here are opened, but need not be loaded.

HEICs and AVIFs only name their colours, by the code points of ITU-T H.273, and cameras do so in
EXIF (DCF 2.0, CIPA DC-009). Profiles in profiles/ (ICC.1:2022) have primaries under D50, and sRGB's
curve or Adobe's power.
"""

import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from typing import IO, Any, Literal

from PIL import ExifTags, Image, TiffImagePlugin

GREY = "I;16"  # Pillow's mode
_TOGETHER, _SIXTEEN = 1, 16  # TIFF's PlanarConfiguration, and BitsPerSample
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1  # as PhotometricInterpretation
# Pillow 13 reads big-endian grey in a mode that it cannot scale, and refuses it if 0 is white.
for _photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
    TiffImagePlugin.OPEN_INFO[b"MM", _photometric, (1,), 1, (16,), ()] = GREY, "I;16B"
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


def has_both_bytes(image: Image.Image) -> bool:
    """Whether grey or colours have 16 bits, all of which can be read."""
    return image.mode == GREY or has_deep_colours(image)


def has_deep_colours(image: Image.Image) -> bool:
    """Whether colours have 16 bits, all of which can be read."""
    # Of a TIFF whose channels lie apart Pillow reads the higher bytes, whatever it is told.
    return not _is_apart(image) and any(
        ";16" in mode and mode.startswith(("RGB;", "RGBA", "RGBX"))
        for mode in map(_raw_mode, _tiles(image))
    )


def has_more_than_8_bits(image: Image.Image) -> bool:
    """Whether a number in the file has more than 8 bits, however many are read."""
    return (
        image.mode[0] in "FI"
        or image.info.get("bit_depth", 8) > 8
        or _bits_in_tags(image) > 8
        or any(";16" in _raw_mode(tile) for tile in _tiles(image))
    )


def read_apart(image: Image.Image) -> None:
    """Let uncompressed channels of 16 bits that lie apart be read so: Pillow 13 reads 8 of each."""
    if _is_apart(image) and _bits_in_tags(image) == _SIXTEEN:
        order = "16B" if _tags(image).prefix == b"MM" else "16L"
        for at, tile in enumerate(_tiles(image)):
            mode = _raw_mode(tile)
            if tile.codec_name == "raw" and ";" not in mode:
                _set_raw_mode(image, at, f"{mode};{order}")


def read_low_bytes(image: Image.Image) -> None:
    """Let a picture with 16 bits be decoded as if its numbers had the other byte order."""
    others = {"16L": "16B", "16B": "16L"}
    others["16N"] = others["16L" if sys.byteorder == "little" else "16B"]
    for at, tile in enumerate(_tiles(image)):
        kind, _, order = _raw_mode(tile).partition(";")
        if order in others and kind.startswith("RGB"):  # grey has all its bits
            _set_raw_mode(image, at, f"{kind};{others[order]}")


def byte_of(image: Image.Image, byte: Literal["high", "low"]) -> Image.Image:
    """Return the higher or lower bytes of grey with 16 bits; other pictures as they are."""
    if image.mode != GREY:
        return image
    low, high = Image.frombytes("LA", image.size, image.tobytes()).split()
    return high if byte == "high" else low


def is_negative(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF with 16 bits of grey: Pillow heeds that in 8 bits alone."""
    tag = ExifTags.Base.PhotometricInterpretation
    return image.mode == GREY and _tags(image).get(tag) == _WHITE_IS_ZERO


def _is_apart(image: Image.Image) -> bool:
    """Whether a TIFF's channels lie one behind the other."""
    return bool(_tags(image).get(ExifTags.Base.PlanarConfiguration, _TOGETHER) != _TOGETHER)


def _bits_in_tags(image: Image.Image) -> int:
    """Return the bits of a TIFF's numbers; 8 where nothing says it."""
    with suppress(Exception):  # a hostile tag may hold anything
        return int(max(_tags(image)[ExifTags.Base.BitsPerSample]))
    return 8


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})


def _tiles(image: Image.Image) -> list[Any]:
    return getattr(image, "tile", [])


def _raw_mode(tile: Any) -> str:
    return str(tile.args[0] if isinstance(tile.args, (tuple, list)) else tile.args)


def _set_raw_mode(image: Image.Image, at: int, mode: str) -> None:
    tiles = _tiles(image)
    args = tiles[at].args
    many = isinstance(args, (tuple, list))
    tiles[at] = tiles[at]._replace(args=(mode, *args[1:]) if many else mode)


# -- colour profiles


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
    """Return an ICC profile for wide primaries, or for Adobe RGB (1998) in EXIF; else None."""
    if name := _BY_PRIMARIES.get(_nclx(info, "color_primaries")):
        return _profile(name)
    exif = info.get("exif") or b""
    with suppress(Exception):  # Pillow's reader raises whatever it stumbles over
        tags = Image.Exif()
        tags.load(exif if len(exif) <= _MOST_EXIF_BYTES else b"")
        space = tags.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        file = tags.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
        if space == _ADOBE_SPACE or (space == _OTHER_SPACE and file == _ADOBE_FILE):
            return ADOBE
    return None


def _nclx(info: Mapping[Any, Any], name: str) -> int:
    return int((info.get("nclx_profile") or {}).get(name, 0))


def _profile(name: str) -> bytes:
    return resources.files(__package__).joinpath("profiles", name).read_bytes()


SRGB, ADOBE = _profile("srgb.icc"), _profile("adobe-rgb.icc")
