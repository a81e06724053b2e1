"""JSON recipes: what YAML says, and `json.loads` explains what is no JSON."""

import json

import pytest

from picowatch.recipe.recipe import no_hash
from tests.recipe.reading import (
    check_refused,
    check_said,
    hash_of,
    read,
    read_one,
    refused,
    request_of,
)

# The file, line and column of the problem, the beginning of its message.
MISTAKES = [
    ('{"prompt": "a" "steps": 3}', (1, 16), "this is not JSON: expecting ',' delimiter."),
    ('{\n  // a corgi\n  "prompt": "a"\n}', (2, 3), "this is not JSON: expecting property name"),
    ('{"prompt": "a\n"}', (1, 14), "this is not JSON: invalid control character."),
    ('["a corgi"]', (1, 2), 'this is not a recipe. Write {"prompt": "a corgi"}.'),
    ("[null]", (1, 2), 'this is not a recipe. Write {"prompt": "…"}.'),
    ('{"steps": 3}', (1, 2), 'a prompt is missing. Write "prompt": "…".'),
    ('{\n<<<<<<< HEAD\n"steps": 3', (2, 1), "a merge has left both versions here."),
    ('{"prompt": "a", "steps": [20, 30]}', (1, 26), "steps must be a whole number … not [20, 30]. "
     "For an image with each value, write sweep: {steps: [20, 30]}"),
    ('{"prompt": "a", "prompt": "b"}', (1, 17), "'prompt' is given twice: already on line 1."),
    ('{"prompt": "a", "stesp": 3}', (1, 17), "unknown field 'stesp'. Did you mean 'steps'?"),
    ('{"prompt": "\\ud83d"}', (1, 12), "prompt contains the invisible character U+D83D"),
    ('{"3": {"class_type": "KSampler", "inputs": {}}}', (1, 2), "this is a workflow of ComfyUI, … "
     'save the picture beside a recipe {"from": "picture.png"}.'),
    (f'{{"prompt"\n:{"[" * 30}{"]" * 30}}}', (2, 22), "this is nested more than 20 levels deep."),
    ("[" * 100_000, (1, 1), "this is nested more than 20 levels deep. A recipe needs three."),
    ("[" + "0," * 60_000 + "0]", (1, 100_000), "the file holds more than 50,000 values."),
    (f'{{"prompt": "a", "seed": {"9" * 5000}}}', (1, 25), "seed must be"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "message"), MISTAKES)
def test_each_mistake_names_its_place(text: str, where: tuple[int, int], message: str) -> None:
    """The message has Python's words, and says what JSON needs; no flood takes long to refuse."""
    problem = refused(text, "corgi.json").problems[0]
    assert (problem.line, problem.column) == where
    check_said([problem.message], f"{message}…")
    assert "not JSON" not in message or "Names and texts have double quotes" in problem.message


def test_a_comma_after_the_last_value_is_no_json() -> None:
    """Versions of Python differ in words and position."""
    for text in ('{"prompt": "a",}', '[\n {"prompt": "a"},\n]'):
        check_refused(text, "this is not JSON: …", name="corgi.json")


def test_json_says_what_yaml_says() -> None:
    """Every kind of value, and what only JSON has: escapes, surrogate pairs, 2e1."""
    values = {
        "$schema": ".schema/recipe.json",
        "prompt": 'a "corgi" \U0001f600\non {grass|sand} \\ud83d',
        "negative": "no",
        "steps": 20,
        "cfg": 7.5,
        "size": "128x192",
        "seed": [1, 2],
        "hires": {"scale": 1.5, "upscaler": "latent"},
        "grid": True,
        "sweep": {"clip_skip": [1, 2], "cfg_scale": "4..5"},
    }
    text = json.dumps(values, indent="\t").replace('"steps": 20', '"steps": 2e1')
    assert "\\ud83d\\ude00" in text
    recipe = read_one(text, "corgi.json")
    assert (recipe.prompt, recipe.steps, recipe.grid) == (values["prompt"], 20, True)
    as_yaml = read_one(json.dumps(values, ensure_ascii=False), "corgi.yaml")
    assert recipe.digest(no_hash) == as_yaml.digest(no_hash)
    assert [r.prompt for r in read(f"[{text}, {text}]", "corgi.json")] == [recipe.prompt] * 2


def test_json_that_yaml_cannot_read_is_read() -> None:
    """Line breaks before a colon, and long names."""
    long = "a" * 1100
    sweep = f'"sweep": {{"prompt: {long}": ["b"]}}'
    recipe = read_one(f'{{"prompt"\n: "{long}", "steps"\n\t:\n9, {sweep}}}', "corgi.json")
    assert (recipe.steps, recipe.sweep[0].values) == (9, ("b",))


def test_names_with_an_underscore_are_notes() -> None:
    """In every kind of file; they are in the pictures' metadata, and in no digest."""
    usual = request_of("prompt: a")
    for text, name in (
        ('{"_seed": 7, "_no": null, "prompt": "a"}', "a.json"),
        ("_seed: 7\nprompt: a", "a.yaml"),
        ("_seed,prompt,_created\n7,a,\n", "a.csv"),
        ("a --_seed 7", "a.txt"),
    ):
        request = request_of(text, name)
        assert (request.notes, request.digest) == ({"_seed": "7"}, usual.digest)
        assert read_one(text, name).digest(hash_of) == read_one("prompt: a").digest(hash_of)
    assert "notes" not in usual.as_dict()
    check_refused(
        "prompt: a\n_id: [7]", "_id is a note, as its name begins with _. Notes are text."
    )
    check_refused(f"prompt: a\n_id: {'x' * 2001}", "_id: the notes of an entry have more than …")
    for name, note in (("_id", "\\ud800"), ("_\\u0000", "x")):
        what = "_… contains the … character (U+0000). Remove it." if note == "x" else "… U+D800. …"
        check_refused(f'{{"prompt": "a", "{name}": "{note}"}}', what, name="a.json")


def test_a_prompt_that_is_an_object_passes_unchanged() -> None:
    """Nulls are values there; a repeated name, of which one would be lost, is a mistake."""
    text = '{"a": "cat", "mood": null, "b": [null, 1, {"x": null}]}'
    for name, ending in (("prompt", "json"), ("prompt", "yaml"), ("negative", "json")):
        above = '"prompt": "a", ' if name == "negative" else ""
        recipe = read_one(f'{{{above}"{name}": {text}}}', f"a.{ending}")
        assert (recipe.negative_prompt or recipe.prompt) == text
    for text in ("{a: cat, a: corgi}", "{b: [{a: 1, a: 2}]}"):
        check_refused(f"prompt: {text}", "'a' is given twice: already on line 1. Keep one.")


def test_null_is_the_default() -> None:
    """Programs write all fields that they know, also in mappings and of other programs."""
    text = '{"prompt": "a", "seed": null, "hires": {"scale": null}, "width": null, "mask": null}'
    recipe = read_one(text, "corgi.json")
    assert recipe.digest(no_hash) == read_one("prompt: a\nhires: true").digest(no_hash)
