"""The field `sweep`: axes of values, every combination of which is an image.

An axis is over a field (`steps: [10, 20]`, `cfg_scale: 4..10 step 2`), over a piece of a prompt
(`"prompt: old": [new, newer]`), over a LoRA's weight (`"lora: name": 0..1 step 0.25`), over a
part of a mapping (`"hires: scale": [1.5, 2]`, `"upscale: model": [a, b]`) or of a ControlNet
(`"control: weight": [0.5, 1]`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import FIRST_NAME_OF, NO_SWEEP, PART_FIELDS, PROMPTS, SIZE, Axis
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import did_you_mean
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.prompts.wildcards import MAX_LENGTH
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import (
    SIZE_AND_SIDE,
    is_off,
    merged,
    normalised,
    range_in,
    text_of,
    typed,
    with_part,
)
from picowatch.recipe.resolve.loras import ONE_LORA
from picowatch.recipe.resolve.prompts import count_all_signs
from picowatch.recipe.resolve.severity import Judge
from picowatch.recipe.samplers import AUTOMATIC
from picowatch.recipe.written import Layer, Written

MAX_SWEPT_CHARACTERS = 2_000_000
_SIGN = 8  # so many characters take as long as one of a wildcard or a bracket


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an axis: as it is written, and what it lays over the entry.

    With `replaces`, the overlay holds a prompt's name and what comes instead of that piece.
    """

    written: Written
    overlay: Layer
    replaces: str = ""

    @property
    def text(self) -> str:
        """The value as the contact sheet shows it."""
        value = self.written.value
        return value if isinstance(value, str) else self.written.raw

    def over(self, layer: Layer) -> Layer:
        """The layer with this value."""
        if self.replaces:
            ((field, new),) = self.overlay.items()
            text = layer[field].text.replace(self.replaces, new.text)
            return {**layer, field: new.with_value(text)}
        for field, written in self.overlay.items():
            if field in PART_FIELDS:
                return with_part(layer, field, written)
        return merged([layer, self.overlay])


@dataclass(frozen=True, slots=True)
class WrittenAxis:
    """An axis with what each of its values means."""

    label: str
    values: tuple[Value, ...]

    @property
    def axis(self) -> Axis:
        """The axis as the contact sheet shows it."""
        return Axis(self.label, tuple(value.text for value in self.values))


def read_axes(
    written: Written, layer: Layer, own: Layer, most: int, problems: Problems
) -> list[WrittenAxis]:
    """The axes of a sweep over the entry `layer`, each with at most `most` values.

    What is wrong goes to `problems`.
    `own` is what the entry itself says: its schedule type goes with every sampler.
    """
    if written.value is False:
        return []
    if not isinstance(written.value, dict):
        problems.add(written.error_position, wrong_value("sweep", written))
        return []
    axes: dict[str, WrittenAxis] = {}
    for key, values in written.pairs:
        try:
            axis = _axis(key, values, layer, _swept(axes), most, problems)
        except ValueInvalid as error:
            problems.add(values.name_position, str(error))
            continue
        if axis.label in axes:
            problems.add(values.name_position, f"'{shown(key)}' is swept twice. Keep one.")
        elif axis.values:
            axes[axis.label] = axis
    if SIZE in axes and not axes.keys().isdisjoint(("width", "height")):
        problems.add(written.name_position, SIZE_AND_SIDE)
        return []
    if "sampler" in axes and ("schedule_type" in axes or _says_schedule_type(own)):
        axes["sampler"] = _without_automatic(axes["sampler"])
    return list(axes.values())


def _swept(axes: dict[str, WrittenAxis]) -> Layer:
    """What the first values of axes lay over an entry."""
    return {name: one for axis in axes.values() for name, one in axis.values[0].overlay.items()}


def combinations(axes: Sequence[WrittenAxis], layer: Layer) -> Iterator[Layer]:
    """The entry's layer with every combination of values, the last axis fastest."""
    if not axes:
        yield dict(layer)
        return
    for value in axes[0].values:
        yield from combinations(axes[1:], value.over(layer))


def refuse_long_sweep(
    axes: Sequence[WrittenAxis], layer: Layer, sweep: Written, problems: Problems
) -> bool:
    """Return whether sweeping a piece of a prompt makes more text than can be looked through."""
    if not any(value.replaces for axis in axes for value in axis.values):
        return False
    texts = [layer[field].text for field in PROMPTS if field in layer]
    each = sum(len(text) + (_SIGN - 1) * count_all_signs(text) for text in texts)
    found = prod(len(axis.values) for axis in axes) * each
    if found > MAX_SWEPT_CHARACTERS:
        problems.add(
            sweep.name_position,
            f"this sweep of a prompt has {found:,} characters, of which those of wildcards and "
            f"brackets count as {_SIGN}; the limit is {MAX_SWEPT_CHARACTERS:,}. Shorten the "
            "prompt, or sweep fewer values.",
        )
    return found > MAX_SWEPT_CHARACTERS


def refuse_same_images(
    axes: Sequence[WrittenAxis], images: Sequence[Recipe], problems: Problems
) -> None:
    """Refuse a value that makes the same images as another one of its axis, like 7 and 7.0."""
    combined = list(product(*(range(len(axis.values)) for axis in axes)))
    made = [tuple(dict(image).values()) for image in images]
    for place, axis in enumerate(axes):
        images_of: list[list[object]] = [[] for _ in axis.values]
        for indexes, image in zip(combined, made, strict=True):
            images_of[indexes[place]].append(image)
        for index, value in enumerate(axis.values):
            first = axis.values[images_of.index(images_of[index])]
            if first is not value:
                what = (
                    f"'{shown(value.text)}' means the same as '{shown(first.text)}' in the "
                    f"'{shown(axis.label)}' sweep. Keep one."
                )
                problems.add(value.written.position, what)


def _says_schedule_type(own: Layer) -> bool:
    """Return whether the entry gives a schedule type itself, not only in its sampler's name."""
    sampler, said = own.get("sampler"), own.get("schedule_type")
    return said is not None and (sampler is None or sampler.position != said.position)


def _without_automatic(axis: WrittenAxis) -> WrittenAxis:
    """Samplers that leave the schedule type as it is, unless their names say one."""
    values = []
    for value in axis.values:
        said = value.overlay.get("schedule_type")
        if said and said.value == AUTOMATIC:
            value = replace(value, overlay={"sampler": value.overlay["sampler"]})
        values.append(value)
    return replace(axis, values=tuple(values))


def _axis(
    key: str, written: Written, layer: Layer, swept: Layer, most: int, problems: Problems
) -> WrittenAxis:
    """One axis; its wrong values go to `problems`. Raises ValueInvalid for a wrong name."""
    name, _, detail = (part.strip() for part in key.partition(":"))
    field = FIRST_NAME_OF.get(name.casefold().replace(" ", "_"))
    label = part = f"{field}.{detail}" if detail else f"{field}"
    if field is None:
        raise ValueInvalid(f"sweep cannot vary '{shown(key)}': {_meant(key, written, layer)}")
    if field in NO_SWEEP:
        raise ValueInvalid(f"sweep cannot vary {field}. {NO_SWEEP[field]}")
    if detail and field in PROMPTS:
        _check_piece(field, detail, layer)
        label = f"{field}: {detail}"
    elif detail and field == "loras":
        label = part = f"{ONE_LORA}{detail}"
    elif detail and part in PART_FIELDS:
        _check_mapping(field, detail, layer | swept)
        label = f"{field}: {detail}"
    elif detail:
        raise ValueInvalid(f"sweep cannot vary '{shown(key)}'. Write a field's name alone.")
    values = []
    for value in _values(key, written, most, problems):
        if detail and field in PROMPTS:
            text_of(field, value)
            values.append(Value(value, {field: value}, detail))
        elif part in PART_FIELDS:
            values.append(Value(value, {part: typed(part, value)}))
        else:
            one = {part: value}
            values.append(Value(value, normalised(one, Judge(one, problems))))
    return WrittenAxis(label, tuple(values))


def _check_piece(field: str, piece: str, layer: Layer) -> None:
    """Raise ValueInvalid if a prompt lacks a piece, or is too long to be searched."""
    text = layer[field].text if field in layer else ""
    if piece not in text:
        raise ValueInvalid(f"'{shown(piece)}' does not occur in {field}: there is nothing to vary.")
    if len(text) > MAX_LENGTH:
        raise ValueInvalid(f"a {field} in a sweep may have at most {MAX_LENGTH:,} characters.")


def _check_mapping(field: str, part: str, layer: Layer) -> None:
    """Raise ValueInvalid if there is no mapping of which a part could vary."""
    mapping = layer.get(field)
    if mapping is None or is_off(mapping):
        name = f'"{field}: {part}"'
        raise ValueInvalid(f"{name} has no effect without {field}. Add it, or remove {name}.")
    if len(mapping.parts) > 1:
        raise ValueInvalid(
            f"'{field}: {part}' could vary any of the {len(mapping.parts)} ControlNets here. "
            f"Sweep '{field}' itself, with whole lists as values."
        )


def _meant(key: str, values: Written, layer: Layer) -> str:
    """Say what a name that is no field's may mean: a piece of the prompt, as in `Prompt S/R`."""
    name, _, detail = (part.strip() for part in key.partition(":"))
    prompt = layer["prompt"].text if "prompt" in layer else ""
    first = values.parts[0].text if values.parts and "prompt" in name.casefold() else ""
    for piece in filter(None, (detail, key, first)):
        if piece in prompt:
            name = f'"prompt: {shown(piece)}"'
            return f"there is no such field. For a piece of the prompt write {name}."
    meant = did_you_mean(name, [one for one in FIRST_NAME_OF if one not in NO_SWEEP])
    return f"there is no such field. {meant}".rstrip()


def _values(key: str, written: Written, most: int, problems: Problems) -> list[Written]:
    """The values as written, or those of a range like `4..10 step 2`."""
    values: Sequence[Written] = written.parts
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
        return [replace(written, value=number, raw=f"{number}") for number in numbers]
    return [replace(part, key=written.key) for part in values]
