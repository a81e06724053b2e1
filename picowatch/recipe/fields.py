"""The names of a recipe's fields: first names and aliases."""

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import did_you_mean
from picowatch.recipe.recipe_fields import RecipeFields

SIZE = "size"
FROM = "from"


def _aliases(name: str) -> list[str]:
    extra = RecipeFields.model_fields[name].json_schema_extra
    aliases = extra.get("aliases", []) if isinstance(extra, dict) else []
    return [str(alias) for alias in aliases] if isinstance(aliases, list) else []


# First names in the order of the table in the docs; `size` stands for width and height,
# `from` for all that a picture's metadata holds.
FIRST_NAMES = (*RecipeFields.model_fields, SIZE, FROM)

# Everything that may stand in a recipe, to its first name.
FIRST_NAME_OF = {name: name for name in FIRST_NAMES} | {
    alias: name for name in RecipeFields.model_fields for alias in _aliases(name)
}

# A flag without a value turns these on.
SWITCHES = {"exact", "grid", "hires", "mask_invert", "shrink_to_fit"}

ALL_NAMES = tuple(FIRST_NAME_OF)


def why_refused(name: str) -> str:
    """What to say about a name that is no field."""
    return f"unknown field '{shown(name)}'. {did_you_mean(name, ALL_NAMES)}".rstrip()
