"""The entries of a CSV recipe: the first row names fields, each further row is a recipe."""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, repeat, takewhile

from picowatch.recipe.messages.problems import Problems, refuse, shown
from picowatch.recipe.read.names import add, excuse_prompt, field_called, unknown
from picowatch.recipe.read.txt_entries import MAX_PROMPTS
from picowatch.recipe.written import NOTE, Entry, Layer, Position, Source, Written

_DELIMITERS = ",;\t"
_NO_DELIMITER = "\x1f"  # no file has it
# A line that Excel expects above a table, and does not show as a row.
_SEPARATOR = re.compile(r'(?i)"?sep=([,;\t])"?\s*')
_SHORTENED = re.compile(r"\d[.,]\d+E\+\d\d")  # as Excel writes 1234567890
MAX_NOTES = 2_000  # characters; a row may request many images, and each has its notes
# A column's name as written, and the field or note that it means, if any.
_Column = tuple[str, str | None]


def csv_entries(source: Source, problems: Problems) -> list[Entry]:
    """Return one entry per row; empty cells count as missing. RecipeInvalid if it is not CSV.

    Programs write commas, semicolons or tabs between cells: the first row tells which. In a table
    of one column they are text. Columns that begin with an underscore are notes.
    """
    rows = _rows(source)
    asked = takewhile(lambda name: not problems.is_full, next(rows, ()))
    columns = [(name.text, _meaning(name, problems)) for name in asked]
    entries: list[Entry] = []
    for row in rows:
        if problems.is_full:
            break
        first = next(row)
        if len(entries) == MAX_PROMPTS:
            message = f"more than {MAX_PROMPTS:,} rows in one file. Split it."
            problems.add(first.position, message)
            break
        if layer := _layer(columns, chain((first,), row), problems):
            entries.append(Entry(layer, first.position))
    return entries


def _meaning(name: Written, problems: Problems) -> str | None:
    """Return the field or note of a column; unknown names are reported once, not in each row."""
    if not name.text:  # of which a hostile file has half a million
        return None
    column = name.text if name.text.startswith(NOTE) else field_called(name.text)
    if column is None:
        note = f"{NOTE}{shown(name.text)}"
        instead = f"To keep it only in the pictures' metadata, call the column {note}."
        if " " in name.text:  # a prompt, in a table without names
            instead = "The first row names the fields, like prompt,seed,size."
        problems.add(name.position, f"{unknown(name.text, otherwise='')} {instead}")
    return column


def _layer(columns: Iterable[_Column], row: Iterable[Written], problems: Problems) -> Layer:
    layer: Layer = {}
    for (name, column), cell in zip(chain(columns, repeat(("", None))), row, strict=False):
        if problems.is_full:
            break
        if column and _SHORTENED.fullmatch(cell.text):
            message = (
                "a spreadsheet has shortened this number. Format the cell as text, and retype it."
            )
            problems.add(cell.position, message)
        elif column and cell.text:
            field = field_called(name, cell.text) or column
            add(layer, field, name, replace(cell, key=cell.position), problems)
        elif name and not column:
            excuse_prompt(layer, name, cell)
        elif cell.text:
            message = (
                f"'{shown(cell.text)}' has no column in the first row. Put double quotes around a "
                "text that contains the separator."
            )
            problems.add(cell.position, message)
            return {}  # its cells may be in the wrong columns
    notes = [(name, cell) for name, cell in layer.items() if name.startswith(NOTE)]
    if notes and sum(len(cell.text) for _, cell in notes) > MAX_NOTES:
        name, cell = notes[-1]
        message = f"{shown(name)}: the notes of a row have more than {MAX_NOTES:,} characters."
        problems.add(cell.position, message)
    return layer


def _rows(source: Source) -> Iterator[Iterator[Written]]:
    """Yield the cells, with their positions, of each row that is not empty."""
    lines = list(source.lines)
    top = next((number for number, line in enumerate(lines) if line.strip()), 0)
    told = _SEPARATOR.fullmatch(lines[top])
    if told:
        lines[top] = ""
    found = told[1] if told else max(_DELIMITERS, key=lines[top].count)
    delimiter = found if told or found in lines[top] else _NO_DELIMITER
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    begins = 1
    for number in range(0 if told else 1, len(lines) + 1):
        try:
            row = next(reader, None)
        except csv.Error as error:
            message = (
                f"this is not CSV: {shown(str(error))}. Double quotes around a cell must be closed."
            )
            refuse(replace(source.whole_line(begins), note=f" (row {number})"), message)
        if row is None:
            return
        if any(cell.strip() for cell in row):
            yield _cells(row, source, begins, f" (row {number})")
        begins = reader.line_num + 1


def _cells(row: list[str], source: Source, line: int, note: str) -> Iterator[Written]:
    """Yield a row's cells with their positions in its first line; further lines have none."""
    text, column = source.line(line), 0
    whole = replace(source.whole_line(line), note=note)
    empty = Written("", replace(whole, width=1))
    for cell in row:
        if not (value := cell.strip()):
            yield empty
            continue
        shown = value.partition("\n")[0].replace('"', '""')
        found = text.find(shown, column)
        is_there = found >= 0
        column = found + len(shown) if is_there else column
        position = Position(source, line, found + 1, len(shown), note) if is_there else whole
        yield Written(value, position, cell)
