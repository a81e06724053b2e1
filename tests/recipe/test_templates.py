"""What a template says for a dropped picture, with the files beside it."""

from dataclasses import replace

import pytest

from picowatch.recipe.files import Pictures
from picowatch.recipe.messages.problems import RecipeInvalid
from picowatch.recipe.reading import DefaultsFile, check_template
from tests.recipe.reading import RICH, check_warned, dropped


def test_all_mistakes_of_a_template_and_of_what_lies_beside_a_picture_come_at_once() -> None:
    """Unknown fields do not hide wrong values."""
    with pytest.raises(RecipeInvalid) as invalid:
        dropped("stesp: 3\nseed: -4\nprompt: x\n", beside="stesp: 3\ncfg_scale: 99\n")
    places = [(problem.file[4:], problem.line) for problem in invalid.value.problems]
    assert places == [("_pictures.yaml", 1), ("_pictures.yaml", 2), ("a.yaml", 1), ("a.yaml", 2)]
    with pytest.raises(RecipeInvalid):
        dropped("stesp: 3\n")


@pytest.mark.parametrize(
    ("sweep", "count", "draws"),
    [
        ("{prompt: [cat, corgi]}", 2, True),
        ("{Resize to: [32, 48]}", 2, False),
        ("{resize_to: [32, 48], steps: [3, 4]}\nprompt: a", 4, True),
    ],
)
def test_what_a_template_sweeps_says_what_to_do(sweep: str, count: int, draws: bool) -> None:
    """As a field of its own does: a folder's prompt is for what draws."""
    for defaults in ("", "prompt: a corgi\n"):
        (recipe,) = dropped(f"sweep: {sweep}\n", defaults=defaults)
        assert (recipe.image_count, recipe.draws) == (count, draws)
    (recipe,) = dropped("sweep: {quality: 80..82, format: [webp, jpeg]}\n")
    assert (recipe.image_count, recipe.draws) == (6, False)


# Several checkpoints, of which each recipe has to name one.
UNDECIDED = replace(RICH, default_checkpoint=None, upscalers=(), cutouts=("demo-cutout",))


@pytest.mark.parametrize("finish", ["resize_to: 32", "upscale: {scale: 2}", "cutout: true"])
def test_what_finishes_pictures_in_another_format_needs_no_checkpoint(finish: str) -> None:
    """Nor does it draw a folder's prompt, as without the format."""
    template = f"{finish}\nformat: webp\nquality: 80\n"
    check_template(DefaultsFile("web/_pictures.yaml", template.encode()), UNDECIDED, [], 100)
    (recipe,) = dropped(template, UNDECIDED, defaults="prompt: a corgi")
    assert not recipe.draws


@pytest.mark.parametrize(
    "template",
    ["format: webp", "quality: 70", "sweep: {quality: 80..82}", "- upscale: on\n- format: webp"],
)
def test_what_only_writes_pictures_again_needs_no_checkpoint(template: str) -> None:
    """Unless its folder says what to draw."""
    file = DefaultsFile("web/_pictures.yaml", template.encode())
    check_template(file, UNDECIDED, [], 100)
    for folder in (b"prompt: a corgi", b"steps: 9"):
        with pytest.raises(RecipeInvalid, match="no checkpoint is named"):
            check_template(file, UNDECIDED, [DefaultsFile("_defaults.yaml", folder)], 100)


@pytest.mark.parametrize(
    "template",
    [
        "resize_to: 32",
        "detail: hat",
        "prompt: a\nmask_padding: 8\ncontrol: {image: picture, model: canny}",
    ],
)
def test_a_mask_that_changes_nothing_is_a_warning(template: str) -> None:
    """Its file may be meant for another template."""
    (recipe,) = dropped(f"{template}\ncheckpoint: dream\n", mask="web/a.mask.png")
    check_warned(recipe, *["…"] * (template[0] == "r"), "mask has no effect without … ignored.…")


@pytest.mark.parametrize(
    ("template", "is_wrong"),
    [
        ("resize_to: {longest_side: 7000, enlarge: true}", False),
        ("upscale: {model: 4x-Own, scale: 8}", False),
        ("prompt: a hat\nsize: picture\nextend: {left: 5000}", False),
        ("prompt: a hat\nsize: picture\nextend: 10:1", False),
        ("resize_to: {width: 20000, enlarge: true}\nqualty: 80", True),
        ("resize_to: {shortest_side: 7000, enlarge: true}", True),
        ("resize_to: {width: 30000, height: 30000, fit: pad}", True),
    ],
)
def test_a_template_is_wrong_only_if_it_is_so_for_pictures_of_every_shape(
    template: str, is_wrong: bool
) -> None:
    """What makes others too large may be right for a small picture or a panorama."""
    pictures, problems = Pictures(), list[str]()
    pictures.most_photo_pixels = 40_000_000
    file = DefaultsFile("web/_pictures.yaml", template.encode())
    try:
        check_template(file, RICH, [], 100, pictures)
    except RecipeInvalid as invalid:
        problems += [problem.message for problem in invalid.problems]
    assert len(problems) == is_wrong, problems
