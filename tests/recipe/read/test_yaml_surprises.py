"""What YAML makes of what people write, and how errors explain it."""

import json

import pytest

from picowatch.recipe import error_text
from tests.recipe.reading import read, read_one, refused

WHOLE_SEED = (
    "seed must be a whole number from 0 to 4294967295, random, a range like 1..8, or a list like "
    "[1, 2, 3]"
)

# The file, line and column of the problem, the message.
SURPRISES = [
    (
        "prompt: yes",
        (1, 9),
        "prompt must be text, but YAML reads yes as true. For text, put it in quotes: "
        "prompt: 'yes'",
    ),
    (
        "prompt: a\nnegative: Off",
        (2, 11),
        "negative_prompt must be text, but YAML reads Off as false. For text, put it in quotes: "
        "negative_prompt: 'Off'",
    ),
    (
        "prompt: 42",
        (1, 9),
        "prompt must be text, but YAML reads 42 as a number. For text, put it in quotes: "
        "prompt: '42'",
    ),
    (
        "prompt: 2024-01-01",
        (1, 9),
        "prompt must be text, but YAML reads 2024-01-01 as a date. For text, put it in quotes: "
        "prompt: '2024-01-01'",
    ),
    (
        "prompt: 1:30",
        (1, 9),
        "prompt must be text, but YAML reads 1:30 as the number 90 in base 60, like minutes and "
        "seconds. For text, put it in quotes: prompt: '1:30'",
    ),
    (
        "prompt: a\nsteps: 1e2",
        (2, 8),
        "steps must be a whole number from 1 to 150, but YAML reads 1e2 as text. Write 100.",
    ),
    (
        "prompt: a\nwidth: 128\nheight:",
        (3, 1),
        "height has no value: YAML reads an empty value as null. Write a whole number from 64 to "
        "2048, or delete the line.",
    ),
    (
        "prompt： a corgi\nsteps: 3",
        (1, 7),
        "this colon is full-width. Write a plain colon and a space after it: 'prompt: …'.",
    ),
    (
        "prompt：a corgi",
        (1, 1),
        "this colon is full-width. Write a plain colon and a space after it: 'prompt: a corgi'.",
    ),
    (
        'prompt: a\nimage: "C:\\Users\\me\\dog.png"',
        (2, 11),
        "in double quotes \\U begins the hexadecimal number of a character, but this is not one. "
        "Use single quotes, or write the backslash twice.",
    ),
    (
        'prompt: a\nimage: "dogs\\xmas.png"\nsteps: 3',
        (2, 13),
        "in double quotes \\x begins the hexadecimal number of a character, but this is not one. "
        "Use single quotes, or write the backslash twice.",
    ),
    (
        "prompt: a\ncfg_rescale: 1e-05",
        (2, 14),
        "cfg_rescale must be a number from 0 to 1, but YAML reads 1e-05 as text. Write 1.0e-05.",
    ),
    (
        "```yaml\nprompt: a\n```",
        (1, 1),
        "``` is how chats and web pages mark a text. Delete the lines that have it.",
    ),
    (
        '{"prompt": "a"}\n{"prompt": "b"}',
        (2, 1),
        "the recipe before this line has ended. Write a line --- between two recipes.",
    ),
    (
        "prompt: a\nsteps: 012",
        (2, 8),
        "steps must be a whole number from 1 to 150, but YAML reads 012 as the octal number 10. "
        "Write the number you mean in plain digits.",
    ),
    (
        "prompt: a\nsteps: 089",
        (2, 8),
        "steps must be a whole number from 1 to 150, but YAML reads 089 as text. Write 89.",
    ),
    (
        "prompt: a\nseed: 1_000",
        (2, 7),
        f"{WHOLE_SEED}, but YAML reads 1_000 as the number 1000. Write the number you mean in "
        "plain digits.",
    ),
    (
        "prompt: a\nseed: 0x20",
        (2, 7),
        f"{WHOLE_SEED}, but YAML reads 0x20 as the hexadecimal number 32. Write the number you "
        "mean in plain digits.",
    ),
    (
        "prompt: a\nseed: 1:30",
        (2, 7),
        f"{WHOLE_SEED}, but YAML reads 1:30 as the number 90 in base 60, like minutes and "
        "seconds. Write the number you mean in plain digits.",
    ),
    (
        f"prompt: a\nseed: {'1' * 10_000}",
        (2, 7),
        f"{WHOLE_SEED}, but YAML reads {'1' * 59}… as a number of 10,000 characters. Write the "
        "number you mean in plain digits.",
    ),
    (
        "prompt: a\ncfg_scale: .inf",
        (2, 12),
        "cfg_scale must be a number from 1 to 30, but YAML reads .inf as infinity. Write the "
        "number you mean in plain digits.",
    ),
    (
        "prompt: a\ncfg_scale: .NaN",
        (2, 12),
        "cfg_scale must be a number from 1 to 30, but YAML reads .NaN as 'not a number'. Write "
        "the number you mean in plain digits.",
    ),
    (
        "prompt: a\nsteps: yes",
        (2, 8),
        "steps must be a whole number from 1 to 150, but YAML reads yes as true. Write the "
        "number you mean in plain digits.",
    ),
    (
        "prompt:",
        (1, 1),
        "prompt has no value: YAML reads an empty value as null. Write prompt: '' for empty "
        "text, or delete the line.",
    ),
    (
        "prompt: a\nsteps: ~",
        (2, 8),
        "steps has no value: YAML reads ~ as null. Write a whole number from 1 to 150, or delete "
        "the line.",
    ),
    (
        "prompt: a corgi # in the park",
        (1, 17),
        "YAML reads everything from this # on as a comment: prompt would be 'a corgi'. If it "
        "belongs to the text, write prompt: 'a corgi # in the park'; if it is a comment, give it "
        "a line of its own.",
    ),
    (
        "prompt: a corgi\n  in the #park",
        (2, 10),
        "YAML reads everything from this # on as a comment: prompt would be 'a corgi in the'. If "
        "it belongs to the text, write prompt: 'a corgi in the #park'; if it is a comment, give "
        "it a line of its own.",
    ),
    (
        "prompt: #corgi",
        (1, 9),
        "YAML reads everything from this # on as a comment: prompt would be empty. If it belongs "
        "to the text, write prompt: '#corgi'; if it is a comment, give it a line of its own.",
    ),
    (
        "prompt: a corgi, style: oil painting",
        (1, 23),
        "YAML reads this ': ' as the start of another field. Put the text in quotes: "
        "prompt: 'a corgi, style: oil painting'",
    ),
    (
        "prompt: [cat] dog",
        (1, 9),
        "YAML reads [ at the start of a value as a list. For text, put it in quotes: "
        "prompt: '[cat] dog'",
    ),
    (
        "prompt: [cat]",
        (1, 9),
        "prompt must be text, but YAML reads [cat] as a list. For text, put it in quotes: "
        "prompt: '[cat]'",
    ),
    (
        "prompt: {cat} dog",
        (1, 9),
        "YAML reads { at the start of a value as a mapping. For text, put it in quotes: "
        "prompt: '{cat} dog'",
    ),
    (
        "prompt: *star",
        (1, 9),
        "YAML reads *star as a reference to something named &star, and there is nothing of that "
        "name. If it is text, put it in quotes.",
    ),
    (
        "prompt: &co dog",
        (1, 9),
        "YAML reads &co as the name of what follows, not as text, and nothing in the file refers "
        "to that name. Put the text in quotes.",
    ),
    (
        "prompt: !wow dog",
        (1, 9),
        "YAML reads !wow as a tag, and picowatch reads plain values only, without tags. If it is "
        "text, put it in quotes.",
    ),
    (
        "prompt: %dog",
        (1, 9),
        "YAML reads % at the start of a value as a directive. For text, put it in quotes: "
        "prompt: '%dog'",
    ),
    (
        "prompt: @dog",
        (1, 9),
        "YAML reads @ at the start of a value as a reserved character. For text, put it in "
        "quotes: prompt: '@dog'",
    ),
    (
        "prompt: `dog`",
        (1, 9),
        "YAML reads ` at the start of a value as a reserved character. For text, put it in "
        "quotes: prompt: '`dog`'",
    ),
    (
        "prompt: - dog",
        (1, 9),
        "YAML reads - at the start of a value as a list element. For text, put it in quotes: "
        "prompt: '- dog'",
    ),
    (
        "prompt: >\nsteps: 3",
        (1, 9),
        "prompt is empty: the lines of the text below > must be indented.",
    ),
    ("prompt: 'dog\nsteps: 3", (1, 9), "the quote ' that opens here is never closed."),
    (
        'prompt: "a" dog',
        (1, 13),
        "there is more text after the closing quote. Put the quotes around all of it: "
        "prompt: '\"a\" dog'",
    ),
    (
        'prompt: "a \\(dog\\)"',
        (1, 12),
        "in double quotes a backslash begins an escape, and YAML has no \\(. Use single "
        "quotes, or write the backslash twice.",
    ),
    (
        "prompt: dog\n\tsteps: 3",
        (2, 1),
        "this line is indented with a tab. YAML requires spaces.",
    ),
    (
        "prompt: dog\n  steps: 3",
        (2, 3),
        "'steps' is indented deeper than the field above it, so YAML takes the line as more of "
        "that field's text. Put it right below, without the spaces.",
    ),
    (
        "prompt: dog\nsteps:3",
        (2, 6),
        "a space is missing after the colon: write 'steps: …'.",
    ),
    (
        "prompt:dog\nsteps: 3",
        (1, 7),
        "a space is missing after the colon: write 'prompt: …'.",
    ),
    (
        "a dog\nsteps: 3",
        (1, 1),
        "this line has no 'name: value'. Write 'prompt: …', or for a file with one prompt per line "
        "use the ending .txt.",
    ),
    (
        "- prompt: dog\nsteps: 3",
        (2, 1),
        "this line is outside the list above. Indent it like the fields of its element, "
        "or begin it with '- ' to start the next recipe.",
    ),
    (
        "prompt: dog\n- prompt: cat",
        (2, 1),
        "a list begins here in the middle of a mapping. A file holds either one recipe, or a "
        "list in which each recipe begins with '- '.",
    ),
    (
        "a dog\na cat",
        (1, 1),
        "this is text, not a recipe. Write 'prompt: a dog', or rename the file to corgi.txt: "
        "there each line is a prompt.",
    ),
    (
        "- a dog",
        (1, 3),
        "'a dog' is not a recipe. Begin each recipe with '- prompt: …'.",
    ),
    (
        "- prompt: a\n-",
        (2, 2),
        "this element of the list is empty. Write '- prompt: …', or delete it.",
    ),
    (
        "- [a]",
        (1, 3),
        "a list in a list is not a recipe. Begin each recipe with '- prompt: …'.",
    ),
    (
        "prompt: a\nsteps: [20, 30]",
        (2, 8),
        "steps must be a whole number from 1 to 150, but YAML reads [20, 30] as a list. For "
        "one image with each write sweep: {steps: [20, 30]}",
    ),
    (
        "prompt: a\n? [x]\n: 3",
        (2, 3),
        "a field's name must be a word, not a list or a mapping.",
    ),
    (
        "prompt: !!python/object/apply:os.system x",
        (1, 9),
        "YAML reads !!python/object/apply:os.system as a tag, and picowatch reads plain values "
        "only, without tags. If it is text, put it in quotes.",
    ),
    (
        "prompt: a\n}",
        (2, 1),
        "YAML cannot parse this (did not find expected key). A recipe has lines like "
        "'steps: 30'; put text with special characters in quotes.",
    ),
    ("prompt: a\n<<: 3", (2, 5), "<< takes a mapping, like <<: *name."),
]


@pytest.mark.parametrize(("text", "position", "message"), SURPRISES)
def test_a_message_says_what_yaml_understood(
    text: str, position: tuple[int, int], message: str
) -> None:
    """One problem, at its position, with the way out."""
    (problem,) = refused(text).problems
    assert (problem.line, problem.column) == position
    assert problem.message == message


PROPOSALS = [
    (text, message.partition("quotes: ")[2])
    for text, _, message in SURPRISES
    if "quotes: prompt" in message
]


@pytest.mark.parametrize(("text", "proposal"), PROPOSALS)
def test_what_a_message_proposes_to_write_is_read(text: str, proposal: str) -> None:
    """A proposal `prompt: 'text'` is YAML that holds all of the text."""
    assert read_one(proposal).prompt == text.removeprefix("prompt: ")


def test_plain_text_over_several_lines_is_one_prompt() -> None:
    """YAML joins indented lines with spaces."""
    assert read_one("prompt: a corgi\n  at the beach\nsteps: 3").prompt == "a corgi at the beach"


def test_a_block_keeps_its_lines_and_not_its_last_line_break() -> None:
    """`|` is for prompts with anything in them."""
    text = "prompt: |\n  a corgi # no comment\n  style: oil, [x]\nsteps: 3\n"
    assert read_one(text).prompt == "a corgi # no comment\nstyle: oil, [x]"


def test_comments_are_fine_where_nothing_can_be_lost() -> None:
    """Behind numbers, names and quoted text."""
    recipe = read_one("# mine\nprompt: 'a' # b\nsteps: 3 # few\nsampler: Euler # fast\n")
    assert (recipe.prompt, recipe.steps, recipe.sampler) == ("a", 3, "Euler")


def test_a_mapping_a_list_and_documents_are_recipes_in_order() -> None:
    """Their positions count through the file; empty documents do not count."""
    recipes = read("prompt: a\n---\n- prompt: b\n- prompt: c\n---\n---\n# end\n")
    assert [(r.prompt, r.entry_index, r.line) for r in recipes] == [
        ("a", 0, 1),
        ("b", 1, 3),
        ("c", 2, 4),
    ]


def test_tabs_that_editors_leave_on_empty_lines_are_no_indentation() -> None:
    """Nobody sees them."""
    assert read_one("prompt: a\n\t\n  \t \nsteps: 3\n\t").steps == 3


def test_json_is_yaml_too() -> None:
    """Scripts like to write JSON."""
    assert read_one('{"prompt": "a\\n\\u00e9", "steps": 3}').prompt == "a\né"
    assert read_one(json.dumps({"prompt": "a 😀", "steps": 3})).prompt == "a 😀"


@pytest.mark.parametrize("text", ["# only a comment\n", "---\n", "[]\n", "~\n"])
def test_a_file_without_entries_is_no_error(text: str) -> None:
    """There is just nothing to make."""
    assert read(text) == []


def test_anchors_and_merges_are_expanded() -> None:
    """What stands in the mapping itself beats what is merged into it."""
    recipes = read("- &base {prompt: a, steps: 3, seed: 1}\n- <<: *base\n  seed: 2\n- *base\n")
    assert [(r.prompt, r.steps, r.seed) for r in recipes] == [("a", 3, 1), ("a", 3, 2), ("a", 3, 1)]


def test_an_anchor_inside_of_itself_is_refused() -> None:
    """It would never end."""
    problem = refused("prompt: &a [*a]").problems[-1]
    assert problem.message == "*a is inside what it refers to, which would never end."


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt: " + "[" * 500_000, "this is nested more than 20 deep. A recipe needs three."),
        (BOMB, "the file holds more than 50,000 values."),
        ("- a\n" * 200_000, "the file holds more than 50,000 values."),
        ("a: &a 1\nb: [" + "*a, " * 300 + "]", "more than 200 aliases (*name) in one file."),
    ],
)
def test_hostile_yaml_is_stopped_while_it_is_read(text: str, message: str) -> None:
    """Nesting, expanding anchors, floods of values and aliases."""
    assert [problem.message for problem in refused(text).problems] == [message]


def test_every_message_is_whole_and_printable() -> None:
    """No message shows a stray character of the file."""
    for text, _, _ in SURPRISES:
        assert error_text(refused(text)).replace("\n", "").isprintable()


DEEPER = (
    "is indented deeper than the field above it, so YAML takes the line as more of that field's "
    "text. "
)


@pytest.mark.parametrize(
    ("text", "message", "fixed"),
    [
        (
            "prompt: a\nhires:\n  scale: 2\n   upscaler: Lanczos",
            f"'upscaler' {DEEPER}Indent it exactly like scale, with 2 spaces.",
            "  upscaler",
        ),
        (
            "prompt: a\nhires:\n scale: 2\n  steps: 3",
            f"'steps' {DEEPER}Indent it exactly like scale, with 1 space.",
            " steps",
        ),
        (
            "- prompt: a\n     seed: 3",
            f"'seed' {DEEPER}Indent it exactly like prompt, with 2 spaces.",
            "  seed",
        ),
        (
            "- prompt: a\n # mine\n\n seed: 3",
            "'seed' is not indented like a field above it. Indent it exactly like prompt, with 2 "
            "spaces.",
            "  seed",
        ),
        (
            "prompt: a\nhires:\n  scale: 2\n steps: 3",
            "'steps' is not indented like a field above it. Indent it exactly like scale, with 2 "
            "spaces, or like hires, without spaces.",
            "steps",
        ),
        (
            "- prompt: a\n  hires:\n     scale: 2\n   steps: 3",
            "'steps' is not indented like a field above it. Indent it exactly like scale, with 5 "
            "spaces, or like hires, with 2.",
            "     steps",
        ),
    ],
)
def test_a_line_with_other_spaces_is_told_how_many(text: str, message: str, fixed: str) -> None:
    """As many as the fields that it belongs to; then it is read."""
    (problem,) = refused(text).problems
    assert problem.message == message
    assert problem.line == text.count("\n") + 1
    assert read_one(text.rpartition("\n")[0] + "\n" + fixed + ": " + text.rpartition(": ")[2])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- prompt: a\n-prompt: b", 2),
        ("-prompt: a\n seed: 3", 1),
        ("-prompt: a\n- prompt: b", 1),
        ("- prompt: a\n  seed: 3\n-steps: 3\n  prompt: b", 3),
    ],
)
def test_a_dash_without_a_space_is_shown(text: str, line: int) -> None:
    """YAML reads it as a part of the name, and stumbles there or over the line after it."""
    (problem,) = refused(text).problems
    lines = text.split("\n")
    name = lines[line - 1].partition(":")[0][1:]
    assert (problem.line, problem.column) == (line, 1)
    assert problem.message == f"a space is missing after the dash: write '- {name}: …'."


def test_a_dash_before_a_single_field_may_be_meant_or_not() -> None:
    """Where YAML reads on, both remedies are right."""
    assert [problem.message for problem in refused("-prompt: a\nseed: 3").problems] == [
        "unknown field '-prompt'. Write 'prompt: …', or for a list of recipes '- prompt: …' with "
        "a space."
    ]
