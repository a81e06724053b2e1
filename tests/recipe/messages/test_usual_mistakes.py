"""Frequent mistakes: each has one message with the right remedy."""

import pytest

from tests.recipe.reading import messages, read_one, refused

SEED = (
    "seed must be a whole number from 0 to 4294967295, random, a range like 1..8, or a list like "
    "[1, 2, 3]"
)
PICTURES = "For several pictures, write a recipe for each."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cfg: 0", "cfg_scale must be a number from 1 to 30, not 0. 1 switches guidance off."),
        ("cfg_scale: 7,5", "cfg_scale must be a number from 1 to 30. Write 7.5, with a point."),
        ("seed: None", f"{SEED}, not 'None'. Leave out seed for the default."),
        ("seed: 1 to 8", f"{SEED}, not '1 to 8'. Write 1..8 for a range."),
        ("seed: [1..4, 9]", "seed must be a whole number from 0 to 4294967295, not '1..4'."),
        (
            "count: 1,000",
            "count must be a whole number from 1 to 1000000. Write 1000, without a comma.",
        ),
        (
            "size: 16:9",
            "size is width and height in pixels, like 512x768. For 16:9 write 912x512 for SD 1.5, "
            "1344x768 for SDXL, 224x128 for the demo model.",
        ),
        ("width: 3", "width must be a whole number from 64 to 2048, not 3."),
        (
            "sweep: [steps]",
            "sweep must be a mapping like {steps: [10, 20], cfg_scale: 4..10 step 2}, not [steps].",
        ),
        (
            "batch_size: 4",
            "unknown field 'batch_size'. Write count for the number of images. In picowatch.yaml, "
            "batch_size limits how many render at once.",
        ),
        (
            "scheduler: karras\nschedule_type: beta",
            "'schedule_type' is given twice: already on line 2 as 'scheduler'. Keep one.",
        ),
        ("image: [a.png, b.png]", f"image must be text, not [a.png, b.png]. {PICTURES}"),
        ("image: c.png\nmask:\n- a.png\n- b.png", f"mask must be text, not - a.png. {PICTURES}"),
        ("control: {image: {a: 1}}", "control image must be text, not {a: 1}."),
        (
            "hires: {a5: 1}",
            "hires has no 'a5'. Its fields are scale, steps, denoising_strength and upscaler.",
        ),
        ("sweep: {size: [64x64], width: [64]}", "size together with width or height: keep one of "
         "them."),
    ],
)  # fmt: skip
def test_a_usual_mistake_has_its_remedy(text: str, expected: str) -> None:
    """No second message follows from the first."""
    assert messages(f"prompt: a\n{text}") == [expected]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("corgi.yaml", "prompt: a\ncfg_scale: [5, 7]"),
        ("corgi.yaml", "prompt: a\nsteps: 10..12"),
        ("corgi.json", '{"prompt": "a", "steps": [4, 8]}'),
    ],
)
def test_several_values_in_a_field_are_told_to_be_a_sweep(name: str, text: str) -> None:
    """The proposed sweep is a valid one."""
    (message,) = messages(text, name)
    sweep = message.partition("For an image with each value, write ")[2]
    fixed = f'{{"prompt": "a", {sweep}}}' if name.endswith("json") else f"prompt: a\n{sweep}"
    assert read_one(fixed, name).image_count > 1


def test_a_schedule_type_is_no_sampler() -> None:
    """The remedy names the field, or a sampler with that schedule type."""
    (message,) = messages("prompt: a\nsampler: karras")
    assert "'karras' is a schedule type, not a sampler. Write schedule_type: karras" in message


def test_a_misspelt_sampler_with_its_schedule_type_is_found() -> None:
    """Every spelling that is accepted is compared."""
    (message,) = messages("prompt: a\nsampler: DPM+ 2M Karas")
    assert "Did you mean 'DPM++ 2M Karras'?" in message


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("prompt: a\nscheduler: karras", "schedule_type", "karras"),
        ("prompt: a\nscheduler: SGM Uniform", "schedule_type", "sgm_uniform"),
        ("prompt: a\nscheduler: EulerAncestralDiscreteScheduler", "sampler", "Euler a"),
    ],
)
def test_a_scheduler_is_a_schedule_type_or_a_sampler(text: str, field: str, value: str) -> None:
    """ComfyUI's is a schedule type, diffusers' a sampler; the schema for editors knows both."""
    assert getattr(read_one(text), field) == value
    written = text.rpartition(": ")[2]
    assert getattr(read_one(f"a --scheduler {written}", "corgi.txt"), field) == value


@pytest.mark.parametrize(
    ("prompt", "warning"),
    [
        (
            "a (corgi:1,2)",
            "'(corgi:1,2)' is used as literal text, because a weight has a decimal point. For the "
            "weight, write (corgi:1.2).",
        ),
        (
            "a (corgi:1.2 wearing a hat",
            "the bracket of '(corgi:1.2 wearing a hat' is never closed, so everything after it "
            "gets more weight. Close it, or write \\( for the character.",
        ),
        (
            "a (red|blue) cat",
            "'(red|blue)' is drawn as these words, with more weight. For one of them at random, "
            "write {red|blue}.",
        ),
    ],
)
def test_what_was_hardly_meant_is_a_warning(prompt: str, warning: str) -> None:
    """The picture is drawn as written."""
    for text, name in ((f"prompt: {prompt}", "corgi.yaml"), (prompt, "corgi.txt")):
        recipe = read_one(text, name)
        assert (recipe.prompt, recipe.warnings) == (prompt, (warning,))
    recipe = read_one(f"prompt: a\nnegative_prompt: {prompt}")
    assert recipe.warnings == (warning,)


@pytest.mark.parametrize(
    "prompt",
    [
        *("a (corgi:1.2), (b)", "((a))", r"a \(b", "“a” and “b”", "”", "(a, b:1.2)"),
        *("at 1,2 (or 3)", "a)", "{a", r"\{a|b", "a|b}", "{a|{b|c}}", "a -blurry", "a -steps"),
    ],
)
def test_what_was_meant_is_no_warning(prompt: str) -> None:
    """Weights, escapes and quotes inside a prompt are valid."""
    assert read_one(prompt, "corgi.txt").warnings == ()


def test_several_mistakes_come_at_once() -> None:
    """Each mistake has its own remedy."""
    invalid = refused("prompt: a\nloras:\n- {name: pixel-art, strength: 0.5}\nsteps: 0")
    assert [(p.line, p.column, p.message) for p in invalid.problems] == [
        (3, 10, "no LoRA 'pixel-art' in models/loras. None is installed."),
        (3, 21, "a LoRA has no 'strength'. Write {name: pixel-art, weight: 0.8}."),
        (4, 8, "steps must be a whole number from 1 to 150, not 0."),
    ]
