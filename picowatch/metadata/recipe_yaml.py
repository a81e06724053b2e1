"""A picture's recipe as YAML, ready for the inbox: `picowatch show`."""

import json
from collections.abc import Iterable, Mapping

from picowatch.families import DEMO
from picowatch.recipe.families import DEMO_RULES
from picowatch.recipe.fields import MAPPINGS, NOISE_NAMES, PARTS, PROMPTS, ROWS, SIZE, ScheduleType
from picowatch.recipe.messages.problems import harmless
from picowatch.recipe.read.plain import number, plain_number
from picowatch.recipe.request import ImageRequest, recipe_values
from picowatch.recipe.resolve.hires import UPSCALERS
from picowatch.recipe.resolve.installed import MODULE
from picowatch.recipe.samplers import (
    AUTOMATIC,
    DEFAULT_SAMPLER,
    PREDICTIONS,
    SAMPLERS,
    SCHEDULE_TYPES,
    SIMPLE,
)

USUAL_SAMPLER = DEFAULT_SAMPLER.removesuffix(" Karras")
USUAL_SCHEDULE: ScheduleType = "karras"
# Words of ours, which need no quotes.
_OWN_WORDS = {
    *(sampler.name for sampler in SAMPLERS),
    *SCHEDULE_TYPES,
    *PREDICTIONS,
    *UPSCALERS,
    *(name for field in MAPPINGS for name in PARTS[field]),
    *NOISE_NAMES,
    *(AUTOMATIC, "baked", "none", "crop", "fit", "stretch"),
}


def recipe_yaml(request: ImageRequest) -> str:
    """A recipe that gives the same request again.

    Every field is written, so that no `_defaults.yaml` changes the picture. Start images are named
    as the recipe named them: those that lay beside it are found in its folder only.
    """
    return "".join(f"{name}: {text}\n" for name, text in _fields(request).items())


def short_recipe_yaml(request: ImageRequest) -> str:
    """The fields that a recipe needs where no `_defaults.yaml` says anything; the others are left.

    Which checkpoint and size are usual depends on what is installed, so these are always named. So
    are the defaults that depend on the checkpoint: the demo model's, and those of flow families,
    where the schedule type may be one of theirs.
    """
    usual = _fields(_usual(request)) if request.draws else {}
    named = {"prompt", "checkpoint", SIZE, "seed"}
    named |= {name for name in _WITH_FIELDS_OF_THEIR_OWN if getattr(request, name)}
    if (request.sampler, request.schedule_type) != (USUAL_SAMPLER, USUAL_SCHEDULE):
        named |= {"sampler", "schedule_type"}  # a sampler resets the schedule type
    if request.checkpoint == DEMO:
        named |= set(DEMO_RULES.defaults)
    if request.schedule_type == SIMPLE:  # all flow families have it
        named |= {"steps", "cfg_scale", "guidance", "denoising_strength"}
    return "".join(
        f"{name}: {text}\n"
        for name, text in _fields(request).items()
        if name in named or usual.get(name) != text
    )


def _usual(request: ImageRequest) -> ImageRequest:
    """What the same request would be if its recipe said nothing but what is always named."""
    return ImageRequest(
        prompt=request.prompt,
        checkpoint=request.checkpoint,
        checkpoint_hash=request.checkpoint_hash,
        sampler=USUAL_SAMPLER,
        schedule_type=USUAL_SCHEDULE,
        width=request.width,
        height=request.height,
        seed=request.seed,
        **{name: getattr(request, name) for name in _WITH_FIELDS_OF_THEIR_OWN},
    )


def _fields(request: ImageRequest) -> dict[str, str]:
    """Every field of a recipe for the request, as it is written."""
    fields = {name: _written(value) for name, value in recipe_values(request).items()}
    fields["width"] = f"{request.width}x{request.height}"
    del fields["height"]
    fields |= {"count": "1", "sweep": "off"}
    if not request.draws:
        fields = {name: fields[name] for name in ("image", "upscale", "exact", "sweep")}
    return {_NAMES.get(name, name): text for name, text in fields.items()}


_NAMES = {"width": SIZE}
# Without them, others are no fields of a request: denoising_strength, mask_blur …
_WITH_FIELDS_OF_THEIR_OWN = ("image", "mask", "control", "variation_strength")


def settings_yaml(settings: Mapping[str, object], warnings: Iterable[str]) -> str:
    """The settings of another program's picture as a recipe, with warnings as comments.

    Only what the picture says is written. Numbers that are text there are numbers here.
    """
    settings = {("vae" if name == MODULE else name): value for name, value in settings.items()}
    order = [name for name in (*ROWS, SIZE) if name in settings]
    lines = [f"# {harmless(warning)}\n" for warning in warnings]
    for name in order:
        value = settings[name]
        is_text = name in PROMPTS and isinstance(value, str)
        lines.append(f"{name}: {_text(str(value)) if is_text else _written(_number(value))}\n")
    return "".join(lines)


def _number(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _number(part) for key, part in value.items()}
    found = number(value) if isinstance(value, str) else None
    return value if found is None else found


def _written(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return plain_number(value)
        case list():
            return "[" + ", ".join(map(_in_line, value)) + "]"
        case Mapping():
            pairs = (f"{_in_line(key)}: {_in_line(part)}" for key, part in value.items())
            return "{" + ", ".join(pairs) + "}"
    return _text(str(value))


def _in_line(value: object) -> str:
    """A key, or a value within a mapping: never a block."""
    if isinstance(value, str) and not value.isprintable():
        return _escaped_text(value)
    return _written(value)


def _text(text: str) -> str:
    """Text that reads back exactly: a word of ours, a literal block if it can be one, else quoted.

    Single quotes, because backslashes (\\() mean themselves there; double quotes where a line
    break or a character that cannot be seen has to be escaped.
    """
    if text in _OWN_WORDS:
        return text
    lines = text.split("\n")
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    tidy = all(line.isprintable() and line == line.strip() for line in lines)
    if tidy and lines[0] and lines[-1]:
        return "|-\n" + "\n".join(f"  {line}" if line else "" for line in lines)
    return _escaped_text(text)


def _escaped_text(text: str) -> str:
    return "".join(map(_escaped, json.dumps(text, ensure_ascii=False)))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"
