"""What is dropped from a photo's XMP, added to it, and turned with the picture."""

import re

import pytest

from picowatch.metadata.iptc import properties_of
from picowatch.metadata.xmp import SPACES, Property, Xmp

NAMESPACES = {prefix: space for prefix, space in SPACES.items() if prefix != "xmlns"} | {
    "drone-dji": "http://www.dji.com/drone-dji/1.0/",
    "Camera": "http://pix4d.com/camera/1.0",
    "xmpDM": "http://ns.adobe.com/xmp/1.0/DynamicMedia/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "stRef": "http://ns.adobe.com/xap/1.0/sType/ResourceRef#",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "geo": "http://www.w3.org/2003/01/geo/wgs84_pos#",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "location": "http://example.org/a-prefix-is-no-name/",
}
MARK = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def packet(inside: str = "", attributes: str = "") -> str:
    spaces = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in NAMESPACES.items())
    return (
        f'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF {spaces}><rdf:Description rdf:about="" {attributes}>{inside}</rdf:Description>'
        f"</rdf:RDF></x:xmpmeta>{' ' * 2000}<?xpacket end='w'?>"
    )


def without_places(text: str) -> str:
    xmp = Xmp(text)
    xmp.drop(places=True)
    return xmp.packet()


PLACES = {
    "a drone's, as attributes": packet(
        attributes='drone-dji:GpsLatitude="77" drone-dji:GpsLongtitude="77" '
        'drone-dji:AbsoluteAltitude="77" drone-dji:FlightYawDegree="5"'
    ),
    "Pix4D's": packet("<Camera:GPSXYAccuracy>77</Camera:GPSXYAccuracy>"),
    "in a structure": packet(
        '<xmpMM:DerivedFrom rdf:parseType="Resource"><exif:GPSLatitude>77</exif:GPSLatitude>'
        "<stRef:documentID>5</stRef:documentID></xmpMM:DerivedFrom>"
    ),
    "in an array of structures": packet(
        '<xmpMM:Ingredients><rdf:Bag><rdf:li stRef:documentID="5" exif:GPSLongitude="77"/>'
        "</rdf:Bag></xmpMM:Ingredients>"
    ),
    "in a typed node": packet("<dc:relation><dc:Location dc:a='77'/></dc:relation>"),
    "Premiere's": packet("<xmpDM:shotLocation>77</xmpDM:shotLocation>"),
    "Dublin Core's": packet("<dc:coverage>77</dc:coverage>"),
    "IPTC's": packet(
        "<Iptc4xmpExt:LocationCreated><rdf:Bag><rdf:li rdf:parseType='Resource'>"
        "<Iptc4xmpExt:WorldRegion>77</Iptc4xmpExt:WorldRegion></rdf:li></rdf:Bag>"
        "</Iptc4xmpExt:LocationCreated><Iptc4xmpExt:Sublocation>77</Iptc4xmpExt:Sublocation>"
    ),
    "Photoshop's": packet(attributes='photoshop:City="77" photoshop:State="77"'),
    "in a contact": packet(
        "<Iptc4xmpCore:CreatorContactInfo Iptc4xmpCore:CiAdrCity='77'"
        " Iptc4xmpCore:CiAdrRegion='77' Iptc4xmpCore:CiAdrExtadr='77' Iptc4xmpCore:CiAdrPcode='77'"
        ' Iptc4xmpCore:CiTelWork="5"/>'
    ),
    "PLUS's": packet(
        "<plus:Licensor><rdf:Seq><rdf:li plus:LicensorStreetAddress='77'"
        " plus:LicensorExtendedAddress='77' plus:LicensorPostalCode='77'"
        ' plus:LicensorEmail="5"/></rdf:Seq></plus:Licensor>'
    ),
    "of W3C": packet(attributes='geo:lat="77" geo:long="77"'),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_are_dropped_in_every_namespace_and_at_any_depth(name: str) -> None:
    kept = without_places(PLACES[name])
    assert "77" in PLACES[name] and "77" not in kept
    assert Xmp(kept), "it is XMP still"
    others = [text.count(">5<") + text.count('"5"') for text in (PLACES[name], kept)]
    assert others[0] == others[1]


def test_what_phones_put_behind_their_photos_is_not_named() -> None:
    """Readers would look there for a film or a gain map."""
    google = 'xmlns:{0}="http://ns.google.com/photos/1.0/{0}/"'.format
    xmp = Xmp(
        packet(
            f'<container:Directory {google("container")}><rdf:Seq><rdf:li container:a="77"/>'
            f"</rdf:Seq></container:Directory><image:Data {google('image')}>77</image:Data>",
            f'{google("camera")} camera:MotionPhoto="77" camera:a="5" '
            'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="77"',
        )
    )
    xmp.drop(places=False)
    assert "77" not in xmp.packet() and 'camera:a="5"' in xmp.packet()


def test_how_the_photo_was_stored_is_dropped() -> None:
    attributes = 'dc:format="77" photoshop:ColorMode="77" tiff:Compression="77" tiff:Make="5"'
    xmp = Xmp(packet("<tiff:BitsPerSample>77</tiff:BitsPerSample>", attributes))
    xmp.drop(places=False)
    assert "77" not in xmp.packet() and 'tiff:Make="5"' in xmp.packet()


def test_what_only_sounds_like_a_place_stays() -> None:
    """As do prefixes, whatever they are called."""
    attributes = (
        'crs:Opacity="1" crs:Velocity="2" xmpRights:WebStatement="3" photoshop:Urgency="4" '
        'location:a="5"'
    )
    kept = without_places(packet(attributes=attributes))
    assert all(attribute in kept for attribute in attributes.split())


def test_a_packet_does_not_grow_however_often_it_is_written() -> None:
    """Without the padding and the packet around it; line breaks of attributes stay."""
    text = packet("<dc:a>5 &gt; 4 &#x9; \"b\" 'c'</dc:a>", "dc:b='1&#xA;2&#013;3&#9;4'")
    once = Xmp(text).packet()
    assert 'dc:b="1&#10;2&#13;3&#9;4"' in once
    xmp = Xmp(once)
    xmp.set_source_type("trainedAlgorithmicMedia")
    marked = xmp.packet()
    for _ in range(3):
        assert Xmp(once).packet() == once
        again = Xmp(marked)
        again.set_source_type("trainedAlgorithmicMedia")
        assert again.packet() == marked
    assert len(once) < len(text) and once.count("xpacket") == 2


@pytest.mark.parametrize(
    ("inside", "attributes", "word"),
    [
        (f"<Iptc4xmpExt:DigitalSourceType>{MARK}a</Iptc4xmpExt:DigitalSourceType>", "", "a"),
        ("", f'Iptc4xmpExt:DigitalSourceType="{MARK}a"', "a"),
        (f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{MARK}a"/>', "", "a"),
        (f"<dc:description>{MARK}trainedAlgorithmicMedia</dc:description>", "", ""),
        (
            f"<xmpMM:Ingredients><rdf:Bag><rdf:li Iptc4xmpExt:DigitalSourceType='{MARK}a'/>"
            "</rdf:Bag></xmpMM:Ingredients>", "", "",
        ),
    ],
    ids=["element", "attribute", "resource", "in a description", "of an ingredient"],
)  # fmt: skip
def test_the_mark_is_the_property_of_the_tree(inside: str, attributes: str, word: str) -> None:
    """What a text says, or another picture in it, is no mark; a new one replaces the old."""
    xmp = Xmp(packet(inside, attributes))
    assert xmp.source_type == word
    xmp.set_source_type("b")
    assert Xmp(xmp.packet()).source_type == "b"
    assert xmp.packet().count(f"{MARK}a") == (0 if word else packet(inside).count(f"{MARK}a"))


@pytest.mark.parametrize("form", ["attributes", "elements"])
@pytest.mark.parametrize(
    ("orientation", "area"),
    [
        (1, "0.3 0.4 0.1 0.2"), (2, "0.7 0.4 0.1 0.2"), (3, "0.7 0.6 0.1 0.2"),
        (4, "0.3 0.6 0.1 0.2"), (5, "0.4 0.3 0.2 0.1"), (6, "0.6 0.3 0.2 0.1"),
        (7, "0.6 0.7 0.2 0.1"), (8, "0.4 0.7 0.2 0.1"),
    ],
)  # fmt: skip
def test_faces_are_turned_with_the_picture(form: str, orientation: int, area: str) -> None:
    """Their centre and size are parts of the picture as it was stored."""
    xmp = Xmp(packet(regions(form)))
    xmp.drop(places=True, size=(640, 480), orientation=orientation)
    kept = xmp.packet()
    found = [float(v) for v in re.findall(r"stArea:[xywh](?:=\"|>)([\d.]+)", kept)]
    assert found == [float(number) for number in area.split()]
    assert re.findall(r"stDim:[wh](?:=\"|>)(\d+)", kept) == ["640", "480"]
    assert "Ada" in kept


def regions(form: str = "attributes", unit: str = "normalized") -> str:
    names = {"x": "0.3", "y": "0.4", "w": "0.1", "h": "0.2", "unit": unit}
    if form == "attributes":
        area = " ".join(f'stArea:{name}="{value}"' for name, value in names.items())
        area, size = f"<mwg-rs:Area {area}/>", 'stDim:w="4000" stDim:h="3000" stDim:unit="pixel"/>'
    else:
        area = "".join(f"<stArea:{name}>{value}</stArea:{name}>" for name, value in names.items())
        area = f'<mwg-rs:Area rdf:parseType="Resource">{area}</mwg-rs:Area>'
        size = (
            'rdf:parseType="Resource"><stDim:w>4000</stDim:w><stDim:h>3000</stDim:h>'
            "</mwg-rs:AppliedToDimensions>"
        )
    return (
        f'<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions {size}'
        '<mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType="Resource">'
        f"<mwg-rs:Name>Ada</mwg-rs:Name><mwg-rs:Type>Face</mwg-rs:Type>{area}</rdf:li></rdf:Bag></mwg-rs:RegionList>"
        "</mwg-rs:Regions>"
    )


MICROSOFTS = '<MP:RegionInfo rdf:parseType="Resource"><MP:a>Ada</MP:a></MP:RegionInfo>'


@pytest.mark.parametrize(
    ("inside", "size", "orientation", "stay"),
    [
        (regions(), None, 1, False),
        (regions(unit="pixel"), (640, 480), 1, False),
        (regions().replace("stArea:x=", "stArea:z="), (640, 480), 1, False),
        (MICROSOFTS, (640, 480), 6, False),
        (MICROSOFTS, None, 1, False),
        (MICROSOFTS, (640, 480), 1, True),
    ],
    ids=["cut out", "in pixels", "damaged", "Microsoft's turned", "… cut out", "… as it was"],
)
def test_faces_that_cannot_be_turned_are_left_out(
    inside: str, size: tuple[int, int] | None, orientation: int, stay: bool
) -> None:
    """A name would be at another face. Other programs' stay where nothing is turned."""
    xmp = Xmp(packet(f"{inside}<dc:a>5</dc:a>"))
    xmp.drop(places=True, size=size, orientation=orientation)
    assert ("Ada" in xmp.packet()) is stay and ">5<" in xmp.packet()


def test_keywords_are_joined_and_other_properties_stay() -> None:
    xmp = Xmp(
        packet(
            "<dc:subject><rdf:Bag><rdf:li>a</rdf:li></rdf:Bag></dc:subject>"
            "<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>new</rdf:li></rdf:Alt></dc:title>"
        )
    )
    xmp.merge(properties_of({(2, 25): [b"a", b"b"], (2, 5): [b"old"], (2, 122): [b"Eve"]}))
    kept = xmp.packet()
    assert re.findall("<rdf:li[^>]*>([^<]+)", kept) == ["a", "b", "new"]
    assert "<photoshop:CaptionWriter" in kept and "old" not in kept


def test_a_long_packet_loses_its_longest_properties() -> None:
    """What people wrote is short."""
    xmp = Xmp(packet(f"<crs:a>{'x' * 9000}</crs:a><dc:a>kept</dc:a><crs:b>{'x' * 99}</crs:b>"))
    xmp.shorten(4000)
    assert len(xmp.packet().encode()) <= 4000
    assert "kept" in xmp.packet() and "crs:b" in xmp.packet() and "<crs:a" not in xmp.packet()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_packet_may_begin_with_a_mark(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?>{packet("<dc:a>ä</dc:a>")}'
    assert "<dc:a>ä</dc:a>" in Xmp(text.encode(encoding)).packet()


def test_an_empty_tree_says_so() -> None:
    """A property of any kind is something."""
    assert Xmp().is_empty and Xmp(packet()).is_empty
    assert not Xmp(packet(attributes='crs:a=""')).is_empty
    xmp = Xmp()
    xmp.merge([Property("dc:title", ["a"], "Alt")])
    assert not xmp.is_empty
