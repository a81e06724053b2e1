"""What of another program's settings a recipe can say, and warnings for the rest."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.wording import MAX_WARNINGS, left_out
from picowatch.recipe.prompts.wildcards import MAX_LENGTH
from picowatch.recipe.read.a1111 import seed_of_32_bits
from picowatch.recipe.resolve.installed import EMBEDDINGS
from picowatch.recipe.samplers import (
    AUTOMATIC,
    SamplerUnknown,
    ScheduleUnknown,
    find_sampler,
    find_schedule_type,
)
from picowatch.recipe.written import Entry, Position, written_at

# What says of a setting that it is off.
_NOTHING = ("", "none", "null", "false", "0", "0.0", "[]", "{}")
# What a damaged or hostile file may raise in code that reads it as if it were a good one.
DAMAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)


def settings_of(text: str) -> dict[str, Any]:
    """The JSON object that a program wrote. Readers take out what they read."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise TypeError("not an object")
    return values


class Carried:
    """The fields of a recipe that another program's settings give, with warnings."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.warnings: list[str] = []

    def put(self, field: str, value: object) -> None:
        """A field's plain value; None is as if it were not there. Raises TypeError."""
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError(field)
        self.values[field] = value

    def take_all(self, settings: dict[str, Any], fields: Mapping[str, str]) -> None:
        """Take out the settings with these names, as the fields that they are."""
        for name, field in fields.items():
            put = self.put_seed if field == "seed" else partial(self.put, field)
            put(settings.pop(name, None))

    def take_size(
        self, settings: dict[str, Any], width: str = "width", height: str = "height"
    ) -> None:
        """Take out the size, whose sides have these names."""
        self.put_size(settings.pop(width, None), settings.pop(height, None))

    def put_size(self, width: object, height: object) -> None:
        if isinstance(width, int | str) and isinstance(height, int | str):
            self.put("size", f"{width}x{height}")

    def put_seed(self, value: object) -> None:
        """The seed, as the 32 bits of it that the noise depends on."""
        if value is not None:
            seed, warning = seed_of_32_bits(str(value))
            self.put("seed", seed)
            self.warnings += [warning] if warning else []

    def put_sampler(self, name: object, schedule_type: object = None) -> None:
        """The sampler, unless picowatch has none of this name, with the schedule type."""
        if name is not None:
            try:
                sampler, in_name = find_sampler(str(name))
            except SamplerUnknown as error:
                used = error.instead or "the usual one"
                self.warn(f"picowatch has no sampler '{shown(str(name))}'; {used} is used.")
                if not error.instead:
                    return
                sampler, in_name = find_sampler(error.instead)
            self.values["sampler"] = sampler.name
            self.values["schedule_type"] = in_name or AUTOMATIC
        if schedule_type is not None:
            self._put_schedule_type(str(schedule_type))

    def _put_schedule_type(self, name: str) -> None:
        """The schedule type, unless picowatch has none of this name."""
        try:
            self.values["schedule_type"] = find_schedule_type(name)
        except ScheduleUnknown:
            self.leave_out("schedule type", name)

    def put_lora(self, name: object, weight: object) -> None:
        """A LoRA with its weight; 1 if it has none."""
        if isinstance(name, str) and name:
            self.values.setdefault("loras", {})[name] = 1 if weight is None else weight

    def with_embeddings(self, prompt: str, pattern: re.Pattern[str]) -> str:
        """A prompt with the bare names of its embeddings, which are what `pattern` calls "name"."""
        names = [found["name"] or "" for found in pattern.finditer(prompt)]
        self.values[EMBEDDINGS] = ",".join([self.values.get(EMBEDDINGS, ""), *names])
        return pattern.sub(lambda found: found["name"] or "", prompt)

    def translated(self, prompt: str, translate: Callable[[str], str | None]) -> str:
        """A prompt with its weights as A1111's; it stays as it is where `translate` gives None."""
        found = translate(prompt) if len(prompt) <= MAX_LENGTH else None
        if found is None:
            self.warn("the brackets in the prompt are unbalanced; its weights stay as text.")
            return prompt
        return found

    def miss_start_image(self) -> None:
        self.warn("the start image is not inside the picture; 'image: …' in the recipe names one.")

    def leave_out(self, name: str, value: object) -> None:
        """A warning that this setting is not carried over, unless it says that it is off."""
        if value is not None and str(value).strip().casefold() not in _NOTHING:
            self.warn(left_out(f"{name}: {value}"))

    def leave_out_rest(self, settings: Mapping[str, Any], information: Collection[str]) -> None:
        """The same for all settings that were not taken out, but those that draw nothing."""
        for name, value in settings.items():
            if len(self.warnings) == MAX_WARNINGS:
                return
            if name not in information:
                self.leave_out(name, value)

    def warn(self, message: str) -> None:
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(message)

    def entry(self, position: Position) -> Entry:
        """The fields, all of them at the position where a recipe names the picture."""
        layer = {field: written_at(position, value) for field, value in self.values.items()}
        return Entry(layer, position, tuple(self.warnings))
