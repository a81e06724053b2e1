"""`picowatch schema`: JSON Schemas, with which editors complete and check while somebody types.

The limits are those that pydantic derives from the table of fields. Every value may also be text,
whose form is a pattern. The names of installed models are examples, which editors propose. Limits
of numbers in quotes and everything else is left to `picowatch check`. The schema is draft 7: the
YAML language server of VS Code and Neovim knows no later one
(https://github.com/redhat-developer/yaml-language-server, "Supports JSON Schema 7 and below").
"""

import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from picowatch.catalog import Catalog
from picowatch.errors import CommandFailed
from picowatch.files.atomic import write_atomically
from picowatch.recipe import fields
from picowatch.recipe.converters import NUMBER, OFF, SWITCH, any_of, form, in_any_case
from picowatch.recipe.files import NO_FILES, PICTURE_KINDS, PLACES
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.samplers import DEFAULT_SAMPLER, SAMPLERS
from picowatch.settings.settings import Settings

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
# The schema of each type, since fields read numbers and switches from text, too.
_KINDS = {
    "integer": form("integer string", NUMBER),
    "number": form("number string", NUMBER),
    "boolean": form("boolean string number", SWITCH, minimum=0, maximum=1),
    "string": form("string number boolean"),
}
_SWEPT = form("array string null", minItems=1)
# What there is a schema of, and its file in the inbox's folder `.schema`.
KINDS = {"recipe": "recipe.json", "defaults": "defaults.json", "settings": "settings.json"}
FOLDER = ".schema"  # the inbox looks into no folder of such a name


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    """Print a schema, or write it to a file, perhaps with the names of the models there are."""
    text = schema_text(options.kind, inventory_of(load()) if options.installed else None)
    output: Path | None = options.output
    if output is None:
        print(text, end="")
        return 0
    try:
        write_atomically(output, text.encode())
    except OSError as error:
        words = f"Cannot write {output}: {error.strerror}."
        raise CommandFailed(words, "Give another file: --output FILE.") from error
    print(f"created {output}")
    return 0


def inventory_of(settings: Settings) -> Inventory:
    """Return what recipes may name; no hashes are written."""
    models, named = settings.models, settings.names_models
    catalog = Catalog(models, settings.hash_cache, keep_hashes=False, must_exist=named)
    return catalog.inventory(settings.checkpoint)


def schema_text(kind: str, inventory: Inventory | None = None) -> str:
    """One of `KINDS`, as text. ASCII only, so that no editor has to guess."""
    found = _settings() if kind == "settings" else recipe_schema(kind, inventory)
    return json.dumps(found, indent=1) + "\n"


def _settings() -> Schema:
    """Return the schema of picowatch.yaml; an empty value there means the default."""
    found = Settings.model_json_schema()
    for name, field in found["properties"].items():
        described = {key: field.pop(key) for key in ("description", "default") if key in field}
        field.pop("title", None)
        found["properties"][name] = {"anyOf": [field, {"type": "null"}], **described}
    return {"$schema": DRAFT, **found, "title": "picowatch settings", "type": ["object", "null"]}


def recipe_schema(kind: str, inventory: Inventory | None = None) -> Schema:
    """Return the schema of recipes, one or a list, or of `defaults`; `inventory` adds the names."""
    definitions = _definitions(inventory or Inventory(demo=Checkpoint("demo", 0)))
    forms = [_recipe()]
    if kind == "recipe":
        # Few spellings: editors report a missing property clearly, but not a missing pattern.
        needed = [{"required": [name]} for name in ("Prompt", "PROMPT", *fields.SAYING_WHAT)]
        needed += [{"required": ["image", name]} for name in fields.WRITING]
        definitions["recipe"] = _recipe() | {"anyOf": needed}
        forms = [_ref("recipe"), {"type": "array", "items": _ref("recipe")}]
    return {
        "$schema": DRAFT,
        "title": f"picowatch {kind}",
        "anyOf": [*forms, {"enum": [None, ""]}],  # nothing, or only comments
        "definitions": definitions,
    }


def _recipe() -> Schema:
    known = {name: _ref(name) for name in fields.SHORTHANDS | fields.ROWS}
    aliases = {name: first for name, first in fields.FIRST_NAME_OF.items() if name != first}
    note = form("string number boolean null")
    more: Schema = {r"^\s*[sS]cheduler\s*$": {}, r"^\$schema$": {}, r"^_": note}
    return _mapping(known, aliases, more)


def _mapping(known: Schema, aliases: Mapping[str, str], more: Schema | None = None) -> Schema:
    """Return a schema of fields by all names, in any case; editors propose no aliases."""
    hidden = {a: {"allOf": [known[first]], "doNotSuggest": True} for a, first in aliases.items()}
    return {
        "type": "object",
        "properties": known | hidden,
        "patternProperties": {in_any_case(known | hidden): {}} | (more or {}),
        "additionalProperties": False,
    }


def _definitions(inventory: Inventory) -> Schema:
    """Return the schema of each field, by its first name."""
    rows = fields.SHORTHANDS | fields.ROWS
    known = {name: _field(name) | {"description": row.does} for name, row in rows.items()}
    for name, row in rows.items():
        if row.default_text:
            known[name]["description"] += f" Default: {row.default_text}."
            known[name].pop("default", None)
    for name, kind in fields.PARTS.items():
        parts = {p: _field(f"{name}.{p}") | {"description": row.does} for p, row in kind.items()}
        known[name] = _mapping(parts, fields.PART_ALIASES[name]) | known[name]
    names = [name for name, first in fields.FIRST_NAME_OF.items() if first not in fields.NO_SWEEP]
    # The pattern matches a piece of a prompt, the weight of a LoRA, or a part of a mapping.
    axes = {name: _SWEPT for name in names if name in known}
    aliases = {name: fields.FIRST_NAME_OF[name] for name in names if name not in axes}
    pieces = {in_any_case(names, ":.*"): _SWEPT}
    known["sweep"] = _mapping(axes, aliases, pieces) | known["sweep"]
    _propose(known, inventory)
    return known


def _field(name: str) -> Schema:
    """Return a field's limits, its default, which is null in JSON, and examples of its values."""
    schema = fields.json_schemas().get(name, {})
    default = {"default": schema["default"]} if schema.get("default") else {}
    found = _form(name, schema.get("anyOf", [schema])[0])
    return found | {"type": [*found["type"], "null"]} | default


def _form(name: str, schema: Schema) -> Schema:
    row = (fields.ROWS | fields.SHORTHANDS | fields.PART_FIELDS)[name]
    if name in fields.LISTS:
        kinds, text = ("number string", "") if row.part else ("string", OFF)
        return form(f"{kinds} object array false", text, items=_ref(name))
    if name in fields.MAPPINGS or "type" in row.form:
        return {**form(fields.SWITCH_OR_MORE), **row.form}
    limits = {key: value for key, value in schema.items() if key not in ("title", "enum")}
    words = [word for word in schema.get("enum", ()) if word]
    if not words:
        return limits | _KINDS[schema["type"]]
    # No "enum": other programs' names for these are understood, too.
    pattern = any_of([*words, *row.form.get("examples", ())])
    if "" in schema["enum"]:
        pattern += "|"
    return limits | form("string", rf"\.?{pattern}", examples=words)


def _propose(known: Schema, inventory: Inventory) -> None:
    """Add the names of samplers and of what is installed as examples."""
    for place, field, part, _, kind, _ in PLACES:
        if kind not in PICTURE_KINDS:
            installed = [*inventory.named(kind)]
            if field == "cutout":  # what is found by words can be cut out, too
                installed += inventory.named("segmentation")
            schema = known[field]["properties"][part] if part else known[field]
            schema["examples"] = [*NO_FILES.get(place, ()), *installed]
    known["sampler"]["examples"] = [DEFAULT_SAMPLER, *(sampler.name for sampler in SAMPLERS)]
    known["loras"] |= {"examples": [*inventory.loras]}
    known["loras"]["properties"] = dict.fromkeys(inventory.loras, fields.LORA_WEIGHT)
    # Editors complete no words inside a text, so the description lists them.
    wildcards = [f"__{name}__" for name in inventory.wildcards]
    for words, named in (("Embeddings", inventory.embeddings), ("Wildcards", wildcards)):
        for field in fields.PROMPTS if named else ():
            known[field]["description"] += f" {words} here: {', '.join(named)}."


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}
