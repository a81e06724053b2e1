"""A resolved recipe: its identity, its images and their seeds, and the defaults it starts from."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from picowatch.recipe.inventory import DEMO_FIND
from picowatch.recipe.parts import Find, Hires
from picowatch.recipe.reading import DefaultsFile, priority_of
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.request import ImageRequest
from tests.recipe.reading import RICH, check_refused, hash_of, read_one

# Requests in ledgers and pictures of earlier versions, which later ones must recognise.
STORED = json.loads(Path(__file__).with_name("stored_requests.json").read_text())
# Recipes, the digests that 0.3 gave them, and the sha256 of the digests and keys of their images.
DIGESTS = json.loads(Path(__file__).with_name("stored_digests.json").read_text())


def digest(text: str) -> str:
    return read_one(text).digest(hash_of)


def seeds(recipe: Recipe, drawn: int | None = None) -> list[tuple[int, int | None]]:
    requests = recipe.image_requests(hash_of, drawn)
    return [(request.seed, request.variation_seed) for request in requests]


VARIED = "seed: 7\nvariation_strength: 0.2\n"
PLAIN_FIRST = [(7, None), (7, 1), (7, 1), (8, None), (7, 2), (7, 2)]
SEEDS: list[tuple[str, int | None, list[tuple[int, int | None]]]] = [
    # Each image has the seed after the last one's, and wraps; a random one is drawn once.
    ("seed: 4294967295\ncount: 2", None, [(4294967295, None), (0, None)]),
    ("count: 2", 8, [(8, None), (9, None)]),
    # With a variation the seed stays and the variation seed counts up, as in A1111.
    (f"{VARIED}variation_seed: 4294967295\ncount: 2", None, [(7, 4294967295), (7, 0)]),
    ("seed: [9, 2]\nvariation_seed: 5\nvariation_strength: 1", None, [(9, 5), (2, 6)]),
    # A random variation seed is drawn with the seed, and never is the same.
    (f"{VARIED}count: 2", 5, [(7, 5 + 2**31), (7, 6 + 2**31)]),
    ("variation_strength: 0.2", 2**31 + 3, [(2**31 + 3, 3)]),
    # In a sweep, 0 has no variation seed, and counts its seed as any other recipe.
    ("seed: 7\nvariation_seed: 1\ncount: 2\nsweep: {variation_strength: 0..1 step 0.5}", None,
     PLAIN_FIRST),
    ("seed: 7\nsweep: {variation_strength: [0, 0.5]}", 5, [(7, None), (7, 5 + 2**31)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "drawn", "expected"), SEEDS)
def test_each_image_has_its_seeds(
    text: str, drawn: int | None, expected: list[tuple[int, int | None]]
) -> None:
    """What is random is drawn when the save is accepted."""
    recipe = read_one(f"prompt: a\n{text}")
    assert recipe.wants_random_seed is (drawn is not None)
    assert seeds(recipe, drawn) == expected
    if recipe.wants_random_seed:
        with pytest.raises(ValueError, match="needs the seed"):
            seeds(recipe)


def test_what_an_entry_is() -> None:
    """Values, count and seed as they are; not spelling, comments, position and priority."""
    original = digest("prompt: a")
    for same in (
        "# comment\n\nprompt: 'a'\npriority: 5\n",
        "prompt: a\nsampler: dpmpp_2m\nsize: 128x128\nseed: -1\nmodel: DEMO",
    ):
        assert digest(same) == original
    assert digest("prompt: a\ncfg: 7") == digest("prompt: a\ncfg_scale: 7.0")
    for change in ("steps: 25", "count: 2", "seed: 0", "exact: true", "cfg: 7"):
        assert digest(f"prompt: a\n{change}") != original, change


@pytest.mark.parametrize(
    ("defaults", "text", "fields"),
    [
        ("size: 512x768", "width: 640", {"size": "640x768"}),
        ("width: 640", "size: 512x768", {"size": "512x768"}),
        ("width: 640", "height: 320", {"size": "640x320"}),
        # A farther schedule type may not work with a nearer sampler.
        ("sampler: DPM++ 2M Karras", "sampler: Euler a", {"schedule_type": "uniform"}),
        ("sampler: Euler\nschedule_type: beta", "sampler: UniPC", {"schedule_type": "uniform"}),
        ("sampler: Euler", "schedule_type: beta", {"sampler": "Euler", "schedule_type": "beta"}),
        # What belongs to a start image is for recipes that have one.
        ("strength: 0.3\nmask_blur: 0", "", {"denoising_strength": 0.75, "mask_blur": 4}),
        ("strength: 0.3", "image: b.png", {"denoising_strength": 0.3}),
        ("mask: {find: hat}", "image: b.png", {"mask": Find("hat", model=DEMO_FIND)}),
        ("mask: {find: hat}", "image: b.png\nmask: no", {"mask": ""}),
        # A mapping is a single value, so layers do not mix its parts.
        ("hires: {scale: 3, steps: 5}", "hires: {steps: 7}", {"hires": Hires(steps=7)}),
        ("hires: {scale: 3, steps: 5}", "hires: off", {"hires": None}),
        ("hires: {strength: 0.3}", "strength: 0.9", {"hires": Hires(denoising_strength=0.9)}),
        ("strength: 0.9", "hires: {strength: 0.3}", {"hires": Hires(denoising_strength=0.3)}),
        # In the same layer they exclude each other.
        ("count: 4", "seed: [1, 2]", {"image_count": 2}),
        ("seed: 1..8", "count: 2", {"image_count": 2, "wants_random_seed": True}),
        ("seed: [1, 2, 3]", "count: 2\nseed: 5", {"image_count": 2, "wants_random_seed": False}),
    ],
)
def test_defaults_apply_field_by_field(defaults: str, text: str, fields: dict[str, Any]) -> None:
    """A size is a width and a height."""
    recipe = read_one(f"prompt: a\n{text}", defaults=defaults)
    assert {name: getattr(recipe, name) for name in fields} == fields


def test_defaults_may_be_empty_and_hold_one_mapping_with_a_prompt() -> None:
    defaults = {"_defaults.yaml": "# nothing\n", "a/_defaults.yaml": "prompt: a corgi\n"}
    assert read_one("steps: 3", defaults=defaults).prompt == "a corgi"
    assert read_one("--steps 3", "a/b.txt", defaults=defaults).prompt == "a corgi"
    # A list or a second document would be silently lost.
    for text, message in (
        ("- steps: 3", "settings are lines like 'steps: 30', one per line."),
        ("steps: 3\n---\nsteps: 4", "settings are one mapping; this is a second document."),
    ):
        check_refused("prompt: a", message, defaults=text)


def test_a_folders_priority_is_read_like_any_number() -> None:
    """Before its recipes are read: urgent ones are read first."""
    root = DefaultsFile("a", b"priority: 9")
    for written, priority in ((b"5", 5), (b"'5'", 5), (b"5.0", 5), (b"high", 0)):
        assert priority_of([root, DefaultsFile("b", b"priority: " + written)]) == priority


@pytest.mark.parametrize("stored", STORED, ids=["plain", "full", "only enlarged", "flow"])
def test_what_earlier_versions_stored_is_the_same_request(stored: dict[str, Any]) -> None:
    """A field that is off is in none of them; else everything would be rendered again."""
    request = ImageRequest.from_dict(stored["request"])
    assert (request.digest, request.batch_key) == (stored["digest"], stored["batch_key"])
    assert json.dumps(request.as_dict()) == json.dumps(stored["request"])


@pytest.mark.parametrize(("text", "digest", "images"), DIGESTS, ids=[row[0] for row in DIGESTS])
def test_a_recipe_that_a_ledger_knows_keeps_its_digest(text: str, digest: str, images: str) -> None:
    """And its images keep theirs: an upgrade draws nothing again."""
    recipe = read_one(text, inventory=RICH, texts={})
    assert recipe.digest(hash_of) == digest
    found = [[request.digest, request.batch_key] for request in recipe.image_requests(hash_of, 5)]
    assert sha256(json.dumps(found).encode()).hexdigest() == images
