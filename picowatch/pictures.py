"""Pictures that users bring: start images and masks, decoded with limits, everywhere alike.

The daemon checks one when it takes a save in, the engine reads it when it makes the image.
"""

from io import BytesIO

from PIL import Image, ImageOps

from picowatch.errors import PictureUnreadable

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 64_000_000  # an 8000 x 8000 photo; more is refused from the header
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


def decode_picture(content: bytes) -> Image.Image:
    """An RGB picture, upright (EXIF), transparency on white, 16 bits brought to 8.

    Raises PictureUnreadable with a sentence for people: no picture, too large (told from the
    header, before anything is decoded), animated, damaged.
    """
    picture = _decoded(content)
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def decode_mask(content: bytes) -> Image.Image:
    """A mask as 8-bit grey, upright; transparent counts as black. Raises as `decode_picture`."""
    mask = _decoded(content)
    black = Image.new("RGBA", mask.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, mask).convert("L")


def _decoded(content: bytes) -> Image.Image:
    image = _opened(content)
    try:
        image.load()
        return _eight_bits(ImageOps.exif_transpose(image)).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureUnreadable(f"It is damaged: {error}.") from error


def _opened(content: bytes) -> Image.Image:
    if len(content) > MAX_BYTES:
        raise PictureUnreadable(
            f"It has {len(content) / 1e6:.0f} MB; {MAX_BYTES / 1e6:.0f} MB are the limit.",
            "Make it smaller.",
        )
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except (OSError, ValueError, SyntaxError) as error:
        raise PictureUnreadable(
            "It is no picture that can be read.", f"These can: {', '.join(FORMATS)}."
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large()
    if getattr(image, "n_frames", 1) > 1:
        raise PictureUnreadable(
            "It is animated or has several pages.", "Save the one frame you mean as a picture."
        )
    return image


def _too_large() -> PictureUnreadable:
    return PictureUnreadable(
        f"It has more than {MAX_PIXELS // 1_000_000} million pixels.", "Make it smaller."
    )


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey brought to 8 bits; Pillow's own conversion cuts instead of scaling."""
    if image.mode.startswith("I"):
        return image.point(lambda value: value / 257).convert("L")
    return image
