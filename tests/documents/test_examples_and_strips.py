"""The strips of docs/images/ are current, small and shown; examples/ can be copied unseen."""

import re
import shutil
from dataclasses import replace

import pytest

from docs.strips import IMAGES, STRIPS, Strip, strips
from docs.tables import pages
from picowatch.inbox.named_pictures import NamedPictures
from picowatch.recipe.reading import read_recipes
from tests.commands.picowatch import picowatch_here
from tests.house import House
from tests.test_docs import INVENTORY, PROJECT

EXAMPLES = PROJECT / "examples"
RECIPES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".txt"))
MOST_BYTES, MOST_BYTES_OF_ALL = 150_000, 2_500_000


@pytest.mark.parametrize("strip", strips(), ids=lambda strip: strip.recipe.stem)
def test_each_strip_is_made_from_its_recipe_as_it_stands(strip: Strip) -> None:
    """`make strips` makes it; its labels are as many as its pictures."""
    assert strip.current, "run `make strips`"
    beside = NamedPictures(STRIPS, IMAGES, 2_000_000, 250_000_000, strip.recipe.name)
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


def test_there_are_thirteen_without_a_mistake(house: House) -> None:
    """Each says in its first line what it shows; with nothing installed all are rendered."""
    assert len(RECIPES) == 13
    for recipe in RECIPES:
        first = recipe.read_text().splitlines()[0]
        assert first.startswith("# ") and first.endswith("."), recipe.name
    shutil.copytree(EXAMPLES, house.inbox, dirs_exist_ok=True)
    recipes = [f"inbox/{recipe.name}" for recipe in RECIPES]
    checked = picowatch_here(house.folder, "check", *recipes)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert [line.split(":")[0] for line in checked.stdout.splitlines() if line[0] != " "] == recipes
    assert house.once()
    assert not [*house.outbox.rglob("*.error.txt"), *house.outbox.rglob("*.warning.txt")]
    for recipe in RECIPES:
        assert house.pictures(recipe.stem), recipe.name
    sheets = [picture.split("/")[0] for picture in house.pictures() if "-sheet" in picture]
    assert [name[:2] for name in sheets] == ["02", "03", "04", "05", "08", "13"]
