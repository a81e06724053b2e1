"""The field `cutout`: removing the background after drawing, or of a given picture."""

from typing import Any

import pytest

from picowatch.metadata import parameters_text, recipe_yaml
from picowatch.metadata.a1111 import without_postprocessing
from picowatch.recipe import Inventory
from picowatch.recipe.parts import Upscale
from picowatch.recipe.request import ImageRequest
from tests.recipe.reading import DEMO, messages, read_one
from tests.recipe.resolve.test_enlarging import Sized, hash_of

ONE = Inventory(demo=DEMO, cutouts=("isnet-general-use",))
TWO = Inventory(demo=DEMO, cutouts=("isnet-general-use", "people/u2netp"))


def only_request(text: str, inventory: Inventory = TWO, **more: Any) -> ImageRequest:
    recipe = read_one(text, inventory=inventory, pictures=Sized(3001, 1000), **more)
    (found,) = recipe.image_requests(hash_of, 5)
    return found


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("cutout: isnet", "isnet-general-use"),
        ("rembg: U2NETP.pth", "people/u2netp"),
        ("remove_background: demo-cutout", "demo-cutout"),
        ("cutout: false", ""),
        ("cutout: none", ""),
        ("cutout: off", ""),
    ],
)
def test_a_model_is_named_as_others_are(written: str, meant: str) -> None:
    """The request has the hash of the file; what is off is no part of a digest."""
    found = only_request(f"prompt: a\nseed: 1\n{written}")
    assert (found.cutout, found.cutout_hash) == (meant, f"cutout/{meant}" if meant else "")
    assert (found.digest == only_request("prompt: a\nseed: 1").digest) == (not meant)


def test_true_is_the_only_one_installed() -> None:
    """With none installed the embedded one."""
    text = "prompt: a\ncutout: true"
    assert only_request(text, ONE).cutout == "isnet-general-use"
    assert only_request(text, Inventory(demo=DEMO)).cutout == "demo-cutout"
    assert only_request("a corgi --cutout --seed 1", ONE, name="a.txt").cutout == ONE.cutouts[0]


@pytest.mark.parametrize("written", ["[a]", "{model: isnet}"])
def test_it_is_no_mapping_and_no_list(written: str) -> None:
    """Unlike `upscale`."""
    (said,) = messages(f"prompt: a\ncutout: {written}", inventory=TWO)
    assert said.startswith("cutout must be true, false, or a model's name")


def test_a_picture_alone_is_cut_out() -> None:
    """With an upscaler or without; nothing of a folder's defaults is drawn."""
    defaults = {"_defaults.yaml": "prompt: a corgi\nsteps: 9\ncutout: true"}
    found = only_request("image: a.png\ncutout: isnet", defaults=defaults)
    assert (found.draws, found.cutout) == (False, TWO.cutouts[0])
    assert found.published_size == (3001, 1000)
    both = only_request("image: a.png\ncutout: isnet\nupscale: demo-compact")
    assert (both.upscale, both.cutout) == (Upscale("demo-compact", 4), TWO.cutouts[0])
    assert both.published_size == (12004, 4000)
    text = "image: a.png\ncutout: isnet\nsteps: 9"
    assert messages(text, inventory=TWO, pictures=Sized(9, 9)) == [
        "steps has no effect without prompt. Add it, or remove steps."
    ]
    assert messages("image: a.png\ncutout: false", pictures=Sized(9, 9)) == [
        "a prompt is missing. Write 'prompt: …'."
    ]


def test_it_survives_the_ledger_and_its_metadata() -> None:
    """The same digest; A1111's key is that of its extension, and there once."""
    for text in ("image: a.png\ncutout: isnet", "prompt: a\nseed: 3\ncutout: isnet"):
        found = only_request(text)
        again = ImageRequest.from_dict(found.as_dict())
        assert again == found and again.digest == found.digest
        assert only_request(recipe_yaml(found)).digest == found.digest
        parameters = parameters_text(found, "1")
        assert parameters.count("Rembg: isnet-general-use") == 1
        assert "Rembg" not in without_postprocessing(parameters)
    lines = "a\nSteps: 20, Sampler: Euler a, Size: 512x512, Rembg: u2netp"
    assert only_request(lines, name="a.txt").cutout == "people/u2netp"


def test_the_embedded_model_is_for_the_demo_models_drawings() -> None:
    """For a photo, a warning names the remedy."""
    none = Inventory(demo=DEMO)
    for text, warns in (("prompt: a corgi", False), ("image: a.png", True)):
        recipe = read_one(f"{text}\ncutout: true", inventory=none, pictures=Sized(9, 9))
        said = " ".join(recipe.warnings)
        assert ("Put a model into models/cutout/" in said) == warns
