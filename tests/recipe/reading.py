"""What the tests of recipes share: a set of installed models, and reading in one line."""

from picowatch.recipe import (
    Checkpoint,
    DefaultsFile,
    Inventory,
    Recipe,
    RecipeInvalid,
    read_recipes,
)

DEMO = Checkpoint("demo", 128)
INVENTORY = Inventory(demo=DEMO)


HASHES = {
    "checkpoint": "c",
    "vae": "d",
    "lora": "a",
    "embedding": "e",
    "controlnet": "b",
    "depth": "f",
    "image": "1",
    "mask": "2",
}


def hash_of(kind: str, name: str) -> str:
    """Every file of a kind has the same hash."""
    return HASHES[kind] * 64


def read(
    text: str | bytes,
    name: str = "corgi.yaml",
    inventory: Inventory = INVENTORY,
    defaults: dict[str, str] | None = None,
    max_images: int = 1000,
) -> list[Recipe]:
    """The recipes of a file with this text."""
    content = text.encode() if isinstance(text, str) else text
    files = [DefaultsFile(path, text.encode()) for path, text in (defaults or {}).items()]
    return read_recipes(name, content, inventory, files, max_images)


def read_one(
    text: str | bytes,
    name: str = "corgi.yaml",
    inventory: Inventory = INVENTORY,
    defaults: dict[str, str] | None = None,
) -> Recipe:
    """The one recipe of a file with this text."""
    (recipe,) = read(text, name, inventory, defaults)
    return recipe


def refused(
    text: str | bytes,
    name: str = "corgi.yaml",
    inventory: Inventory = INVENTORY,
    defaults: dict[str, str] | None = None,
    max_images: int = 1000,
) -> RecipeInvalid:
    """What is wrong with a file with this text."""
    try:
        recipes = read(text, name, inventory, defaults, max_images)
    except RecipeInvalid as invalid:
        return invalid
    raise AssertionError(f"nothing was found wrong; it reads {recipes}")


def messages(
    text: str | bytes, name: str = "corgi.yaml", inventory: Inventory = INVENTORY
) -> list[str]:
    """The messages alone, in order."""
    return [problem.message for problem in refused(text, name, inventory).problems]
