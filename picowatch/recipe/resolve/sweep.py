"""The field `sweep`: axes of values, every combination of which is an image.

An axis varies a field (`steps: [10, 20]`, `cfg_scale: 4..10 step 2`), a piece of a prompt
(`"prompt: old": [new, newer]`), a LoRA's weight (`"lora: name": 0..1 step 0.25`), a part of a
mapping (`"hires: scale": [1.5, 2]`, `"upscale: model": [a, b]`) or of a ControlNet
(`"control: weight": [0.5, 1]`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import product
from typing import NamedTuple

from picowatch.errors import ValueInvalid
from picowatch.recipe import fields
from picowatch.recipe.converters import range_in
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import did_you_mean, listed
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.prompts.drawing import lora_named
from picowatch.recipe.prompts.wildcards import MAX_LENGTH
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve import layers
from picowatch.recipe.resolve.advice import why_idle
from picowatch.recipe.resolve.loras import with_lora
from picowatch.recipe.samplers import AUTOMATIC
from picowatch.recipe.written import Layer, SourceValue, plain_name

# The label of the axis of one LoRA's weight.
_ONE_LORA = "lora: "
Over = Callable[[Layer], Layer]


class Value(NamedTuple):
    """One value of an axis: as written, and how a layer gets it."""

    written: SourceValue
    over: Over

    @property
    def text(self) -> str:
        """The value as the contact sheet shows it."""
        value = self.written.value
        return value if isinstance(value, str) else self.written.raw


Axes = dict[str, list[Value]]  # by the labels that the contact sheet shows


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
    made = [
        [None if why_idle(image, name) else getattr(image, name) for name in fields.ROWS]
        for image in images
    ]
    for place, (label, values) in enumerate(axes.items()):
        images_of: list[list[object]] = [[] for _ in values]
        for indexes, image in zip(combined, made, strict=True):
            images_of[indexes[place]].append(image)
        for index, value in enumerate(values):
            first = values[images_of.index(images_of[index])]
            if first is not value:
                what = f"'{shown(value.text)}' means the same as '{shown(first.text)}'"
                where = f"in the '{shown(label)}' sweep."
                problems.add(value.written.position, f"{what} {where} Keep one.")


def _field(key: str) -> str | None:
    return fields.FIRST_NAME_OF.get(plain_name(key.partition(":")[0]))


@dataclass(frozen=True, slots=True)
class AxisReader:
    """Reads the axes of a sweep over the entry `layer`, each with at most `most` values."""

    layer: Layer
    own: Layer
    most: int
    inventory: Inventory
    problems: Problems  # gets the mistakes
    axes: Axes = field(default_factory=dict)

    def read(self, written: SourceValue) -> Axes:
        axes, problems = self.axes, self.problems
        if written.is_off:
            return axes
        if not isinstance(written.value, dict):
            problems.add(written.error_position, wrong_value("sweep", written))
            return axes
        # Every sampler keeps a schedule type that is swept, too, or that the entry's own layer sets
        # other than by its sampler's name.
        sampler, said = self.own.get("sampler"), self.own.get("schedule_type")
        keeps_type = said is not None and (sampler is None or sampler.position != said.position)
        keeps_type |= any(_field(key) == "schedule_type" for key, _ in written.pairs)
        for key, values in written.pairs:
            try:
                label, found = self._axis(key, values, keeps_type)
            except ValueInvalid as error:
                problems.add(values.name_position, str(error))
                continue
            if label in axes:
                problems.add(values.name_position, f"'{shown(key)}' is swept twice. Keep one.")
            elif found:
                axes[label] = found
        if "size" in axes and not axes.keys().isdisjoint(("width", "height")):
            problems.add(written.name_position, layers.SIZE_AND_SIDE)
        return axes

    def _axis(self, key: str, written: SourceValue, keeps_type: bool) -> tuple[str, list[Value]]:
        """Return an axis' label and values, and add mistakes. Raises ValueInvalid for its name."""
        name, detail = _field(key), key.partition(":")[2].strip()
        if name is None:
            what = f"sweep cannot vary '{shown(key)}': there is no such field."
            raise ValueInvalid(f"{what} {_meant(key, written, self.layer)}".rstrip())
        if name in fields.NO_SWEEP:
            raise ValueInvalid(f"sweep cannot vary {name}. {fields.NO_SWEEP[name]}")
        if name in fields.PARTS:
            detail = fields.PART_ALIASES[name].get(plain_name(detail), plain_name(detail))
        before = _ONE_LORA if name == "loras" else f"{name}: "
        label = f"{before}{detail}" if detail else name
        if detail and name in fields.PROMPTS:
            text = self.layer[name].text if name in self.layer else ""
            if detail not in text:
                what = f"'{shown(detail)}' does not occur in {name}: there is nothing to vary."
                raise ValueInvalid(what)
            if len(text) > MAX_LENGTH:  # each image's would be searched
                limit = f"at most {MAX_LENGTH:,} characters."
                raise ValueInvalid(f"a {name} in a sweep may have {limit}")
        elif f"{name}.{detail}" in fields.PART_FIELDS:
            self._check_mapping(name, detail)
        elif detail and name != "loras":
            parts = [*fields.PARTS.get(name, ())]
            remedy = f"{name} has {listed(parts)}." if parts else "Write a field's name alone."
            what = f"sweep cannot vary '{shown(key)}'. {did_you_mean(detail, parts)}{remedy}"
            raise ValueInvalid(what)
        values = self._values(key, written)
        return label, [Value(v, self._over(name, detail, v, keeps_type)) for v in values]

    def _over(self, name: str, detail: str, value: SourceValue, keeps_type: bool) -> Over:
        """Return what gives a layer a value of a field, or of a `detail` of it."""
        if detail and name == "loras":
            return partial(with_lora, name=detail, weight=value, inventory=self.inventory)
        if detail and name in fields.PROMPTS:
            new = layers.text_of(name, value)
            return lambda of: {**of, name: value.with_value(of[name].text.replace(detail, new))}
        if detail:
            return partial(layers.with_part, field=f"{name}.{detail}", part=value)
        # A size has two fields, a sampler may have a schedule type.
        overlay = layers.normalised({name: value}, self.problems)
        kind = overlay.get("schedule_type")
        if name == "sampler" and kind and kind.value == AUTOMATIC and keeps_type:
            del overlay["schedule_type"]
        return lambda layer: layers.merged([layer, overlay])

    def _check_mapping(self, name: str, part: str) -> None:
        """Raise ValueInvalid if there is no mapping of which a part could vary."""
        first = next(combinations(self.axes, self.layer))
        found = [value.over(first) for value in self.axes.get(name, ())] or [first]
        number = max(len(layers.mappings_in(layer, name)) for layer in found)
        if not number:
            axis = f'"{name}: {part}"'
            raise ValueInvalid(f"{axis} has no effect without {name}. Add it, or remove {axis}.")
        if number > 1:
            what = f"'{name}: {part}' could vary any of the {number} entries of {name}."
            raise ValueInvalid(f"{what} Sweep '{name}' itself, with whole lists as values.")

    def _values(self, key: str, written: SourceValue) -> list[SourceValue]:
        """Return the values as written, or those of a range like `4..10 step 2`."""
        what = f"the '{shown(key)}' sweep"
        try:
            numbers = range_in(written.value)
            if numbers is None and not isinstance(written.value, tuple):
                forms = "a list like [1, 2], or a range like 4..10 step 2."
                raise ValueInvalid(f"{what} must be {forms}")
            count = len(written.parts) if numbers is None else len(numbers)
            if not count:
                raise ValueInvalid(f"{what} has no values.")
            if count > self.most:
                limit = f"{self.most:,} images (the setting max_images_per_save)."
                raise ValueInvalid(f"{what} has {count:,} values; one save may request {limit}")
        except ValueInvalid as error:
            self.problems.add(written.error_position, str(error))
            return []
        if numbers is not None:
            return [replace(written, value=f"{number}", raw=f"{number}") for number in numbers]
        return [replace(part, key=written.key) for part in written.parts]


def _meant(key: str, values: SourceValue, layer: Layer) -> str:
    """Say which field a name may mean, or which piece of the prompt, as in A1111's Prompt S/R."""
    name, _, detail = (part.strip() for part in key.partition(":"))
    prompt = layer["prompt"].text if "prompt" in layer else ""
    first = values.parts[0].text if values.parts and "prompt" in name.casefold() else ""
    for piece in filter(None, (detail, key, first)):
        if piece in prompt:
            return f'For a piece of the prompt write "prompt: {shown(piece)}".'
    return did_you_mean(name, fields.FIRST_NAME_OF.keys() - fields.NO_SWEEP)
