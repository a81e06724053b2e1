"""The texts in pictures, whoever wrote them: found without decoding a pixel.

Format of PNG: https://www.w3.org/TR/png-3/#5Chunk-layout, #11textinfo.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from picowatch.errors import PictureUnreadable
from picowatch.files.inside import open_regular
from picowatch.files.pictures import MAX_BYTES, FewReads, refuse_many_segments
from picowatch.metadata.exif import texts_in_comments, texts_in_exif

PICOWATCH = "picowatch"

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Unpacked; what is longer is no settings, and a megabyte can be packed into a kilobyte.
MAX_TEXT_BYTES = 1024 * 1024
MAX_ALL_BYTES = 4 * MAX_TEXT_BYTES
MAX_TEXTS = 100
MAX_CHUNKS = 100_000


def read_texts(path: Path) -> dict[str, str]:
    """The texts of a picture by keyword; raises PictureUnreadable."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return texts_of(file.read(MAX_BYTES + 1))
    except FileNotFoundError as error:
        raise PictureUnreadable(f"There is no file {path}.") from error
    except OSError as error:
        raise PictureUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    except PictureUnreadable as error:
        raise PictureUnreadable(f"{path}: {error.message}", error.remedy) from error


def texts_of(content: bytes) -> dict[str, str]:
    """The texts in a picture's bytes by keyword; no pixel is decoded.

    Of a PNG or JPEG the beginning is enough: ours have their texts before the pixels.
    An EXIF user comment, where A1111 puts its text in JPEGs and WebPs, is under
    "parameters". Raises PictureUnreadable.
    """
    if len(content) > MAX_BYTES and not content.startswith((SIGNATURE, _JPEG)):
        raise PictureUnreadable(f"it has more than {MAX_BYTES / 1e6:.0f} MB.")
    if content.startswith(SIGNATURE):
        texts, exif = _png_texts(content)
        return texts_in_exif(exif) | texts
    exif, comments = _exif_of(content)
    if sum(map(len, comments)) > MAX_ALL_BYTES:
        raise PictureUnreadable(_TOO_LONG)
    return texts_in_exif(exif) | texts_in_comments(comments)


def _exif_of(content: bytes) -> tuple[bytes, list[bytes]]:
    """The EXIF data of a picture that is no PNG, empty if it has none; a JPEG's comments.

    Pillow's own `open` refuses large pictures, but how many pixels there are does not matter here.
    """
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _exif_of_webp(content), []
    refuse_many_segments(content)
    kind = JpegImageFile if content.startswith(_JPEG) else _avif_reader()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with kind(FewReads(content)) as image:
                exif = image.info.get("exif", b"")
                segments = getattr(image, "applist", [])
        # Pillow's readers raise whatever they stumble over: struct.error, IndexError, TypeError…
        except Exception as error:
            raise PictureUnreadable(
                "it is not a picture that can be read.", "PNG, JPEG, WebP and AVIF can."
            ) from error
    comments = [segment for kind, segment in segments if kind == "COM"]
    return exif if isinstance(exif, bytes) else b"", comments


def _avif_reader() -> type[ImageFile]:
    from PIL.AvifImagePlugin import AvifImageFile  # loads a library, which few commands need

    return AvifImageFile


def _exif_of_webp(content: bytes) -> bytes:
    """Its chunk of that name: https://developers.google.com/speed/webp/docs/riff_container."""
    position = 12
    for _ in range(MAX_CHUNKS):
        if len(content) < position + 8:
            break
        kind, length = struct.unpack_from("<4sI", content, position)
        position += 8
        if kind == b"EXIF":
            return content[position : position + length]
        position += length + length % 2
    return b""


def _png_texts(content: bytes) -> tuple[dict[str, str], bytes]:
    """The texts of a PNG by keyword, and its EXIF data; no more is unpacked than the limits allow.

    From a truncated file, it returns what precedes the end.
    """
    texts: dict[str, str] = {}
    exif = b""
    for kind, body in _chunks(content):
        if kind == b"eXIf":
            exif = body
        elif kind in _READERS:
            if len(texts) == MAX_TEXTS:
                raise PictureUnreadable(f"it has more than {MAX_TEXTS} texts.")
            keyword, _, rest = body.partition(b"\0")
            name = keyword[:79].decode("latin-1")
            try:
                texts[name] = _READERS[kind](rest)
            except (zlib.error, ValueError, IndexError):
                raise PictureUnreadable(f"its text {name!r} is damaged.") from None
            if sum(map(len, texts.values())) > MAX_ALL_BYTES:
                raise PictureUnreadable(_TOO_LONG)
    return texts, exif


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of the chunks that hold texts or EXIF."""
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if len(content) < position + 12:
            return
        length, kind = struct.unpack_from(">I4s", content, position)
        start, position = position + 8, position + 12 + length
        if kind == b"IEND" or position > len(content):
            return
        if kind not in (*_READERS, b"eXIf"):
            continue
        body = content[start : start + length]
        (sum_,) = struct.unpack_from(">I", content, start + length)
        if zlib.crc32(kind + body) != sum_:
            raise PictureUnreadable(f"it is damaged: its {kind.decode()} chunk is not as written.")
        yield kind, body
    raise PictureUnreadable(f"it has more than {MAX_CHUNKS:,} chunks.")


def _plain(rest: bytes) -> str:
    return _short(rest).decode("latin-1")


def _packed(rest: bytes) -> str:
    return _unpacked(rest[1:]).decode("latin-1")


def _international(rest: bytes) -> str:
    """Whether it is packed, how, its language, the keyword in that language, the text in UTF-8."""
    is_packed = rest[0]
    _, _, text = rest[2:].split(b"\0", 2)
    return (_unpacked(text) if is_packed else _short(text)).decode("utf-8")


_TOO_LONG = "its texts are too long to be settings."
_READERS = {b"tEXt": _plain, b"zTXt": _packed, b"iTXt": _international}


def _unpacked(packed: bytes) -> bytes:
    return _short(zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES + 1))


def _short(text: bytes) -> bytes:
    if len(text) > MAX_TEXT_BYTES:
        raise PictureUnreadable(_TOO_LONG)
    return text
