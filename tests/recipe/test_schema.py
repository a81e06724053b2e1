"""The JSON Schema for editors agrees with reading recipes, as far as a schema can.

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
from jsonschema import Draft7Validator

from picowatch.commands.schema import recipe_schema
from picowatch.recipe.fields import ROWS
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.messages.problems import RecipeInvalid
from picowatch.recipe.read.names import field_named
from picowatch.recipe.reading import read_recipes
from tests.recipe.reading import DEMO, PicturesWith

PROJECT = Path(__file__).parents[2]
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(Checkpoint("dreamshaper_8", 512), Checkpoint("sd15/Realistic", 768)),
    vaes=("vae-ft-mse",),
    loras=("detail", "styles/pixel-art", "ink"),
    embeddings=("bad-hands", "calm"),
    wildcards={"animals": ("cat", "dog")},
    default_checkpoint="demo",
)

MORE_RECIPES = [
    "image: a.png\nmask: b.png\nmask_blur: 3\nmask_padding: false\nresize: Fit\nstrength: '0.5'",
    *("image: a.png\nmask: false\nextend: {left: 50 %, Top: 64}", "image: a.png\nextend: '16:9'"),
    "hires: {scale: '1.5', upscaler: lanczos}",
    "hires: 2\nsweep: {cfg: [3, 4], 'hires: strength': [0.1, 0.2], 'lora: ink': [0, 1]}",
    "sweep: {sampler: [Euler a, dpmpp_2m], size: [64x64, 128X64], Clip skip: 1..2}",
    *("loras: false\nreferences: false\nquantize: false", "detail: false\nresize_to: false"),
    *("sweep: false\ncontrol: false", "sweep: 'off'\ncontrol: 'off'"),
    "steps: ' 1e1 '\nseed: 1..8 step 2\nexact: YES\nvariation_strength: .5",
    "sampler: dpmpp_2m_sde_gpu\nschedule_type: Align your steps\nprediction: v-pred\nexact: 1",
    "sampler: DPMSolverMultistepScheduler\nnoise: NV\nformat: .JPG\nquality: '90'",
    *("_id: 17\nnegative_prompt: 1984\nquality: auto", "format: TIF\nquality: Lossless"),
    "negative_prompt: true\ndetail: [hat, {find: tie}]",
]
WHOLE_RECIPES = [f"prompt: a\n{text}" for text in MORE_RECIPES]
WHOLE_RECIPES += ["image: a.png\nformat: webp", "image: a.png\nquality: 80"]


def texts_in_tests() -> Iterator[str]:
    """Every text in the tests of recipes, and every recipe in the docs."""
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        if path == Path(__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
                yield node.value
                yield f"prompt: a\n{node.value}"
    yield from WHOLE_RECIPES
    for page in [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]:
        yield from re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


class EditorLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2's core schema, which editors read: `yes` and dates are text, 012 is twelve."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for tag, expression in {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "null": r"~|null|Null|NULL|",
    "int": r"[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
    "merge": "<<",
}.items():
    pattern = re.compile(f"^(?:{expression})$")
    EditorLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, None)
EditorLoader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(str(node.value)))
EditorLoader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(str(node.value)))


@cache
def as_an_editor_sees(text: str) -> list[Any] | None:
    """Return the documents of a file; None if its YAML is wrong for editors."""
    try:
        documents = list(yaml.load_all(text, EditorLoader))
        # The names of fields are text in JSON: of {scale: 1,5} the second is "5".
        return list(json.loads(json.dumps(documents)))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return None


def names_fields(text: str) -> bool:
    """Return whether editors can read a text, and all its names are fields."""
    documents = as_an_editor_sees(text) or []
    recipes = [r for value in documents for r in (value if isinstance(value, list) else [value])]
    names = [name for recipe in recipes if isinstance(recipe, dict) for name in recipe]
    return bool(documents) and all(name[:1] in ("$", "_") or field_named(name) for name in names)


def is_good(text: str) -> bool:
    try:
        content = text.encode("utf-8", "backslashreplace")
        read_recipes("a.yaml", content, INVENTORY, pictures=PicturesWith(lambda _: {}))
    except RecipeInvalid:
        return False
    return True


def complaints(schema: dict[str, Any], text: str) -> list[str]:
    validator = Draft7Validator(schema)
    documents = as_an_editor_sees(text) or []
    return [error.message for document in documents for error in validator.iter_errors(document)]


SCHEMAS = {
    "any names": recipe_schema("recipe"),
    "installed names": recipe_schema("recipe", INVENTORY),
}


def test_what_reading_accepts_the_schema_accepts() -> None:
    """No good recipe is underlined, except for other programs' switches that are off."""
    texts = [text for text in dict.fromkeys(texts_in_tests()) if names_fields(text)]
    good = [text for text in texts if is_good(text)]
    assert len(good) > 100 and {*WHOLE_RECIPES} <= {*good}
    for schema in SCHEMAS.values():
        assert [(text, found) for text in good if (found := complaints(schema, text))] == []


@pytest.mark.parametrize(
    "text",
    [
        *("stesp: 30", "steps: 300", "steps: [10]", "count: 0", "cfg_scale: 0.5", "cfg: 99"),
        *("quality: 101", "quality: best", "format: gif"),
        *("checkpoint: {a: b}", "hires: {scale: 9}", "hires: {scael: 2}", "upscale: {factor: 2}"),
        *("loras: {ink: 11}", "control: {model: b, weight: 3}"),
        *("control: [{image: a.png, start: 2}]", "sweep: {stesp: [1, 2]}", "sweep: {steps: 10}"),
        *("sweep: {seed: [1, 2]}", "sweep: {cfg_scale: []}", "sweep: {guidance_scale: 3}"),
        *("steps: abc", "cfg_scale: 7;5", "exact: maybe", "exact: 3", "seed: abc", "hires: abc"),
        *("sampler: unknown", "sampler: DPM fast", "schedule_type: karas", "resize: big"),
        *("detail: true", "resize_to: true", "sweep: true", "sweep: 'yes'"),
        *("control: true", "control: 3", "control: a.png", "control: [{image: a.png}, true]"),
        *("loras: true", "quantize: fp9", "image: a.png\nextend: {lefft: 3}", "_id: [1]"),
    ],
)
def test_what_a_schema_can_express_it_refuses(text: str) -> None:
    """In a recipe and in a list of them: names and limits, also of parts and in sweeps."""
    for recipe in (f"prompt: a\n{text}", f"- prompt: a\n- {{prompt: a, {text}}}"):
        assert not is_good(recipe)
        for schema in SCHEMAS.values():
            assert as_an_editor_sees(recipe) is None or complaints(schema, recipe)


def test_null_in_json_is_fine() -> None:
    """It is the default, of parts, too."""
    text = '{"prompt": "a", "steps": null, "hires": {"scale": 2, "steps": null}, "mask": null}'
    read_recipes("a.json", text.encode(), INVENTORY)
    for schema in SCHEMAS.values():
        assert not complaints(schema, text)


def test_names_that_there_are_are_proposed() -> None:
    """Other names are no mistakes. What a prompt may name is shown beside its field."""
    plain, installed = (schema["definitions"] for schema in SCHEMAS.values())
    assert plain["sampler"]["examples"][:2] == ["DPM++ 2M Karras", "DPM++ 2M"]
    assert "karras" in plain["schedule_type"]["examples"]
    assert installed["checkpoint"]["examples"] == ["dreamshaper_8", "sd15/Realistic", "demo"]
    assert installed["vae"]["examples"] == ["baked", "vae-ft-mse"]
    assert installed["loras"]["examples"] == list(installed["loras"]["properties"])
    assert installed["upscale"]["properties"]["model"]["examples"] == ["demo-compact"]
    for field in ("prompt", "negative_prompt"):
        assert "Embeddings here: bad-hands, calm." in installed[field]["description"]
        assert "Wildcards here: __animals__." in installed[field]["description"]
    assert "here" not in plain["prompt"]["description"]
    other = "prompt: a\ncheckpoint: dreamshaper_9\nloras: {other: 0.5}\n"
    assert complaints(SCHEMAS["installed names"], other) == []


def test_each_field_says_what_the_docs_say() -> None:
    """Description, default and every name, so that hovering and completing help."""
    recipe = recipe_schema("recipe")["definitions"]["recipe"]["properties"]
    definitions = recipe_schema("recipe")["definitions"]
    for name, row in ROWS.items():
        assert recipe[name] == {"$ref": f"#/definitions/{name}"}
        assert row.does and definitions[name]["description"].startswith(row.does)
    assert definitions["clip_skip"]["default"] == 1
    assert recipe["cfg"]["doNotSuggest"]


def test_defaults_need_no_prompt_and_are_no_list() -> None:
    """In all else they are like recipes."""
    for fine, wrong in (("priority: 10\n", "stesp: 10\n"), ("# nothing\n", "- prompt: a\n")):
        assert not complaints(recipe_schema("defaults"), fine)
        assert complaints(recipe_schema("defaults"), wrong)
