"""Fields that other programs have, and what the error says to write instead."""

import pytest

from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.messages.other_programs import words_of_others
from picowatch.recipe.read.flags import THEIRS_ALONE
from tests.recipe.reading import messages, read_one

REFINER = "picowatch does not have SDXL's refiner. Remove it."
HIRES = "Write hires: {scale: 2, steps: 20, denoising_strength: 0.5}."


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("model hash", "Write checkpoint: and its name in models/checkpoints, without the hash."),
        ("refiner", REFINER),
        ("upscale_by", HIRES),
        ("format", "It is a setting for all pictures: write it into picowatch.yaml."),
    ],
)
def test_a_field_of_another_program_says_what_to_write(name: str, remedy: str) -> None:
    """No field that only looks similar is proposed."""
    assert messages(f"prompt: a\n{name}: 1") == [f"unknown field '{name}'. {remedy}"]


def test_no_field_is_told_as_another_programs() -> None:
    """When a name becomes a field, its hint and its flag have to be removed."""
    names = {*FIRST_NAME_OF}
    assert not [name for name in names if words_of_others(name)]
    assert not names & {*THEIRS_ALONE}


def test_a_part_that_is_not_indented_belongs_to_the_line_above() -> None:
    """It looks as if hires had no value, and the recipe a field named like a part."""
    *_, message = messages("prompt: a\nhires:\nscale: 2")
    assert message == (
        "unknown field 'scale'. It is a part of hires or upscale: indent it below that line, or "
        "write hires: {scale: 2}."
    )


def test_what_an_api_sends_is_a_recipe() -> None:
    """A request of A1111's API, with everything that is off, is valid."""
    recipe = read_one(
        '{"prompt": "a cat", "styles": [], "seed": 7, "sampler_name": "Euler a", "steps": 20, '
        '"restore_faces": false, "override_settings": {}, "enable_hr": false, "eta": 0, '
        '"alwayson_scripts": {}, "seed_resize_from_h": -1, "tiling": false}',
        "a.json",
    )
    assert (recipe.prompt, recipe.seed, recipe.sampler) == ("a cat", 7, "Euler a")
    assert messages('{"prompt": "a", "styles": ["b"]}', "a.json") == [
        "unknown field 'styles'. picowatch has no styles. Write their words into the prompt, or "
        "into _defaults.yaml."
    ]
