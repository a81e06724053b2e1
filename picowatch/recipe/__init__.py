"""Recipes: text in, values out. Pure: no clock, no disk, no torch, no randomness."""

from picowatch.recipe.fields import Axis
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.messages.problems import Problem, RecipeInvalid, error_text
from picowatch.recipe.read.decoding import is_empty
from picowatch.recipe.reading import DefaultsFile, Dropped, priority_of, read_recipes
from picowatch.recipe.recipe import HashOf, Recipe, no_hash
from picowatch.recipe.request import ImageRequest

__all__ = [
    "Axis",
    "Checkpoint",
    "DefaultsFile",
    "Dropped",
    "HashOf",
    "ImageRequest",
    "Inventory",
    "Problem",
    "Recipe",
    "RecipeInvalid",
    "error_text",
    "is_empty",
    "no_hash",
    "priority_of",
    "read_recipes",
]
