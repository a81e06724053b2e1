"""One warning names the words that the demo model was never taught, and no others."""

from dataclasses import replace

import pytest

from picowatch.catalog import Catalog
from picowatch.recipe.inventory import Checkpoint, Inventory
from tests.recipe.reading import check_said, read


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    return replace(
        Catalog(tmp_path_factory.mktemp("models")).inventory(),
        checkpoints=(Checkpoint("dream", 512),),
        embeddings=("mascot",),
        loras=("pixel-art",),
        wildcards={"no_file": ("red",)},
        default_checkpoint="demo",
    )


def warnings(text: str, inventory: Inventory, name: str = "a.txt") -> list[str]:
    recipes = read(text, name=name, inventory=inventory)
    return [warning for recipe in recipes for warning in recipe.warnings]


def test_all_of_a_files_unknown_words_are_in_one_warning(installed: Inventory) -> None:
    """This holds for any characters around them; a long list is cut."""
    check_said(
        warnings("a fox, 4k\na corgi's hat\n(Garden:1.2) BREAK a fox\n", installed),
        "the demo model does not know 'fox' and 'garden'; it knows corgi, cat, … black and white.",
    )
    (many,) = warnings("ab ac ad ae af ag ah", installed)
    assert "'ab', 'ac', 'ad', 'ae', 'af' and 2 more;" in many


@pytest.mark.parametrize(
    "text",
    [
        "A CORGI wearing a red hat and sunglasses, on a blue background, with a kitten beside it",
        "a mascot on a pink background",
        "embedding:mascot.safetensors on a pink background",
        "a [red:blue:0.5] circle, {small|large} __no_file__",
        "a castle --checkpoint dream",
        "a castle <lora:pixel-art:0.8>",
        "a corgi --negative castles",
        "",
    ],
)
def test_nothing_is_said_of_other_words_and_models(text: str, installed: Inventory) -> None:
    """Words without a picture, embeddings, other checkpoints; LoRAs teach words of their own."""
    assert warnings(text, installed) == []


def test_each_word_of_a_sweep_counts(installed: Inventory) -> None:
    """One warning covers all its images."""
    text = "prompt: a red circle\ndetail: {find: face, prompt: an azure star}\n"
    text += 'sweep: {"prompt: red": [teal, blue], steps: [1, 2]}\n'
    (warning,) = warnings(text, installed, "a.yaml")
    assert warning.startswith("the demo model does not know 'teal' and 'azure'; it knows")
