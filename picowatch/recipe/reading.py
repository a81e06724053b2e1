"""A recipe file, from its bytes to its recipes: the whole story in one place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import Problem, Problems, RecipeInvalid, refuse
from picowatch.recipe.pictures import NO_PICTURES, Pictures
from picowatch.recipe.read.a1111_blocks import begins_parameters
from picowatch.recipe.read.csv_entries import csv_entries
from picowatch.recipe.read.decoding import decode
from picowatch.recipe.read.from_picture import read_from
from picowatch.recipe.read.json_entries import json_entries
from picowatch.recipe.read.txt_entries import rename_to, txt_entries
from picowatch.recipe.read.yaml_entries import yaml_entries, yaml_layer
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.entries import EntryResolver
from picowatch.recipe.resolve.layers import typed
from picowatch.recipe.resolve.limits import position_of_count, too_many
from picowatch.recipe.resolve.prompts import MAX_SIGNS_OF_ALL, count_signs
from picowatch.recipe.written import Entry, Layer

# What all images of a save ask for together: each image's prompt is hashed and kept.
MAX_CHARACTERS = 20_000_000
# The beginning of a YAML recipe that could be A1111's text, too, if it has capitals.
_PROMPT = re.compile(r"\s*(?:- +)?prompt\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DefaultsFile:
    """A `_defaults.yaml`: its name relative to the inbox, and its bytes."""

    name: str
    content: bytes


def read_recipes(
    name: str,
    content: bytes,
    inventory: Inventory,
    defaults: Sequence[DefaultsFile] = (),
    max_images: int = 1000,
    pictures: Pictures = NO_PICTURES,
) -> list[Recipe]:
    """The recipes of a file, everything resolved but random seeds; none if it holds only comments.

    `name` is relative to the inbox, its ending decides how the file is read. `defaults` are
    the `_defaults.yaml` from the inbox's root down to the file's folder. `pictures` are those that
    the recipes may name.
    Raises RecipeInvalid with all problems of the file.
    """
    problems = Problems()
    layers = [defaults_layer(file, problems) for file in defaults]
    entries, settings = _entries(name, content, problems)
    layers.append(settings)
    if len(entries) > max_images:  # before anything is drawn or looked up
        refuse(position_of_count(entries[0]), too_many(len(entries), max_images))
    resolver = EntryResolver(layers, inventory, max_images, pictures, problems, read_from)
    recipes = resolver.recipes(entries)
    problems.raise_if_any()
    _refuse_too_long(recipes, entries, problems)
    return recipes


def priority_of(defaults: Sequence[DefaultsFile]) -> int:
    """Return the priority of these `_defaults.yaml`, nearest last; 0 where they say none."""
    priority = 0
    for file in defaults:
        written = defaults_layer(file, Problems()).get("priority")
        value = typed("priority", written).value if written else None
        priority = value if isinstance(value, int) else priority
    return priority


def defaults_layer(file: DefaultsFile, problems: Problems) -> Layer:
    """The fields of a `_defaults.yaml`; what is wrong with it goes to `problems`."""
    layer, mistakes = _read_defaults(file)
    problems.take(mistakes)
    return dict(layer)  # what others do to it must not stay in the cache


@lru_cache(maxsize=64)
def _read_defaults(file: DefaultsFile) -> tuple[Layer, Sequence[Problem]]:
    """Once for all the recipes of a folder."""
    problems = Problems()
    layer: Layer = {}
    try:
        layer = yaml_layer(decode(file.name, file.content), problems)
    except RecipeInvalid as invalid:
        problems.take(invalid.problems)
    return layer, problems.found


def _entries(name: str, content: bytes, problems: Problems) -> tuple[list[Entry], Layer]:
    """The file's entries as written, and the settings above them in a TXT."""
    try:
        source = decode(name, content)
        if name.lower().endswith(".txt"):
            return txt_entries(source, problems)
        if name.lower().endswith(".csv"):
            return csv_entries(source, problems), {}
        if name.lower().endswith(".json"):
            return json_entries(source, problems), {}
        if begins_parameters(source.text) and not _PROMPT.match(source.text):
            what = rename_to(source, "txt", "A1111's generation parameters")
            problems.add(source.whole_line(1), what)
            return [], {}
        return yaml_entries(source, problems), {}
    except RecipeInvalid as invalid:
        problems.take(invalid.problems)
        raise RecipeInvalid(problems.found) from None


def _refuse_too_long(recipes: list[Recipe], entries: list[Entry], problems: Problems) -> None:
    """Long prompts and many wildcards are fine for few images, short ones for many."""
    for what, most, measure in (
        ("characters of prompts", MAX_CHARACTERS, len),
        ("characters of wildcards and brackets", MAX_SIGNS_OF_ALL, count_signs),
    ):
        sums = [recipe.summed(measure) for recipe in recipes]
        if sum(sums) > most:
            longest = recipes[sums.index(max(sums))]
            problems.add(
                position_of_count(entries[longest.entry_index]),
                f"all images of this file together have {sum(sums):,} {what}; the limit is "
                f"{most:,}. Request fewer images, or shorten the prompt.",
            )
            problems.raise_if_any()
