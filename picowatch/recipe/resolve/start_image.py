"""The fields that name pictures: paths that stay inside the folders, and sizes that fit."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from picowatch.errors import PictureUnreadable, ValueInvalid
from picowatch.recipe.fields import MIN_SIDE
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import text_of
from picowatch.recipe.written import FORBIDDEN, SourceValue, invisible

MAX_PATH = 500
# Patterns that no path may match, and why; the first match is reported.
_WRONG_PATHS = {
    r"(?i)[a-z][a-z0-9+.-]+://": "is an address, and picowatch never downloads. Save the picture "
    "beside the recipe.",
    r".*\\|(.*/)?\.\.(/|$)|/|~|[A-Za-z]:": "must stay within inbox/ or outbox/, and have no '..' "
    "and no backslash, not '{path}'. Put the picture beside the recipe, or name one there, like "
    "photos/corgi.png.",
    f".{{{MAX_PATH + 1}}}": f"is longer than {MAX_PATH} characters.",
}


def read_path(field: str, written: SourceValue | None, pictures: Pictures) -> str:
    """Return the picture's path as the recipe names it, or "" for none. Raises ValueInvalid.

    An absolute path in the folders becomes `inbox/…` or `outbox/…`, as the folders may move.
    """
    if written is None or written.is_none:
        return ""
    path = text_of(field, written).strip().removeprefix("./")
    if path.startswith("/") and ".." not in path.split("/"):
        path = pictures.inside(path) or path
    path = pictures.beside(written.position.source.name, path)
    if why := why_no_path(path):
        raise ValueInvalid(f"{field.replace('.', ' ')} {why}")
    return path


def why_no_path(path: str) -> str | None:
    """Return why a recipe may not have this path of a picture; None if it may."""
    if hidden := FORBIDDEN.search(path) or re.search(r"[\t\n]", path):
        return f"contains {invisible(hidden[0])}. Remove it."
    for pattern, why in _WRONG_PATHS.items():
        if re.match(pattern, path):
            return why.format(path=shown(path))
    return None


def refuse_unusable(recipes: Sequence[Recipe], use: Callable[[str], object]) -> None:
    """Raise RecipeInvalid with all pictures for which `use` raises."""
    problems = Problems()
    for recipe in recipes:
        for field, path in recipe.pictures:
            try:
                use(path)
            except PictureUnreadable as error:
                what = named(path, str(error))
                if field == "mask" and "." not in path:
                    what += f" For what words find, write mask: {{find: {shown(path)}}}."
                problems.take(recipe.problem_at(field, what).problems)
    problems.raise_if_any()


def named(path: str, words: str) -> str:
    """Return a message about a picture, with its path in it."""
    return words if path in words else f"'{shown(path)}': {words}"


class Limits(NamedTuple):
    """The limits of a size that is taken from a picture."""

    multiple: int
    most_side: int
    most_pixels: int


def fit(
    size: tuple[int, int], given: tuple[int | None, int | None], limits: Limits
) -> tuple[tuple[int, int], bool]:
    """Return a picture's size within limits, in proportion to a given side; True if reduced."""
    for side, of_picture in zip(given, size, strict=True):
        if side:
            scale = side / of_picture
            size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    by_pixels = (limits.most_pixels / (size[0] * size[1])) ** 0.5
    shrink = min(1, limits.most_side / max(size), by_pixels)
    least = -(-MIN_SIDE // limits.multiple)
    most = limits.most_side // limits.multiple
    width, height = (
        max(least, min(most, round(side * shrink / limits.multiple))) * limits.multiple
        for side in size
    )
    return (width, height), shrink < 1
