"""JSON, scripts and tables in a TXT are refused with a remedy, never drawn."""

import pytest

from tests.recipe.reading import messages, read_one, refused

TXT = "corgi.txt"


@pytest.mark.parametrize(
    "prompt",
    [
        "an old BMW -S 54 engine", "a frozen lake at -C 5", "a cat -s 50 -W 512",
        "an F -16 over a -p- sign", "the sd card -- macro", "portrait of Mr. T - s 50",
        "a plan B -m", "python in the grass, by a .py file", "> a cat", "import cars",
        "name, prompt, title", '{"a"|b} cat',
    ],
)  # fmt: skip
def test_prompts_that_only_look_alike_are_drawn(prompt: str) -> None:
    """The meaning of hyphens, numbers and braces in a prompt is not guessed."""
    assert read_one(prompt, TXT).prompt == prompt


def test_a_value_may_follow_an_equals_sign() -> None:
    """As shells write it."""
    recipe = read_one('--prompt="a cat" --steps=30 --negative-prompt = dim, dark', TXT)
    assert (recipe.prompt, recipe.steps, recipe.negative_prompt) == ("a cat", 30, "dim, dark")


def test_the_marks_around_a_chat_s_answer_are_no_prompts() -> None:
    """Otherwise two pictures of ``` would be rendered."""
    found = refused("```text\na corgi\n```\n", TXT).problems
    assert [(p.line, p.column, p.message) for p in found] == [
        (line, 1, "``` marks a text in chats and web pages. Delete the lines that contain it.")
        for line in (1, 3)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n "prompt": "a cat"}', "this looks like JSON; rename it to corgi.json"),
        ('[{"prompt": "a"}, {"prompt": "b"},]', "this looks like JSON; rename it to corgi.json"),
        ("{\\rtf1\\ansi\n\\f0 a corgi}", "this is RTF, a web page or a script, not plain text"),
        ("<!DOCTYPE html>\n<body>404</body>", "this is RTF, a web page or a script, "),
        ("#!/usr/bin/env python3\nprint('a')", "this is RTF, a web page or a script, "),
        ("import torch\nprint('a')", "this is RTF, a web page or a script, "),
        ("name,prompt,negative_prompt\nA,cinematic {prompt},dim", "this is a table, not prompts."),
        ('"prompt";"steps"\na cat;10', "this is a table, not prompts. Save it with the ending"),
    ],
)
def test_a_file_that_is_no_page_of_prompts_is_one_error(text: str, message: str) -> None:
    """Its lines are not rendered one by one."""
    (found,) = messages(text, TXT)
    assert found.startswith(message)
