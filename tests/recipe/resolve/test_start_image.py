"""Start images and masks: paths that stay within the folders, and what goes with them."""

import pytest

from picowatch.families import FAMILIES
from picowatch.recipe import Checkpoint, ImageRequest, Inventory, RecipeInvalid, error_text
from picowatch.recipe.inventory import rules_of
from tests.recipe.reading import DEMO, PicturesWith, check_refused, read_one, request_of


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


@pytest.mark.parametrize("picture", ["image: a.png", "references: [a.png, b.png]"])
def test_only_the_masked_part_is_drawn_in_the_checkpoints_size(picture: str) -> None:
    """The picture keeps its own, whatever that is."""
    key, variant = ("flux2", "klein 4B") if "references" in picture else ("sd1", "")
    it = Checkpoint("it", 512, family=FAMILIES[key].name, rules=rules_of(key, variant))
    usual = f"prompt: a hat\ncheckpoint: it\n{picture}\nmask: m.png\n"

    def asked(text: str) -> ImageRequest:
        pictures = PicturesWith(lambda _: {}, size=(4001, 3000))
        return request_of(usual + text, inventory=Inventory(DEMO, (it,)), pictures=pictures)

    for size in ("", "size: picture"):
        request = asked(f"mask_padding: 0\n{size}")
        assert (request.drawn_size, request.mask_padding) == ((512, 512), 0)
        assert request.published_size == (4001, 3000)
    request = asked("mask_padding: 32\nsize: 256x384\nupscale: {model: demo-compact, scale: 2}")
    assert (request.drawn_size, request.published_size) == ((256, 384), (8002, 6000))
    for off in ("false", "none", "off"):
        request = asked(f"mask_padding: {off}\nsize: 64x64")
        assert (request.mask_padding, request.published_size) == (None, (64, 64))


def test_whoever_finds_a_picture_missing_can_say_where_it_is_named() -> None:
    """Recipes look at no disk."""
    recipe = read_one("prompt: a\nimage:  corgi.png\n")
    invalid = recipe.problem_at("image", "there is no corgi.png.")
    assert isinstance(invalid, RecipeInvalid)
    assert "line 2, column 9\n\n    2 | image:  corgi.png\n" in error_text(invalid)
    (elsewhere,) = recipe.problem_at("mask", "x").problems
    assert (elsewhere.line, elsewhere.column) == (1, 1)
