"""The field `loras`: a mapping of names to weights, a list, or text."""

from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import replace

from picowatch.recipe.fields import Loras
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT, lora_tags
from picowatch.recipe.read.plain import number
from picowatch.recipe.resolve.installed import NotInstalled, find_lora
from picowatch.recipe.resolve.layers import names_none
from picowatch.recipe.written import Layer, Position, Written

MAX_LORAS = 100
# How a sweep's normalised layer names the weight of one LoRA.
ONE_LORA = "lora: "
_LIMIT = f"a number from {-MAX_LORA_WEIGHT:g} to {MAX_LORA_WEIGHT:g}"


def read_loras(layer: Layer, inventory: Inventory, problems: Problems) -> Loras:
    """The LoRAs an entry names beside its prompts, with the weights a sweep gives them.

    A tag in the prompt of one that is swept is taken out of the layer.
    """
    loras = _read_field(layer["loras"], inventory, problems) if "loras" in layer else {}
    prompt = layer.get("prompt")
    text = prompt.value if prompt and isinstance(prompt.value, str) else ""
    if prompt and loras and _is_a_folders(layer["loras"]) and not _is_a_folders(prompt):
        for tag in lora_tags(text):  # what is nearer holds
            with suppress(NotInstalled):
                loras.pop(find_lora(tag.name, inventory), None)
    for name in [name for name in layer if name.startswith(ONE_LORA)]:
        weight = layer[name]
        swept = _weighed(name.removeprefix(ONE_LORA), weight, weight.name_position, problems)
        for written_name, value, position in swept:
            with problems.caught(position):
                found = find_lora(written_name, inventory)
                loras[found] = value
    if prompt and text:
        text = without_tags(text, swept_names(layer, inventory))
        layer["prompt"] = replace(prompt, value=text)
    return tuple(loras.items())


def _is_a_folders(written: Written) -> bool:
    return written.position.source.name.endswith(("_defaults.yaml", "_pictures.yaml"))


def swept_names(layer: Layer, inventory: Inventory) -> Set[str]:
    """What tags may call the LoRAs whose weights a sweep gives, in small letters."""
    names = set()
    for name in [name.removeprefix(ONE_LORA) for name in layer if name.startswith(ONE_LORA)]:
        with suppress(NotInstalled):
            names |= {name.casefold(), find_lora(name, inventory).casefold()}
    return names


def without_tags(text: str, names: Set[str]) -> str:
    """A prompt without the tags of these LoRAs."""
    if not names:
        return text  # a long prompt takes time to search, and each recipe comes here
    for tag in {tag.written for tag in lora_tags(text) if tag.name.casefold() in names}:
        text = text.replace(tag, "")
    return text


def _read_field(written: Written, inventory: Inventory, problems: Problems) -> dict[str, float]:
    """The LoRAs somebody means, each with its weight; what is wrong goes to `problems`.

    `{name: weight}`, `[name, {name: weight}, {name: …, weight: …}]`, or text with commas:
    `name, name:weight`.
    """
    loras: dict[str, float] = {}
    for index, (name, weight, position) in enumerate(_uses(written, problems)):
        if index == MAX_LORAS:
            problems.add(position, f"more than {MAX_LORAS} LoRAs here.")
            break
        with problems.caught(position):
            found = find_lora(name, inventory)
            if found in loras:
                problems.add(position, named_twice(found))
            loras[found] = weight
    return loras


def named_twice(name: str) -> str:
    """What to do about a LoRA that is named twice: whether weights add up is not guessed."""
    return f"the LoRA '{shown(name)}' is listed twice. Keep one, with its weight."


def read_weight(written: Written) -> float | None:
    """A LoRA's weight, if it is one."""
    value = number(written.value.strip()) if isinstance(written.value, str) else written.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Adding 0 makes -0.0 the 0.0 that it is.
    return float(value) + 0.0 if abs(value) <= MAX_LORA_WEIGHT else None


def _uses(written: Written, problems: Problems) -> Iterator[tuple[str, float, Position]]:
    if isinstance(written.value, str):
        yield from _in_text(written.value, written.error_position)
    elif isinstance(written.value, tuple):
        for part in written.parts:
            if isinstance(part.value, str):
                yield from _in_text(part.value, part.position)
            else:
                yield from _in_mapping(part, problems)
    else:
        yield from _in_mapping(written, problems)


def _in_text(text: str, position: Position) -> Iterator[tuple[str, float, Position]]:
    if names_none(Written(text, position)):
        return
    for part in text.split(","):
        name, _, weight = part.rpartition(":")
        value = read_weight(Written(weight, position))
        if name.strip() and value is not None:
            yield name.strip(), value, position
        else:
            yield part.strip(), 1.0, position


def _in_mapping(written: Written, problems: Problems) -> Iterator[tuple[str, float, Position]]:
    if not isinstance(written.value, dict):
        problems.add(written.error_position, wrong_value("loras", written))
        return
    pairs = dict(written.pairs)
    name = pairs.get("name")
    others = [part for part in pairs if part not in ("name", "weight")]
    if name and isinstance(name.value, str) and not (others and read_weight(name) is not None):
        remedy = f"Write {{name: {shown(name.value)}, weight: 0.8}}."
        for part in others:
            problems.add(pairs[part].name_position, f"a LoRA has no '{shown(part)}'. {remedy}")
        yield from _weighed(name.value, pairs.get("weight"), name.position, problems)
        return
    for text, weight in written.pairs:
        yield from _weighed(text, weight, weight.name_position, problems)


def _weighed(
    name: str, weight: Written | None, position: Position, problems: Problems
) -> Iterator[tuple[str, float, Position]]:
    value = 1.0 if weight is None else read_weight(weight)
    if value is not None:
        yield name, value, position
    elif weight is not None:
        problems.add(
            weight.error_position, wrong_value(f"the weight of '{shown(name)}'", weight, _LIMIT)
        )
