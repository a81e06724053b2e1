"""IPTC-IIM as XMP's properties, in every encoding that programs wrote, and damaged."""

import struct

import pytest

from picowatch.metadata.iptc import Datasets, iptc_in, properties_of, read_iptc


def dataset(number: int, value: bytes) -> bytes:
    return struct.pack(">BBBH", 0x1C, 2, number, len(value)) + value


def texts(datasets: Datasets) -> dict[str, list[str]]:
    return {field.name.partition(":")[2]: list(field.values) for field in properties_of(datasets)}


def test_every_field_becomes_a_property() -> None:
    """Dates in ISO 8601, with their times."""
    fields = {
        5: b"Title", 10: b"5", 15: b"SPO", 20: b"Rowing", 25: b"oar", 40: b"None before noon",
        55: b"20240506", 60: b"070809+0200", 62: b"20240507", 80: b"Anna", 85: b"Staff",
        90: b"Bonn", 92: b"Rhine", 95: b"NRW", 100: b"DEU", 101: b"Germany", 103: b"J-1",
        105: b"Headline", 110: b"Agency", 115: b"Source", 116: b"Rights", 120: b"Caption",
        122: b"Eve",
    }  # fmt: skip
    content = b"".join(dataset(number, value) for number, value in fields.items())
    found, is_damaged = read_iptc(content + dataset(25, b"boat") + bytes(3))
    assert not is_damaged
    assert texts(found) == {
        "title": ["Title"], "Urgency": ["5"], "Category": ["SPO"],
        "SupplementalCategories": ["Rowing"], "subject": ["oar", "boat"],
        "Instructions": ["None before noon"], "DateCreated": ["2024-05-06T07:08:09+02:00"],
        "CreateDate": ["2024-05-07"], "creator": ["Anna"], "AuthorsPosition": ["Staff"],
        "City": ["Bonn"], "Location": ["Rhine"], "State": ["NRW"], "CountryCode": ["DEU"],
        "Country": ["Germany"], "TransmissionReference": ["J-1"], "Headline": ["Headline"],
        "Credit": ["Agency"], "Source": ["Source"], "rights": ["Rights"],
        "description": ["Caption"], "CaptionWriter": ["Eve"],
    }  # fmt: skip


@pytest.mark.parametrize("date", [b"", b"2024", b"20240000", b"00000000", b"yesterday"])
def test_what_is_no_date_is_none(date: bytes) -> None:
    """XMP's readers would refuse it."""
    assert texts({(2, 55): [date]}) == {}


@pytest.mark.parametrize(
    ("value", "text", "mark"),
    [
        ("Café – “quoted”".encode(), "Café – “quoted”", b"\x1b%G"),
        ("Café – “quoted”".encode(), "Café – “quoted”", b""),
        ("Café – “quoted”".encode("cp1252"), "Café – “quoted”", b""),
        ("Weiß".encode("latin-1"), "Weiß", b""),
        ("Weiß".encode("latin-1"), "Weiß", b"\x1b%G"),
        ("Ångström".encode("mac_roman"), "Ångström", b""),
        (b"a\0\0", "a", b""),
    ],
    ids=[*("marked", "UTF-8", "Windows", "Latin-1", "marked wrongly", "Mac", "NUL")],
)
def test_texts_are_read_in_their_encoding(value: bytes, text: str, mark: bytes) -> None:
    """UTF-8 tells itself; the bytes that Windows does not use are a Mac's."""
    assert texts({(1, 90): [mark], (2, 5): [value]}) == {"title": [text]}


def test_what_comes_before_the_damage_is_read() -> None:
    """And that there is some is said."""
    whole = dataset(5, b"Title") + dataset(25, b"oar")
    for cut in (whole[:-1], whole + b"damage", whole[:12] + b"\x1c"):
        found, is_damaged = read_iptc(cut)
        assert (texts(found)["title"], is_damaged) == (["Title"], True)


def test_a_long_value_has_a_longer_size() -> None:
    """IIM 1.6: the highest bit says how many bytes the size has."""
    content = b"\x1c\x02\x78\x80\x04" + struct.pack(">L", 40_000) + b"x" * 40_000
    assert texts(read_iptc(content)[0]) == {"description": ["x" * 40_000]}


def test_photoshops_resources_are_looked_through() -> None:
    """IPTC alone is what it is."""
    iptc = dataset(5, b"Odd")
    other = b"8BIM\x03\xed\x00\x00" + struct.pack(">L", 1) + b"a\0"
    wanted = b"8BIM\x04\x04\x03abc" + struct.pack(">L", len(iptc)) + iptc
    assert iptc_in(other + wanted) == iptc_in(iptc) == iptc
    assert iptc_in(other) == iptc_in(b"8BIM") == b""
