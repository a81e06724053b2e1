"""The field `loras`: a mapping of names to weights, a list, or text."""

from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from typing import NamedTuple

from picowatch.families import FAMILIES
from picowatch.recipe.fields import Loras
from picowatch.recipe.inventory import Inventory, family_called
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT, lora_tags
from picowatch.recipe.resolve.installed import NotInstalled, find_lora
from picowatch.recipe.resolve.severity import Finding, Judge
from picowatch.recipe.written import Layer, Origin, Position, Written, number

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
    """A LoRA as a recipe names it, and what it says of it."""

    name: str
    parts: Mapping[str, Written]
    position: Position


def read_loras(layer: Layer, inventory: Inventory, judge: Judge) -> LorasRead:
    """The LoRAs an entry names beside its prompts, with the weights that a sweep gives them.

    A tag in the prompt of one that is swept is taken out of the layer.
    """
    reader = _Reader(inventory, judge)
    if LORAS in layer:
        reader.read(layer[LORAS])
    prompt = layer.get("prompt")
    is_folders = LORAS in layer and layer[LORAS].origin is Origin.FOLDER
    if prompt and LORAS in layer and prompt.origin is Origin.OWN and is_folders:
        for tag in lora_tags(prompt.text):  # what is nearer holds
            with suppress(NotInstalled):
                reader.weights.pop(find_lora(tag.name, inventory), None)
    swept = [name for name in layer if name.startswith(ONE_LORA)]
    for field in swept:
        use = _Use(field.removeprefix(ONE_LORA), {"weight": layer[field]}, layer[field].position)
        reader.take(use)
    if swept and prompt:
        text = without_tags(prompt.text, swept_names(layer, inventory), inventory)
        layer["prompt"] = prompt.with_value(text)
    families = {name: key for name, key in reader.families.items() if name in reader.weights}
    return LorasRead(tuple(reader.weights.items()), tuple(families.items()))


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
    """Say that a LoRA is named twice: whether weights add up is not guessed."""
    return f"the LoRA '{shown(name)}' is listed twice. Keep one, with its weight."


class _Reader:
    """Reads the field; what is wrong with one LoRA leaves it out if somebody else wrote it."""

    def __init__(self, inventory: Inventory, judge: Judge) -> None:
        self._inventory = inventory
        self._judge = judge
        self.weights: dict[str, float] = {}
        self.families: dict[str, str] = {}

    def read(self, written: Written) -> None:
        """Take all LoRAs of the field."""
        for index, use in enumerate(self._uses(written)):
            if index == MAX_LORAS:
                self._report(f"more than {MAX_LORAS} LoRAs here.", use.position)
                break
            before = dict(self.weights)
            name = self.take(use)
            if name in before:
                self._report(named_twice(name), use.position)

    def take(self, use: _Use) -> str:
        """The installed name of a LoRA whose weight and family are kept; "" if it is wrong."""
        for part in [part for part in use.parts if part not in _PARTS]:
            remedy = f"Write {{name: {shown(use.name)}, weight: 0.8}}."
            what = f"a LoRA has no '{shown(part)}'. {remedy}"
            self._report(what, use.parts[part].name_position)
        weight = self._weight(use)
        family = self._family(use)
        try:
            name = find_lora(use.name, self._inventory)
        except NotInstalled as error:
            self._report(str(error), use.position)
            return ""
        if weight is not None:
            self.weights[name] = weight
        if family:
            self.families[name] = family
        return name

    def _weight(self, use: _Use) -> float | None:
        written = use.parts.get("weight")
        value = 1.0 if written is None else _number(written)
        if value is None and written:
            what = wrong_value(f"the weight of '{shown(use.name)}'", written, _LIMIT)
            self._report(what, written.error_position)
        return value

    def _family(self, use: _Use) -> str:
        written = use.parts.get("family")
        key = family_called(written.text) if written else ""
        if written and not key:
            able = ", ".join(row.key for row in FAMILIES.values() if row.loras)
            what = wrong_value(f"the family of '{shown(use.name)}'", written, f"one of {able}")
            self._report(what, written.error_position)
        return key

    def _uses(self, written: Written) -> Iterator[_Use]:
        """`{name: weight}`, `{name: {weight: …, family: …}}`, text like `name, name:weight`.

        A list has these, and `{name: …, weight: …, family: …}`.
        """
        for part in written.parts if isinstance(written.value, tuple) else (written,):
            if isinstance(part.value, str):
                yield from _in_text(part)
            elif isinstance(part.value, dict):
                yield from _in_mapping(part)
            else:
                self._report(wrong_value(LORAS, part), part.error_position)

    def _report(self, message: str, position: Position) -> None:
        finding = Finding(LORAS, message, instead="", of_checkpoint=False, position=position)
        self._judge.replaces(finding)


def _number(written: Written) -> float | None:
    """A LoRA's weight, if it is one."""
    value = number(str(written.value))
    # Adding 0 makes -0.0 the 0.0 that it is.
    return None if value is None or abs(value) > MAX_LORA_WEIGHT else float(value) + 0.0


def _in_text(written: Written) -> Iterator[_Use]:
    for part in written.text.split(",") if written.text.strip().casefold() != "none" else ():
        name, _, weight = (piece.strip() for piece in part.rpartition(":"))
        said = written.with_value(weight)
        has_weight = name and _number(said) is not None
        if part.strip():
            parts = {"weight": said} if has_weight else {}
            yield _Use(name if has_weight else part.strip(), parts, written.error_position)


def _in_mapping(written: Written) -> Iterator[_Use]:
    pairs = dict(written.pairs)
    name = pairs.get("name")
    # A LoRA may be called so: {name: 0.8, other: 1}.
    if name and not (set(pairs) - {*_PARTS} and _number(name) is not None):
        parts = {part: value for part, value in pairs.items() if part != "name"}
        yield _Use(name.text, parts, name.position)
        return
    for text, value in written.pairs:
        is_mapping = isinstance(value.value, dict)
        yield _Use(
            text, dict(value.pairs) if is_mapping else {"weight": value}, value.name_position
        )
