"""Whatever lies in the inbox: a recipe, or an error a person can read, in a moment."""

import dataclasses
import json
import string
from collections.abc import Mapping
from contextlib import suppress
from unittest.mock import patch

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from picowatch.recipe import (
    Known,
    PictureFields,
    RecipeInvalid,
    error_text,
    no_hash,
    nodes,
    one_line,
    read_recipes,
)
from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.reading import no_pictures
from tests.metadata.requests import CORGI
from tests.recipe.reading import DEMO

WILDCARDS = {"x": ("a", "{b|__y__}"), "y": ("c",)}
KNOWN = Known(demo=DEMO, loras=("x",), embeddings=("a",), wildcards=WILDCARDS)

# Pieces that recipes, and mistakes in them, are made of.
PIECES = [
    *FIRST_NAME_OF,
    *(": ", ":", "- ", "\n", "\n  ", "\t", "---\n", " # ", "'", '"', "[", "]", "{", "}", "|", ">"),
    *(
        "&a ",
        "*a",
        "!!int ",
        "<<",
        "? ",
        ", ",
        "~",
        "yes",
        "1e3",
        "012",
        "1:30",
        ".nan",
        "\\",
        "−1",
    ),
    *(
        " --",
        "steps 3",
        "\\\n",
        "Negative prompt: ",
        "Steps: 3, Sampler: Euler, ",
        "Model: ",
        "512x",
    ),
    *(
        "[a:b:0.5]",
        "(a:1.2)",
        "__x__",
        "{2$$",
        "$$",
        "<lora:x:1>",
        "AND",
        "\ufeff",
        "\x00",
        "🐶",
        "9" * 5000,
        "a" * 200,
    ),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(string.printable, max_size=5)).map("".join)
NAMES = st.sampled_from(["a.yaml", "b/c.yml", "d.txt"])


def _chunk(values: Mapping[str, object]) -> str:
    return json.dumps({"format": 1, "request": {**CORGI.as_dict(), **values}})


# picowatch's chunk with anything in its request.
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NESTED = ANYTHING | st.lists(ANYTHING) | st.dictionaries(st.text(max_size=5), ANYTHING)
JSON = st.dictionaries(
    st.sampled_from([field.name for field in dataclasses.fields(CORGI)]), NESTED | st.lists(NESTED)
).map(_chunk)


def check(name: str, content: bytes, picture_fields: PictureFields = no_pictures) -> None:
    """Nothing but recipes, or RecipeInvalid with texts that can be shown."""
    try:
        recipes = read_recipes(name, content, KNOWN, picture_fields=picture_fields)
    except RecipeInvalid as invalid:
        text = error_text(invalid)
        assert invalid.problems
        assert text.replace("\n", "").replace("\N{ZERO WIDTH JOINER}", "").isprintable()
        assert "\n" not in one_line(invalid)
        assert all(problem.line >= 1 and problem.column >= 1 for problem in invalid.problems)
    else:
        for recipe in recipes:
            recipe.digest(no_hash)
            with suppress(RecipeInvalid):
                recipe.image_requests(no_hash, 0)


@given(NAMES, st.binary())
def test_any_bytes_are_recipes_or_an_error_for_people(name: str, content: bytes) -> None:
    """No other exception, ever."""
    check(name, content)


@given(NAMES, TEXTS)
@example("a.yaml", 'prompt: "\\ud800"')
@example("d.txt", 'a\nSteps: 3, Sampler: Euler, Model: "\\ud800"')
@example("a.yaml", "prompt: a\nsteps: 0b_")
def test_any_text_is_recipes_or_an_error_for_people(name: str, text: str) -> None:
    """Made of what recipes are made of."""
    check(name, text.encode())


@given(st.sampled_from(["picowatch", "parameters", "generator", "seed"]), TEXTS | JSON)
@example("picowatch", "[" * 100_000)
@example("picowatch", '{"format": 1, "request": {}}')
def test_any_text_in_a_picture_is_settings_or_an_error_for_people(key: str, text: str) -> None:
    """A picture may come from anywhere, too."""
    texts = {"generator": "picodiffusion", key: text}
    check("a.yaml", b"from: a.png", lambda _: texts)


@given(TEXTS)
def test_without_libyaml_it_is_the_same(text: str) -> None:
    """PyYAML's own parser is used where the accelerated one is missing."""
    with patch.object(nodes, "_LOADER", yaml.SafeLoader):
        check("a.yaml", text.encode())


HOSTILE = {
    "brackets": "prompt: '" + "(" * 1_000_000 + "'",
    "bars": "prompt: '{" + "|" * 1_000_000 + "'",
    "wildcards": "prompt: '" + "{a|b}" * 200_000 + "'",
    "underscores": "prompt: '" + "/__" * 300_000 + "'",
    "open braces": "prompt: '" + "{" * 1_000_000 + "'",
    "wildcards within braces": "prompt: '" + "{" * 99 + "{a|b}" * 200_000 + "}" * 99 + "'",
    "lora tags": "prompt: '" + "<lora:y:1>" * 100_000 + "'",
    "embeddings": "prompt: '" + "a " * 500_000 + "'\nseed: 1\ncount: 1000",
    "loras": "prompt: a\nloras: '" + "y," * 400_000 + "'",
    "pairs": "prompt: a\nloras: {" + "y: 1, " * 20_000 + "}",
    "sweeps": "- {prompt: a, sweep: {steps: 1..100, cfg_scale: 1..10}}\n" * 18_000,
    "sweep of a long prompt": "prompt: '" + "a " * 500_000 + "'\nsweep: {cfg_scale: 1..10 step "
    "0.01, 'prompt: a': [b]}",
    "axes": "prompt: a\nsweep: {" + "'prompt: a': [x, y], " * 40_000 + "}",
    "long range": "prompt: a\nsweep: {steps: 1.." + "9" * 1_000_000 + "}",
    "white space": "prompt: 'a" + " " * 1_000_000 + "BREA'",
    "spaces in a key": "a" + " " * 1_000_000 + "b: c: d",
    "blank lines": "steps: 3\n" + "\n" * 1_000_000,
    "flags": "a" + " --steps 3" * 90_000,
    "continued flags": "a" + " \\\n --seed 3" * 80_000,
    "prompts": "a\n" * 500_000,
    "unknown fields": "".join(f"{number:05}tps: 1\n" for number in range(24_000)),
    "wrong values": "[" + "{prompt: a, steps: 0, seed: x}, " * 6_000 + "]",
    "parameters": "Steps: 1, Sampler: Euler, a" + " " * 1_000_000,
    "json": "Steps: 1, Sampler: Euler, a: " + "[" * 1_000_000,
    "base 60": "steps: 1" + ":1" * 500_000,
    "control characters": "\x01\n" * 500_000,
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["a.yaml", "a.txt"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_anything_is_answered(name: str, text: str) -> None:
    """Each takes a second or so; what grows with the square of the length would take hours."""
    check(name, text.encode())
