"""TXT recipes: prompt lines, settings, flags, and what is no page of prompts."""

import pytest

from tests.recipe.reading import check_refused, check_said, hash_of, read, read_one, refused

TXT = "corgi.txt"


def test_each_line_is_a_prompt() -> None:
    """Blank lines and comments are none; white space around a line does not count."""
    recipes = read("# dogs\n\na corgi\n   a poodle  \n  # cats\na cat # with a hat\n", TXT)
    assert [recipe.prompt for recipe in recipes] == ["a corgi", "a poodle", "a cat # with a hat"]
    assert [recipe.position.line for recipe in recipes] == [3, 4, 6]


def test_a_backslash_goes_on_in_the_next_line() -> None:
    """Joined by one space, inside quotes, too; two backslashes are A1111's, and end the line."""
    recipes = read("a corgi, \\\n   at the beach \\\n  --steps 3\na \\\\\nb\n", TXT)
    read_so = [(recipe.prompt, recipe.steps) for recipe in recipes]
    assert read_so == [("a corgi, at the beach", 3), ("a \\\\", 24), ("b", 24)]
    on = " \\\n  \\\n  "
    for quote in ("", '"', "'"):
        recipe = read_one(f"a{on}corgi --negative {quote}dim,{on}dark{quote}", TXT)
        assert (recipe.prompt, recipe.negative_prompt) == ("a corgi", "dim, dark")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("a corgi at the beach --steps 30 --size 512x768 --negative_prompt blurry, dim",
         {"prompt": "a corgi at the beach", "steps": 30, "negative_prompt": "blurry, dim"}),
        (r'a --negative "dim, --dark \"x\" \(y\)" --exact --seed random',
         {"negative_prompt": r'dim, --dark "x" \(y\)', "exact": True, "seed": "random"}),
        ("a --seed 1, 2,3 --Steps=3", {"seed": (1, 2, 3), "steps": 3}),
        ('a --seed "[1, 2]"', {"seed": (1, 2)}),
        ('--prompt="a cat" --steps=30 --negative-prompt = dim, dark',
         {"prompt": "a cat", "steps": 30, "negative_prompt": "dim, dark"}),
        ('--prompt "a corgi" --cfg_scale 7 --sampler_name "Euler a" --batch_size 2 --n_iter 3 '
         "--sd_model demo",
         {"prompt": "a corgi", "cfg_scale": 7.0, "sampler": "Euler a", "count": 6}),
        ("--prompt 'a \"red\" corgi' --steps 3", {"prompt": 'a "red" corgi', "steps": 3}),
        ("--prompt 'tis a corgi --steps 3", {"prompt": "'tis a corgi", "steps": 3}),
        ("--prompt 'red' and 'blue' --steps 3", {"prompt": "'red' and 'blue'"}),
        ("a --cfg-scale 3 --sampling-method euler_a --batch-count 3",
         {"cfg_scale": 3.0, "sampler": "Euler a", "count": 3}),
        ("a --subseed 5 --subseed_strength 0.5 --tiling true",
         {"variation_seed": 5, "variation_strength": 0.5, "tiling": True}),
        ("a --subseed -1", {"variation_seed": None, "warnings": ()}),
        ("a --subseed 5 --subseed_strength 0", {"variation_seed": None, "warnings": ()}),
        ("a --scale 7 --sampler_index Euler --ddim_steps 9 --H 64 --ddim_eta 0",
         {"cfg_scale": 7.0, "sampler": "Euler", "steps": 9, "height": 64, "warnings": ()}),
    ],
)  # fmt: skip
def test_flags_stand_after_the_prompt(line: str, values: dict[str, object]) -> None:
    """Ours and other programs'. A value in quotes runs to the closing one, even over flags."""
    recipe = read_one(line, TXT)
    assert {name: getattr(recipe, name) for name in values} == values


def test_what_a1111_alone_can_do_is_left_out_with_a_warning() -> None:
    """Unless it is switched off."""
    recipe = read_one(
        '--prompt "a corgi" --steps 20 --restore_faces true --seed_resize_from_h 0 --styles "ink" '
        "--outpath_samples out --do_not_save_grid false --ddim_eta 0.5",
        TXT,
    )
    assert (recipe.prompt, recipe.steps) == ("a corgi", 20)
    left_out = ("restore_faces true", "styles ink", "outpath_samples out", "ddim_eta 0.5")
    assert recipe.warnings == tuple(
        f"Recipes have no '--{flag}' setting; it was ignored." for flag in left_out
    )


@pytest.mark.parametrize("flag", ["hires", "hires-fix", "upscale", "cutout", "tiling"])
def test_a_flag_without_a_value_switches_on_what_true_switches_on(flag: str) -> None:
    name = flag.replace("-", "_")
    written = read_one(f"prompt: a\n{name}: true\nsteps: 3")
    assert read_one(f"a --{flag} --steps 3", TXT).digest(hash_of) == written.digest(hash_of)


NO_FLAG = "would be part of the text. For a flag, write a space and two hyphens: --"
SETTING = "each line of a .txt is a prompt, and this one reads like a setting."


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a --s 20", 1, 3, "unknown flag '--s'. Midjourney's --s (stylize) has … write --steps."),
        ("a --d 3", 1, 3, "unknown flag '--d'. It is kohya's flag; write --seed."),
        ("a --stesp 30", 1, 3, "unknown flag '--stesp'. Did you mean '--steps'?"),
        ("--promt a corgi", 1, 1, "unknown flag '--promt'. Did you mean '--prompt'?"),
        ("a --ar 16:9", 1, 3, "unknown flag '--ar'. It is Midjourney's … write --size 672x384 …"),
        ("a --seed 1 --seed 2", 1, 12, "'seed' is given twice: already on line 1. Keep one."),
        ("a --count 2 --n_iter 3", 1, 13, "'--n_iter' is given twice: already … as 'count'. …"),
        ("a --n_iter", 1, 3, "--n_iter has no value. Write one after it."),
        ("a \\\n  b --steps 300", 2, 13, "steps must be a whole number from 1 to 150, not 300."),
        ("---\n\nsteps: 0\n---\na", 3, 8, "steps must be a whole number from 1 to 150, not 0."),
        ("a --n_iter x", 1, 12, "count must be a whole number from 1 to 1000000, not 'x'."),
        ("a --batch_size -2 --n_iter -2", 1, 16, "count must be … not -2."),
        ("a --n_iter 2 --batch_size 1.5", 1, 27, "count must be … not 1.5."),
        ('a --negative "dim', 1, 14, 'the quote " that opens here is never closed.'),
        ('a --negative "dim" dark', 1, 20, "'dark' comes after the closing quote. Put the …"),
        ("a —steps 30", 1, 3, f"'—steps' {NO_FLAG}steps."),
        ("a corgi,--steps 10", 1, 9, f"'--steps' {NO_FLAG}steps."),
        ("a –steps 30", 1, 3, f"'–steps' {NO_FLAG}steps."),
        ("a −−steps 30", 1, 3, f"'−−steps' {NO_FLAG}steps."),
        ("a \uff0d\uff0dsteps 30", 1, 3, f"'\uff0d\uff0dsteps' {NO_FLAG}steps."),
        ("a -- steps 30", 1, 3, f"'-- steps' {NO_FLAG}steps."),
        ("a --steps:3", 1, 3, f"'--steps:3' {NO_FLAG}steps 3."),
        ("a --seed.", 1, 3, f"'--seed.' {NO_FLAG}seed."),
        ("a --hires.scale 2 --seed 1", 1, 3, "… Write hires: {scale: 2} between two lines --- …"),
        ("a sign --hello!", 1, 8, "… For text, write --prompt \"…\" around all of it."),
        ("a --negative b --steps:3", 1, 16, f"'--steps:3' {NO_FLAG}steps 3."),
        ("a --scheduler karas", 1, 15, "unknown schedule type 'karas'. Did you mean 'karras'?…"),
        ("a corgi\nnegative: blurry", 2, 1, "'negative:' … Write --negative_prompt blurry …"),
        ("--steps 3", 1, 1, "a prompt is missing. Write it before the flags."),
        ("a corgi \\", 1, 9, "a backslash at the end of a line continues it on the next line, …"),
        ("prompt = a", 1, 1, "this looks like YAML; rename it to corgi.yaml"),
        ("a corgi\nsteps = 10", 2, 1, f"{SETTING} Write --steps 10 after a prompt, or …"),
        ("a corgi\nsteps 30,", 2, 1, f"{SETTING} Write --steps 30 after a prompt, or …"),
        ("steps: 3\nprompt: a", 1, 1, "this looks like YAML; rename it to corgi.yaml"),
        ("_id: 3\nprompt: a", 1, 1, "this looks like YAML; rename it to corgi.yaml"),
        ("---\nsteps: 3\n", 1, 1, "settings begin here and must end with a second line ---."),
        ("a corgi\nstesp: 10", 2, 1, f"{SETTING} Did you mean 'steps'? Write --steps 10 after a …"),
        ("from: pets/1.png", 1, 1, f"{SETTING} Write --from pets/1.png after a prompt, or …"),
        ("---\nprompt: a\n---\nb", 2, 1, "write the prompts below the settings, one per line."),
        ("---\nsteps: 3\n---\n# later\n", 3, 1, "a prompt is missing. Write it below the …"),
        ("```text\na corgi", 1, 1, "``` marks a text in chats and web pages. Delete the lines …"),
    ],
)  # fmt: skip
def test_mistakes_in_lines_and_flags_are_reported(
    text: str, line: int, column: int, message: str
) -> None:
    """The position of the flag or value is that in the file, not in the joined lines."""
    (problem,) = refused(text, TXT).problems
    assert (problem.line, problem.column) == (line, column)
    check_said([problem.message], message)


@pytest.mark.parametrize(
    "prompt",
    [
        *("image: a woman in red", "model: 3 dogs", "3: 4", "a corgi -- asleep - at last — home"),
        *("an old BMW -S 54 engine", "a -f-stop of 4", "an F -16 over a -p- sign", "> a cat"),
        *("the sd card -- macro", "python in the grass, by a .py file", "import cars"),
        *("sd 15 style - a cat", "python --- in grass", "a -- b", "a ---b", "a —asleep cat"),
        *("a --_-- cat", "a cat -_- 3 dogs"),
        *("name, prompt, title", '{"a"|b} cat', "cats 9", "step 5", "seed 5 of grass"),
    ],
)
def test_prompts_that_only_look_alike_are_drawn(prompt: str) -> None:
    """The meaning of colons, hyphens, numbers and braces in a prompt is not guessed."""
    assert read_one(prompt, TXT).prompt == prompt


SHORT = "'-…' would be part of the text. … and then long flags: …"
COMMAND = "'…' begins a command line. Write the prompt first, and then its …"
JSON = "this looks like JSON; rename it to corgi.json"
SCRIPT = "this is RTF, a web page or a script, not plain text…"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # InvokeAI's and stable-diffusion.cpp's: several, or one with a number at the end.
        *((f"a cat {flags}", SHORT) for flags in
          ("-s50 -W 512 -A k_euler -n 2", "-S 42", "-m a/b.ckpt -o c.png")),
        *((line, COMMAND) for line in
          ('./sd -m ../a.ckpt -p "a cat"', "./bin/sd-cli --diffusion-model a.gguf",
           "> a cat -s 5", "python scripts/txt2img.py --prompt a --plms", "invoke> a cat",
           "/imagine prompt: a --v 5", 'echo "a corgi" > inbox/a.txt')),
        ("// a comment", "'//' does not begin a comment: # does, in a line of its own."),
        ("<<<<<<< HEAD", "a merge has left both versions here. Keep one, and delete …"),
        ('{\n "prompt": "a cat"}', JSON),
        ('[{"prompt": "a"}, {"prompt": "b"},]', JSON),
        ("{\\rtf1\\ansi\n\\f0 a corgi}", SCRIPT),
        ("<!DOCTYPE html>\n<body>404</body>", SCRIPT),
        ("#!/usr/bin/env python3\nprint('a')", SCRIPT),
        ("import torch\nprint('a')", SCRIPT),
        ("name,prompt,negative_prompt\nA,cinematic {prompt},dim", "this is a table, not …"),
        ('"prompt";"steps"\na cat;10', "this is a table, not prompts. Save it with the ending …"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_page_of_prompts_is_one_error(text: str, message: str) -> None:
    check_refused(text, message, name=TXT)


@pytest.mark.parametrize("name", ["a.txt", "a.TXT", "b/a.Txt"])
def test_the_ending_decides_in_any_case(name: str) -> None:
    """Windows writes capitals, and hides the ending that its editor adds."""
    assert read_one("a corgi", name).prompt == "a corgi"
    check_refused("a corgi", "this is not a recipe. …", name="a.YML")
    yaml = "this looks like YAML; rename it to corgi.yaml"
    check_refused("prompt: a", yaml, name=f"corgi.yaml.{name[-3:]}")
