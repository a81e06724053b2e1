"""A recipe from one layer of written values: everything looked up, checked and decided."""

from dataclasses import replace
from typing import Any, Literal

from pydantic import ValidationError

from picowatch.recipe.fields import (
    BAKED,
    HIRES_PREFIX,
    MAX_SEED,
    NUMBERS,
    PARTS,
    RANDOM,
    ROWS,
    SWITCHES,
    Hires,
    Loras,
    default_of,
)
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.messages.problems import Problems
from picowatch.recipe.messages.wording import not_multiple_of_8, wrong_value
from picowatch.recipe.prompts.prompts import mistakes_in
from picowatch.recipe.read.decoding import FORBIDDEN, invisible
from picowatch.recipe.read.plain import TRUE_OR_FALSE, number
from picowatch.recipe.recipe import Context, Recipe
from picowatch.recipe.resolve.hires import MAX_SIDE, UpscalerUnknown, find_upscaler
from picowatch.recipe.resolve.installed import NotInstalled, find_checkpoint, find_vae
from picowatch.recipe.resolve.layers import text_of
from picowatch.recipe.resolve.loras import read_loras
from picowatch.recipe.resolve.start_image import read_path
from picowatch.recipe.samplers import (
    AUTOMATIC,
    DEFAULT_SAMPLER,
    ScheduleUnknown,
    decide_schedule_type,
    find_sampler,
    sampler_named,
)
from picowatch.recipe.written import Layer, Position, Written

_ONE_SEED = f"a whole number from 0 to {MAX_SEED}"
_RANDOM_WORDS = {"random", "-1", "\N{MINUS SIGN}1"}


# Field, text, LoRAs and position of checked prompts: sweeps and defaults repeat them.
Checked = set[tuple[str, str, Loras, Position]]


def build_recipe(
    layer: Layer,
    position: Position,
    entry_index: int,
    inventory: Inventory,
    checked: Checked,
    problems: Problems,
) -> Recipe | None:
    """The recipe of a settled and merged layer without its sweep; the layer is used up."""
    loras = read_loras(layer, inventory, problems)
    _check_prompts(layer, position, loras, inventory, checked, problems)
    _read_numbers(layer)
    _read_seed(layer, problems)
    checkpoint = _checkpoint(layer, position, inventory, problems)
    native = checkpoint.native_size
    values: dict[str, object] = {"prompt": "", "width": native, "height": native}
    values |= {name: w.value for name, w in layer.items() if name in Recipe.model_fields}
    values |= _sampling(layer, problems)
    values["loras"] = loras
    values |= _pictures(layer, problems)
    values |= {"checkpoint": checkpoint.name, "vae": _vae(layer, inventory, problems)}
    values |= {"entry_index": entry_index, "line": position.line}
    try:
        recipe = Recipe.model_validate(values).read_in(Context(inventory, layer, position))
    except ValidationError as error:
        _report(error, layer, problems)
        return None
    _check_final_size(recipe, layer, problems)
    _check_clip_skip(recipe, checkpoint, layer, problems)
    return recipe


def _pictures(layer: Layer, problems: Problems) -> dict[str, object]:
    """Start image, mask and hires. What says nothing without them gets its default."""
    image, mask = (read_path(field, layer, problems) for field in ("image", "mask"))
    hires = bool(layer["hires"].value) if "hires" in layer else False
    values: dict[str, object] = {"image": image, "mask": mask if image else ""}
    values["hires"] = _hires(layer, not image, problems) if hires else None
    idle = [name for name, row in ROWS.items() if row.needs and not values[row.needs]]
    return values | {name: default_of(name) for name in idle}


def _hires(layer: Layer, takes_strength: bool, problems: Problems) -> Hires:
    parts = {name.removeprefix(HIRES_PREFIX): layer[name] for name in PARTS if name in layer}
    if takes_strength and "denoising_strength" in layer:
        parts.setdefault("denoising_strength", layer["denoising_strength"])
    values: dict[str, Any] = {name: written.value for name, written in parts.items()}
    upscaler = parts.get("upscaler")
    if upscaler and isinstance(upscaler.value, str):
        try:
            values["upscaler"] = find_upscaler(upscaler.value)
        except UpscalerUnknown as error:
            problems.add(upscaler.error_position, str(error))
    try:
        return Hires(**values)
    except ValidationError as error:
        named = {f"{HIRES_PREFIX}{name}": written for name, written in parts.items()}
        _report(error, named, problems, HIRES_PREFIX)
        return Hires()


def _check_final_size(recipe: Recipe, layer: Layer, problems: Problems) -> None:
    width, height = recipe.final_size
    if recipe.hires and max(width, height) > MAX_SIDE:
        written = layer.get(f"{HIRES_PREFIX}scale", layer["hires"])
        problems.add(
            written.error_position,
            f"hires makes {width}x{height} of {recipe.size}; the limit is {MAX_SIDE} pixels a "
            "side. Use a smaller scale or size.",
        )


def _check_clip_skip(
    recipe: Recipe, checkpoint: Checkpoint, layer: Layer, problems: Problems
) -> None:
    if recipe.clip_skip > checkpoint.text_layers:
        problems.add(
            layer["clip_skip"].error_position,
            f"clip_skip {recipe.clip_skip} is too much for the checkpoint '{checkpoint.name}': its "
            f"text encoder has {checkpoint.text_layers} layers. The limit is "
            f"{checkpoint.text_layers}.",
        )


def _report(error: ValidationError, layer: Layer, problems: Problems, prefix: str = "") -> None:
    for mistake in error.errors(include_url=False, include_context=False):
        field = f"{prefix}{mistake['loc'][0]}"
        written = layer[field]
        message = wrong_value(field, written)
        if mistake["type"] == "multiple_of" and isinstance(written.value, int):
            message = not_multiple_of_8(field, written.value)
        problems.add(written.error_position, message)


def _check_prompts(
    layer: Layer,
    position: Position,
    loras: Loras,
    inventory: Inventory,
    checked: Checked,
    problems: Problems,
) -> None:
    if "prompt" not in layer:
        problems.add(position, _no_prompt(position))
    for field in ("prompt", "negative_prompt"):
        text = text_of(field, layer, problems)
        written = layer.get(field)
        if text is None or written is None or (field, text, loras, written.position) in checked:
            continue
        checked.add((field, text, loras, written.position))
        for found in FORBIDDEN.finditer(text.replace("\n", " ")):
            problems.add(written.position, f"{field} contains {invisible(found[0])}. Remove it.")
        for construct in mistakes_in(field, text, loras, inventory):
            snippet = text[construct.offset : construct.offset + construct.length]
            earlier = text.count(snippet, 0, construct.offset)
            problems.add(_inside(written, snippet, earlier), construct.message)


def _no_prompt(position: Position) -> str:
    if position.source.name.lower().endswith(".txt"):
        return "a prompt is missing. Write it before the flags."
    return "a prompt is missing. Write 'prompt: …'."


def _inside(written: Written, snippet: str, earlier: int) -> Position:
    """Where a piece of a text stands in the file, if it stands there as it is."""
    at = -1
    for _ in range(earlier + 1):
        at = written.raw.find(snippet, at + 1)
        if at < 0:
            return written.position
    before = written.raw[:at]
    width = len(snippet.partition("\n")[0])
    if written.at:
        return written.at(at, width)
    line = written.position.line + before.count("\n")
    if line == written.position.line:
        return written.position.shifted(at, width)
    return Position(written.position.source, line, at - before.rfind("\n"), width)


def _read_numbers(layer: Layer) -> None:
    """Numbers, true and false in quotes or after flags mean the same as without."""
    for field in (*NUMBERS, *SWITCHES):
        written = layer.get(field)
        if written is None or not isinstance(written.value, str):
            continue
        text = written.value.strip()
        value: object = number(text)
        if field in SWITCHES:
            value = TRUE_OR_FALSE.get(text.casefold())
        if value is not None:
            layer[field] = replace(written, value=value)


def _read_seed(layer: Layer, problems: Problems) -> None:
    written = layer.get("seed")
    if written is None:
        return
    if isinstance(written.value, tuple):
        _read_seed_list(layer, written, problems)
        return
    seed = _seed(written)
    if seed is None:
        problems.add(written.error_position, wrong_value("seed", written))
        del layer["seed"]
    else:
        layer["seed"] = replace(written, value=seed)


def _read_seed_list(layer: Layer, written: Written, problems: Problems) -> None:
    seeds = [(part, _seed(part)) for part in written.parts]
    for part, seed in seeds:
        if not isinstance(seed, int):
            problems.add(part.position, wrong_value("seed", part, _ONE_SEED))
    if not seeds:
        problems.add(written.position, "the list of seeds is empty. Write 'seed: random' or seeds.")
    if "count" in layer:
        count = layer["count"]
        problems.add(
            count.name_position,
            "count and a list of seeds together: the list makes one image for each seed. "
            "Remove count.",
        )
    del layer["seed"]
    if seeds and all(isinstance(seed, int) for _, seed in seeds):
        layer["seed"] = replace(written, value=tuple(seed for _, seed in seeds))


def _seed(written: Written) -> int | Literal["random"] | None:
    value = written.value
    if isinstance(value, str):
        if value.strip().casefold() in _RANDOM_WORDS:
            return RANDOM
        value = number(value.strip())
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if value == -1:
        return RANDOM
    return value if 0 <= value <= MAX_SEED else None


def _sampling(layer: Layer, problems: Problems) -> dict[str, object]:
    """The sampler and its schedule type, "automatic" decided; karras if nothing is written."""
    default, default_schedule_type = find_sampler(DEFAULT_SAMPLER)
    sampler = sampler_named(str(layer["sampler"].value)) if "sampler" in layer else default
    written = layer.get("schedule_type")
    requested = str(written.value) if written else default_schedule_type or AUTOMATIC
    try:
        decided = decide_schedule_type(sampler, requested)
    except ScheduleUnknown as error:
        decided = sampler.automatic
        if written:
            problems.add(written.position, str(error))
    return {"sampler": sampler.name, "schedule_type": decided}


def _checkpoint(
    layer: Layer, position: Position, inventory: Inventory, problems: Problems
) -> Checkpoint:
    name = text_of("checkpoint", layer, problems)
    try:
        return find_checkpoint(name, inventory)
    except NotInstalled as error:
        problems.add(position if name is None else layer["checkpoint"].position, str(error))
        return inventory.demo


def _vae(layer: Layer, inventory: Inventory, problems: Problems) -> str:
    name = text_of("vae", layer, problems)
    try:
        return BAKED if name is None else find_vae(name, inventory)
    except NotInstalled as error:
        problems.add(layer["vae"].position, str(error))
        return BAKED
