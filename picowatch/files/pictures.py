"""Pictures that users provide: start images and masks, opened and checked within limits.

The daemon checks them when it accepts a save, and the engine reads them when it renders.
"""

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import IO, Any, Literal, cast

from PIL import ExifTags, Image, ImageChops, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from picowatch.errors import PictureUnreadable, install_command
from picowatch.files import colours
from picowatch.files.names import RAW_ENDINGS, is_other_picture_name
from picowatch.files.safe_paths import MAX_BYTES as MAX_BYTES

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
HEIF, HEIF_BEGINS = "HEIF", 32  # what phones write as .heic; bytes that tell it
_TIFF_BEGINS = b"II*\0", b"MM\0*"
_READABLE = f"Readable formats: {', '.join(FORMATS)}, HEIC. Convert it to one of them"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# What a picture may have at most, whatever the setting `max_photo_megapixels` says.
MOST_PIXELS = 1_000_000_000
USUAL_PIXELS = 250_000_000  # the setting's default
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow raises beyond the double
# Of odd tags and large pictures, about which nobody can do anything. One filter is for all threads:
# `catch_warnings` changes those of others.
warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\.")
# Larger ones are looked at in a process of their own. This many pixels are checked within a second
# and 200 MB, including the file's own bytes: Pillow takes 4 bytes a pixel for most formats, 15 for
# WebP, 8 for HEIC, and for TIFF up to 12 if one strip holds the whole picture. A JPEG is checked at
# an eighth of its size, but reading a progressive one takes 6 to 8 bytes for each of its pixels.
SMALL_PIXELS = {
    "JPEG": 64_000_000, "PNG": 20_000_000, "BMP": 20_000_000, "GIF": 20_000_000,
    "WEBP": 8_000_000, "AVIF": 8_000_000, "TIFF": 10_000_000,
    HEIF: 25_000_000,  # phones' largest have 24.5 million
}  # fmt: skip
_SMALL_PROGRESSIVE_PIXELS = 20_000_000
_SMALL_16_BIT_PIXELS = 10_000_000
# With transparency, or a colour for each pixel: 20 bytes for each; phones' have 4:2:0 and need 8.
_SMALL_FULL_HEIF_PIXELS = 8_000_000
_SMALL_BYTES = 64 * 1024 * 1024  # of a file
# Pictures that the demo model drew differ from themselves without noise by at most 1.4 of 255, at
# this size; photos by 2 to 12, as measured on those of scikit-image.
_NOISE_SIDE, _MOST_NOISE = 128, 1.7
_MOST_OF_DRAWINGS = 4_000_000  # pixels
# Parts (chunks, markers, blocks) that a file is read in; a photo has some thousand at most.
MAX_READS = 200_000
_BYTES_A_READ = 2048  # on average, in files of hundreds of megabytes
# What is read before the pixels: metadata, and a TIFF's directory, of which each number becomes a
# Python object. Pillow joins a JPEG's pieces of EXIF data by copying all earlier pieces each time.
MAX_HEADER_BYTES = 16 * 1024 * 1024
# Of files that are read at once, metadata included, of which Pillow holds up to six copies.
MAX_BYTES_AT_ONCE = 24 * 1024 * 1024
# Pillow looks for a JPEG's resolution in its EXIF, where millions of numbers may say it.
JpegImageFile._read_dpi_from_exif = lambda self: None  # type: ignore[method-assign]
# Of all texts of a PNG, decompressed.
MAX_TEXT_BYTES = 16 * 1024 * 1024
TEXTS_LEFT_OUT = "texts left out"  # in what Pillow says of a picture
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_BYTES
_TOO_LARGE = "it has too many parts, or too large ones"
_MORE_BITS = "The photo has more than 8 bits a channel; the picture has 8."
KEEPABLE_BITS = f"{_MORE_BITS} As TIFF or PNG with colour: same, what no model draws keeps them."
_TAGS, _TURN = ExifTags.Base, Image.Transpose
# EXIF's, also as phones and scanners write it; their hours may be 24.
_DATE = re.compile(
    r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)(?:[ T]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?)?"
)
# What makes a picture upright, by EXIF's orientation (EXIF 2.32, 4.6.4).
_UPRIGHT = {
    2: _TURN.FLIP_LEFT_RIGHT, 3: _TURN.ROTATE_180, 4: _TURN.FLIP_TOP_BOTTOM, 5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270, 7: _TURN.TRANSVERSE, 8: _TURN.ROTATE_90,
}  # fmt: skip
_TURNED = (5, 6, 7, 8)  # orientations that stand a picture on its side


class FewReads(io.BufferedIOBase):
    """A file that limits how often it is read, and how much of it as long as `in_header`.

    Pictures may have millions of tiny parts, and metadata as large as the file. WebPs, AVIFs and
    HEICs are read at once. It has no `fileno`, by which Pillow's TIFF reader would pass the limits.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._reads = self._bytes = 0
        self._size = file.seek(0, io.SEEK_END)
        self._most_reads = MAX_READS + self._size // _BYTES_A_READ
        file.seek(0)
        self.in_header = True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does. Raises OSError beyond the limits."""
        self._reads += 1
        if size is None or size < 0:
            if self.in_header and self._size > MAX_BYTES_AT_ONCE:
                raise OSError(_TOO_LARGE)
            return self._file.read()
        self._bytes += size if self.in_header else 0
        if self._reads > self._most_reads or self._bytes > MAX_HEADER_BYTES:
            raise OSError(_TOO_LARGE)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _limited(read: Callable[[PngImagePlugin.PngStream, int, int], bytes]) -> Any:
    """Return a reader of a PNG's chunks of one kind that leaves out what is too long.

    Pillow refuses the whole picture, also for one compressed text of more than a megabyte, and
    counts none that it drops because it has no name, is damaged, or is no UTF-8.
    """

    def chunk(png: PngImagePlugin.PngStream, position: int, length: int) -> bytes:
        before = png.text_memory
        with suppress(ValueError):  # beyond the limits
            if before + length <= MAX_TEXT_BYTES:
                content = read(png, position, length)
                if png.text_memory == before:  # of a thousand bytes, zlib makes one at best
                    png.text_memory += min(MAX_TEXT_BYTES // 8, 1000 * length)
                return content
        png.im_info[TEXTS_LEFT_OUT], png.text_memory = True, MAX_TEXT_BYTES
        assert png.fp is not None
        png.fp.seek(position)
        return png.fp.read(length)

    return chunk


for _kind in ("chunk_tEXt", "chunk_zTXt", "chunk_iTXt", "chunk_iCCP"):  # texts and profiles
    setattr(PngImagePlugin.PngStream, _kind, _limited(getattr(PngImagePlugin.PngStream, _kind)))


def refuse_other_name(path: str) -> None:
    """Raise PictureUnreadable if the name is that of a format that is not read, as RAW."""
    if is_other_picture_name(path):
        remedy = f"{_READABLE}, or give it its own ending if it is one."
        if path.lower().endswith(RAW_ENDINGS):  # of most, Pillow would read the thumbnail
            name, stem = path.rpartition("/")[2], path.rpartition("/")[2].rpartition(".")[0]
            remedy = (
                f"Develop it: darktable-cli '{name}' '{stem}.jpg'. Or take the camera's own JPEG "
                f"out of it: exiftool -b -PreviewImage '{name}' > '{stem}.jpg'."
            )
        ending = path.rpartition(".")[2].lower()
        raise PictureUnreadable(f"Files that end in .{ending} are not read.", remedy)


def is_heif(begin: bytes) -> bool:
    """Return whether a file that begins so is a HEIC; AVIFs are in the same container."""
    return begin[4:8] == b"ftyp" and begin[8:12] in _HEIF_BRANDS and b"avif" not in begin


def formats_of(file: IO[bytes]) -> tuple[str, ...]:
    """Return Pillow's names of the formats that a file may have, by how it begins.

    Raises PictureUnreadable for a HEIC if the package that reads it is not installed.
    """
    file.seek(0)
    if not is_heif(file.read(HEIF_BEGINS)):
        return FORMATS
    try:
        import pillow_heif  # the extra heic
    except ImportError as error:
        remedy = f"Type: {install_command('heic')}. Or save the photo as JPEG."
        words = "Reading HEIC needs pillow-heif, which is not installed."
        raise PictureUnreadable(words, remedy) from error
    pillow_heif.register_heif_opener(thumbnails=False)
    return (HEIF,)


def picture_size(file: IO[bytes], most_pixels: int = MOST_PIXELS) -> tuple[int, int]:
    """Return width and height of an upright picture, from its header. Raises PictureUnreadable."""
    image = opened(file, most_pixels)
    # Pillow gives the upright size of a TIFF.
    turned = image.format != "TIFF" and _orientation(image) in _TURNED
    return (image.height, image.width) if turned else image.size


def is_large(file: IO[bytes], most_pixels: int) -> bool:
    """Return whether to look at a picture takes more than a second or 200 MB.

    Raises PictureUnreadable if it has more than `most_pixels`, or cannot be opened.
    """
    image = opened(file, most_pixels)
    kind = image.format if image.format in SMALL_PIXELS else "JPEG"  # MPO is one, too
    small = SMALL_PIXELS[kind]
    if kind == "JPEG" and image.info.get("progressive"):
        small = _SMALL_PROGRESSIVE_PIXELS
    if kind == "PNG" and colours.has_more_than_8_bits(image):
        small = _SMALL_16_BIT_PIXELS
    if kind == HEIF and (image.has_transparency_data or image.info.get("chroma") in (422, 444)):
        small = _SMALL_FULL_HEIF_PIXELS
    return image.width * image.height > small or file.seek(0, io.SEEK_END) > _SMALL_BYTES


def check_picture(file: IO[bytes]) -> None:
    """Check that a picture can be decoded completely, as a picture and as a mask.

    That takes less memory: JPEGs and PNGs are read in blocks. Raises PictureUnreadable.
    """
    upright(file, checks_only=True)


def may_be_transparent(file: IO[bytes]) -> bool:
    """Whether a picture has transparency, by its header. Raises PictureUnreadable."""
    return bool(opened(file).has_transparency_data)


def is_photo(file: IO[bytes]) -> bool:
    """Whether EXIF names a camera, or a picture has a photo's noise. Raises PictureUnreadable."""
    image = opened(file)
    with suppress(Exception):  # as in `upright`
        from PIL import ImageFilter, ImageStat  # half a megabyte, for cutouts alone

        if image.width * image.height > _MOST_OF_DRAWINGS:
            return True
        if image.getexif().get(ExifTags.Base.Make):
            return True
        image.draft("RGB", (_NOISE_SIDE, _NOISE_SIDE))
        image.thumbnail((_NOISE_SIDE, _NOISE_SIDE))
        small = image.convert("RGB")
        rest = ImageChops.difference(small, small.filter(ImageFilter.MedianFilter(3)))
        return sum(ImageStat.Stat(rest).mean) / 3 > _MOST_NOISE
    return False


def taken(file: IO[bytes]) -> datetime:
    """Return when a photo was taken, by its EXIF, or else when its file was changed last."""
    with suppress(Exception):  # as in `upright`
        exif = opened(file).getexif()
        of_camera = exif.get_ifd(ExifTags.IFD.Exif)
        texts = [of_camera.get(_TAGS.DateTimeOriginal), of_camera.get(_TAGS.DateTimeDigitized)]
        for found in filter(None, map(_DATE.match, map(str, [*texts, exif.get(_TAGS.DateTime)]))):
            with suppress(ValueError):  # the 0th of a month
                year, month, day, hour, minute, second = (int(n or 0) for n in found.groups())
                return datetime(year, month, day, hour, minute, second)
    return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime)


def losses(image: Image.Image) -> Iterator[str]:
    """Yield what a picture of this file cannot have: `image` is opened, but need not be loaded."""
    if colours.has_both_bytes(image):
        yield KEEPABLE_BITS
    elif colours.has_more_than_8_bits(image):
        yield _MORE_BITS
    if image.mode == "CMYK":
        yield "The photo is in CMYK; the picture's colours are sRGB."


def upright(
    file: IO[bytes], *, checks_only: bool = False, byte: Literal["", "high", "low"] = ""
) -> Image.Image:
    """Return the decoded picture in 8 bits; with `checks_only`, one pixel of it.

    With `byte`, numbers of 16 bits are not scaled: it has their higher or lower bytes.
    """
    image = opened(file)
    try:
        if checks_only:
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        if byte == "low":
            colours.read_low_bytes(image)
        image.load()
        orientation = _orientation(image)
        if checks_only:
            image = image.crop((0, 0, 1, 1))
        upright = colours.byte_of(image, byte) if byte else _eight_bits(image)
        if colours.is_negative(image):
            upright = ImageOps.invert(upright)
        if orientation in _UPRIGHT:
            upright = upright.transpose(_UPRIGHT[orientation])
        upright.convert("RGBA" if checks_only else upright.mode)
        return upright
    # Pillow's readers raise whatever they stumble over: struct.error, IndexError, TypeError…
    except Exception as error:
        raise _damaged(error) from error


def _orientation(image: Image.Image) -> object:
    """Return EXIF's orientation; None without any, or if EXIF is damaged."""
    with suppress(Exception):  # as above
        return image.getexif().get(ExifTags.Base.Orientation)
    return None


def opened(file: IO[bytes], most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Open a picture if its kind and size are within the limits; no pixel is decoded."""
    size = file.seek(0, io.SEEK_END)
    if size > MAX_BYTES:
        words = f"It has {size / 1e6:,.0f} MB; the limit is {MAX_BYTES / 1e6:,.0f} MB."
        raise PictureUnreadable(words, "Make it smaller.")
    formats, few = formats_of(file), FewReads(file)
    try:
        image = Image.open(cast(IO[bytes], few), formats=formats)
    except Image.DecompressionBombError as error:
        raise _too_large("more than 1,000", most_pixels) from error
    except Exception as error:
        if not isinstance(error, UnidentifiedImageError):
            raise _damaged(error) from error
        what, remedy = "It is not a picture that can be read.", f"{_READABLE}."
        file.seek(0)
        if HEIF in formats:  # pillow-heif says no more
            what, remedy = "It is damaged.", "Copy it again."
        elif file.read(4) in _TIFF_BEGINS:
            what = (
                "It is a TIFF that is not whole, or not read, such as one with 32 bits a channel."
            )
            remedy = "Export it again, with 8 or 16 bits a channel."
        raise PictureUnreadable(what, remedy) from error
    if image.format == "AVIF":  # Pillow does not tell them
        image.info["nclx_profile"] = colours.code_points(file)
    if (pixels := image.width * image.height) > most_pixels:
        raise _too_large(f"{-(-pixels // 1_000_000):,}", most_pixels)
    if colours.is_hdr(image.info):
        raise PictureUnreadable("It is an HDR picture (PQ or HLG).", "Export it as JPEG.")
    if _has_several_frames(image):
        words = "It is animated or has several pages."
        raise PictureUnreadable(words, "Save the frame you want as a picture.")
    few.in_header = False
    colours.read_apart(image)
    return image


def _has_several_frames(image: Image.Image) -> bool:
    """Whether there are more frames or pages; damage is found when the first one is decoded."""
    # Of a JPEG with a camera's previews and gain maps behind it the first counts, of a HEIC the
    # primary picture.
    if image.format in ("MPO", HEIF):
        return False
    with suppress(Exception):
        return bool(getattr(image, "is_animated", False))
    return False


def _too_large(millions: str, most_pixels: int) -> PictureUnreadable:
    words = f"It has {millions} million pixels; the limit is {most_pixels / 1e6:g} million."
    more = ", or raise max_photo_megapixels" if most_pixels < MOST_PIXELS else ""
    return PictureUnreadable(words, f"Make it smaller{more}.")


def _damaged(error: Exception) -> PictureUnreadable:
    """Return what people are told of damage, with Pillow's message in one short line."""
    words = "".join(c if c.isprintable() else " " for c in str(error)).split()
    why = " ".join(words)[:200].rstrip(".") or type(error).__name__
    return PictureUnreadable(f"It is damaged: {why}.", "Copy it again.")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of 16 or 32 bits to 8; Pillow's own conversion clips instead of scaling."""
    if image.mode[0] not in "FI":
        return image
    white = 65535  # a file does not say which number is white: the brightest pixel tells
    if image.mode == "F":
        _, brightest = cast(tuple[float, float], image.getextrema())
        white = next((white for white in (1, 255) if brightest <= white), 65535)
    return image.point(lambda value: value * (255 / white) + 0.5).convert("L")
