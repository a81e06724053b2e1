"""EXIF (CIPA DC-008) as directories of tags, which TIFFs have, too: read within limits, written.

A value is kept if it is of a kind that its tag may have: readers refuse some files for others.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import SEEK_END, BytesIO
from typing import IO, Any, cast

from PIL import ExifTags, TiffTags

from picowatch.files.pictures import FewReads

# A directory of EXIF: types and values by tag.
Directory = Mapping[int, tuple[int, Any]]
DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# Of the values that are kept: a JPEG has room for a quarter, and no camera writes more.
MAX_KEPT_BYTES = 256 * 1024
MAX_KEPT_TAGS = 1000  # in each directory; cameras write a hundred
# A JPEG's segment: its length has 16 bits and counts itself (ITU T.81, B.1.1.4).
MAX_JPEG_EXIF_BYTES = 65_533
_HEADER = b"MM\0*\0\0\0\x08"
_EMPTY_BYTES = 6  # of a directory without tags
_EXIF = b"Exif\0\0"
_POINTER = (TiffTags.LONG, 0)
_TAGS = ExifTags.Base
# What a picture made of a photo does not have from it: what is true of the photo's pixels or file
# only, where other directories are, and the tags of our texts.
NOT_KEPT = {
    _TAGS.Orientation, _TAGS.ImageWidth, _TAGS.ImageLength, _TAGS.ExifImageWidth,
    _TAGS.ExifImageHeight, _TAGS.ColorSpace, _TAGS.ExifVersion, _TAGS.MakerNote, _TAGS.UserComment,
    _TAGS.DNGPrivateData, _TAGS.ExifInteroperabilityOffset, _TAGS.JpegIFOffset,
    _TAGS.JpegIFByteCount, _TAGS.JPEGTables, _TAGS.NewSubfileType, _TAGS.SubfileType,
    _TAGS.SubIFDs, _TAGS.BitsPerSample, _TAGS.Compression, _TAGS.PhotometricInterpretation,
    _TAGS.StripOffsets, _TAGS.StripByteCounts, _TAGS.RowsPerStrip, _TAGS.SamplesPerPixel,
    _TAGS.PlanarConfiguration, _TAGS.TransferFunction, _TAGS.Predictor, _TAGS.WhitePoint,
    _TAGS.PrimaryChromaticities, _TAGS.ColorMap, _TAGS.TileWidth, _TAGS.TileLength,
    _TAGS.TileOffsets, _TAGS.TileByteCounts, _TAGS.ExtraSamples, _TAGS.SampleFormat,
    _TAGS.YCbCrCoefficients, _TAGS.YCbCrSubSampling, _TAGS.ReferenceBlackWhite, _TAGS.XMLPacket,
    _TAGS.IPTCNAA, _TAGS.ImageResources, _TAGS.InterColorProfile, _TAGS.SubjectLocation,
    0x9214,  # SubjectArea, in pixels as SubjectLocation; Pillow has no name for it
    0x935C,  # Photoshop's layers
    *DIRECTORIES,
}  # fmt: skip
# GeoTIFF (OGC 19-008, 7.1): pixels' size on the ground, tie points, and what these are counted in.
PLACES = {33550, 33922, 34264, 34735, 34736, 34737, ExifTags.IFD.GPSInfo}
# What kind of value a tag of the Exif directory has; Pillow knows those of the others.
_RATIONALS = {
    _TAGS.ExposureTime, _TAGS.FNumber, _TAGS.CompressedBitsPerPixel, _TAGS.ShutterSpeedValue,
    _TAGS.ApertureValue, _TAGS.BrightnessValue, _TAGS.ExposureBiasValue, _TAGS.MaxApertureValue,
    _TAGS.SubjectDistance, _TAGS.FocalLength, _TAGS.AmbientTemperature, _TAGS.Humidity,
    _TAGS.Pressure, _TAGS.WaterDepth, _TAGS.Acceleration, _TAGS.CameraElevationAngle,
    _TAGS.FlashEnergy, _TAGS.FocalPlaneXResolution, _TAGS.FocalPlaneYResolution,
    _TAGS.ExposureIndex, _TAGS.DigitalZoomRatio, _TAGS.LensSpecification, _TAGS.Gamma,
}  # fmt: skip
_TEXTS = {
    _TAGS.SpectralSensitivity, _TAGS.DateTimeOriginal, _TAGS.DateTimeDigitized, _TAGS.OffsetTime,
    _TAGS.OffsetTimeOriginal, _TAGS.OffsetTimeDigitized, _TAGS.SubsecTime,
    _TAGS.SubsecTimeOriginal, _TAGS.SubsecTimeDigitized, _TAGS.RelatedSoundFile,
    _TAGS.ImageUniqueID, _TAGS.CameraOwnerName, _TAGS.BodySerialNumber, _TAGS.LensMake,
    _TAGS.LensModel, _TAGS.LensSerialNumber,
}  # fmt: skip
_NUMBERS = {
    _TAGS.ExposureProgram, _TAGS.ISOSpeedRatings, _TAGS.SensitivityType,
    _TAGS.StandardOutputSensitivity, _TAGS.RecommendedExposureIndex, _TAGS.ISOSpeed,
    _TAGS.ISOSpeedLatitudeyyy, _TAGS.ISOSpeedLatitudezzz, _TAGS.MeteringMode, _TAGS.LightSource,
    _TAGS.Flash, _TAGS.FocalPlaneResolutionUnit, _TAGS.SensingMethod, _TAGS.CustomRendered,
    _TAGS.ExposureMode, _TAGS.WhiteBalance, _TAGS.FocalLengthIn35mmFilm, _TAGS.SceneCaptureType,
    _TAGS.GainControl, _TAGS.Contrast, _TAGS.Saturation, _TAGS.Sharpness,
    _TAGS.SubjectDistanceRange, _TAGS.CompositeImage, _TAGS.CompositeImageCount,
}  # fmt: skip
_BYTES = {
    _TAGS.OECF, _TAGS.ComponentsConfiguration, _TAGS.FlashPixVersion, _TAGS.FileSource,
    _TAGS.SpatialFrequencyResponse, _TAGS.SceneType, _TAGS.CFAPattern,
    _TAGS.DeviceSettingDescription, _TAGS.CompositeImageExposureTimes,
}  # fmt: skip
EXIF_TYPES: dict[int, int] = {
    **dict.fromkeys(_RATIONALS, TiffTags.RATIONAL),
    **dict.fromkeys(_TEXTS, TiffTags.ASCII),
    **dict.fromkeys(_NUMBERS, TiffTags.SHORT),
    **dict.fromkeys(_BYTES, TiffTags.UNDEFINED),
}
# Types that programs write for each other.
_ALIKE = (
    {TiffTags.SHORT, TiffTags.LONG},
    {TiffTags.RATIONAL, TiffTags.SIGNED_RATIONAL},
    {TiffTags.UNDEFINED, TiffTags.BYTE},
)
_OF_BYTES = {TiffTags.ASCII, TiffTags.UNDEFINED, TiffTags.BYTE}


@dataclass(frozen=True, slots=True)
class Exif:
    """What is kept, by directory; the main one is 0. `lost` names values that cannot be kept."""

    directories: dict[int, Directory] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


def read_exif(file: IO[bytes]) -> Exif:
    """Return what EXIF or a TIFF's own tags say. The file is a whole TIFF, as EXIF is, or empty.

    Raises whatever Pillow's reader stumbles over.
    """
    if not file.seek(0, SEEK_END):
        return Exif()
    found: dict[int, Directory] = {}
    lost: list[str] = []
    room = MAX_KEPT_BYTES
    for directory, tags in _read(file).items():
        kept: dict[int, tuple[int, Any]] = {}
        for tag in sorted(tags):
            if tag in NOT_KEPT:
                continue
            size = len(stored(tags, tag))  # before it becomes millions of numbers
            has_room = size <= room and len(kept) < MAX_KEPT_TAGS
            value = _kept(directory, tag, tags) if has_room else None
            if value:
                kept[tag] = value
                room -= size
            elif stored(tags, tag).strip(b"\0"):  # zeros are no loss
                lost.append(name_of(directory, tag))
        for tag in _unwritable(kept):
            del kept[tag]
            lost.append(name_of(directory, tag))
        if kept:
            found[directory] = kept
    return Exif(found, tuple(lost))


def stored(tags: Any, tag: int) -> bytes:
    """Return a value's bytes in a directory that Pillow has read; empty without the tag."""
    return bytes(tags._tagdata.get(tag, b""))


def without_places(directories: Mapping[int, Directory]) -> dict[int, Directory]:
    """Return the directories without tags that tell a place."""
    return {
        directory: {tag: value for tag, value in tags.items() if tag not in PLACES}
        for directory, tags in directories.items()
        if directory not in PLACES
    }


def _read(file: IO[bytes]) -> dict[int, Any]:
    """Return the directories, of which Pillow decodes a value when it is asked for."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    few = cast(IO[bytes], FewReads(file))
    few.seek(0)
    head = few.read(16)
    head = head if head[2:3] == b"\x2b" else head[:8]  # BigTIFF
    main = ImageFileDirectory_v2(head)
    few.seek(main.next)
    main.load(few)
    found = {0: main}
    for directory in DIRECTORIES:
        if isinstance(place := main.get(directory), int):
            found[directory] = ImageFileDirectory_v2(head, group=directory)
            few.seek(place)
            found[directory].load(few)
    return found


def bytes_in(exif: bytes, tags: Iterable[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
    """Return texts and bytes by directory and tag. Raises what Pillow's reader stumbles over."""
    directories = _read(BytesIO(exif.removeprefix(_EXIF)))
    found = {}
    for directory, tag in tags:
        there = directories.get(directory, {})
        if tag in there and there.tagtype[tag] in _OF_BYTES:
            value = there[tag]  # Pillow decodes texts as Latin-1
            found[directory, tag] = value.encode("latin-1") if isinstance(value, str) else value
    return found


def name_of(directory: int, tag: int) -> str:
    """Return a tag's name, or its number in hexadecimal digits."""
    names: Any = ExifTags.GPSTAGS if directory == ExifTags.IFD.GPSInfo else ExifTags.TAGS
    return str(names.get(tag, f"0x{tag:04x}"))


def _kept(directory: int, tag: int, tags: Any) -> tuple[int, Any] | None:
    """Return type and value, in the type of its tag if it has another one; None if it cannot be."""
    known, kind = TiffTags.lookup(tag, directory or None), tags.tagtype[tag]
    typical = EXIF_TYPES.get(tag) if directory == ExifTags.IFD.Exif else known.type
    wanted = typical or (TiffTags.LONG if kind > TiffTags.DOUBLE else kind)  # BigTIFF has more
    with suppress(Exception):  # Pillow's, of whatever
        value = tags[tag]
        if isinstance(value, tuple) and len(value) == 1:
            value = value[0]
        if kind != wanted and {kind, wanted} not in _ALIKE:
            kind, value = _converted(kind, value, wanted)
            if value == b"":
                return None
        if isinstance(value, tuple) and known.length == 1:
            value = value[0]
        return kind, value
    return None


def _converted(kind: int, value: Any, wanted: int) -> tuple[int, Any]:
    """Return a value of another type with that. Raises ValueError if there is none."""
    numbers = tuple(value) if isinstance(value, bytes | tuple) else (value,)
    are_whole = all(isinstance(number, int) and 0 <= number < 1 << 32 for number in numbers)
    if wanted == TiffTags.ASCII and isinstance(value, bytes):
        return wanted, value.rstrip(b"\0").decode("latin-1")
    if wanted in (TiffTags.UNDEFINED, TiffTags.BYTE) and isinstance(value, str):
        return wanted, value.encode("latin-1")
    if wanted == TiffTags.RATIONAL and len(numbers) == 1 and are_whole:
        return wanted, float(*numbers)
    if wanted in (TiffTags.SHORT, TiffTags.LONG) and are_whole and kind != TiffTags.IFD:
        is_short = wanted == TiffTags.SHORT and max(numbers) < 1 << 16
        return TiffTags.SHORT if is_short else TiffTags.LONG, numbers
    raise ValueError("no such value can be of that type")


def _unwritable(tags: Directory) -> list[int]:
    """Return the tags whose values Pillow cannot write."""
    try:
        _written(tags, 0)
    except Exception:  # whatever its writers stumble over
        return [tag for tag in tags if len(tags) == 1 or _unwritable({tag: tags[tag]})]
    return []


def shortened(directories: Mapping[int, Directory], most_bytes: int) -> dict[int, Directory]:
    """Return the directories without their longest values, so that they have no more bytes."""
    kept = {directory: dict(tags) for directory, tags in directories.items()}
    sizes = [
        (len(_written({tag: value}, 0)) - _EMPTY_BYTES, directory, tag)
        for directory, tags in kept.items()
        for tag, value in tags.items()
    ]
    total = len(exif_bytes(kept))
    for size, directory, tag in sorted(sizes, reverse=True):
        if total <= most_bytes:
            break
        total -= size
        del kept[directory][tag]
    return {directory: tags for directory, tags in kept.items() if tags}


def exif_bytes(directories: Mapping[int, Directory]) -> bytes:
    """Return EXIF data of these directories; the main one is 0, of which all others are parts."""
    main, others = dict(directories.get(0, {})), [ifd for ifd in DIRECTORIES if ifd in directories]
    start = len(_HEADER) + len(_written(main | dict.fromkeys(others, _POINTER), len(_HEADER)))
    inner = b""
    for directory in others:
        main[directory] = (TiffTags.LONG, start + len(inner))
        inner += _written(directories[directory], start + len(inner))
    return _EXIF + _HEADER + _written(main, len(_HEADER)) + inner


def _written(tags: Directory, offset: int) -> bytes:
    """Return a directory's bytes, whose values stand behind it; it begins at an offset."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2  # takes 20 ms, which few commands need

    directory = ImageFileDirectory_v2(_HEADER)
    for tag, (kind, value) in tags.items():
        directory.tagtype[tag] = kind  # Pillow would choose another one for some
        # Pillow reads texts as Latin-1 and writes them as ASCII; cameras write UTF-8, too.
        directory[tag] = value.encode("latin-1", "replace") if isinstance(value, str) else value
    return directory.tobytes(offset)
