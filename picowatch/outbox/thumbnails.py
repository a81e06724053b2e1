"""Small pictures for the gallery."""

from PIL import Image

from picowatch.files.pictures import in_srgb

SIDE = 384  # the longer side in pixels: sharp in rows of 190 on a dense display


def shrink(picture: Image.Image) -> Image.Image:
    """Return a small picture in sRGB; this changes `picture`."""
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small = in_srgb(picture)
    small.info.pop("icc_profile", None)
    return small
