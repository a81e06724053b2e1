"""Start images and masks: paths that stay within the folders, and what goes with them."""

import pytest

from picowatch.recipe import RecipeInvalid, error_text
from tests.recipe.reading import check_refused, read_one, request_of


def test_without_a_start_image_a_request_has_none() -> None:
    """An entry that says `none` sets a folder's start image aside."""
    defaults = "image: a.png\nmask: b.png\nstrength: 0.3\nresize: fit\n"
    request = request_of("prompt: a\nimage: none", defaults=defaults)
    assert request.image == request.image_hash == request.mask == request.mask_hash == ""
    assert request == request_of("prompt: a")


OUT = "must stay within inbox/ or outbox/, and have no '..' and no backslash, not '{}'. Put …"
OUTSIDE = ("/etc/passwd", "../photos/a.png", "photos/../../a.png", "~/a.png", "C:/a.png",
           "C:\\Users\\me\\dog.png", "photos\\a.png")  # fmt: skip


@pytest.mark.parametrize(
    ("path", "message"),
    [
        *((path, OUT.format(path)) for path in OUTSIDE),
        ("https://example.com/a.png", "is an address, and picowatch never downloads. Save the …"),
        ('"a\\tb.png"', "contains the invisible character U+0009. Remove it."),
        ("a" * 497 + ".png", "is longer than 500 characters."),
    ],
)
@pytest.mark.parametrize("field", ["image", "mask"])
def test_paths_that_lead_elsewhere_are_refused(field: str, path: str, message: str) -> None:
    """A recipe may come from anywhere."""
    other = "image: a.png\nmask_blur: 3" if field == "mask" else "denoising_strength: 0.5"
    check_refused(f"prompt: a\n{other}\n{field}: {path}", f"{field} {message}")


def test_a_folder_may_say_how_start_images_are_used() -> None:
    """For the recipes in it that have one."""
    defaults = "denoising_strength: 0.3\nmask_blur: 0\n"
    assert read_one("prompt: a", defaults=defaults).denoising_strength == 0.75
    with_image = read_one("prompt: a\nimage: b.png", defaults=defaults)
    assert with_image.denoising_strength == 0.3


def test_whoever_finds_a_picture_missing_can_say_where_it_is_named() -> None:
    """Recipes look at no disk."""
    recipe = read_one("prompt: a\nimage:  corgi.png\n")
    invalid = recipe.problem_at("image", "there is no corgi.png.")
    assert isinstance(invalid, RecipeInvalid)
    assert "line 2, column 9\n\n    2 | image:  corgi.png\n" in error_text(invalid)
    (elsewhere,) = recipe.problem_at("mask", "x").problems
    assert (elsewhere.line, elsewhere.column) == (1, 1)
