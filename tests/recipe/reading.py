"""Shared by the tests of recipes: a set of installed models, and short functions to read texts."""

from collections.abc import Callable, Mapping

from picowatch.recipe import (
    Checkpoint,
    DefaultsFile,
    Inventory,
    Recipe,
    RecipeInvalid,
    read_recipes,
)
from picowatch.recipe.pictures import NO_PICTURES, Pictures


class PicturesWith(Pictures):
    """Pictures whose metadata has the texts that a function gives for their paths."""

    def __init__(self, texts: Callable[[str], Mapping[str, str]]) -> None:
        self._texts = texts

    def texts(self, path: str) -> Mapping[str, str]:
        return self._texts(path)


DEMO = Checkpoint("demo", 128)
INVENTORY = Inventory(demo=DEMO)


HASHES = {
    "checkpoint": "c",
    "vae": "d",
    "lora": "a",
    "embedding": "e",
    "controlnet": "b",
    "depth": "f",
    "upscaler": "9",
    "image": "1",
    "mask": "2",
}


def hash_of(kind: str, name: str) -> str:
    """Return one hash for all files of a kind."""
    return HASHES[kind] * 64


def read(
    text: str | bytes,
    name: str = "corgi.yaml",
    inventory: Inventory = INVENTORY,
    defaults: dict[str, str] | None = None,
    max_images: int = 1000,
    pictures: Pictures = NO_PICTURES,
) -> list[Recipe]:
    """Return the recipes of a file with this text."""
    content = text.encode() if isinstance(text, str) else text
    files = [DefaultsFile(path, text.encode()) for path, text in (defaults or {}).items()]
    return read_recipes(name, content, inventory, files, max_images, pictures=pictures)


def read_one(
    text: str | bytes,
    name: str = "corgi.yaml",
    inventory: Inventory = INVENTORY,
    defaults: dict[str, str] | None = None,
    pictures: Pictures = NO_PICTURES,
) -> Recipe:
    """Return the only recipe of a file with this text."""
    (recipe,) = read(text, name, inventory, defaults, pictures=pictures)
    return recipe


def refused(
    text: str | bytes,
    name: str = "corgi.yaml",
    inventory: Inventory = INVENTORY,
    defaults: dict[str, str] | None = None,
    max_images: int = 1000,
    pictures: Pictures = NO_PICTURES,
) -> RecipeInvalid:
    """Return the problems of a file with this text."""
    try:
        recipes = read(text, name, inventory, defaults, max_images, pictures)
    except RecipeInvalid as invalid:
        return invalid
    raise AssertionError(f"nothing was found wrong; it reads {recipes}")


def messages(
    text: str | bytes,
    name: str = "corgi.yaml",
    inventory: Inventory = INVENTORY,
    pictures: Pictures = NO_PICTURES,
    defaults: dict[str, str] | None = None,
) -> list[str]:
    """Return only the messages of the problems, in order."""
    found = refused(text, name, inventory, defaults, pictures=pictures)
    return [problem.message for problem in found.problems]
