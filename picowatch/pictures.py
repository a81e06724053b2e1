"""Pictures that users bring: start images and masks, decoded with limits, everywhere alike.

The daemon checks one when it takes a save in, the engine reads it when it makes the image.
"""

import warnings
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
    # Pillow warns of odd tags and large pictures; whoever reads the log can do nothing about it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _opened(content)
        try:
            image.load()
            return _eight_bits(ImageOps.exif_transpose(image)).convert("RGBA")
        # Pillow's readers raise whatever they stumble over: struct.error, IndexError, TypeError…
        except Exception as error:
            raise PictureUnreadable(f"It is damaged: {_reason(error)}.") from error


def _opened(content: bytes) -> Image.Image:
    """The picture's header, if its kind and size are within the limits; no pixel is decoded."""
    if len(content) > MAX_BYTES:
        raise PictureUnreadable(
            f"It has {len(content) / 1e6:.0f} MB; {MAX_BYTES / 1e6:.0f} MB are the limit.",
            "Make it smaller.",
        )
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except Exception as error:
        raise PictureUnreadable(
            "It is no picture that can be read.", f"These can: {', '.join(FORMATS)}."
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large()
    if _frames(image) > 1:
        raise PictureUnreadable(
            "It is animated or has several pages.", "Save the one frame you mean as a picture."
        )
    return image


def _frames(image: Image.Image) -> int:
    """How many frames or pages there are; damage is found when the first one is decoded."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:
        return 1


def _too_large() -> PictureUnreadable:
    return PictureUnreadable(
        f"It has more than {MAX_PIXELS // 1_000_000} million pixels.", "Make it smaller."
    )


def _reason(error: Exception) -> str:
    """What Pillow says, in one short line."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey brought to 8 bits; Pillow's own conversion cuts instead of scaling."""
    if image.mode.startswith("I"):
        return image.point(lambda value: value / 257 + 0.5).convert("L")
    return image
