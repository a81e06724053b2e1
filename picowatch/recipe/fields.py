"""The names of a recipe's fields: first names, aliases, and those a later version brings."""

from picowatch.recipe.problems import shown
from picowatch.recipe.recipe_fields import RecipeFields
from picowatch.recipe.suggestions import did_you_mean

SIZE = "size"


def _aliases(name: str) -> list[str]:
    extra = RecipeFields.model_fields[name].json_schema_extra
    aliases = extra.get("aliases", []) if isinstance(extra, dict) else []
    return [str(alias) for alias in aliases] if isinstance(aliases, list) else []


# First names in the order of the table in the docs; `size` stands for width and height.
FIRST_NAMES = (*RecipeFields.model_fields, SIZE)

# Everything that may stand in a recipe, to its first name.
FIRST_NAME_OF = {name: name for name in FIRST_NAMES} | {
    alias: name for name in RecipeFields.model_fields for alias in _aliases(name)
}

# A flag without a value turns these on.
SWITCHES = {"exact", "grid", "hires", "mask_invert", "shrink_to_fit"}

# What a later version brings, aliases included: refused as "not yet", never as unknown.
NOT_YET = {
    "from": "from",
}

ALL_NAMES = (*FIRST_NAME_OF, *NOT_YET)


def why_refused(name: str) -> str:
    """What to say about a name that is no field: not yet, or unknown with a suggestion."""
    if name in NOT_YET:
        return f"'{name}' is not supported yet. Take it out to make the picture without it."
    return f"unknown field '{shown(name)}'. {did_you_mean(name, ALL_NAMES)}".rstrip()
