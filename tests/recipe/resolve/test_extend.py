"""`extend`: margins and shapes as people write them, and the size of the whole."""

import pytest

from picowatch.recipe import DefaultsFile
from picowatch.recipe.reading import check_template
from tests.recipe.reading import INVENTORY, PicturesWith, check_refused, read_one, request_of

PHOTO = PicturesWith(lambda _: {}, size=(640, 480))
USUAL = "prompt: a corgi\nimage: a.jpg\n"


@pytest.mark.parametrize(
    ("written", "meant", "size"),
    [
        ("16:9", "16:9", (856, 480)),
        ("1:1", "1:1", (640, 640)),
        ("9:16", "9:16", (640, 1136)),
        ("{left: 64, right: 0, top: 0, bottom: 25 %}", "left 64, bottom 25 %", (704, 600)),
        ("left 64, bottom 25%", "left 64, bottom 25 %", (704, 600)),
        ("64", "left 64, top 64, right 64, bottom 64", (768, 608)),
        ("10 %", "left 10 %, top 10 %, right 10 %, bottom 10 %", (768, 576)),
        ("{Left: 32px}", "left 32", (672, 480)),
    ],
)
def test_what_is_drawn_around_a_picture(written: str, meant: str, size: tuple[int, int]) -> None:
    """Everything begins with noise there, and what `show` prints is read as the same."""
    request = request_of(f"{USUAL}extend: {written}\n", pictures=PHOTO)
    assert (request.extend, (request.width, request.height)) == (meant, size)
    assert request.denoising_strength == 1
    assert request_of(f"{USUAL}extend: {meant}\n", pictures=PHOTO) == request


def test_a_side_may_be_given_and_a_mask_may_not() -> None:
    """The other side is in proportion."""
    request = request_of(f"{USUAL}extend: 2:1\nwidth: 256\n", pictures=PHOTO)
    assert (request.width, request.height) == (256, 128)
    check_refused(f"{USUAL}extend: 2:1\nmask: m.png\n", "… Remove one of them.", pictures=PHOTO)
    assert not read_one(f"{USUAL}extend: off\n", pictures=PHOTO).extend
    check_refused("prompt: a\nextend: 2:1\n", "extend has no effect without image. …")


@pytest.mark.parametrize("shape", ["1:1", "4:3", "3:2", "16:9", "2:1"])
def test_a_template_may_ask_for_any_shape(shape: str) -> None:
    """It is checked before there is a photo."""
    template = DefaultsFile("wide/_pictures.yaml", f"prompt: a hat\nextend: {shape}\n".encode())
    check_template(template, INVENTORY, [], 1000)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("4:3", "extend: 4:3 adds nothing to 640x480, which has that shape."),
        ("4:3\nwidth: 256", "extend: 4:3 adds nothing to 640x480, which has that shape."),
        ("4:3\nsize: 256x128", "extend: 4:3 adds nothing to 640x480, which has that shape."),
        ("{left: 0}", "extend adds nothing. It takes margins like …"),
        ("wide", "extend takes margins like …"),
        ("{lefft: 20}", "extend takes margins like …"),
        ("900 %", "… adds more than 4 times the side of 640x480."),
        ("0:9", "extend takes margins like …"),
    ],
)
def test_a_wrong_extension_says_what_is_possible(written: str, said: str) -> None:
    check_refused(f"{USUAL}extend: {written}\n", said, pictures=PHOTO)
