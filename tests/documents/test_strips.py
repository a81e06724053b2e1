"""The strips of docs/images/ are there, current, small and shown."""

import re
from dataclasses import replace

import pytest

from docs.strips import IMAGES, STRIPS, Strip, strips
from docs.tables import pages
from picowatch.outbox.start_images import NamedPictures
from picowatch.recipe import read_recipes
from tests.test_docs import INVENTORY, PROJECT

MOST_BYTES, MOST_BYTES_OF_ALL = 150_000, 2_500_000


@pytest.mark.parametrize("strip", strips(), ids=lambda strip: strip.recipe.stem)
def test_each_strip_is_made_from_its_recipe_as_it_stands(strip: Strip) -> None:
    """`make strips` makes it; its labels are as many as its pictures."""
    assert strip.current, "run `make strips`"
    beside = NamedPictures(STRIPS, IMAGES, strip.recipe.name, most_pixels=2_000_000)
    content = strip.recipe.read_bytes()
    installed = replace(INVENTORY, embeddings=("mascot",))
    recipes = read_recipes(strip.recipe.name, content, installed, pictures=beside)
    images = sum(len(recipe.image_requests(lambda kind, name: "0" * 64, 0)) for recipe in recipes)
    assert strip.is_sheet or not strip.labels or len(strip.labels) == images


def test_pictures_of_the_docs_are_small_and_shown() -> None:
    """A page of them opens at once, a clone stays a clone, and each is on some page."""
    sizes = {path.name: path.stat().st_size for path in IMAGES.iterdir()}
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES} == {}
    assert sum(sizes.values()) < MOST_BYTES_OF_ALL
    text = "".join(page.read_text() for page in [PROJECT / "README.md", *pages()])
    assert sizes.keys() - set(re.findall(r"images/([\w.-]+)\)", text)) == set()
