"""The entries of a CSV recipe: the first row names fields, each further row is a recipe."""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice, repeat

from picowatch.recipe.fields import FRACTIONS
from picowatch.recipe.messages.problems import Problems, refuse, shown
from picowatch.recipe.read.names import add, check_notes, excuse_prompt, field_called, unknown
from picowatch.recipe.written import NOTE, Entry, Layer, Position, Source, SourceValue

_MOST_FIELDS = 200  # cells among which a cell names a field, in any table that has names
_NO_DELIMITER = "\x1f"  # no file has it
_SHORTENED = re.compile(r"\d[.,]\d+E\+\d\d")  # as Excel writes 1234567890
# As spreadsheets write it in most of Europe.
_DECIMAL_COMMA = re.compile(r"\d{1,9},\d{1,9}")
_NUMBERS = {*FRACTIONS, "hires", "upscale"}  # of which a number is the scale
# A column's name as written, and the field or note that it means, if any.
_Column = tuple[str, str | None]


def csv_entries(source: Source, problems: Problems) -> list[Entry]:
    """Return one entry per row; empty cells count as missing. RecipeInvalid if it is not CSV.

    Programs write commas, semicolons or tabs between cells: the first row tells which. In a table
    of one column they are text. Where semicolons separate, numbers may have a decimal comma.
    Columns that begin with an underscore are notes.
    """
    first_line = next(filter(str.strip, source.lines), "")
    separator = max(",;\t", key=first_line.count)
    rows = _rows(source, separator if separator in first_line else _NO_DELIMITER)
    first_row = next(rows, iter(()))
    cells = list(islice(first_row, _MOST_FIELDS))
    named = [cell for cell in cells if cell.text]
    is_text = any(" " in cell.text or cell.text[0].isdigit() for cell in named)
    if is_text and not any(field_called(cell.text) for cell in named):
        what = f"'{shown(named[0].text)}' is no field: the first row names the columns."
        refuse(named[0].position, f"{what} Put a row above it, like prompt,steps,seed.")
    columns: list[_Column] = []
    for name in chain(cells, first_row):
        # A hostile file has half a million cells without text.
        column = field_called(name.text) if name.text else None
        columns.append((name.text, column))
        if name.text and column is None:  # told once, not in each row
            note = f"{NOTE}{shown(name.text)}"
            instead = f"To keep it only in the pictures' metadata, call the column {note}."
            if re.search(r"\w\s*[|\t;]\s*\w", name.text):
                instead = "Separate cells by commas alone, or by semicolons or tabs."
            problems.add(name.position, f"{unknown(name.text, otherwise='')} {instead}")
    entries: list[Entry] = []
    for row in rows:
        first = next(row)
        if layer := _layer(columns, chain((first,), row), problems, has_comma=separator == ";"):
            entries.append(Entry(layer, first.position))
    return entries


def _layer(
    columns: Iterable[_Column], row: Iterable[SourceValue], problems: Problems, has_comma: bool
) -> Layer:
    layer: Layer = {}
    filled: dict[str, str] = {}  # the first column of each field
    for (name, column), cell in zip(chain(columns, repeat(("", None))), row, strict=False):
        if column and _SHORTENED.fullmatch(cell.text):
            what = "a spreadsheet has shortened this number."
            problems.add(cell.position, f"{what} Format the cell as text, and retype it.")
        elif column and cell.text:
            field = field_called(name, cell.text) or column
            if has_comma and field in _NUMBERS and _DECIMAL_COMMA.fullmatch(cell.text):
                cell = cell.with_value(cell.text.replace(",", "."))
            first = filled.setdefault(field, name)
            add(layer, field, name, replace(cell, key=cell.position), problems, first)
        elif name and not column:
            excuse_prompt(layer, name, cell)
        elif cell.text:
            what = f"'{shown(cell.text)}' has no column in the first row."
            remedy = "Put double quotes around a text that contains the separator."
            problems.add(cell.position, f"{what} {remedy}")
            return {}  # its cells may be in the wrong columns
    check_notes(layer, problems)
    return layer


def _rows(source: Source, separator: str) -> Iterator[Iterator[SourceValue]]:
    """Yield the cells, with their positions, of each row that is not empty."""
    reader = csv.reader((f"{line}\n" for line in source.lines), delimiter=separator, strict=True)
    begins, number = 1, 0
    try:
        for number, row in enumerate(reader, 1):
            if any(cell.strip() for cell in row):
                yield _cells(row, source, begins, f" (row {number})")
            begins = reader.line_num + 1
    except csv.Error as error:
        why = str(error).replace(f"'{_NO_DELIMITER}'", "the end of the cell")
        message = f"this is not CSV: {shown(why)}. Double quotes around a cell must be closed."
        refuse(replace(source.whole_line(begins), note=f" (row {number + 1})"), message)


def _cells(row: list[str], source: Source, line: int, note: str) -> Iterator[SourceValue]:
    """Yield a row's cells with their positions in its first line; further lines have none."""
    text, column = source.line(line), 0
    whole = replace(source.whole_line(line), note=note)
    empty = SourceValue("", replace(whole, width=1))
    for cell in row:
        if not (value := cell.strip()):
            yield empty
            continue
        shown = value.partition("\n")[0].replace('"', '""')
        found = text.find(shown, column)
        is_there = found >= 0
        column = found + len(shown) if is_there else column
        position = Position(source, line, found + 1, len(shown), note) if is_there else whole
        yield SourceValue(value, position, cell)
