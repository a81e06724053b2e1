"""JSON Schema of recipes, for editors that complete and check while somebody types.

The limits are those that pydantic derives from the table of fields; every value may also be text.
The names of samplers and of installed models are examples, which editors propose. Everything else
is left to `picowatch check`. The schema is draft 7: the YAML language server of VS Code and Neovim
knows no later one (https://github.com/redhat-developer/yaml-language-server,
"Supports JSON Schema 7 and below").
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from picowatch.recipe.converters import MAX_SEED
from picowatch.recipe.fields import (
    BAKED,
    CUTOUT,
    DETAIL,
    FINISHING,
    FIRST_NAME_OF,
    FROM,
    KINDS,
    LISTS,
    NO_SWEEP,
    PART_ALIASES,
    PARTS,
    PICTURE,
    PROMPTS,
    ROWS,
    SHORTHANDS,
    SIZE,
    json_schemas,
)
from picowatch.recipe.inventory import DEMO_CUTOUT, DEMO_UPSCALER, Checkpoint, Inventory
from picowatch.recipe.parts import UPSCALERS
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT
from picowatch.recipe.samplers import DEFAULT_SAMPLER, SAMPLERS

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"

# The JSON types allowed for each type, since fields read numbers and switches from text, too.
_KINDS = {
    "integer": ["integer", "string"],
    "number": ["number", "string"],
    "boolean": ["boolean", "string", "number"],
    "string": ["string", "number", "boolean"],
}
_WEIGHT = {
    "type": ["number", "string", "object"],
    "minimum": -MAX_LORA_WEIGHT,
    "maximum": MAX_LORA_WEIGHT,
}
_SWEPT = {"type": ["array", "string"], "minItems": 1}
_SWITCH_OR_MORE = ["boolean", "number", "string", "object"]
# What may be written for fields where the table's types do not say it.
_FORMS: dict[str, Schema] = {
    "seed": {"type": ["integer", "string", "array"], "minimum": -1, "maximum": MAX_SEED},
    "variation_seed": {"type": ["integer", "string"], "minimum": -1, "maximum": MAX_SEED},
    "hires": {"type": _SWITCH_OR_MORE},
    "upscale": {"type": _SWITCH_OR_MORE},
    CUTOUT: {"type": _SWITCH_OR_MORE},
    "mask": {"type": ["string", "object"]},
    **{
        name: {"type": [*_SWITCH_OR_MORE, "array"], "items": {"$ref": f"#/definitions/{name}"}}
        for name in LISTS
    },
    "references": {"type": ["string", "array"], "items": {"type": "string"}, "maxItems": 10},
    "loras": {"type": ["string", "array", "object"], "additionalProperties": _WEIGHT},
    "sweep": {"type": _SWITCH_OR_MORE},
    SIZE: {
        "type": "string",
        "pattern": rf"^\s*(\d+\s*[xX×*]\s*\d+|{PICTURE})\s*$",
        "patternErrorMessage": f"A size is like 512x768, or {PICTURE}.",
    },
    FROM: {"type": "string"},
}


def recipe_schema(inventory: Inventory | None = None) -> Schema:
    """Return the schema of a recipe file: one recipe or a list. `inventory` adds the names."""
    # Only a few spellings: editors report a missing property clearly, but not a missing pattern.
    named = ("prompt", "Prompt", "PROMPT", FROM, DETAIL, *FINISHING)
    needed = [{"required": [name]} for name in named]
    definitions = _definitions(inventory) | {"recipe": _recipe() | {"anyOf": needed}}
    return _document(
        "recipe", [_ref("recipe"), {"type": "array", "items": _ref("recipe")}], definitions
    )


def defaults_schema(inventory: Inventory | None = None) -> Schema:
    """Return the schema of a `_defaults.yaml`: any fields."""
    return _document("defaults", [_recipe()], _definitions(inventory))


def _document(name: str, forms: list[Schema], definitions: Schema) -> Schema:
    return {
        "$schema": DRAFT,
        "title": f"picowatch {name}",
        "anyOf": [*forms, {"enum": [None, ""]}],  # nothing, or only comments
        "definitions": definitions,
    }


def _recipe() -> Schema:
    fields = {name: _ref(name) for name in SHORTHANDS | ROWS}
    aliases = {name: first for name, first in FIRST_NAME_OF.items() if name != first}
    more: Schema = {r"^\s*[sS]cheduler\s*$": {}, r"^\$schema$": {}}
    return _mapping(fields, aliases, more)


def _mapping(fields: Schema, aliases: Mapping[str, str], more: Schema | None = None) -> Schema:
    """Return a schema of fields by all their names, which may have capitals and spaces.

    Editors understand aliases, and do not propose them.
    """
    hidden = {
        alias: {"allOf": [fields[first]], "doNotSuggest": True} for alias, first in aliases.items()
    }
    return {
        "type": "object",
        "properties": fields | hidden,
        "patternProperties": {_in_any_case(fields | hidden): {}} | (more or {}),
        "additionalProperties": False,
    }


def _definitions(inventory: Inventory | None) -> Schema:
    """Return the schema of each field, by its first name."""
    described = {name: row.does for name, row in (SHORTHANDS | ROWS).items()}
    schemas = json_schemas()
    fields = {name: _field(schemas.get(name, {}), _FORMS.get(name)) for name in described}
    for name, text in described.items():
        default = ROWS[name].default_text if name in ROWS else ""
        fields[name]["description"] = f"{text} Default: {default}." if default else text
        if default:
            fields[name].pop("default", None)
    for name, kind in PARTS.items():
        parts = {
            part: _field(schemas[f"{name}.{part}"]) | {"description": row.does}
            for part, row in kind.items()
        }
        fields[name] = _mapping(parts, PART_ALIASES[name]) | fields[name]
    names = [name for name, first in FIRST_NAME_OF.items() if first not in NO_SWEEP]
    # The pattern matches a piece of a prompt, the weight of a LoRA, or a part of a mapping.
    axes = {name: _SWEPT for name in names if name in fields}
    fields["sweep"] = _mapping(axes, {}, {_in_any_case(names, ":.*"): _SWEPT}) | fields["sweep"]
    _propose(fields, inventory or Inventory(demo=Checkpoint("demo", 0)))
    return fields


def _field(schema: Schema, form: Schema | None = None) -> Schema:
    """Return a field's limits, its default and examples of its values."""
    default = {"default": schema["default"]} if schema.get("default") else {}
    if form:
        return form | default
    schema = schema.get("anyOf", [schema])[0]
    limits = {name: value for name, value in schema.items() if name not in ("title", "enum")}
    # No "enum": other programs' names for these are understood, too.
    examples = {"examples": list(filter(None, schema["enum"]))} if "enum" in schema else {}
    return limits | {"type": _KINDS[schema["type"]]} | examples | default


def _propose(fields: Schema, inventory: Inventory) -> None:
    """Add the names of samplers and of what is installed as examples."""
    hires, upscale, cutout, mask, detail, control = (fields[name]["properties"] for name in KINDS)
    upscalers = [one.name for one in (*inventory.upscalers, DEMO_UPSCALER)]
    for schema, names in (
        (fields["sampler"], [DEFAULT_SAMPLER, *(one.name for one in SAMPLERS)]),
        (fields["checkpoint"], [one.name for one in (*inventory.checkpoints, inventory.demo)]),
        (fields["vae"], [BAKED, *inventory.vaes]),
        (fields["loras"], list(inventory.loras)),
        (hires["upscaler"], [*UPSCALERS, *upscalers]),
        (upscale["model"], upscalers),
        (cutout["model"], [*inventory.cutouts, DEMO_CUTOUT, *inventory.segmentations]),
        (mask["model"], [*inventory.named("segmentation")]),
        (detail["model"], [*inventory.named("segmentation")]),
        (control["model"], [one.name for one in inventory.controlnets]),
        (control["depth"], list(inventory.depths)),
    ):
        schema["examples"] = names
    fields["loras"]["properties"] = dict.fromkeys(inventory.loras, _WEIGHT)
    # Editors complete no words inside a text, so the description lists them.
    wildcards = [f"__{name}__" for name in inventory.wildcards]
    for words, named in (("Embeddings", inventory.embeddings), ("Wildcards", wildcards)):
        for field in PROMPTS if named else ():
            fields[field]["description"] += f" {words} here: {', '.join(named)}."


def _in_any_case(names: Iterable[str], more: str = "") -> str:
    """Return a pattern for names in small letters or capitals, with spaces for underscores."""
    either = "|".join(names).replace("_", "[_ -]")
    either = re.sub("[a-z]", lambda one: f"[{one[0]}{one[0].upper()}]", either)
    return rf"^\s*({either})\s*{more}$"


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
