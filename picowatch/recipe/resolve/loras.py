"""The field `loras`: a mapping of names to weights, a list, or text."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from picowatch.families import FAMILIES
from picowatch.recipe.fields import Loras
from picowatch.recipe.installed import NotInstalled, find_lora
from picowatch.recipe.inventory import Inventory, family_called
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.prompts.drawing import MAX_LORAS, installed_tags, named_twice, without_tags
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT
from picowatch.recipe.resolve.severity import Judge
from picowatch.recipe.written import Layer, Origin, Position, Written, number

LORAS = "loras"
# The beginning of a field in a sweep's layer that has the weight of one LoRA.
ONE_LORA = "lora: "
_LIGHTNING = re.compile(r"lightning.*?(\d{1,2})[ _-]?steps?", re.IGNORECASE)
_PARTS = ("weight", "family")  # of a mapping that describes one, besides its name
_LIMIT = f"a number from {-MAX_LORA_WEIGHT:g} to {MAX_LORA_WEIGHT:g}"


class _Use(NamedTuple):
    """A LoRA as a recipe names it, with its weight and family as written."""

    name: str
    parts: Mapping[str, Written]
    position: Position


class _EntryLoras:
    """The LoRAs of one entry: their weights, and the families that it gives for some."""

    def __init__(self, inventory: Inventory, judge: Judge) -> None:
        self._inventory = inventory
        self._judge = judge
        self.weights: dict[str, float] = {}
        self.families: dict[str, str] = {}

    def take(self, use: _Use, *, may_repeat: bool = False) -> None:
        """Add a LoRA that is installed, once unless it `may_repeat`."""
        weight, family = self._weight(use), self._family(use)
        try:
            name = find_lora(use.name, self._inventory)
        except NotInstalled as error:
            self._judge.wrong(LORAS, str(error), "", position=use.position)
            return
        if name in self.weights and not may_repeat:
            self._judge.wrong(LORAS, named_twice(name), "", position=use.position)
        if weight is not None:
            self.weights[name] = weight
        if family:
            self.families[name] = family

    def _weight(self, use: _Use) -> float | None:
        """Return its weight; None if what is written cannot be one."""
        for part in use.parts.keys() - set(_PARTS):
            what = f"a LoRA has no '{shown(part)}'."
            remedy = f"Write {{name: {shown(use.name)}, weight: 0.8}}."
            position = use.parts[part].name_position
            self._judge.wrong(LORAS, what, "", position=position, remedy=remedy)
        said = use.parts.get("weight")
        weight = _number(said) if said else 1.0
        if said and weight is None:
            self._wrong(f"the weight of '{shown(use.name)}'", said, _LIMIT)
        return weight

    def _family(self, use: _Use) -> str:
        """Return the family that the recipe gives for it; "" for none."""
        said = use.parts.get("family")
        family = family_called(said.text) if said else ""
        if said and not family:
            able = ", ".join(row.key for row in FAMILIES.values() if row.loras)
            self._wrong(f"the family of '{shown(use.name)}'", said, f"one of {able}")
        return family

    def _wrong(self, what: str, written: Written, wanted: str) -> None:
        message = wrong_value(what, written, wanted)
        self._judge.wrong(LORAS, message, "", position=written.error_position)


def read_loras(layer: Layer, inventory: Inventory, judge: Judge) -> tuple[Loras, dict[str, str]]:
    """Return the LoRAs in an entry's field `loras`, and the families that it gives for some.

    A LoRA that is swept has the sweep's weight; its tag is removed from the prompt in the layer.
    """
    found = _EntryLoras(inventory, judge)
    every = _uses(layer[LORAS], judge) if LORAS in layer else iter(())
    uses = list(islice(every, MAX_LORAS + 1))
    if len(uses) > MAX_LORAS:
        at = uses[MAX_LORAS].position
        judge.wrong(LORAS, f"more than {MAX_LORAS} LoRAs here.", "", position=at)
    for use in uses[:MAX_LORAS]:
        found.take(use)
    prompt, loras = layer.get("prompt"), layer.get(LORAS)
    if prompt and loras and (prompt.origin, loras.origin) == (Origin.OWN, Origin.FOLDER):
        for _, name in installed_tags(prompt.text, inventory):  # the prompt is nearer
            found.weights.pop(name, None)
    swept = {name: one for name, one in layer.items() if name.startswith(ONE_LORA)}
    for field, written in swept.items():
        use = _Use(field.removeprefix(ONE_LORA), {"weight": written}, written.position)
        found.take(use, may_repeat=True)
    if prompt and swept:
        names = swept_names(layer, inventory)
        layer["prompt"] = prompt.with_value(without_tags(prompt.text, names, inventory))
    return tuple(found.weights.items()), found.families


def steps_of_lightning(names: Iterable[str]) -> dict[str, Any]:
    """Return the defaults for a Lightning LoRA, whose name has the steps; {} for others."""
    found = filter(None, map(_LIGHTNING.search, names))
    return next(({"steps": int(one[1]), "cfg_scale": 1.0} for one in found), {})


def swept_names(layer: Layer, inventory: Inventory) -> frozenset[str]:
    """Return the LoRAs whose weights a sweep varies."""
    names = set()
    for field in [name for name in layer if name.startswith(ONE_LORA)]:
        with suppress(NotInstalled):
            names.add(find_lora(field.removeprefix(ONE_LORA), inventory))
    return frozenset(names)


def _number(written: Written) -> float | None:
    """Return a LoRA's weight; None if it is no valid one."""
    value = number(str(written.value))
    # Adding 0.0 turns -0.0 into 0.0.
    return None if value is None or abs(value) > MAX_LORA_WEIGHT else float(value) + 0.0


def _uses(written: Written, judge: Judge) -> Iterator[_Use]:
    """Parse `{name: weight}`, `{name: {weight: …, family: …}}`, or text: `name, name:weight`.

    A list may have all of these, and `{name: …, weight: …, family: …}`.
    """
    for part in written.parts if isinstance(written.value, tuple) else (written,):
        pairs = dict(part.pairs)
        if isinstance(part.value, str):
            yield from _in_text(part)
        elif not isinstance(part.value, dict):
            judge.wrong(LORAS, wrong_value(LORAS, part), "", position=part.error_position)
        elif "name" in pairs and _number(pairs["name"]) is None:  # a LoRA may be called so
            name = pairs.pop("name")
            yield _Use(name.text, pairs, name.position)
        else:
            for text, value in part.pairs:
                parts = dict(value.pairs) if isinstance(value.value, dict) else {"weight": value}
                yield _Use(text, parts, value.name_position)


def _in_text(written: Written) -> Iterator[_Use]:
    for part in written.text.split(",") if written.text.strip().casefold() != "none" else ():
        name, _, weight = (piece.strip() for piece in part.rpartition(":"))
        said = written.with_value(weight)
        if name and _number(said) is not None:
            yield _Use(name, {"weight": said}, written.error_position)
        elif part.strip():
            yield _Use(part.strip(), {}, written.error_position)
