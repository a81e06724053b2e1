"""XMP: RDF in XML, in which a property is an attribute or an element of a description.

`Xmp.drop` walks a photo's tree once. What it drops, at any depth, is in the tables below: what is
no longer true in a picture made of the photo, and places. Namespaces are those of Adobe's XMP
specification, part 2, and of the IPTC Photo Metadata Standard.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from xml.dom import minidom

MAX_XMP_BYTES = 1024 * 1024
MAX_XMP_PARTS = 20_000  # tags and attributes: a third of a second; Lightroom writes some thousand

# Namespaces by their usual prefixes. Names here have these, whichever a packet declares; any other
# namespace stands before its names itself.
SPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "xmlns": "http://www.w3.org/2000/xmlns/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "MP": "http://ns.microsoft.com/photo/1.2/",
    "acdsee-rs": "http://ns.acdsee.com/regions/",
}
_PREFIXES = {space: prefix for prefix, space in SPACES.items()}
_RDF, _XMLNS = SPACES["rdf"], SPACES["xmlns"]
_SYNTAX = ("rdf:", "xmlns:")  # names of no properties
_MARK = "Iptc4xmpExt:DigitalSourceType"
_MARK_ADDRESS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_UNTRUE = {
    "tiff:Orientation", "tiff:ImageWidth", "tiff:ImageLength", "tiff:BitsPerSample",
    "tiff:Compression", "tiff:PhotometricInterpretation", "exif:PixelXDimension",
    "exif:PixelYDimension", "exif:ColorSpace", "exif:SubjectArea", "exif:SubjectLocation",
    "photoshop:ColorMode", "photoshop:ICCProfile", "dc:format", "xmp:Thumbnails",
    "xmpNote:HasExtendedXMP",  # which is part of the tree by then
}  # fmt: skip
# What phones put into and behind their photos: other pictures, with places of their own, gain maps
# and films (https://developer.android.com/media/platform/motion-photo-format). They are not copied.
_NOT_COPIED = (
    *(f"http://ns.google.com/photos/1.0/{kind}/" for kind in ("image", "depthmap", "audio")),
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/camera/:MicroVideo",
    "http://ns.google.com/photos/1.0/camera/:MotionPhoto",
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.adobe.com/xap/1.0/g/img/",
)
# What names of properties have in them that say where a photo was taken, or whoever made it lives:
# anywhere, as DJI's GpsLongtitude, or as a word, which opacity and statement are not.
_PLACE = re.compile(
    "gps|latitude|longt?itude|altitude|geotag|location|country|province|"
    "^ciadr|streetaddress|extendedaddress|postalcode"
)
_PLACE_WORD = re.compile("city.*|state|region|coverage")
_WORDS = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PLACE_SPACES = ("http://www.w3.org/2003/01/geo/wgs84_pos#", "http://www.georss.org/georss")
# Places in the picture. Only MWG's are turned (Metadata Working Group, guidelines 2.0, 5.9).
_REGIONS = {"mwg-rs:Regions", "MP:RegionInfo", "acdsee-rs:Regions", "Iptc4xmpExt:ImageRegion"}
_NO_PLACES = (
    *_SYNTAX,
    *("mwg-rs:", "MP:", f"{SPACES['MP']}t/", "acdsee-rs:"),
    *("Iptc4xmpExt:ImageRegion", "Iptc4xmpExt:RegionBoundary"),
)
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


class Property(NamedTuple):
    """Texts for a property."""

    name: str
    values: Sequence[str]  # a Bag gets those that it lacks; another property that is there stays
    array: str = ""  # Alt, Bag or Seq; "" for one text


class Xmp:
    """A photo's tree, or an empty tree. Raises ValueError for what is too large, or no XMP."""

    def __init__(self, packet: bytes | str = "") -> None:
        self._document = _parsed(packet or _EMPTY)
        self._root: Any = self._document.documentElement

    @property
    def source_type(self) -> str:
        """IPTC's word for how the picture was made; "" for none."""
        words = (_value(mark).rstrip("/").rpartition("/")[2] for mark in self._marks())
        return next(words, "")

    @property
    def is_empty(self) -> bool:
        nodes = (node for tree in _trees(self._document) for node in _nodes(tree))
        return all(_name(node).startswith(_SYNTAX) for node in nodes)

    def set_source_type(self, word: str) -> None:
        """Replace what the tree says of how the picture was made."""
        for mark in self._marks():
            _remove(mark)
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

    def drop(
        self, *, places: bool, size: tuple[int, int] | None = None, orientation: int = 1
    ) -> None:
        """Drop what is untrue, places if wanted, and regions unless they can be turned.

        `size` is the picture's, if it shows the whole photo, turned upright from an `orientation`.
        """
        for node in _nodes(self._root):
            name = _name(node)
            is_lost = name in _UNTRUE or name.startswith(_NOT_COPIED)
            is_lost |= places and _is_place(name)
            if name in _REGIONS and not is_lost:
                is_lost = not size or not _turned(node, name, size, orientation)
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
        texts: dict[Any, str] = {
            node: node.value if node.nodeType == node.ATTRIBUTE_NODE else node.toxml()
            for node, _ in self._properties()
        }
        for node in sorted(texts, key=lambda node: -len(texts[node])):
            if size <= most_bytes:
                return
            size -= len(texts[node].encode())
            _remove(node)

    def packet(self) -> str:
        """Return the tree as a packet without padding. Raises ValueError if it is too large."""
        packet = _PACKET.format(self._root.toxml().translate(_BREAKS))
        _refuse_long(packet)
        return packet

    def _marks(self) -> list[Any]:
        return [node for node, name in self._properties() if name == _MARK]

    def _properties(self) -> Iterator[tuple[Any, str]]:
        """Yield each property's node and name, of all descriptions that are not in a property."""
        for tree in _trees(self._document):
            for description in tree.childNodes:
                if description.localName == "Description":
                    for node in [*description.attributes.values(), *description.childNodes]:
                        name = _name(node)  # of texts, none
                        if node.namespaceURI and not name.startswith(_SYNTAX):
                            yield node, name

    def _add(self, new: Property) -> None:
        """Add a property to the first description."""
        prefix = new.name.partition(":")[0]
        added = self._document.createElementNS(SPACES[prefix], new.name)
        added.setAttribute(f"xmlns:{prefix}", SPACES[prefix])
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
    """Yield the attributes of the root, and all elements below it with their attributes."""
    yield from [*root.attributes.values()]
    for element in root.getElementsByTagName("*"):
        yield element
        yield from [*element.attributes.values()]


def _remove(node: Any) -> None:
    if node.nodeType == node.ATTRIBUTE_NODE:
        node.ownerElement.removeAttributeNode(node)
    else:
        node.parentNode.removeChild(node)


def _text(element: Any) -> str:
    return "".join(node.data for node in element.childNodes if node.nodeType == node.TEXT_NODE)


def _value(node: Any) -> str:
    if node.nodeType == node.ATTRIBUTE_NODE:
        return str(node.value)
    return _text(node).strip() or node.getAttributeNS(_RDF, "resource")


def _name(node: Any) -> str:
    return f"{_PREFIXES.get(node.namespaceURI, node.namespaceURI)}:{node.localName}"


def _is_place(name: str) -> bool:
    if name.startswith(_NO_PLACES):
        return False
    local = name.rpartition(":")[2]
    words = (word.lower() for word in _WORDS.findall(local))
    is_named = bool(_PLACE.search(local.lower())) or any(map(_PLACE_WORD.fullmatch, words))
    return is_named or name.startswith(_PLACE_SPACES)


# -- regions


def _turned(regions: Any, name: str, size: tuple[int, int], orientation: int) -> bool:
    """Turn regions with the photo; return whether they are true of the picture now."""
    if name != "mwg-rs:Regions":
        return orientation == 1
    try:
        for node in _nodes(regions):
            if _name(node) == "mwg-rs:Area":
                _turn(node, orientation)
            elif node.localName == "AppliedToDimensions":
                for local, pixels in zip("wh", size, strict=True):
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
