"""TXT recipes: prompt lines, settings, flags, and YAML under a wrong name."""

import pytest

from tests.recipe.reading import hash_of, messages, read, read_one, refused

TXT = "corgi.txt"


def test_each_line_is_a_prompt() -> None:
    """Blank lines and comments are none; white space around a line is not meant."""
    recipes = read("# dogs\n\na corgi\n   a poodle  \n  # cats\na cat # with a hat\n", TXT)
    assert [recipe.prompt for recipe in recipes] == ["a corgi", "a poodle", "a cat # with a hat"]
    assert [(recipe.entry_index, recipe.line) for recipe in recipes] == [(0, 3), (1, 4), (2, 6)]


def test_a_backslash_goes_on_in_the_next_line() -> None:
    """Two backslashes are A1111's literal backslash, and end the line."""
    recipes = read("a corgi, \\\n   at the beach \\\n  --steps 3\na \\\\\nb\n", TXT)
    assert [(recipe.prompt, recipe.steps) for recipe in recipes] == [
        ("a corgi, at the beach", 3),
        ("a \\\\", 24),
        ("b", 24),
    ]


def test_settings_above_the_prompts_hold_for_all_of_them() -> None:
    """As YAML between two lines of three hyphens; a prompt's own flags are nearer."""
    recipes = read("# c\n---\nsteps: 3 # few\ncfg: 5\n---\na corgi\na cat --steps 4\n", TXT)
    assert [(r.prompt, r.steps, r.cfg_scale) for r in recipes] == [
        ("a corgi", 3, 5.0),
        ("a cat", 4, 5.0),
    ]


def test_flags_stand_after_the_prompt() -> None:
    """The example of the documentation."""
    recipe = read_one(
        "a corgi at the beach --steps 30 --seed 7 --size 512x768 --negative_prompt blurry, dim",
        TXT,
    )
    assert recipe.prompt == "a corgi at the beach"
    assert (recipe.steps, recipe.seed, recipe.size) == (30, 7, "512x768")
    assert recipe.negative_prompt == "blurry, dim"


def test_a_quoted_value_runs_to_its_closing_quote() -> None:
    """Even over what would be another flag; a backslash keeps a quote inside."""
    recipe = read_one(r'a corgi --negative "dim, --dark \"x\" \(y\)" --exact --seed random', TXT)
    assert recipe.negative_prompt == r'dim, --dark "x" \(y\)'
    assert (recipe.exact, recipe.seed) == (True, "random")


@pytest.mark.parametrize("written", ["1, 2,3", "[1, 2, 3]", '"1,2,3"'])
def test_a_list_of_seeds_fits_after_a_flag(written: str) -> None:
    """With or without its brackets."""
    assert read_one(f"a corgi --seed {written} --steps 3", TXT).seed == (1, 2, 3)


def test_a1111s_prompts_from_file_are_understood() -> None:
    """batch_size times n_iter is the count."""
    recipe = read_one(
        '--prompt "a corgi" --negative_prompt "dim" --steps 20 --cfg_scale 7 --seed 1 '
        '--width 512 --height 768 --sampler_name "Euler a" --batch_size 2 --n_iter 3 '
        "--sd_model demo",
        TXT,
    )
    assert (recipe.prompt, recipe.negative_prompt) == ("a corgi", "dim")
    assert (recipe.steps, recipe.cfg_scale, recipe.seed) == (20, 7.0, 1)
    assert (recipe.size, recipe.sampler, recipe.count) == ("512x768", "Euler a", 6)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("--prompt 'a corgi' --steps 3", "a corgi"),
        ("--prompt 'a \"red\" corgi'", 'a "red" corgi'),
        ("--prompt 'tis a corgi --steps 3", "'tis a corgi"),
        ("--prompt 'red' and 'blue' --steps 3", "'red' and 'blue'"),
    ],
)
def test_a_value_in_single_quotes_is_without_them_as_in_a1111(written: str, read: str) -> None:
    """If they are around all of it; else they are apostrophes."""
    assert read_one(written, TXT).prompt == read


def test_what_a1111_alone_can_do_is_left_out_with_a_warning() -> None:
    """Unless it is switched off, or is about A1111's own files."""
    recipe = read_one(
        '--prompt "a corgi" --steps 20 --restore_faces true --seed_resize_from_w 512 '
        '--seed_resize_from_h 0 --styles "ink" --outpath_samples out --do_not_save_grid true '
        "--prompt_for_display x",
        TXT,
    )
    assert (recipe.prompt, recipe.steps) == ("a corgi", 20)
    assert recipe.warnings == tuple(
        f"Recipes have no '{flag}' setting; it was ignored."
        for flag in ("--restore_faces true", "--seed_resize_from_w 512", "--styles ink")
    )


def test_other_programs_long_names_are_aliases() -> None:
    """Those of stable-diffusion.cpp and CompVis; hyphens are underscores."""
    recipe = read_one("a --scale 7 --sampler_index Euler --ddim_steps 9 --H 64 --ddim_eta 0", TXT)
    assert (recipe.cfg_scale, recipe.sampler, recipe.steps) == (7.0, "Euler", 9)
    assert (recipe.height, recipe.warnings) == (64, ())
    recipe = read_one(
        "a --cfg-scale 3 --sampling-method euler_a --batch-count 3 --negative-prompt x", TXT
    )
    assert (recipe.cfg_scale, recipe.sampler, recipe.count) == (3.0, "Euler a", 3)
    assert recipe.negative_prompt == "x"


@pytest.mark.parametrize("flag", ["hires", "hires_fix", "hires-fix", "upscale", "tiling"])
def test_a_flag_without_a_value_switches_on_what_true_switches_on(flag: str) -> None:
    """Under each of its names."""
    name = flag.replace("-", "_")
    written = read_one(f"prompt: a\n{name}: true\nsteps: 3")
    assert read_one(f"a --{flag} --steps 3", TXT).digest(hash_of) == written.digest(hash_of)


def test_two_hyphens_that_begin_no_word_are_part_of_the_prompt() -> None:
    """Dashes are punctuation, too."""
    assert read_one("a corgi -- asleep - at last — home", TXT).prompt == (
        "a corgi -- asleep - at last — home"
    )


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("a --d 3", 3, "--d: kohya's seed; write --seed"),
        ("a --s 30", 3, "--s: kohya's steps; write --steps"),
        ("a --n dim", 3, "--n: kohya's negative_prompt; write --negative_prompt"),
        ("a --w 512", 3, "--w: kohya's width; write --width"),
        ("a --h 512", 3, "--h: kohya's height; write --height"),
        ("a --l 7", 3, "--l: kohya's cfg_scale; write --cfg_scale"),
        ("a --t 0.6", 3, "--t: kohya's denoising_strength; write --denoising_strength"),
        ("a --stesp 30", 3, "unknown flag '--stesp'. Did you mean '--steps'?"),
        ("a --xyz", 3, "unknown flag '--xyz'."),
        ("a --scheduler x", 3, "unknown field 'scheduler'. Did you mean 'schedule_type'?"),
        ("a --ar 16:9", 3, "--ar: Midjourney's aspect ratio; write --size 912x512 for SD "
         "1.5, 1344x768 for SDXL, 224x128 for the demo model"),
        ("a --ar 2:3", 3, "--ar: Midjourney's aspect ratio; write --size 512x768 for SD "
         "1.5, 832x1280 for SDXL, 128x192 for the demo model"),
        ("a --v 5", 3, "--v: Midjourney's version; choose a model with --checkpoint"),
        ("a --seed 1 --seed 2", 12, "'seed' is given twice: already on line 1. Keep one."),
        ("a --prompt b", 3, "'prompt' is given twice: already on line 1. Keep one."),
        ("a --steps", 3, "--steps has no value: write --steps and what it takes."),
        ("a --steps 300", 11, "steps must be a whole number from 1 to 150, not 300."),
        ("a --width 500", 11, "width must be a multiple of 8: 496 or 504 would do."),
        ("a --n_iter x", 12, "count must be a whole number from 1 to 1000000, not 'x'."),
        ('a --negative "dim', 14, 'the quote " that opens here is never closed.'),
        (
            'a --negative "dim" dark',
            20,
            "'dark' stands after the closing quote. Put the quotes around all of it; write "
            '\\" for a quote inside.',
        ),
        (
            "a —steps 30",
            3,
            "'—steps' would be part of the text. For a flag, write a space and two hyphens: "
            "--steps.",
        ),
        (
            "a --seed 7 -cfg=7.5",
            12,
            "'-cfg' would be part of the text. For a flag, write a space and two hyphens: --cfg.",
        ),
        (
            "a corgi,--steps 10",
            9,
            "'--steps' would be part of the text. For a flag, write a space and two hyphens: "
            "--steps.",
        ),
        (
            "a --control {image: a}",
            13,
            "a flag takes no mapping. Write control: {image: a} between two lines --- above the "
            "prompts, or in a .yaml file.",
        ),
        (
            "a corgi\nnegative: blurry",
            1,
            "'negative:' within a prompt would be part of its text. Write --negative_prompt "
            "blurry after the prompt.",
        ),
        ("--steps 3", 1, "a prompt is missing. Write it before the flags."),
        (
            "a corgi \\",
            9,
            "a backslash at the end of a line continues it on the next line, but there is no next "
            "line.",
        ),
        ("prompt: a", 1, "this looks like YAML; rename it to corgi.yaml"),
        ("# c\n\n- prompt: a", 3, "this looks like YAML; rename it to corgi.yaml"),
        ("steps: 3\nprompt: a", 1, "this looks like YAML; rename it to corgi.yaml"),
        ("---\nsteps: 3\n", 1, "settings begin here and must end with a second line ---."),
        (
            "a\n---\nb",
            1,
            "settings between --- lines may appear only once, above all prompts.",
        ),
        ("---\nprompt: a\n", 1, "this looks like YAML; rename it to corgi.yaml"),
        (
            "a corgi\nstesp: 10",
            1,
            "each line of a .txt is a prompt, and this one reads like a setting. Did you mean "
            "'steps'? Write --steps 10 after a prompt, or steps: 10 between two lines --- above "
            "the prompts.",
        ),
        (
            "from: pets/1.png",
            1,
            "each line of a .txt is a prompt, and this one reads like a setting. Write --from "
            "pets/1.png after a prompt, or from: pets/1.png between two lines --- above the "
            "prompts.",
        ),
        (
            "size: 512x768",
            1,
            "each line of a .txt is a prompt, and this one reads like a setting. Write --size "
            "512x768 after a prompt, or size: 512x768 between two lines --- above the prompts.",
        ),
        ("---\nprompt: a\n---\nb", 1, "write the prompts below the settings, one per line."),
        ("---\na dog\n---\nb", 1, "settings are lines like 'steps: 30', one per line."),
    ],
)  # fmt: skip
def test_mistakes_in_lines_and_flags_are_reported(text: str, column: int, message: str) -> None:
    """With the position of the flag or value."""
    (problem,) = refused(text, TXT).problems
    assert (problem.column, problem.message) == (column, message)


def test_positions_are_those_of_the_file_in_continued_lines_and_settings() -> None:
    """Not those of the joined text."""
    text = "---\n\nsteps: 0\n---\na corgi \\\n    --stesp 3 \\\n  at --cfg 0\n"
    assert [(p.line, p.column, p.width) for p in refused(text, TXT).problems] == [
        (3, 8, 1),
        (6, 5, 7),
        (7, 12, 1),
    ][:3]


def test_names_of_fields_as_the_first_words_of_a_prompt_are_a_prompt() -> None:
    """Only a file that has a `prompt:` line, too, looks like YAML."""
    for prompt in ("image: a woman in red", "model: 3 dogs", "chapter: 3", "3: 4"):
        assert read_one(prompt, TXT).prompt == prompt


def test_a_file_of_comments_has_no_entries() -> None:
    """It makes nothing, and is no error."""
    assert read("# later\n", TXT) == []


@pytest.mark.parametrize("name", ["a.txt", "a.TXT", "b/a.Txt"])
def test_the_ending_decides_in_any_case(name: str) -> None:
    """Windows likes capitals."""
    assert read_one("a corgi", name).prompt == "a corgi"
    assert messages("a corgi", "a.YML")[0].startswith("this is not a recipe.")
