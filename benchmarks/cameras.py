"""What photos say in the pictures made of them, by exiftool.

    python -m benchmarks.cameras IMAGES

Copies a folder of photos, such as exiftool's own of 60 cameras, in four formats with everything and
without places. Prints what is lost, and what says a place although it should not; exit code 1 if
anything does. CONTRIBUTING.md says how to get these photos: none is in this repository.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.folders import PATIENCE, Folders

Tags = Mapping[str, Any]

FORMATS = ("jpeg", "png", "webp", "avif")
WITHOUT_PLACES = "no_place"
ENDINGS = (".jpg", ".png", ".webp", ".tif", ".bmp")
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
    "gps|latitude|longitude|altitude|location|country|province|city$|^state$|coverage|"
    "region(?!list)|modeltransform",  # of a GeoTIFF
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


def tags_of(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    told = subprocess.run(
        ["exiftool", "-q", "-json", "-G1", "-n", "-a", "-@", "-"],
        input="\n".join(names).encode(),
        cwd=folder,
        capture_output=True,
        check=False,
    )
    return {tags["SourceFile"]: tags for tags in json.loads(told.stdout or "[]")}


def wanted(tags: Tags) -> dict[str, Any]:
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


def differences(photo: Tags, result: Tags, *, has_place: bool = True) -> Iterator[str]:
    """Yield what a result lacks of its photo's metadata, or has though it should not."""
    found = wanted(result)
    for tag, value in wanted(photo).items():
        if not is_in(value, found.get(tag)) and (has_place or not PLACE.search(tag)):
            yield f"{tag} is lost"
    for key, value in result.items():
        if key.endswith((":Warning", ":Error")):
            yield f"exiftool says {value}"
        if not has_place and PLACE.search(key):
            yield f"{key} is left"
    if result.get("IFD0:Orientation", 1) != 1:
        yield "Orientation is left"


def findings(folders: Folders, folder: str) -> Iterator[str]:
    """Compare the results of a folder with its photos; one without a result has an error."""
    inbox, outbox = folders.inbox / folder, folders.outbox / folder
    made = {path.stem: path for path in outbox.glob("*.*") if path.suffix != ".txt"}
    photos = tags_of(inbox, (path.name for path in inbox.iterdir()))
    results = tags_of(outbox, (path.name for path in made.values()))
    for name, tags in photos.items():
        if result := made.get(Path(name).stem):
            with Image.open(result) as picture:
                picture.getexif()
            has_place = folder != WITHOUT_PLACES
            for words in differences(tags, results[result.name], has_place=has_place):
                yield f"{folder}/{name}: {words}"
        elif name.endswith(ENDINGS) and not (outbox / f"{name}.error.txt").exists():
            yield f"{folder}/{name}: neither a result nor an error"


def main() -> int:
    parser = argparse.ArgumentParser(description="What photos say in the pictures made of them.")
    parser.add_argument("images", type=Path)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as temporary:
        folders = Folders(Path(temporary))
        for folder in (*FORMATS, WITHOUT_PLACES):
            how = folder if folder in FORMATS else f"png\nkeep_exif: {folder}"
            (folders.inbox / folder).mkdir()
            template = folders.inbox / folder / "_pictures.yaml"
            template.write_text(f"resize_to: 64\nformat: {how}\n")
            for photo in images.iterdir():
                if photo.suffix in ENDINGS:
                    name = photo.name.replace(".", "_") + photo.suffix
                    shutil.copy(photo, folders.inbox / folder / name)
        folders.command("run", "--once").wait(PATIENCE)
        found = [words for each in (*FORMATS, WITHOUT_PLACES) for words in findings(folders, each)]
        made = len(list(folders.outbox.glob("*/*.*")))
    print(*found, f"{made} results and errors, {len(found)} findings", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
