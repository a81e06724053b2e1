"""A resolved recipe: its identity, its images and their seeds, and the defaults it starts from."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from picowatch.recipe import DefaultsFile, ImageRequest, Inventory, Recipe, priority_of
from tests.recipe.reading import DEMO, check_refused, hash_of, read_one

# Requests in ledgers and pictures of earlier versions, which later ones must recognise.
STORED = json.loads(Path(__file__).with_name("stored_requests.json").read_text())


def digest(text: str) -> str:
    return read_one(text).digest(hash_of)


def seeds(recipe: Recipe, drawn: int | None = None) -> list[tuple[int, int | None]]:
    requests = recipe.image_requests(hash_of, drawn)
    return [(request.seed, request.variation_seed) for request in requests]


def test_image_i_has_seed_plus_i_and_wraps() -> None:
    """The last seed is followed by 0; a random one is drawn once, when the save is accepted."""
    wrapped = read_one("prompt: a\nseed: 4294967295\ncount: 2")
    assert seeds(wrapped) == [(4294967295, None), (0, None)]
    recipe = read_one("prompt: a\ncount: 2")
    assert recipe.wants_random_seed
    assert seeds(recipe, 8) == [(8, None), (9, None)]
    with pytest.raises(ValueError, match="needs the seed"):
        seeds(recipe)


def test_with_a_variation_the_seed_stays_and_the_variation_seed_counts_up() -> None:
    """As in A1111; it wraps, too."""
    text = "prompt: a\nseed: 7\nvariation_seed: 4294967295\ncount: 3\nvariation_strength: 0.2"
    assert seeds(read_one(text)) == [(7, 4294967295), (7, 0), (7, 1)]
    recipe = read_one("prompt: a\nseed: [9, 2]\nvariation_seed: 5\nvariation_strength: 1")
    assert seeds(recipe) == [(9, 5), (2, 6)]


@pytest.mark.parametrize("written", ["", "variation_seed: random\n", "variation_seed: -1\n"])
def test_a_random_variation_seed_is_drawn_when_the_save_is_accepted(written: str) -> None:
    """With the seed, if that is random, too; the two never are the same."""
    recipe = read_one(f"prompt: a\nseed: 7\nvariation_strength: 0.2\ncount: 2\n{written}")
    assert recipe.wants_random_seed
    assert seeds(recipe, 5) == [(7, 5 + 2**31), (7, 6 + 2**31)]
    recipe = read_one(f"prompt: a\nvariation_strength: 0.2\n{written}")
    assert seeds(recipe, 2**31 + 3) == [(2**31 + 3, 3)]
    with pytest.raises(ValueError, match="needs the seed"):
        recipe.image_requests(hash_of)


def test_a_sweep_over_the_strength_has_the_plain_picture_first() -> None:
    """0 has no variation seed, and counts its seed as any other recipe."""
    text = "prompt: a\nseed: 7\nvariation_seed: 1\ncount: 2\n"
    recipe = read_one(f"{text}sweep: {{variation_strength: 0..1 step 0.5}}")
    assert seeds(recipe) == [(7, None), (7, 1), (7, 1), (8, None), (7, 2), (7, 2)]
    recipe = read_one("prompt: a\nseed: 7\nsweep: {variation_strength: [0, 0.5]}")
    assert recipe.wants_random_seed
    sweep = "sweep: {variation_seed: [1, 2], noise: [cpu, NVIDIA]}"
    recipe = read_one(f"prompt: a\nseed: 7\nvariation_strength: 0.2\n{sweep}")
    assert not recipe.wants_random_seed
    assert seeds(recipe) == [(7, 1), (7, 1), (7, 2), (7, 2)]


def test_what_is_off_changes_no_digest() -> None:
    """Earlier recipes and pictures keep their digests."""
    plain = read_one("prompt: a\nseed: 7")
    text = "seed: 7\nensd: 0\nnoise: cpu\ntiling: false\nvariation_strength: 0\nvariation_seed: 5"
    off = read_one(f"prompt: a\n{text}")
    assert off.digest(hash_of) == plain.digest(hash_of)
    assert off.image_requests(hash_of) == plain.image_requests(hash_of)


def test_what_an_entry_is() -> None:
    """Values, count and seed as they are; not spelling, comments, position and priority."""
    # Ledgers store digests: a change would draw every random recipe again.
    stored = "232ba23680b1c0422d4bddd44a2059a26e4283aa8e4d5f219cff369121e2df77"
    assert digest("prompt: a corgi") == stored
    one = digest("prompt: a")
    for same in (
        "# comment\n\nprompt: 'a'\npriority: 5\n",
        "prompt: a\nsampler: dpmpp_2m\nsize: 128x128\nseed: -1\nmodel: DEMO",
    ):
        assert digest(same) == one
    assert digest("prompt: a\ncfg: 7") == digest("prompt: a\ncfg_scale: 7.0")
    for change in ("steps: 25", "count: 2", "seed: 0", "exact: true", "cfg: 7"):
        assert digest(f"prompt: a\n{change}") != one, change


def test_another_model_file_is_another_entry() -> None:
    """The content counts, not only the name."""
    recipe = read_one("prompt: a\nvae: mse", inventory=Inventory(demo=DEMO, vaes=("mse",)))
    pairs = [{"checkpoint": c, "vae": v} for c in "ab" for v in "ab"]
    assert len({recipe.digest(partial(_hash_in, pair)) for pair in pairs}) == 4


def _hash_in(pair: dict[str, str], kind: str, _name: str) -> str:
    return pair[kind]


@pytest.mark.parametrize(
    ("defaults", "text", "fields"),
    [
        ("size: 512x768", "", {"size": "512x768"}),
        ("size: 512x768", "width: 640", {"size": "640x768"}),
        ("width: 640", "size: 512x768", {"size": "512x768"}),
        ("width: 640", "height: 320", {"size": "640x320"}),
        ("width: 640", "", {"size": "640x128"}),
        # A farther schedule type may not work with a nearer sampler.
        ("sampler: DPM++ 2M Karras", "sampler: Euler a", {"schedule_type": "uniform"}),
        ("sampler: Euler\nschedule_type: beta", "sampler: UniPC", {"schedule_type": "uniform"}),
        ("sampler: Euler", "schedule_type: beta", {"sampler": "Euler", "schedule_type": "beta"}),
        ("schedule_type: beta", "", {"sampler": "DPM++ 2M", "schedule_type": "beta"}),
        # In the same layer they exclude each other.
        ("count: 4", "seed: [1, 2]", {"image_count": 2}),
    ],
)
def test_defaults_apply_field_by_field(defaults: str, text: str, fields: dict[str, Any]) -> None:
    """A size is a width and a height."""
    recipe = read_one(f"prompt: a\n{text}", defaults=defaults)
    assert {name: getattr(recipe, name) for name in fields} == fields


def test_the_nearest_folder_wins() -> None:
    """Layers go from the inbox's root down to the recipe, the nearest one."""
    defaults = {
        "_defaults.yaml": "steps: 10\ncfg_scale: 1\nclip_skip: 2\n",
        "pets/_defaults.yaml": "steps: 20\nguidance_scale: 2\npriority: 10\n",
    }
    recipe = read_one("prompt: a\ncfg: 3\n", defaults=defaults)
    assert (recipe.steps, recipe.cfg_scale, recipe.clip_skip, recipe.priority) == (20, 3.0, 2, 10)


def test_defaults_may_be_empty_and_hold_one_mapping_with_a_prompt() -> None:
    """Any field may stand there."""
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
    """A field that is off is in none of them, so a new one changes none.

    Else everything would be rendered again.
    """
    request = ImageRequest.from_dict(stored["request"])
    assert (request.digest, request.batch_key) == (stored["digest"], stored["batch_key"])
    assert json.dumps(request.as_dict()) == json.dumps(stored["request"])


@pytest.mark.parametrize(
    ("defaults", "own", "images", "is_random"),
    [
        ("seed: 1..8", "count: 2", 2, True),
        ("seed: [1, 2, 3]", "count: 2\nseed: 5", 2, False),
        ("count: 9", "seed: 1..8", 8, False),
        ("seed: 7", "count: 2", 2, False),
    ],
)
def test_of_a_count_and_several_seeds_the_nearer_wins(
    defaults: str, own: str, images: int, is_random: bool
) -> None:
    """Both say how many images there are."""
    recipe = read_one(f"prompt: a\n{own}", defaults=defaults)
    assert (recipe.image_count, recipe.wants_random_seed) == (images, is_random)
