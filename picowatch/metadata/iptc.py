"""IPTC-IIM (version 4.2, https://iptc.org/std/IIM), which JPEG and TIFF have, as XMP's properties.

Which property a dataset of record 2 is says the table of the IPTC Photo Metadata Standard
(https://iptc.org/std/photometadata/specification).
"""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping

from picowatch.metadata.xmp import Property

Datasets = dict[tuple[int, int], list[bytes]]

# Datasets of record 2 with their XMP properties, and of those that are no single text, the array.
FIELDS = {
    5: "dc:title", 10: "photoshop:Urgency", 15: "photoshop:Category",
    20: "photoshop:SupplementalCategories", 25: "dc:subject", 40: "photoshop:Instructions",
    55: "photoshop:DateCreated", 62: "xmp:CreateDate", 80: "dc:creator",
    85: "photoshop:AuthorsPosition", 90: "photoshop:City", 92: "Iptc4xmpCore:Location",
    95: "photoshop:State", 100: "Iptc4xmpCore:CountryCode", 101: "photoshop:Country",
    103: "photoshop:TransmissionReference", 105: "photoshop:Headline", 110: "photoshop:Credit",
    115: "photoshop:Source", 116: "dc:rights", 120: "dc:description",
    122: "photoshop:CaptionWriter",
}  # fmt: skip
_ARRAYS = {5: "Alt", 20: "Bag", 25: "Bag", 80: "Seq", 116: "Alt", 120: "Alt"}
_TIMES = {55: 60, 62: 63}  # of dates
_RESOURCE, IPTC_RESOURCE = b"8BIM", 0x0404  # Adobe Photoshop File Formats, image resources
_LARGE = 0x8000  # the size of a size follows


def iptc_in(resources: bytes) -> bytes:
    """Return IPTC-IIM of Photoshop's image resources; other bytes are returned unchanged."""
    offset, end = 0, len(resources)
    while resources[offset : offset + 4] == _RESOURCE and offset + 12 <= end:
        (number, name_length) = struct.unpack_from(">HB", resources, offset + 4)
        offset += 6 + (name_length + 2) // 2 * 2
        size = int.from_bytes(resources[offset : offset + 4], "big")
        offset += 4
        if number == IPTC_RESOURCE:
            return resources[offset : offset + size]
        offset += (size + 1) // 2 * 2
    return b"" if resources.startswith(_RESOURCE) else resources


def read_iptc(content: bytes) -> tuple[Datasets, bool]:
    """Return the datasets by record and number, and whether damage hides what comes after them."""
    found: Datasets = {}
    offset = 0
    while content[offset : offset + 1] == b"\x1c" and offset + 5 <= len(content):
        record, number, size = struct.unpack_from(">BBH", content, offset + 1)
        offset += 5
        if size & _LARGE:
            length = size & ~_LARGE
            size = int.from_bytes(content[offset : offset + length], "big")
            offset += length
        if offset + size > len(content):
            return found, True
        found.setdefault((record, number), []).append(content[offset : offset + size])
        offset += size
    return found, bool(content[offset:].strip(b"\0"))


def properties_of(datasets: Mapping[tuple[int, int], list[bytes]]) -> Iterator[Property]:
    """Yield the XMP properties that these datasets are."""
    values = {number: datasets.get((2, number), []) for number in (*FIELDS, *_TIMES.values())}
    other = _other_encoding(value for of_number in values.values() for value in of_number)
    texts = {n: [t for v in found if (t := _text(v, other))] for n, found in values.items()}
    for number, time in _TIMES.items():
        dates = [_iso_date(date, "".join(texts[time][:1])) for date in texts[number][:1]]
        texts[number] = list(filter(None, dates))
    for number, name in FIELDS.items():
        if found := texts[number]:
            array = _ARRAYS.get(number, "")
            yield Property(name, found if array else found[:1], array)


def _other_encoding(values: Iterable[bytes]) -> str:
    """Return the encoding of what is no UTF-8: that of Windows, or with its gaps a Mac's."""
    # The mark of an encoding (1:90) says no more than the bytes do.
    try:
        for value in values:
            _text(value, "cp1252")
    except UnicodeError:
        return "mac_roman"
    return "cp1252"


def _text(value: bytes, other: str) -> str:
    try:
        text = value.decode()
    except UnicodeError:
        text = value.decode(other)
    return "".join(c for c in text if c.isprintable() or c in "\n\t").strip()


def _iso_date(date: str, time: str) -> str:
    """Return CCYYMMDD and HHMMSS±HHMM as ISO 8601, which XMP has; "" for no date."""
    day = re.fullmatch(r"(\d{4})-?(\d\d)-?(\d\d)", date)
    hour = re.fullmatch(r"(\d\d):?(\d\d):?(\d\d)(?:([+-]\d\d):?(\d\d))?", time)
    if not day or "00" in day.groups()[1:]:
        return ""
    if not hour:
        return "-".join(day.groups())
    zone = f"{hour[4]}:{hour[5]}" if hour[4] else ""
    return f"{'-'.join(day.groups())}T{':'.join(hour.groups()[:3])}{zone}"
