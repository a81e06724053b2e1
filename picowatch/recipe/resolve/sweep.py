"""The field `sweep`: axes of values, every combination of which is an image.

An axis is over a field (`steps: [10, 20]`, `cfg_scale: 4..10 step 2`), over a piece of a prompt
(`"prompt: old": [new, newer]`), over a LoRA's weight (`"lora: name": 0..1 step 0.25`), over a
part of a mapping (`"hires: scale": [1.5, 2]`, `"upscale: model": [a, b]`) or of a ControlNet
(`"control: weight": [0.5, 1]`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from picowatch.errors import ValueInvalid
from picowatch.recipe.fields import FIRST_NAME_OF, NO_SWEEP, PART_FIELDS, PROMPTS, SIZE, Axis
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import did_you_mean
from picowatch.recipe.messages.wording import DECIMAL_POINT, wrong_value
from picowatch.recipe.prompts.wildcards import MAX_LENGTH
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import SIZE_AND_SIDE, merged, normalised
from picowatch.recipe.resolve.loras import ONE_LORA
from picowatch.recipe.resolve.ranges import meant_range, range_in
from picowatch.recipe.samplers import AUTOMATIC
from picowatch.recipe.written import Layer, Position, Written


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an axis: its text for the contact sheet, and what it lays over the entry.

    With `replaces`, the overlay holds a prompt's name and what comes instead of that piece.
    """

    text: str
    overlay: Layer
    position: Position
    replaces: str = ""

    def over(self, layer: Layer) -> Layer:
        """The layer with this value."""
        if not self.replaces:
            return merged([layer, self.overlay])
        ((field, new),) = self.overlay.items()
        old = layer[field]
        text = old.text.replace(self.replaces, new.text)
        return {**layer, field: replace(new, value=text, unswept=old)}


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
    if written.value is False or written.value in ("off", "none"):
        return []
    if not isinstance(written.value, dict):
        problems.add(written.error_position, wrong_value("sweep", written))
        return []
    axes: dict[str, WrittenAxis] = {}
    for key, values in written.pairs:
        if key.isdigit():
            message = f"sweep cannot vary '{shown(key)}'. {DECIMAL_POINT}"
            problems.add(values.name_position, message)
            continue
        found = _axis(key, values, layer, most, problems)
        if found and found.label in axes:
            problems.add(values.name_position, f"'{shown(key)}' is swept twice. Keep one.")
        elif found:
            axes[found.label] = found
            if SIZE in axes and not axes.keys().isdisjoint(("width", "height")):
                problems.add(values.name_position, SIZE_AND_SIDE)
                return []
    if "sampler" in axes and ("schedule_type" in axes or _says_schedule_type(own)):
        axes["sampler"] = _without_automatic(axes["sampler"])
    return list(axes.values())


def combinations(axes: Sequence[WrittenAxis], layer: Layer) -> Iterator[Layer]:
    """The entry's layer with every combination of values, the last axis fastest."""
    if not axes:
        yield layer
        return
    for value in axes[0].values:
        yield from combinations(axes[1:], value.over(layer))


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
            first = images_of.index(images_of[index])
            if first < index:
                other = axis.values[first].text
                what = f"'{shown(value.text)}' appears twice in the '{shown(axis.label)}' sweep."
                if other != value.text:
                    what = (
                        f"'{shown(value.text)}' means the same as '{shown(other)}' in the "
                        f"'{shown(axis.label)}' sweep. Keep one."
                    )
                problems.add(value.position, what)


def _says_schedule_type(own: Layer) -> bool:
    """Return whether the entry gives a schedule type itself, not only in its sampler's name."""
    sampler, schedule_type = own.get("sampler"), own.get("schedule_type")
    return schedule_type is not None and (
        sampler is None or sampler.position != schedule_type.position
    )


def _without_automatic(axis: WrittenAxis) -> WrittenAxis:
    """Samplers that leave the schedule type as it is, unless their names say one."""
    return replace(
        axis,
        values=tuple(
            replace(value, overlay={"sampler": value.overlay["sampler"]})
            if "sampler" in value.overlay and value.overlay["schedule_type"].value == AUTOMATIC
            else value
            for value in axis.values
        ),
    )


def _axis(
    key: str, values: Written, layer: Layer, most: int, problems: Problems
) -> WrittenAxis | None:
    position = values.name_position
    name, _, detail = (part.strip() for part in key.partition(":"))
    field = FIRST_NAME_OF.get(name.casefold().replace(" ", "_"))
    parts = _values(key, values, most, problems)
    if field is None:
        problems.add(position, f"sweep cannot vary '{shown(key)}': {_meant(key, parts, layer)}")
    elif field in NO_SWEEP:
        problems.add(position, f"sweep cannot vary {field}. {NO_SWEEP[field]}")
    elif not detail:
        return _over(field, field, parts, problems)
    elif field in PROMPTS:
        return _over_prompt(field, key.partition(":")[2].strip(), parts, layer, position, problems)
    elif field == "loras":
        return _over(f"lora: {detail}", f"{ONE_LORA}{detail}", parts, problems)
    elif f"{field}.{detail}" in PART_FIELDS:
        return _over(f"{field}: {detail}", f"{field}.{detail}", parts, problems)
    else:
        problems.add(position, f"sweep cannot vary '{shown(key)}'. Write a field's name alone.")
    return None


def _meant(key: str, parts: Sequence[Written], layer: Layer) -> str:
    """Say what a name that is no field's may mean: a piece of the prompt, as in `Prompt S/R`."""
    name, _, detail = (part.strip() for part in key.partition(":"))
    names = [name for name in FIRST_NAME_OF if name not in NO_SWEEP]
    meant = did_you_mean(name, names)
    prompt = layer["prompt"].text if "prompt" in layer else ""
    pieces = [detail, key]
    pieces += [parts[0].text] if parts and "prompt" in name.casefold() else []
    piece = next((one for one in pieces if one and one in prompt), "")
    if piece:
        meant = f'For a piece of the prompt write "prompt: {shown(piece)}".'
    return f"there is no such field. {meant}".rstrip()


def _over(
    label: str, field: str, parts: Sequence[Written], problems: Problems
) -> WrittenAxis | None:
    values = tuple(
        Value(_text(part), normalised({field: part}, problems), part.position) for part in parts
    )
    return WrittenAxis(label, values) if values else None


def _over_prompt(
    field: str,
    old: str,
    parts: Sequence[Written],
    layer: Layer,
    position: Position,
    problems: Problems,
) -> WrittenAxis | None:
    text = layer[field].text if field in layer else ""
    if old not in text:
        what = f"'{shown(old)}' does not occur in {field}: there is nothing to vary."
        problems.add(position, what)
        return None
    if len(text) > MAX_LENGTH:
        what = f"a {field} in a sweep may have at most {MAX_LENGTH:,} characters."
        problems.add(position, what)
        return None
    for part in parts:
        if not isinstance(part.value, str):
            problems.add(part.error_position, wrong_value(field, part))
            return None
    values = tuple(Value(_text(part), {field: part}, part.position, old) for part in parts)
    return WrittenAxis(f"{field}: {old}", values) if values else None


def _values(key: str, written: Written, most: int, problems: Problems) -> list[Written]:
    """The values as written, or those of a range."""
    if not isinstance(written.value, tuple):
        return _range(key, written, most, problems)
    if not written.parts:
        problems.add(written.error_position, f"the '{shown(key)}' sweep has no values.")
    if len(written.parts) > most:
        what = f"the '{shown(key)}' sweep has {len(written.parts):,} values{beyond(most)}"
        problems.add(written.error_position, what)
    return [replace(part, key=written.key) for part in written.parts[:most]]


def _text(part: Written) -> str:
    return part.value if isinstance(part.value, str) else part.raw


def _range(key: str, written: Written, most: int, problems: Problems) -> list[Written]:
    """The numbers of `4..10 step 2`."""
    try:
        numbers = range_in(written.value)
    except ValueInvalid as error:
        problems.add(written.error_position, str(error))
        return []
    text = written.text.strip()
    if numbers is None:
        meant = meant_range(text) or (f"[{text}]" if "," in text else "")
        what = f"the '{shown(key)}' sweep must be a list like [1, 2], or a range like 4..10 step 2."
        what += f" Write {shown(meant)}." if meant else ""
        problems.add(written.error_position, what)
        return []
    if len(numbers) > most:
        what = f"the range {shown(text)} has {len(numbers):,} values{beyond(most)}"
        problems.add(written.error_position, what)
        return []
    return [replace(written, value=number, raw=f"{number}") for number in numbers]


def beyond(most: int) -> str:
    """The end of a message about more values than a save may request images."""
    return f"; one save may request {most:,} images (the setting max_images_per_save)."
