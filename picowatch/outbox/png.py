"""PNG files with metadata: written from RGB bytes, read back for their texts."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image, PngImagePlugin

from picowatch.errors import PictureUnreadable
from picowatch.metadata import PARAMETERS, PngText


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
        return texts_of(path.read_bytes())
    except FileNotFoundError as error:
        raise PictureUnreadable(f"There is no file {path}.") from error
    except OSError as error:
        raise PictureUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    except PictureUnreadable as error:
        raise PictureUnreadable(f"{path}: {error.message}", error.remedy) from error


def texts_of(content: bytes) -> dict[str, str]:
    """The texts in a picture's bytes by keyword; no pixel is decoded.

    A JPEG's or WebP's EXIF user comment, where A1111 puts its text, stands under "parameters".
    Raises PictureUnreadable.
    """
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
            texts = {str(key): text for key, text in image.info.items() if isinstance(text, str)}
            comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    except (OSError, ValueError, SyntaxError, KeyError, Image.DecompressionBombError) as error:
        raise PictureUnreadable(
            f"it is not a picture that can be read: {error}.", "PNG, JPEG and WebP can."
        ) from error
    if isinstance(comment, bytes):
        texts.setdefault(PARAMETERS, _user_comment(comment))
    return texts


def _user_comment(comment: bytes) -> str:
    """EXIF 2.32, 4.6.5: eight bytes name the encoding of what follows."""
    encoding, text = comment[:8], comment[8:]
    if encoding.startswith(b"UNICODE"):
        # Writers disagree on the byte order; the first letter of the text tells.
        order = "utf-16-be" if text[:1] == b"\0" else "utf-16-le"
        return text.decode(order, "replace")
    return text.decode("utf-8", "replace")
