"""The field `loras`: a mapping of names to weights, a list, or text."""

from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from picowatch.families import FAMILIES
from picowatch.recipe.families import family_called
from picowatch.recipe.fields import Loras
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.numbers import number
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT, lora_tags
from picowatch.recipe.resolve.installed import NotInstalled, find_lora
from picowatch.recipe.resolve.severity import Finding, Judge, Origin
from picowatch.recipe.written import Layer, Position, Written

LORAS = "loras"
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


def read_loras(layer: Layer, inventory: Inventory, judge: Judge) -> LorasRead:
    """The LoRAs an entry names beside its prompts, with the weights that a sweep gives them.

    A tag in the prompt of one that is swept is taken out of the layer.
    """
    uses = _read_field(layer[LORAS], inventory, judge) if LORAS in layer else {}
    weights = {name: use.weight for name, use in uses.items()}
    text = layer["prompt"].text if "prompt" in layer else ""
    if judge.origins.get(LORAS) is Origin.FOLDER and judge.origins.get("prompt") is Origin.OWN:
        for tag in lora_tags(text):  # what is nearer holds
            with suppress(NotInstalled):
                weights.pop(find_lora(tag.name, inventory), None)
    swept = [name for name in layer if name.startswith(ONE_LORA)]
    for field in swept:
        written = layer[field]
        for use in _weighed(field.removeprefix(ONE_LORA), written, written.name_position, judge):
            if name := _installed(use, inventory, judge):
                weights[name] = use.weight
    if swept and text:
        text = without_tags(text, swept_names(layer, inventory), inventory)
        layer["prompt"] = replace(layer["prompt"], value=text)
    families = ((name, use.family) for name, use in uses.items() if use.family and name in weights)
    return LorasRead(tuple(weights.items()), tuple(families))


def swept_names(layer: Layer, inventory: Inventory) -> Set[str]:
    """The LoRAs whose weights a sweep gives."""
    names = set()
    for field in [name for name in layer if name.startswith(ONE_LORA)]:
        with suppress(NotInstalled):
            names.add(find_lora(field.removeprefix(ONE_LORA), inventory))
    return names


def without_tags(text: str, names: Set[str], inventory: Inventory) -> str:
    """A prompt without the tags of these installed LoRAs, however the tags call them."""
    if not names:
        return text  # a long prompt takes time to search, and each recipe comes here
    for tag in lora_tags(text):
        with suppress(NotInstalled):
            if find_lora(tag.name, inventory) in names:
                text = text.replace(tag.written, "")
    return text


def named_twice(name: str) -> str:
    """What to do about a LoRA that is named twice: whether weights add up is not guessed."""
    return f"the LoRA '{shown(name)}' is listed twice. Keep one, with its weight."


def _read_field(written: Written, inventory: Inventory, judge: Judge) -> dict[str, _Use]:
    """The LoRAs somebody means, each with its weight.

    `{name: weight}`, `{name: {weight: …, family: …}}`, `[name, {name: weight}, {name: …, weight:
    …, family: …}]`, or text with commas: `name, name:weight`.
    """
    loras: dict[str, _Use] = {}
    for index, use in enumerate(_uses(written, judge)):
        if index == MAX_LORAS:
            judge.replaces(_finding(f"more than {MAX_LORAS} LoRAs here.", use.position))
            break
        name = _installed(use, inventory, judge)
        if name in loras:
            judge.replaces(_finding(named_twice(name), use.position))
        if name:
            loras[name] = use
    return loras


def _installed(use: _Use, inventory: Inventory, judge: Judge) -> str:
    """The name of its file; "" if there is none."""
    try:
        return find_lora(use.name, inventory)
    except NotInstalled as error:
        judge.replaces(_finding(str(error), use.position))
        return ""


def _finding(message: str, position: Position) -> Finding:
    """What is wrong with one LoRA, which others may leave out."""
    return Finding(LORAS, message, instead="", of_checkpoint=False, position=position)


def _read_weight(written: Written) -> float | None:
    value = number(written.value.strip()) if isinstance(written.value, str) else written.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Adding 0 makes -0.0 the 0.0 that it is.
    return float(value) + 0.0 if abs(value) <= MAX_LORA_WEIGHT else None


def _uses(written: Written, judge: Judge) -> Iterator[_Use]:
    for part in written.parts if isinstance(written.value, tuple) else (written,):
        if isinstance(part.value, str):
            yield from _in_text(part)
        elif isinstance(part.value, dict):
            yield from _in_mapping(part, judge)
        else:
            judge.replaces(_finding(wrong_value(LORAS, part), part.error_position))


def _in_text(written: Written) -> Iterator[_Use]:
    text = str(written.value)
    if text.strip().casefold() in ("", "none"):
        return
    for part in text.split(","):
        name, _, weight = part.rpartition(":")
        value = _read_weight(Written(weight, written.position))
        if name.strip() and value is not None:
            yield _Use(name.strip(), value, written.error_position)
        else:
            yield _Use(part.strip(), 1.0, written.error_position)


def _in_mapping(written: Written, judge: Judge) -> Iterator[_Use]:
    pairs = dict(written.pairs)
    name = pairs.get("name")
    others = [part for part in pairs if part not in _PARTS]
    if name and isinstance(name.value, str) and not (others and _read_weight(name) is not None):
        yield from _described(name.value, written, name.position, judge)
        return
    for text, weight in written.pairs:
        if isinstance(weight.value, dict):
            yield from _described(text, weight, weight.name_position, judge)
        else:
            yield from _weighed(text, weight, weight.name_position, judge)


def _described(name: str, written: Written, position: Position, judge: Judge) -> Iterator[_Use]:
    """A LoRA whose weight and family stand in a mapping of their own."""
    pairs = dict(written.pairs)
    for part in [part for part in pairs if part not in _PARTS]:
        what = f"a LoRA has no '{shown(part)}'. Write {{name: {shown(name)}, weight: 0.8}}."
        judge.replaces(_finding(what, pairs[part].name_position))
    family = pairs.get("family")
    key = family_called(family.text) if family else ""
    if family and not key:
        able = ", ".join(row.key for row in FAMILIES.values() if row.loras)
        what = wrong_value(f"the family of '{shown(name)}'", family, f"one of {able}")
        judge.replaces(_finding(what, family.error_position))
    for use in _weighed(name, pairs.get("weight"), position, judge):
        yield use._replace(family=key)


def _weighed(name: str, weight: Written | None, position: Position, judge: Judge) -> Iterator[_Use]:
    value = 1.0 if weight is None else _read_weight(weight)
    if value is not None:
        yield _Use(name, value, position)
    elif weight is not None:
        what = wrong_value(f"the weight of '{shown(name)}'", weight, _LIMIT)
        judge.replaces(_finding(what, weight.error_position))
