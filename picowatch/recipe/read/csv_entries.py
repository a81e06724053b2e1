"""The entries of a CSV recipe: the first row names fields, each further row is a recipe."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice, takewhile

from picowatch.recipe.messages.problems import Problems, refuse
from picowatch.recipe.read.names import excuse_prompt, put
from picowatch.recipe.read.txt_entries import MAX_PROMPTS
from picowatch.recipe.written import Entry, Layer, Position, Source, Written

_DELIMITERS = ",;\t"


def csv_entries(source: Source, problems: Problems) -> list[Entry]:
    """Return one entry per row; empty cells count as missing. Raises RecipeInvalid if it is no CSV.

    Programs write commas, semicolons or tabs between cells: the first row tells which.
    """
    rows = _rows(source)
    _, names = next(rows, (0, ()))
    asked = takewhile(lambda name: not problems.is_full, names)
    columns = [(name.text, _is_field(name, problems)) for name in asked]
    entries: list[Entry] = []
    for count, row in rows:
        if problems.is_full:
            break
        cells = tuple(islice(row, len(columns) + 1))
        position = cells[0].position
        if len(entries) == MAX_PROMPTS:
            problems.add(position, f"more than {MAX_PROMPTS:,} rows in one file. Split it.")
            break
        if count > len(columns):
            problems.add(
                cells[-1].position,
                f"this row has {count} cells, but the first row has {len(columns)}. Put double "
                "quotes around a text that contains the separator.",
            )
        if layer := _layer(columns, cells, problems):
            entries.append(Entry(layer, position))
    return entries


def _is_field(name: Written, problems: Problems) -> bool:
    """Return whether a column names a field; unknown names are reported once, not in each row."""
    return bool(name.text) and put({}, name.text, name, problems)


def _layer(
    columns: Iterable[tuple[str, bool]], cells: Iterable[Written], problems: Problems
) -> Layer:
    layer: Layer = {}
    for (name, is_known), cell in zip(columns, cells, strict=False):
        if is_known and cell.text:
            put(layer, name, replace(cell, key=cell.position), problems)
        elif not is_known:
            excuse_prompt(layer, name, cell)
        if problems.is_full:
            break
    return layer


def _rows(source: Source) -> Iterator[tuple[int, Iterator[Written]]]:
    """Yield how many cells each row that is not empty has, and these with their positions."""
    first = next((line for line in source.lines if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    lines = (f"{line}\n" for line in source.lines)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begins = 1
    for number in range(1, len(source.lines) + 1):
        try:
            row = next(reader, None)
        except csv.Error as error:
            message = f"this is not CSV: {error}. Double quotes around a cell must be closed."
            refuse(replace(source.whole_line(begins), note=f" (row {number})"), message)
        if row is None:
            return
        if any(cell.strip() for cell in row):
            yield len(row), _cells(row, source, begins, f" (row {number})")
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
