"""XMP: RDF in XML, in which a property is an attribute or an element of a description.

`Xmp.drop` walks a photo's tree once. What it drops, at any depth, is in the tables below: what is
no longer true in a picture made of the photo, and places. Namespaces are those of Adobe's XMP
specification, part 2, and of the IPTC Photo Metadata Standard.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.dom import minidom

MAX_XMP_BYTES = 1024 * 1024
MAX_XMP_PARTS = 20_000  # tags and attributes: a third of a second; Lightroom writes some thousand

# A property's namespace and its name there.
Name = tuple[str | None, str | None]

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
IPTC_CORE = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
DC = "http://purl.org/dc/elements/1.1/"
PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_EXIF, _TIFF = "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/tiff/1.0/"
XMP, _NOTE = "http://ns.adobe.com/xap/1.0/", "http://ns.adobe.com/xmp/note/"
PREFIXES = {
    IPTC_EXT: "Iptc4xmpExt", IPTC_CORE: "Iptc4xmpCore", DC: "dc", PHOTOSHOP: "photoshop",
    XMP: "xmp",
}  # fmt: skip
_MARK: Name = (IPTC_EXT, "DigitalSourceType")
_MARK_ADDRESS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_UNTRUE: set[Name] = {
    *((_TIFF, name) for name in ("Orientation", "ImageWidth", "ImageLength")),
    *((_EXIF, name) for name in ("PixelXDimension", "PixelYDimension", "ColorSpace")),
    *((_EXIF, name) for name in ("SubjectArea", "SubjectLocation")),
    *((_TIFF, name) for name in ("BitsPerSample", "Compression", "PhotometricInterpretation")),
    (DC, "format"),
    *((PHOTOSHOP, name) for name in ("ColorMode", "ICCProfile")),
    (XMP, "Thumbnails"),
    (_NOTE, "HasExtendedXMP"),  # which is part of the tree by then
}
# What phones put into and behind their photos: other pictures, with places of their own, gain maps
# and films (https://developer.android.com/media/platform/motion-photo-format). They are not copied.
_GOOGLE = "http://ns.google.com/photos/1.0/"
_NOT_COPIED = (
    *(_GOOGLE + kind for kind in ("image/", "depthmap/", "audio/", "container/")),
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.adobe.com/xap/1.0/g/img/",
)
# What names of properties have in them that say where a photo was taken, or whoever made it lives:
# anywhere, as DJI's GpsLongtitude, or as a word, which opacity and statement are not.
_PLACE = re.compile(
    "gps|latitude|longt?itude|altitude|geotag|location|country|province|"
    "^ciadr|streetaddress|extendedaddress|postalcode"
)
_PLACE_WORDS = {"city", "state", "region", "coverage"}
_WORDS = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PLACE_NAMESPACES = ("http://www.w3.org/2003/01/geo/wgs84_pos#", "http://www.georss.org/georss")
_XMLNS = "http://www.w3.org/2000/xmlns/"
_NO_PROPERTIES = (_RDF, _XMLNS)
# Places in the picture. Only MWG's are turned (Metadata Working Group, guidelines 2.0, 5.9).
_MWG = "http://www.metadataworkinggroup.com/schemas/regions/"
_MICROSOFT, _ACDSEE = "http://ns.microsoft.com/photo/1.2/", "http://ns.acdsee.com/regions/"
_REGIONS: set[Name] = {
    (_MWG, "Regions"), (_MICROSOFT, "RegionInfo"), (_ACDSEE, "Regions"), (IPTC_EXT, "ImageRegion"),
}  # fmt: skip
_REGION_NAMESPACES = (_MWG, _MICROSOFT, _ACDSEE)
_AREA = "http://ns.adobe.com/xmp/sType/Area#"
_DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
# Until Python 3.13, minidom writes an attribute's line breaks so that readers take them for spaces.
# Characters that no text has stand for them meanwhile.
_BREAK = re.compile(r"&#(?:0*(9|10|13)|x0*([9ADad]));")
_BREAKS = {0xFDD0 + number: f"&#{number};" for number in (9, 10, 13)}
_DECLARATION = re.compile(r"\A<\?xml\s.*?\?>", re.DOTALL)  # it may name another encoding
_EMPTY = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description '
    'rdf:about=""/></rdf:RDF></x:xmpmeta>'
)
_PACKET = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>{}<?xpacket end="w"?>'


@dataclass(frozen=True, slots=True)
class Property:
    """Texts for a property."""

    name: Name
    values: Sequence[str]  # a Bag gets those that it lacks; another property that is there stays
    array: str = ""  # Alt, Bag or Seq; "" for one text


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture's size, if it shows a whole photo, which was turned upright by EXIF's number."""

    size: tuple[int, int]
    orientation: int = 1


class Xmp:
    """A photo's tree, or an empty tree. Raises ValueError for what is too large, or no XMP."""

    def __init__(self, packet: bytes | str = "") -> None:
        self._document = _parsed(packet or _EMPTY)
        self._root: Any = self._document.documentElement

    @property
    def source_type(self) -> str:
        """IPTC's word for how the picture was made; "" for none."""
        for node, name in self._properties():
            if name == _MARK:
                return _value(node).rstrip("/").rpartition("/")[2]
        return ""

    @property
    def is_empty(self) -> bool:
        nodes = (node for tree in _trees(self._document) for node in _nodes(tree))
        return all(node.namespaceURI in _NO_PROPERTIES for node in nodes)

    def set_source_type(self, word: str) -> None:
        """Replace what the tree says of how the picture was made."""
        for node, name in list(self._properties()):
            if name == _MARK:
                _remove(node)
        self._add(Property(_MARK, [_MARK_ADDRESS + word]))

    def extend(self, packet: bytes) -> None:
        """Add a JPEG's further segments (XMP specification, part 3, 1.1.3.1). Raises ValueError."""
        (own, *_) = _trees(self._document)
        for tree in _trees(_parsed(packet)) if packet else ():
            declared = [*tree.attributes.items(), *(tree.parentNode.attributes or {}).items()]
            for node in [node for node in tree.childNodes if node.nodeType == node.ELEMENT_NODE]:
                for name, value in declared:
                    if name.startswith("xmlns") and not node.hasAttribute(name):
                        node.setAttributeNS(_XMLNS, name, value)
                own.appendChild(node)

    def drop(self, *, places: bool, shown: Shown | None) -> None:
        """Drop what is untrue, places if wanted, and regions unless they can be turned."""
        for node in _nodes(self._root):
            name = (node.namespaceURI, node.localName)
            is_lost = _is_untrue(*name) or (places and _is_place(*name))
            if name in _REGIONS and not is_lost:
                is_lost = not (shown and _turned(node, name, shown))
            if is_lost:
                _remove(node)

    def merge(self, properties: Iterable[Property]) -> None:
        """Add properties that the tree lacks, and texts that its Bags lack."""
        there = {name: node for node, name in self._properties()}
        for new in properties:
            node = there.get(new.name)
            if node is None:
                self._add(new)
            elif new.array == "Bag" and node.nodeType == node.ELEMENT_NODE:
                known = {_text(item) for item in node.getElementsByTagNameNS(_RDF, "li")}
                for bag in [part for part in node.childNodes if part.localName in ("Bag", "Seq")]:
                    self._fill(bag, "Bag", [text for text in new.values if text not in known])

    def shorten(self, most_bytes: int) -> None:
        """Drop the largest properties until the packet has no more bytes."""
        size = len(self.packet().encode())
        for node, text in sorted(
            ((node, _written(node)) for node, _ in self._properties()),
            key=lambda pair: -len(pair[1]),
        ):
            if size <= most_bytes:
                return
            size -= len(text.encode())
            _remove(node)

    def packet(self) -> str:
        """Return the tree as a packet without padding. Raises ValueError if it is too large."""
        packet = _PACKET.format(self._root.toxml().translate(_BREAKS))
        _refuse_long(packet)
        return packet

    def _properties(self) -> Iterator[tuple[Any, Name]]:
        """Yield each property's node and name, of all descriptions that are not in a property."""
        for tree in _trees(self._document):
            for description in tree.childNodes:
                if description.localName == "Description":
                    for node in [*description.attributes.values(), *description.childNodes]:
                        if node.namespaceURI not in (None, *_NO_PROPERTIES):  # text, rdf:about
                            yield node, (node.namespaceURI, node.localName)

    def _add(self, new: Property) -> None:
        """Add a property to the first description."""
        space, local = new.name
        prefix = PREFIXES[str(space)]
        added = self._document.createElementNS(space, f"{prefix}:{local}")
        added.setAttribute(f"xmlns:{prefix}", str(space))
        if new.array:
            added.setAttribute("xmlns:rdf", _RDF)
            holder = added.appendChild(self._document.createElementNS(_RDF, f"rdf:{new.array}"))
            self._fill(holder, new.array, new.values)
        else:
            added.appendChild(self._document.createTextNode(new.values[0]))
        self._document.getElementsByTagNameNS(_RDF, "Description")[0].appendChild(added)

    def _fill(self, holder: Any, array: str, texts: Iterable[str]) -> None:
        prefix = holder.prefix or "rdf"
        for text in texts:
            entry = holder.appendChild(self._document.createElementNS(_RDF, f"{prefix}:li"))
            if array == "Alt":
                entry.setAttribute("xml:lang", "x-default")
            entry.appendChild(self._document.createTextNode(text))


def extended_guid(packet: bytes) -> bytes:
    """Return which segments extend a packet; empty if none do."""
    found = re.search(rb"HasExtendedXMP\s*(?:=\s*[\"']|>)\s*([0-9A-Fa-f]{32})", packet)
    return found[1] if found else b""


def _trees(document: minidom.Document) -> list[Any]:
    return list(document.getElementsByTagNameNS(_RDF, "RDF"))


def _parsed(packet: bytes | str) -> minidom.Document:
    """Return the document of a packet. Raises ValueError if it may expand, or is too large."""
    # In all formats that picowatch reads, packets are UTF-8 (XMP specification, part 3).
    text = packet if isinstance(packet, str) else packet.decode()
    text = _DECLARATION.sub("", text.strip("\ufeff\0 \r\n\t"))
    _refuse_long(text)
    if text.count("<") + text.count("=") > MAX_XMP_PARTS:
        raise ValueError(f"it has more than {MAX_XMP_PARTS:,} tags and attributes")
    if "<!" in text.replace("<!--", ""):
        raise ValueError("it defines entities")
    text = _BREAK.sub(lambda found: chr(0xFDD0 + int(found[1] or f"0x{found[2]}", 0)), text)
    document = minidom.parseString(text.encode())
    if not _trees(document) or not document.getElementsByTagNameNS(_RDF, "Description"):
        raise ValueError("it describes nothing")
    return document


def _refuse_long(text: str) -> None:
    if len(text) > MAX_XMP_BYTES or len(text.encode()) > MAX_XMP_BYTES:
        raise ValueError("it is larger than a megabyte")


def _nodes(root: Any) -> Iterator[Any]:
    """Yield all elements below the root and their attributes, but none below a removed element."""
    waiting = [root]
    while waiting:
        element = waiting.pop()
        if element is not root:
            yield element
        if element is root or element.parentNode:
            yield from list((element.attributes or {}).values())
            waiting += [node for node in element.childNodes if node.nodeType == node.ELEMENT_NODE]


def _remove(node: Any) -> None:
    if node.nodeType == node.ATTRIBUTE_NODE:
        node.ownerElement.removeAttributeNode(node)
    else:
        node.parentNode.removeChild(node)


def _written(node: Any) -> str:
    return str(node.value if node.nodeType == node.ATTRIBUTE_NODE else node.toxml())


def _text(element: Any) -> str:
    return "".join(node.data for node in element.childNodes if node.nodeType == node.TEXT_NODE)


def _value(node: Any) -> str:
    if node.nodeType == node.ATTRIBUTE_NODE:
        return str(node.value)
    return _text(node).strip() or node.getAttributeNS(_RDF, "resource")


def _is_untrue(space: str | None, local: str | None) -> bool:
    is_film = space == f"{_GOOGLE}camera/" and str(local).startswith(("MicroVideo", "MotionPhoto"))
    return (space, local) in _UNTRUE or str(space).startswith(_NOT_COPIED) or is_film


def _is_place(space: str | None, local: str | None) -> bool:
    name, words = str(local), {word.lower() for word in _WORDS.findall(str(local))}
    if space in _NO_PROPERTIES or str(space).startswith(_REGION_NAMESPACES):
        return False
    if space == IPTC_EXT and name in ("ImageRegion", "RegionBoundary"):
        return False
    is_named = bool(_PLACE.search(name.lower())) or not words.isdisjoint(_PLACE_WORDS)
    return is_named or space in _PLACE_NAMESPACES or any(w.startswith("city") for w in words)


# -- regions


def _turned(regions: Any, name: Name, shown: Shown) -> bool:
    """Turn regions with the photo; return whether they are true of the picture now."""
    if name[0] != _MWG:
        return shown.orientation == 1
    try:
        for node in _nodes(regions):
            if (node.namespaceURI, node.localName) == (_MWG, "Area"):
                _turn(node, shown.orientation)
            elif node.localName == "AppliedToDimensions":
                for local, pixels in zip("wh", shown.size, strict=True):
                    _write(_part(node, _DIMENSIONS, local), str(pixels))
    except (AttributeError, ValueError):  # a number is missing, or none
        return False
    return True


def _turn(area: Any, orientation: int) -> None:
    """Turn a rectangle, of which x and y are the centre, as parts of the stored picture."""
    if _value(_part(area, _AREA, "unit")) != "normalized":
        raise ValueError("its unit is not a part of the picture")
    there = {local: _part(area, _AREA, local) for local in "xywh"}
    x, y = (float(_value(there[local])) for local in "xy")
    right, down = 1 - x, 1 - y
    x, y = {
        2: (right, y), 3: (right, down), 4: (x, down), 5: (y, x),
        6: (down, x), 7: (down, right), 8: (y, right),
    }.get(orientation, (x, y))  # fmt: skip
    if orientation > 1:
        _write(there["x"], f"{x:.6f}")
        _write(there["y"], f"{y:.6f}")
    if orientation >= 5 and there["w"] and there["h"]:
        width, height = _value(there["w"]), _value(there["h"])
        _write(there["w"], height)
        _write(there["h"], width)


def _part(element: Any, space: str, local: str) -> Any:
    """Return a part of a structure, an attribute or an element; None without the part."""
    elements = element.getElementsByTagNameNS(space, local)
    return element.getAttributeNodeNS(space, local) or next(iter(elements), None)


def _write(node: Any, text: str) -> None:
    if node.nodeType == node.ATTRIBUTE_NODE:
        node.value = text
    else:
        node.firstChild.data = text
