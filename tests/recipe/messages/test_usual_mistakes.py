"""Mistakes that people make often: one message each, with the remedy that is right."""

import pytest

from tests.recipe.reading import messages, read, read_one, refused

COMMA = (
    "YAML fields do not end with a comma. Write each field on its own line without the comma, or "
    "put the whole recipe into braces as in JSON: {…}."
)
SEED = (
    "seed must be a whole number from 0 to 4294967295, random, a range like 1..8, or a list like "
    "[1, 2, 3]"
)


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
        ("prompt: a\nseed: None", [f"{SEED}, not 'None'. For random seeds leave out seed."]),
        (
            "prompt: a\nsteps: none",
            [
                "steps must be a whole number from 1 to 150, not 'none'. For the default leave out "
                "steps."
            ],
        ),
        (
            "prompt: a\nsteps: 4;",
            [
                "steps must be a whole number from 1 to 150, not '4;'. Write 4, without the "
                "semicolon after it."
            ],
        ),
        (
            "prompt: a\ncfg_scale: 7.5.",
            [
                "cfg_scale must be a number from 1 to 30, not '7.5.'. Write 7.5, without the point "
                "after it."
            ],
        ),
        (
            '"steps": 20,\n"prompt": "a corgi"',
            [
                "steps must be a whole number from 1 to 150, not '20,'. Write 20, without the "
                "comma after it."
            ],
        ),
        ("prompt: a\nseed: 4;", [f"{SEED}, not '4;'. Write 4, without the semicolon after it."]),
        ('"prompt": "a corgi",\n"steps": 20', [COMMA]),
        ('"prompt": "a corgi",\n"steps": 20,\n', [COMMA]),
        ('"seed": [1, 2],\n"prompt": "a \\"big\\" corgi"', [COMMA]),
        ('"prompt": "a corgi", "steps": 20', [COMMA]),
        ("steps: 20\nprompt: 'a corgi',\nseed: 4", [COMMA]),
        (
            "prompt: a\nsteps: true",
            ["steps must be a whole number from 1 to 150, not true."],
        ),
        ("prompt: a\nwidth: 3", ["width must be a whole number from 64 to 2048, not 3."]),
        (
            "prompt: a\nsteps: 10,5",
            ["steps must be a whole number from 1 to 150. Write a whole number, such as 10."],
        ),
        (
            "prompt: a\ncount: 1,000",
            ["count must be a whole number from 1 to 1000000. Write 1000, without a comma."],
        ),
        (
            "prompt: a\nsize: 16:9",
            [
                "size is width and height in pixels, like 512x768. For 16:9 write 912x512 for "
                "SD 1.5, 1344x768 for SDXL, 224x128 for the demo model."
            ],
        ),
        (
            "prompt: a\nseed: [1..4, 9]",
            ["a list cannot contain a range. Write the range alone, or each seed."],
        ),
        ("prompt: a\nseed: 1 to 8", [f"{SEED}, not '1 to 8'. Write 1..8 for a range."]),
        ("prompt: a\nseed: 1, 2,3", [f"{SEED}, not '1, 2,3'. Write [1, 2, 3] for a list."]),
        ("prompt: a\nseed: 1,2", [f"{SEED}, not '1,2'. Write [1, 2] for a list."]),
        (
            "prompt: a\nsweep: [steps]",
            [
                "sweep must be a mapping like {steps: [10, 20], cfg_scale: 4..10 step 2}, but YAML "
                "reads [steps] as a list."
            ],
        ),
        (
            "prompt: a\nbatch_size: 4",
            [
                "unknown field 'batch_size'. Write count for the number of images. In "
                "picowatch.yaml, batch_size limits how many render at once."
            ],
        ),
        (
            "prompt: a\nloras:\n- {name: pixel-art, strength: 0.5}",
            [
                "no LoRA 'pixel-art' in models/loras. None is installed.",
                "a LoRA has no 'strength'. Write {name: pixel-art, weight: 0.8}.",
            ],
        ),
        (
            "prompt: a\nBatch count: 4",
            ["unknown field 'Batch count'. Write count for the number of images."],
        ),
        (
            "prompt = a corgi\nsteps = 4",
            ["a field is written with a colon and a space: 'prompt: a corgi'."],
        ),
        (
            "prompt: a\nsweep:\n  steps: 4, 8",
            [
                "the 'steps' sweep must be a list like [1, 2], or a range like 4..10 step 2. Write "
                "[4, 8]."
            ],
        ),
        (
            "prompt:\n- a corgi\n- a cat",
            [
                "prompt must be text, but YAML reads - a corgi - a cat as a list. For several "
                "pictures write several recipes, or a .txt with a prompt on each line."
            ],
        ),
        ("prompt: a\ndenoise: 0.4", ["unknown field 'denoise'. Write denoising_strength."]),
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


def test_a_schedule_type_is_no_sampler() -> None:
    """It is the other half of A1111's name, or another field."""
    (message,) = messages("prompt: a\nsampler: karras")
    assert "'karras' is a schedule type, not a sampler. Write schedule_type: karras" in message


@pytest.mark.parametrize(
    ("line", "name"),
    [("a corgi -steps 10", "steps"), ("a --seed 7 -cfg=7.5", "cfg"), ("a -size 64x64", "size")],
)
def test_a_flag_with_one_hyphen_is_no_prompt(line: str, name: str) -> None:
    """It would be drawn as text, in silence."""
    expected = f"there is only one hyphen before '{name}'; for a flag, write two hyphens: --{name}."
    assert expected in messages(line, "corgi.txt")


def test_a_flag_needs_a_space_before_it() -> None:
    """Like one with other dashes, it would be drawn as text."""
    assert messages("a corgi ,--steps 10", "corgi.txt") == ["a space is missing before '--steps'."]


def test_no_json_is_a_number_that_is_none() -> None:
    """Python's writer writes it."""
    found = messages('{"prompt": "a", "cfg_scale": NaN}', "corgi.json")
    assert found == ["JSON has no NaN. Write a number."]


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
    """ComfyUI's is the one, diffusers' the other; the schema for editors knows both."""
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
    [
        "a (corgi:1.2), (b)",
        "((a))",
        r"a \(b",
        "“a” and “b”",
        "(a, b:1.2)",
        "at 1,2 (or 3)",
        "a)",
        "{a",
        r"\{a|b",
        "a|b}",
        "{a|{b|c}}",
        "a -blurry",
        "a -steps",
    ],
)
def test_what_was_meant_is_no_warning(prompt: str) -> None:
    """Weights, escapes and quotes within."""
    assert read_one(prompt, "corgi.txt").warnings == ()


def test_commas_after_fields_are_shown_where_they_are() -> None:
    """And both remedies work."""
    lines = '"prompt": "a corgi",\n"steps": 20'
    (problem,) = refused(lines).problems
    assert (problem.line, problem.column) == (1, 20)
    for remedy in (lines.replace(",", ""), f"{{{lines}}}"):
        recipe = read_one(remedy)
        assert (recipe.prompt, recipe.steps) == ("a corgi", 20)


def test_commas_within_braces_are_not_blamed() -> None:
    """The mistake is elsewhere there."""
    (message,) = messages('{\n"prompt": "a corgi",\n"steps": 20')
    assert message != COMMA


PICTURES = "For several pictures write a recipe for each, or a _pictures.yaml in their folder."


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (
            "prompt: a\nimage: [a.png, b.png]",
            "corgi.yaml",
            f"image must be text, but YAML reads [a.png, b.png] as a list. {PICTURES}",
        ),
        (
            "prompt: a\nimage: c.png\nmask:\n- a.png\n- b.png",
            "corgi.yaml",
            f"mask must be text, but YAML reads - a.png - b.png as a list. {PICTURES}",
        ),
        (
            "prompt: a\nimage: [a.png]",
            "corgi.yaml",
            "image must be text, but YAML reads [a.png] as a list. Write image: a.png",
        ),
        (
            "from: [a.png]",
            "corgi.yaml",
            "from must be text, but YAML reads [a.png] as a list. Write from: a.png",
        ),
        (
            "from: [a.png, b.png]",
            "corgi.yaml",
            "from must be text, but YAML reads [a.png, b.png] as a list. Write a recipe for each.",
        ),
        (
            '{"prompt": "a", "image": ["a.png", "b.png"]}',
            "corgi.json",
            f'image must be text, not ["a.png", "b.png"]. {PICTURES}',
        ),
        (
            "prompt: a\nsampler: [Euler, Heun]",
            "corgi.yaml",
            "sampler must be text, but YAML reads [Euler, Heun] as a list. For one image with each "
            "write sweep: {sampler: [Euler, Heun]}",
        ),
    ],
)
def test_a_list_of_pictures_or_names_is_not_told_to_be_text(
    text: str, name: str, message: str
) -> None:
    """Quotes would make one name of all."""
    assert messages(text, name) == [message]


def test_a_sweep_as_the_message_writes_it_is_read() -> None:
    """And it has an image for each name."""
    (message,) = messages("prompt: a\nsampler: [Euler, Heun]")
    assert read_one(f"prompt: a\n{message[message.index('sweep') :]}").image_count == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a cat --count 30 --size 192x192",
            "this is a prompt with flags, as a .txt file has them. Rename the file to corgi.txt, "
            "or write each flag as a field: 'count: 30'.",
        ),
        (
            "a cat --cfg-scale=5\na dog",
            "this is a prompt with flags, as a .txt file has them. Rename the file to corgi.txt, "
            "or write each flag as a field: 'cfg_scale: 5'.",
        ),
        (
            "- a cat --count 30",
            "this is a prompt with flags, as a .txt file has them. Write '- prompt: a cat', and "
            "below it each flag as a field: '  count: 30'.",
        ),
    ],
)
def test_flags_in_yaml_are_not_told_to_become_a_prompt(text: str, message: str) -> None:
    """They would be drawn as text."""
    assert messages(text) == [message]
    assert read_one(text.partition("\n")[0].removeprefix("- "), "corgi.txt").prompt == "a cat"


def test_two_hyphens_in_a_text_are_no_flags() -> None:
    """Only the names of fields are."""
    (message,) = messages("a cat --ish thing")
    assert "Write 'prompt: a cat --ish thing'" in message


@pytest.mark.parametrize(
    ("text", "column", "instead"),
    [
        ("hires: {scale: 1,5}", 18, "1.5, with a decimal point"),
        ("hires: {scale: 1,5, steps: 3}", 18, "1.5, with a decimal point"),
        ("upscale: {scale: 2,25}", 20, "2.25, with a decimal point"),
        ("hires: {steps: 1,000}", 18, "1.000, with a decimal point, or 1000"),
        ("sweep: {cfg_scale: 5..9 step 0,5}", 32, "0.5, with a decimal point"),
        ("sweep: {cfg_scale: 5..9 step 1,5, steps: [3]}", 32, "1.5, with a decimal point"),
    ],
)
def test_a_decimal_comma_within_braces_is_shown(text: str, column: int, instead: str) -> None:
    """YAML reads the digits after it as the name of another field."""
    (problem,) = refused(f"prompt: a\n{text}").problems
    assert (problem.line, problem.column) == (2, column)
    assert problem.message == f"the comma before this ends the number. Write {instead}."


def test_a_decimal_comma_in_the_braces_of_a_recipe_is_shown() -> None:
    """There, too, the rest is taken for a field; so it is in control."""
    assert "the comma before this ends the number. Write 0.5, with a decimal point." in messages(
        "prompt: a\ncontrol: {image: a.png, weight: 0,5}"
    )
    assert messages("{prompt: a, cfg_scale: 7,5}") == [
        "the comma before this ends the number. Write 7.5, with a decimal point."
    ]


@pytest.mark.parametrize(
    "text", ["hires: {scale: 1, 5}", "hires: {scale: 1.5,5}", "hires: {a5: 1}"]
)
def test_another_comma_is_not_taken_for_a_decimal_one(text: str) -> None:
    """Only between digits alone."""
    (message,) = messages(f"prompt: a\n{text}")
    assert message.startswith("hires has no ")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("cfg_scale: [5, 7]", "For one image with each write sweep: {cfg_scale: [5, 7]}"),
        ("steps: 10..20", "For one image with each write sweep: {steps: 10..20}"),
        ("steps: 8..20 step 4", "For one image with each write sweep: {steps: 8..20 step 4}"),
        ("count: 2..4", "Write the number you mean in plain digits."),
    ],
)
def test_several_numbers_in_a_field_are_told_to_be_a_sweep(text: str, remedy: str) -> None:
    """As the message writes it, it is read."""
    (message,) = messages(f"prompt: a\n{text}")
    assert message.endswith(remedy)
    if "sweep" in remedy:
        assert read_one(f"prompt: a\n{message[message.index('sweep:') :]}").image_count > 1


def test_a_number_list_of_json_is_told_to_be_a_sweep() -> None:
    """As JSON has it."""
    (message,) = messages('{"prompt": "a", "steps": [4, 8]}', "corgi.json")
    assert message.endswith('For one image with each write "sweep": {"steps": [4, 8]}')


@pytest.mark.parametrize("text", ["prompt: a\nsteps 30", "steps 30\nprompt: a", "prompt a\n"])
def test_a_field_without_its_colon_is_shown_with_it(text: str) -> None:
    """Wherever it stands."""
    (problem,) = refused(text).problems
    line = problem.source_line
    assert problem.message == f"a colon is missing: write '{line.replace(' ', ': ')}'."


def test_flags_in_a_prompt_of_yaml_are_a_warning() -> None:
    """They are drawn as text, unlike in a .txt."""
    recipe = read_one("prompt: a corgi --steps 30 --cfg-scale 5\n")
    assert recipe.warnings == (
        "'--steps 30' in prompt is part of its text: flags are for .txt files. Write the "
        "field steps instead.",
    )
    assert read_one("prompt: a corgi --ish 30").warnings == ()


def test_a_piece_of_the_prompt_alone_is_no_field_to_sweep() -> None:
    """It is what A1111's "Prompt S/R" begins with."""
    (message,) = messages("prompt: a red cat\nsweep: {red: [blue, green]}")
    assert message == (
        "sweep cannot vary 'red': there is no such field. For a piece of the prompt write "
        '"prompt: red".'
    )


@pytest.mark.parametrize("sweep", ["size: [64x64], width: [64]", "height: [64], size: [64x64]"])
def test_a_sweep_does_not_vary_the_size_and_a_side(sweep: str) -> None:
    """One would be laid over the other."""
    assert messages(f"prompt: a\nsweep: {{{sweep}}}") == [
        "size together with width or height: keep one of them."
    ]


@pytest.mark.parametrize(
    "flag",
    ["hires {scale: 2}", "sweep {steps: [4, 8]}", "control {image: a}", "upscale {scale: 2}"],
)
def test_a_mapping_after_a_flag_is_told_where_it_can_stand(flag: str) -> None:
    """It is right, but in the wrong place."""
    field, _, value = flag.partition(" ")
    (message,) = messages(f"a --{flag}", "corgi.txt")
    assert message == (
        f"a flag takes no mapping. Write {field}: {value} between two lines --- above the prompts, "
        "or in a .yaml file."
    )


def test_settings_without_prompts_are_a_mistake() -> None:
    """As they are in YAML; comments alone are not."""
    assert messages("---\nsteps: 3\n---\n# later\n", "corgi.txt") == [
        "a prompt is missing. Write it below the settings, in a line of its own."
    ]
    assert read("---\n---\n", "corgi.txt") == read("# steps\n", "corgi.txt") == []


@pytest.mark.parametrize("text", ["image of a corgi", "steps to a castle", "mask 2 wide"])
def test_a_text_that_begins_with_a_fields_name_is_no_field(text: str) -> None:
    """Most of them are words of prompts, too."""
    (message,) = messages(text)
    assert f"Write 'prompt: {text}'" in message


@pytest.mark.parametrize(
    "name", ["corgi.yaml.txt", "pets/corgi.yml.txt", "corgi.txt", "corgi.TXT.txt"]
)
def test_a_hidden_ending_is_not_kept(name: str) -> None:
    """Windows hides the one that its editor adds."""
    assert messages("prompt: a", name) == ["this looks like YAML; rename it to corgi.yaml"]


def test_single_quotes_around_a_name_are_no_json() -> None:
    """Python shows its values so."""
    assert messages("{'prompt': 'a'}", "corgi.json") == [
        'names have double quotes in JSON: "prompt".'
    ]


@pytest.mark.parametrize(
    ("text", "line", "column", "opening"),
    [
        ("sweep: {steps: [1, 2]\nseed: 3", 2, 8, "{"),
        ("sweep: {steps: [1, 2]", 2, 8, "{"),
        ("sweep:\n  steps: [1, 2\n  cfg_scale: [3, 4]", 3, 10, "["),
        ("hires: {scale: 2\nseed: 3", 2, 8, "{"),
        ("seed: [1, 2", 2, 7, "["),
        ("sweep: {steps: [1, 2}}", 2, 16, "["),
    ],
)
def test_a_bracket_that_is_never_closed_is_shown(
    text: str, line: int, column: int, opening: str
) -> None:
    """Wherever YAML stumbles over it, and quotes would make text of it."""
    (problem,) = refused(f"prompt: a\n{text}\n").problems
    assert (problem.line, problem.column) == (line, column)
    assert problem.message == f"the {opening} that opens here is never closed."


@pytest.mark.parametrize("text", ["sweep: {steps: [1, 2]}}", "seed: [1, 2]]"])
def test_a_closing_bracket_too_many_is_shown(text: str) -> None:
    """It is the last one."""
    (problem,) = refused(f"prompt: a\n{text}\nsteps: 3\n").problems
    assert (problem.line, problem.column) == (2, len(text))
    assert problem.message == f"nothing is open here that this {text[-1]} could close. Delete it."


@pytest.mark.parametrize("text", ["prompt: [a|b\nseed: 1", "seed: 1\nprompt: {a|b"])
def test_a_prompt_that_begins_with_a_bracket_still_needs_quotes(text: str) -> None:
    """Its brackets are its own."""
    (problem,) = refused(text).problems
    assert "For text, put it in quotes: prompt: '" in problem.message
