"""The fields about noise: variations, NVIDIA's numbers, the noise of the steps; and tiling."""

import pytest

from picowatch.recipe import Recipe
from tests.recipe.reading import hash_of, read_one

TXT = "a.txt"


def seeds(recipe: Recipe, drawn: int | None = None) -> list[tuple[int, int | None]]:
    requests = recipe.image_requests(hash_of, drawn)
    return [(request.seed, request.variation_seed) for request in requests]


def test_with_a_variation_the_seed_stays_and_the_variation_seed_counts_up() -> None:
    """As in A1111; it wraps, too."""
    text = "prompt: a\nseed: 7\nvariation_seed: 4294967295\ncount: 3\n"
    assert seeds(read_one(text + "variation_strength: 0.2")) == [
        (7, 4294967295),
        (7, 0),
        (7, 1),
    ]
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
    recipe = read_one(
        "prompt: a\nseed: 7\nvariation_seed: 1\ncount: 2\n"
        "sweep: {variation_strength: 0..1 step 0.5}"
    )
    assert seeds(recipe) == [(7, None), (7, 1), (7, 1), (8, None), (7, 2), (7, 2)]
    recipe = read_one("prompt: a\nseed: 7\nsweep: {variation_strength: [0, 0.5]}")
    assert recipe.wants_random_seed
    recipe = read_one(
        "prompt: a\nseed: 7\nvariation_strength: 0.2\n"
        "sweep: {variation_seed: [1, 2], noise: [cpu, NVIDIA]}"
    )
    assert not recipe.wants_random_seed
    assert seeds(recipe) == [(7, 1), (7, 1), (7, 2), (7, 2)]


def test_what_is_off_changes_no_digest() -> None:
    """Earlier recipes and pictures keep their digests."""
    plain = read_one("prompt: a\nseed: 7")
    off = read_one(
        "prompt: a\nseed: 7\nvariation_strength: 0\nvariation_seed: 5\nensd: 0\nnoise: cpu\n"
        "tiling: false"
    )
    assert off.digest(hash_of) == plain.digest(hash_of)
    assert off.image_requests(hash_of) == plain.image_requests(hash_of)


LINE = "Steps: 3, Sampler: Euler a, Seed: 7"


def test_a_variation_seed_of_64_bits_is_cut_as_a_seed_is() -> None:
    """A warning says that recipes have no seed resizing."""
    recipe = read_one(
        f"a\n{LINE}, Variation seed: {2**32 + 5}, Variation seed strength: 1, "
        "Seed resize from: 512x512\n",
        TXT,
    )
    assert recipe.variation_seed == 5
    assert recipe.warnings == (
        f"the seed {2**32 + 5} has more than 32 bits; 5 is used instead, which gives the same "
        "noise on a CPU.",
        "Recipes have no 'Seed resize from: 512x512' setting; it was ignored.",
    )


def test_a1111s_flags_are_read() -> None:
    """Those of its "Prompts from file"; -1 is random, and a strength of 0 switches it off."""
    recipe = read_one('--prompt "a" --seed 7 --subseed 5 --subseed_strength 0.5 --tiling true', TXT)
    assert (recipe.variation_seed, recipe.variation_strength, recipe.tiling) == (5, 0.5, True)
    for off in ("--subseed -1", "--subseed 5 --subseed_strength 0"):
        recipe = read_one(f'--prompt "a" --seed 7 {off}', TXT)
        assert seeds(recipe) == [(7, None)]
        assert recipe.warnings == ()


@pytest.mark.parametrize(
    ("word", "noise"),
    [("NV", "nvidia"), ("cuda", "nvidia"), ("GPU", "cpu"), ("std_default", "cpu")],
)
def test_other_programs_words_for_noise_are_read(word: str, noise: str) -> None:
    """A1111's, and stable-diffusion.cpp's."""
    recipe = read_one(f"a\n{LINE}, RNG: {word}\n", TXT)
    assert (recipe.noise, recipe.warnings) == (noise, ())
