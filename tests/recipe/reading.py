"""Shared by the tests of recipes: a set of installed models, and short functions to read texts."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from picowatch.families import FAMILIES, FLOWS
from picowatch.metadata.embedded_text import PICOWATCH
from picowatch.recipe.chunk import Chunk, picowatch_json
from picowatch.recipe.files import NO_PICTURES, Pictures
from picowatch.recipe.inventory import Checkpoint, ControlNet, Inventory, Upscaler, rules_of
from picowatch.recipe.messages.problems import RecipeInvalid
from picowatch.recipe.parts import KINDS
from picowatch.recipe.reading import DefaultsFile, Dropped, dropped_recipes, read_recipes
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.request import ImageRequest


class PicturesWith(Pictures):
    """Pictures of one size, whose metadata has the texts that a function gives for their paths."""

    def __init__(
        self, texts: Callable[[str], Mapping[str, str]], size: tuple[int, int] = (640, 480)
    ) -> None:
        self._texts = texts
        self._size = size

    def texts(self, path: str) -> Mapping[str, str]:
        return self._texts(path)

    def size(self, path: str) -> tuple[int, int]:
        return self._size


DEMO = Checkpoint("demo", 128)
INVENTORY = Inventory(demo=DEMO)


def of_family(name: str, key: str, variant: str = "", size: int = 1024) -> Checkpoint:
    return Checkpoint(name, size, family=FAMILIES[key].name, rules=rules_of(key, variant))


# The rules of each variant of each flow family.
FLOW_RULES = {
    (key, variant): rules_of(key, variant) for key in FLOWS for variant in FAMILIES[key].variants
}

# Something of every kind.
RICH = Inventory(
    demo=DEMO,
    checkpoints=(
        Checkpoint("dream", 512),
        Checkpoint("edits", 1024, rules=rules_of("qwen_image", "Edit 2511")),
        Checkpoint("flow", 1024, rules=rules_of("flux", "dev")),
    ),
    default_checkpoint="dream",
    vaes=("mse",),
    loras=("film", "ink"),
    embeddings=("bad_hands",),
    upscalers=(Upscaler("4x-Own", 4),),
    controlnets=(ControlNet("canny", ""), ControlNet("union", "", kinds=len(KINDS))),
    depths=("Depth-Own",),
    segmentations=("clipseg",),
    wildcards={"animal": ("cat", "dog")},
)

_DIGITS = {
    "checkpoint": "c",
    "vae": "d",
    "lora": "a",
    "embedding": "e",
    "controlnet": "b",
    "depth": "f",
    "upscaler": "9",
    "cutout": "8",
    "segmentation": "7",
    "image": "1",
    "mask": "2",
}
HASHES = {kind: digit * 64 for kind, digit in _DIGITS.items()}


def hash_of(kind: str, name: str) -> str:
    """Return one hash for all files of a kind."""
    return HASHES[kind]


def read(
    text: str | bytes,
    name: str = "corgi.yaml",
    inventory: Inventory = INVENTORY,
    defaults: str | Mapping[str, str] = "",
    max_images: int = 1000,
    pictures: Pictures = NO_PICTURES,
    texts: Mapping[str, str] | None = None,
) -> list[Recipe]:
    """Return the recipes of a file with this text.

    `defaults` is the text of the `_defaults.yaml` above it, or a text for each path; `texts` is
    the metadata of all pictures.
    """
    content = text.encode() if isinstance(text, str) else text
    above = {"_defaults.yaml": defaults} if isinstance(defaults, str) else defaults
    files = [DefaultsFile(path, text.encode()) for path, text in above.items()]
    if texts is not None:
        pictures = PicturesWith(lambda _: texts)
    return read_recipes(name, content, inventory, files, max_images, pictures=pictures)


def read_one(text: str | bytes, *more: Any, **options: Any) -> Recipe:
    (recipe,) = read(text, *more, **options)
    return recipe


def request_of(text: str | bytes, *more: Any, **options: Any) -> ImageRequest:
    """Return the only image that a file requests; a random seed is 5."""
    (request,) = read_one(text, *more, **options).image_requests(hash_of, 5)
    return request


def dropped(
    template: str,
    inventory: Inventory = RICH,
    *,
    name: str = "web/a.jpg",
    size: tuple[int, int] = (640, 480),
    beside: str = "",
    mask: str = "",
    defaults: str = "",
) -> list[Recipe]:
    """Return the recipes of a photo with this template, and with fields or a mask beside it."""
    texts = {"web/_pictures.yaml": template, "web/a.yaml": beside, "_defaults.yaml": defaults}
    file, *others = (DefaultsFile(path, text.encode()) for path, text in texts.items())
    photo = Dropped(name, file, (others[0],), mask)
    return dropped_recipes(photo, inventory, others[1:], 100, PicturesWith(lambda _: {}, size))


def refused(text: str | bytes, *more: Any, **options: Any) -> RecipeInvalid:
    try:
        recipes = read(text, *more, **options)
    except RecipeInvalid as invalid:
        return invalid
    raise AssertionError(f"nothing was found wrong; it reads {recipes}")


def messages(text: str | bytes, *more: Any, **options: Any) -> list[str]:
    return [problem.message for problem in refused(text, *more, **options).problems]


def check_refused(text: str | bytes, *expected: str, **options: Any) -> None:
    check_said(messages(text, **options), *expected)


def check_warned(recipe: Recipe, *expected: str) -> None:
    check_said(recipe.warnings, *expected)


def check_said(said: list[str] | tuple[str, ...], *expected: str) -> None:
    """Check texts one by one; "…" in an expected one stands for any words."""
    patterns = [".*".join(map(re.escape, text.split("…"))) for text in expected]
    are_alike = [bool(re.fullmatch(*pair, re.DOTALL)) for pair in zip(patterns, said, strict=False)]
    assert len(said) == len(expected) and all(are_alike), "\n".join(("it says", *said))


def chunk_of(request: ImageRequest) -> dict[str, str]:
    """Return the text in a picture of ours that says what made it."""
    chunk = Chunk(request=request, recipe="a.yaml", save_digest="", entry_index=0, image_index=0)
    return {PICOWATCH: picowatch_json(chunk)}
