"""Contact sheets: the pictures of one entry on one page, with labels a person can read."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import ceil, sqrt
from pathlib import Path
from textwrap import wrap
from unicodedata import east_asian_width

from PIL import Image, ImageDraw, ImageFont

from picowatch.errors import ControlFlow
from picowatch.files.atomic import check_in_place
from picowatch.files.decoding import in_srgb
from picowatch.files.pictures import FORMATS
from picowatch.files.safe_paths import open_regular
from picowatch.recipe.fields import Axis

log = logging.getLogger("picowatch")

MAX_SIDE = 8192  # pixels of a sheet; pictures shrink until they fit
SMALLEST_PICTURE = 48
GAP = 8
LINES = 3  # of a label
LARGEST_FONT = 28  # pixels
SHORTEST_LABEL = 8  # characters of an axis beside a long value
# Fonts of Linux and macOS, for letters that Pillow's own font lacks, which has only English ones;
# those of the second line for Chinese, Japanese and Korean.
FONTS = "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial Unicode.ttf"
WIDE = "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "Hiragino Sans GB.ttc"
PAPER, INK, MISSING = (255, 255, 255), (32, 32, 36), (224, 224, 228)
SQUARE, SHADE = 8, (217, 217, 217)  # of the chequered ground behind transparent pictures


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the sheet; `picture` is None if it could not be rendered."""

    picture: Path | None
    label: str = ""


_Line = tuple[tuple[str, str], ...]  # what a row or column shows: axes, each with its value


class SheetTooLarge(ControlFlow):
    """More pictures than fit on a sheet at a recognisable size."""


def contact_sheet(cells: Sequence[Cell], axes: Sequence[Axis], side: int) -> Image.Image:
    """Draw a sheet of `cells`, which are in the order of the axes, the last axis fastest.

    The last axis gives the columns, the combinations of the others the rows. Without axes the cells
    form a square, each with its own label. `side` is a picture's longer side in pixels; pictures
    shrink until the sheet's sides have at most MAX_SIDE. Raises SheetTooLarge.
    """
    return _Sheet(cells, axes, side).drawn()


def _font_for(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the first installed font that should have the letters."""
    names = (*WIDE, *FONTS) if _is_wide(text) else (*FONTS, *WIDE)
    for name in () if text.isascii() else names:
        with suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _is_wide(text: str) -> bool:
    return any(east_asian_width(letter) in "WF" for letter in text)


class _Sheet:
    """The layout of a contact sheet, as `contact_sheet` says."""

    def __init__(self, cells: Sequence[Cell], axes: Sequence[Axis], side: int) -> None:
        self._cells = cells
        columns: list[_Line] = [()] * max(1, ceil(sqrt(len(cells))))
        rows: list[_Line] = [()] * ceil(len(cells) / len(columns))
        if named := [[(axis.label, value) for value in axis.values] for axis in axes]:
            columns, rows = [(value,) for value in named[-1]], list(product(*named[:-1]))
        self._rows, self._columns = rows, columns
        has_names, has_labels = any(columns), any(cell.label for cell in cells)
        label = LINES * (LARGEST_FONT + 4)
        most_wide = (MAX_SIDE - 2 * GAP) // (len(columns) + any(rows)) - GAP
        most_high = (MAX_SIDE - 2 * GAP - label * has_names) // max(1, len(rows)) - GAP
        side = max(side, SMALLEST_PICTURE)  # smaller pictures stay as they are
        self._side = side = min(side, most_wide, most_high - label * has_labels)
        if side < SMALLEST_PICTURE:
            raise SheetTooLarge(f"{len(cells)} pictures")
        texts = (text for line in (*rows, *columns) for value in line for text in value)
        words = "".join((*texts, *(cell.label for cell in cells)))
        size = max(11, min(LARGEST_FONT, side // 12))
        self._font = _font_for(words, size)
        self._characters = max(6, int(side / (size * (1.0 if _is_wide(words) else 0.55))))
        label = LINES * (size + 4)
        self._left = GAP + (side + GAP) * any(rows)
        self._top = GAP + label * has_names
        self._step = side + GAP + label * has_labels
        self._size = (
            self._left + len(columns) * (side + GAP) + GAP,
            self._top + len(rows) * self._step + GAP,
        )

    def drawn(self) -> Image.Image:
        page = Image.new("RGB", self._size, PAPER)
        draw = ImageDraw.Draw(page)
        lefts = [self._left + at * (self._side + GAP) for at in range(len(self._columns))]
        tops = [self._top + at * self._step for at in range(len(self._rows))]
        for left, line in zip(lefts, self._columns, strict=True):
            self._text(draw, left, GAP, self._named(line))
        for top, line in zip(tops, self._rows, strict=True):
            self._text(draw, GAP, top, self._named(line))
        for cell, (top, left) in zip(self._cells, product(tops, lefts), strict=False):
            shown: Image.Image | str = "not rendered"
            if cell.picture is not None and cell.picture.exists():
                shown = _small_picture(cell.picture, self._side)
            if isinstance(shown, str):
                draw.rectangle((left, top, left + self._side, top + self._side), MISSING)
                self._text(draw, left + GAP, top + GAP, shown)
            else:
                if shown.mode == "RGBA":
                    page.paste(chequered(shown.size), (left, top))
                page.paste(shown, (left, top), shown if shown.mode == "RGBA" else None)
            self._text(draw, left, top + self._side + 2, cell.label)
        return page

    def _named(self, line: _Line) -> str:
        """Return values with their axes; if both are too long, the axis is shortened."""
        words = []
        for label, value in line:
            room = (self._characters - 1) * LINES // len(line) - len(value)
            cut = label if len(label) <= room else f"{label[: max(SHORTEST_LABEL, room)]}…"
            words.append(f"{cut}: {value}")
        return ", ".join(words)

    def _text(self, draw: ImageDraw.ImageDraw, left: int, top: int, text: str) -> None:
        """Draw a label of at most three lines; a longer label is shortened."""
        lines = wrap(text, self._characters, max_lines=LINES, placeholder="…")
        draw.multiline_text((left, top), "\n".join(lines), INK, self._font, spacing=2)


def chequered(size: tuple[int, int]) -> Image.Image:
    """Return the ground on which a transparent picture is shown, as in picture editors."""
    wide, high = (-(-side // SQUARE) for side in size)
    ground = Image.new("RGB", (wide, high), PAPER)
    ground.putdata([(PAPER, SHADE)[(x + y) % 2] for y in range(high) for x in range(wide)])
    large = ground.resize((wide * SQUARE, high * SQUARE), Image.Resampling.NEAREST)
    return large.crop((0, 0, *size))


def _small_picture(path: Path, side: int) -> Image.Image | str:
    """Return a picture at its size on the sheet, or words for what cannot be read."""
    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as picture:
            picture.thumbnail((side, side), Image.Resampling.LANCZOS)
            return in_srgb(picture.copy())  # the file is closed
    # Pillow's readers raise whatever they stumble over: struct.error, IndexError, TypeError…
    except Exception as error:
        check_in_place(path)  # raises if the whole outbox is away
        log.warning("%s cannot be shown on its contact sheet: %s", path, error)
        return "unreadable"
