"""The text of an error file, its one line in the log, and what it shows of hostile files."""

from picowatch.recipe.messages.problems import closing_of, error_text
from tests.recipe.reading import refused


def test_all_problems_of_a_file_come_at_once_in_the_promised_form() -> None:
    """The text is exactly the one in the documentation; the log gets the same in one line."""
    invalid = refused("prompt: a corgi\nsteps: 30\nstesp: 300\nwidth: 500\n")
    unknown = "unknown field 'stesp'. Did you mean 'steps'?"
    multiple = "width must be a multiple of 8: 496 or 504 would do."
    assert error_text(invalid) == (
        "inbox/corgi.yaml, line 3, column 1\n\n"
        "    3 | stesp: 300\n"
        f"        ^^^^^\n{unknown}\n\n"
        "inbox/corgi.yaml, line 4, column 8\n\n"
        "    4 | width: 500\n"
        f"               ^^^\n{multiple}\n\n"
        "Nothing in this file was run. Fix it and save again.\n"
    )
    assert str(invalid) == (
        f"inbox/corgi.yaml, line 3, column 1: {unknown}; line 4, column 8: {multiple}"
    )


def test_carets_stand_below_what_a_terminal_shows() -> None:
    """Chinese letters and most emoji take two columns; control characters are escapes."""
    text = error_text(refused("prompt: 猫 and 🐶, __x__\n"))
    assert "    1 | prompt: 猫 and 🐶, __x__\n                ^^^^^^^^^^^^^^^^\n" in text
    text = error_text(refused(b"prompt: a \x1b[31mred\x07\n", name="a\x1b[2J\n.yaml"))
    assert "    1 | prompt: a \\x1b[31mred\\x07\n                  ^^^^\n" in text
    assert "inbox/a\\x1b[2J\\n.yaml, line 1" in text


def test_very_long_lines_are_cut_around_the_column() -> None:
    """In a prompt of a thousand words the excerpt still shows the wrong one."""
    text = error_text(refused(f"prompt: {'word ' * 300} AND {'word ' * 300}\n"))
    excerpt, carets = text.split("\n")[2:4]
    assert len(excerpt) < 120
    assert excerpt[carets.index("^") : carets.rindex("^") + 1].startswith("word")


def test_the_same_mistake_on_many_lines_is_shown_once() -> None:
    """So it hides no other mistake, in the error file and in the log."""
    prompts = ["a <lora:ink:1>"] * 300
    prompts[7], prompts[200] = "fine", "cats AND dogs"
    invalid = refused("\n".join(prompts), name="a.txt")
    lines = "2, 3, 4, 5, 6, 7, 9, 10, 11, 12 and 287 more"
    ink = f"{invalid.problems[0].message}\n(Also on lines {lines}.)"
    text = error_text(invalid)
    assert text.startswith(
        "inbox/a.txt, line 1, column 1\n\n    1 | a <lora:ink:1>\n        ^^^^^^^^^^^^^^\n"
        f"{ink}\n\ninbox/a.txt, line 201, column 1\n"
    )
    line = ink.replace("\n", " ")
    assert str(invalid).startswith(f"inbox/a.txt, line 1, column 1: {line}; line 201, ")


def test_problems_that_are_not_kept_are_not_denied() -> None:
    """Only the first thousand are kept; the message says "at least" for the rest."""
    cats = "".join(f"cats <lora:{number}:1>\n" for number in range(1001))
    invalid = refused(cats, name="corgi.txt", max_images=2000)
    assert "… and at least 950 more.\n" in error_text(invalid)
    assert str(invalid).endswith("; and at least 950 more")
    invalid = refused("cats AND dogs\n" * 1001, name="corgi.txt", max_images=2000)
    assert "(Also on lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 989 more.)" in error_text(invalid)
    invalid = refused('[{"prompt": "a", "steps": 0}, {"prompt": "a", "steps": 0}]', "a.json")
    assert "\n(Also on line 1.)\n" in error_text(invalid)


def test_problems_of_defaults_name_their_own_file_once() -> None:
    """This holds for any number of recipes that start from it, next to their own problems."""
    defaults = {"_defaults.yaml": "steps: 24\n", "pets/_defaults.yaml": "steps: 0\ncfgs: 3\n"}
    text = "- {prompt: a, stesp: 3}\n- prompt: b\n"
    invalid = refused(text, name="pets/corgi.yaml", defaults=defaults)
    assert [(problem.file, problem.line, problem.column) for problem in invalid.problems] == [
        ("pets/_defaults.yaml", 1, 8),
        ("pets/_defaults.yaml", 2, 1),
        ("pets/corgi.yaml", 1, 15),
    ]
    assert "inbox/pets/_defaults.yaml, line 1, column 8" in error_text(invalid)
    assert closing_of(invalid, "pets/corgi.yaml").startswith("Nothing in pets/corgi.yaml was run.")
    assert closing_of(invalid, "_pictures.yaml").startswith("Nothing in pets was run. Fix pets/")
