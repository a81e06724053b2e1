"""PNG files with metadata: written from RGB bytes, read back for their texts."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, PngImagePlugin

from picowatch.errors import PictureUnreadable
from picowatch.metadata import PngText


def encode_png(width: int, height: int, pixels: bytes, texts: Sequence[PngText]) -> bytes:
    """A PNG file's bytes; `pixels` are RGB triples, the texts stand before the image data."""
    image = Image.frombytes("RGB", (width, height), pixels)
    chunks = PngImagePlugin.PngInfo()
    for text in texts:
        if text.is_latin1:
            chunks.add_text(text.keyword, text.text)
        else:
            chunks.add_itxt(text.keyword, text.text)
    file = BytesIO()
    image.save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def read_texts(path: Path) -> dict[str, str]:
    """The texts of a picture by keyword; raises PictureUnreadable."""
    try:
        with Image.open(path) as image:
            return {
                str(key): str(value) for key, value in image.info.items() if isinstance(value, str)
            }
    except FileNotFoundError as error:
        raise PictureUnreadable(f"There is no file {path}.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureUnreadable(
            f"{path} is not a picture that can be read: {error}.", "picowatch's pictures are PNGs."
        ) from error
