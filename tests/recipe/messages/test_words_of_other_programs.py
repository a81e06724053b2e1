"""Fields that other programs have, and what the error says to write instead."""

import pytest

from tests.recipe.reading import messages

REFINER = "picowatch does not have SDXL's refiner. Remove it."
WHOLE = "picowatch always renders the whole picture, not the masked part alone. Remove it."
CONTENT = "The masked part starts from image. For new content, write denoising_strength: 1."
STYLES = "picowatch has no styles. Write their words into the prompt, or into _defaults.yaml."
HIRES = "Write hires: {scale: 2, denoising_strength: 0.5}."
HIRES_STEPS = "Write hires: {steps: 20}."
SWEEP = "Write a sweep, like sweep: {steps: [10, 20]}."
CHECKPOINT = "Write checkpoint: and its name in models/checkpoints, without the hash."
FORMAT = "It is a setting for all pictures: write it into picowatch.yaml."
ADETAILER = "picowatch does not have ADetailer. Remove it, or redraw the part with image and mask."


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("mask_content", CONTENT),
        ("masked_content", CONTENT),
        ("inpainting_fill", CONTENT),
        ("upscale_by", HIRES),
        ("model hash", CHECKPOINT),
        ("model_hash", CHECKPOINT),
        ("refiner", REFINER),
        ("refiner_switch_at", REFINER),
        ("inpaint_full_res", WHOLE),
        ("only_masked", WHOLE),
        ("Only masked padding", WHOLE),
        (
            "soft_inpainting",
            "picowatch does not have soft inpainting. mask_blur sets how wide the mask's soft edge "
            "is.",
        ),
        ("sampling_method", "Write sampler."),
        ("Sampling method", "Write sampler."),
        ("hires_steps", HIRES_STEPS),
        ("Hires steps", HIRES_STEPS),
        ("format", FORMAT),
        ("sidecar", FORMAT),
        ("style", STYLES),
        ("embeddings", "An embedding needs no field. Write its name into the prompt."),
        ("neg", "Write negative_prompt."),
        (
            "script",
            "picowatch runs no scripts. For an X/Y/Z plot, write sweep: {steps: [10, 20]}; for "
            "several prompts, a .txt with one on each line.",
        ),
        ("x_type", SWEEP),
        ("adetailer", ADETAILER),
        (
            "eta",
            "The samplers' eta cannot be changed. Remove it. A1111's \"Eta noise seed delta\" is "
            "ensd.",
        ),
        ("CLIP_stop_at_last_layers", "Write clip_skip, the same number."),
        ("control_weight", "Write control: {image: …, model: …, weight: 1}."),
        ("pixel_perfect", "ControlNets are always pixel perfect. Remove it."),
    ],
)
def test_a_field_of_a1111_says_what_to_write(name: str, remedy: str) -> None:
    """Or that there is no such thing, and no field that only looks alike."""
    assert messages(f"prompt: a\n{name}: 1") == [f"unknown field '{name}'. {remedy}"]


def test_a_part_that_is_not_indented_belongs_to_the_line_above() -> None:
    """As if hires had no value, and the recipe a field of its parts' name."""
    *_, message = messages("prompt: a\nhires:\nscale: 2")
    assert message == (
        "unknown field 'scale'. It is a part of hires or upscale: indent it below that line, or "
        "write hires: {scale: 2}."
    )


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hires: {upscale_by: 2}", "scale"),
        ("hires: {hires_steps: 2}", "steps"),
        ("hires: {denoise: 0.5}", "denoising_strength"),
        ("upscale: {upscale_by: 2}", "scale"),
    ],
)
def test_a_part_under_another_programs_name_is_understood(text: str, meant: str) -> None:
    """Not the part whose name looks most like it."""
    (message,) = messages(f"prompt: a\n{text}")
    assert f"Did you mean '{meant}'? Its fields are" in message


def test_a_control_is_always_pixel_perfect() -> None:
    """It may be removed."""
    found = messages("prompt: a\ncontrol: {image: a.png, model: b, pixel_perfect: true}")
    assert any(
        message.startswith(
            "control has no 'pixel_perfect'. ControlNets are always pixel perfect. Remove it. "
        )
        for message in found
    )


def test_a_flag_has_the_same_remedy() -> None:
    """A .txt says it with two hyphens."""
    assert messages("a corgi --refiner xl", "a.txt") == [f"unknown flag '--refiner'. {REFINER}"]
    assert messages("a --mask_content fill", "a.txt") == [
        f"unknown flag '--mask_content'. {CONTENT}"
    ]


def test_a_line_of_a_txt_that_reads_like_one_has_the_same_remedy() -> None:
    """And is no prompt."""
    assert messages("mask_content: 1", "a.txt") == [
        "each line of a .txt is a prompt, and this one reads like a setting. Recipes have no "
        f"'mask_content'. {CONTENT}"
    ]
