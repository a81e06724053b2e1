"""The fields that name pictures: paths that stay inside the folders, and sizes that fit."""

import re
from collections.abc import Callable, Sequence

from picowatch.errors import PictureUnreadable, ValueInvalid
from picowatch.recipe.fields import MIN_SIDE
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import text_of
from picowatch.recipe.written import FORBIDDEN, Written, invisible

MAX_PATH = 500
# Patterns that no path may match, and why; the first match is reported.
_WRONG_PATHS = (
    (
        r"(?i)[a-z][a-z0-9+.-]+://",
        "is an address, and picowatch never downloads. Save the picture beside the recipe.",
    ),
    (
        r".*\\|(.*/)?\.\.(/|$)|/|~|[A-Za-z]:",
        "must stay within inbox/ or outbox/, and have no '..' and no backslash, not '{path}'. Put "
        "the picture beside the recipe, or name one there, like photos/corgi.png.",
    ),
    (f".{{{MAX_PATH + 1}}}", f"is longer than {MAX_PATH} characters."),
)


def read_path(field: str, written: Written | None, pictures: Pictures) -> str:
    """Return the picture's path as the recipe names it, or "" for none. Raises ValueInvalid.

    An absolute path inside the folders becomes `inbox/…` or `outbox/…`, which means the same
    wherever the folders are.
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
    for pattern, why in _WRONG_PATHS:
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


def picture_sides(
    size: tuple[int, int], multiple: int, most_side: int, most_pixels: int
) -> tuple[int, int]:
    """Return a picture's size as a recipe can have it: within the limits, sides of multiples."""
    width, height = size
    shrink = min(1, most_side / max(size), (most_pixels / (width * height)) ** 0.5)
    least = -(-MIN_SIDE // multiple) * multiple
    most = most_side // multiple * multiple
    sides = [max(least, min(most, round(side * shrink / multiple) * multiple)) for side in size]
    return sides[0], sides[1]
