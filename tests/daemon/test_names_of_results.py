"""`name` in a `_pictures.yaml`: the names of photos' results."""

import os
from datetime import datetime

import pytest
from PIL import ExifTags, Image

from tests.house import House, error_files

pytestmark = pytest.mark.usefixtures("copies_here")

TAGS = ExifTags.Base
TAKEN = datetime(2026, 5, 2, 14, 30)
NAMES = {
    "{stem}-web": ["_DSC1-web", "b-web", "c2-web"],
    "{folder}-{number:04}": ["church-0001", "church-0002", "church-0003"],
    "{date} {stem}": ["2026-05-01 _DSC1", "2026-05-02 b", "2026-05-02 c2"],
    "{date:%Y%m%d}-{number}": ["20260501-1", "20260502-2", "20260502-1"],
}
# What stands behind "name: ", and what is said of it.
REFUSED = {
    "'web'": "several photos would have the same name",
    "'{folder}-{date}'": "add {stem}, the photo's own, or {number:04}",
    "'{stem}-{seed}'": "only {stem}, {folder}, {date} and {number:04} may have",
    "'{number:9999999999}'": "only {stem}",
    "'{stem}{date:%999999d}'": "only {stem}",
    "'../{stem}'": "must not contain /",
    "'.{stem}'": "begin with a dot",
    "'{number}'\nreplace: true": "with replace: true a name has no {number}",
    "{number:04}": "name must be text in quotes, like",
    "[web]": "name must be text in quotes, like",
    "{stem}-web": "For text, put it in quotes: name: '{stem}-web'",
    '"\\0{stem}"': "it contains the NUL character (U+0000). Remove it.",
}


def wedding(house: House, folder: str, pattern: str) -> None:
    """Save a template and two photos: one with EXIF's date, one with that of its file."""
    house.save(f"{folder}/_pictures.yaml", f"resize_to: 32\nformat: same\nname: '{pattern}'\n")
    shoot(house, f"{folder}/church/_DSC1.jpg", exif="2026:05:01 23:59:59")
    shoot(house, f"{folder}/church/b.jpg")


def shoot(house: House, name: str, exif: str = "") -> None:
    metadata = Image.Exif()
    dates = TAGS.DateTimeOriginal, TAGS.DateTimeDigitized, TAGS.DateTime
    for tag, text in zip(dates, exif.split("|"), strict=False):
        (metadata if tag == TAGS.DateTime else metadata.get_ifd(ExifTags.IFD.Exif))[tag] = text
    path = house.draw(name, size=(64, 64 + len(name)))
    with Image.open(path) as photo:
        photo.load()
    photo.save(path, exif=metadata)
    at = TAKEN.timestamp() + len([*path.parent.iterdir()])
    os.utime(path, (at, at))


def test_a_result_has_the_name_that_its_template_says(house: House) -> None:
    """And the next one, when the ledger was lost: its number is the lowest that is free."""
    folders = {f"wedding{number}": names for number, names in enumerate(NAMES.values())}
    for folder, pattern in zip(folders, NAMES, strict=True):
        wedding(house, folder, pattern)

    def expected(count: int) -> list[str]:
        return sorted(f"{at}/church/{its}.jpg" for at in folders for its in folders[at][:count])

    assert house.once()
    assert house.pictures() == expected(2)
    house.ledger.unlink()
    for folder in folders:
        shoot(house, f"{folder}/church/c2.jpg")
    assert house.once()
    assert house.pictures() == expected(3)


@pytest.mark.parametrize(
    ("exif", "name"),
    [
        ("2024-05-01 10:11:12", "240501-1011"), ("2024/05/01T10:11", "240501-1011"),
        ("2024:05:01", "240501-0000"), ("2024:05:01 24:00:10", "240501-0000"),
        ("0000:00:00 00:00:00|2024:05:01 10:11:12|2026:01:01 00:00:00", "240501-1011"),
        ("    :  :     :  :  ||2024:05:01 10:11:12", "240501-1011"),
        ("2024:13:01 10:11:12|never", "260502-1430"),
    ],
)  # fmt: skip
def test_the_day_is_read_however_exif_says_it(house: House, exif: str, name: str) -> None:
    """As phones and scanners write it; without any, the file's counts."""
    house.save("a/_pictures.yaml", "resize_to: 32\nname: '{date:%y%m%d-%H%M}{stem}'\n")
    shoot(house, "a/b.jpg", exif)
    assert house.once()
    assert house.pictures() == [f"a/{name}b.png"]


def test_a_name_that_cannot_be_is_refused(house: House) -> None:
    """With the reason, once for the folder."""
    said = {f"{number}/_pictures.yaml": words for number, words in enumerate(REFUSED.values())}
    for template, written in zip(said, REFUSED, strict=True):
        house.save(template, f"resize_to: 32\nname: {written}\n")
        for photo in "ab":
            shoot(house, template.replace("_pictures.yaml", f"{photo}.jpg"))
    assert not house.once()
    assert error_files(house.outbox) == {*said}
    for template, words in said.items():
        assert words in (house.error(template) or ""), template


def test_a_recipe_has_numbers_and_says_so(house: House) -> None:
    """Fields about the names of results are for photos."""
    house.save("a.yaml", "prompt: a corgi\nseed: 7\nname: '{stem}'\nreplace: true\n")
    assert house.once()
    assert house.pictures() == ["a/0001-7.png"]
    assert house.listed()[0]["replace"]
    warning = (house.outbox / "a.yaml.warning.txt").read_text()
    assert "replace has no effect here: it is for photos that a _pictures.yaml takes." in warning
    assert "The setting file_name" in warning
