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
    assert [recipe.position.line for recipe in (first, second)] == [2, 3]


def test_cells_are_read_as_flags_are() -> None:
    recipe = read_one('prompt;seed;exact;hires;size\na;"1, 2";yes;2;64x64\n', CSV)
    assert (recipe.seed, recipe.exact, recipe.size) == ((1, 2), True, "64x64")
    assert recipe.hires and recipe.hires.scale == 2
    # Spreadsheets leave rows and columns without anything after the table.
    assert [row.prompt for row in read("prompt,steps,,\na,3,,\n,,,\n\n,,,\nb\n", CSV)] == ["a", "b"]
    assert read("prompt\n", CSV) == read("", CSV) == []


def test_a_decimal_comma_is_read_where_semicolons_separate() -> None:
    """Seeds and texts with commas stay as they are."""
    recipe = read_one("prompt;cfg;seed;hires\na 7,5;7,5;1,2;1,5\n", CSV)
    assert (recipe.prompt, recipe.cfg_scale, recipe.seed) == ("a 7,5", 7.5, (1, 2))
    assert recipe.hires and recipe.hires.scale == 1.5


def test_a_table_of_one_column_needs_no_quotes() -> None:
    """A spreadsheet that separates by semicolons writes none around commas."""
    text = 'prompt\na corgi, on a hill\n"a cat, ""red"""\na; b\n'
    prompts = ["a corgi, on a hill", 'a cat, "red"', "a; b"]
    assert [recipe.prompt for recipe in read(text, CSV)] == prompts


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("prompt,stesp\na,3\nb,4\n", (1, 8), "unknown field 'stesp'. … 'steps'? To keep …"),
        ("prompt,cfg,cfg_scale\na,3,4\n", (2, 5), "'cfg_scale' … already on line 2 as 'cfg'. …"),
        ("prompt,prompt\na,b\n", (2, 3), "'prompt' is given twice: already on line 2. Keep one. …"),
        ("CFG,cfg_scale,prompt\n,4,a\n3,,b\n3,4,c", (4, 3), "'cfg_scale' … line 4 as 'CFG'. …"),
        ('prompt;steps\n"a\nb";3\nc;300\n', (4, 3), "steps must be … not 300. (row 3)"),
        ("prompt;resize_to\na;1,600\n", (2, 3), "resize_to … Write 1600, without a comma. …"),
        ('prompt,cfg\na,"7,5"\n', (2, 4), "cfg_scale must be … Write 7.5, with a point. (row 2)"),
        ("prompt;steps\na;1,000\n", (2, 3), "steps must be … Write 1000, without a comma. (row 2)"),
        ("prompt,steps\n,3\n", (2, 1), "a prompt is missing. Fill the column prompt, or … (row 2)"),
        ("prompt|seed\na|3", (1, 1), "unknown field 'prompt|seed'. … Separate cells by … (row 1)"),
        ("prompt\tseed,steps\na\t3,4", (1, 1), "unknown field … Separate cells by … (row 1)"),
        ("a corgi\na cat\n", (1, 1), "'a corgi' is no field: the first row names the columns. …"),
        ("corgi,30\ncat,20\n", (1, 1), "'corgi' is no field: … Put a row above it, like prompt…"),
        ("prompt,steps\na,3,x\n", (2, 5), "'x' has no column in the first row. Put double quotes…"),
        ("prompt,\na corgi, on a hill\n", (2, 10), "'on a hill' has no column in the first row. …"),
        ("id,prompt\n1,a\n", (1, 1), "unknown field 'id'. To keep it … call the column _id. …"),
        ("_id,_id,prompt\n1,2,a\n", (2, 3), "'_id' is given twice: already on line 2…"),
        (f"_id,prompt\n{'1' * 2001},a\n", (2, 1), "_id: the notes of an entry have more …"),
        ("sep=,\nprompt\na\n", (1, 1), "unknown field 'sep='. Delete this line: …"),
        ("prompt;exact\na;WAHR\n", (2, 3), "exact must be true or false. Write true. (row 2)"),
        ("prompt,detail\na,{find: hat}\n", (2, 3), "detail is text here, not a mapping. …"),
        ("prompt,loras\na,{ink: 1}\n", (2, 3), "loras is text … Write name:0.8, other:0.5, or …"),
        ("prompt,extend\na,{left: 9}\n", (2, 3), "extend is … Write left 256, bottom 25 %, or …"),
        ('prompt\n"a"b\n', (2, 1), "this is not CSV: the end of the cell expected after '\"'. …"),
        ("prompt,seed\na,1.23457E+09\n", (2, 3), "a spreadsheet has shortened this number. …"),
        ("prompt;grid\na;faux\n", (2, 3), "grid must be true or false. Write false. (row 2)"),
        ('prompt\na\n"b\nc\n', (3, 1), "this is not CSV: unexpected end of data. … (row 3)"),
    ],
)  # fmt: skip
def test_a_mistake_names_row_and_cell(text: str, position: tuple[int, int], message: str) -> None:
    """Rows as a spreadsheet counts them, lines as an editor does."""
    (problem,) = refused(text, CSV).problems
    assert (problem.line, problem.column) == position
    check_said([problem.message], message)
