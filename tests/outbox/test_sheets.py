"""Contact sheets: the right picture in the right place, readable, of limited size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from picowatch.files.colours import profile_of
from picowatch.outbox import sheets
from picowatch.outbox.sheets import Cell, SheetTooLarge, contact_sheet
from picowatch.recipe.fields import Axis

COLOURS = [(255, 0, 0), (0, 160, 0), (0, 0, 255), (255, 200, 0), (0, 200, 200), (200, 0, 200)]


def cells(folder: Path, count: int, label: str = "") -> list[Cell]:
    made = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.new("RGB", (64, 64), COLOURS[number % len(COLOURS)]).save(path)
        made.append(Cell(path, label))
    return made


def boxes(sheet: Image.Image) -> list[tuple[int, int, int, int]]:
    found = []
    for colour in COLOURS:
        rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
        if rows.size:
            found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return found


@pytest.mark.parametrize(
    "axes",
    [
        [Axis("steps", ("10", "20")), Axis("sampler", ("Euler", "DDIM", "PNDM"))],
        [Axis("cfg_scale", ("4", "7")), Axis("steps", ("1",)), Axis("sampler", ("a", "b", "c"))],
        [Axis("sampler", ("a", "b", "c", "d", "e", "f"))],
        [],
    ],
)
def test_the_last_axis_makes_columns_and_the_others_rows(tmp_path: Path, axes: list[Axis]) -> None:
    """Without axes, pictures form a square, each with its own label."""
    found = boxes(contact_sheet(cells(tmp_path, 6, "" if axes else "seed 1"), axes, 64))
    assert found == sorted(found, key=lambda box: (box[1], box[0])), "row by row"
    assert {(right - left, bottom - top) for left, top, right, bottom in found} == {(64, 64)}
    assert len({left for left, *_ in found}) == (len(axes[-1].values) if axes else 3)


def test_small_pictures_have_a_sheet(tmp_path: Path) -> None:
    sheet = contact_sheet(cells(tmp_path, 2), [Axis("format", ("png", "jpeg"))], 32)
    assert sheet.width >= 2 * sheets.SMALLEST_PICTURE and len(boxes(sheet)) == 2


def test_a_chequered_ground_is_seen_through_a_transparent_picture(tmp_path: Path) -> None:
    """Transparent pixels are mostly black, and a white page would hide white ones."""
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((20, 20, 20, 255), (0, 0, 32, 64))
    picture.save(tmp_path / "a.png")
    sheet = contact_sheet([Cell(tmp_path / "a.png"), Cell(None)], [], 64)
    seen = [sheet.getpixel((sheets.GAP + x, sheets.GAP)) for x in (0, 50, 58)]
    assert seen == [(20, 20, 20), sheets.PAPER, sheets.SHADE]
    beside = 2 * sheets.GAP + 64
    assert sheet.getpixel((beside + 60, sheets.GAP + 60)) == sheets.MISSING, "one not rendered"


def test_a_picture_with_a_profile_has_its_colours_on_the_sheet(tmp_path: Path) -> None:
    """Display P3's (234, 51, 35) is the red of sRGB, in which sheets are."""
    wide = profile_of({"nclx_profile": {"color_primaries": 12}})
    Image.new("RGB", (64, 64), (234, 51, 35)).save(tmp_path / "a.png", icc_profile=wide)
    sheet = contact_sheet([Cell(tmp_path / "a.png")], [], 64)
    seen = np.asarray(sheet)[sheets.GAP + 32, sheets.GAP + 32].astype(int)
    assert np.abs(seen - (255, 0, 0)).max() <= 3, seen


def test_a_sheet_never_exceeds_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures shrink first, then it is refused. Labels never overlap the next column's."""
    long = "a very long text that says much more than fits above a picture " * 5
    narrow, wide = (
        contact_sheet(cells(tmp_path, 2), [Axis("prompt", (label, "y"))], 64)
        for label in ("x", long)
    )
    assert narrow.size == wide.size
    monkeypatch.setattr(sheets, "MAX_SIDE", 500)
    assert max(contact_sheet(cells(tmp_path, 6), [Axis("steps", tuple("123456"))], 256).size) <= 500
    with pytest.raises(SheetTooLarge):
        contact_sheet(cells(tmp_path, 20), [Axis("steps", tuple(map(str, range(20))))], 256)


def test_labels_in_other_scripts_are_letters(tmp_path: Path) -> None:
    """A font of the system is used, because Pillow's own has only English letters."""
    try:
        ImageFont.truetype("DejaVuSans.ttf")
    except OSError:
        pytest.skip("no such font is installed")
    sheet = contact_sheet(cells(tmp_path, 2), [Axis("prompt", ("жук", "ёры"))], 128)
    (left, top, right, _), (other, *_) = boxes(sheet)[:2]
    labels = [sheet.crop((x, 0, x + right - left, top)).tobytes() for x in (left, other)]
    assert labels[0] != labels[1]
