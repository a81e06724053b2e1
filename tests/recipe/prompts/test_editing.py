"""Prompt editing with A1111's counting."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from picowatch.recipe.parts import Hires
from picowatch.recipe.passes import Sampling, samplings
from picowatch.recipe.prompts.editing import parse_edits, text_at
from tests.engine.requests import request

TEN = Sampling(10, 10)


def schedule(prompt: str, sampling: Sampling = TEN) -> list[tuple[int, str]]:
    """Return the last step of each text as A1111 does, from 1; evaluation 0 has the first text."""
    nodes = parse_edits(prompt)
    texts = [text_at(nodes, evaluation, sampling) for evaluation in range(1, sampling.planned + 1)]
    assert text_at(nodes, 0, sampling) == texts[0]
    steps = list(enumerate(texts, start=1))
    return [step for step, after in zip(steps, [*texts[1:], None], strict=True) if step[1] != after]


# The doctests of A1111's get_learned_conditioning_prompt_schedules, but for one that its grammar
# has outgrown: it has no alternation yet where a `|` stands outside of square brackets.
DOCTESTS = [
    ("test", [(10, "test")]),
    ("a [b:3]", [(3, "a "), (10, "a b")]),
    ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
    ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
    ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
    ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
    ("a [unbalanced", [(10, "a [unbalanced")]),
    ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
    ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
    ("[a|(b:1.1)]", [(step, "(b:1.1)" if step % 2 == 0 else "a") for step in range(1, 11)]),
    ("[fe|]male", [(step, "male" if step % 2 == 0 else "female") for step in range(1, 11)]),
    ("[fe|||]male", [*((n, "female" if n % 4 == 1 else "male") for n in (1, 4, 5, 8, 9, 10))]),
]


SECOND = Sampling(10, 10, before=10)
SECOND_PASS = [
    ("a [b:.5] c", [(10, "a b c")]),
    ("a [b:1.5] c", [(5, "a  c"), (10, "a b c")]),
    ("a [b:12] c", [(2, "a  c"), (10, "a b c")]),
    ("[a|b]", [(step, "b" if step % 2 == 0 else "a") for step in range(1, 11)]),
]


@pytest.mark.parametrize(
    ("sampling", "prompt", "texts"),
    [(TEN, *row) for row in DOCTESTS] + [(SECOND, *row) for row in SECOND_PASS],
)
def test_words_change_as_a1111_changes_them(
    sampling: Sampling, prompt: str, texts: list[tuple[int, str]]
) -> None:
    """A second pass goes on counting numbers; shares begin from 1, and alternation anew."""
    assert schedule(prompt, sampling) == texts


@pytest.mark.parametrize(
    "text",
    [
        *("", "[cat]", "((cat))", "[cat:dog]", "[cat:dog:half]", "[cat:dog:5:6:7]", "[cat|dog:5]"),
        *(r"\[cat:dog:5\]", r"\[cat|dog\]", "[cat:[dog:cow] :5]", "[(cat:dog:5]"),
        *("a|b, 16:9, (a:b:1.2)", "[cat:dog:5", "cat:dog:5]"),
    ],
)
def test_what_is_no_edit_stays_as_it_is(text: str) -> None:
    """Weights, broken brackets and escaped characters stay, also beside an edit."""
    assert schedule(text) == [(10, text)]
    assert schedule(f"[x:5]{text}")[-1] == (10, f"x{text}")


@pytest.mark.parametrize(
    ("when", "last"),
    [("-5", 0), ("0.05", 0), ("0.29", 2), ("1.", 10), ("+4", 4), ("2e0", 2), ("1e99", 10)],
)
def test_the_step_is_any_number(when: str, last: int) -> None:
    """Beyond the first and the last step nothing changes."""
    texts = {step: "cat" for step in (last,) if step} | ({10: "dog"} if last < 10 else {})
    assert schedule(f"[cat:dog:{when}]") == list(texts.items())


@given(st.text("[]()|:.5\\aB \n{}_"), st.integers(0, 12))
@example("[" * 5000 + "a" + ":1]" * 5000, 0)
@example("[a:B:1.0e999]", 0)
def test_any_text_says_something_at_every_step(text: str, evaluation: int) -> None:
    """A text without square brackets stays the same; brackets out of all reason are text."""
    for sampling in (TEN, Sampling(3, 10), Sampling(10, 10, 20), Sampling(0, 0, 20)):
        said = text_at(parse_edits(text), evaluation, sampling)
        assert set(said) <= set(text)
        assert "[" in text or said == text


def passes(**values: Any) -> list[tuple[int, int, int | None]]:
    return [
        (sampling.evaluations, sampling.planned, sampling.before)
        for sampling in samplings(request(**values))
    ]


def test_passes_are_counted_in_evaluations() -> None:
    """A start image plans all steps and takes some; some samplers evaluate twice per step."""
    assert passes(steps=10) == [(10, 10, None)]
    assert passes(steps=10, sampler="Heun") == [(19, 20, None)]
    assert passes(steps=10, image="a.png", denoising_strength=0.5) == [(5, 10, None)]
    hires = Hires(scale=2.0, steps=8, denoising_strength=0.5)
    assert passes(steps=10, hires=hires) == [(10, 10, None), (4, 4, 10)]
    assert passes(steps=10, hires=hires, sampler="DPM2") == [(19, 20, None), (7, 8, 20)]
