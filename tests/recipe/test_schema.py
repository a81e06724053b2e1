"""The JSON Schema for editors says of recipes what reading them says, as far as a schema can.

Good and bad recipes are all texts that stand in the tests of recipes and in the docs.
"""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from picowatch.recipe import Checkpoint, Inventory, RecipeInvalid, read_recipes
from picowatch.recipe.fields import ROWS
from picowatch.recipe.samplers import SAMPLERS, SCHEDULE_TYPES
from picowatch.recipe.schema import defaults_schema, recipe_schema
from tests.recipe.reading import DEMO

PROJECT = Path(__file__).parents[2]
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(Checkpoint("dreamshaper_8", 512), Checkpoint("sd15/Realistic", 768)),
    vaes=("vae-ft-mse",),
    loras=("detail", "styles/pixel-art", "ink"),
    lora_names={"ink": "Dots and lines"},
    embeddings=("bad-hands", "calm"),
    wildcards={"animals": ("cat", "dog")},
    default_checkpoint="demo",
)

# What a schema cannot see: the reasons that reading gives for it.
BEYOND_A_SCHEMA = [
    # What stands inside of texts.
    r"invisible character",
    r"the hexadecimal number of a character",
    r"wildcard",
    r"is not supported yet",
    r"a LoRA acts on the whole picture",
    r"longer than 500",
    r"^no LoRA '",
    r"does not occur in",
    # What a range comes to.
    r"a range's step",
    # Numbers in quotes: their limits are not written out as expressions.
    r"must be a (whole )?number from [-\d.]+ to [-\d.]+, not '?[-+]?[\d.]+(e[-+]?\d+)?'?\.$",
    r"must be a multiple of 8",
    r"the limit is 100 million pixels",  # a product of several fields
    # What YAML 1.1 makes of a value, or loses; editors read YAML 1.2.
    r"YAML reads",
    r"is given twice: already",
    r"appears twice in the",
    r"prompt is empty: the lines",
    # One field against another, the settings, or what lies on the disk.
    r"does not take the schedule type",
    r"has no guidance: ",
    r"the sampler's name says",
    r"has no effect without",
    r"one save may request",
    r"hires makes",
    r"pictures cannot be read here",
    r"is listed twice",
    r"could be .* Write more of the name",
    r"could vary any of the",
    r"control begins at|control has no picture to follow",
    r"^'preprocess: inpaint'",
    # What follows from which ControlNet it is, and what else is installed.
    r"^(the|no) (union )?ControlNet '|has no control: ",
    r"guess(es)? depth",
    # A1111's names of preprocessors are many.
    r"^(the|unknown) preprocessor '",
]
# What only the schema with the installed names can see.
NOT_INSTALLED = r"^no (checkpoint|VAE|upscaler) '|never downloads"

MORE_RECIPES = [
    "steps: '300'",
    "width: '500'",
    "sweep: {steps: 1..9999}",
    "sweep: {steps: 1..5 step 0}",
    "sweep: {steps: [4, 4]}",
    "sweep: {'prompt: b': [c]}",
    "loras: [ink, ink]",
    f"image: {'a' * 600}.png",
    "image: a.png\nmask: b.png\nmask_blur: 3\nresize: fit",
    "image: a.png\ndenoising_strength: '0.5'",
    "hires: {scale: '1.5', upscaler: lanczos}",
    "hires: 2",
    "hires: 'off'",
    "width: null",
    "sweep: {steps: [10, 20], cfg: 4..10 step 2, 'lora: ink': [0, 1], 'hires: scale': [1, 2]}",
    "sweep: {sampler: [Euler a, dpmpp_2m], size: [64x64, 128X64]}",
    "sweep: 'off'",
    "control: [{image: a.png, model: b}, {image: a.png, model: c}]\n"
    "sweep: {'control: weight': [0, 1]}",
]


def texts_in_tests() -> Iterator[str]:
    """Every text in the tests of recipes, and every recipe in the docs."""
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        if path == Path(__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
                yield f"prompt: a\n{node.value}"
    yield from (f"prompt: a\n{text}" for text in MORE_RECIPES)
    for page in [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]:
        yield from re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


class EditorLoader(yaml.SafeLoader):
    """YAML 1.2's core schema, which editors read: `yes` and dates are text, 012 is twelve."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for tag, expression, first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    EditorLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{expression})$"), list(first)
    )
EditorLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])
EditorLoader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(str(node.value)))
EditorLoader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(str(node.value)))


def as_an_editor_sees(text: str) -> list[Any] | None:
    """The documents of a file; None if an editor finds its YAML wrong itself."""
    try:
        documents = list(yaml.load_all(text, EditorLoader))
        # The names of fields are text in JSON: of {scale: 1,5} the second is "5".
        return list(json.loads(json.dumps(documents)))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return None


def reasons(text: str) -> list[str]:
    """Why a recipe is refused; nothing if it is good."""
    try:
        read_recipes("a.yaml", text.encode("utf-8", "backslashreplace"), INVENTORY)
    except RecipeInvalid as invalid:
        return [problem.message for problem in invalid.problems]
    return []


@cache
def recipes() -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The good texts, and the bad ones with the reasons."""
    texts = [text for text in dict.fromkeys(texts_in_tests()) if as_an_editor_sees(text)]
    judged = [(text, reasons(text)) for text in texts]
    return [text for text, why in judged if not why], [(t, why) for t, why in judged if why]


def complaints(schema: dict[str, Any], text: str) -> list[str]:
    """What an editor with this schema finds wrong."""
    validator = Draft7Validator(schema)
    documents = as_an_editor_sees(text) or []
    return [error.message for document in documents for error in validator.iter_errors(document)]


SCHEMAS = {"any names": recipe_schema(), "installed names": recipe_schema(INVENTORY)}


@pytest.fixture(params=SCHEMAS)
def schema(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Without and with the names of what is installed."""
    return SCHEMAS[request.param]


def test_there_are_many_good_and_many_bad_recipes() -> None:
    """Or else the two tests below would hold nothing."""
    good, bad = recipes()
    assert len(good) > 100
    assert len(bad) > 1000


def test_what_reading_accepts_the_schema_accepts(schema: dict[str, Any]) -> None:
    """A good recipe is never underlined."""
    assert [(text, found) for text in recipes()[0] if (found := complaints(schema, text))] == []


def test_what_a_schema_can_express_it_refuses(schema: dict[str, Any]) -> None:
    """Everything but what is listed above."""
    extra = [NOT_INSTALLED] if schema is SCHEMAS["any names"] else []
    beyond = re.compile("|".join(BEYOND_A_SCHEMA + extra))
    missed = [
        (text, why)
        for text, why in recipes()[1]
        if not complaints(schema, text) and not any(map(beyond.search, why))
    ]
    assert missed == []


def test_every_reason_beyond_a_schema_occurs() -> None:
    """The list is no longer than it has to be."""
    schema = SCHEMAS["any names"]
    accepted = [why for text, why in recipes()[1] if not complaints(schema, text)]
    messages = [message for why in accepted for message in why]
    for reason in BEYOND_A_SCHEMA:
        assert any(re.search(reason, message) for message in messages), reason


VALUES = st.one_of(
    st.integers(-5, 5000),
    st.floats(-20, 200, allow_nan=False).map(lambda number: round(number, 2)),
    st.booleans(),
    st.none(),
    st.sampled_from(["", "random", "-1", " 30 ", "off", "Yes", "512x768", "../a.png", "a.png"]),
    st.lists(st.integers(-1, 9), max_size=3),
    st.dictionaries(st.sampled_from(["scale", "ink", "name", "steps"]), st.integers(0, 20)),
)


@given(st.sampled_from([*ROWS, "size", "from", "cfg", "strength"]), VALUES)
def test_no_value_that_reading_accepts_is_refused(field: str, value: object) -> None:
    """Whatever stands in whichever field."""
    text = json.dumps({"prompt": "a", "image": "b.png", field: value})
    if not reasons(text):
        for name, schema in SCHEMAS.items():
            assert complaints(schema, text) == [], name


@given(
    st.sampled_from([s.spellings for s in SAMPLERS]).flatmap(st.sampled_from),
    st.sampled_from(["", *SCHEDULE_TYPES, *SCHEDULE_TYPES.values(), "simple", "Karas"]),
    st.lists(st.sampled_from(["", " ", "_", ".", "-"]), min_size=8, max_size=8),
    st.sampled_from([str.upper, str.lower, str.title]),
    st.sampled_from(["", "Scheduler"]),
)
def test_samplers_are_forgiven_by_both(
    name: str, schedule_type: str, marks: list[str], case: Any, ending: str
) -> None:
    """The expression is the forgiving look-up, written another way."""
    spelled = "".join(f"{letter}{marks[i % 8]}" for i, letter in enumerate(case(name)))
    text = json.dumps({"prompt": "a", "sampler": spelled + schedule_type + ending})
    if not [why for why in reasons(text) if "does not take the schedule type" not in why]:
        assert complaints(SCHEMAS["any names"], text) == []
    else:
        assert complaints(SCHEMAS["any names"], text) != []


@pytest.mark.parametrize(
    ("written", "is_meant"),
    [
        ("checkpoint: dreamshaper_8", True),
        ("checkpoint: Dream", True),
        ("checkpoint: models/checkpoints/dreamshaper_8.safetensors", True),
        ("checkpoint: Stable-diffusion/dreamshaper_8.safetensors [879db523c3]", True),
        ("checkpoint: realistic", True),
        ("checkpoint: demo", True),
        ("checkpoint: dreamshaper_9", False),
        ("checkpoint: stable-diffusion-v1-5/stable-diffusion-v1-5", False),
        ("vae: Automatic", True),
        ("vae: ink", False),
        ("loras: {Ink: 1, pixel-art: 0.5}", True),
        ("loras: {dots and lines: 1}", True),
        ("loras: {inc: 1}", False),
        ("loras: {ink: 11}", False),
        ("loras: [ink, {detail: 0.3}, {name: styles/pixel-art, weight: 1}]", True),
    ],
)
def test_installed_names_are_known(written: str, is_meant: bool) -> None:
    """With `--installed`: as forgivingly as recipes name them."""
    text = f"prompt: a\n{written}"
    assert (reasons(text) == []) is is_meant
    assert (complaints(SCHEMAS["installed names"], text) == []) is is_meant


def test_words_that_a_prompt_may_name_are_listed() -> None:
    """Nothing completes inside of a text, but pointing at the field shows them."""
    definitions = SCHEMAS["installed names"]["definitions"]
    for field in ("prompt", "negative_prompt"):
        assert "Embeddings here: bad-hands, calm." in definitions[field]["description"]
        assert "Wildcards here: __animals__." in definitions[field]["description"]
    assert "here" not in SCHEMAS["any names"]["definitions"]["prompt"]["description"]


def test_many_models_with_long_names_are_no_trouble() -> None:
    """Names as people download them."""
    names = [f"Style {n} " + "very long indeed " * 14 for n in range(1000)]
    schema = recipe_schema(Inventory(demo=DEMO, loras=tuple(names)))
    assert len(json.dumps(schema)) < 1_000_000
    for name, is_one in ((names[7], True), (names[7][:80].upper(), True), ("Styles", False)):
        text = json.dumps({"prompt": "a", "loras": {name: 1}})
        assert (complaints(schema, text) == []) is is_one


def test_each_field_says_what_the_docs_say() -> None:
    """Description, default and every name, so that hovering and completing help."""
    recipe = recipe_schema()["definitions"]["recipe"]["properties"]
    definitions = recipe_schema()["definitions"]
    for name, row in ROWS.items():
        assert recipe[name] == {"$ref": f"#/definitions/{name}"}
        assert definitions[name]["description"].startswith(row.description)
    assert definitions["clip_skip"]["default"] == 1
    assert recipe["cfg"]["doNotSuggest"]
    assert "DPM++ 2M Karras" in definitions["sampler"]["anyOf"][0]["enum"]


def test_the_schemas_are_schemas() -> None:
    """Of draft 7, which is what editors know."""
    for schema in (*SCHEMAS.values(), defaults_schema(), defaults_schema(INVENTORY)):
        Draft7Validator.check_schema(schema)
        assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_defaults_need_no_prompt_and_are_no_list() -> None:
    """Otherwise they are as recipes."""
    assert complaints(defaults_schema(), "priority: 10\n") == []
    assert complaints(defaults_schema(), "# nothing\n") == []
    assert complaints(defaults_schema(), "- prompt: a\n") != []
    assert complaints(defaults_schema(), "stesp: 10\n") != []
