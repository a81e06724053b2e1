"""The field `loras`: a mapping of names to weights, a list, or text."""

from collections.abc import Iterator

from picowatch.recipe.fields import Loras
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.places import Layer, Spot, Written
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT
from picowatch.recipe.read.plain import number
from picowatch.recipe.resolve.installed import NotInstalled, find_lora

MAX_LORAS = 100
# How a sweep's settled layer names the weight of one LoRA.
ONE_LORA = "lora: "
_NONE = {"", "none"}
_LIMIT = f"a number from {-MAX_LORA_WEIGHT:g} to {MAX_LORA_WEIGHT:g}"


def read_loras(layer: Layer, inventory: Inventory, problems: Problems) -> Loras:
    """The LoRAs an entry names beside its prompts, with the weights a sweep gives them."""
    loras = _read_field(layer["loras"], inventory, problems) if "loras" in layer else {}
    for name in [name for name in layer if name.startswith(ONE_LORA)]:
        weight = layer[name]
        swept = _weighed(name.removeprefix(ONE_LORA), weight, weight.key or weight.spot, problems)
        for written_name, value, spot in swept:
            try:
                loras[find_lora(written_name, inventory)] = value
            except NotInstalled as error:
                problems.add(spot, str(error))
    return tuple(loras.items())


def _read_field(written: Written, inventory: Inventory, problems: Problems) -> dict[str, float]:
    """The LoRAs somebody means, each with its weight; what is wrong goes to `problems`.

    `{name: weight}`, `[name, {name: weight}, {name: …, weight: …}]`, or text with commas:
    `name, name:weight`.
    """
    loras: dict[str, float] = {}
    for index, (name, weight, spot) in enumerate(_uses(written, problems)):
        if index == MAX_LORAS:
            problems.add(spot, f"more than {MAX_LORAS} LoRAs here.")
            break
        try:
            found = find_lora(name, inventory)
        except NotInstalled as error:
            problems.add(spot, str(error))
            continue
        if found in loras:
            problems.add(spot, named_twice(found))
        loras[found] = weight
    return loras


def named_twice(name: str) -> str:
    """What to do about a LoRA that stands in two places: whether weights add up is not guessed."""
    return f"the LoRA '{shown(name)}' is listed twice. Keep one, with its weight."


def read_weight(written: Written) -> float | None:
    """A LoRA's weight, if it is one."""
    value = number(written.value.strip()) if isinstance(written.value, str) else written.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Adding 0 makes -0.0 the 0.0 that it is.
    return float(value) + 0.0 if abs(value) <= MAX_LORA_WEIGHT else None


def _uses(written: Written, problems: Problems) -> Iterator[tuple[str, float, Spot]]:
    if isinstance(written.value, str):
        yield from _in_text(written.value, written.position)
    elif isinstance(written.value, tuple):
        for part in written.parts:
            if isinstance(part.value, str):
                yield from _in_text(part.value, part.spot)
            else:
                yield from _in_mapping(part, problems)
    else:
        yield from _in_mapping(written, problems)


def _in_text(text: str, spot: Spot) -> Iterator[tuple[str, float, Spot]]:
    if text.strip().casefold() in _NONE:
        return
    for part in text.split(","):
        name, _, weight = part.rpartition(":")
        value = read_weight(Written(weight, spot))
        whole = not name.strip() or value is None
        yield (part.strip(), 1.0, spot) if whole or value is None else (name.strip(), value, spot)


def _in_mapping(written: Written, problems: Problems) -> Iterator[tuple[str, float, Spot]]:
    if not isinstance(written.value, dict):
        problems.add(written.position, wrong_value("loras", written))
        return
    pairs = dict(written.pairs)
    name = pairs.get("name")
    if name and set(pairs) <= {"name", "weight"} and isinstance(name.value, str):
        yield from _weighed(name.value, pairs.get("weight"), name.spot, problems)
        return
    for text, weight in written.pairs:
        yield from _weighed(text, weight, weight.key or weight.spot, problems)


def _weighed(
    name: str, weight: Written | None, spot: Spot, problems: Problems
) -> Iterator[tuple[str, float, Spot]]:
    value = 1.0 if weight is None else read_weight(weight)
    if value is not None:
        yield name, value, spot
    elif weight is not None:
        problems.add(weight.position, wrong_value(f"the weight of '{shown(name)}'", weight, _LIMIT))
