"""The test pictures of exiftool: what it reads in them, it reads in the pictures made of them.

None is in this repository. They are in the source of Debian's package: CONTRIBUTING.md says how to
get them.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.house import House

PHOTOS = Path(os.environ.get("EXIFTOOL_IMAGES", "/nowhere"))
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is missing"),
    pytest.mark.skipif(not PHOTOS.is_dir(), reason="EXIFTOOL_IMAGES names no folder of pictures"),
]

GROUPS = ("IFD0", "ExifIFD", "GPS")
# What is true of a photo's pixels or file only, and picowatch's own texts.
NOT_KEPT = re.compile(
    "Orientation|ExifImage(Width|Height)|ImageWidth|ImageHeight|ExifVersion|ColorSpace|UserComment|"
    "BitsPerSample|Compression|Photometric.*|Strip.*|RowsPerStrip|SamplesPerPixel|Planar.*|"
    "SubfileType|Preview.*|Thumbnail.*|Jpg.*|SubjectArea|WhitePoint|PrimaryChromaticities|"
    "YCbCr(Coefficients|SubSampling)|ReferenceBlackWhite|ColorMap|Predictor|TransferFunction|"
    "HasExtendedXMP|XMPToolkit|About|Pixel[XY]Dimension|ExifImage.*|Padding|OffsetSchema|PrintIM.*"
)
PLACE = re.compile(
    "gps|latitude|longitude|altitude|location|country|province|city$|^state$|coverage|region(?!list)",
    re.IGNORECASE,
)
IPTC = {
    "ObjectName": "Title", "Keywords": "Subject", "Urgency": "Urgency", "Category": "Category",
    "SupplementalCategories": "SupplementalCategories", "SpecialInstructions": "Instructions",
    "By-line": "Creator", "By-lineTitle": "AuthorsPosition", "City": "City", "Credit": "Credit",
    "Sub-location": "Location", "Province-State": "State", "Headline": "Headline",
    "Country-PrimaryLocationName": "Country", "Source": "Source", "CopyrightNotice": "Rights",
    "OriginalTransmissionReference": "TransmissionReference", "Caption-Abstract": "Description",
    "Writer-Editor": "CaptionWriter", "Country-PrimaryLocationCode": "CountryCode",
}  # fmt: skip


FORMATS = ("jpeg", "png", "webp", "avif")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Copies of all pictures, in four formats with everything, and without places."""
    house = House(tmp_path_factory.mktemp("many"))
    for folder in (*FORMATS, "no_place"):
        how = "png\nkeep_exif: no_place" if folder == "no_place" else folder
        house.save(f"{folder}/_pictures.yaml", f"resize_to: 64\nformat: {how}\n")
        for photo in PHOTOS.iterdir():
            if photo.suffix in (".jpg", ".png", ".webp", ".tif", ".bmp"):
                name = photo.name.replace(".", "_") + photo.suffix
                shutil.copy(photo, house.inbox / folder / name)
    house.once()
    return house


def tags_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what exiftool reads in the pictures of a folder, by their stems."""
    called = ["exiftool", "-q", "-j", "-G1", "-n", "-a", str(folder)]
    found = json.loads(subprocess.run(called, capture_output=True, check=False).stdout)
    return {Path(tags["SourceFile"]).stem: tags for tags in found}


def wanted(tags: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a picture must have, by their names in EXIF and XMP."""
    values = {}
    for key, value in tags.items():
        group, _, name = key.rpartition(":")
        if group in GROUPS or group.startswith("XMP-"):
            values[name] = value
    for key, name in IPTC.items():
        if f"IPTC:{key}" in tags:
            values.setdefault(name, tags[f"IPTC:{key}"])
    return {name: value for name, value in values.items() if not NOT_KEPT.fullmatch(name)}


def is_in(value: Any, found: Any) -> bool:
    """Keywords of XMP and IPTC are joined, and what is blank is nothing."""
    if isinstance(value, list) and isinstance(found, list):
        return set(map(str, value)) <= set(map(str, found))
    return str(found) == str(value) or not str(value).strip()


@pytest.mark.parametrize("name", FORMATS)
def test_every_photo_has_a_picture_that_says_the_same(house: House, name: str) -> None:
    """Or an error; exiftool warns of no picture, and Pillow opens each."""
    before, after = tags_in(house.inbox / name), tags_in(house.outbox / name)
    lost: dict[str, Any] = {}
    for stem, tags in before.items():
        if stem not in after:
            assert list((house.outbox / name).glob(f"{stem}.*.error.txt"))
            continue
        found = after[stem]
        assert not [key for key in found if key.endswith((":Warning", ":Error"))], stem
        there = wanted(found)
        for tag, value in wanted(tags).items():
            if not is_in(value, there.get(tag)):
                lost[f"{stem} {tag}"] = (value, there.get(tag))
    for path in (house.outbox / name).glob("*.*"):
        if path.suffix != ".txt":
            with Image.open(path) as picture:
                picture.getexif()
    assert lost == {}


def test_no_picture_says_where_it_was_taken(house: House) -> None:
    """In no tag that exiftool knows a name of."""
    for stem, tags in tags_in(house.outbox / "no_place").items():
        assert not [key for key in tags if PLACE.search(key)], stem
