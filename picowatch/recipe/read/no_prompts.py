"""Texts in a TXT that are no prompts: command lines, JSON, scripts and tables.

Each is known by its beginning, and answered with what to write instead.
"""

import json
import re
from typing import Any

from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.read import a1111
from picowatch.recipe.read.yaml_errors import ABOUT_FENCE, FENCE

_COMMAND = re.compile(
    r"\$ "
    r"|(?:[^\s\"]*[/\\])?(?:python[\d.]*|sd(?:-cli)?)(?:\.exe)? +(?:-|\S+\.py\b)"
    r"|(?:\([^)]*\) *)?(?:invoke|dream)>"
    r"|-[a-zA-Z] "
)
_JSON = re.compile(r'\s*(?:\[\s*)?\{\s*"[^"\n]{1,200}"\s*:')
_PYTHON = re.compile(r"#!.*\bpython.*|from [\w.]+ import .+|import [\w.]+(?: as \w+)?|def \w+\(.*")
# The columns of A1111's styles.csv.
_STYLES = ["name", "prompt", "negative_prompt"]


def why_no_prompt(line: str) -> str | None:
    """What to say of a line that is not a prompt; None for a prompt."""
    if line.startswith(FENCE):
        return ABOUT_FENCE
    if _COMMAND.match(line):
        return (
            "this is a command line of another program, not a prompt. Write the prompt, then "
            "flags: a corgi --steps 20 --cfg_scale 7 --seed 1 --size 512x768"
        )
    return a1111.why_no_prompt(line)


def why_no_page(text: str, json_name: str) -> str | None:
    """What to say of a TXT that is no page of prompts at all; None for one that is."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    code = [line for line in lines if not line.startswith("#") or line.startswith("#!")]
    if len(code) > 1 and _PYTHON.fullmatch(code[0]):
        return "this is a Python script, not prompts. Each line of a .txt is a prompt."
    if code and _is_head_of_table(code[0]):
        return (
            "this is a table, not prompts. Save it with the ending .csv: its first line names "
            "fields, and each further line is a recipe."
        )
    return _why_no_json(text, json_name) if _JSON.match(text) else None


def _is_head_of_table(line: str) -> bool:
    """Whether a line is nothing but the names of fields, `prompt` among them."""
    names = [name.strip('" ') for name in re.split("[,;\t]", line)]
    known = names[:3] == _STYLES or all(name in FIRST_NAME_OF for name in names)
    return len(names) > 1 and "prompt" in names and known


def _why_no_json(text: str, json_name: str) -> str:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return "this looks like JSON, but is incomplete. Each line of a .txt is a prompt."
    parts: list[Any] = values if isinstance(values, list) else [values]
    if is_comfyui_workflow(values):
        return (
            "this is a workflow of ComfyUI, which picowatch cannot run. Write its prompt as text, "
            "and its settings as flags: a corgi --steps 20 --cfg_scale 7 --seed 1 --size 512x512"
        )
    if all(isinstance(part, dict) and "prompt" in part for part in parts):
        return f"this looks like JSON; rename it to {json_name}"
    return "this is JSON, not prompts. Each line of a .txt is a prompt."


def is_comfyui_workflow(values: object) -> bool:
    """Whether JSON is one, or a list that has one."""
    return any(map(_is_comfyui, values if isinstance(values, list) else [values]))


def _is_comfyui(part: object) -> bool:
    """The API's file maps numbers to nodes, perhaps below "prompt"; the editor's has a list."""
    if not isinstance(part, dict):
        return False
    prompt = part.get("prompt")
    nodes = prompt if isinstance(prompt, dict) else part
    return isinstance(part.get("nodes"), list) or any(
        isinstance(node, dict) and "class_type" in node for node in nodes.values()
    )
