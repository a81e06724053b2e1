"""Any text in the inbox is a recipe, or gets an error that people can read.

tests/fuzz has good files with damages, and how long that may take, with how much memory.
"""

import dataclasses
import json
import string
from collections.abc import Mapping
from unittest.mock import patch

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.read import nodes
from tests.fuzz.targets import check_recipe
from tests.metadata.requests import CORGI
from tests.recipe.reading import PicturesWith

# Pieces of recipes, and of mistakes in them.
PIECES = [
    *FIRST_NAME_OF,
    *(": ", ":", "- ", "\n", "\n  ", "\t", "---\n", " # ", "'", '"', "[", "]", "{", "}", "|", ">"),
    *("&a ", "*a", "!!int ", "<<", "? ", ", ", ";", "~", "yes", "1e3", "012", "1:30", ".nan", "\\"),
    *(" --", "steps 3", "\\\n", "Negative prompt: ", "Steps: 3, Sampler: Euler, ", "512x", "−1"),
    *(".Negative prompt: ", "\nSteps: 3, Seed: 99999999999", ".Steps: 4, Size: 64x64, "),
    *("Parameters: ", "Template: ", "Guidance Scale: ", "Hires resize: 96x0, ", "Module 1: "),
    *("VAE: TAESD, ", "Model: ", " -s 5", "./sd -p ", "python a.py --prompt ", '{"a": '),
    *("${a=", "${a}", "{@", "{~", "__@x__", "__~x__", "__x(a=1)__", "__x y__", "__x__"),
    *("[a:b:0.5]", "(a:1.2)", "{2$$", "$$", "<lora:x:1>", "AND", "\ufeff", "\x00", "🐶"),
    "9" * 5000,
    "a" * 200,
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(string.printable, max_size=5)).map("".join)
NAMES = st.sampled_from(["a.yaml", "b/c.yml", "d.txt", "e.json", "f.csv"])


def _chunk(values: Mapping[str, object]) -> str:
    return json.dumps({"format": 1, "request": {**CORGI.as_dict(), **values}})


# picowatch's chunk with anything in its request.
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NESTED = ANYTHING | st.lists(ANYTHING) | st.dictionaries(st.text(max_size=5), ANYTHING)
JSON = st.dictionaries(
    st.sampled_from([field.name for field in dataclasses.fields(CORGI)]), NESTED | st.lists(NESTED)
).map(_chunk)


@given(NAMES, TEXTS)
@example("a.yaml", 'prompt: "\\ud800"')
@example("e.json", '{"\\ud800": "\\ud800"}')
@example("d.txt", 'a\nSteps: 3, Sampler: Euler, Model: "\\ud800"')
@example("a.yaml", "prompt: a\nsteps: 0b_")
def test_any_text_is_recipes_or_an_error_for_people(name: str, text: str) -> None:
    """Files are random sequences of pieces."""
    check_recipe(name, text.encode())


@given(st.sampled_from(["picowatch", "parameters", "generator", "seed"]), TEXTS | JSON)
@example("picowatch", "[" * 100_000)
@example("picowatch", '{"format": 1, "request": {}}')
def test_any_text_in_a_picture_is_settings_or_an_error_for_people(key: str, text: str) -> None:
    """A picture may come from anywhere, too."""
    texts = {"generator": "picodiffusion", key: text}
    check_recipe("a.yaml", b"from: a.png", PicturesWith(lambda _: texts))


@given(TEXTS)
def test_without_libyaml_it_is_the_same(text: str) -> None:
    """PyYAML's own parser is used where the accelerated one is missing."""
    with patch.object(nodes, "_LOADER", yaml.SafeLoader):
        check_recipe("a.yaml", text.encode())
