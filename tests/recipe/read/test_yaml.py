"""YAML recipes: scalars are text until a field reads them, and errors are PyYAML's, explained."""

from unittest.mock import patch

import pytest
import yaml

from picowatch.recipe.messages.problems import error_text
from picowatch.recipe.read import yaml_entries
from tests.recipe.reading import check_refused, messages, read, read_one, refused


@pytest.mark.parametrize(
    "text", ["yes", "Off", "42", "1984", "2024-01-01", "1:30", "012", "1e3", ".inf", "0x20", "1_0"]
)
def test_a_prompt_is_the_text_that_stands_there(text: str) -> None:
    recipe = read_one(f"prompt: {text}\nnegative: {text}")
    assert (recipe.prompt, recipe.negative_prompt) == (text, text)


# The file, line and column of the problem, what its message says.
MISTAKES = [
    ("prompt: a\nheight:", (2, 1), "height has no value. Write a whole number from 64 to 2048, or"),
    ("prompt:", (1, 1), "prompt has no value. Write prompt: '' for empty text, or delete"),
    ("prompt: >\nsteps: 3", (1, 9), "prompt is empty: the lines of the text below > must be"),
    ("prompt: a\nsampler: ~", (2, 10), "sampler has no value. Write a name, or delete the field."),
    ("prompt: a\nsteps: 0x20", (2, 8), "steps must be a whole number from 1 to 150, not '0x20'."),
    ("prompt: a corgi # in the park", (1, 17), "write prompt: 'a corgi # in the park'"),
    ("prompt: a, style: oil", (1, 17), "put it in quotes: prompt: 'a, style: oil'"),
    ("prompt: [cat]", (1, 9), "prompt must be text, not [cat]. For text, put it in quotes: prompt"),
    ("prompt: [a|b\nseed: 1", (1, 9), "For text, put it in quotes: prompt: '[a|b'"),
    ("prompt: *star", (1, 9), "*star has a meaning of its own in YAML. For text, put it in"),
    ("prompt: !!python/name:os.system x", (1, 9), "has a meaning of its own in YAML."),
    ("prompt: %dog", (1, 9), "put it in quotes: prompt: '%dog'"),
    ("prompt: 'dog\nsteps: 3", (1, 9), "the quote ' that opens here is never closed."),
    ('prompt: "a "red" dog"', (1, 13), "put it in quotes: prompt: 'a \"red\" dog'"),
    ('prompt: "a \\(dog\\)"', (1, 12), "put it in quotes: prompt: 'a \\(dog\\)'"),
    ('prompt: "\\ud800"', (1, 12), "found invalid Unicode character escape code."),
    ('prompt: a\nimage: "C:\\Users\\dog.png"', (2, 13), "Save the picture beside the recipe"),
    ("prompt: a\ncutout: {background: #fff}", (2, 22), 'begins a comment here. Write "#fff" in'),
    ("resize_to: {fit: pad, background: #f4f4f4}\nimage: a", (1, 35), 'Write "#f4f4f4" in quotes.'),
    ("<<<<<<< HEAD\nsteps: 1\n=======\nsteps: 2\n>>>>>>> b", (1, 1), "a merge has left both"),
    ("prompt: a\n<<<<<<< HEAD\nsteps: 1\n=======", (2, 1), "a merge has left both versions"),
    ("prompt: dog\n\tsteps: 3", (2, 1), "this line is indented with a tab. YAML requires spaces."),
    ("prompt: dog\n  steps: 3", (2, 8), "lines like 'steps: 30', without commas and all indented"),
    ("prompt: dog\nsteps:3", (2, 6), "a field has a colon and a space: write 'steps: 3'."),
    ("prompt:dog\nsteps: 3", (1, 7), "a field has a colon and a space: write 'prompt: dog'."),
    ("prompt dog", (1, 7), "a field has a colon and a space: write 'prompt: dog'."),
    ("prompt： a corgi", (1, 7), "a field has a colon and a space: write 'prompt: a corgi'."),
    ('"prompt": "a",\n"steps": 3', (1, 14), "without commas"),
    ("- prompt: dog\nsteps: 3", (2, 1), "YAML cannot parse this: did not find expected '-'"),
    ("prompt: a\nseed: [1, 2\nsteps: 3", (2, 7), "Is the [ that opens here closed?"),
    ("prompt: a\nsweep: {steps: [1, 2}}", (2, 16), "Is the [ that opens here closed?"),
    ('{"prompt": "a"}\n{"prompt": "b"}', (2, 1), "did not find expected <document start>"),
    ("```yaml\nprompt: a\n```", (1, 1), "``` marks a text in chats and web pages."),
    ("a dog\na cat", (1, 1), "Write 'prompt: a dog', or rename the file to corgi.txt: there each"),
    ("- a dog", (1, 3), "this is not a recipe. Write 'prompt: a dog'"),
    ("prompt: a\n? [x]\n: 3", (2, 3), "a field's name must be a word, as in 'steps: 30'."),
    ("prompt: a\n<<: 3", (2, 1), "unknown field '<<'."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "position", "message"), MISTAKES)
def test_a_mistake_has_one_message_with_its_remedy(
    text: str, position: tuple[int, int], message: str
) -> None:
    """It is at the mistake's position, without characters that could harm a terminal."""
    invalid = refused(text)
    (problem,) = invalid.problems
    assert (problem.line, problem.column) == position
    assert message in problem.message
    assert error_text(invalid).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("text", "proposal"),
    [
        (text, message.partition("prompt: ")[2])
        for text, _, message in MISTAKES
        if "quotes: prompt: " in message
    ],
)
def test_what_a_message_proposes_to_write_is_read(text: str, proposal: str) -> None:
    """A proposal `prompt: 'text'` is YAML that holds the text, without quotes around all of it."""
    (message,) = messages(text)
    assert read_one(message[message.index("prompt: '") :]).prompt == yaml.safe_load(proposal)


def test_every_line_without_its_space_is_shown() -> None:
    """YAML reads all of these lines as one text."""
    check_refused("prompt:a corgi\nsteps:10", "… 'prompt: a corgi'.", "… 'steps: 10'.")


def test_a_block_keeps_its_lines_and_not_its_last_line_break() -> None:
    """`|` is for prompts with anything in them; comments may stand where nothing can be lost."""
    text = "prompt: |\n  a corgi # no comment\n  style: oil, [x]\nsteps: 3\n"
    assert read_one(text).prompt == "a corgi # no comment\nstyle: oil, [x]"
    recipe = read_one("# mine\nprompt: 'a' # b\nsteps: 3 # few\nsampler: Euler # fast\n")
    assert (recipe.prompt, recipe.steps, recipe.sampler) == ("a", 3, "Euler")


def test_a_mapping_a_list_and_documents_are_recipes_in_order() -> None:
    """Their positions count through the file; empty documents, and files of none, do not count."""
    for text in ("# only a comment\n", "---\n", "[]\n", "~\n"):
        assert read(text) == []
    recipes = read("prompt: a\n---\n- prompt: b\n- prompt: c\n---\n---\n# end\n")
    assert [(r.prompt, r.position.line) for r in recipes] == [("a", 1), ("b", 3), ("c", 4)]
    # Tabs that editors leave on empty lines are no indentation.
    assert read_one("prompt: a\n\t\n  \t \nsteps: 3\n\t").steps == 3


@pytest.mark.parametrize(
    ("beginning", "again", "message"),
    [
        ("prompt: ", "[" * 9, "this is nested more than 20 levels deep. A recipe needs three."),
        ("b: [", "a, ", yaml_entries.TOO_MANY),
        ("b: [", "*a, ", "*a has a meaning of its own in YAML. For text, put it in quotes."),
    ],
)
@pytest.mark.parametrize("loader", [yaml_entries._LOADER, yaml.SafeLoader])
def test_hostile_yaml_is_stopped_while_it_is_read(
    beginning: str, again: str, message: str, loader: object
) -> None:
    """Nesting, floods of values and references; with and without libyaml, which is faster."""
    with patch.multiple(yaml_entries, _LOADER=loader, MAX_NODES=5_000):
        found = refused(beginning + again * 5_009)
    assert message in [problem.message for problem in found.problems]
