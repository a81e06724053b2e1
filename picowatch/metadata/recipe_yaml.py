"""A picture's recipe as YAML, ready for the inbox: `picowatch show`."""

import json

from picowatch.recipe.request import ImageRequest


def recipe_yaml(request: ImageRequest) -> str:
    """A recipe that gives the same request again, wherever it is put.

    Every field is written, so that no `_defaults.yaml` changes the picture.
    """
    fields = {
        "prompt": _text(request.prompt),
        "negative_prompt": _text(request.negative_prompt),
        "checkpoint": _text(request.checkpoint),
        "vae": _text(request.vae),
        "sampler": request.sampler,
        "schedule_type": request.schedule_type,
        "steps": str(request.steps),
        "cfg_scale": repr(float(request.cfg_scale)).removesuffix(".0"),
        "size": f"{request.width}x{request.height}",
        "seed": str(request.seed),
        "count": "1",
        "clip_skip": str(request.clip_skip),
        "exact": "true" if request.exact else "false",
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _text(text: str) -> str:
    """Text that reads back exactly: a literal block if it can be, else quoted.

    Single quotes, because backslashes (\\() mean themselves there; double quotes where a line
    break or a character that cannot be seen has to be escaped.
    """
    lines = text.split("\n")
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    tidy = all(line.isprintable() and line == line.strip() for line in lines)
    if tidy and lines[0] and lines[-1]:
        return "|-\n" + "\n".join(f"  {line}" if line else "" for line in lines)
    return "".join(map(_escaped, json.dumps(text, ensure_ascii=False)))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"
