"""A photo's EXIF, XMP and IPTC in the pictures made of it, read by exiftool; and the mark."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from picowatch.engine.protocol import RgbPicture
from picowatch.metadata.embedded_text import PARAMETERS, read_texts
from tests.commands.picowatch import picowatch_here
from tests.house import House, wait_for
from tests.metadata.test_xmp import packet
from tests.outbox.test_photo_files import picture

needs_exiftool = pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is missing")

# What a photo says, as exiftool's options write it, and what it reads in the result.
CAMERA = {
    "EXIF:DateTimeOriginal": "2024:05:06 07:08:09", "EXIF:OffsetTimeOriginal": "+02:00",
    "EXIF:Make": "Canon", "EXIF:Model": "EOS R5", "EXIF:LensModel": "RF50mm F1.2 L USM",
    "EXIF:ExposureTime": 0.004, "EXIF:FNumber": 2.8, "EXIF:ISO": 400, "EXIF:FocalLength": 50,
    "EXIF:ExposureCompensation": -0.333333333333333, "EXIF:Artist": "Jürgen Müller 猫",
    "EXIF:Copyright": "© 2024 Möbelhaus",
}  # fmt: skip
PLACE = {
    "EXIF:GPSLatitude": 48.137, "EXIF:GPSLatitudeRef": "N", "EXIF:GPSLongitude": 11.575,
    "EXIF:GPSLongitudeRef": "E", "EXIF:GPSAltitude": 519,
}  # fmt: skip
WORDS = {
    "XMP:Subject": ["Berg", "See", "湖"], "XMP:Rating": 4, "XMP:Title": "Am Königssee",
    "XMP:Creator": "Jürgen Müller", "XMP:Rights": "© 2024", "XMP:Description": "Früh am Morgen",
}  # fmt: skip
PLACE_IN_WORDS = {
    "XMP:City": "München",
    "XMP:Country": "Deutschland",
    "XMP:Location": "Marienplatz",
}
IPTC = {
    "IPTC:Keywords": ["Schuh", "rot"], "IPTC:ObjectName": "Ein Schuh", "IPTC:By-line": "Anna Weiß",
    "IPTC:CopyrightNotice": "© Laden", "IPTC:Caption-Abstract": "Vor weißem Grund",
}  # fmt: skip
FROM_IPTC = {
    "XMP:Subject": ["Schuh", "rot"], "XMP:Title": "Ein Schuh", "XMP:Creator": "Anna Weiß",
    "XMP:Rights": "© Laden", "XMP:Description": "Vor weißem Grund",
}  # fmt: skip
LONG = {"XMP:Description": "ä" * 32_000}
PHOTOS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "camera.jpg": (CAMERA | PLACE, CAMERA | PLACE),
    "phone.jpg": (CAMERA | PLACE | {"EXIF:Make": "Apple"}, PLACE | {"EXIF:Make": "Apple"}),
    "lightroom.jpg": (CAMERA | WORDS | PLACE_IN_WORDS, CAMERA | WORDS | PLACE_IN_WORDS),
    "agency.jpg": (IPTC, FROM_IPTC),
    "both.jpg": (IPTC | {"XMP:Title": "Neuer"}, FROM_IPTC | {"XMP:Title": "Neuer"}),
    "long.jpg": (CAMERA | LONG, CAMERA | LONG),
    "scan.png": (CAMERA | PLACE | WORDS, CAMERA | PLACE | WORDS),
    "film.tif": (CAMERA | PLACE | WORDS, CAMERA | PLACE | WORDS),
    "web.webp": (CAMERA | PLACE | WORDS, CAMERA | PLACE | WORDS),
}
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "avif": ".avif"}
MARK = "XMP:DigitalSourceType"
MARKS = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def write(photos: dict[Path, dict[str, Any]]) -> None:
    """Write photos on their sides, each with its tags; starting exiftool takes longer than that."""
    called: list[object] = []
    for path, tags in photos.items():
        Image.new("RGB", (96, 64), "red").save(path)
        for name, value in tags.items():
            called += [
                f"-{name}={item}" for item in (value if isinstance(value, list) else [value])
            ]
        called += ["-EXIF:Orientation#=6", path, "-execute"]
    common = ["-common_args", "-q", "-n", "-overwrite_original", "-codedcharacterset=utf8"]
    subprocess.run(["exiftool", *map(str, called[:-1]), *common], check=True)


def tags_of(*paths: Path) -> list[dict[str, Any]]:
    """Return what exiftool reads in files, without a warning."""
    called = ["exiftool", "-j", "-G0", "-n", "-a", *map(str, paths)]
    found = json.loads(subprocess.run(called, check=True, capture_output=True).stdout)
    assert [tags for tags in found if "ExifTool:Warning" in tags] == []
    return found  # type: ignore[no-any-return]


@needs_exiftool
def test_every_result_keeps_what_the_photo_says(house: House) -> None:
    """Not what is true of the photo only; its picture is upright."""
    wanted: dict[Path, dict[str, Any]] = {}
    (photos := house.folder / "photos").mkdir()
    write({photos / name: tags for name, (tags, _) in PHOTOS.items()})
    for kind, suffix in SUFFIXES.items():
        house.save(f"{kind}/_pictures.yaml", f"prompt: a star\nsize: picture\nformat: {kind}\n")
        shutil.copytree(photos, house.inbox / kind, dirs_exist_ok=True)
        results = house.outbox / kind
        wanted |= {(results / name).with_suffix(suffix): kept for name, (_, kept) in PHOTOS.items()}
    assert house.once()
    for (result, kept), found in zip(wanted.items(), tags_of(*wanted), strict=True):
        there = {tag: found.get(tag) for tag in kept}
        assert there == {
            tag: pytest.approx(v) if isinstance(v, float) else v for tag, v in kept.items()
        }
        assert found.get("EXIF:Orientation") is found.get("EXIF:ThumbnailImage") is None
        with Image.open(result) as made:
            assert made.size == (64, 96)
        assert read_texts(result)[PARAMETERS].startswith("a star\nSteps: ")
        assert found[MARK] == f"{MARKS}compositeWithTrainedAlgorithmicMedia"


@needs_exiftool
def test_a_place_or_all_may_be_left_out(house: House) -> None:
    """The recipe wins over the setting; a reference counts as the start image does."""
    write({house.inbox / "p.jpg": CAMERA | PLACE | WORDS | PLACE_IN_WORDS})
    usual = "prompt: a star\nimage: p.jpg\nseed: 1\nsize: 64x64\n"
    house.save("a.yaml", usual)
    house.save("b.yaml", f"{usual}keep_exif: no_place\n")
    house.save("c.yaml", f"{usual}keep_exif: none\n")
    assert house.once(keep_exif="no_place")
    a, b, c = tags_of(*(house.outbox / file for file in house.pictures()))
    for found in (a, b):
        assert (found["EXIF:Model"], found["XMP:Title"]) == ("EOS R5", "Am Königssee")
        assert not (PLACE | PLACE_IN_WORDS).keys() & found.keys()
    assert [tag for tag in c if tag.startswith("EXIF:")] == []
    assert [tag for tag in c if tag.startswith("XMP:")] == [MARK]


LOOP = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08"
DAMAGED = {
    "no_directory": (picture("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), ""),
    "no_exif": (picture("JPEG", exif=b"Exif\0\0not a directory"), "EXIF"),
    "loop": (picture("JPEG", exif=LOOP), ""),
    "cut": (picture("JPEG", xmp=b"<x>not closed"), "XMP"),
    "text": (picture("JPEG", xmp=b"no packet"), "XMP"),
}


def test_damaged_metadata_loses_itself_and_never_the_picture(house: House) -> None:
    """The template's warnings say what is lost."""
    house.save("p/_pictures.yaml", "prompt: a star\nsize: 64x64\n")
    for name, (content, _) in DAMAGED.items():
        house.save(f"p/{name}.jpg", content)
    assert house.once()
    assert house.pictures() == [f"p/{name}.png" for name in sorted(DAMAGED)]
    said = (house.outbox / "p/_pictures.yaml.warning.txt").read_text()
    for name, (_, lost) in DAMAGED.items():
        assert (f"{name}.jpg" in said) is bool(lost), name
        assert not lost or f"The {lost} of p/{name}.jpg cannot be read" in said


def test_a_jpeg_has_room_for_its_own_texts_first(house: House) -> None:
    """A photo's EXIF or XMP that does not fit beside them is left out, and the log says so."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 64_000
    exif[ExifTags.Base.Model] = "EOS R5"
    long = packet(f"<dc:a>{'x' * 70_000}</dc:a><dc:b>short</dc:b>")
    house.save("p/a.webp", picture("WEBP", exif=exif.tobytes(), xmp=long.encode()))
    house.save("p/_pictures.yaml", "prompt: a star\nsize: 64x64\nformat: jpeg\n")
    assert house.once()
    assert house.pictures() == ["p/a.jpg"]
    assert read_texts(house.outbox / "p/a.jpg")[PARAMETERS].startswith("a star")
    for what in ("longest of the photo's EXIF", "longest of the photo's XMP"):
        assert f"{what} is left out" in house.log()
    with Image.open(house.outbox / "p/a.jpg") as made:
        assert f"{MARKS}composite".encode() in made.info["xmp"]
        assert b"<dc:b>short</dc:b>" in made.info["xmp"]
        assert made.getexif()[ExifTags.Base.Model] == "EOS R5"


def mark_of(path: Path) -> str:
    with Image.open(path) as made:
        found = made.info.get("xmp", b"")
    text = found.decode() if isinstance(found, bytes) else found
    return text.partition(MARKS)[2].partition("<")[0]


MADE = [
    ("prompt: a star\n", "trainedAlgorithmicMedia"),
    ("prompt: a star\nimage: p.png\n", "compositeWithTrainedAlgorithmicMedia"),
    ("image: p.png\ndetail: hat\n", "compositeWithTrainedAlgorithmicMedia"),
    ("prompt: a star\nimage: bare.png\nmask: {find: hat}\n", ""),
    ("image: bare.png\ndetail: hat\n", ""),
    ("image: p.png\nupscale: true\n", "algorithmicallyEnhanced"),
    ("image: p.png\ncutout: true\n", ""),
    ("image: drawn.png\nupscale: true\n", "trainedAlgorithmicMedia"),
    ("prompt: a star\nimage: drawn.png\n", "trainedAlgorithmicMedia"),
    ("image: drawn.png\ncutout: true\nkeep_exif: none\n", "trainedAlgorithmicMedia"),
    ("image: p.png\ncutout: true\nkeep_exif: none\n", ""),
]


def test_a_picture_says_how_it_was_made(house: House) -> None:
    """In XMP, by IPTC's words, unless the setting is off; `show` prints it."""
    house.draw("p.png")
    house.draw("bare.png")
    house.save("first.yaml", "prompt: a moon\nseed: 1\nsize: 64x64\n")
    assert house.once()
    shutil.copy(house.outbox / house.pictures()[0], house.inbox / "drawn.png")
    for folder, ai_mark in (("marked", True), ("unmarked", False)):
        for number, (recipe, _) in enumerate(MADE):
            house.save(f"{folder}{number}.yaml", recipe)
        assert house.once(ai_mark=ai_mark)
    for number, (recipe, mark) in enumerate(MADE):
        (made,), (unmarked,) = map(house.pictures, (f"marked{number}", f"unmarked{number}"))
        assert mark_of(house.outbox / made) == mark, recipe
        assert (f"# {mark}: " in picowatch_here(house.folder, "show", made).stdout) is bool(mark)
        is_kept = "drawn" in recipe and "none" not in recipe
        assert mark_of(house.outbox / unmarked) == ("trainedAlgorithmicMedia" if is_kept else "")


def test_sheets_and_previews_are_marked_too(house: House) -> None:
    """So that nobody takes them for photos."""
    house.save("a.yaml", "prompt: a star\nseed: 1..2\nsize: 64x64\ngrid: true\n")
    shown = house.outbox / "preview.png"

    def show_preview(batch: object) -> None:
        house.engine.on_preview(RgbPicture(8, 8, bytes(192)))
        wait_for(shown.exists, "the preview")
        marks.append(mark_of(shown))

    marks: list[str] = []
    house.engine.before_batch = show_preview
    assert house.once()
    marks += map(mark_of, house.outbox.rglob("*-sheet.png"))
    assert set(marks) == {"trainedAlgorithmicMedia"} and len(marks) > 1
