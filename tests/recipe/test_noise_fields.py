"""The fields about noise: variations, NVIDIA's numbers, the noise of the steps; and tiling."""

from typing import Any

import pytest

from picowatch.metadata import parameters_text, recipe_yaml
from picowatch.recipe import Checkpoint, Inventory, Recipe, read_recipes
from picowatch.recipe.inventory import rules_of
from tests.recipe.reading import DEMO, hash_of, messages, read_one

TXT = "a.txt"
FLOW = Inventory(
    demo=DEMO, checkpoints=(Checkpoint("flux", 1024, family="flux", rules=rules_of("flux", "dev")),)
)


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
    """Recipes and pictures of before keep theirs."""
    plain = read_one("prompt: a\nseed: 7")
    off = read_one(
        "prompt: a\nseed: 7\nvariation_strength: 0\nvariation_seed: 5\nensd: 0\nnoise: cpu\n"
        "tiling: false"
    )
    assert off.digest(hash_of) == plain.digest(hash_of)
    assert off.image_requests(hash_of) == plain.image_requests(hash_of)


@pytest.mark.parametrize(
    "changed",
    [
        "noise: nvidia",
        "ensd: 31337",
        "tiling: true",
        "variation_strength: 0.5\nvariation_seed: 5",
        "variation_strength: 0.5\nvariation_seed: 6",
    ],
)
def test_each_is_another_entry_and_another_image(changed: str) -> None:
    """Pictures that repeat, or have a card's numbers, do not share a batch with others."""
    plain, other = read_one("prompt: a\nseed: 7"), read_one(f"prompt: a\nseed: 7\n{changed}")
    assert other.digest(hash_of) != plain.digest(hash_of)
    (one,), (two,) = (recipe.image_requests(hash_of) for recipe in (plain, other))
    assert one.digest != two.digest
    shares = changed not in ("tiling: true", "noise: nvidia")
    assert (one.batch_key == two.batch_key) == shares


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("noise: gpu", "noise must be cpu or nvidia, not 'gpu'."),
        (
            "variation_strength: 0.5\nvariation_seed: 4294967296",
            "variation_seed must be a whole number from 0 to 4294967295, or random, not "
            "4294967296.",
        ),
        (
            "variation_seed: 5",
            "variation_seed has no effect without variation_strength. Add it, or remove "
            "variation_seed.",
        ),
        ("tiling: 2", "tiling must be true or false, not 2."),
    ],
)
def test_wrong_values(written: str, message: str) -> None:
    """Field, limit, remedy."""
    assert messages(f"prompt: a\n{written}") == [message]


LINE = "Steps: 3, Sampler: Euler a, Seed: 7"
A1111: list[tuple[str, dict[str, Any]]] = [
    ("RNG: NV", {"noise": "nvidia"}),
    ("RNG: CPU", {"noise": "cpu"}),
    ("RNG: GPU", {"noise": "cpu"}),
    ("RNG: cuda", {"noise": "nvidia"}),  # stable-diffusion.cpp
    ("RNG: std_default", {"noise": "cpu"}),
    ("ENSD: 31337", {"ensd": 31337}),
    ("Tiling: True", {"tiling": True}),
    ("Tiling: False", {"tiling": False}),
    (
        "Variation seed: 5, Variation seed strength: 0.25",
        {"variation_seed": 5, "variation_strength": 0.25},
    ),
]


@pytest.mark.parametrize(("pairs", "values"), A1111)
def test_a1111s_text_is_read(pairs: str, values: dict[str, Any]) -> None:
    """Without a warning; without RNG it is what it always was."""
    recipe = read_one(f"a\n{LINE}, {pairs}\n", TXT)
    assert {name: getattr(recipe, name) for name in values} == values
    assert recipe.warnings == ()


def test_a_variation_seed_of_64_bits_is_cut_as_a_seed_is() -> None:
    """And seed resizing is named as what recipes have not."""
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


def test_it_is_written_as_a1111s_text_and_as_a_recipe_and_both_give_the_same_image() -> None:
    """RNG is NV there, Tiling is True."""
    recipe = read_one(
        "prompt: a\nseed: 7\nnoise: nvidia\nvariation_seed: 5\nvariation_strength: 0.25\n"
        "ensd: 31337\ntiling: true\n"
    )
    (request,) = recipe.image_requests(hash_of)
    text = parameters_text(request, "1.0")
    assert (
        "RNG: NV, Variation seed: 5, Variation seed strength: 0.25, ENSD: 31337, Tiling: True"
        in text
    )
    shown = recipe_yaml(request)
    assert "noise: nvidia\nvariation_seed: 5\nvariation_strength: 0.25\nensd: 31337\n" in shown
    assert "tiling: true\n" in shown
    for name, content in (("b.txt", text), ("b.yaml", shown)):
        (again,) = read_recipes(name, content.encode(), recipe.inventory)
        assert again.image_requests(hash_of) == [request]
    assert "RNG" not in parameters_text(
        read_one("prompt: a\nseed: 7").image_requests(hash_of)[0], "1"
    )


def test_a1111s_flags_are_read() -> None:
    """Those of its "Prompts from file"; -1 is random, and a strength of 0 switches it off."""
    recipe = read_one('--prompt "a" --seed 7 --subseed 5 --subseed_strength 0.5 --tiling true', TXT)
    assert (recipe.variation_seed, recipe.variation_strength, recipe.tiling) == (5, 0.5, True)
    for off in ("--subseed -1", "--subseed 5 --subseed_strength 0"):
        recipe = read_one(f'--prompt "a" --seed 7 {off}', TXT)
        assert seeds(recipe) == [(7, None)]
        assert recipe.warnings == ()


def test_a_flow_family_has_nvidias_numbers_and_no_variations() -> None:
    """As Stable Diffusion draws them, nothing else can."""
    recipe = read_one("prompt: a\ncheckpoint: flux\nnoise: nvidia", inventory=FLOW)
    assert recipe.noise == "nvidia"
    assert messages(
        "prompt: a\ncheckpoint: flux\nvariation_strength: 0.5\nensd: 5\ntiling: true",
        inventory=FLOW,
    ) == [
        "flux has no variation_strength: its noise is drawn by its pipeline. Remove it.",
        "flux has no ensd: its noise is drawn by its pipeline. Remove it.",
        "flux has no tiling: its transformer does not draw with convolutions. Remove it.",
    ]
