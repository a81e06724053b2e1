"""What photos say, wherever in their files it stands, and what a user reads of what is lost."""

import struct
import zlib
from io import BytesIO
from itertools import starmap
from typing import Any

import pytest
from PIL import ExifTags, Image

from picowatch.files.decoding import Original
from picowatch.metadata.embedded_text import PARAMETERS, texts_in
from picowatch.metadata.exif import exif_bytes
from picowatch.outbox.encoding import How
from picowatch.outbox.photo_metadata import KEPT, NO_PLACE, PhotoMetadata, photo_metadata
from tests.fuzz.hostile import chunk
from tests.house import House
from tests.metadata.test_iptc import dataset
from tests.metadata.test_xmp import packet, regions
from tests.pictures import encoded

pytestmark = pytest.mark.usefixtures("copies_here")

TAGS = ExifTags.Base
XMP_NAME, MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"


def picture(kind: str, **options: Any) -> bytes:
    return encoded(Image.new("RGB", (96, 64), "red"), kind, **options)


def exif(turned: int = 1, dots: int = 0) -> bytes:
    tags = Image.Exif()
    if dots:
        tags[TAGS.XResolution] = tags[TAGS.YResolution] = dots
        tags[TAGS.ResolutionUnit] = 2
    tags[TAGS.Model] = "EOS R5"
    tags[TAGS.Orientation] = turned
    return tags.tobytes()


def of(content: bytes, keep: str = KEPT, **options: Any) -> PhotoMetadata:
    return photo_metadata(BytesIO(content), keep, name="a.jpg", **options)


def made(suffix: str, photo: PhotoMetadata, **texts: str) -> bytes:
    how = How(f"a.{suffix}", texts, photo=photo)
    return how.encode(Original(Image.new("RGB", (8, 8))))


def model_in(photo: PhotoMetadata) -> object:
    return photo.exif.get(0, {}).get(TAGS.Model, ("", ""))[1]


def segment(content: bytes, marker: int = 0xE1) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg(*segments: bytes) -> bytes:
    usual = picture("JPEG")
    return usual[:2] + b"".join(segments) + usual[2:]


def png(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    usual = picture("PNG")
    place = usual.index(b"IEND" if behind else b"IDAT") - 4  # its size comes first
    return usual[:place] + b"".join(starmap(chunk, chunks)) + usual[place:]


def raw_profile(kind: str, content: bytes) -> tuple[bytes, bytes]:
    text = f"\n{kind}\n{len(content):8}\n" + "\n".join(
        content[at : at + 36].hex() for at in range(0, len(content), 36)
    )
    return b"zTXt", f"Raw profile type {kind}\0\0".encode() + zlib.compress(text.encode())


def test_a_turned_avif_keeps_its_letters() -> None:
    """Pillow's private decoder has them; what it tells may change with its version."""
    letters = "Zoé R".encode()  # of the same length
    jpeg, avif = (
        of(picture(kind, exif=exif(turned=6)).replace(b"EOS R5", letters))
        for kind in ("JPEG", "AVIF")
    )
    assert model_in(avif) == model_in(jpeg) == letters.decode("latin-1")


@pytest.mark.parametrize("behind", [False, True])
def test_a_png_says_it_in_profiles_before_or_behind_its_pixels(behind: bool) -> None:
    """As ImageMagick and digiKam write them."""
    iptc = dataset(5, b"Title")
    resources = b"8BIM\x04\x04\0\0" + struct.pack(">L", len(iptc)) + iptc
    profiles = [raw_profile("exif", exif()), raw_profile("iptc", resources)]
    for name in ("xmp", "APP1"):
        profile = (XMP_NAME if name == "APP1" else b"") + packet("<dc:a>kept</dc:a>").encode()
        found = of(png(*profiles, raw_profile(name, profile), behind=behind))
        assert model_in(found) == "EOS R5" and not found.warnings
        assert ">kept<" in found.xmp and ">Title<" in found.xmp


def test_exif_and_xmp_of_a_png_may_stand_behind_the_pixels() -> None:
    """Damage there hides nothing before them."""
    xmp = b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet("<dc:a>kept</dc:a>").encode()
    found = of(png((b"eXIf", exif().removeprefix(b"Exif\0\0")), xmp, behind=True))
    assert (model_in(found), ">kept<" in found.xmp) == ("EOS R5", True)
    content = png(xmp)
    assert ">kept<" in of(content[:-20]).xmp
    assert ">kept<" in of(content[:-12] + b"\0\0\0\x09zTXtdamaged" + content[-12:]).xmp


@pytest.mark.parametrize("form", ["jpeg", "tiff"])
def test_damaged_iptc_loses_what_comes_after_the_damage(form: str) -> None:
    """And says so; all else is kept."""
    iptc = dataset(5, b"Title") + dataset(25, b"oar")[:-1]
    resources = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">L", len(iptc)) + iptc + b"\0"
    if form == "jpeg":
        content = jpeg(segment(exif()), segment(resources, 0xED))
    else:
        content = picture("TIFF", tiffinfo={TAGS.Model: "EOS R5", TAGS.IPTCNAA: iptc})
    found = of(content)
    assert (model_in(found), ">Title<" in found.xmp) == ("EOS R5", True)
    assert found.warnings == (
        "The IPTC of a.jpg is damaged, so the picture lacks what comes after the damage.",
    )


def test_extended_xmp_is_joined_and_its_places_are_dropped() -> None:
    """Segments may be in any order; those of another packet do not count."""
    guid = b"0123456789ABCDEF" * 2
    note = f'xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP="{guid.decode()}"'
    main = packet(attributes=f'dc:a="kept" {note}')
    more = packet("<dc:b>kept</dc:b><dc:c>kept</dc:c><drone-dji:Latitude>77</drone-dji:Latitude>")
    half = len(more) // 2

    def part(begin: int, content: str, name: bytes = guid) -> bytes:
        sizes = struct.pack(">LL", len(more), begin)
        return segment(MORE_XMP + name + sizes + content.encode())

    content = jpeg(
        part(half, more[half:]), segment(XMP_NAME + main.encode()), part(0, more[:half]),
        part(0, "another", b"F" * 32),
    )  # fmt: skip
    found = of(content, NO_PLACE)
    assert found.xmp.count("kept") == 3 and "77" not in found.xmp and "Extended" not in found.xmp
    assert "77" in of(content).xmp and not found.warnings
    torn = of(jpeg(segment(XMP_NAME + main.encode()), part(half, more[half:])))
    assert torn.xmp.count("kept") == 1
    assert "The extended XMP of a.jpg cannot be read" in torn.warnings[0]


@pytest.mark.parametrize(
    ("content", "dots", "unit"),
    [
        (picture("JPEG", dpi=(300, 240)), (300, 240), 2),
        (jpeg().replace(b"\1\1\0\0\1\0\1", b"\1\1\2\0\x76\0\x76"), (118, 118), 3),
        (picture("PNG", dpi=(300, 300)), (300, 300), 2),
        (picture("PNG", dpi=(300, 300), exif=exif(dots=72)), (300, 300), 2),
        (picture("PNG", dpi=(300, 240), exif=exif(dots=72)), (300, 240), 2),
        (picture("JPEG"), None, None),
        (jpeg(segment(exif())), None, None),
        (picture("WEBP", exif=exif()), None, None),
    ],
    ids=["inches", "centimetres", "png", "png's own", "png's two", "aspect", "exif", "webp"],
)
def test_the_resolution_of_a_header_is_kept(
    content: bytes, dots: tuple[int, int] | None, unit: int | None
) -> None:
    """In EXIF, and where the result's format has it."""
    photo = of(content)
    main = photo.exif.get(0, {})
    assert main.get(TAGS.ResolutionUnit, (3, None))[1] == unit
    if dots:
        found = (main[TAGS.XResolution][1], main[TAGS.YResolution][1])
        assert found == pytest.approx(dots, rel=0.001)
    for suffix in ("png", "jpg"):
        result = made(suffix, photo)
        with Image.open(BytesIO(result)) as image:
            scale = 2.54 if unit == 3 else 1
            wanted = pytest.approx([dot * scale for dot in dots], rel=0.01) if dots else None
            if suffix == "png" or dots:
                assert image.info.get("dpi") == wanted


@pytest.mark.parametrize("suffix", ["png", "webp", "avif"])
def test_a_photos_long_exif_does_not_hide_our_own(suffix: str) -> None:
    """A description of megabytes is left out, with a warning."""
    tags = Image.Exif()
    tags[TAGS.ImageDescription] = "x" * 4_000_000
    tags[TAGS.Model] = "EOS R5"
    photo = of(picture("WEBP", exif=tags.tobytes()))
    assert photo.warnings == (
        "The picture lacks values of the EXIF of a.jpg that are damaged or too large: "
        "ImageDescription.",
    )
    texts = {PARAMETERS: "a\nSteps: 1"}
    result = made(suffix, photo, **texts)
    assert texts_in(BytesIO(result)) == texts and model_in(of(result)) == "EOS R5"


def test_xmp_that_grows_beyond_the_limit_is_lost_and_the_picture_is_not() -> None:
    long = packet(f"<dc:a>{'>' * 400_000}</dc:a>")
    found = of(picture("WEBP", xmp=long.encode()), mark="algorithmicallyEnhanced")
    assert found.mark == "algorithmicallyEnhanced" and found.mark in found.xmp
    assert found.warnings == (
        "The XMP of a.jpg cannot be read, so the picture has none: it is larger than a megabyte.",
    )


def test_faces_follow_the_picture_that_is_made(house: House) -> None:
    """Upright and of its size; those of one with more or less than the photo are left out."""
    house.save("inside/_pictures.yaml", "resize_to: 48\nformat: jpeg\n")
    house.save("cover/_pictures.yaml", "resize_to: {width: 40, height: 40, fit: cover}\n")
    house.save("cut/_pictures.yaml", "cutout: true\n")
    house.save("pad/_pictures.yaml", "resize_to: {width: 128, height: 192, fit: pad}\n")
    house.save("small/_pictures.yaml", "resize_to: {width: 32, height: 48, fit: pad}\n")
    photo = jpeg(segment(exif(turned=6)), segment(XMP_NAME + packet(regions()).encode()))
    for folder in ("inside", "cover", "cut", "pad", "small"):
        house.save(f"{folder}/a.jpg", photo)
    assert house.once()
    xmp = {}
    for path in house.pictures():
        with Image.open(house.outbox / path) as image:
            xmp[path.partition("/")[0]] = str(image.info.get("xmp"))
    assert 'stArea:x="0.600000"' in xmp["inside"] and 'stDim:w="32"' in xmp["inside"]
    assert [folder for folder in xmp if "Ada" in xmp[folder]] == ["inside", "small"]


def test_a_photo_with_long_texts_is_used(house: House) -> None:
    """Compressed ones, too, as ImageMagick writes EXIF; beyond a limit they go, with a warning."""
    house.save("p/_pictures.yaml", "resize_to: 48\n")
    texts = {name: zlib.compress(b"ab" * (size << 19)) for name, size in (("two", 2), ("many", 20))}
    for name, text in texts.items():
        parameters = (b"tEXt", b"parameters\0a star\nSteps: 3, Seed: 4")
        chunks = (raw_profile("exif", exif()), parameters, (b"zTXt", b"workflow\0\0" + text))
        for behind in (False, True):
            house.save(f"p/{name}{behind}.png", png(*chunks, behind=behind))
    assert house.once(), house.log()
    assert len(house.pictures()) == 4
    for file in house.pictures():
        with Image.open(house.outbox / file) as image:
            assert image.getexif()[TAGS.Model] == "EOS R5"
    told = (house.outbox / "p/_pictures.yaml.warning.txt").read_text()
    lost = [f"Texts of p/{name}" in told for name in ("manyFalse", "manyTrue", "twoFalse")]
    assert lost == [True, True, False]
    assert "text of p/manyFalse.png: its texts are too long" in told
    for name, is_read in (("two", True), ("many", False)):
        house.save(f"{name}.yaml", f"from: p/{name}False.png\nsize: 64x64\n")
        assert house.once() is is_read
    assert house.prompts()[-1] == "a star"
    assert "its texts are too long to be settings" in str(house.error("many.yaml"))


HOW_STORED = {  # with the types and values of such tags
    TAGS.FillOrder: (3, 2), TAGS.MinSampleValue: (7, b"12345678"), 0x80E4: (3, 8), 0x80E6: (3, 0),
    TAGS.MaxSampleValue: (7, b"12345678"), TAGS.SMinSampleValue: (12, 0.5),
    TAGS.SMaxSampleValue: (12, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("tag", HOW_STORED)
def test_how_a_photo_stores_its_pixels_is_not_said_of_a_tiff(tag: int) -> None:
    """A fax begins its bytes with the last bit; with such a tag nobody could open the result."""
    photo = of(picture("JPEG", exif=exif_bytes({0: {tag: HOW_STORED[tag]}})))
    with Image.open(BytesIO(made("tif", photo))) as result:
        assert result.getpixel((0, 0)) == (0, 0, 0)
