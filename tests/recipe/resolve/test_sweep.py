"""Sweeps: every combination of values, with the same seed."""

import pytest

from picowatch.recipe.fields import Axis
from picowatch.recipe.inventory import DEMO_FIND, Checkpoint, Inventory
from picowatch.recipe.parts import Find, Hires
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.request import ImageRequest
from tests.recipe.reading import DEMO, check_refused, check_warned, hash_of, read_one

INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(Checkpoint("dream", 512), Checkpoint("real", 768)),
    vaes=("mse",),
    loras=("detail", "pixel"),
)


ABOVE = "prompt: a red hat\nmodel: demo\nseed: 1\n"


def sweep(written: str, above: str = ABOVE) -> Recipe:
    return read_one(f"{above}sweep: {{{written}}}\n", inventory=INVENTORY)


def requests(written: str, above: str = ABOVE) -> list[ImageRequest]:
    return sweep(written, above).image_requests(hash_of)


def test_seeds_and_count_multiply_in_front() -> None:
    """All combinations with one seed, then with the next; a random one is drawn once."""
    swept = requests("steps: [10, 20]", "prompt: a\nmodel: demo\nseed: [7, 3]\n")
    assert [(r.seed, r.steps) for r in swept] == [(7, 10), (7, 20), (3, 10), (3, 20)]
    recipe = sweep("steps: [10, 20]", "prompt: a\nmodel: demo\ncount: 2\n")
    assert recipe.image_count == 4
    assert [r.seed for r in recipe.image_requests(hash_of, 5)] == [5, 5, 6, 6]


def test_the_recipe_says_what_its_contact_sheet_varies() -> None:
    recipe = sweep("cfg: 4..5 step 0.5, 'prompt: red': [red, blue], lora: [detail, none]")
    assert recipe.sweep == (
        Axis("cfg_scale", ("4", "4.5", "5")),
        Axis("prompt: red", ("red", "blue")),
        Axis("loras", ("detail", "none")),
    )
    assert recipe.wants_sheet
    assert read_one("prompt: a\ngrid: true").wants_sheet
    assert not read_one("prompt: a").wants_sheet


@pytest.mark.parametrize(
    ("written", "field", "values"),
    [
        ("checkpoint: [dream, real]", "width", [512, 768]),
        ("size: [64x128, 128x64]", "height", [128, 64]),
        ("clip_skip: 1..4", "clip_skip", [1, 2, 3, 4]),
        ("cfg_scale: 1..1.3 step .1", "cfg_scale", [1.0, 1.1, 1.2, 1.3]),
        ("'prompt: red': [green, blue], 'prompt: hat': [hat, cap]", "prompt",
         ["a green hat", "a green cap", "a blue hat", "a blue cap"]),
    ],
)  # fmt: skip
def test_what_changes_an_image_can_be_swept(written: str, field: str, values: list[object]) -> None:
    assert [getattr(request, field) for request in requests(written)] == values


def test_swept_samplers_keep_the_schedule_type_that_the_recipe_gives() -> None:
    """Their own names come first, and without any it is theirs."""
    for above, written, schedule_types in (
        ("", "sampler: [Euler, UniPC]", ["uniform", "uniform"]),
        ("schedule_type: beta", "sampler: [Euler, UniPC Karras]", ["beta", "karras"]),
        ("sampler: DPM++ 2M Karras", "sampler: [Euler, UniPC]", ["uniform", "uniform"]),
        ("", "schedule_type: [beta], sampler: [Euler, UniPC]", ["beta", "beta"]),
    ):
        swept = requests(written, f"{ABOVE}{above}\n")
        assert [request.schedule_type for request in swept] == schedule_types


def test_parts_of_mappings_can_be_swept() -> None:
    swept = requests("'hires: Upscale by': [1, 2], 'hires: strength': [0.2]", ABOVE + "hires: 2\n")
    assert [image.hires for image in swept] == [Hires(each, 0, 0.2, "Latent") for each in (1, 2)]
    swept = requests("'mask: find': [hat, tie]", ABOVE + "image: a.png\nmask: {find: x, grow: 9}\n")
    masks = [Find(word, grow=9, model=DEMO_FIND) for word in ("hat", "tie")]
    assert [image.mask for image in swept] == masks
    for scales in ("[1.5, false]", "[false, 1.5]"):
        swept = requests(f"hires: {scales}, 'hires: steps': [1, 2]")
        drawn = [image.hires and image.hires.steps for image in swept]
        assert sorted(drawn, key=str) == [1, 2, None, None], "what is off stays off"
    swept = requests("mask: [{find: hat}, m.png], 'mask: grow': [1, 2]", ABOVE + "image: a.png\n")
    assert [image.mask for image in swept[2:]] == ["m.png", "m.png"]
    swept = requests("image: [none, a.png]", ABOVE + "strength: 0.3\n")
    assert [bool(request.image) for request in swept] == [False, True]
    swept = requests("image: [none, a.png], strength: [0.3, 0.6]")
    assert len({image.digest for image in swept}) == 3, "not every combination uses the start image"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("steps: [10, 200]", "steps must be a whole number from 1 to 150, not 200."),
        ("steps: 10", "the 'steps' sweep must be a list like [1, 2], or a range …"),
        ("steps: [10], steps: [20]", "'steps' is swept twice. Keep one."),
        ("cfg_scale: 1..30 step 0.001", "the 'cfg_scale' sweep has 29,001 values; one save may …"),
        ("stesp: [1]", "sweep cannot vary 'stesp': there is no such field. Did you mean 'steps'?"),
        ("red hat: [blue hat]", '…no such field. For a piece of the … write "prompt: red hat".'),
        ("Prompt S/R: [red, blue]", '…no such field. For a piece of … write "prompt: red".'),
        ("'S/R: red': [red, blue]", '…no such field. For a piece of … write "prompt: red".'),
        ("from: [a.png]", "sweep cannot vary from. Write a recipe for each picture: several …"),
        ("count: [1, 2]", "sweep cannot vary count. It does not change individual images."),
        ("seed: [1, 2]", "sweep cannot vary seed. For several … outside the sweep: seed: 1..8."),
        ("'prompt: green': [blue]", "'green' does not occur in prompt: there is nothing to vary."),
        ("'prompt: red': ['cat AND dog']", "AND (composing prompts) is not supported. …"),
        ("'lora: detial': [1]", "no LoRA 'detial' in models/loras. Did you mean 'detail'? …"),
        ("denoising_strength: [0.5]", "denoising_strength has no effect without image or hires. …"),
        ("'hires: scael': [1]", "sweep cannot vary 'hires: scael'. Did you mean 'scale'? …"),
        ("hires: [false], 'hires: steps': [1]", '"hires: steps" has no effect without hires. …'),
        ("hires: [2, [1]], 'hires: steps': [1]", "hires must be …"),
        ("image: [a.png], mask: [m.png], 'mask: grow': [1, 2]", "… has no effect without mask…"),
        ("image: [a.png], detail: [hat, [hat, tie]], 'detail: steps': [3, 4]",
         "'detail: steps' could vary any of the 2 entries of detail. Sweep 'detail' itself, …"),
        ("steps: 1..150, cfg_scale: 1..30", "this file requests 4,500 images; one save may …"),
        # Two images would be counted and one made.
        ("steps: [10, 10]", "'10' means the same as '10' in the 'steps' sweep. Keep one."),
        ("sampler: [DPM++ 2M, DPM++ 2M Karras]", "'DPM++ 2M Karras' means the same as 'DPM++ …"),
        ("quality: [1, 100], format: [png, tiff]", "'100' means the same as '1' in …"),
        ("steps: [3, 4], hires: [off, false]", "'false' means the same as 'off' in the 'hires' …"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused(written: str, message: str) -> None:
    """One message for one mistake, however many combinations have it."""
    text = f"prompt: a red hat\nmodel: demo\nsweep: {{{written}}}\n"
    check_refused(text, message, inventory=INVENTORY)


def test_a_sweep_of_another_kind_is_refused() -> None:
    """A sweep in a folder's defaults can be turned off."""
    quotes = "…quote a name with a colon, as in 'prompt: red': [green, blue]."
    check_refused("prompt: a red hat\nsweep:\n  prompt: red: [green, blue]", quotes)
    defaults = "sweep: {steps: [1, 2]}"
    assert read_one("prompt: a", defaults=defaults).image_count == 2
    assert read_one("prompt: a\nsweep: off", defaults=defaults).image_count == 1


def test_a_value_that_a_farther_sweep_varies_is_said_to_do_nothing() -> None:
    """A recipe's own sweep says so itself."""
    swept = "sweep: {steps: [1, 2], size: [64x64, 128x64]}"
    folder = read_one("prompt: a\nsteps: 3\ncfg: 4", defaults=swept)
    check_warned(folder, "steps has no effect: the sweep of the folder varies it. Keep one.")
    above = read_one(f"---\n{swept}\n---\na --size 64x64", "a.txt")
    check_warned(above, "size has no effect: the sweep above the prompts varies it. Keep one.")
    check_warned(read_one(f"prompt: a\nsteps: 3\n{swept}", defaults=swept))


def test_a_long_prompt_is_swept_over_few_values_only() -> None:
    """Each combination is checked as a prompt of its own; brackets take longer than words."""
    prompt, count = "hat" + "()" * 200, 700
    values = ", ".join(f"h{number}" for number in range(count))
    text = f"prompt: {prompt}\nsweep: {{'prompt: hat': [{values}]}}"
    check_refused(text, "the prompts of all images of this file have more than 20,000,000 …")
    assert read_one(f"prompt: {prompt}\ncount: {count}").image_count == count
