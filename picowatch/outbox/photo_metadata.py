"""What a photo says of itself, kept in the pictures made of it, and the mark of how they were made.

EXIF, XMP and IPTC-IIM are kept but for what is no longer true, as the tables of their modules say;
IPTC-IIM becomes XMP. The mark is IPTC's DigitalSourceType
(https://cv.iptc.org/newscodes/digitalsourcetype).
"""

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import IO, Any, TypeVar, cast

from PIL import ExifTags, Image, TiffTags

from picowatch.errors import PictureUnreadable
from picowatch.files.pictures import MAX_TEXT_BYTES, TEXTS_LEFT_OUT, FewReads, formats_of, losses
from picowatch.metadata.exif import Directory, read_exif, stored, without_places
from picowatch.metadata.iptc import IPTC_RESOURCE, Datasets, iptc_in, properties_of, read_iptc
from picowatch.metadata.xmp import Xmp, extended_guid
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.request import ImageRequest

KEPT, NO_PLACE, NOTHING_KEPT = "all", "no_place", "none"
LOST = "The {} of {} cannot be read, so the picture has none: {}."
DAMAGED = "The IPTC of {} is damaged, so the picture lacks what comes after the damage."
VALUES_LOST = "The picture lacks values of the EXIF of {} that are damaged or too large: {}."
TEXTS_LOST = "Texts of {} are left out: with its colour profile, they have more than {} MB."
# Without the segment's length and name (XMP specification part 3, 1.1.3.1).
MAX_JPEG_XMP_BYTES = 65_502

MARKS = {  # first those that say more was made by a model
    "trainedAlgorithmicMedia": "a model drew it",
    "compositeWithTrainedAlgorithmicMedia": "a model changed a picture",
    "algorithmicallyEnhanced": "a model enlarged a picture",
}
DRAWN, CHANGED, ENLARGED = MARKS
_TAGS = ExifTags.Base
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"  # how segments of JPEGs begin
_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_PER_INCH, _PER_CM = 2, 3  # in EXIF; JFIF has 1 and 2
_MOST_DENSITY = 65_536  # JFIF has 16 bits for it
_FIRST_TURNED = 5  # orientations from here on stand a picture on its side
_MOST_STRETCHED = 0.02  # sizes are multiples of 8
_PNG = b"\x89PNG\r\n\x1a\n"
_PIXELS, _END, _CRC_BYTES = (b"IDAT", b"fdAT"), b"IEND", 4  # of chunks
Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class PhotoMetadata:
    """EXIF's directories, an XMP packet and the mark in it; `warnings` say what is lost."""

    exif: dict[int, Directory] = field(default_factory=dict)
    xmp: str = ""
    mark: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def dots_per_inch(self) -> tuple[float, float] | None:
        """The resolution that EXIF says, if it is one."""
        main = self.exif.get(0, {})
        _, unit = main.get(_TAGS.ResolutionUnit, (0, _PER_INCH))
        scale = {_PER_INCH: 1.0, _PER_CM: 2.54}.get(unit, 0.0)
        _, x = main.get(_TAGS.XResolution, (0, 0))
        _, y = main.get(_TAGS.YResolution, (0, 0))
        dots = (float(x) * scale, float(y) * scale)
        return dots if all(0 < number < _MOST_DENSITY for number in dots) else None


NONE = PhotoMetadata()


def photo_metadata(
    file: IO[bytes],
    keep: str,
    *,
    mark: str = "",
    size: tuple[int, int] | None = None,
    name: str = "the photo",
) -> PhotoMetadata:
    """Return what is kept of a photo: all, everything but places (no_place), or none but its mark.

    `mark` is that of the picture made of it; the photo's stays if it says that a model drew it.
    `size` is the picture's, if it shows the whole photo: regions are left out of others. What is
    damaged is lost with a warning that names the photo, and so are bits and colours that no result
    has. Raises PictureUnreadable if it is no picture.
    """
    photo, said = _read(file), list[str]()

    def read(what: str, part: Callable[[], Kind], instead: Kind) -> Kind:
        try:
            return part()
        except Exception as error:  # Pillow's readers raise whatever they stumble over
            why = str(error).rstrip(".") or type(error).__name__
            said.append(LOST.format(what, name, why))
            return instead

    xmp = read("XMP", lambda: Xmp(_xmp(photo)), Xmp())
    read("extended XMP", lambda: xmp.extend(_extended_xmp(photo)), None)
    order = [*MARKS, ""]
    mark = min(xmp.source_type if xmp.source_type in order else "", mark, key=order.index)
    if keep == NOTHING_KEPT:
        return replace(only_marked(mark), warnings=photo.lost)
    exif, lost = read("EXIF", lambda: read_exif(_exif(photo, file)), (NONE.exif, list[str]()))
    if lost:
        said.append(VALUES_LOST.format(name, listed(lost)))
    iptc, is_damaged = read("IPTC", lambda: read_iptc(_iptc(photo)), (Datasets(), False))
    if is_damaged:
        said.append(DAMAGED.format(name))
    if TEXTS_LEFT_OUT in photo.info:
        said.append(TEXTS_LOST.format(name, MAX_TEXT_BYTES >> 20))
    is_placeless, directories = keep == NO_PLACE, _with_resolution(exif, photo)

    def packet() -> str:
        xmp.merge(properties_of(iptc))
        shown = size if size and _shows_all(photo, size) else None
        xmp.drop(places=is_placeless, size=shown, orientation=photo.orientation)
        return _with_mark(xmp, mark)

    written = read("XMP", packet, only_marked(mark).xmp)
    directories = without_places(directories) if is_placeless else directories
    return PhotoMetadata(directories, written, mark, (*photo.lost, *said))


def only_marked(mark: str) -> PhotoMetadata:
    """Return metadata with nothing but a mark, or with nothing if that is ""."""
    return PhotoMetadata(xmp=_with_mark(Xmp(), mark), mark=mark) if mark else NONE


def _with_mark(xmp: Xmp, mark: str) -> str:
    """Return the packet, in which a mark replaces the photo's; "" if nothing is in it."""
    if mark and mark != xmp.source_type:
        xmp.set_source_type(mark)
    return "" if xmp.is_empty else xmp.packet()


def mark_of(request: ImageRequest, *, is_drawn: bool) -> str:
    """Return the mark of a picture: drawn, changed or enlarged by a model; "" for neither."""
    if request.draws and is_drawn:  # it is not where words found nothing to change
        return CHANGED if request.image or request.references else DRAWN
    return ENLARGED if request.upscale else ""


# -- what a photo's file has, by its format


@dataclass(frozen=True, slots=True)
class _Photo:
    """What Pillow says of an opened file, with `resources`: Photoshop's, or IPTC alone."""

    info: dict[Any, Any]
    kind: str
    size: tuple[int, int]
    orientation: int
    lost: tuple[str, ...]
    resources: bytes
    extended: tuple[bytes, ...]  # a JPEG's segments of extended XMP

    def raw_profile(self, kind: str) -> bytes:
        """Return a profile that ImageMagick or digiKam wrote as text into a PNG; empty without one.

        The lines are an empty line, the kind, the size, and hexadecimal digits. Raises ValueError.
        """
        text = str(self.info.get(f"Raw profile type {kind}", ""))
        return bytes.fromhex("".join(text.split("\n")[3:]))


def _read(file: IO[bytes]) -> _Photo:
    formats = formats_of(file)
    file.seek(0)
    if file.read(len(_PNG)) == _PNG:
        with suppress(Exception):  # damage behind the pixels hides nothing before them
            return _opened(_without_pixels(file), formats)
    try:
        return _opened(file, formats)
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise PictureUnreadable("it is not a picture that can be read.") from error


def _opened(file: IO[bytes], formats: tuple[str, ...]) -> _Photo:
    file.seek(0)
    with Image.open(cast(IO[bytes], FewReads(file)), formats=formats) as image:
        info, orientation, resources = dict(image.info), 1, b""
        with suppress(Exception):  # damaged EXIF, of which a warning tells
            orientation = int(image.getexif().get(_TAGS.Orientation, 1))
        if image.format == "AVIF":
            # If the file turns the picture otherwise, Pillow writes its EXIF anew, with ? for é.
            with suppress(Exception):  # a later Pillow's decoder, perhaps
                info["exif"] = cast(Any, image)._decoder.get_info()[4]
        if tags := getattr(image, "tag_v2", None):
            # Stored, because Photoshop says that IPTC's bytes are numbers of four.
            resources = stored(tags, _TAGS.IPTCNAA) or stored(tags, _TAGS.ImageResources)
        elif isinstance(found := info.get("photoshop"), dict):
            resources = found.get(IPTC_RESOURCE, b"")
        segments = (data for kind, data in getattr(image, "applist", ()) if kind == "APP1")
        return _Photo(
            info,
            str(image.format),
            image.size,
            orientation,
            tuple(losses(image)),
            resources,
            tuple(part.removeprefix(_MORE_XMP) for part in segments if part.startswith(_MORE_XMP)),
        )


def _without_pixels(file: IO[bytes]) -> BytesIO:
    """Return a PNG with all but its pixels, so that what stood behind them is before their place.

    Raises OSError if it has too many parts, or too large parts.
    """
    few = FewReads(file)
    few.seek(len(_PNG))
    kept = [_PNG]
    while len(start := few.read(8)) == 8:
        size, kind = struct.unpack(">L4s", start)
        if kind == _END:
            break
        if kind in _PIXELS:
            few.seek(size + _CRC_BYTES, 1)
        else:
            kept += [start, few.read(size + _CRC_BYTES)]
    ends = (struct.pack(">L4sL", 0, kind, zlib.crc32(kind)) for kind in (_PIXELS[0], _END))
    return BytesIO(b"".join([*kept, *ends]))


def _exif(photo: _Photo, file: IO[bytes]) -> IO[bytes]:
    if photo.kind == "TIFF":
        return file
    exif = photo.info.get("exif") or photo.raw_profile("exif") or photo.raw_profile("APP1")
    return BytesIO(exif.removeprefix(_EXIF))


def _xmp(photo: _Photo) -> bytes | str:
    packet = photo.info.get("xmp") or photo.raw_profile("xmp")
    if not packet and (profile := photo.raw_profile("APP1")).startswith(_XMP):
        packet = profile.removeprefix(_XMP)
    return bytes(packet) if isinstance(packet, tuple) else packet  # numbers in a TIFF


def _extended_xmp(photo: _Photo) -> bytes:
    """Return the segments that the packet names, in their order."""
    guid = extended_guid(photo.info.get("xmp") or b"") if photo.extended else b""
    parts = {  # each begins with the name, the length of all, and its offset, of four bytes each
        segment[len(guid) + 4 : len(guid) + 8]: segment[len(guid) + 8 :]
        for segment in photo.extended
        if guid and segment.startswith(guid)
    }
    return b"".join(parts[offset] for offset in sorted(parts))


def _iptc(photo: _Photo) -> bytes:
    return iptc_in(photo.resources or photo.raw_profile("iptc") or photo.raw_profile("8bim"))


def _shows_all(photo: _Photo, size: tuple[int, int]) -> bool:
    """Return whether a picture of this size shows the whole photo, which its shape tells."""
    width, height = photo.size
    if photo.orientation >= _FIRST_TURNED and photo.kind != "TIFF":  # of that, Pillow tells it
        width, height = height, width
    return abs(size[0] * height / (size[1] * width) - 1) <= _MOST_STRETCHED


def _with_resolution(directories: dict[int, Directory], photo: _Photo) -> dict[int, Directory]:
    """Return the directories with the resolution that a JPEG's header says alone, or a PNG's."""
    main, info = directories.get(0, {}), photo.info
    unit, density = _PER_INCH, info.get("dpi")
    if photo.kind in ("JPEG", "MPO"):  # whose dpi are made up if neither header nor EXIF says them
        unit, density = info.get("jfif_unit", 0) + 1, info.get("jfif_density")
    if not density or unit not in (_PER_INCH, _PER_CM):
        return directories
    said = PhotoMetadata(directories).dots_per_inch or ()
    # A PNG's header counts before its EXIF, but has whole pixels a metre.
    is_wrong = photo.kind == "PNG" and [*map(round, said)] != [*map(round, density)]
    if _TAGS.XResolution in main and not is_wrong:
        return directories
    if not all(0 < number < _MOST_DENSITY for number in density):
        return directories
    unit_tag = (TiffTags.SHORT, unit)
    x, y = ((TiffTags.RATIONAL, float(number)) for number in density)
    added: Directory = {_TAGS.XResolution: x, _TAGS.YResolution: y, _TAGS.ResolutionUnit: unit_tag}
    return directories | {0: {**main, **added}}
