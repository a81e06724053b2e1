"""EXIF (CIPA DC-008) as directories of tags, which TIFFs have, too: read within limits, written.

A value is kept if it is of a kind that its tag may have: readers refuse some files for others.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
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


def _tags(names: str) -> set[int]:
    return {ExifTags.Base[name] for name in names.split()}


# What a picture made of a photo does not have from it: what is true of the photo's pixels or file
# only, where other directories are, and the tags of our texts.
NOT_KEPT = _tags("""
    Orientation ImageWidth ImageLength ExifImageWidth ExifImageHeight ColorSpace ExifVersion
    MakerNote UserComment DNGPrivateData ExifInteroperabilityOffset JpegIFOffset JpegIFByteCount
    JPEGTables NewSubfileType SubfileType SubIFDs BitsPerSample Compression
    PhotometricInterpretation StripOffsets StripByteCounts RowsPerStrip SamplesPerPixel
    PlanarConfiguration TransferFunction Predictor WhitePoint PrimaryChromaticities ColorMap
    TileWidth TileLength TileOffsets TileByteCounts ExtraSamples SampleFormat YCbCrCoefficients
    YCbCrSubSampling ReferenceBlackWhite XMLPacket IPTCNAA ImageResources InterColorProfile
    SubjectLocation FillOrder MinSampleValue MaxSampleValue SMinSampleValue SMaxSampleValue
""") | {
    0x80E4,  # SGI's DataType and TileDepth: readers look for pixels by these, too
    0x80E6,
    0x9214,  # SubjectArea, in pixels as SubjectLocation; Pillow has no name for it
    0x935C,  # Photoshop's layers
    *DIRECTORIES,
}
# GeoTIFF (OGC 19-008, 7.1): pixels' size on the ground, tie points, and what these are counted in.
PLACES = {33550, 33922, 34264, 34735, 34736, 34737, ExifTags.IFD.GPSInfo}
# What kind of value a tag of the Exif directory has; Pillow knows those of the others.
EXIF_TYPES: dict[int, int] = {
    tag: kind
    for kind, names in {
        TiffTags.RATIONAL: """
            ExposureTime FNumber CompressedBitsPerPixel ShutterSpeedValue ApertureValue
            BrightnessValue ExposureBiasValue MaxApertureValue SubjectDistance FocalLength
            AmbientTemperature Humidity Pressure WaterDepth Acceleration CameraElevationAngle
            FlashEnergy FocalPlaneXResolution FocalPlaneYResolution ExposureIndex DigitalZoomRatio
            LensSpecification Gamma
        """,
        TiffTags.ASCII: """
            SpectralSensitivity DateTimeOriginal DateTimeDigitized OffsetTime OffsetTimeOriginal
            OffsetTimeDigitized SubsecTime SubsecTimeOriginal SubsecTimeDigitized RelatedSoundFile
            ImageUniqueID CameraOwnerName BodySerialNumber LensMake LensModel LensSerialNumber
        """,
        TiffTags.SHORT: """
            ExposureProgram ISOSpeedRatings SensitivityType StandardOutputSensitivity
            RecommendedExposureIndex ISOSpeed ISOSpeedLatitudeyyy ISOSpeedLatitudezzz MeteringMode
            LightSource Flash FocalPlaneResolutionUnit SensingMethod CustomRendered ExposureMode
            WhiteBalance FocalLengthIn35mmFilm SceneCaptureType GainControl Contrast Saturation
            Sharpness SubjectDistanceRange CompositeImage CompositeImageCount
        """,
        TiffTags.UNDEFINED: """
            OECF ComponentsConfiguration FlashPixVersion FileSource SpatialFrequencyResponse
            SceneType CFAPattern DeviceSettingDescription CompositeImageExposureTimes
        """,
    }.items()
    for tag in _tags(names)
}
# Types that programs write for each other.
_ALIKE = (
    {TiffTags.SHORT, TiffTags.LONG},
    {TiffTags.RATIONAL, TiffTags.SIGNED_RATIONAL},
    {TiffTags.UNDEFINED, TiffTags.BYTE},
)
_OF_BYTES = {TiffTags.ASCII, TiffTags.UNDEFINED, TiffTags.BYTE}


def read_exif(file: IO[bytes]) -> tuple[dict[int, Directory], list[str]]:
    """Return what is kept of a TIFF's tags, as EXIF is one, and the names of what cannot be kept.

    The main directory is 0. Raises what Pillow's reader stumbles over.
    """
    if not file.seek(0, SEEK_END):
        return {}, []
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
        if kept:
            found[directory] = kept
    return found, lost


def stored(tags: Any, tag: int) -> bytes:
    """Return a value's bytes in a directory that Pillow has read; empty without the tag."""
    return bytes(tags._tagdata.get(tag, b""))


def without_places(directories: Mapping[int, Directory]) -> dict[int, Directory]:
    """Return the directories without tags that tell a place."""
    kept = {directory: tags for directory, tags in directories.items() if directory not in PLACES}
    return {d: {t: v for t, v in tags.items() if t not in PLACES} for d, tags in kept.items()}


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
    """Return type and value, in its tag's type if it has another type; None if it cannot be.

    Nor are values kept that Pillow cannot write.
    """
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
        _written({tag: (kind, value)}, 0)
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


def shortened(directories: Mapping[int, Directory], most_bytes: int) -> dict[int, Directory]:
    """Return the directories without their longest values, so that they have no more bytes."""
    kept = {directory: dict(tags) for directory, tags in directories.items()}
    values = ((d, tag, value) for d, tags in kept.items() for tag, value in tags.items())
    sizes = [(len(_written({tag: v}, 0)) - _EMPTY_BYTES, d, tag) for d, tag, v in values]
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
    pointers = dict.fromkeys(others, (TiffTags.LONG, 0))
    start, inner = len(_HEADER) + len(_written(main | pointers, len(_HEADER))), b""
    for directory in others:
        main[directory] = (TiffTags.LONG, start + len(inner))
        inner += _written(directories[directory], start + len(inner))
    return _EXIF + _HEADER + _written(main, len(_HEADER)) + inner


def _written(tags: Directory, offset: int) -> bytes:
    """Return a directory's bytes, whose values stand behind it; it begins at an offset."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2  # takes 20 ms, which few commands need

    directory = ImageFileDirectory_v2(_HEADER)
    for tag, (kind, value) in tags.items():
        directory.tagtype[tag] = kind  # Pillow would choose another type for some
        # Pillow reads texts as Latin-1 and writes them as ASCII; cameras write UTF-8, too.
        directory[tag] = value.encode("latin-1", "replace") if isinstance(value, str) else value
    return directory.tobytes(offset)
