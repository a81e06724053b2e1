"""JSON Schema of recipes, for editors that complete and check while somebody types.

Made from the fields' models, and as forgiving as the reading is: numbers in quotes, names in any
case, aliases. It refuses what a schema can express; what needs to look at several fields, at a
prompt's inside or at files is left to `picowatch check`. It is draft 7: the YAML language server
of VS Code and Neovim knows no later one (https://github.com/redhat-developer/yaml-language-server,
"Supports JSON Schema 7 and below").
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

from picowatch.recipe.fields import (
    FIRST_NAME_OF,
    FROM,
    HIRES_PARTS,
    HIRES_PREFIX,
    MAX_SEED,
    NO_SWEEP,
    RANDOM,
    ROWS,
    SHORTHANDS,
    SIZE,
    Row,
    json_schemas,
)
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT
from picowatch.recipe.read.plain import TRUE_OR_FALSE
from picowatch.recipe.resolve.hires import ALIASES as HIRES_ALIASES
from picowatch.recipe.resolve.hires import UPSCALERS
from picowatch.recipe.resolve.loras import MAX_LORAS
from picowatch.recipe.resolve.sweep import MAX_VALUES
from picowatch.recipe.samplers import (
    AUTOMATIC,
    DEFAULT_SAMPLER,
    SAMPLERS,
    SCHEDULE_TYPES,
    accepted_names,
)
from picowatch.recipe.schema_patterns import beginning_of, one_of, whole

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"

_WHOLE_NUMBER = r"[-+]?(?:0|[1-9][0-9]*)"
_NUMBER = rf"{_WHOLE_NUMBER}|[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?"
_SEED = r"\+?(?:0|[1-9][0-9]*)|-0"
_NO_LETTER = "[^A-Za-z0-9+]*"
_ENDINGS = rf"(?:\.{one_of(['safetensors', 'ckpt', 'pt', 'pth', 'bin'])})?"
_SCHEDULER = one_of(["scheduler"], _NO_LETTER)
_FOLDER = r"(?:\.\/)?(?:models\/)?(?:(?:checkpoints|vae|loras)\/)?"
# A path that leads nowhere else: no address, no absolute one, no `..` in it.
_PATH = (
    r"^(?!\s*(?:\.\/)?(?:[\/~]|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]+:\/\/))"
    r"(?!\s*(?:[^\/]*\/)*\.\.\s*(?:\/|$))[^\\]*$"
)
_RANGE = (
    r"^\s*[-+]?(?:[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})\s*\.\.\s*"
    r"[-+]?(?:[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})"
    r"(?:\s+step\s+[-+]?(?:[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}))?\s*$"
)
_SIDE = rf"0*{one_of(map(str, range(64, 2049, 8)))}"
_SIZE = {
    "type": "string",
    "pattern": rf"^\s*{_SIDE}\s*[xX×*]\s*{_SIDE}\s*$",
    "patternErrorMessage": "A size is like 512x768: 64 to 2048, multiples of 8.",
}
_SWEPT = {name: first for name, first in FIRST_NAME_OF.items() if first not in NO_SWEEP}
_SWITCH_TEXT = {"type": "string", "pattern": whole(one_of(TRUE_OR_FALSE))}
_WEIGHT: Schema = {
    "anyOf": [
        {"type": "number", "minimum": -MAX_LORA_WEIGHT, "maximum": MAX_LORA_WEIGHT},
        {"type": "string", "pattern": whole(_NUMBER)},
    ]
}


def recipe_schema(inventory: Inventory | None = None) -> Schema:
    """A recipe file: one recipe or a list of them. `inventory` adds the installed names."""
    recipe = _fields_schema(inventory) | {"anyOf": [{"required": ["prompt"]}, {"required": [FROM]}]}
    return {
        "$schema": DRAFT,
        "title": "picowatch recipe",
        "anyOf": [
            _ref("recipe"),
            {"type": "array", "items": _ref("recipe")},
            {"type": "null"},
        ],
        "definitions": {**_definitions(inventory), "recipe": recipe},
    }


def defaults_schema(inventory: Inventory | None = None) -> Schema:
    """A `_defaults.yaml`: any fields."""
    return {
        "$schema": DRAFT,
        "title": "picowatch defaults",
        "anyOf": [_ref("defaults"), {"type": "null"}],
        "definitions": {**_definitions(inventory), "defaults": _fields_schema(inventory)},
    }


def _fields_schema(inventory: Inventory | None) -> Schema:
    """Every field under every name; each once, and size not beside width or height."""
    properties = {
        name: _ref(name)
        if name == first
        else {
            "allOf": [_ref(first)],
            "description": f"The same as {first}.",
            "doNotSuggest": True,
        }
        for name, first in FIRST_NAME_OF.items()
    }
    twice = [list(pair) for pair in combinations(FIRST_NAME_OF, 2) if _is_one(*pair)]
    together = [*twice, [SIZE, "width"], [SIZE, "height"]]
    seeds = {"required": ["seed", "count"], "properties": {"seed": {"type": "array"}}}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "not": {"anyOf": [*({"required": pair} for pair in together), seeds]},
    }


def _is_one(name: str, other: str) -> bool:
    return FIRST_NAME_OF[name] == FIRST_NAME_OF[other]


def _definitions(inventory: Inventory | None) -> dict[str, Schema]:
    """What each field takes, under its first name."""
    fields = {
        name: {**_forms(name, json_schemas()[name], inventory), **_said(name, row)}
        for name, row in ROWS.items()
    }
    fields[SIZE] = _SIZE
    fields[FROM] = {"type": "string", "pattern": _PATH}
    for name, row in SHORTHANDS.items():
        fields[name]["description"] = row.description
    fields["sweep"] |= _sweep(fields)
    if inventory is not None:
        words = _words(inventory)
        fields["prompt"]["description"] += words
        fields["negative_prompt"]["description"] += words
    return fields | _lora_forms(inventory) | _axes()


def _words(inventory: Inventory) -> str:
    """What a prompt may name of what is installed; nothing completes words inside of a text."""
    embeddings = ", ".join(inventory.embeddings)
    wildcards = ", ".join(f"__{name}__" for name in inventory.wildcards)
    said = {" Embeddings here: ": embeddings, " Wildcards here: ": wildcards}
    return "".join(f"{words}{names}." for words, names in said.items() if names)


def _said(name: str, row: Row) -> Schema:
    """The description, and the default where it is a value that somebody could write."""
    if row.default_text:
        return {"description": f"{row.description} Default: {row.default_text}."}
    default = json_schemas()[name].get("default")
    return {"description": row.description} | ({} if default is None else {"default": default})


def _forms(name: str, model: Schema, inventory: Inventory | None) -> Schema:
    """Every way to write a field's value."""
    samplers, schedule_types = accepted_names()
    endings = _one_of([kind for kind in schedule_types if kind != AUTOMATIC])
    match name:
        case "sampler":
            names = [DEFAULT_SAMPLER, *(sampler.name for sampler in SAMPLERS)]
            return _named(names, rf"{_one_of(samplers)}(?:{_NO_LETTER}{endings})?")
        case "schedule_type":
            return _named([AUTOMATIC, *SCHEDULE_TYPES], _one_of(schedule_types))
        case "checkpoint" | "vae":
            return _installed(name, inventory)
        case "loras":
            return _loras()
        case "seed":
            return _seed()
        case "image" | "mask":
            return {"type": "string", "pattern": _PATH}
        case "hires":
            return _hires()
        case "sweep":
            return {}
    return _plain(model)


def _plain(model: Schema) -> Schema:
    """Text, a word out of few, a number or a switch; the last two in quotes, too."""
    if {"type": "null"} in model.get("anyOf", []):
        return {"anyOf": [*_plain(model["anyOf"][0])["anyOf"], {"type": "null"}]}
    limits = {key: model[key] for key in ("minimum", "maximum", "multipleOf") if key in model}
    match model.get("type"):
        case "boolean":
            return {"anyOf": [{"type": "boolean"}, _SWITCH_TEXT]}
        case "integer":
            return {"anyOf": [{"type": "integer", **limits}, _text(_WHOLE_NUMBER)]}
        case "number":
            return {"anyOf": [{"type": "number", **limits}, _text(_NUMBER)]}
    return {key: model[key] for key in ("type", "enum") if key in model}


def _text(expression: str) -> Schema:
    return {"type": "string", "pattern": whole(expression)}


def _named(names: Sequence[str], accepted: str) -> Schema:
    """Names to complete with, and whatever else means one of them."""
    pattern = f"^{_NO_LETTER}{accepted}(?:{_NO_LETTER}{_SCHEDULER})?{_NO_LETTER}$"
    return {"type": "string", "anyOf": [{"enum": list(names)}, {"pattern": pattern}]}


def _one_of(squeezed: Iterable[str]) -> str:
    """Matches names that were squeezed, whatever does not count between their letters."""
    spelled = [spelling for name in squeezed for spelling in (name, name.replace("pp", "++"))]
    return one_of(spelled, _NO_LETTER)


def _installed(field: str, inventory: Inventory | None) -> Schema:
    if inventory is None:
        return {"type": "string"}
    checkpoints = [checkpoint.name for checkpoint in (*inventory.checkpoints, inventory.demo)]
    names = checkpoints if field == "checkpoint" else ["baked", *inventory.vaes]
    words = [] if field == "checkpoint" else ["none", "automatic"]
    return {"type": "string", "anyOf": [{"enum": names}, {"pattern": _meant([*names, *words])}]}


def _meant(names: Sequence[str]) -> str:
    """The names of models as recipes may write them: see `installed.matching`."""
    if not names:
        return "^(?!)"  # matches nothing
    last_parts = [name.rpartition("/")[2] for name in names]
    return whole(f"{_FOLDER}{beginning_of(dict.fromkeys([*names, *last_parts]))}{_ENDINGS}")


def _lora_forms(inventory: Inventory | None) -> dict[str, Schema]:
    """What `loras` and its list consist of."""
    name: Schema = {"type": "string"}
    weights: Schema = {"type": "object", "additionalProperties": _ref("weight")}
    if inventory is not None:
        name["pattern"] = _meant(inventory.loras)
        weights["properties"] = dict.fromkeys(inventory.loras, _ref("weight"))
        weights["propertyNames"] = _ref("lora_name")
    use = {
        "type": "object",
        "properties": {"name": _ref("lora_name"), "weight": _ref("weight")},
        "required": ["name"],
        "additionalProperties": False,
    }
    return {
        "weight": _WEIGHT,
        "lora_name": name,
        "lora_weights": weights | {"maxProperties": MAX_LORAS},
        "lora_use": use,
    }


def _loras() -> Schema:
    one = [_ref("lora_weights"), {"type": "string"}, _ref("lora_use")]
    return {"anyOf": [*one, {"type": "array", "items": {"anyOf": one}}]}


def _seed() -> Schema:
    one = {"type": "integer", "minimum": 0, "maximum": MAX_SEED}
    return {
        "anyOf": [
            {"const": RANDOM},
            {**one, "minimum": -1},
            _text(rf"{one_of([RANDOM])}|[-−]1|{_SEED}"),
            {
                "type": "array",
                "items": {"anyOf": [one, _text(_SEED)]},
                "minItems": 1,
            },
        ]
    }


def _hires() -> Schema:
    models = {name: json_schemas()[f"{HIRES_PREFIX}{name}"] for name in HIRES_PARTS}
    parts = {name: {**_plain(model), "default": model["default"]} for name, model in models.items()}
    spelled = [name.replace("(", "").replace(")", "").replace("-", "") for name in UPSCALERS]
    pattern = one_of((name.replace(" ", "") for name in spelled), "[^A-Za-z]*")
    parts["upscaler"] = {
        "type": "string",
        "anyOf": [{"enum": list(UPSCALERS)}, {"pattern": f"^[^A-Za-z]*{pattern}[^A-Za-z]*$"}],
        "default": models["upscaler"]["default"],
    }
    twice = [{"required": [alias, name]} for alias, name in HIRES_ALIASES.items()]
    named = {alias: {**parts[name], "doNotSuggest": True} for alias, name in HIRES_ALIASES.items()}
    mapping = {
        "type": "object",
        "properties": parts | named,
        "additionalProperties": False,
        "not": {"anyOf": twice},
    }
    scale = models["scale"]
    return {
        "anyOf": [
            {"type": "boolean"},
            mapping,
            {"type": "number", "minimum": scale["minimum"], "maximum": scale["maximum"]},
            _SWITCH_TEXT,
            _text(_NUMBER),
        ]
    }


def _sweep(fields: dict[str, Schema]) -> Schema:
    """A mapping of axes, each a list of values or a range of numbers."""
    patterns = {rf"^\s*{name}\s*:?\s*$": _ref(_axis(first)) for name, first in _SWEPT.items()}
    patterns |= {rf"^\s*{name}\s*:\s*\S": _ref(_axis("prompt")) for name in _names("prompt")}
    patterns |= {rf"^\s*{name}\s*:\s*\S": _ref(_axis("weight")) for name in _names("loras")}
    hires = fields["hires"]["anyOf"][1]["properties"]
    patterns |= {
        rf"^\s*{name}\s*:\s*{part}\s*$": _several(hires[part])
        for name in _names("hires")
        for part in HIRES_PARTS
    }
    mapping = {
        "type": "object",
        "properties": {name: _ref(_axis(name)) for name in _SWEPT.values()},
        "patternProperties": patterns,
        "additionalProperties": False,
    }
    return {"anyOf": [mapping, {"enum": [False, "off", "none"]}]}


def _axes() -> dict[str, Schema]:
    """What each axis of a sweep takes."""
    axes = {_axis(name): _several(_ref(name)) for name in dict.fromkeys(_SWEPT.values())}
    return axes | {_axis("weight"): _several(_ref("weight"))}


def _axis(name: str) -> str:
    return f"sweep_{name}"


def _several(values: Schema) -> Schema:
    listed = {"type": "array", "items": values, "minItems": 1, "maxItems": MAX_VALUES}
    return {"anyOf": [listed, {"type": "string", "pattern": _RANGE}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _names(field: str) -> Iterator[str]:
    """Every name of a field; of the prompt, of both of them."""
    wanted = {field, "negative_prompt"} if field == "prompt" else {field}
    return (name for name, first in FIRST_NAME_OF.items() if first in wanted)
