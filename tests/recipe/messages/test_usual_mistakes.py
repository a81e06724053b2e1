"""Mistakes that people make often: one message each, with the remedy that is right."""

import pytest

from tests.recipe.reading import messages, read_one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("promt: a corgi\nsteps: 3", ["unknown field 'promt'. Did you mean 'prompt'?"]),
        ("prompt:a corgi", ["a space is missing after the colon: write 'prompt: a corgi'."]),
        (
            "prompt:a corgi\nsteps:10",
            [
                "a space is missing after the colon: write 'prompt: a corgi'.",
                "a space is missing after the colon: write 'steps: 10'.",
            ],
        ),
        (
            'prompt: "a corgi saying "hello" to me"',
            [
                "there is more text after the closing quote. Put the quotes around all of it: "
                "prompt: 'a corgi saying \"hello\" to me'"
            ],
        ),
        (
            "prompt: a\ncfg_scale: 0",
            ["cfg_scale must be a number from 1 to 30, not 0. 1 switches guidance off."],
        ),
        (
            "prompt: a\nscheduler: foo",
            ["unknown field 'scheduler'. Did you mean 'schedule_type'?"],
        ),
        (
            "prompt: a\nscheduler: karras\nschedule_type: beta",
            ["'schedule_type' is given twice: already on line 2 as 'scheduler'. Keep one."],
        ),
    ],
)
def test_a_usual_mistake_has_its_remedy(text: str, expected: list[str]) -> None:
    """And no second message that follows from the first."""
    assert messages(text) == expected


def test_a_misspelt_sampler_with_its_schedule_type_is_found() -> None:
    """Every spelling that is accepted is compared."""
    (message,) = messages("prompt: a\nsampler: DPM+ 2M Karas")
    assert "Did you mean 'DPM++ 2M Karras'?" in message


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("karras", "schedule_type", "karras"),
        ("SGM Uniform", "schedule_type", "sgm_uniform"),
        ("EulerAncestralDiscreteScheduler", "sampler", "Euler a"),
    ],
)
def test_a_scheduler_is_a_schedule_type_or_a_sampler(written: str, field: str, value: str) -> None:
    """ComfyUI's is the one, diffusers' the other."""
    assert getattr(read_one(f"prompt: a\nscheduler: {written}"), field) == value
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
            "“a corgi”",
            "the quotes “ and ” around the prompt are part of its text. Remove them, or use "
            "straight quotes.",
        ),
    ],
)
def test_what_was_hardly_meant_is_a_warning(prompt: str, warning: str) -> None:
    """It is drawn as written."""
    for text, name in ((f"prompt: {prompt}", "corgi.yaml"), (prompt, "corgi.txt")):
        recipe = read_one(text, name)
        assert (recipe.prompt, recipe.warnings) == (prompt, (warning,))
    recipe = read_one(f"prompt: a\nnegative_prompt: {prompt}")
    assert recipe.warnings == (warning,)


@pytest.mark.parametrize(
    "prompt",
    ["a (corgi:1.2), (b)", "((a))", r"a \(b", "“a” and “b”", "(a, b:1.2)", "at 1,2 (or 3)", "a)"],
)
def test_what_was_meant_is_no_warning(prompt: str) -> None:
    """Weights, escapes and quotes within."""
    assert read_one(prompt, "corgi.txt").warnings == ()
