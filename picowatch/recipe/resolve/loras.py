"""The field `loras`: a mapping of names to weights, a list, or text."""

from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from picowatch.families import FAMILIES
from picowatch.recipe.families import family_called
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
_PARTS = ("name", "weight", "family")  # of a mapping that describes one
_LIMIT = f"a number from {-MAX_LORA_WEIGHT:g} to {MAX_LORA_WEIGHT:g}"


class LorasRead(NamedTuple):
    """LoRAs with their weights, and the families that the recipe says some of them are for."""

    loras: Loras
    families: tuple[tuple[str, str], ...]


class _Use(NamedTuple):
    """A LoRA as a recipe names it; `family` is what it says that it is for, "" if nothing."""

    name: str
    weight: float
    position: Position
    family: str = ""


def read_loras(layer: Layer, inventory: Inventory, problems: Problems) -> LorasRead:
    """The LoRAs an entry names beside its prompts, with the weights a sweep gives them.

    A tag in the prompt of one that is swept is taken out of the layer.
    """
    uses = _read_field(layer["loras"], inventory, problems) if "loras" in layer else {}
    loras = {name: use.weight for name, use in uses.items()}
    prompt = layer.get("prompt")
    text = prompt.value if prompt and isinstance(prompt.value, str) else ""
    if prompt and loras and _is_a_folders(layer["loras"]) and not _is_a_folders(prompt):
        for tag in lora_tags(text):  # what is nearer holds
            with suppress(NotInstalled):
                loras.pop(find_lora(tag.name, inventory), None)
    for name in [name for name in layer if name.startswith(ONE_LORA)]:
        weight = layer[name]
        swept = _weighed(name.removeprefix(ONE_LORA), weight, weight.name_position, problems)
        for use in swept:
            with problems.caught(use.position):
                loras[find_lora(use.name, inventory)] = use.weight
    if prompt and text:
        text = without_tags(text, swept_names(layer, inventory))
        layer["prompt"] = replace(prompt, value=text)
    families = ((name, use.family) for name, use in uses.items() if use.family and name in loras)
    return LorasRead(tuple(loras.items()), tuple(families))


def _is_a_folders(written: Written) -> bool:
    file = written.position.source.name.rpartition("/")[2]
    return file in ("_defaults.yaml", "_pictures.yaml")


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


def _read_field(written: Written, inventory: Inventory, problems: Problems) -> dict[str, _Use]:
    """The LoRAs somebody means, each with its weight; what is wrong goes to `problems`.

    `{name: weight}`, `{name: {weight: …, family: …}}`, `[name, {name: weight}, {name: …, weight:
    …, family: …}]`, or text with commas: `name, name:weight`.
    """
    loras: dict[str, _Use] = {}
    for index, use in enumerate(_uses(written, problems)):
        if index == MAX_LORAS:
            problems.add(use.position, f"more than {MAX_LORAS} LoRAs here.")
            break
        with problems.caught(use.position):
            found = find_lora(use.name, inventory)
            if found in loras:
                problems.add(use.position, named_twice(found))
            loras[found] = use
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


def said_family(written: Written) -> str:
    """The family that a recipe says a LoRA is for, beside its weight; "" if none."""
    family = dict(written.pairs).get("family")
    return family_called(family.text) if family else ""


def _uses(written: Written, problems: Problems) -> Iterator[_Use]:
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


def _in_text(text: str, position: Position) -> Iterator[_Use]:
    if names_none(Written(text, position)):
        return
    for part in text.split(","):
        name, _, weight = part.rpartition(":")
        value = read_weight(Written(weight, position))
        if name.strip() and value is not None:
            yield _Use(name.strip(), value, position)
        else:
            yield _Use(part.strip(), 1.0, position)


def _in_mapping(written: Written, problems: Problems) -> Iterator[_Use]:
    if not isinstance(written.value, dict):
        problems.add(written.error_position, wrong_value("loras", written))
        return
    pairs = dict(written.pairs)
    name = pairs.get("name")
    others = [part for part in pairs if part not in _PARTS]
    if name and isinstance(name.value, str) and not (others and read_weight(name) is not None):
        yield from _described(name.value, written, name.position, problems)
        return
    for text, weight in written.pairs:
        if isinstance(weight.value, dict):
            yield from _described(text, weight, weight.name_position, problems)
        else:
            yield from _weighed(text, weight, weight.name_position, problems)


def _described(
    name: str, written: Written, position: Position, problems: Problems
) -> Iterator[_Use]:
    """A LoRA whose weight and family stand in a mapping of their own."""
    pairs = dict(written.pairs)
    for part in [part for part in pairs if part not in _PARTS]:
        remedy = f"Write {{name: {shown(name)}, weight: 0.8}}."
        problems.add(pairs[part].name_position, f"a LoRA has no '{shown(part)}'. {remedy}")
    family = pairs.get("family")
    if family and not said_family(written):
        able = ", ".join(row.key for row in FAMILIES.values() if row.loras)
        problems.add(
            family.error_position,
            wrong_value(f"the family of '{shown(name)}'", family, f"one of {able}"),
        )
    for use in _weighed(name, pairs.get("weight"), position, problems):
        yield use._replace(family=said_family(written))


def _weighed(
    name: str, weight: Written | None, position: Position, problems: Problems
) -> Iterator[_Use]:
    value = 1.0 if weight is None else read_weight(weight)
    if value is not None:
        yield _Use(name, value, position)
    elif weight is not None:
        problems.add(
            weight.error_position, wrong_value(f"the weight of '{shown(name)}'", weight, _LIMIT)
        )
