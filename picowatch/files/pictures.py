"""Pictures that users provide: start images and masks, decoded with limits.

The daemon checks them when it accepts a save, and the engine reads them when it renders.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import IO, cast

from PIL import ExifTags, Image, ImageChops, ImageCms, UnidentifiedImageError

from picowatch.errors import PictureUnreadable, install_command
from picowatch.files import wide_gamut
from picowatch.files.inside import MAX_BYTES as MAX_BYTES
from picowatch.files.names import RAW_ENDINGS, is_other_picture_name

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
HEIF, HEIF_BEGINS = "HEIF", 32  # what phones write as .heic; bytes that tell it
_READABLE = f"Readable formats: {', '.join(FORMATS)}, HEIC. Convert it to one of them"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# Larger pictures are refused by their headers. This many pixels are checked within a second and
# 200 MB, including the file's own bytes: Pillow takes 4 bytes a pixel for most formats, 15 for
# WebP, 8 for HEIC, and for TIFF up to 12 if one strip holds the whole picture. A JPEG is checked at
# an eighth of its size, but reading a progressive one takes 6 to 8 bytes for each of its pixels.
MAX_PIXELS = {
    "JPEG": 64_000_000,
    "PNG": 20_000_000,
    "BMP": 20_000_000,
    "GIF": 20_000_000,
    "WEBP": 8_000_000,
    "AVIF": 8_000_000,
    "TIFF": 10_000_000,
    HEIF: 25_000_000,  # phones' largest have 24.5 million
}
MAX_PROGRESSIVE_PIXELS = 20_000_000
MAX_16_BIT_PIXELS = 10_000_000
# With transparency, or a colour for each pixel: 20 bytes for each; phones' have 4:2:0 and need 8.
MAX_FULL_HEIF_PIXELS = 8_000_000
# Parts (chunks, markers, blocks) that a file is read in; a photo has some thousand at most.
MAX_READS = 200_000
# What is read before the pixels: metadata, and a TIFF's directory, of which each number becomes a
# Python object. Pillow joins a JPEG's pieces of EXIF data by copying all earlier ones each time.
MAX_HEADER_BYTES = 16 * 1024 * 1024
# Of files that are read at once, metadata included, of which Pillow holds up to six copies.
MAX_BYTES_AT_ONCE = 24 * 1024 * 1024
_TOO_LARGE = "it has too many parts, or too large ones"
WHITE = 128  # a mask's grey from here on counts as white
_DARK_GREY, _LIGHT_GREY = 64, 192
_MOST_GREY = 0.3  # of a mask; soft edges have less
# What makes a picture upright, by EXIF's orientation (EXIF 2.32, 4.6.4).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = (5, 6, 7, 8)  # orientations that stand a picture on its side


class FewReads(io.BufferedIOBase):
    """A file that limits how often it is read, and how much of it as long as `in_header`.

    Pictures may have millions of tiny parts, and metadata as large as the file. WebPs, AVIFs and
    HEICs are read at once. It has no `fileno`, because Pillow's TIFF reader would use that to read
    past the limits.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._reads = self._bytes = 0
        self.in_header = True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does. Raises OSError beyond the limits."""
        self._reads += 1
        if size is None or size < 0:
            content = self._file.read()
            if self.in_header and len(content) > MAX_BYTES_AT_ONCE:
                raise OSError(_TOO_LARGE)
            return content
        self._bytes += size if self.in_header else 0
        if self._reads > MAX_READS or self._bytes > MAX_HEADER_BYTES:
            raise OSError(_TOO_LARGE)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def refuse_other_name(path: str) -> None:
    """Raise PictureUnreadable if the name is that of a format that is not read, as RAW.

    Pillow takes most cameras' RAW files for TIFFs, of which it reads the thumbnail.
    """
    if is_other_picture_name(path):
        remedy = f"{_READABLE}, or give it its own ending if it is one."
        if path.lower().endswith(RAW_ENDINGS):
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
        raise PictureUnreadable(
            "Reading HEIC needs pillow-heif, which is not installed.",
            f"Type: {install_command('heic')}. Or save the photo as JPEG.",
        ) from error
    pillow_heif.register_heif_opener(thumbnails=False)
    return (HEIF,)


def picture_size(file: IO[bytes]) -> tuple[int, int]:
    """Return width and height of an upright picture, from its header. Raises PictureUnreadable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _opened(file)
        # Pillow gives the upright size of a TIFF.
        turned = image.format != "TIFF" and _orientation(image) in _TURNED
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


def decode_alpha(content: bytes) -> Image.Image:
    """Return a picture as its own mask, what is transparent white. Raises like `decode_picture`."""
    return ImageChops.invert(_upright(BytesIO(content)).convert("RGBA").getchannel("A"))


def is_transparent(file: IO[bytes]) -> bool:
    """Return whether anything in a picture is transparent; only one that may be so is decoded.

    Raises like `decode_picture`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        may_be = _opened(file).has_transparency_data
    file.seek(0)
    return may_be and decode_alpha(file.read()).getbbox() is not None


def mask_warnings(path: str, greys: list[int], inverted: bool) -> Iterator[str]:
    """Yield why a mask selects nothing, everything, or what nobody has drawn.

    `greys` counts its pixels of each grey, black first.
    """
    white = sum(greys[WHITE:])
    what = "stays" if inverted else "is redrawn"
    if sum(greys[_DARK_GREY:_LIGHT_GREY]) > _MOST_GREY * sum(greys):
        yield (
            f"The mask '{path}' is mostly grey, as a photo is: what is lighter than medium grey "
            f"counts as white. Paint what {what} white, and the rest black."
        )
    elif not white or white == sum(greys):
        extent = "everything" if bool(white) != inverted else "nothing"
        missing = "black" if white else "white"
        yield f"The mask '{path}' has no {missing}, so {extent} is redrawn."


def _in_srgb(picture: Image.Image) -> Image.Image:
    """Convert to RGB or RGBA in sRGB: phones and cameras embed profiles of other colour spaces.

    A profile that cannot be used, such as that of a grey picture with transparency, is ignored.
    """
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
    elif picture.mode not in ("RGB", "L", "CMYK"):  # those with profiles of their own
        picture = picture.convert("RGB")
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    if profile := picture.info.get("icc_profile") or wide_gamut.profile_of(picture.info):
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
            orientation = _orientation(image)
            if checks_only:
                image = image.crop((0, 0, 1, 1))
            upright = _eight_bits(image)
            if orientation in _UPRIGHT:
                upright = upright.transpose(_UPRIGHT[orientation])
            upright.convert("RGBA" if checks_only else upright.mode)
            return upright
        # Pillow's readers raise whatever they stumble over: struct.error, IndexError, TypeError…
        except Exception as error:
            raise PictureUnreadable(f"It is damaged: {_reason(error)}.") from error


def _orientation(image: Image.Image) -> object:
    """Return EXIF's orientation; None without one, or if EXIF is damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # as above
        return None


def _opened(file: IO[bytes]) -> Image.Image:
    """Open a picture if its kind and size are within the limits; no pixel is decoded."""
    size = file.seek(0, io.SEEK_END)
    if size > MAX_BYTES:
        raise PictureUnreadable(
            f"It has {size / 1e6:.0f} MB; the limit is {MAX_BYTES / 1e6:.0f} MB.",
            "Make it smaller.",
        )
    formats, few = formats_of(file), FewReads(file)
    try:
        image = Image.open(cast(IO[bytes], few), formats=formats)
    except Image.DecompressionBombError as error:
        raise _too_large(max(MAX_PIXELS.values()), "a picture") from error
    except Exception as error:
        if not isinstance(error, UnidentifiedImageError):
            raise PictureUnreadable(f"It is damaged: {_reason(error)}.") from error
        if HEIF in formats:  # pillow-heif says no more
            raise PictureUnreadable("It is damaged.") from error
        raise PictureUnreadable("It is not a picture that can be read.", f"{_READABLE}.") from error
    if image.format == "AVIF":  # Pillow does not tell them
        image.info["nclx_profile"] = wide_gamut.code_points(file)
    limit, kind = _most_pixels(image)
    if image.width * image.height > limit:
        raise _too_large(limit, kind)
    if wide_gamut.is_hdr(image.info):
        raise PictureUnreadable("It is an HDR picture (PQ or HLG).", "Export it as JPEG.")
    if _has_several_frames(image):
        raise PictureUnreadable(
            "It is animated or has several pages.", "Save the frame you want as a picture."
        )
    few.in_header = False
    return image


def _most_pixels(image: Image.Image) -> tuple[int, str]:
    """Return how many pixels a picture of its kind may have, and what the kind is called."""
    kind = image.format if image.format in MAX_PIXELS else "JPEG"  # MPO is one, too
    if kind == "JPEG" and image.info.get("progressive"):
        return MAX_PROGRESSIVE_PIXELS, "a progressive JPEG"
    if kind == "PNG" and any("16" in str(tile.args) for tile in image.tile):  # type: ignore[attr-defined]
        return MAX_16_BIT_PIXELS, "a PNG with 16 bits"
    if kind == HEIF and (image.has_transparency_data or image.info.get("chroma") in (422, 444)):
        return MAX_FULL_HEIF_PIXELS, "a HEIC with transparency or without 4:2:0"
    return MAX_PIXELS[kind], f"{'an' if kind == 'AVIF' else 'a'} {kind}"


def _has_several_frames(image: Image.Image) -> bool:
    """Whether there are more frames or pages; damage is found when the first one is decoded.

    In Pillow's MPO, a JPEG with a camera's previews and gain maps behind it, only the first counts;
    in a HEIC, its primary picture.
    """
    if image.format in ("MPO", HEIF):
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:
        return False


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
