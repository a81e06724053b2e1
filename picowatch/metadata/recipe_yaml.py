"""A picture's recipe as YAML, ready for the inbox: `picowatch show`."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import yaml

from picowatch.errors import PictureUnreadable
from picowatch.families.row import DEMO
from picowatch.recipe.converters import RANDOM
from picowatch.recipe.fields import DEFAULTS, FINISHING, ROWS, WRITING, ZERO_SNR
from picowatch.recipe.files import Pictures
from picowatch.recipe.installed import NotInstalled, find_checkpoint
from picowatch.recipe.inventory import DEMO_RULES, NO_CHECKPOINT, Inventory
from picowatch.recipe.messages.problems import RecipeInvalid
from picowatch.recipe.read.from_picture import settings_in
from picowatch.recipe.reading import read_recipes
from picowatch.recipe.recipe import no_hash
from picowatch.recipe.request import ImageRequest, recipe_values
from picowatch.recipe.samplers import DEFAULT_SAMPLER, SIMPLE, find_sampler
from picowatch.streams import harmless

_NAME = "picture.png"
_NOTE = f" (in {_NAME})"
_SAMPLING = {"sampler", "schedule_type"}  # one may say both
_NEVER = 10**9  # a width at which no line is broken


# libyaml's dumper is eight times as fast, which matters to a gallery of many pictures.
class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    pass


def recipe_yaml(request: ImageRequest, only: Collection[str] | None = None) -> str:
    """Return a recipe that gives the same request again.

    Every field is written, so that no `_defaults.yaml` changes the picture, or those in `only`.
    Start images are named as in the request.
    """
    values = _fields(request)
    return _written({name: values[name] for name in values if only is None or name in only})


def differing_fields(request: ImageRequest) -> list[str]:
    """Return the fields that a recipe needs in a folder without `_defaults.yaml`."""
    # The default checkpoint and size depend on what is installed, so these are always named. So are
    # fields whose defaults depend on the checkpoint: the demo model's, and those of flow families,
    # which the schedule type may belong to.
    named = {"prompt", "checkpoint", "size", "seed"}
    named |= {n for n in ROWS if getattr(request, n, DEFAULTS[n]) != DEFAULTS[n]} - _SAMPLING
    usual, schedule_type = find_sampler(DEFAULT_SAMPLER)
    is_usual = (request.sampler, request.schedule_type) == (usual.name, schedule_type)
    if not is_usual or request.prediction == ZERO_SNR:
        named |= _SAMPLING  # a sampler resets the schedule type
    if request.checkpoint == DEMO:
        named |= set(DEMO_RULES.defaults)
    if request.extend:  # with which the strength is 1 by default
        named.add("denoising_strength")
    if request.schedule_type == SIMPLE:  # all flow families have it
        named |= {"steps", "cfg_scale", "guidance", "denoising_strength"}
    if not (request.draws or any(getattr(request, name) for name in (*FINISHING, *WRITING))):
        named.add("quality")  # auto asks for a copy
    return [name for name in _fields(request) if name in named]


def _fields(request: ImageRequest) -> dict[str, Any]:
    """Return every field of a recipe for the request, in the table's order."""
    values = recipe_values(request)
    if not request.draws:
        return values | {"sweep": False}
    del values["height"]
    values |= {"width": f"{request.width}x{request.height}", "count": 1, "sweep": False}
    return {"size" if name == "width" else name: value for name, value in values.items()}


def others_yaml(texts: Mapping[str, str], inventory: Inventory) -> str:
    """Return the recipe that `from:` makes of another program's picture, warnings as comments.

    Only what it says is written, also a missing checkpoint's name. Raises PictureUnreadable.
    """
    said = settings_in(texts)
    name, comments = said.get("checkpoint"), []
    try:
        find_checkpoint(name, inventory, foreign=True)
    except NotInstalled as error:
        comments.append(str(error))
        own = (name or "unknown").replace("\\", "/").rpartition("/")[2]  # not its folder there
        unknown = replace(NO_CHECKPOINT, name=own)
        inventory = replace(inventory, checkpoints=(unknown,), default_checkpoint=unknown.name)
    try:
        source = f"from: {_NAME}".encode()
        (recipe,) = read_recipes("shown.yaml", source, inventory, pictures=_Shown(texts))
        (request,) = recipe.image_requests(no_hash, 0)
    except RecipeInvalid as invalid:
        raise PictureUnreadable(invalid.problems[0].message.removesuffix(_NOTE)) from None
    if comments and said.get("schedule_type", "").casefold() == SIMPLE:  # for a flow family
        request = replace(request, schedule_type="simple")
    named = {"size" if field in ("width", "height") else field for field in said}
    drawn = {"seed": recipe.seed == RANDOM, "variation_seed": recipe.variation_seed is None}
    named -= {field for field, is_drawn in drawn.items() if is_drawn}
    if not named.isdisjoint(_SAMPLING):
        named |= _SAMPLING
    comments += (warning.removesuffix(_NOTE) for warning in recipe.warnings)
    return "".join(f"# {harmless(comment)}\n" for comment in comments) + recipe_yaml(request, named)


class _Shown(Pictures):
    """The one picture whose texts are shown."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def texts(self, path: str) -> Mapping[str, str]:
        return self._texts


def value_yaml(value: object) -> str:
    """Return a value as a recipe has it, in a line."""
    return _written(value, in_a_line=True).partition("\n")[0]  # "..." follows a word


def _written(value: object, *, in_a_line: bool = False) -> str:
    """Return YAML that reads back exactly, with control characters escaped."""
    if not value:
        return ""
    how: dict[str, Any] = {"default_flow_style": in_a_line, "sort_keys": False}
    text = yaml.dump(value, Dumper=_Dumper, width=_NEVER, allow_unicode=True, **how)
    return "".join(c if c.isprintable() or c == "\n" else f"\\U{ord(c):08x}" for c in text)


def _text(dumper: Any, text: str) -> Any:
    """Write several lines as a block, or in double quotes where something has to be escaped."""
    text = text.encode(errors="replace").decode()  # JSON's escapes may give lone surrogates
    lines = text.split("\n")
    style = None if len(lines) == 1 else "|" if lines[0] and lines[-1] else '"'
    if not all(map(str.isprintable, lines)):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _number(dumper: Any, value: float) -> Any:
    return dumper.represent_int(int(value)) if value.is_integer() else dumper.represent_float(value)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(float, _number)
