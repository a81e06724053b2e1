"""A resolved recipe: its identity, its images, and the defaults it starts from."""

from functools import partial

import pytest

from picowatch.recipe import DefaultsFile, Inventory, priority_of
from tests.recipe.reading import DEMO, hash_of, read_one, refused


def digest(text: str) -> str:
    return read_one(text).digest(hash_of)


def test_image_i_has_seed_plus_i_and_wraps() -> None:
    """The last seed is followed by 0."""
    requests = read_one("prompt: a\nseed: 4294967294\ncount: 3").image_requests(hash_of, None)
    assert [request.seed for request in requests] == [4294967294, 4294967295, 0]


def test_a_random_seed_is_drawn_once_for_all_images() -> None:
    """Accepting the save draws it; without it there is no image."""
    recipe = read_one("prompt: a\ncount: 2")
    assert recipe.wants_random_seed
    assert [request.seed for request in recipe.image_requests(hash_of, 8)] == [8, 9]
    with pytest.raises(ValueError, match="needs the seed"):
        recipe.image_requests(hash_of, None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("prompt: a", "# comment\n\nprompt: 'a'\npriority: 5\n"),
        ("prompt: a", "prompt: a\nsampler: dpmpp_2m\nsize: 128x128\nseed: -1\nmodel: DEMO"),
        ("prompt: a\ncfg: 7", "prompt: a\ncfg_scale: 7.0"),
    ],
)
def test_the_same_entry_written_otherwise_is_the_same(one: str, other: str) -> None:
    """Spelling, comments, position and priority do not count."""
    assert digest(one) == digest(other)


@pytest.mark.parametrize("change", ["steps: 25", "count: 2", "seed: 0", "exact: true", "cfg: 7"])
def test_another_value_is_another_entry(change: str) -> None:
    """Count and seed as they are written, too."""
    assert digest("prompt: a") != digest(f"prompt: a\n{change}")


def test_another_model_file_is_another_entry() -> None:
    """The content counts, not only the name."""
    recipe = read_one("prompt: a\nvae: mse", inventory=Inventory(demo=DEMO, vaes=("mse",)))
    pairs = [{"checkpoint": c, "vae": v} for c in "ab" for v in "ab"]
    digests = {recipe.digest(partial(_hash_in, pair)) for pair in pairs}
    assert len(digests) == 4


def _hash_in(pair: dict[str, str], kind: str, _name: str) -> str:
    return pair[kind]


def test_the_digest_stays_what_it_is() -> None:
    """Ledgers store digests: a change would draw every random recipe again."""
    assert digest("prompt: a corgi") == (
        "232ba23680b1c0422d4bddd44a2059a26e4283aa8e4d5f219cff369121e2df77"
    )


def test_defaults_apply_field_by_field_and_the_nearest_folder_wins() -> None:
    """Layers go from the inbox's root down to the recipe, the nearest one."""
    recipe = read_one(
        "prompt: a\ncfg: 3\n",
        defaults={
            "_defaults.yaml": "steps: 10\ncfg_scale: 1\nclip_skip: 2\n",
            "pets/_defaults.yaml": "steps: 20\nguidance_scale: 2\npriority: 10\n",
        },
    )
    assert (recipe.steps, recipe.cfg_scale, recipe.clip_skip, recipe.priority) == (20, 3.0, 2, 10)


@pytest.mark.parametrize(
    ("defaults", "text", "size"),
    [
        ("size: 512x768", "", "512x768"),
        ("size: 512x768", "width: 640", "640x768"),
        ("width: 640", "size: 512x768", "512x768"),
        ("width: 640", "height: 320", "640x320"),
        ("width: 640", "", "640x128"),
    ],
)
def test_a_size_in_defaults_is_a_width_and_a_height(defaults: str, text: str, size: str) -> None:
    """So that each side can be set alone."""
    assert read_one(f"prompt: a\n{text}", defaults={"_defaults.yaml": defaults}).size == size


@pytest.mark.parametrize(
    ("defaults", "text", "sampler", "schedule_type"),
    [
        ("sampler: DPM++ 2M Karras", "sampler: Euler a", "Euler a", "uniform"),
        ("sampler: Euler\nschedule_type: beta", "sampler: UniPC", "UniPC", "uniform"),
        ("sampler: Euler", "schedule_type: beta", "Euler", "beta"),
        ("schedule_type: beta", "", "DPM++ 2M", "beta"),
    ],
)
def test_a_nearer_sampler_takes_its_own_schedule_type(
    defaults: str, text: str, sampler: str, schedule_type: str
) -> None:
    """A farther schedule type may not work with it."""
    recipe = read_one(f"prompt: a\n{text}", defaults={"_defaults.yaml": defaults})
    assert (recipe.sampler, recipe.schedule_type) == (sampler, schedule_type)


def test_a_nearer_list_of_seeds_sets_a_farther_count_aside() -> None:
    """In the same layer they exclude each other."""
    defaults = {"_defaults.yaml": "count: 4"}
    assert read_one("prompt: a\nseed: [1, 2]", defaults=defaults).image_count == 2


def test_defaults_may_be_empty_and_hold_a_prompt() -> None:
    """Any field may stand there."""
    defaults = {"_defaults.yaml": "# nothing\n", "a/_defaults.yaml": "prompt: a corgi\n"}
    assert read_one("steps: 3", defaults=defaults).prompt == "a corgi"
    assert read_one("--steps 3", "a/b.txt", defaults=defaults).prompt == "a corgi"


def test_defaults_hold_one_mapping() -> None:
    """A list or a second document would be silently lost."""
    for text, message in (
        ("- steps: 3", "settings are lines like 'steps: 30', one per line."),
        ("steps: 3\n---\nsteps: 4", "settings are one mapping; this is a second document."),
    ):
        assert _messages_with_defaults(text) == [message]


def _messages_with_defaults(text: str) -> list[str]:
    return [p.message for p in refused("prompt: a", defaults={"_defaults.yaml": text}).problems]


@pytest.mark.parametrize("written", ["5", "'5'", "5.0"])
def test_a_folders_priority_is_read_like_any_number(written: str) -> None:
    """Before its recipes are read: urgent ones are read first."""
    root, folder = DefaultsFile("a", b"priority: 9"), f"priority: {written}".encode()
    assert priority_of([root, DefaultsFile("b", folder)]) == 5
    assert priority_of([root, DefaultsFile("b", b"priority: high")]) == 9
