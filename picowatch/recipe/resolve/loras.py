"""The field `loras`: a mapping of names to weights, a list, or text."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice

from picowatch.families import FAMILIES
from picowatch.recipe.fields import Loras
from picowatch.recipe.installed import NotInstalled, find
from picowatch.recipe.inventory import Inventory, family_called
from picowatch.recipe.messages.problems import Reporter, shown
from picowatch.recipe.messages.wording import DECIMAL_POINT, given_twice, wrong_value
from picowatch.recipe.prompts import drawing
from picowatch.recipe.prompts.grammar import MAX_LORA_WEIGHT
from picowatch.recipe.written import OFF, Layer, Origin, SourceValue, mapping_at, number, repeated

_NEARER = (Origin.OWN, Origin.FOLDER)  # of the prompt and the LoRAs: the prompt is nearer


def read_loras(
    layer: Layer, inventory: Inventory, reporter: Reporter
) -> tuple[Loras, dict[str, str]]:
    """Return the LoRAs in an entry's field `loras`, and the families that it gives for some."""
    weights: dict[str, float] = {}
    families: dict[str, str] = {}
    is_foreign = "loras" in layer and layer["loras"].origin is Origin.FOREIGN
    for called, use in layer["loras"].pairs if "loras" in layer else ():
        weight, family = _weight_and_family(called, dict(use.pairs), reporter)
        try:
            name = find("lora", called, inventory, foreign=is_foreign)
        except NotInstalled as error:
            at, is_alone = use.position, not any(part.text for _, part in use.pairs)
            is_cut = called.isdigit() and is_alone and "," in at.source.line(at.line)
            remedy = DECIMAL_POINT if is_cut else error.remedy
            reporter.wrong("loras", str(error), "", position=at, remedy=remedy)
            continue
        if name in weights:
            reporter.wrong("loras", drawing.named_twice(name), "", position=use.position)
        if weight is not None:
            weights[name] = weight
        if family:
            families[name] = family
    prompt, loras = layer.get("prompt"), layer.get("loras")
    if prompt and loras and (prompt.origin, loras.origin) == _NEARER:
        for _, name in drawing.installed_tags(prompt.text, inventory):  # the prompt is nearer
            weights.pop(name, None)
    return tuple(weights.items()), families


def _weight_and_family(called: str, parts: Layer, reporter: Reporter) -> tuple[float | None, str]:
    """Return what is written about a LoRA; None or "" for what is wrong, which is reported."""

    def wrong(part: str, wanted: str) -> None:
        message = wrong_value(f"the {part} of '{shown(called)}'", parts[part], wanted)
        reporter.wrong("loras", message, "", position=parts[part].error_position)

    for part in parts.keys() - {"weight", "family"}:
        what = f"a LoRA has no '{shown(part)}'."
        remedy = f"Write {{name: {shown(called)}, weight: 0.8}}."
        reporter.wrong("loras", what, "", position=parts[part].name_position, remedy=remedy)
    weight, family = _number(parts["weight"]) if "weight" in parts else 1.0, ""
    if weight is None:
        wrong("weight", f"a number from {-MAX_LORA_WEIGHT:g} to {MAX_LORA_WEIGHT:g}")
    if "family" in parts and not (family := family_called(parts["family"].text)):
        able = ", ".join(row.key for row in FAMILIES.values())
        wrong("family", f"one of {able}")
    return weight, family


def with_lora(layer: Layer, name: str, weight: SourceValue, inventory: Inventory) -> Layer:
    """Return the layer with another weight of one LoRA, whose tags leave the prompt."""
    meant = drawing.lora_named(name, inventory)
    loras = layer.get("loras", SourceValue(None, weight.position))
    own = {
        lora for lora, _ in loras.pairs if meant and drawing.lora_named(lora, inventory) == meant
    }
    prompt = layer.get("prompt", loras)
    text = drawing.without_tags(prompt.text, {meant}, inventory)
    # A tag in the recipe's own prompt already replaced the folder's weight.
    is_tagged = text != prompt.text and (prompt.origin, loras.origin) == _NEARER
    pairs = [(lora, use) for lora, use in loras.pairs if not (is_tagged and lora in own)]
    before = next((use.pairs for lora, use in pairs if lora in own), None)
    parts = dict(before or ()) | {"weight": replace(weight, key=None)}
    swept = mapping_at(weight.position, None, parts.items())
    pairs = [(lora, swept if lora in own else use) for lora, use in pairs]
    pairs += [(name, swept)] if before is None else []
    changed = {**layer, "loras": loras.with_pairs(tuple(pairs))}
    if "prompt" in layer:
        changed["prompt"] = prompt.with_value(text)
    if "detail" in layer and layer["detail"].parts:  # otherwise it is off
        details = []
        for detail in layer["detail"].parts:
            parts = dict(detail.pairs)
            if "prompt" in parts:
                text = drawing.without_tags(parts["prompt"].text, {meant}, inventory)
                parts["prompt"] = parts["prompt"].with_value(text)
            details.append(detail.with_pairs(tuple(parts.items())))
        changed["detail"] = layer["detail"].with_parts(tuple(details))
    return changed


def _number(written: SourceValue) -> float | None:
    """Return a LoRA's weight; None if it is not valid."""
    value = number(written.text)
    # Adding 0.0 turns -0.0 into 0.0.
    return None if value is None or abs(value) > MAX_LORA_WEIGHT else float(value) + 0.0


def loras_form(written: SourceValue, reporter: Reporter) -> SourceValue:
    """Return the mapping {name: {weight: …, family: …}} that a field `loras` means.

    It may be written as `{name: weight}`, as text, `name, name:weight`, or as a list of both and of
    `{name: …, weight: …, family: …}`.
    """
    if written.is_off:
        return written.with_value(OFF)
    pairs = list(islice(_pairs(written, reporter), drawing.MAX_LORAS + 1))
    if len(pairs) > drawing.MAX_LORAS:
        at = pairs.pop()[1].position
        reporter.wrong("loras", f"more than {drawing.MAX_LORAS} LoRAs here.", "", position=at)
    return written.with_pairs(tuple(pairs))


def _pairs(written: SourceValue, reporter: Reporter) -> Iterator[tuple[str, SourceValue]]:
    for part in written.parts if isinstance(written.value, tuple) else (written,):
        pairs = dict(part.pairs)
        uses = (part,) if "name" in pairs else pairs.values()
        for said, first, again in chain.from_iterable(map(repeated, uses)):
            reporter.wrong("loras", given_twice(said, first), "", position=again.name_position)
        if isinstance(part.value, str):
            yield from _in_text(part)
        elif not isinstance(part.value, dict):
            reporter.wrong("loras", wrong_value("loras", part), "", position=part.error_position)
        elif "name" in pairs and _number(pairs["name"]) is None:  # a LoRA may be called so
            name = pairs.pop("name")
            yield name.text, mapping_at(name.position, None, pairs.items())
        else:
            for text, value in part.pairs:
                parts = value.pairs if isinstance(value.value, dict) else (("weight", value),)
                yield text, mapping_at(value.name_position, None, parts)


def _in_text(written: SourceValue) -> Iterator[tuple[str, SourceValue]]:
    position = written.error_position
    for part in written.text.split(",") if not written.is_none else ():
        name, _, weight = (piece.strip() for piece in part.rpartition(":"))
        said = written.with_value(weight)
        if name and _number(said) is not None:
            yield name, mapping_at(position, None, [("weight", said)])
        elif part.strip():
            yield part.strip(), mapping_at(position, None, ())
