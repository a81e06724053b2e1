"""Lines of a TXT that are no prompts: other programs' command lines, and JSON.

Each is known by its shape, and answered with what to write instead. The flags' meanings:
InvokeAI 2 (docs/features/CLI.md and PROMPTS.md), stable-diffusion.cpp (examples/cli/README.md),
CompVis/stable-diffusion (scripts/txt2img.py; its long flags are understood, see flags.py).
"""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.read.flags import ALIASES
from picowatch.recipe.read.yaml_errors import ABOUT_FENCE, FENCE

_MAX_SHOWN = 300
# A command line that was worked out; longer ones are known, but not translated.
_MAX_LENGTH = 5000


_INVOKE_SHORT = {
    "s": "steps",
    "S": "seed",
    "n": "count",
    "W": "width",
    "H": "height",
    "C": "cfg_scale",
    "A": "sampler",
    "I": "image",
    "f": "denoising_strength",
}
_CPP_SHORT = {
    "m": "checkpoint",
    "p": "prompt",
    "n": "negative_prompt",
    "W": "width",
    "H": "height",
    "s": "seed",
    "b": "count",
    "i": "image",
}
# Other programs' long names that are not ours with hyphens.
_LONG = ALIASES | {"init_img": "image"}
# The program is named first.
_INVOKE = re.compile(r"(?:\([^)]*\) *)?(?:invoke|dream)>(?P<rest>.*)")
_CPP = re.compile(r"(?:\$ )?(?:[^\s\"]*[/\\])?sd(?:-cli)?(?:\.exe)? +(?P<rest>-.*)")
_PYTHON = re.compile(r"(?:\$ )?python[\d.]*(?:\.exe)? +\S+\.py(?P<rest>.*)")
# It is not, but no prompt has such flags.
_CPP_FLAG = re.compile(r"(?:^| )-(?P<flag>[pm]) ")
_INVOKE_FLAG = re.compile(r"(?:^| )-(?:[sSWHCn] ?\d[\d.]*|A ?(?:k_\w+|ddim|plms))(?= |$)")
_FLAG = re.compile(r"--(?P<long>[A-Za-z][\w-]*)(?P<given>=)?|-(?P<short>[A-Za-z])")
_JSON = re.compile(r'\s*(?:\[\s*)?\{\s*"[^"\n]{1,200}"\s*:')


def why_no_prompt(line: str) -> str | None:
    """What to say of a line that is another program's command line; None for a prompt."""
    if line.startswith(FENCE):
        return ABOUT_FENCE
    if found := _PYTHON.fullmatch(line):
        # Flags after it are understood, or refused one by one.
        return _message("Python", found["rest"].strip() if " --prompt" in found["rest"] else "")
    if found := _CPP.fullmatch(line):
        return _message("stable-diffusion.cpp", _translated(found["rest"], _CPP_SHORT))
    if found := _INVOKE.fullmatch(line):
        return _message("InvokeAI", _translated(found["rest"], _INVOKE_SHORT))
    if {found["flag"] for found in _CPP_FLAG.finditer(line)} == {"p", "m"}:
        return _message("stable-diffusion.cpp", _translated(line, _CPP_SHORT))
    if _INVOKE_FLAG.search(line):
        return _message("InvokeAI", _translated(line, _INVOKE_SHORT))
    return None


def _message(program: str, instead: str) -> str:
    write = f" Write: {shown(instead, _MAX_SHOWN)}" if instead else " Write the prompt first."
    return f"this is a command line of {program}, not a prompt.{write}"


def why_no_page(text: str, json_name: str) -> str | None:
    """What to say of a TXT that is JSON; None for a page of prompts."""
    if not _JSON.match(text):
        return None
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


def _translated(rest: str, short: Mapping[str, str]) -> str:
    """The line for a TXT, with what has a field here; empty if it is unclear."""
    try:
        words = shlex.split(rest) if len(rest) <= _MAX_LENGTH else []
    except ValueError:
        return ""
    prompt: list[str] = []
    flags: list[tuple[str, list[str]]] = [("prompt", prompt)]
    for word in words:
        flag = _FLAG.match(word)
        if flag:
            flags.append((_field(flag, short), [word[flag.end() :]] if word[flag.end() :] else []))
        else:
            flags[-1][1].append(word)
    said = {name: " ".join(values) for name, values in flags if name and values}
    text = said.pop("prompt", "")
    return (
        " ".join([text, *(f"--{name} {_value(name, said[name])}" for name in said)]) if text else ""
    )


def _field(flag: re.Match[str], short: Mapping[str, str]) -> str:
    if flag["short"]:
        return short.get(flag["short"], "")
    name = flag["long"].replace("-", "_")
    return FIRST_NAME_OF.get(_LONG.get(name, name), "")


def _value(name: str, text: str) -> str:
    """A model is a name here, without folders."""
    if name in ("checkpoint", "vae"):
        return re.split(r"[/\\]", text)[-1]
    return text
