"""CSV recipes: tables from spreadsheets, a recipe a row."""

import codecs
import csv
from io import StringIO

import pytest

from tests.recipe.reading import check_said, read, read_one, refused

CSV = "table.csv"
TABLE = 'prompt,Negative Prompt,steps,seed\na corgi,,30,7\n"a cat, ""red"",\nasleep",dim,,1..3\n'


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_each_row_is_a_recipe(delimiter: str, mark: bytes, ending: str) -> None:
    """Several programs' formats are read; an empty cell means the default."""
    text = StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ending)
    writer.writerows(csv.reader(StringIO(TABLE)))
    first, second = read(mark + text.getvalue().encode(), CSV)
    assert (first.prompt, first.negative_prompt, first.steps, first.seed) == ("a corgi", "", 30, 7)
    assert second.prompt == 'a cat, "red",\nasleep'
    assert (second.negative_prompt, second.steps, second.seed) == ("dim", 24, (1, 2, 3))
    assert [one.context.position.line for one in (first, second)] == [2, 3]


def test_cells_are_read_as_flags_are() -> None:
    """Examples are a list of seeds, LoRAs and switches."""
    recipe = read_one('prompt;seed;exact;hires;size\na;"1, 2";yes;2;64x64\n', CSV)
    assert (recipe.seed, recipe.exact, recipe.size) == ((1, 2), True, "64x64")
    assert recipe.hires and recipe.hires.scale == 2
    # Spreadsheets leave rows and columns without anything after the table.
    assert [one.prompt for one in read("prompt,steps,,\na,3,,\n,,,\n\n,,,\nb\n", CSV)] == ["a", "b"]
    assert read("prompt\n", CSV) == read("", CSV) == []


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("prompt,stesp\na,3\nb,4\n", (1, 8), "unknown field 'stesp'. … 'steps'? (row 1)"),
        ("prompt,cfg,cfg_scale\na,3,4\n", (2, 5), "'cfg_scale' is given twice: … line 2…"),
        ('prompt;steps\n"a\nb";3\nc;300\n', (4, 3), "steps must be … not 300. (row 3)"),
        ("prompt;cfg\na;7,5\n", (2, 3), "cfg_scale must be … Write 7.5, with a point. (row 2)"),
        ("prompt,steps\n,3\n", (2, 1), "a prompt is missing. Write 'prompt: …'. (row 2)"),
        ("prompt\na corgi, at the beach\n", (2, 10), "this row has 2 cells, … row has 1. …"),
        ('prompt\na\n"b\nc\n', (3, 1), "this is not CSV: unexpected end of data. … (row 3)"),
    ],
)  # fmt: skip
def test_a_mistake_names_row_and_cell(text: str, position: tuple[int, int], message: str) -> None:
    """Rows as a spreadsheet counts them, lines as an editor does."""
    (problem,) = refused(text, CSV).problems
    assert (problem.line, problem.column) == position
    check_said([problem.message], message)
