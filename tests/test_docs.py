"""What the docs show is what the code does."""

import re
import subprocess
from pathlib import Path

import pytest

from docs.tables import pages, written
from picowatch.recipe import Known, KnownCheckpoint, RecipeInvalid, error_text, read_recipes

PROJECT = Path(__file__).parents[1]
KNOWN = Known(demo=KnownCheckpoint("demo", 128))
README = (PROJECT / "README.md").read_text()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language ("" for none)."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for found, text in fenced if found == language]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_tables_are_those_of_the_code(page: Path) -> None:
    """`make docs` writes them."""
    assert written(page.read_text()) == page.read_text()


@pytest.mark.parametrize("page", [PROJECT / "README.md", *pages()], ids=lambda page: page.name)
def test_every_shown_recipe_is_valid(page: Path) -> None:
    """As somebody who copies it expects."""
    for text in blocks(page, "yaml"):
        assert read_recipes("a.yaml", text.encode(), KNOWN)


def test_the_shown_prompt_lines_are_valid() -> None:
    """The TXT example of docs/recipes.md."""
    (text,) = (text for text in blocks(PROJECT / "docs/recipes.md", "") if "# overnight" in text)
    recipes = read_recipes("a.txt", text.encode(), KNOWN)
    assert [recipe.prompt for recipe in recipes] == [
        "a corgi at the beach",
        "a star on a white background",
    ]
    assert recipes[0].negative_prompt == "blurry, dim"
    assert recipes[1].steps == 30


def test_the_shown_error_is_what_a_user_gets() -> None:
    """The README's example, to the letter."""
    (shown,) = (text for text in blocks(PROJECT / "README.md", "") if "stesp" in text)
    recipe = b"prompt: a corgi\nseed: 1\nstesp: 300\n"
    with pytest.raises(RecipeInvalid) as refused:
        read_recipes("corgi.yaml", recipe, KNOWN)
    assert error_text(refused.value).strip() == shown.strip()


def test_links_and_pictures_of_the_readme_exist() -> None:
    """Relative ones."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (PROJECT / target).exists(), target


def test_make_alone_lists_the_targets() -> None:
    """With one line each."""
    listed = subprocess.run(
        ["make", "-s"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    for target in ("demo", "run", "test", "lint", "format", "types", "docs", "train", "clean"):
        assert re.search(rf"^  make {target} +\w", listed, re.MULTILINE), target
