"""The formats of published pictures: a row says all there is to say about one.

The ending of a picture's file decides its format. So one whose name was reserved before the setting
`format` changed is still what its name says, and pictures are found whatever the setting was.
"""

from dataclasses import dataclass

SIDECAR_ENDING = ".txt"


@dataclass(frozen=True, slots=True)
class Format:
    """`quality` is what "auto" means; None for a format without one.

    `longest_side` is the most pixels that the format, or its library, has room for.
    """

    name: str
    ending: str
    longest_side: int
    quality: int | None = None

    @property
    def pillow_name(self) -> str:
        return self.name.upper()


FORMATS = {
    one.name: one
    for one in (
        Format("png", ".png", 2**31 - 1),
        Format("jpeg", ".jpg", 65_500, 92),  # libjpeg's JPEG_MAX_DIMENSION
        Format("webp", ".webp", 16_383, 90),  # 14 bits
        Format("avif", ".avif", 16_384, 80),  # what browsers decode
    )
}
PNG = FORMATS["png"]
ENDINGS = tuple(one.ending for one in FORMATS.values())
PILLOW_NAMES = tuple(one.pillow_name for one in FORMATS.values())


def format_of(file: str) -> Format:
    """The format that a file's ending names; PNG for any other ending."""
    return next((one for one in FORMATS.values() if file.endswith(one.ending)), PNG)


def sidecar_of(file: str) -> str:
    """The text beside a picture: its file with another ending."""
    return file.removesuffix(format_of(file).ending) + SIDECAR_ENDING
