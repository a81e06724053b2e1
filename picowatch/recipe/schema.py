"""JSON Schema of recipes, for editors that complete and check while somebody types.

pydantic writes it from the table of fields, with what may be written for a value: its text for a
number, another name for a field, a mapping for LoRAs. Names that there are, of samplers or of
installed models, are examples, which editors propose. What needs to look at several fields, at a
prompt's inside or at files is left to `picowatch check`. It is draft 7: the YAML language server of
VS Code and Neovim knows no later one (https://github.com/redhat-developer/yaml-language-server,
"Supports JSON Schema 7 and below").
"""

import ast
import inspect
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, Field, WithJsonSchema, create_model
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from picowatch.recipe.fields import (
    BAKED,
    FIRST_NAME_OF,
    FROM,
    KINDS,
    MAX_SEED,
    NO_SWEEP,
    PART_ALIASES,
    PICTURE,
    PROMPTS,
    ROWS,
    SIZE,
    RecipeFields,
    Seed,
)
from picowatch.recipe.inventory import DEMO_UPSCALER, Checkpoint, Inventory
from picowatch.recipe.parts import UPSCALERS, Control, Hires, Upscale
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT
from picowatch.recipe.samplers import DEFAULT_SAMPLER, SAMPLERS

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"

_WHOLE = r"^\s*[-−+]?\d[\d_]*(\.0*)?\s*$"
_DECIMAL = r"[-+]?\d*\.?\d*([eE][-+]?\d+)?"
_RANGE = {"type": "string", "pattern": rf"^\s*{_DECIMAL}\s*\.\.\s*{_DECIMAL}(\s+step\s.+)?\s*$"}
_SIZE = {
    "type": "string",
    "pattern": rf"^\s*(\d+\s*[xX×*]\s*\d+|{PICTURE})\s*$",
    "patternErrorMessage": f"A size is like 512x768, or {PICTURE}.",
    "description": f"Width and height at once: 512x768; {PICTURE}: those of the start image.",
}
_FROM = "A picture whose settings this recipe starts from; other fields override them."
_TEXT = ["string", "number", "boolean"]
_WEIGHT = {
    "type": ["number", "string", "object"],
    "minimum": -MAX_LORA_WEIGHT,
    "maximum": MAX_LORA_WEIGHT,
}
_LORAS = {"type": ["string", "array", "object"], "additionalProperties": _WEIGHT}
_SWEPT = {"anyOf": [{"type": "array", "minItems": 1}, _RANGE]}
# What pydantic takes for a switch, and what else switches off.
_FALSE = ("false", "f", "no", "n", "off", "0")
_SWITCH = ("true", "t", "yes", "y", "on", "1", *_FALSE)


def _in_any_case(names: Iterable[str]) -> str:
    """A pattern for names in small letters or capitals, with spaces for underscores."""
    either = "|".join(names).replace("_", "[_ -]")
    return rf"^\s*({re.sub('[a-z]', lambda one: f'[{one[0]}{one[0].upper()}]', either)})\s*$"


_OFF = {
    "anyOf": [
        {"enum": ["", False, 0]},
        {"type": "string", "pattern": _in_any_case([*_FALSE, "none"])},
    ]
}
_Off = Annotated[str, WithJsonSchema(_OFF)]
_OneSeed = (
    Annotated[int, Field(ge=-1, le=MAX_SEED)]
    | Annotated[str, Field(pattern=_in_any_case(["random"]))]
)
_Scale = Annotated[float, Field(ge=0, le=8)]
# What may be written for fields of which the table's types do not say it.
_FORMS: dict[str, Any] = {
    "loras": Annotated[str, WithJsonSchema(_LORAS)],
    "seed": _OneSeed | Annotated[str, WithJsonSchema(_RANGE)] | list[Seed],
    "variation_seed": _OneSeed,
    "hires": Hires | bool | _Scale,
    "upscale": Upscale | bool | _Scale | str,
    "control": Control | list[Control] | _Off,
    SIZE: Annotated[str, WithJsonSchema(_SIZE)],
    FROM: Annotated[str, Field(description=_FROM)],
}
_Recipe: type[BaseModel] = create_model(
    "recipe", __base__=RecipeFields, **{name: (form, None) for name, form in _FORMS.items()}
)  # type: ignore[call-overload]


class _AsWritten(GenerateJsonSchema):
    """Writes what may stand for a value: its text, too, since YAML's types do not count."""

    def str_schema(self, schema: core_schema.StringSchema) -> Schema:
        found = super().str_schema(schema)
        return found if "pattern" in found else {"type": _TEXT}

    def int_schema(self, schema: core_schema.IntSchema) -> Schema:
        return {"anyOf": [super().int_schema(schema), {"type": "string", "pattern": _WHOLE}]}

    def float_schema(self, schema: core_schema.FloatSchema) -> Schema:
        text = {"type": "string", "pattern": rf"^\s*{_DECIMAL}\s*$"}
        return {"anyOf": [super().float_schema(schema), text]}

    def bool_schema(self, schema: core_schema.BoolSchema) -> Schema:
        text = {"type": "string", "pattern": _in_any_case(_SWITCH)}
        return {"anyOf": [super().bool_schema(schema), text, {"enum": [0, 1]}]}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> Schema:
        # Other programs' names for these are understood, too.
        return {"type": _TEXT, "examples": list(filter(None, schema["expected"]))}


def recipe_schema(inventory: Inventory | None = None) -> Schema:
    """A recipe file: one recipe or a list of them. `inventory` adds the installed names."""
    # A few spellings: editors say "Missing property" of these, and nothing clear of a pattern.
    needed = [{"required": [name]} for name in ("prompt", "Prompt", "PROMPT", FROM, "upscale")]
    definitions = _definitions(inventory) | {"recipe": _mapping() | {"anyOf": needed}}
    forms = [_ref("recipe"), {"type": "array", "items": _ref("recipe")}]
    return _document("recipe", forms, definitions)


def defaults_schema(inventory: Inventory | None = None) -> Schema:
    """A `_defaults.yaml`: any fields."""
    return _document("defaults", [_mapping()], _definitions(inventory))


def descriptions(kind: type) -> dict[str, str]:
    """What each field of a table does: the text below its row."""
    classes = [one for one in reversed(kind.__mro__) if one.__module__.startswith("picowatch.")]
    found = {}
    for one in classes:
        source: Any = ast.parse(inspect.getsource(one)).body[0]
        for row, text in pairwise(source.body):
            if (type(row), type(text)) == (ast.AnnAssign, ast.Expr):
                found[row.target.id] = " ".join(text.value.value.split())
    return found


def _document(name: str, forms: list[Schema], definitions: Schema) -> Schema:
    return {
        "$schema": DRAFT,
        "title": f"picowatch {name}",
        "anyOf": [*forms, {"enum": [None, ""]}],  # nothing, or only comments
        "definitions": definitions,
    }


def _mapping() -> Schema:
    """Every field under every name, which may be written with capitals and spaces."""
    names = {
        name: _ref(name) if name == first else _hidden(_ref(first))
        for name, first in FIRST_NAME_OF.items()
    }
    return {
        "type": "object",
        "properties": names,
        "patternProperties": {_in_any_case([*names, "scheduler"]): {}, r"^\$schema$": {}},
        "additionalProperties": False,
    }


def _definitions(inventory: Inventory | None) -> Schema:
    """What each field takes, under its first name, and what these consist of."""
    reference = "#/definitions/{model}"
    found = _Recipe.model_json_schema(schema_generator=_AsWritten, ref_template=reference)
    fields: Schema = found["properties"]
    models: Schema = found["$defs"]
    for name, text in descriptions(RecipeFields).items():
        default = ROWS[name].default_text
        _describe(fields[name], f"{text} Default: {default}." if default else text)
        if default:
            fields[name].pop("default", None)
    for field, kind in KINDS.items():
        model = models[kind.__name__]
        parts = model["properties"]
        model.pop("required", None)  # an alias may stand for it
        for name, text in descriptions(kind).items():
            _describe(parts[name], text)
        parts |= {alias: _hidden(parts[name]) for alias, name in PART_ALIASES[field].items()}
        model["patternProperties"] = {_in_any_case(parts): {}}
    _propose(fields, models, inventory or Inventory(demo=Checkpoint("demo", 0)))
    names = [name for name, first in FIRST_NAME_OF.items() if first not in NO_SWEEP]
    sweep = {
        "type": "object",
        "properties": {name: _SWEPT for name in names if name in fields},
        # A piece of a prompt, the weight of a LoRA, a part of a mapping.
        "patternProperties": {_in_any_case(names)[:-1] + "(:.*)?$": _SWEPT},
        "additionalProperties": False,
    }
    fields["sweep"] = {"description": fields["sweep"]["description"], "anyOf": [sweep, _OFF]}
    return fields | models


def _describe(schema: Schema, text: str) -> None:
    """Say what a field does, and the default only where somebody could write it."""
    schema["description"] = text
    if not schema.get("default"):
        schema.pop("default", None)


def _propose(fields: Schema, models: Schema, inventory: Inventory) -> None:
    """Add the names that there are as examples."""
    hires, upscale, control = (models[kind.__name__]["properties"] for kind in KINDS.values())
    upscalers = [one.name for one in (*inventory.upscalers, DEMO_UPSCALER)]
    for schema, names in (
        (fields["sampler"], [DEFAULT_SAMPLER, *(one.name for one in SAMPLERS)]),
        (fields["checkpoint"], [one.name for one in (*inventory.checkpoints, inventory.demo)]),
        (fields["vae"], [BAKED, *inventory.vaes]),
        (fields["loras"], list(inventory.loras)),
        (hires["upscaler"], [*UPSCALERS, *upscalers]),
        (upscale["model"], upscalers),
        (control["model"], [one.name for one in inventory.controlnets]),
        (control["depth"], list(inventory.depths)),
    ):
        schema["examples"] = names
    fields["loras"]["properties"] = dict.fromkeys(inventory.loras, _WEIGHT)
    # Nothing completes words inside of a text; a description shows them.
    wildcards = [f"__{name}__" for name in inventory.wildcards]
    for words, named in (("Embeddings", inventory.embeddings), ("Wildcards", wildcards)):
        for field in PROMPTS if named else ():
            fields[field]["description"] += f" {words} here: {', '.join(named)}."


def _hidden(schema: Schema) -> Schema:
    """The same for another name, which editors understand and do not propose."""
    return {"allOf": [schema], "doNotSuggest": True}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
