"""Pictures that users provide: start images and masks, decoded with limits.

The daemon checks them when it accepts a save, and the engine reads them when it renders.
"""

import io
import struct
import warnings
from contextlib import suppress
from io import BytesIO
from typing import IO, cast

from PIL import ExifTags, Image, ImageCms, ImageOps

from picowatch.errors import PictureUnreadable
from picowatch.files.inside import blocks_of
from picowatch.files.names import is_other_picture_name

MAX_BYTES = 64 * 1024 * 1024
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
_READABLE = f"Readable formats: {', '.join(FORMATS)}. Convert it to one of them"
# Larger pictures are refused by their headers. This many pixels are checked within a second and
# 200 MB, including the file's own bytes: Pillow takes 4 bytes a pixel for most formats, 15 for
# WebP, and for TIFF up to 12 if one strip holds the whole picture. A JPEG is checked at an eighth
# of its size, but reading a progressive one takes 6 to 8 bytes for each of its pixels.
MAX_PIXELS = {
    "JPEG": 64_000_000,
    "PNG": 20_000_000,
    "BMP": 20_000_000,
    "GIF": 20_000_000,
    "WEBP": 8_000_000,
    "AVIF": 8_000_000,
    "TIFF": 10_000_000,
}
MAX_PROGRESSIVE_PIXELS = 20_000_000
MAX_16_BIT_PIXELS = 10_000_000
# Parts (chunks, markers, blocks) that a file is read in; a photo has some thousand at most.
MAX_READS = 200_000
# Of a TIFF's directory; each number in one of its entries becomes a Python object.
MAX_TIFF_ENTRIES = 1000
MAX_TIFF_NUMBERS = 100_000
_TURNED = (5, 6, 7, 8)  # EXIF's orientations that stand a picture on its side
# A photo has its EXIF data in one segment. Pillow joins them by copying all earlier ones each time.
MAX_EXIF_SEGMENTS = 50
_EXIF_SEGMENT = b"Exif\0\0"
_JPEG_START = b"\xff\xd8"
_TIFF_STARTS = (b"II*\0", b"MM\0*")
_BIG_TIFF_STARTS = (b"II+\0", b"MM\0+")
_SHORT_TIFF_TYPES = (1, 2, 6, 7)  # bytes and texts, which stay one object


class FewReads(io.BufferedIOBase):
    """A file that limits how often it is read, for pictures with millions of tiny parts.

    It has no `fileno`, because Pillow's TIFF reader would use that to read past the limit.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does, but only MAX_READS times."""
        self._reads += 1
        if self._reads > MAX_READS:
            raise OSError("it has too many parts")
        return self._file.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def refuse_other_name(path: str) -> None:
    """Raise PictureUnreadable if the name is that of a format that is not read, as RAW.

    Pillow takes most cameras' RAW files for TIFFs, of which it reads the thumbnail.
    """
    if is_other_picture_name(path):
        raise PictureUnreadable(
            f"Files that end in .{path.rpartition('.')[2].lower()} are not read.",
            f"{_READABLE}, or give it its own ending if it is one.",
        )


def picture_size(file: IO[bytes]) -> tuple[int, int]:
    """Return width and height of an upright picture, from its header. Raises PictureUnreadable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _opened(file)
        try:
            # Pillow gives the upright size of a TIFF.
            turns = image.format != "TIFF"
            turned = turns and image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
        except Exception as error:
            raise PictureUnreadable(f"It is damaged: {_reason(error)}.") from error
    return (image.height, image.width) if turned else image.size


def check_picture(file: IO[bytes]) -> None:
    """Check that a picture can be decoded completely, as a picture and as a mask.

    That takes less memory than decoding it: JPEGs and PNGs are read in blocks. Raises like
    `decode_picture`.
    """
    _upright(file, checks_only=True)


def decode_picture(content: bytes) -> Image.Image:
    """Return an RGB picture: upright (EXIF), in sRGB, transparency on white, 16 bits scaled to 8.

    Raises PictureUnreadable with a sentence for people: not a picture, too large (known from the
    header, before anything is decoded), animated, or damaged.
    """
    return on_white(decode_with_alpha(content))


def decode_with_alpha(content: bytes) -> Image.Image:
    """Return a picture like `decode_picture`, but RGBA if anything in it is transparent.

    Raises like `decode_picture`.
    """
    picture = _in_srgb(_upright(BytesIO(content)))
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255):
        return picture.convert("RGB")
    return picture


def on_white(picture: Image.Image) -> Image.Image:
    """Put an RGBA picture on white; an RGB picture is returned as it is."""
    if picture.mode == "RGB":
        return picture
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def decode_mask(content: bytes) -> Image.Image:
    """Return an upright mask in 8-bit grey, transparency as black. Raises like `decode_picture`."""
    mask = _upright(BytesIO(content)).convert("RGBA")
    black = Image.new("RGBA", mask.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, mask).convert("L")


def _in_srgb(picture: Image.Image) -> Image.Image:
    """Convert to RGB or RGBA in sRGB: phones and cameras embed profiles of other colour spaces.

    A profile that cannot be used, such as that of a grey picture with transparency, is ignored.
    """
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
    elif picture.mode not in ("RGB", "L", "CMYK"):  # those with profiles of their own
        picture = picture.convert("RGB")
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    if profile := picture.info.get("icc_profile"):
        with suppress(OSError, ImageCms.PyCMSError):
            theirs, srgb = (
                ImageCms.ImageCmsProfile(BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
            )
            return ImageCms.profileToProfile(picture, theirs, srgb, outputMode=mode) or picture
    return picture.convert(mode)


def _upright(file: IO[bytes], *, checks_only: bool = False) -> Image.Image:
    """Return the decoded picture in 8 bits; with `checks_only`, one pixel of it."""
    # Pillow warns of odd tags and large pictures, about which nobody can do anything.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _opened(file)
        try:
            if checks_only:
                image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
            if checks_only:
                image.getexif()  # read before the rest is cut off, because that may fail, too
                image = image.crop((0, 0, 1, 1))
            upright = _eight_bits(ImageOps.exif_transpose(image))
            upright.convert("RGBA" if checks_only else upright.mode)
            return upright
        # Pillow's readers raise whatever they stumble over: struct.error, IndexError, TypeError…
        except Exception as error:
            raise PictureUnreadable(f"It is damaged: {_reason(error)}.") from error


def _opened(file: IO[bytes]) -> Image.Image:
    """Open a picture if its kind and size are within the limits; no pixel is decoded."""
    size = file.seek(0, io.SEEK_END)
    if size > MAX_BYTES:
        raise PictureUnreadable(
            f"It has {size / 1e6:.0f} MB; the limit is {MAX_BYTES / 1e6:.0f} MB.",
            "Make it smaller.",
        )
    _refuse_long_tiff(file)
    refuse_many_segments(file)
    try:
        image = Image.open(cast(IO[bytes], FewReads(file)), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(max(MAX_PIXELS.values()), "a picture") from error
    except Exception as error:
        raise PictureUnreadable(
            "It is not a picture that can be read.",
            f"{_READABLE}.",
        ) from error
    limit, kind = _most_pixels(image)
    if image.width * image.height > limit:
        raise _too_large(limit, kind)
    if _has_several_frames(image):
        raise PictureUnreadable(
            "It is animated or has several pages.", "Save the frame you want as a picture."
        )
    return image


def _most_pixels(image: Image.Image) -> tuple[int, str]:
    """Return how many pixels a picture of its kind may have, and what the kind is called."""
    kind = image.format if image.format in MAX_PIXELS else "JPEG"  # MPO is one, too
    if kind == "JPEG" and image.info.get("progressive"):
        return MAX_PROGRESSIVE_PIXELS, "a progressive JPEG"
    if kind == "PNG" and any("16" in str(tile.args) for tile in image.tile):  # type: ignore[attr-defined]
        return MAX_16_BIT_PIXELS, "a PNG with 16 bits"
    return MAX_PIXELS[kind], f"{'an' if kind == 'AVIF' else 'a'} {kind}"


def _has_several_frames(image: Image.Image) -> bool:
    """Whether there are more frames or pages; damage is found when the first one is decoded.

    In Pillow's MPO, a JPEG with a camera's previews and gain maps behind it, only the first counts.
    """
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:
        return False


def refuse_many_segments(file: IO[bytes]) -> None:
    """Refuse a JPEG with many segments of EXIF data: a thousand take twenty seconds to join."""
    if _start_of(file) != _JPEG_START:
        return
    segments, end = 0, b""
    for block in blocks_of(file, MAX_BYTES):
        segments += (end + block).count(_EXIF_SEGMENT)
        end = (end + block)[1 - len(_EXIF_SEGMENT) :]
    if segments > MAX_EXIF_SEGMENTS:
        raise PictureUnreadable("It is damaged: its EXIF data is in too many pieces.")


def _start_of(file: IO[bytes], length: int = 2) -> bytes:
    file.seek(0)
    return file.read(length)


def _refuse_long_tiff(file: IO[bytes]) -> None:
    """Refuse a TIFF whose directory has millions of numbers, which Pillow makes a tuple of."""
    start = _start_of(file, 8)
    if start.startswith(_BIG_TIFF_STARTS):
        raise PictureUnreadable("It is a BigTIFF.", "Save it as a PNG.")
    if not start.startswith(_TIFF_STARTS):
        return
    order = "<" if start.startswith(b"II") else ">"
    try:
        file.seek(*struct.unpack_from(f"{order}I", start, 4))
        (entries,) = struct.unpack(f"{order}H", file.read(2))
        if entries > MAX_TIFF_ENTRIES:
            raise PictureUnreadable("It is damaged: its directory is invalid.")
        directory = file.read(12 * entries)
        for entry in range(entries):
            _, kind, count = struct.unpack_from(f"{order}HHI", directory, 12 * entry)
            if count > MAX_TIFF_NUMBERS and kind not in _SHORT_TIFF_TYPES:
                raise PictureUnreadable("It is damaged: its directory is invalid.")
    except struct.error:
        return  # Pillow says what is wrong with it


def _too_large(limit: int, kind: str) -> PictureUnreadable:
    return PictureUnreadable(
        f"It has more than {limit // 1_000_000} million pixels, the limit for {kind}.",
        "Make it smaller.",
    )


def _reason(error: Exception) -> str:
    """Return Pillow's message in one short line."""
    words = "".join(c if c.isprintable() else " " for c in str(error)).split()
    return " ".join(words)[:200].rstrip(".") or type(error).__name__


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of 16 or 32 bits to 8; Pillow's own conversion clips instead of scaling.

    A file does not say which number is white: the brightest pixel decides between 1, 255 and 65535.
    """
    if image.mode[0] not in "FI":
        return image
    white = 65535
    if image.mode == "F":
        _, brightest = cast(tuple[float, float], image.getextrema())
        white = next((white for white in (1, 255) if brightest <= white), 65535)
    return image.point(lambda value: value * (255 / white) + 0.5).convert("L")
