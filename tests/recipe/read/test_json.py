"""JSON recipes: what YAML says in JSON's words, with line and column of each mistake."""

import json

import pytest

from picowatch.recipe import error_text, no_hash
from tests.recipe.reading import read, read_one, refused

# The file, line and column of the problem, the message.
MISTAKES = [
    ('{"prompt": "a",}', (1, 15), "JSON has no comma after the last value. Delete it."),
    ('[\n {"prompt": "a"},\n]', (2, 17), "JSON has no comma after the last value. Delete it."),
    (
        '{\n  // a corgi\n  "prompt": "a"\n}',
        (2, 3),
        "JSON has no comments. Delete it, or write the recipe in YAML, where # begins one.",
    ),
    ('{"prompt": "a" "steps": 3}', (1, 16), "a comma is missing before this."),
    ('{"prompt" "a"}', (1, 11), 'a colon is missing after the name "prompt".'),
    ('{prompt: "a"}', (1, 2), 'names have double quotes in JSON: "prompt".'),
    ("{'prompt': 'a'}", (1, 2), 'names have double quotes in JSON: "prompt".'),
    ('{"prompt": \'a\'}', (1, 12), "JSON's quotes are double quotes."),
    ('{"prompt": a}', (1, 12), "texts have double quotes in JSON."),
    ('{"prompt": }', (1, 12), "a value is missing here."),
    ('{"prompt": "a", "grid": True}', (1, 25), "JSON writes true."),
    ('{"prompt": "a", "vae": None}', (1, 24), "JSON writes null."),
    ('{"prompt": "a", "steps": 030}', (1, 26), "JSON's numbers are like -1, 30 or 7.5."),
    ('{"prompt": "a"', (1, 1), "the { that opens here is never closed."),
    ('[{"prompt": "a"}', (1, 1), "the [ that opens here is never closed."),
    ('{"prompt": ["a"}', (1, 16), "this closes a [, so it must be a ]."),
    ('{“prompt”: "a"}', (1, 2), 'JSON needs straight quotes: ".'),
    ('{"prompt": “a”}', (1, 12), 'JSON needs straight quotes: ".'),
    (
        '{"prompt":\u00a0"a"}',
        (1, 11),
        "the invisible character U+00A0 (no-break space) is not a space in JSON. Replace it "
        "with a plain one.",
    ),
    ('{"prompt": "a', (1, 12), 'the quote " that opens here is never closed.'),
    (
        '{"prompt": "a\n"}',
        (1, 12),
        "the quote that opens here is not closed on its line. Close it, or write \\n for a line "
        "break inside the text.",
    ),
    ('{"prompt": "a\tb"}', (1, 14), "JSON has no tabs inside texts. Write \\t."),
    (
        '{"prompt": "a \\d"}',
        (1, 15),
        "JSON does not have this escape. For a backslash write two.",
    ),
    (
        '{"prompt": "a"}\n{"prompt": "b"}',
        (2, 1),
        "the value ends before this, and a JSON file has one. For several recipes write a list: "
        "[{…}, {…}].",
    ),
    ('["a corgi"]', (1, 2), '"a corgi" is not a recipe. A recipe is like {"prompt": "a corgi"}.'),
    ('{"steps": 3}', (1, 2), 'a prompt is missing. Write "prompt": "…".'),
    ('{"prompt": 30}', (1, 12), 'prompt must be text, not 30. Write "30".'),
    ('{"prompt": "a", "width": null}', (1, 26), "width must be a whole number from 64 to 2048, "),
    ('{"prompt": "a", "tiling": null}', (1, 27), "tiling must be true or false, not null."),
    (
        '{"prompt": "a", "steps": [20, 30]}',
        (1, 26),
        "steps must be a whole number from 1 to 150, not [20, 30].",
    ),
    (
        '{"prompt": "a", "prompt": "b"}',
        (1, 17),
        "'prompt' is given twice: already on line 1. Keep one.",
    ),
    ('{"prompt": "a", "stesp": 3}', (1, 17), "unknown field 'stesp'. Did you mean 'steps'?"),
    ('{"prompt": "a __b__"}', (1, 12), "no wildcard file 'b.txt' in models"),
    ('{"prompt": "\\ud83d"}', (1, 12), "prompt contains the invisible character U+D83D"),
    (
        '{"3": {"class_type": "KSampler", "inputs": {}}}',
        (1, 2),
        "this is a workflow of ComfyUI, which picowatch cannot run. To start from a picture that "
        'it made, save the picture beside a recipe {"from": "picture.png"}.',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "message"), MISTAKES)
def test_each_mistake_names_its_place(text: str, where: tuple[int, int], message: str) -> None:
    """With what to write instead, in JSON."""
    problem = refused(text, "corgi.json").problems[0]
    assert (problem.line, problem.column) == where
    assert problem.message.startswith(message)


def test_an_error_looks_like_yamls() -> None:
    """File, line, column and a mark below the mistake; all mistakes of a file at once."""
    text = '{\n  "prompt": "a corgi",\n  "stesp": 300,\n  "width": 500\n}\n'
    assert error_text(refused(text, "pets/corgi.JSON")) == (
        "inbox/pets/corgi.JSON, line 3, column 3\n\n"
        '    3 |   "stesp": 300,\n'
        "          ^^^^^^^\n"
        "unknown field 'stesp'. Did you mean 'steps'?\n\n"
        "inbox/pets/corgi.JSON, line 4, column 12\n\n"
        '    4 |   "width": 500\n'
        "                   ^^^\n"
        "width must be a multiple of 8: 496 or 504 would do.\n\n"
        "Nothing in this file was run. Fix it and save again.\n"
    )


def test_json_says_what_yaml_says() -> None:
    """Every kind of value, and what only JSON has: escapes, surrogate pairs, 2e1."""
    values = {
        "$schema": ".schema/recipe.json",
        "prompt": 'a "corgi" \U0001f600\non {grass|sand}',
        "negative": "no",
        "steps": 20,
        "cfg": 7.5,
        "size": "128x192",
        "seed": [1, 2],
        "hires": {"scale": 1.5, "steps": None, "upscaler": "latent"},
        "grid": True,
        "sweep": {"clip_skip": [1, 2], "cfg_scale": "4..5"},
    }
    del values["hires"]["steps"]  # type: ignore[attr-defined]
    text = json.dumps(values, indent="\t").replace('"steps": 20', '"steps": 2e1')
    assert "\\ud83d\\ude00" in text
    recipe = read_one(text, "corgi.json")
    assert recipe.steps == 20
    assert recipe.prompt == values["prompt"]
    as_yaml = read_one(json.dumps(values, ensure_ascii=False), "corgi.yaml")
    assert recipe.digest(no_hash) == as_yaml.digest(no_hash)
    assert [r.prompt for r in read(f"[{text}, {text}]", "corgi.json")] == [recipe.prompt] * 2


def test_hostile_json_is_stopped() -> None:
    """Deep nesting, many values, long numbers: none takes more than a moment."""
    for text, message in (
        ("[" * 100_000, "this is nested more than 20 deep. A recipe needs three."),
        ("[" + "0," * 60_000 + "0]", "the file holds more than 50,000 values."),
        (f'{{"prompt": "a", "seed": {"9" * 5000}}}', "seed must be"),
        ('{"prompt": "a", "seed": 1e999}', "seed must be"),
        ('{"a":' * 10 + "{" * 20, "a name in double quotes is missing here"),
    ):
        assert message in refused(text, "a.json").problems[0].message
