"""The texts in pictures, whichever program wrote them, read without decoding pixels; writes EXIF.

In formats other than PNG, A1111's text is the EXIF user comment, in exactly the form that A1111
writes (`UNICODE`, a NUL, UTF-16 with the most significant byte first) and that Civitai and
sd-parsers read. Any other text is in MakerNote, after its keyword and a colon: MakerNote is for
what only the maker understands (EXIF 2.32, 4.6.5), so readers ignore it and no photo program shows
JSON as a caption. Where a photo's maker is named, readers would take it for that maker's: there it
is in DNGPrivateData, which is for any program (DNG 1.7.1).
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, cast

from PIL import ExifTags, Image, PngImagePlugin, TiffTags

from picowatch.errors import PictureUnreadable
from picowatch.files.pictures import HEIF_BEGINS, TEXTS_LEFT_OUT, FewReads, is_heif
from picowatch.files.safe_paths import open_regular
from picowatch.metadata.exif import MAX_JPEG_EXIF_BYTES, Directory, bytes_in, exif_bytes
from picowatch.recipe.chunk import Chunk, read_chunk
from picowatch.recipe.request import ImageRequest

# The keywords of our texts, and of those that ComfyUI writes into the tags of a camera's names:
# https://github.com/comfyanonymous/ComfyUI, comfy_extras/nodes_images.py.
PARAMETERS, PICOWATCH = "parameters", "picowatch"
XMP_KEYWORD = "XML:com.adobe.xmp"  # in PNGs, where XMP is a text like others
_IN_NOTES = (PICOWATCH, "picowatch-sheet")
_COMFYUIS = ("prompt", "workflow")
_COMFYUI_TAGS = [
    (0, tag) for tag in (ExifTags.Base.Model, ExifTags.Base.Make, ExifTags.Base.ImageDescription)
]
_COMMENTS = [(directory, ExifTags.Base.UserComment) for directory in (ExifTags.IFD.Exif, 0)]
_NOTES = [(ExifTags.IFD.Exif, ExifTags.Base.MakerNote), (0, ExifTags.Base.DNGPrivateData)]

# A megabyte of text in UTF-16, and whatever else cameras write.
_MAX_EXIF_BYTES = 3 * 1024 * 1024
# For how an image was rendered, and the keys of all texts.
_ROOM = 12_000
_SRGB, _UNCALIBRATED = 1, 65_535
_UNICODE = b"UNICODE\0"
_PREFIXES = (_UNICODE, b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * 8)

_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
# Start images in BMP and GIF: no program writes its settings there.
_WITHOUT_TEXTS = (b"BM", b"GIF8")
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # which are EXIF themselves, with pixels
MAX_CHARACTERS = 4 * 1024 * 1024


def read_texts(path: Path) -> dict[str, str]:
    """Return the texts of a picture by keyword. Raises PictureUnreadable."""
    try:
        with open_regular(path) as file:
            return texts_in(file)
    except FileNotFoundError as error:
        raise PictureUnreadable(f"There is no file {path}.") from error
    except OSError as error:
        raise PictureUnreadable.by_system(f"{path}", error) from error
    except PictureUnreadable as error:
        raise PictureUnreadable(f"{path}: {error.message}", error.remedy) from error


def chunk_of(picture: Path) -> Chunk:
    """Return our chunk in a picture. Raises PictureUnreadable, also if it has none."""
    return read_chunk(read_texts(picture).get(PICOWATCH, ""))


def texts_in(file: IO[bytes]) -> dict[str, str]:
    """Return the texts in a picture by keyword; those of a PNG come before its pixels.

    "parameters" may be an EXIF user comment, as in A1111's JPEGs. Raises PictureUnreadable.
    """
    file.seek(0)
    start = file.read(HEIF_BEGINS)
    if start.startswith(_WITHOUT_TEXTS) or is_heif(start):
        return {}
    if start.startswith(_TIFFS):  # those with texts begin with them
        file.seek(0)
        return texts_in_exif(file.read(_MAX_EXIF_BYTES))
    file.seek(0)
    try:
        with Image.open(cast(IO[bytes], FewReads(file)), formats=_FORMATS) as image:
            info, is_png = dict(image.info), image.format == "PNG"
    except Image.DecompressionBombError as error:
        raise PictureUnreadable("it has too many pixels.") from error
    # Pillow's readers raise whatever they stumble over: struct.error, IndexError, TypeError…
    except Exception as error:
        words = "it is not a picture that can be read."
        raise PictureUnreadable(words, "PNG, JPEG, WebP and AVIF can.") from error
    texts = texts_in_exif(info.get("exif"))
    for keyword, value in info.items() if is_png else ():
        if isinstance(value, str) and value and keyword != XMP_KEYWORD:
            is_utf8 = isinstance(value, PngImagePlugin.iTXt)
            texts[str(keyword)] = str(value) if is_utf8 else as_utf8(value)
    if TEXTS_LEFT_OUT in info or sum(map(len, texts.values())) > MAX_CHARACTERS:
        raise PictureUnreadable("its texts are too long to be settings.")
    return texts


def as_utf8(text: str) -> str:
    """Decode UTF-8 in a tEXt chunk, which Stability Matrix writes; others are Latin-1."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def exif_of(
    texts: Mapping[str, str],
    photo: Mapping[int, Directory] = MappingProxyType({}),
    *,
    profile: bytes = b"",
) -> bytes:
    """Return EXIF data of a photo's directories, the colour space, and the texts."""
    main = dict(photo.get(0, {}))
    exif = dict(photo.get(ExifTags.IFD.Exif, {})) | {
        ExifTags.Base.ExifVersion: (TiffTags.UNDEFINED, b"0232"),
        ExifTags.Base.ColorSpace: (TiffTags.SHORT, _UNCALIBRATED if profile else _SRGB),
    }
    for keyword, text in texts.items():
        if keyword == PARAMETERS:
            # As A1111 writes it with piexif, which reads comments of no other type.
            content = _UNICODE + text.encode("utf-16-be")
            exif[ExifTags.Base.UserComment] = (TiffTags.UNDEFINED, content)
        elif ExifTags.Base.Make not in main:
            exif[ExifTags.Base.MakerNote] = (TiffTags.UNDEFINED, f"{keyword}:{text}".encode())
        else:
            main[ExifTags.Base.DNGPrivateData] = (TiffTags.BYTE, f"{keyword}:{text}".encode())
    return exif_bytes({**photo, 0: main, ExifTags.IFD.Exif: exif})


def fits_jpeg(request: ImageRequest, kept: str = "") -> bool:
    """Return whether a request's texts, or A1111's `kept` text, fit into a JPEG's 64 kB of EXIF."""
    values = json.dumps(request.as_dict(), ensure_ascii=False)
    most = len((values + kept).encode("utf-16-be")) + 2 * len(values.encode()) + _ROOM
    return most <= MAX_JPEG_EXIF_BYTES


def texts_in_exif(exif: object) -> dict[str, str]:
    """Return the texts by keyword, none if damaged; that of Fooocus is outside of the Exif IFD."""
    if not isinstance(exif, bytes) or not exif or len(exif) > _MAX_EXIF_BYTES:
        return {}
    try:
        found = bytes_in(exif, [*_COMMENTS, *_NOTES, *_COMFYUI_TAGS])
    except Exception:  # Pillow's readers raise whatever they stumble over
        return {}
    comments, notes, names = (
        [found[tag] for tag in tags if tag in found] for tags in (_COMMENTS, _NOTES, _COMFYUI_TAGS)
    )
    comment = next(filter(None, comments), b"")
    texts = {PARAMETERS: _decoded(comment)} if comment else {}
    return texts | _keyed(names, _COMFYUIS) | _keyed(notes, _IN_NOTES)


def _keyed(values: Iterable[bytes], keywords: Iterable[str]) -> dict[str, str]:
    """Return the texts that come after one of these keywords and a colon."""
    parted = (value.decode("utf-8", "replace").partition(":") for value in values)
    return {mark: text for mark, colon, text in parted if colon and mark in keywords}


def _decoded(comment: bytes) -> str:
    """Return the text of an EXIF user comment; undecodable bytes become U+FFFD."""
    # EXIF 2.32, 4.6.5: eight bytes name the encoding of what follows. Writers disagree on what
    # "UNICODE" means: UTF-16 in either byte order, with or without a byte order mark, or UTF-8; and
    # Fooocus writes no such bytes at all (https://github.com/lllyasviel/Fooocus,
    # modules/meta_parser.py). The names of settings are ASCII whatever language the prompt is in,
    # so the decoding with the most ASCII is right: in the wrong byte order, they look Chinese.
    prefix = next((p for p in _PREFIXES if comment.startswith(p)), b"")
    text = comment[len(prefix) :].rstrip(b"\0")
    text += b"\0" * (len(text) % 2 if b"\0" in text else 0)
    encodings = ("utf-16-be", "utf-16-le") if b"\0" in text else ("utf-8",)
    found = [text.decode(encoding, "replace") for encoding in encodings]
    return max(found, key=lambda decoded: sum(map(str.isascii, decoded))).strip("\ufeff\0")
