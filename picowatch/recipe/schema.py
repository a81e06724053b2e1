"""JSON Schema of recipes, for editors that complete and check while somebody types.

Descriptions, defaults, types and limits come from the table of fields; here is only what reading
forgives beside them: numbers in quotes, names in any case, aliases, and the fields that can be
written in several ways. It refuses what a schema can express; what needs to look at several
fields, at a prompt's inside or at files is left to `picowatch check`. It is draft 7: the YAML
language server of VS Code and Neovim knows no later one
(https://github.com/redhat-developer/yaml-language-server, "Supports JSON Schema 7 and below").
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, get_args

from picowatch.families import FAMILIES
from picowatch.recipe.fields import (
    BAKED,
    FIRST_NAME_OF,
    FROM,
    MAPPINGS,
    MAX_SEED,
    NO_SWEEP,
    NOISE_NAMES,
    PARTS,
    PICTURE,
    PROMPTS,
    RANDOM,
    ROWS,
    SHORTHANDS,
    SIZE,
    NoiseSource,
    json_schemas,
)
from picowatch.recipe.inventory import DEMO_UPSCALER, Inventory
from picowatch.recipe.parts import UPSCALERS
from picowatch.recipe.preprocessors import MODES as CONTROL_MODES
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT
from picowatch.recipe.read.plain import DECIMAL, TRUE_OR_FALSE, WHOLE
from picowatch.recipe.read.yaml_entries import NAMES_SCHEMA
from picowatch.recipe.resolve.control import MAX_CONTROLS
from picowatch.recipe.resolve.installed import ENDINGS, FOLDERS, HASH
from picowatch.recipe.resolve.loras import MAX_LORAS
from picowatch.recipe.resolve.mappings import ALIASES, TEXT_PARTS
from picowatch.recipe.resolve.ranges import RANGE
from picowatch.recipe.row import Row
from picowatch.recipe.samplers import (
    AUTOMATIC,
    DEFAULT_SAMPLER,
    PREDICTIONS,
    SAMPLERS,
    SCHEDULE_TYPES,
    accepted_names,
    accepted_predictions,
)
from picowatch.recipe.schema_patterns import beginning_of, one_of, whole

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"

_NUMBER = f"{WHOLE.pattern}|{DECIMAL.pattern}"
_SEED = r"\+?(?:0|[1-9][0-9]*)|-0"
_NO_LETTER = "[^A-Za-z0-9+]*"
_ENDINGS = rf"(?:{one_of(ENDINGS)})?(?:{HASH})?"
_FOLDER = rf"(?:\.\/)?(?:models\/)?(?:{one_of(FOLDERS)}\/)?"
# A path that leads nowhere else: no address, no home folder, no drive, no `..` in it.
_PATH: Schema = {
    "type": "string",
    "pattern": (
        r"^(?!\s*(?:\.\/)?(?:~|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]+:\/\/))"
        r"(?!\s*(?:[^\/]*\/)*\.\.\s*(?:\/|$))[^\\]*$"
    ),
}
_SIDE = rf"0*{one_of(map(str, range(64, 2049, 8)))}"
_SIZE: Schema = {
    "type": "string",
    "pattern": rf"^\s*(?:{_SIDE}\s*[xX×*]\s*{_SIDE}|{one_of([PICTURE])})\s*$",
    "patternErrorMessage": "A size is like 512x768 (64 to 2048, multiples of 8), or picture.",
}
_SWEPT = {name: first for name, first in FIRST_NAME_OF.items() if first not in NO_SWEEP}


def recipe_schema(inventory: Inventory | None = None) -> Schema:
    """A recipe file: one recipe or a list of them. `inventory` adds the installed names."""
    alone = [
        {"required": [name, "upscale"]} for name in FIRST_NAME_OF if FIRST_NAME_OF[name] == "image"
    ]
    recipe = _mapping() | {"anyOf": [{"required": ["prompt"]}, {"required": [FROM]}, *alone]}
    forms = [_ref("recipe"), {"type": "array", "items": _ref("recipe")}]
    return _document("recipe", forms, _definitions(inventory) | {"recipe": recipe})


def defaults_schema(inventory: Inventory | None = None) -> Schema:
    """A `_defaults.yaml`: any fields."""
    definitions = _definitions(inventory) | {"defaults": _mapping()}
    return _document("defaults", [_ref("defaults")], definitions)


def _document(name: str, forms: Sequence[Schema], definitions: dict[str, Schema]) -> Schema:
    return {
        "$schema": DRAFT,
        "title": f"picowatch {name}",
        "anyOf": [*forms, {"type": "null"}],
        "definitions": definitions,
    }


def _mapping() -> Schema:
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
    properties["scheduler"] = {
        "anyOf": [_ref("schedule_type"), _ref("sampler")],
        "description": "ComfyUI's schedule_type, or diffusers' sampler.",
        "doNotSuggest": True,
    }
    pairs = combinations(FIRST_NAME_OF, 2)
    twice = [pair for pair in pairs if FIRST_NAME_OF[pair[0]] == FIRST_NAME_OF[pair[1]]]
    together = [*twice, (SIZE, "width"), (SIZE, "height")]
    several = [{"type": "array"}, _seed_range()]
    seeds = {"required": ["seed", "count"], "properties": {"seed": {"anyOf": several}}}
    return {
        "type": "object",
        "properties": properties | {NAMES_SCHEMA: {"type": "string", "doNotSuggest": True}},
        "additionalProperties": False,
        "not": {"anyOf": [*({"required": list(pair)} for pair in together), seeds]},
    }


def _definitions(inventory: Inventory | None) -> dict[str, Schema]:
    """What each field takes, under its first name, and what these consist of."""
    forms = _forms(inventory)
    models = ((name, json_schemas()[name]) for name in ROWS if name not in forms)
    # A side that nothing is said of is null there; nobody writes it so.
    forms |= {name: _plain(model.get("anyOf", [model])[0]) for name, model in models}
    rows = ROWS | SHORTHANDS
    fields = {name: {**form, **_said(name, rows[name])} for name, form in forms.items()}
    if inventory is not None:
        for field in PROMPTS:
            fields[field]["description"] += _words(inventory)
    axes = {_axis(name): _several(_ref(name)) for name in [*_SWEPT.values(), "weight"]}
    return fields | _lora_forms(inventory) | axes


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
    default = json_schemas().get(name, {}).get("default")
    return {"description": row.description} | (
        {} if default in (None, "") else {"default": default}
    )


def _forms(inventory: Inventory | None) -> dict[str, Schema]:
    """The fields that can be written in more ways than their types say."""
    samplers, schedule_types = map(_one_of, accepted_names())
    endings = _one_of([name for name in accepted_names()[1] if name != AUTOMATIC])
    sampler_names = [DEFAULT_SAMPLER, *(sampler.name for sampler in SAMPLERS)]
    checkpoints, vaes = None, None
    if inventory is not None:
        checkpoints = [checkpoint.name for checkpoint in (*inventory.checkpoints, inventory.demo)]
        vaes = [BAKED, *inventory.vaes]
    return {
        "sampler": _named(sampler_names, rf"{samplers}(?:{_NO_LETTER}{endings})?"),
        "schedule_type": _named([AUTOMATIC, *SCHEDULE_TYPES], schedule_types),
        "prediction": _named([AUTOMATIC, *PREDICTIONS], _one_of(accepted_predictions())),
        "checkpoint": _installed(checkpoints),
        "vae": _installed(vaes, "none", "automatic"),
        "loras": _loras(),
        "seed": _seed(),
        "noise": {
            "type": "string",
            "anyOf": [{"enum": list(get_args(NoiseSource))}, _text(one_of(NOISE_NAMES))],
        },
        "variation_seed": {"anyOf": _one_seed()},
        "image": _PATH,
        "mask": _PATH,
        **{field: _mapping_of(field, inventory) for field in MAPPINGS},
        "control": _control(inventory),
        "sweep": _sweep(inventory),
        SIZE: _SIZE,
        FROM: _PATH,
    }


def _plain(model: Schema) -> Schema:
    """Text, a word out of few, a number or a switch; the last two in quotes, too."""
    if {"type": "null"} in model.get("anyOf", []):
        return {"anyOf": [*_plain(model["anyOf"][0])["anyOf"], {"type": "null"}]}
    quoted = {"boolean": one_of(TRUE_OR_FALSE), "integer": WHOLE.pattern, "number": _NUMBER}
    kept = ("type", "enum", "minimum", "maximum", "multipleOf")
    plain = {key: model[key] for key in kept if key in model}
    expression = quoted.get(model.get("type", ""))
    return {"anyOf": [plain, _text(expression)]} if expression else plain


def _text(expression: str) -> Schema:
    return {"type": "string", "pattern": whole(expression)}


def _named(names: Sequence[str], accepted: str) -> Schema:
    """Names to complete with, and whatever else means one of them."""
    scheduler = one_of(["scheduler"], _NO_LETTER)
    pattern = f"^{_NO_LETTER}{accepted}(?:{_NO_LETTER}{scheduler})?{_NO_LETTER}$"
    return {"type": "string", "anyOf": [{"enum": list(names)}, {"pattern": pattern}]}


def _one_of(squeezed: Iterable[str]) -> str:
    """Matches names that were squeezed, whatever does not count between their letters."""
    spelled = [spelling for name in squeezed for spelling in (name, name.replace("pp", "++"))]
    return one_of(spelled, _NO_LETTER)


def _installed(names: Sequence[str] | None, *words: str) -> Schema:
    if names is None:
        return {"type": "string"}
    pattern = _meant([*names, *words])
    return {"type": "string", "anyOf": [{"enum": list(names)}, {"pattern": pattern}]}


def _meant(names: Sequence[str]) -> str:
    """The names of models as recipes may write them: see `installed.matching`."""
    if not names:
        return "^(?!)"  # matches nothing
    last_parts = [name.rpartition("/")[2] for name in names]
    return whole(f"{_FOLDER}{beginning_of([*names, *last_parts])}{_ENDINGS}")


def _lora_forms(inventory: Inventory | None) -> dict[str, Schema]:
    """What `loras` and its list consist of."""
    limits = {"minimum": -MAX_LORA_WEIGHT, "maximum": MAX_LORA_WEIGHT}
    name: Schema = {"type": "string"}
    weights: Schema = {"type": "object", "additionalProperties": _ref("lora_weight")}
    family = {"enum": [row.key for row in FAMILIES.values() if row.loras]}
    parts = {"weight": _ref("weight"), "family": family}
    if inventory is not None:
        name["pattern"] = _meant([*inventory.loras, *inventory.lora_names.values()])
        weights["properties"] = dict.fromkeys(inventory.loras, _ref("lora_weight"))
        weights["propertyNames"] = _ref("lora_name")
    return {
        "weight": _plain({"type": "number", **limits}),
        "lora_weight": {
            "anyOf": [
                _ref("weight"),
                {"type": "object", "properties": parts, "additionalProperties": False},
            ]
        },
        "lora_name": name,
        "lora_weights": weights | {"maxProperties": MAX_LORAS},
        "lora_use": {
            "type": "object",
            "properties": {"name": _ref("lora_name"), **parts},
            "required": ["name"],
            "additionalProperties": False,
        },
    }


def _loras() -> Schema:
    one = [_ref("lora_weights"), {"type": "string"}, _ref("lora_use")]
    return {"anyOf": [*one, {"type": "array", "items": {"anyOf": one}}]}


def _seed() -> Schema:
    one = {"type": "integer", "minimum": 0, "maximum": MAX_SEED}
    several = {"type": "array", "items": {"anyOf": [one, _text(_SEED)]}, "minItems": 1}
    return {"anyOf": [*_one_seed(), _seed_range(), several]}


def _seed_range() -> Schema:
    return _text(rf"(?:{_SEED})\s*\.\.\s*(?:{_SEED})(?:\s+step\s+[0-9]+)?")


def _one_seed() -> list[Schema]:
    """A number, or one that is drawn."""
    number = {"type": "integer", "minimum": -1, "maximum": MAX_SEED}
    return [{"const": RANDOM}, number, _text(rf"{one_of([RANDOM])}|[-−]1|{_SEED}")]


def _mapping_of(field: str, inventory: Inventory | None) -> Schema:
    """Off, on, a scale, the part that a text alone is, or a mapping of parts."""
    parts = _parts_of(field, inventory)
    switch = _plain({"type": "boolean"})["anyOf"]
    forms = [_object(parts, ALIASES[field]), *switch, *parts["scale"]["anyOf"]]
    if field in TEXT_PARTS:
        forms += [parts[TEXT_PARTS[field]], _text("(?:none)?")]
    return {"anyOf": forms}


def _object(parts: Schema, aliases: Mapping[str, str]) -> Schema:
    """A mapping of these parts, each under one of its names."""
    named = {alias: {**parts[name], "doNotSuggest": True} for alias, name in aliases.items()}
    return {
        "type": "object",
        "properties": parts | named,
        "additionalProperties": False,
        "not": {"anyOf": [{"required": [alias, name]} for alias, name in aliases.items()]},
    }


def _control(inventory: Inventory | None) -> Schema:
    one = _object(_parts_of("control", inventory), ALIASES["control"])
    one["anyOf"] = [{"required": [name]} for name in ("model", "controlnet")]
    several = {"type": "array", "items": one, "maxItems": MAX_CONTROLS}
    return {"anyOf": [one, several, {"const": False}, _text(one_of(["none"]) + "?")]}


def _parts_of(field: str, inventory: Inventory | None) -> dict[str, Schema]:
    """What each part of a mapping takes, under its first name."""
    models = {name: json_schemas()[f"{field}.{name}"] for name in PARTS[field]}
    forms = {name: _plain(model) for name, model in models.items()}
    forms |= _forms_of_parts(inventory)[field]
    said = {name: _said(f"{field}.{name}", row) for name, row in PARTS[field].items()}
    # A1111's names of preprocessors and modes are understood, too.
    for name in said.keys() & {"preprocess", "mode", "kind"}:
        said[name]["examples"] = list(filter(None, models[name]["enum"]))
    return {name: {**form, **said[name]} for name, form in forms.items()}


def _forms_of_parts(inventory: Inventory | None) -> dict[str, dict[str, Schema]]:
    """The parts that can be written in more ways than their types say."""
    upscalers, controlnets, depths = None, None, None
    if inventory is not None:
        upscalers = [one.name for one in (*inventory.upscalers, DEMO_UPSCALER)]
        controlnets = [one.name for one in inventory.controlnets]
        depths = list(inventory.depths)
    letters = [re.sub("[^A-Za-z]", "", name) for name in UPSCALERS]
    usual = f"^[^A-Za-z]*{one_of(letters, '[^A-Za-z]*')}[^A-Za-z]*$"
    choice = [{"enum": list(UPSCALERS)}, {"pattern": usual}, _installed(upscalers)]
    return {
        "upscale": {"model": _installed(upscalers)},
        "hires": {"upscaler": {"type": "string", "anyOf": choice}},
        "control": {
            "image": _PATH,
            "model": _installed(controlnets),
            "preprocess": {"type": "string"},
            "kind": {"type": "string"},
            "depth": _installed(depths),
            "mode": {"anyOf": [_text(one_of(CONTROL_MODES)), {"enum": [0, 1, 2]}]},
        },
    }


def _sweep(inventory: Inventory | None) -> Schema:
    """A mapping of axes, each a list of values or a range of numbers."""
    axes = {name: _ref(_axis(first)) for name, first in _SWEPT.items()}
    patterns = {rf"^\s*{name}\s*:?\s*$": axis for name, axis in axes.items()}
    details = {"prompt": "prompt", "negative_prompt": "prompt", "loras": "weight"}
    for name, first in _SWEPT.items():
        if first in details:
            patterns[rf"^\s*{name}\s*:\s*\S"] = _ref(_axis(details[first]))
        elif first in PARTS:
            for part, values in _parts_of(first, inventory).items():
                patterns[rf"^\s*{name}\s*:\s*{part}\s*$"] = _several(values)
    mapping = {
        "type": "object",
        "properties": {name: axes[name] for name in _SWEPT.values()},
        "patternProperties": patterns,
        "additionalProperties": False,
    }
    return {"anyOf": [mapping, {"enum": [False, "off", "none"]}]}


def _axis(name: str) -> str:
    return f"sweep_{name}"


def _several(values: Schema) -> Schema:
    listed = {"type": "array", "items": values, "minItems": 1}
    return {"anyOf": [listed, {"type": "string", "pattern": f"^{RANGE.pattern}$"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
