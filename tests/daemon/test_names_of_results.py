"""`name` in a `_pictures.yaml`: the names of photos' results."""

import os
from datetime import datetime

import pytest
from PIL import ExifTags, Image

from tests.house import House
from tests.outcome import error_files

TAKEN = datetime(2026, 5, 2, 14, 30)


@pytest.fixture
def wedding(house: House) -> House:
    """Return a house with two photos: one with EXIF's date, one with that of its file."""
    draw(house, "_DSC1.jpg", exif="2026:05:01 23:59:59")
    draw(house, "b.jpg")
    return house


def draw(house: House, name: str, exif: str = "") -> None:
    path = house.inbox / "wedding/church" / name
    house.draw(f"wedding/church/{name}", size=(64, 64 + len(name)))
    metadata = Image.Exif()
    if exif:
        metadata.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = exif
    with Image.open(path) as photo:
        photo.load()
    photo.save(path, exif=metadata)
    at = TAKEN.timestamp() + len([*path.parent.iterdir()])
    os.utime(path, (at, at))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{stem}-web", ["_DSC1-web", "b-web", "c2-web"]),
        ("{folder}-{number:04}", ["church-0001", "church-0002", "church-0003"]),
        ("{date} {stem}", ["2026-05-01 _DSC1", "2026-05-02 b", "2026-05-02 c2"]),
        ("{date:%Y%m%d}-{number}", ["20260501-1", "20260502-2", "20260502-1"]),
    ],
)
def test_a_result_has_the_name_that_its_template_says(
    wedding: House, pattern: str, names: list[str]
) -> None:
    """And the next one, when the ledger was lost: its number is the lowest that is free."""
    files = [f"wedding/church/{name}.jpg" for name in names]
    wedding.save("wedding/_pictures.yaml", f"resize_to: 32\nformat: same\nname: '{pattern}'\n")
    assert wedding.once()
    assert wedding.pictures() == files[:2]
    (wedding.outbox / ".picowatch/ledger.sqlite").unlink()
    draw(wedding, "c2.jpg")
    assert wedding.once()
    assert wedding.pictures() == sorted(files)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("web", "several photos would have the same name"),
        ("{folder}-{date}", "add {stem}, the photo's own, or {number:04}"),
        ("{stem}-{seed}", "only {stem}, {folder}, {date} and {number:04} may have"),
        ("{number:9999999999}", "only {stem}"),
        ("{stem}{date:%999999d}", "only {stem}"),
        ("../{stem}", "must not contain /"),
        (".{stem}", "begin with a dot"),
        ("{number}'\nreplace: 'true", "with replace: true a name has no {number}"),
    ],
)
def test_a_name_that_cannot_be_is_refused(wedding: House, pattern: str, words: str) -> None:
    """With the reason, once for the folder."""
    wedding.save("wedding/_pictures.yaml", f"resize_to: 32\nname: '{pattern}'\n")
    assert not wedding.once()
    assert error_files(wedding.outbox) == {"wedding/_pictures.yaml"}
    error = wedding.outbox / "wedding/_pictures.yaml.error.txt"
    assert words in error.read_text()


def test_a_recipe_says_that_it_names_nothing(house: House) -> None:
    house.save("a.yaml", "prompt: a corgi\nsize: 64x64\nname: '{stem}'\n")
    assert house.once()
    assert "The setting file_name" in (house.outbox / "a.yaml.warning.txt").read_text()
