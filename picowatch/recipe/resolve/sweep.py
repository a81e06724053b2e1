"""The field `sweep`: axes of values, every combination of which is an image.

An axis varies a field (`steps: [10, 20]`, `cfg_scale: 4..10 step 2`), a piece of a prompt
(`"prompt: old": [new, newer]`), a LoRA's weight (`"lora: name": 0..1 step 0.25`), a part of a
mapping (`"hires: scale": [1.5, 2]`, `"upscale: model": [a, b]`) or of a ControlNet
(`"control: weight": [0.5, 1]`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import product
from typing import NamedTuple

from picowatch.errors import ValueInvalid
from picowatch.recipe import fields
from picowatch.recipe.converters import range_in
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import did_you_mean
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.prompts.wildcards import MAX_LENGTH
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import (
    SIZE_AND_SIDE,
    mappings_in,
    merged,
    normalised,
    text_of,
    with_part,
)
from picowatch.recipe.resolve.loras import LORAS, lora_named, with_lora
from picowatch.recipe.resolve.severity import Reporter
from picowatch.recipe.samplers import AUTOMATIC
from picowatch.recipe.written import Layer, SourceValue, plain_name

# The label of the axis of one LoRA's weight.
_ONE_LORA = "lora: "


Over = Callable[[Layer], Layer]


class Value(NamedTuple):
    """One value of an axis: as written, and how a layer gets it."""

    written: SourceValue
    over: Over
    changes_prompt: bool = False

    @property
    def text(self) -> str:
        """The value as the contact sheet shows it."""
        value = self.written.value
        return value if isinstance(value, str) else self.written.raw


Axes = dict[str, list[Value]]  # by the labels that the contact sheet shows


def read_axes(
    written: SourceValue,
    layer: Layer,
    own: Layer,
    most: int,
    inventory: Inventory,
    problems: Problems,
) -> Axes:
    """Return the axes of a sweep over the entry `layer`, each with at most `most` values.

    Mistakes are added to `problems`. Every sampler keeps a schedule type that is swept, too, or
    that the entry's `own` layer sets other than by its sampler's name.
    """
    axes: Axes = {}
    if written.is_off:
        return axes
    if not isinstance(written.value, dict):
        problems.add(written.error_position, wrong_value("sweep", written))
        return axes
    sampler, said = own.get("sampler"), own.get("schedule_type")
    keeps = said is not None and (sampler is None or sampler.position != said.position)
    keeps = keeps or any(_field(key) == "schedule_type" for key, _ in written.pairs)
    for key, values in written.pairs:
        swept = Swept(layer, axes, most, keeps, inventory, problems)
        try:
            label, found = _axis(key, values, swept)
        except ValueInvalid as error:
            problems.add(values.name_position, str(error))
            continue
        if label in axes:
            problems.add(values.name_position, f"'{shown(key)}' is swept twice. Keep one.")
        elif found:
            axes[label] = found
    if fields.SIZE in axes and not axes.keys().isdisjoint(("width", "height")):
        problems.add(written.name_position, SIZE_AND_SIDE)
    return axes


def first_layer(axes: Axes, layer: Layer) -> Layer:
    """Return the entry's layer with the first value of each axis."""
    return reduce(lambda under, values: values[0].over(under), axes.values(), layer)


def swept_loras(axes: Axes, inventory: Inventory) -> frozenset[str]:
    """Return the LoRAs whose weights a sweep varies."""
    named = (label.removeprefix(_ONE_LORA) for label in axes if label.startswith(_ONE_LORA))
    return frozenset(filter(None, (lora_named(name, inventory) for name in named)))


def combinations(axes: Axes, layer: Layer) -> Iterator[Layer]:
    """Yield the entry's layer with every combination of values, the last axis fastest."""
    for values in product(*axes.values()):
        yield reduce(lambda under, value: value.over(under), values, dict(layer))


def refuse_same_images(axes: Axes, images: Sequence[Recipe], problems: Problems) -> None:
    """Refuse a value that makes the same images as another one of its axis, like 7 and 7.0."""
    combined = list(product(*(range(len(values)) for values in axes.values())))
    made = [[getattr(image, name) for name in fields.ROWS] for image in images]
    for place, (label, values) in enumerate(axes.items()):
        images_of: list[list[object]] = [[] for _ in values]
        for indexes, image in zip(combined, made, strict=True):
            images_of[indexes[place]].append(image)
        for index, value in enumerate(values):
            first = values[images_of.index(images_of[index])]
            if first is not value:
                what = (
                    f"'{shown(value.text)}' means the same as '{shown(first.text)}' in the "
                    f"'{shown(label)}' sweep. Keep one."
                )
                problems.add(value.written.position, what)


def _field(key: str) -> str | None:
    return fields.FIRST_NAME_OF.get(plain_name(key.partition(":")[0]))


@dataclass(frozen=True, slots=True)
class Swept:
    """What an axis may vary: the entry's layer, over which there are the `axes` before this one.

    `keeps_type`: samplers keep the schedule type that is swept or set by itself.
    """

    layer: Layer
    axes: Axes
    most: int
    keeps_type: bool
    inventory: Inventory
    problems: Problems


def _axis(key: str, written: SourceValue, swept: Swept) -> tuple[str, list[Value]]:
    """Return label and values of one axis; wrong values are added to the problems.

    Raises ValueInvalid for a wrong name.
    """
    field, detail = _field(key), key.partition(":")[2].strip()
    if field is None:
        raise ValueInvalid(f"sweep cannot vary '{shown(key)}': {_meant(key, written, swept.layer)}")
    if field in fields.NO_SWEEP:
        raise ValueInvalid(f"sweep cannot vary {field}. {fields.NO_SWEEP[field]}")
    if field in fields.PARTS:
        detail = fields.PART_ALIASES[field].get(plain_name(detail), plain_name(detail))
    values = partial(_values, key, written, swept.most, swept.problems)
    part, label = f"{field}.{detail}", f"{field}: {detail}"
    if not detail:
        return field, [Value(value, _over_field(field, value, swept)) for value in values()]
    if field == LORAS:
        over = partial(with_lora, name=detail, inventory=swept.inventory)
        return f"{_ONE_LORA}{detail}", [
            Value(value, partial(over, weight=value)) for value in values()
        ]
    if field in fields.PROMPTS:
        _check_piece(field, detail, swept.layer)
        return label, [Value(value, _over_piece(field, detail, value), True) for value in values()]
    if part in fields.PART_FIELDS:
        _check_mapping(field, detail, swept)
        return label, [
            Value(value, partial(with_part, field=part, part=value)) for value in values()
        ]
    meant = did_you_mean(detail, fields.PARTS.get(field, ()))
    raise ValueInvalid(f"sweep cannot vary '{shown(key)}'. {meant}Write a field's name alone.")


def _over_field(field: str, value: SourceValue, swept: Swept) -> Over:
    """Set the fields of a value: a size has two, a sampler may have a schedule type."""
    overlay = normalised({field: value}, Reporter({field: value}, swept.problems))
    kind = overlay.get("schedule_type")
    if field == "sampler" and kind and kind.value == AUTOMATIC and swept.keeps_type:
        del overlay["schedule_type"]
    return lambda layer: merged([layer, overlay])


def _over_piece(field: str, piece: str, new: SourceValue) -> Over:
    """Put another text in place of a piece of a prompt."""
    text = text_of(field, new)
    return lambda layer: {**layer, field: new.with_value(layer[field].text.replace(piece, text))}


def _check_piece(field: str, piece: str, layer: Layer) -> None:
    """Raise ValueInvalid if a prompt lacks a piece, or is too long to be searched."""
    text = layer[field].text if field in layer else ""
    if piece not in text:
        raise ValueInvalid(f"'{shown(piece)}' does not occur in {field}: there is nothing to vary.")
    if len(text) > MAX_LENGTH:
        raise ValueInvalid(f"a {field} in a sweep may have at most {MAX_LENGTH:,} characters.")


def _check_mapping(field: str, part: str, swept: Swept) -> None:
    """Raise ValueInvalid if there is no mapping of which a part could vary."""
    first = first_layer(swept.axes, swept.layer)
    layers = [value.over(first) for value in swept.axes.get(field, ())] or [first]
    number = max(len(mappings_in(layer, field)) for layer in layers)
    if not number:
        name = f'"{field}: {part}"'
        raise ValueInvalid(f"{name} has no effect without {field}. Add it, or remove {name}.")
    if number > 1:
        raise ValueInvalid(
            f"'{field}: {part}' could vary any of the {number} entries of {field}. "
            f"Sweep '{field}' itself, with whole lists as values."
        )


def _meant(key: str, values: SourceValue, layer: Layer) -> str:
    """Return what an unknown name may mean: a field, or a piece of the prompt (`Prompt S/R`)."""
    name, _, detail = (part.strip() for part in key.partition(":"))
    prompt = layer["prompt"].text if "prompt" in layer else ""
    first = values.parts[0].text if values.parts and "prompt" in name.casefold() else ""
    for piece in filter(None, (detail, key, first)):
        if piece in prompt:
            name = f'"prompt: {shown(piece)}"'
            return f"there is no such field. For a piece of the prompt write {name}."
    meant = did_you_mean(
        name, [field for field in fields.FIRST_NAME_OF if field not in fields.NO_SWEEP]
    )
    return f"there is no such field. {meant}".rstrip()


def _values(key: str, written: SourceValue, most: int, problems: Problems) -> list[SourceValue]:
    """Return the values as written, or those of a range like `4..10 step 2`."""
    values: Sequence[SourceValue] = written.parts
    what = f"the '{shown(key)}' sweep"
    try:
        numbers = range_in(written.value)
        if numbers is None and not isinstance(written.value, tuple):
            raise ValueInvalid(f"{what} must be a list like [1, 2], or a range like 4..10 step 2.")
        count = len(written.parts) if numbers is None else len(numbers)
        if not count:
            raise ValueInvalid(f"{what} has no values.")
        if count > most:
            raise ValueInvalid(
                f"{what} has {count:,} values; one save may request {most:,} images (the setting "
                "max_images_per_save)."
            )
    except ValueInvalid as error:
        problems.add(written.error_position, str(error))
        return []
    if numbers is not None:
        return [replace(written, value=f"{number}", raw=f"{number}") for number in numbers]
    return [replace(part, key=written.key) for part in values]
