"""`picowatch schema`: what editors complete and check recipes with."""

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from picowatch.catalog import Catalog
from picowatch.errors import CommandFailed
from picowatch.files.atomic import write_atomically
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.schema import DRAFT, defaults_schema, recipe_schema
from picowatch.settings.settings import Settings

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
        raise CommandFailed(
            f"Cannot write {output}: {error.strerror}.", "Give another file: --output FILE."
        ) from error
    print(f"created {output}")
    return 0


def inventory_of(settings: Settings) -> Inventory:
    """Return what recipes may name; no hashes are written."""
    models, named = settings.models, settings.names_models
    catalog = Catalog(models, settings.hash_cache, keep_hashes=False, must_exist=named)
    return catalog.inventory(settings.checkpoint)


def schema_text(kind: str, inventory: Inventory | None = None) -> str:
    """One of `KINDS`, as text. ASCII only, so that no editor has to guess."""
    found: dict[str, Any]
    if kind == "settings":
        found = _settings_schema()
    else:
        found = recipe_schema(inventory) if kind == "recipe" else defaults_schema(inventory)
    return json.dumps(found, indent=1) + "\n"


def _settings_schema() -> dict[str, Any]:
    """Return the schema of picowatch.yaml; an empty value there means the default."""
    found = Settings.model_json_schema()
    for name, field in found["properties"].items():
        described = {key: field.pop(key) for key in ("description", "default") if key in field}
        field.pop("title", None)
        found["properties"][name] = {"anyOf": [field, {"type": "null"}], **described}
    return {"$schema": DRAFT, **found, "title": "picowatch settings", "type": ["object", "null"]}
