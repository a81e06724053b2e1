"""Contact sheets: the pictures of one entry on one page, with labels a person can read."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
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
from picowatch.files.inside import open_regular
from picowatch.files.pictures import FORMATS
from picowatch.recipe.fields import Axis

log = logging.getLogger("picowatch")

MAX_SIDE = 8192  # pixels of a sheet; pictures shrink until they fit
SMALLEST_PICTURE = 48
GAP = 8
LINES = 3  # of a label
SHORTEST_LABEL = 8  # characters of an axis beside a long value
# Of Linux and macOS, for letters that Pillow's own lacks: it has English ones only.
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial Unicode.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "Hiragino Sans GB.ttc"),
)
PAPER, INK, MISSING = (255, 255, 255), (32, 32, 36), (224, 224, 228)


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture's cell on the sheet; None if it could not be rendered."""

    picture: Path | None
    label: str = ""


Box = tuple[int, int, int, int]  # left, top, width and height, in pixels


@dataclass(frozen=True, slots=True)
class Sheet:
    """A drawn sheet, and where on it pictures are: the rest is paper and ink."""

    page: Image.Image
    boxes: tuple[Box, ...]


class SheetTooLarge(ControlFlow):
    """More pictures than fit on a sheet at a size at which anything can be seen."""


def contact_sheet(
    cells: Sequence[Cell],
    axes: Sequence[Axis],
    side: int,
) -> Sheet:
    """A sheet of `cells` in the order of the axes, the last one fastest.

    The last axis gives the columns, the one before it the rows; further ones are laid out block
    below block. Without axes the cells form a square, each
    with its own label. `side` is the longer side of a picture in pixels; pictures shrink until
    the sheet has at most MAX_SIDE each way. Raises SheetTooLarge.
    """
    if not axes:
        return _page([_square(cells)], side)
    columns = axes[-1]
    rows = axes[-2] if len(axes) > 1 else Axis("", ("",))
    size = len(columns.values) * len(rows.values)
    blocks = [
        _Block(title, rows, columns, cells[index * size : (index + 1) * size])
        for index, title in enumerate(_titles(axes[:-2]))
    ]
    return _page(blocks, side)


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows and columns of pictures under one title."""

    title: str
    rows: Axis
    columns: Axis
    cells: Sequence[Cell]

    @property
    def text(self) -> str:
        """All its words."""
        axes = (word for axis in (self.rows, self.columns) for word in (axis.label, *axis.values))
        return "".join((self.title, *axes, *(cell.label for cell in self.cells)))


def _square(cells: Sequence[Cell]) -> _Block:
    width = max(1, ceil(sqrt(len(cells))))
    rows = ceil(len(cells) / width)
    return _Block("", Axis("", ("",) * rows), Axis("", ("",) * width), cells)


def _titles(axes: Sequence[Axis]) -> Iterator[str]:
    """A title for every combination of these axes, the last one fastest."""
    for values in product(*(axis.values for axis in axes)):
        yield ", ".join(f"{axis.label}: {v}" for axis, v in zip(axes, values, strict=True))


def _page(blocks: Sequence[_Block], side: int) -> Sheet:
    letters = {letter for block in blocks for letter in block.text if letter.isprintable()}
    font = _font_with(letters)
    letter_width = 1.0 if any(east_asian_width(one) in "WF" for one in letters) else 0.55
    while True:
        drawing = _Drawing(side, font, letter_width)
        width, height = drawing.size(blocks)
        if max(width, height) <= MAX_SIDE:
            return Sheet(drawing.draw(blocks, width, height), tuple(drawing.boxes))
        if side <= SMALLEST_PICTURE:
            raise SheetTooLarge(f"{sum(len(block.cells) for block in blocks)} pictures")
        side = max(SMALLEST_PICTURE, side * 4 // 5)


def _font_with(letters: set[str]) -> str:
    """The file of the installed font that lacks the fewest of them; "" is Pillow's own."""
    best, fewest = "", _count_missing(ImageFont.load_default(12), letters)
    for name in FONTS:
        if not fewest:
            break
        with suppress(OSError):
            missing = _count_missing(ImageFont.truetype(name, 12), letters)
            if missing < fewest:
                best, fewest = name, missing
    return best


def _count_missing(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, letters: set[str]) -> int:
    """How many of the letters the font lacks: they look like U+10FFFF, which no font has."""
    box, *masks = (font.getmask(letter) for letter in ("\U0010ffff", *letters))
    return sum(mask.size == box.size and bytes(mask) == bytes(box) for mask in masks)


class _Drawing:
    """Lays out and draws blocks with pictures of one size.

    `font` is a font's file, "" for Pillow's own; `letter_width` is a share of the font's size.
    """

    def __init__(self, side: int, font: str, letter_width: float) -> None:
        self._side = side
        self._type = max(11, min(28, side // 12))
        self._font = (
            ImageFont.truetype(font, self._type) if font else ImageFont.load_default(self._type)
        )
        self._characters = max(6, int(side / (self._type * letter_width)))
        self._label = LINES * (self._type + 4)
        self.boxes: list[Box] = []

    def size(self, blocks: Sequence[_Block]) -> tuple[int, int]:
        """Width and height of the page."""
        widths = [self._left(block) + len(block.columns.values) * self._step for block in blocks]
        return max(widths) + GAP, sum(self._height(block) for block in blocks) + GAP

    def draw(self, blocks: Sequence[_Block], width: int, height: int) -> Image.Image:
        page = Image.new("RGB", (width, height), PAPER)
        top = GAP
        for block in blocks:
            self._draw_block(page, block, top)
            top += self._height(block)
        return page

    @property
    def _step(self) -> int:
        return self._side + GAP

    def _left(self, block: _Block) -> int:
        return GAP + (self._side + GAP if any(block.rows.values) else 0)

    def _head(self, block: _Block) -> int:
        """Height above a block's pictures: its title, and the columns' labels."""
        labelled = any(block.columns.values)
        return (self._label if block.title else 0) + (self._label if labelled else 0)

    def _row(self, block: _Block) -> int:
        return self._step + (self._label if any(cell.label for cell in block.cells) else 0)

    def _height(self, block: _Block) -> int:
        return self._head(block) + len(block.rows.values) * self._row(block)

    def _draw_block(self, page: Image.Image, block: _Block, top: int) -> None:
        draw = ImageDraw.Draw(page)
        left, columns = self._left(block), len(block.columns.values)
        if block.title:
            self._text(draw, GAP, top, block.title, columns + 1)
        under = top + self._head(block)
        for column, value in enumerate(block.columns.values):
            if value:
                x = left + column * self._step
                self._text(draw, x, under - self._label, self._named(block.columns, value))
        for row, value in enumerate(block.rows.values):
            y = under + row * self._row(block)
            if value:
                self._text(draw, GAP, y, self._named(block.rows, value))
            for column, cell in enumerate(block.cells[row * columns : (row + 1) * columns]):
                self._draw_cell(page, draw, cell, left + column * self._step, y)

    def _named(self, axis: Axis, value: str) -> str:
        """A value with its axis; where both are too long, the axis is what is shortened."""
        room = self._characters * LINES - LINES - len(value)
        if len(axis.label) <= room:
            return f"{axis.label}: {value}"
        return f"{axis.label[: max(SHORTEST_LABEL, room)]}…: {value}"

    def _draw_cell(
        self, page: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, left: int, top: int
    ) -> None:
        shown: Image.Image | str = "not rendered"
        if cell.picture is not None and cell.picture.exists():
            shown = _small_picture(cell.picture, self._side)
        if isinstance(shown, str):
            draw.rectangle((left, top, left + self._side, top + self._side), MISSING)
            self._text(draw, left + GAP, top + GAP, shown)
        else:
            page.paste(shown, (left, top), shown if shown.has_transparency_data else None)
            self.boxes.append((left, top, *shown.size))
        if cell.label:
            self._text(draw, left, top + self._side + 2, cell.label)

    def _text(
        self, draw: ImageDraw.ImageDraw, left: int, top: int, text: str, pictures: int = 1
    ) -> None:
        """A label in at most three lines; a longer one is shortened."""
        lines = wrap(text, self._characters * pictures, max_lines=LINES, placeholder="…")
        draw.multiline_text((left, top), "\n".join(lines), INK, self._font, spacing=2)


def _small_picture(path: Path, side: int) -> Image.Image | str:
    """A picture at its size on the sheet, or words for one that somebody damaged or replaced."""
    try:
        with warnings.catch_warnings(), os.fdopen(open_regular(path), "rb") as file:
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as picture:
                picture.thumbnail((side, side), Image.Resampling.LANCZOS)
                return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    # Pillow's readers raise whatever they stumble over: struct.error, IndexError, TypeError…
    except Exception as error:
        check_in_place(path)  # it may be the whole outbox that cannot be read
        log.warning("%s cannot be shown on its contact sheet: %s", path, error)
        return "unreadable"
