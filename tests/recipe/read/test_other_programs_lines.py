"""Command lines and JSON of other programs in a TXT: understood, or answered with what to write."""

import json

import pytest

from tests.recipe.reading import messages, read_one, refused

TXT = "corgi.txt"


@pytest.mark.parametrize(
    "text",
    [
        '--prompt="a cat" --steps=30 --negative-prompt="dim, dark"',
        "a cat --steps = 30 --negative_prompt=dim, dark",
    ],
)
def test_a_value_may_follow_an_equals_sign(text: str) -> None:
    """As shells write it."""
    recipe = read_one(text, TXT)
    assert (recipe.prompt, recipe.steps, recipe.negative_prompt) == ("a cat", 30, "dim, dark")


@pytest.mark.parametrize(
    ("line", "program", "instead"),
    [
        ("a cat -s 50 -W 512", "InvokeAI", "a cat --steps 50 --width 512"),
        (
            '"a cat, asleep" -s50 -W512 -H 768 -C7.5 -Ak_euler_a -S1234 -n2',
            "InvokeAI",
            "a cat, asleep --steps 50 --width 512 --height 768 --cfg_scale 7.5 --sampler "
            "k_euler_a --seed 1234 --count 2",
        ),
        ("(stable-diffusion-1.5) invoke> a cat -A ddim", "InvokeAI", "a cat --sampler ddim"),
        (
            './bin/sd -m ../models/sd-v1-4.ckpt -p "a lovely cat" -n "dim" --cfg-scale 3 --steps '
            "20 -H 512 -s 7 -b 2 -o out.png -t 8 -v",
            "stable-diffusion.cpp",
            "a lovely cat --checkpoint sd-v1-4.ckpt --negative_prompt dim --cfg_scale 3 --steps "
            "20 --height 512 --seed 7 --count 2",
        ),
        ("sd.exe -p 'a cat' --sampling-method euler_a", "stable-diffusion.cpp",
         "a cat --sampler euler_a"),
        ('-m sd.gguf -p "a cat"', "stable-diffusion.cpp", "a cat --checkpoint sd.gguf"),
        (
            'python scripts/txt2img.py --prompt "a cat" --n_samples 2',
            "Python",
            '--prompt "a cat" --n_samples 2',
        ),
    ],
)  # fmt: skip
def test_a_command_line_is_answered_with_what_to_write(
    line: str, program: str, instead: str
) -> None:
    """In one error; and what it says is a line that is understood."""
    assert messages(line, TXT) == [
        f"this is a command line of {program}, not a prompt. Write: {instead}"
    ]
    found = messages(f"{instead} --steps x --checkpoint y", TXT)
    assert not any("command line" in message or "flag" in message for message in found)


def test_the_marks_around_a_chat_s_answer_are_no_prompts() -> None:
    """Two pictures of ``` would be rendered."""
    found = refused("```text\na corgi\n```\n", TXT).problems
    assert [(p.line, p.column, p.message) for p in found] == [
        (line, 1, "``` is how chats and web pages mark a text. Delete the lines that have it.")
        for line in (1, 3)
    ]


def test_a_command_line_over_several_lines_is_one() -> None:
    """A backslash goes on in the next line."""
    invalid = refused('a dog\n./sd -m a.ckpt \\\n  -p "a cat" \\\n  --steps 9\n', TXT)
    (problem,) = invalid.problems
    assert (problem.line, problem.column) == (2, 1)
    assert problem.message.endswith("Write: a cat --checkpoint a.ckpt --steps 9")


@pytest.mark.parametrize(
    "prompt",
    [
        "an F -16 over a -p- sign", "the sd card -- macro", "portrait of Mr. T - s 50",
        "a plan B -m", "python in the grass, by a .py file", "> a cat", "a -s and a -W",
    ],
)  # fmt: skip
def test_prompts_with_hyphens_are_no_command_lines(prompt: str) -> None:
    """They have no such flags."""
    assert read_one(prompt, TXT).prompt == prompt


COMFYUI = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "cfg": 8}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}},
}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (COMFYUI, "this is a workflow of ComfyUI, which picowatch cannot run. Write its prompt"),
        ({"prompt": COMFYUI}, "this is a workflow of ComfyUI"),
        ({"last_node_id": 9, "nodes": [], "links": []}, "this is a workflow of ComfyUI"),
        ({"prompt": "a cat", "steps": 20}, "this looks like JSON; rename it to corgi.json"),
        ([{"prompt": "a"}, {"prompt": "b"}], "this looks like JSON; rename it to corgi.json"),
        ({"text": "a cat"}, "this is JSON, not prompts. Each line of a .txt is a prompt."),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_one_error(value: object, message: str, indent: int | None) -> None:
    """Not a picture of each of its lines."""
    (found,) = messages(json.dumps(value, indent=indent), TXT)
    assert found.startswith(message)


def test_json_that_is_not_whole_is_refused() -> None:
    """A comma too many."""
    (found,) = messages('{\n  "prompt": "a cat",\n}', TXT)
    assert found.startswith("this looks like JSON, but is incomplete.")


@pytest.mark.parametrize("name", ["corgi.json", "corgi.yaml"])
def test_json_is_a_recipe_under_both_names(name: str) -> None:
    """The error advises the first, and YAML includes JSON."""
    recipe = read_one(json.dumps({"prompt": "a cat", "steps": 20}, indent=2), name)
    assert (recipe.prompt, recipe.steps) == ("a cat", 20)


def test_a_choice_at_the_beginning_is_no_json() -> None:
    """Dynamic prompts begin with a brace, too."""
    assert read_one('{"a"|b} cat', TXT).prompt == '{"a"|b} cat'
