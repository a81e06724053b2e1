"""JSON Schema of recipes, for editors that complete and check while somebody types.

pydantic writes it from the table of fields, with what may be written for a value: its text for a
number, another name for a field, a mapping for LoRAs. Names that there are, of samplers or of
installed models, are examples, which editors propose. What needs to look at several fields, at a
prompt's inside or at files is left to `picowatch check`. It is draft 7: the YAML language server of
VS Code and Neovim knows no later one (https://github.com/redhat-developer/yaml-language-server,
"Supports JSON Schema 7 and below").
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, WithJsonSchema, create_model
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from picowatch.families import FAMILIES
from picowatch.recipe.fields import (
    BAKED,
    FIRST_NAME_OF,
    FROM,
    MAX_SEED,
    NO_SWEEP,
    PART_ALIASES,
    PARTS,
    PICTURE,
    PROMPTS,
    ROWS,
    SHORTHANDS,
    SIZE,
    RecipeFields,
    Seed,
)
from picowatch.recipe.inventory import DEMO_UPSCALER, Checkpoint, Inventory
from picowatch.recipe.messages.other_programs import names_of_others
from picowatch.recipe.parts import UPSCALERS, Control, Hires, Row, Upscale
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT
from picowatch.recipe.resolve.layers import MAX_CONTROLS
from picowatch.recipe.samplers import DEFAULT_SAMPLER, SAMPLERS

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"

_WHOLE = r"^\s*[-−+]?\d[\d_]*(\.0*)?\s*$"
_DECIMAL = r"[-+]?\d*\.?\d*([eE][-+]?\d+)?"
_RANGE = {
    "type": "string",
    "pattern": rf"^\s*{_DECIMAL}\s*\.\.\s*{_DECIMAL}(\s+step\s.+)?\s*$",
}
_SIZE = {
    "type": "string",
    "pattern": rf"^\s*(\d+\s*[xX×*]\s*\d+|{PICTURE})\s*$",
    "patternErrorMessage": f"A size is like 512x768, or {PICTURE}.",
}
# What pydantic takes for them.
_FALSE = ("false", "f", "no", "n", "off", "0")
_SWITCH = ("true", "t", "yes", "y", "on", "1", *_FALSE)
# Of other programs' settings, as clients of their APIs send them.
_SWITCHED_OFF: list[object] = [None, False, 0, -1, "", [], {}, "none", "false"]
_MODELS = ("Hires", "Upscale", "Control")
_TEXT = ["string", "number", "boolean"]


_Weight = Annotated[float, Field(ge=-MAX_LORA_WEIGHT, le=MAX_LORA_WEIGHT)]


class _Lora(BaseModel):
    model_config = ConfigDict(extra="forbid")

    weight: _Weight = 1
    family: Annotated[str, Field(examples=[row.key for row in FAMILIES.values() if row.loras])] = ""


class _NamedLora(_Lora):
    name: str


class _Weights(RootModel[dict[str, _Weight | _Lora]]):
    pass


_OFF = {
    "anyOf": [
        {"enum": ["none", "", False, 0]},
        {"type": "string", "pattern": r"^\s*([oO]ff|OFF|[nN]o|NO|[fF]alse|FALSE|[fFnN0])\s*$"},
    ]
}
_Off = Annotated[str, WithJsonSchema(_OFF)]
_Random = Annotated[str, Field(pattern=r"^\s*([rR]andom|RANDOM)\s*$")]
_OneSeed = Annotated[int, Field(ge=-1, le=MAX_SEED)] | _Random
_Scale = Annotated[float, Field(ge=0, le=8)]
# What may be written for fields of which the table's types do not say it.
_FORMS: Mapping[str, Any] = {
    "loras": str | _Weights | _NamedLora | list[str | _Weights | _NamedLora],
    "seed": _OneSeed
    | Annotated[str, WithJsonSchema(_RANGE)]
    | Annotated[list[Seed], Field(min_length=1)],
    "variation_seed": _OneSeed,
    "hires": Hires | bool | _Scale,
    "upscale": Upscale | bool | _Scale | str,
    "control": Control | Annotated[list[Control], Field(max_length=MAX_CONTROLS)] | _Off,
    SIZE: Annotated[str, WithJsonSchema(_SIZE)],
    FROM: str,
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
        text = {"type": "string", "pattern": rf"^\s*{_in_any_case(_SWITCH)}\s*$"}
        return {"anyOf": [super().bool_schema(schema), text, {"enum": [0, 1]}]}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> Schema:
        # Other programs' names for these are understood, too.
        return {"type": _TEXT, "examples": list(filter(None, schema["expected"]))}


def recipe_schema(inventory: Inventory | None = None) -> Schema:
    """A recipe file: one recipe or a list of them. `inventory` adds the installed names."""
    # A few spellings: editors say "Missing property" of these, and nothing clear of a pattern.
    needed = [{"required": [name]} for name in ("prompt", "Prompt", "PROMPT", FROM, "upscale")]
    definitions = _definitions(inventory) | {"recipe": _mapping() | {"anyOf": needed}}
    forms = [_ref("recipe"), {"type": "array", "items": _ref("recipe")}, {"type": "null"}]
    return _document("recipe", forms, definitions)


def defaults_schema(inventory: Inventory | None = None) -> Schema:
    """A `_defaults.yaml`: any fields."""
    return _document("defaults", [_mapping()], _definitions(inventory))


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
    any_case = _in_any_case([*names, "scheduler"])
    return {
        "type": "object",
        "properties": names,
        "patternProperties": {
            rf"^({any_case}|\$schema)$": {},
            f"^{_in_any_case(sorted(names_of_others() - names.keys()))}$": {"enum": _SWITCHED_OFF},
        },
        "additionalProperties": False,
    }


def _definitions(inventory: Inventory | None) -> Schema:
    """What each field takes, under its first name, and what these consist of."""
    reference = "#/definitions/{model}"
    found = _Recipe.model_json_schema(schema_generator=_AsWritten, ref_template=reference)
    fields: Schema = found["properties"]
    models: Schema = found["$defs"]
    for name, row in (ROWS | SHORTHANDS).items():
        _describe(fields[name], row)
    for field, rows in PARTS.items():
        model = models[field.title()]
        model.pop("required", None)  # an alias may stand for it
        for name, row in rows.items():
            _describe(model["properties"][name], row)
        for alias, name in PART_ALIASES[field].items():
            model["properties"][alias] = _hidden(model["properties"][name])
        model["patternProperties"] = {f"^{_in_any_case(model['properties'])}$": {}}
    _propose(fields, models, inventory or Inventory(demo=Checkpoint("demo", 0)))
    fields["sweep"] = {"description": fields["sweep"]["description"], "anyOf": [_axes(), _OFF]}
    return fields | models


def _describe(schema: Schema, row: Row) -> None:
    """Say what the table says, and the default where somebody could write it."""
    schema["description"] = row.description
    if row.default_text:
        schema["description"] += f" Default: {row.default_text}."
    if row.default_text or not schema.get("default"):
        schema.pop("default", None)


def _propose(fields: Schema, models: Schema, inventory: Inventory) -> None:
    """Add the names that there are as examples."""
    hires, upscale, control = (models[name]["properties"] for name in _MODELS)
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
    weights = models["_Weights"]
    weights["properties"] = dict.fromkeys(inventory.loras, weights["additionalProperties"])
    # Nothing completes words inside of a text; a description shows them.
    wildcards = [f"__{name}__" for name in inventory.wildcards]
    for words, named in (("Embeddings", inventory.embeddings), ("Wildcards", wildcards)):
        for field in PROMPTS if named else ():
            fields[field]["description"] += f" {words} here: {', '.join(named)}."


def _axes() -> Schema:
    """A sweep's axes, each a list of values or a range of numbers."""
    names = [name for name, first in FIRST_NAME_OF.items() if first not in NO_SWEEP]
    several = {"type": "array", "minItems": 1}
    fields = {
        name: {"anyOf": [several | {"items": _ref(name)}, _RANGE]}
        for name in names
        if name == FIRST_NAME_OF[name]
    }
    # A piece of a prompt, the weight of a LoRA, a part of a mapping.
    others = {rf"^\s*{_in_any_case(names)}\s*(:.*)?$": {"anyOf": [several, _RANGE]}}
    return {
        "type": "object",
        "properties": fields,
        "patternProperties": others,
        "additionalProperties": False,
    }


def _in_any_case(names: Iterable[str]) -> str:
    """A pattern for names in small letters or capitals, with spaces for underscores."""
    either = "|".join(names).replace("_", "[_ -]")
    return f"({re.sub('[a-z]', lambda one: f'[{one[0]}{one[0].upper()}]', either)})"


def _hidden(schema: Schema) -> Schema:
    """The same for another name, which editors understand and do not propose."""
    return {"allOf": [schema], "doNotSuggest": True}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
