"""Start images and masks: paths that stay within the folders, what goes with them, and `extend`."""

from dataclasses import replace

import pytest

from picowatch.errors import ValueInvalid
from picowatch.recipe.extend import margins_of
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.request import ImageRequest
from tests.recipe.reading import (
    DEMO,
    RICH,
    PicturesWith,
    check_refused,
    check_warned,
    hash_of,
    of_family,
    read_one,
    request_of,
)

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
@pytest.mark.parametrize("field", ["image", "mask", "from"])
def test_paths_that_lead_elsewhere_are_refused(field: str, path: str, message: str) -> None:
    """A recipe may come from anywhere."""
    others = {"mask": "image: a.png\nmask_blur: 3", "image": "denoising_strength: 0.5"}
    check_refused(f"prompt: a\n{others.get(field, '')}\n{field}: {path}", f"{field} {message}")


def test_a_wrong_path_hides_no_other_mistake() -> None:
    """What belongs to the picture, and to the mask, is read all the same."""
    text = "prompt: a\nimage: ../a.png\nmask: b.png\nmask_blur: 99\ndenoising_strength: 2\n"
    blur, strength = "mask_blur must be … from 0 to 64, …", "denoising_strength must be …"
    check_refused(text, f"image {OUT.format('../a.png')}", blur, strength)


@pytest.mark.parametrize("picture", ["image: a.png", "references: [a.png, b.png]"])
def test_only_the_masked_part_is_drawn_in_the_checkpoints_size(picture: str) -> None:
    """The picture keeps its own, whatever that is."""
    key, variant = ("flux2", "klein 4B") if "references" in picture else ("sd1", "")
    it = of_family("it", key, variant, size=512)
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


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((201, 135), (200, 136)), ((65, 70), (64, 72)), ((300, 20), (304, 64)), ((640, 480), None)],
)
def test_a_masked_picture_of_any_size_keeps_it(
    size: tuple[int, int], drawn: tuple[int, int] | None
) -> None:
    """It is drawn in a size that the checkpoint can draw in, without a warning."""
    pictures = PicturesWith(lambda _: {}, size)
    recipe = "prompt: a hat\nimage: a.png\nmask: {}\nsize: picture\n"
    for mask in ("m.png", "{find: sky}"):
        request = request_of(recipe.format(mask), pictures=pictures)
        assert (request.drawn_size, request.given_size) == (drawn or size, drawn and size)
        assert (request.published_size, request.size_warning) == (size, "")
    for mask in ("m.png\nhires: true", "off"):
        request = request_of(recipe.format(mask), pictures=pictures)
        assert request.given_size is None


def test_a_wrong_value_is_told_even_where_nothing_would_use_it() -> None:
    limits = "mask_blur must be a whole number from 0 to 64, not 900."
    check_refused("prompt: a\nmask_blur: 900", "mask_blur has no effect without …", limits)
    check_refused("prompt: a", limits, defaults="mask_blur: 900")


def test_a_wrong_value_is_told_once() -> None:
    """By the second pass that has it; of another program, by the warning that it is ignored."""
    limits = "hires denoising_strength must be a number from 0 to 1, not 3."
    check_refused("prompt: a\nhires: true\ndenoising_strength: 3", limits)
    picture = {"parameters": "a\nSteps: 5, Mask blur: 900, Denoising strength: 3"}
    ignored = ("denoising_strength has no effect …", "mask_blur has no effect …")
    check_warned(read_one("from: a.png", texts=picture), *ignored)
    check_warned(read_one(picture["parameters"], name="a.txt"), *ignored)


def test_a_wrong_value_that_nothing_would_use_hides_no_other_mistake() -> None:
    for unused in ("mask_padding: 999", "keep_exif: x", "extend: x", "mask_invert: maybe"):
        name = unused.partition(":")[0]
        said = (f"{name} has no effect without …", f"{name} …", "no LoRA 'gone' …")
        check_refused(f"{unused}\nprompt: a <lora:gone:1>", *said)


@pytest.mark.parametrize(
    "folder",
    ["mask: m.png\nmask_padding: 9\nmask_blur: 9\nmask_invert: true", "extend: 16:9\nmask_blur: 9",
     "mask: {find: sky}\nextend: 16:9", "denoising_strength: 0.2\ncolour: same\nresize: fit"],
)  # fmt: skip
def test_what_a_folder_says_of_pictures_is_no_part_of_recipes_without(folder: str) -> None:
    """Not even of their identity, their size or their warnings, whatever the checkpoint draws."""
    upscaled = "prompt: a\nupscale: true"
    followed = f"{upscaled}\ncontrol: {{image: pose.png, model: canny, preprocess: canny}}"
    inventory = replace(RICH, checkpoints=(of_family("anima", "anima"), *RICH.checkpoints))
    for text in (upscaled, followed, f"{upscaled}\ncheckpoint: anima"):
        if text == followed and "resize" in folder:  # it is for pictures that are followed, too
            continue
        plain = read_one(text, inventory=inventory, texts={})
        found = read_one(text, inventory=inventory, defaults=folder, texts={})
        assert found.digest(hash_of) == plain.digest(hash_of)
        assert found.published_size == plain.published_size
        assert found.warnings == plain.warnings


def test_a_folders_size_of_the_picture_is_for_its_recipes_with_pictures() -> None:
    """As `format: same`; in the recipe itself it is a mistake."""
    for text in ("prompt: a", "prompt: a\nimage: none", "prompt: a\nwidth: 64"):
        plain, found = read_one(text), read_one(text, defaults="size: picture")
        assert (found.width, found.height) == (plain.width, plain.height)
    drawn = read_one("prompt: a\nimage: a.png", defaults="size: picture", texts={})
    assert (drawn.width, drawn.height) == (640, 480)
    what = "size: picture is the size of the start image. Add image, or a size."
    check_refused("prompt: a\nsize: picture", what, defaults="size: 64x64")


def test_a_problem_of_what_a_recipe_does_not_name_is_at_its_beginning() -> None:
    """Such as a start image that the picture of `from:` names, and that is gone."""
    (problem,) = read_one("prompt: a").problem_at("image", "there is none.").problems
    assert (problem.line, problem.column) == (1, 1)


# -- `extend`: margins and shapes as people write them, and the size of the whole


PHOTO = PicturesWith(lambda _: {}, size=(640, 480))
USUAL = "prompt: a corgi\nimage: a.jpg\n"


@pytest.mark.parametrize(
    ("written", "meant", "size"),
    [
        ("16:9", "16:9", (856, 480)),
        ("9:16", "9:16", (640, 1136)),
        ("{left: 64, right: 0, top: 0, bottom: 25 %}", "left 64, bottom 25 %", (704, 600)),
        ("left 64, bottom 25%", "left 64, bottom 25 %", (704, 600)),
        ("64", "left 64, top 64, right 64, bottom 64", (768, 608)),
        ("{Left: 32px}", "left 32", (672, 480)),
        # Beside a given side the other one is in proportion.
        ("16:9\nwidth: 256", "16:9\nwidth: 256", (256, 144)),
        ("16:9\nheight: 576", "16:9\nheight: 576", (1024, 576)),
    ],
)
def test_what_is_drawn_around_a_picture(written: str, meant: str, size: tuple[int, int]) -> None:
    """Everything begins with noise there, and what `show` prints is read as the same."""
    request = request_of(f"{USUAL}extend: {written}\n", pictures=PHOTO)
    assert (request.extend, (request.width, request.height)) == (meant.partition("\n")[0], size)
    assert request.denoising_strength == 1
    assert request_of(f"{USUAL}extend: {meant}\n", pictures=PHOTO) == request


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("4:3", "…extend: 4:3 adds nothing to 640x480, which has that shape."),
        ("{left: 0}", "extend adds nothing. It takes margins like …"),
        ("900 %", "'a.jpg': … adds more than 4 times the side of 640x480. Crop it, or …"),
        ("0:9", "extend takes margins like …"),
        ("2:1\nmask: m.png", "… Remove one of them."),
    ],
)
def test_a_wrong_extension_says_what_is_possible(written: str, said: str) -> None:
    check_refused(f"{USUAL}extend: {written}\n", said, pictures=PHOTO)


@pytest.mark.parametrize("stored", ["16:0", "0:9", "0.0:0", "margins"])
def test_a_stored_extension_without_a_shape_adds_nothing(stored: str) -> None:
    """Recipes have none, but a damaged text may: it is no error of arithmetic."""
    with pytest.raises(ValueInvalid, match=f"{stored} adds nothing to 640x480"):
        margins_of(stored, (640, 480))


def test_a_folders_margins_and_mask_do_nothing_where_a_checkpoint_draws_none() -> None:
    """Neither the size nor the strength is theirs."""
    inventory = replace(RICH, checkpoints=(of_family("one", "anima"),))
    text = "prompt: a\ncheckpoint: one\nimage: a.png\nsize: picture\n"
    for more in ("extend: left 50 %", "mask: m.png\nmask_padding: 8"):
        field = more.partition(":")[0]
        recipe = read_one(text, inventory=inventory, texts={}, defaults=more)
        assert (recipe.size, recipe.denoising_strength) == ("640x480", 0.75)
        assert recipe.picture_size is None
        check_warned(recipe, f"Anima has no {field}: … It was ignored.")
