"""The fields that name pictures: paths that stay within the folders, and what needs them."""

import re
from collections.abc import Callable, Iterator, Sequence

from picowatch.errors import PictureUnreadable
from picowatch.recipe.fields import (
    MIN_SIDE,
    PART_FIELDS,
    PICTURE,
    ROWS,
)
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.read.decoding import FORBIDDEN, invisible
from picowatch.recipe.read.plain import number
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import names_none, text_of
from picowatch.recipe.written import Layer, Position, Written

MAX_PATH = 500

# What says nothing without one of some others. Without a start image the denoising strength is
# that of hires. A sweep may vary the parts of a mapping alone.
_NEEDS = {
    **{name: row.needs for name, row in ROWS.items() if row.needs},
    "denoising_strength": ("image", "hires"),
    **{name: (name.partition(".")[0],) for name in PART_FIELDS},
}
NEEDED = frozenset(need for needs in _NEEDS.values() for need in needs)

# What a recipe without a prompt can say, whose start image is only enlarged.
_WITHOUT_DRAWING = ("image", "upscale", "exact", "sweep", "grid", "grid_seconds", "priority")


def read_path(field: str, layer: Layer, pictures: Pictures, problems: Problems) -> str:
    """The picture's path as the recipe names it, or "" for none.

    An absolute one inside the folders becomes `inbox/…` or `outbox/…`: it means the same
    wherever the folders are.
    """
    text = text_of(field, layer, problems)
    if text is None or names_none(layer[field]):
        return ""
    path = text.strip().removeprefix("./")
    if path.startswith("/") and ".." not in path.split("/"):
        path = pictures.inside(path) or path
    why = why_no_path(path)
    if why:
        problems.add(layer[field].error_position, f"{field} {why}")
        return ""
    return path


def refuse_unusable(
    recipes: Sequence[Recipe],
    use: Callable[[str], object],
) -> None:
    """Raise RecipeInvalid with all pictures for which `use` raises."""
    problems = Problems()
    for recipe in recipes:
        for field, path in recipe.pictures:
            try:
                use(path)
            except PictureUnreadable as error:
                problems.take(recipe.problem_at(field, named(path, str(error))).problems)
    problems.raise_if_any()


def named(path: str, words: str) -> str:
    """What is wrong with a picture, with its name."""
    return words if path in words else f"'{shown(path)}': {words}"


def picture_sides(
    size: tuple[int, int], multiple: int, most_side: int, most_pixels: int
) -> tuple[int, int]:
    """A picture's size as a recipe can have it: no larger than the limits, sides of multiples."""
    width, height = size
    shrink = min(1, most_side / max(size), (most_pixels / (width * height)) ** 0.5)
    least = -(-MIN_SIDE // multiple) * multiple
    most = most_side // multiple * multiple
    sides = [max(least, min(most, round(side * shrink / multiple) * multiple)) for side in size]
    return sides[0], sides[1]


def why_no_path(path: str) -> str | None:
    """Why a recipe may not name a picture so."""
    hidden = FORBIDDEN.search(path) or re.search(r"[\t\n]", path)
    if hidden:
        return f"contains {invisible(hidden[0])}. Remove it."
    if re.match(r"(?i)[a-z][a-z0-9+.-]+://", path):
        return "is an address, and picowatch never downloads. Save the picture beside the recipe."
    if re.match(r"[A-Za-z]:\\|\\\\", path):
        name = path.rpartition("\\")[2] or "corgi.png"
        return (
            "is a path of Windows, outside inbox/ and outbox/. Copy the picture beside the recipe, "
            f"then write its name: '{shown(name)}'."
        )
    if "\\" in path:
        return "contains a backslash. Write folders with /, like photos/corgi.png."
    if ".." in path.split("/"):
        return (
            "must not contain '..'. Write its path below inbox/ or outbox/, like photos/corgi.png."
        )
    if path.startswith(("/", "~")) or re.match("[A-Za-z]:", path):
        return (
            f"must stay within inbox/ or outbox/, but '{shown(path)}' leads out of them. Put the "
            "picture beside the recipe, or name one under inbox/ or outbox/."
        )
    if len(path) > MAX_PATH:
        return f"is longer than {MAX_PATH} characters."
    return None


def idle_fields(
    own: Layer, present: dict[str, bool]
) -> Iterator[tuple[Position, str, tuple[str, ...]]]:
    """Fields that an entry itself gives although what they need is not `present`.

    Position, field, and the names of what it needs. In a `_defaults.yaml` they are allowed: some
    recipes use them.
    """
    if not present["prompt"]:
        yield from _idle_without_drawing(own)
        return
    for field, needs in _NEEDS.items():
        written = own.get(field)
        if written is None or any(present[need] or _is_zero(own.get(need)) for need in needs):
            continue
        mapping, _, part = field.partition(".")
        if part and mapping in own:
            continue  # it was said with its mapping, which was left out
        if names_none(written) or (field == "variation_seed" and written.value is None):
            continue  # None is a random one, as other programs write where they use none
        yield written.name_position, field, needs


def _is_zero(written: Written | None) -> bool:
    """Whether a strength is switched off on purpose, so that what goes with it may stay."""
    return written is not None and number(str(written.value)) == 0


def _idle_without_drawing(own: Layer) -> Iterator[tuple[Position, str, tuple[str, ...]]]:
    """What an entry that only enlarges a picture says of drawing one."""
    for field, written in own.items():
        says_nothing = written.value == PICTURE or names_none(written)
        if field in ROWS and field not in _WITHOUT_DRAWING and not says_nothing:
            yield written.name_position, field, ("prompt",)
