"""Reference pictures, in a recipe and in a folder of pictures."""

from dataclasses import replace

import pytest

from picowatch.families import FAMILIES
from picowatch.recipe.inventory import Inventory, rules_of
from picowatch.recipe.recipe import Recipe
from tests.recipe import reading
from tests.recipe.reading import (
    DEMO,
    RICH,
    PicturesWith,
    check_refused,
    check_warned,
    hash_of,
    messages,
    of_family,
    read_one,
    request_of,
)

SIZE = (1003, 677)
PHOTOS = PicturesWith(lambda _: {}, SIZE)
STRIPS = PicturesWith(lambda _: {}, (1003, 125))
KLEIN = of_family("klein", "flux2", "klein 4B")
KONTEXT = of_family("kontext", "flux", "Kontext")
MERGE = of_family("my-merge", "flux", "dev")
DEV = of_family("dev", "flux2_dev")
AS_KONTEXT = replace(KONTEXT, name="my-merge as Kontext")
INSTALLED = Inventory(
    demo=DEMO,
    checkpoints=(KLEIN, KONTEXT, MERGE, DEV),
    variants={"my-merge": {"FLUX.1 dev": MERGE, "FLUX.1 Kontext": AS_KONTEXT}},
)


def test_one_path_a_list_or_none() -> None:
    for written, paths in (("a.jpg", ["a.jpg"]), ("[a.png, b]", ["a.png", "b"]), ("none", [])):
        text = f"prompt: red\ncheckpoint: klein\nreferences: {written}"
        request = request_of(text, inventory=INSTALLED, pictures=PHOTOS)
        assert [use.image for use in request.references] == paths
        assert request.pictures == dict.fromkeys(paths, "1" * 64)


def test_a_size_may_be_no_multiple_of_anything() -> None:
    text = "prompt: red\ncheckpoint: klein\nreferences: photo.jpg\n"
    sizes = {"size: picture": "1003x677", "size: 801x333": "801x333", "width: 501": "501x338"}
    for size, meant in sizes.items():
        assert read_one(text + size, inventory=INSTALLED, pictures=PHOTOS).size == meant


@pytest.mark.parametrize("more", ["", "size: picture\n", "format: same\n", "mask: alpha\n"])
def test_a_folders_references_that_are_ignored_do_nothing(more: str) -> None:
    """Neither the size nor the format of a picture that nobody sees is taken."""
    references, warning = "references: photo.jpg\n", "…takes no references. It was ignored."
    for checkpoint, size in (("demo", "128x128"), ("my-merge", "1024x1024")):
        text = f"prompt: red\ncheckpoint: {checkpoint}\n"
        plain = read_one(text, inventory=INSTALLED)
        found = read_one(text, inventory=INSTALLED, pictures=PHOTOS, defaults=references + more)
        assert (found.references, found.picture_size, found.size) == ((), None, size)
        assert found.digest(hash_of) == plain.digest(hash_of)
        check_warned(found, warning)


def test_the_format_of_a_control_image_that_is_ignored_is_not_taken() -> None:
    text = "prompt: red\ncheckpoint: my-merge\n"
    options = {"inventory": replace(RICH, checkpoints=INSTALLED.checkpoints), "pictures": PHOTOS}
    control = "control: {image: a.png, model: canny}\n"
    found = read_one(text, **options, defaults=control + "format: same\n")
    assert (found.control, found.format) == ((), "")
    check_warned(found, "FLUX.1 has no control: … It was ignored.")
    same = "format: same is the format of the start image. Add image or references, or …"
    check_refused(text + "format: same\n", same, **options, defaults=control)


def test_references_for_no_checkpoint_that_takes_any_are_the_only_mistake() -> None:
    text = "prompt: red\ncheckpoint: demo\nsize: picture\nreferences: photo.jpg\n"
    only = "this checkpoint takes no references. Write image for …"
    check_refused(text, only, inventory=INSTALLED, pictures=PHOTOS)


EDITING = [
    (name, variant)
    for name, family in FAMILIES.items()
    for variant in ("", *family.variants)
    if rules_of(name, variant).references
]
# A photo's size, and what its result has if that is not the same.
SIZES: dict[tuple[int, int], tuple[int, int] | None] = {
    (60, 60): (64, 64), (61, 77): (64, 77), (64, 512): None, (512, 64): None, (333, 187): None,
    (1003, 677): None, (1600, 1200): None, (1999, 1000): None, (250, 2000): None,
    (1201, 1999): (1096, 1825), (6000, 4000): (1732, 1155), (4032, 3024): (1633, 1225),
    (8000, 8000): (1414, 1414), (8000, 1000): (2048, 256), (301, 2401): (257, 2048),
}  # fmt: skip


@pytest.mark.parametrize(("name", "variant"), EDITING)
def test_every_editing_family_keeps_a_photos_size_or_says_why_not(name: str, variant: str) -> None:
    """Up to the setting max_picture_megapixels, and 2048 pixels a side."""
    model = of_family("it", name, variant)
    for size, becomes in SIZES.items():
        text = "prompt: red\ncheckpoint: it\nreferences: a.jpg"
        photo = PicturesWith(lambda _: {}, size)
        inventory = Inventory(DEMO, checkpoints=(model,))
        recipe = read_one(text, inventory=inventory, pictures=photo)
        assert (recipe.width, recipe.height) == (becomes or size)
        said = [warning for warning in recipe.warnings if "max_picture_megapixels" in warning]
        assert bool(said) == ((recipe.width or 0) < size[0])
        if said:
            assert f"{size[0]}x{size[1]}" in said[0] and f"{recipe.size}" in said[0]
        masked = read_one(f"{text}\nmask: a.mask.png", inventory=inventory, pictures=photo)
        assert (masked.size, masked.published_size) == (recipe.size, size)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("checkpoint: demo\nreferences: a.png", "takes no references. Write image for"),
        ("checkpoint: my-merge\nreferences: a.png", "write 'checkpoint: my-merge as Kontext'."),
        ("checkpoint: {name: my-merge, family: kontext}", "my-merge as Kontext"),
        ("checkpoint: kontext\nreferences: [a.png, b.png]", "takes at most one reference, not 2."),
        ("checkpoint: dev\nnegative_prompt: dim", "FLUX.2 dev has no negative_prompt: its"),
        ("checkpoint: kontext", "the checkpoint 'kontext' edits pictures. Add references"),
        ("checkpoint: kontext\nimage: a.png\nreferences: b.png", "FLUX.1 has no image"),
        ("checkpoint: klein\nimage: a.png\nreferences: b.png", "image and references together"),
        ("checkpoint: klein\nreferences: {a: b}", "references must be a path, or a list"),
        ("checkpoint: klein\nreferences: " + str(["a.png"] * 11), "references must be"),
        ("checkpoint: klein\nreferences: ../a.png", "must stay within inbox/"),
        ("checkpoint: klein\nreferences: a.png\nhires: true", "FLUX.2 has no hires"),
    ],
)
def test_what_a_family_cannot_do_is_refused(text: str, says: str) -> None:
    found = messages(f"prompt: red\n{text}", inventory=INSTALLED, pictures=PHOTOS)
    assert any(says in message for message in found), found


def test_a_very_narrow_reference_is_refused() -> None:
    """Beside a checkpoint that is not there, nothing is said of it."""
    text = "prompt: red\nreferences: a.png\ncheckpoint: "
    narrow = "…is too narrow, 1003x125 pixels. One side …"
    check_refused(f"{text}klein", narrow, inventory=INSTALLED, pictures=STRIPS)
    check_refused(f"{text}gone", "no checkpoint 'gone'…", inventory=INSTALLED, pictures=PHOTOS)


def dropped(template: str, **more: str) -> Recipe:
    (recipe,) = reading.dropped(template, INSTALLED, size=SIZE, **more)
    return recipe


@pytest.mark.parametrize(
    ("template", "image", "references"),
    [
        ("checkpoint: demo", "web/a.jpg", ()),
        ("checkpoint: klein", "", ("web/a.jpg",)),
        ("checkpoint: my-merge", "web/a.jpg", ()),
        ("checkpoint: my-merge as kontext", "", ("web/a.jpg",)),
        ("checkpoint: klein\nimage: picture", "web/a.jpg", ()),
        ("checkpoint: klein\nreferences: [picture, a.png]", "", ("web/a.jpg", "a.png")),
    ],
)
def test_an_editing_checkpoint_edits_what_is_dropped(
    template: str, image: str, references: tuple[str, ...]
) -> None:
    """Other checkpoints start from it; the template may override both."""
    recipe = dropped(f"prompt: red\nsize: 512x512\n{template}")
    assert (recipe.image, recipe.references) == (image, references)


@pytest.mark.parametrize(
    ("checkpoint", "others", "masked"),
    [("klein", "references: [a.png, b.png]", "a.png"), ("demo", "image: b.png", "b.png")],
)
def test_a_picture_may_be_its_own_mask(checkpoint: str, others: str, masked: str) -> None:
    """What is transparent in it is redrawn; a dropped picture's, too."""
    text = f"prompt: red\ncheckpoint: {checkpoint}\nmask: Alpha\n"
    found = request_of(f"{text}{others}\nsize: 512x512", inventory=INSTALLED, pictures=PHOTOS)
    assert (found.mask, found.masked[0], found.mask_is_alpha) == (masked, masked, True)
    recipe = dropped(f"{text}size: 512x512")
    assert (recipe.mask, recipe.mask_is_alpha) == ("web/a.jpg", True)
    without = dropped(text.replace("Alpha", "none") + "size: 512x512")
    assert recipe.digest(hash_of) != without.digest(hash_of)


def test_a_mask_beside_a_dropped_picture_is_the_references() -> None:
    recipe = dropped("prompt: red\ncheckpoint: klein", mask="web/a.mask.png")
    assert (recipe.mask, recipe.references) == ("web/a.mask.png", ("web/a.jpg",))
    assert recipe.size == "1003x677"
    # Its name is no identity: a photo that is renamed is not edited again.
    one, two = (
        dropped("prompt: red\ncheckpoint: klein\nseed: 1", name=name)
        for name in ("web/one.jpg", "web/two.jpg")
    )
    assert one.digest(hash_of) == two.digest(hash_of)
