"""`resize_to`: what people write, the sizes that it gives, and what it says of mistakes."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picowatch.metadata.recipe_yaml import recipe_yaml
from picowatch.recipe.a1111.writer import parameters_text
from picowatch.recipe.parts import ResizeTo
from picowatch.recipe.passes import passes_of
from picowatch.recipe.resolve.layers import only_writes
from tests.recipe.reading import PicturesWith, check_refused, request_of
from tests.recipe.resolve.test_enlarging import INSTALLED

PHOTO = PicturesWith(lambda _: {}, (6000, 4000))
SIDES = st.integers(1, 20_000)
ASKED = st.integers(8, 30_000)


def photo(written: str, **more: Any) -> Any:
    return request_of(f"image: a.jpg\n{written}", inventory=INSTALLED, pictures=PHOTO, **more)


@pytest.mark.parametrize(
    ("written", "meant", "size"),
    [
        ("1600", ResizeTo(longest_side=1600), (1600, 1067)),
        ("{longest_side: 9000}", ResizeTo(longest_side=9000), (6000, 4000)),
        ("{longest_side: 9000, enlarge: true}", ResizeTo(longest_side=9000, enlarge=True),
         (9000, 6000)),
        ("{Shortest Side: 1000}", ResizeTo(shortest_side=1000), (1500, 1000)),
        ("800x600", ResizeTo(width=800, height=600), (800, 533)),
        ("{size: 800 x 600}", ResizeTo(width=800, height=600), (800, 533)),
        ("{width: 800}", ResizeTo(width=800), (800, 533)),
        ("{size: 800x600, fit: cover}", ResizeTo(width=800, height=600, fit="cover"), (800, 600)),
        ("{width: 9000, height: 3000, fit: Cover}", ResizeTo(width=9000, height=3000, fit="cover"),
         (6000, 2000)),
        ("{megapixels: 2}", ResizeTo(megapixels=2), (1732, 1154)),
        ("{mp: 2, longest_side: 1500}", ResizeTo(megapixels=2, longest_side=1500), (1500, 1000)),
        ("{width: 9, height: 9, fit: pad, background: White}",
         ResizeTo(width=9, height=9, fit="pad", background="#ffffff"), (9, 9)),
        ("{width: 900, background: transparent}",
         ResizeTo(width=900, background="transparent"), (900, 600)),
    ],
)  # fmt: skip
def test_a_size_is_a_number_two_sides_or_a_mapping(
    written: str, meant: ResizeTo, size: tuple[int, int]
) -> None:
    """It is all that is done to a photo of 6000x4000 pixels, and comes back from its metadata."""
    found = photo(f"resize_to: {written}")
    assert (found.resize_to, found.published_size, found.is_copy) == (meant, size, True)
    assert [part.kind for part in passes_of(found)] == ["resize", "write"]
    assert type(found).from_dict(found.as_dict()) == found
    assert parameters_text(found, "1") == "", "A1111 has nothing like it"
    again = request_of(recipe_yaml(found), inventory=INSTALLED, pictures=PHOTO)
    assert again.digest == found.digest


@pytest.mark.parametrize("off", ["false", "none", "0"])
def test_what_is_off_changes_no_digest(off: str) -> None:
    """Nor does a folder's format, which asks for no copy."""
    assert request_of(f"prompt: a\nresize_to: {off}").digest == request_of("prompt: a").digest
    folder = request_of("prompt: a\nresize_to: off", defaults="resize_to: 100\nformat: jpeg")
    assert folder.resize_to is None


@pytest.mark.parametrize("written", ["format: webp", "quality: 70", "format: jpg\nquality: 85"])
def test_a_format_alone_is_a_request(written: str) -> None:
    """No model is named, and nothing about drawing is said."""
    found = photo(written)
    assert (found.is_copy, found.published_size) == (True, (6000, 4000))
    assert [part.kind for part in passes_of(found)] == ["write"]
    missing = "a prompt is missing. Write 'prompt: …'.…"
    for drawing in ("steps: 30", "checkpoint: demo", "size: 512x512"):
        check_refused(f"image: a.jpg\n{written}\n{drawing}", missing, pictures=PHOTO)
        check_refused(f"image: a.jpg\n{written}", missing, pictures=PHOTO, defaults=drawing)
    check_refused("image: a.jpg", missing, pictures=PHOTO, defaults=written)
    assert not only_writes({})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("true", "resize_to longest_side must be a … from 8 to 30000, not 'true'."),
        ("{width: 5 %}", "… For photos of many sizes, write longest_side or megapixels."),
        ("16:9", "… For a shape, write {width: 1600, height: 900, fit: cover}."),
        ("{enlarge: true}", "resize_to says no size. Write longest_side, … or megapixels there."),
        ("{fit: crop, width: 100}", "resize_to fit must be inside, cover or pad, not 'crop'."),
        ("{fit: cover, width: 100}", "resize_to with fit: cover needs width and height. Add both…"),
        ("{fit: pad, size: 9x9, mp: 2}", "resize_to megapixels is for fit: inside; pad has … fit."),
        ("{size: 30000x30000, fit: pad}", "resize_to makes 30000x30000; the limit is 250 million…"),
        ("{longest: 100}", "resize_to has no 'longest'. Did you mean 'longest_side'? …"),
        ("{background: blue, width: 100}", "resize_to background must be …, not 'blue'."),
    ],
)
def test_mistakes_say_what_to_write(written: str, said: str) -> None:
    check_refused(f"image: a.jpg\nresize_to: {written}", said, pictures=PHOTO)


LIMITS = st.sampled_from(["longest_side", "shortest_side", "width", "height"])


@given(SIDES, SIDES, st.dictionaries(LIMITS, ASKED, min_size=1), st.booleans())
def test_inside_keeps_every_limit_and_the_shape(
    width: int, height: int, limits: dict[str, int], enlarge: bool
) -> None:
    """The nearest size within all limits: one of them is reached, unless the picture is smaller."""
    wanted = replace(ResizeTo(enlarge=enlarge), **limits)  # type: ignore[arg-type]
    size = wanted.size_of(width, height)
    sides = {"longest_side": max, "shortest_side": min}
    of = {name: sides[name](size) if name in sides else size[name == "height"] for name in limits}
    assert all(of[name] <= limits[name] for name in limits)
    assert any(of[name] == limits[name] for name in limits) or size == (width, height)
    assert enlarge or (size[0] <= width and size[1] <= height)
    box, inner, _ = wanted.placed(width, height)
    assert (box, inner) == ((0, 0, width, height), size)
    scale = max(size) / max(width, height)
    other = min(size) - max(1, min(width, height) * scale)
    assert abs(other) <= 1, "its own shape, to a pixel"


@given(SIDES, SIDES, ASKED, ASKED, st.booleans())
def test_cover_and_pad_have_the_wanted_shape(
    width: int, height: int, wide: int, high: int, enlarge: bool
) -> None:
    """Cover shows a part that is not stretched; pad shows everything, in the middle."""
    cover = ResizeTo(width=wide, height=high, fit="cover", enlarge=enlarge)
    (left, top, right, bottom), inner, size = cover.placed(width, height)
    assert inner == size
    assert 0 <= left < right <= width + 1e-6
    assert 0 <= top < bottom <= height + 1e-6
    scale = max(wide / width, high / height)
    assert size == ((wide, high) if enlarge or scale <= 1 else size)
    assert enlarge or (size[0] <= max(1, width) and size[1] <= max(1, height))
    box, inner, size = ResizeTo(width=wide, height=high, fit="pad", enlarge=enlarge).placed(
        width, height
    )
    assert (box, size) == ((0, 0, width, height), (wide, high))
    assert inner[0] <= wide
    assert inner[1] <= high
    assert enlarge or (inner[0] <= width and inner[1] <= height)


@given(SIDES, SIDES, st.floats(0.01, 100))
def test_megapixels_are_never_exceeded(width: int, height: int, megapixels: float) -> None:
    """But for the one pixel that each side has at least."""
    size = ResizeTo(megapixels=megapixels).size_of(width, height)
    assert size[0] * size[1] <= max(round(megapixels * 1_000_000), *size)
