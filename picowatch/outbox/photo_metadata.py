"""What a photo says of itself, kept in the pictures made of it, and the mark of how they were made.

EXIF is kept but for what is no longer true: orientation, thumbnail, pixel sizes, colour space, and
the two tags that hold picowatch's own texts (MakerNote, UserComment). XMP is kept whole but for the
same, and IPTC-IIM, which only JPEG has, becomes XMP by the table of the IPTC Photo Metadata
Standard (https://iptc.org/std/photometadata/specification). The mark is IPTC's DigitalSourceType
(https://cv.iptc.org/newscodes/digitalsourcetype).
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from io import SEEK_END, BytesIO
from typing import IO, Any, cast
from xml.dom import minidom

from PIL import ExifTags, Image, IptcImagePlugin

from picowatch.errors import PictureUnreadable
from picowatch.files.pictures import FewReads, formats_of
from picowatch.metadata.texts import Directory, exif_directories
from picowatch.recipe.request import ImageRequest

KEPT, NO_PLACE, NOTHING_KEPT = "all", "no_place", "none"
LOST = "The photo's {} cannot be read, so the picture has none: {}."
MAX_XMP_BYTES = 1024 * 1024
MAX_XMP_TAGS = 20_000  # a third of a second; Lightroom writes some thousand
# Without the segment's length and name (XMP specification part 3, 1.1.3.1).
MAX_JPEG_XMP_BYTES = 65_502

DRAWN, CHANGED, ENLARGED = (
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "algorithmicallyEnhanced",
)
MARKS = {
    DRAWN: "a model drew it",
    CHANGED: "a model changed a picture",
    ENLARGED: "a model enlarged a picture",
}
_ADDRESS = "http://cv.iptc.org/newscodes/digitalsourcetype/"

# A property's namespace and its name there.
Name = tuple[str | None, str | None]

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_IPTC_CORE = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
_DC = "http://purl.org/dc/elements/1.1/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_EXIF, _TIFF = "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/tiff/1.0/"
_XMP, _NOTE = "http://ns.adobe.com/xap/1.0/", "http://ns.adobe.com/xmp/note/"
_PREFIXES = {
    _IPTC_EXT: "Iptc4xmpExt", _IPTC_CORE: "Iptc4xmpCore", _DC: "dc", _PHOTOSHOP: "photoshop",
}  # fmt: skip
_MARK = (_IPTC_EXT, "DigitalSourceType")
_UNTRUE: set[Name] = {
    *((_TIFF, name) for name in ("Orientation", "ImageWidth", "ImageLength")),
    *((_EXIF, name) for name in ("PixelXDimension", "PixelYDimension", "ColorSpace")),
    (_XMP, "Thumbnails"),
    (_NOTE, "HasExtendedXMP"),  # that is in segments of its own, which Pillow does not read
    (_PHOTOSHOP, "ICCProfile"),
}
_PLACES: set[Name] = {
    *((_PHOTOSHOP, name) for name in ("City", "State", "Country")),
    *((_IPTC_CORE, name) for name in ("Location", "CountryCode")),
    *((_IPTC_EXT, name) for name in ("LocationShown", "LocationCreated")),
}
# Datasets of IPTC-IIM's record 2 with their XMP properties, and what these are arrays of.
_IPTC = {
    5: (_DC, "title", "Alt"),
    25: (_DC, "subject", "Bag"),
    40: (_PHOTOSHOP, "Instructions", ""),
    80: (_DC, "creator", "Seq"),
    90: (_PHOTOSHOP, "City", ""),
    92: (_IPTC_CORE, "Location", ""),
    95: (_PHOTOSHOP, "State", ""),
    101: (_PHOTOSHOP, "Country", ""),
    105: (_PHOTOSHOP, "Headline", ""),
    110: (_PHOTOSHOP, "Credit", ""),
    115: (_PHOTOSHOP, "Source", ""),
    116: (_DC, "rights", "Alt"),
    120: (_DC, "description", "Alt"),
}
_EMPTY = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description '
    'rdf:about=""/></rdf:RDF></x:xmpmeta>'
)
_PACKET = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>{}<?xpacket end="w"?>'


@dataclass(frozen=True, slots=True)
class PhotoMetadata:
    """EXIF's directories and an XMP packet for a picture's file; `warnings` say what is lost."""

    exif: dict[int, Directory] = field(default_factory=dict)
    xmp: str = ""
    warnings: tuple[str, ...] = ()


NONE = PhotoMetadata()


def photo_metadata(file: IO[bytes], keep: str) -> PhotoMetadata:
    """Return what is kept of a photo: all, everything but places (no_place), or none but its mark.

    Damaged EXIF or XMP is lost with a warning. Raises PictureUnreadable if it is no picture.
    """
    formats = formats_of(file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(cast(IO[bytes], FewReads(file)), formats=formats) as image:
                info, kind = dict(image.info), image.format
                iptc = IptcImagePlugin.getiptcinfo(image) or {}
        except Exception as error:  # Pillow's readers raise whatever they stumble over
            raise PictureUnreadable("it is not a picture that can be read.") from error
    if keep == NOTHING_KEPT:
        return marked(NONE, mark_in(str(info.get("xmp"))))
    tiff = BytesIO((info.get("exif") or b"").removeprefix(b"Exif\0\0")) if kind != "TIFF" else file
    is_empty = not tiff.seek(0, SEEK_END)
    exif, said = _or_warning("EXIF", lambda: {} if is_empty else exif_directories(tiff), {})
    xmp, more = _or_warning("XMP", lambda: _kept_xmp(info.get("xmp") or b"", iptc, keep), "")
    if keep == NO_PLACE:
        exif = {directory: tags for directory, tags in exif.items() if directory != _GPS}
    return PhotoMetadata(exif, xmp, (*said, *more))


_GPS = ExifTags.IFD.GPSInfo


def _or_warning(what: str, read: Any, instead: Any) -> tuple[Any, list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(), []
        except Exception as error:  # as above, and expat's
            return instead, [LOST.format(what, str(error).rstrip(".") or type(error).__name__)]


def marked(photo: PhotoMetadata, mark: str) -> PhotoMetadata:
    """Return the metadata with a mark; one that says that a model drew the photo stays."""
    before = mark_in(photo.xmp)
    if not mark or before == DRAWN or (before == CHANGED and mark == ENLARGED):
        return photo
    document = _parsed(photo.xmp or _EMPTY)
    _remove(document, {_MARK})
    _set(document, _MARK, _ADDRESS + mark)
    return replace(photo, xmp=_packet(document))


def mark_of(request: ImageRequest, *, is_drawn: bool) -> str:
    """Return the mark of a picture: drawn, changed or enlarged by a model; "" for neither.

    It is not drawn where words found nothing to change.
    """
    if request.draws and is_drawn:
        return CHANGED if request.image or request.references else DRAWN
    return ENLARGED if request.upscale else ""


def mark_in(xmp: str) -> str:
    """Return the mark in an XMP packet; "" for none, or for another program's."""
    found = xmp.rpartition(_ADDRESS)[2] if _ADDRESS in xmp else ""
    return next((mark for mark in MARKS if found.startswith(mark)), "")


# -- XMP: RDF in which a property is an attribute or an element of a description


def _kept_xmp(packet: bytes | str, iptc: dict[Any, Any], keep: str) -> str:
    text = packet.decode() if isinstance(packet, bytes) else packet
    properties = list(_from_iptc(iptc))
    if not text and not properties:
        return ""
    document = _parsed(text or _EMPTY)
    there = {name for _, name in _properties(document)}
    for name, values, array in properties:
        if name not in there:
            _set(document, name, *values, array=array)
    removed = _UNTRUE
    if keep == NO_PLACE:
        gps = {name for name in there if name[0] == _EXIF and str(name[1]).startswith("GPS")}
        removed = _UNTRUE | _PLACES | gps
    _remove(document, removed)
    return _packet(document)


def _parsed(text: str) -> minidom.Document:
    """Return the document of a packet. Raises ValueError if it may expand, or is too large."""
    text = text.strip("\ufeff\0 \r\n\t")
    if len(text) > MAX_XMP_BYTES:
        raise ValueError("it is larger than a megabyte")
    if text.count("<") > MAX_XMP_TAGS:
        raise ValueError(f"it has more than {MAX_XMP_TAGS:,} tags")
    if "<!" in text.replace("<!--", ""):
        raise ValueError("it defines entities")
    document = minidom.parseString(text.encode())
    if not document.getElementsByTagNameNS(_RDF, "Description"):
        raise ValueError("it describes nothing")
    return document


def _packet(document: minidom.Document) -> str:
    return _PACKET.format("".join(node.toxml() for node in document.childNodes))


def _properties(document: minidom.Document) -> Iterator[tuple[Any, Name]]:
    """Yield each property's node and name, of all descriptions that are not inside a property."""
    for rdf in document.getElementsByTagNameNS(_RDF, "RDF"):
        for description in rdf.childNodes:
            if description.localName == "Description":
                nodes = [*description.attributes.values(), *description.childNodes]
                yield from ((node, (node.namespaceURI, node.localName)) for node in nodes)


def _remove(document: minidom.Document, names: Iterable[Name]) -> None:
    for node, name in list(_properties(document)):
        if name in names and node.nodeType == node.ATTRIBUTE_NODE:
            node.ownerElement.removeAttributeNode(node)
        elif name in names:
            node.parentNode.removeChild(node)


def _set(document: minidom.Document, name: Name, *values: str, array: str = "") -> None:
    """Add a property, a text or an array of texts, to the first description."""
    description = document.getElementsByTagNameNS(_RDF, "Description")[0]
    space, local = name
    prefix = _PREFIXES[str(space)]
    added = document.createElementNS(space, f"{prefix}:{local}")
    added.setAttribute(f"xmlns:{prefix}", str(space))
    items: list[Any] = [document.createTextNode(value) for value in values]
    if array:
        added.setAttribute("xmlns:rdf", _RDF)
        holder = added.appendChild(document.createElementNS(_RDF, f"rdf:{array}"))
        for item in items:
            entry = holder.appendChild(document.createElementNS(_RDF, "rdf:li"))
            if array == "Alt":
                entry.setAttribute("xml:lang", "x-default")
            entry.appendChild(item)
    else:
        added.appendChild(items[0])
    description.appendChild(added)


def _from_iptc(iptc: dict[Any, Any]) -> Iterator[tuple[Name, list[str], str]]:
    """Yield name, texts and kind of array of each property that IPTC-IIM has."""
    for number, (space, name, array) in _IPTC.items():
        found = iptc.get((2, number))
        values = [found] if isinstance(found, bytes) else found or []
        texts = [_decoded(value) for value in values if value]
        if texts:
            yield (space, name), texts if array else texts[:1], array


def _decoded(value: bytes) -> str:
    """Decode UTF-8, which nearly all programs write by now, or else Latin-1; NULs are left out."""
    try:
        text = value.decode()
    except UnicodeError:
        text = value.decode("latin-1")
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
