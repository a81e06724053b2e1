"""The texts in pictures, whoever wrote them: found without decoding a pixel.

Format of PNG: https://www.w3.org/TR/png-3/#5Chunk-layout, #11textinfo.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import IO, cast

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from picowatch.errors import PictureUnreadable
from picowatch.files.inside import open_regular
from picowatch.files.pictures import MAX_BYTES, FewReads, refuse_many_segments
from picowatch.metadata.exif import texts_in_comments, texts_in_exif

PICOWATCH = "picowatch"

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Start images in BMP, GIF and TIFF: no program writes its settings there.
_WITHOUT_TEXTS = (b"BM", b"GIF8", b"II*\0", b"MM\0*")
_LONGEST_START = 12  # RIFF, four bytes of length, WEBP
# Unpacked; what is longer is no settings, and a megabyte can be packed into a kilobyte.
MAX_TEXT_BYTES = 1024 * 1024
MAX_ALL_BYTES = 4 * MAX_TEXT_BYTES
MAX_TEXTS = 100
MAX_CHUNKS = 100_000


def read_texts(path: Path) -> dict[str, str]:
    """The texts of a picture by keyword; raises PictureUnreadable."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return texts_in(file)
    except FileNotFoundError as error:
        raise PictureUnreadable(f"There is no file {path}.") from error
    except OSError as error:
        raise PictureUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    except PictureUnreadable as error:
        raise PictureUnreadable(f"{path}: {error.message}", error.remedy) from error


def texts_of(content: bytes) -> dict[str, str]:
    """`texts_in` a picture's bytes."""
    return texts_in(BytesIO(content))


def texts_in(file: IO[bytes]) -> dict[str, str]:
    """The texts in a picture by keyword; no pixel is decoded, and not all of it is in memory.

    Of a PNG or JPEG the beginning is enough: ours have their texts before the pixels.
    An EXIF user comment, where A1111 puts its text in JPEGs and WebPs, is under
    "parameters". Raises PictureUnreadable.
    """
    size = file.seek(0, SEEK_END)
    file.seek(0)
    start = file.read(_LONGEST_START)
    if size > MAX_BYTES and not start.startswith((SIGNATURE, _JPEG)):
        raise PictureUnreadable(f"it has more than {MAX_BYTES / 1e6:.0f} MB.")
    if start.startswith(SIGNATURE):
        texts, exif = _png_texts(file, min(size, MAX_BYTES))
        return texts_in_exif(exif) | texts
    if start.startswith(_WITHOUT_TEXTS):
        return {}
    exif, comments = _exif_of(file, start)
    if sum(map(len, comments)) > MAX_ALL_BYTES:
        raise PictureUnreadable(_TOO_LONG)
    return texts_in_exif(exif) | texts_in_comments(comments)


def _exif_of(file: IO[bytes], start: bytes) -> tuple[bytes, list[bytes]]:
    """The EXIF data of a picture that is no PNG, empty if it has none; a JPEG's comments.

    Pillow's own `open` refuses large pictures, but how many pixels there are does not matter here.
    """
    if start.startswith(b"RIFF") and start.endswith(b"WEBP"):
        return _exif_of_webp(file), []
    refuse_many_segments(file)
    kind = JpegImageFile if start.startswith(_JPEG) else _avif_reader()
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with kind(cast(IO[bytes], FewReads(file))) as image:
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


def _exif_of_webp(file: IO[bytes]) -> bytes:
    """Return the chunk of that name: https://developers.google.com/speed/webp/docs/riff_container."""
    position = 12
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            break
        kind, length = struct.unpack("<4sI", head)
        if kind == b"EXIF":
            return file.read(length)
        position += 8 + length + length % 2
    return b""


def _png_texts(file: IO[bytes], size: int) -> tuple[dict[str, str], bytes]:
    """The texts of a PNG by keyword, and its EXIF data; no more is unpacked than the limits allow.

    From a truncated file, it returns what precedes the end.
    """
    texts: dict[str, str] = {}
    exif = b""
    for kind, body in _chunks(file, size):
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


def _chunks(file: IO[bytes], size: int) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of the chunks that hold texts or EXIF."""
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if size < position + 12:
            return
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        position += 12 + length
        if kind == b"IEND" or position > size:
            return
        if kind not in (*_READERS, b"eXIf"):
            continue
        body, sum_ = file.read(length), file.read(4)
        if struct.pack(">I", zlib.crc32(kind + body)) != sum_:
            raise PictureUnreadable(f"it is damaged: its {kind.decode()} chunk is not as written.")
        yield kind, body
    raise PictureUnreadable(f"it has more than {MAX_CHUNKS:,} chunks.")


def _plain(rest: bytes) -> str:
    return _latin1_or_utf8(_short(rest))


def _packed(rest: bytes) -> str:
    return _latin1_or_utf8(_unpacked(rest[1:]))


def _latin1_or_utf8(text: bytes) -> str:
    """The text; Latin-1 by the standard, but some programs write UTF-8 (Stability Matrix)."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


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
