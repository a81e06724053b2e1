"""A1111's "generation parameters": text to fields. The inverse of metadata/a1111.py.

A block is the prompt, a line `Negative prompt: …`, and a line of values, `Steps: 24, Sampler: …`.
Capitals do not count: people write the lines by hand. A line of values may go on in the next one.
Below it stand remarks of A1111's page and of extensions, which are no prompts: `Template:`
(https://github.com/adieyal/sd-dynamic-prompts), `Time taken:`, `Used embeddings:`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, islice
from math import ceil
from typing import NamedTuple

from picowatch.recipe import a1111_keys as keys
from picowatch.recipe.fields import CHECKPOINT_HASH, EMBEDDINGS, MAX_SEED, SIZE
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import MAX_WARNINGS, left_out
from picowatch.recipe.prompts.grammar import split_loras
from picowatch.recipe.written import Entry, Layer, Position, Source, Written, number

_NEGATIVE = re.compile(r"\s*Negative prompt:", re.IGNORECASE)
_STEPS = re.compile(r"\s*Steps:(?P<alone>\s*\d+\s*,?\s*$)?", re.IGNORECASE)
# A key; longer ones are no keys, and would take long to be sure of.
_KEY = re.compile(r"\s*(?P<key>\w[\w \-/.]{0,60}):\s*")
_NEXT_KEY = re.compile(rf",{_KEY.pattern}")
_WITHIN = re.compile(rf"\bSteps:\s*\d+\s*,{_KEY.pattern}")
_REMARK = re.compile(
    r"\s*(?:(?:Negative )?Template:|Time taken:|Used embeddings:|Torch active/reserved:|Sys VRAM:"
    r"|A: [\d.]+ GB, R: )"
)
# Values are separated by a comma and a space: 7,5 is one number, which the field then refuses.
_DECIMAL_COMMA = re.compile(r"[0-9]{1,9},[0-9]{1,9}(?=\s*(?:,|$))")
_SIDES = re.compile(r"([1-9][0-9]{0,4})x([0-9]{1,5})")
# Forge's further model files: a VAE, or text encoders, which their names tell.
_MODULE = re.compile(r"module \d+")
_ENCODER = re.compile(r"clip|t5|qwen|gemma|llama|mistral|encoder", re.IGNORECASE)
MAX_PAIRS = 1000
MAX_BLOCKS = 10_000
MAX_LINES = 200_000
# Programs whose seeds have more bits draw their noise on the CPU, and torch uses the low 32 there.
_LONG_SEED = re.compile(r"[0-9]{10,20}")


class Line(NamedTuple):
    """A line of such a text, or what of it follows `Negative prompt:`: where that begins."""

    number: int
    column: int
    text: str


class Block(NamedTuple):
    """The lines of one picture: its prompts, and its values."""

    text: Sequence[Line]
    values: Sequence[Line] = ()


def holds_parameters(text: str) -> bool:
    """Whether a text is A1111's: one of its lines says values, or begins the negative prompt."""
    return any(_NEGATIVE.match(line) or _says_values(line) for line in text.split("\n"))


def begins_parameters(text: str) -> bool:
    """Whether a text that could be YAML, in which prompts are indented, has a line of values."""
    return any(not line[:1].isspace() and _says_values(line) for line in text.split("\n"))


def why_no_prompt(line: str) -> str | None:
    """What to say of a line that has values within it; None for a prompt."""
    found = next(filter(_is_known, _WITHIN.finditer(line)), None)
    return found and (
        f"'{shown(found[0].rstrip())} …' looks like A1111's settings within a prompt. Write the "
        "prompt, 'Negative prompt: …' and 'Steps: …' in a line each."
    )


def _says_values(line: str) -> bool:
    """Whether a line begins with steps, and another of A1111's keys follows."""
    found = _STEPS.match(line)
    return found is not None and any(map(_is_known, _NEXT_KEY.finditer(line, found.end())))


def _begins_values(line: Line) -> bool:
    found = _STEPS.match(line.text)
    return found is not None and (found["alone"] is not None or _says_values(line.text))


def _is_known(found: re.Match[str]) -> bool:
    return found["key"].rstrip().casefold() in keys.KNOWN


def a1111_entries(source: Source, problems: Problems) -> list[Entry]:
    """The recipes of a TXT with generation parameters, a block each."""
    is_long = len(source.lines) > MAX_LINES
    found = [] if is_long else list(islice(_blocks(source), MAX_BLOCKS + 1))
    if is_long or len(found) > MAX_BLOCKS:
        message = f"more than {MAX_BLOCKS:,} prompts or {MAX_LINES:,} lines in one file. Split it."
        problems.add(source.whole_line(1), message)
        return []
    for block in found:
        negatives = [line for line in block.text if _NEGATIVE.match(line.text)]
        for line in negatives[1:]:
            problems.add(
                source.whole_line(line.number),
                "a second 'Negative prompt:' without a line like 'Steps: 24' before it. End each "
                "picture's text with such a line.",
            )
        for line in block.text:
            if why := why_no_prompt(line.text):
                problems.add(source.whole_line(line.number), why)
    return [_entry(source, block) for block in found]


def a1111_picture(source: Source, names_checkpoint: bool = False) -> Entry:
    """The recipe of a picture's text; `names_checkpoint`: what starts from it has one."""
    found = list(_blocks(source))
    block = next((one for one in reversed(found) if one.values), Block(_lines(source)))
    return _entry(source, block, names_checkpoint)


def _lines(source: Source) -> list[Line]:
    return [Line(number, 1, text) for number, text in enumerate(source.lines, 1)]


def _blocks(source: Source) -> Iterator[Block]:
    """The blocks of a text: each ends with its values, below the last ones with a blank line."""
    lines = _lines(source)
    start = number = 0
    while number < len(lines):
        if not _begins_values(lines[number]):
            number += 1
            continue
        end = number + 1
        while end < len(lines) and _goes_on(lines[end - 1].text, lines[end].text):
            end += 1
        yield Block(lines[start:number], lines[number:end])
        start = number = _end_of_remarks(lines, end)
    for is_filled, paragraph in groupby(lines[start:], lambda line: bool(line.text.strip())):
        if is_filled:
            yield Block(list(paragraph))


def _goes_on(before: str, line: str) -> bool:
    """Whether values go on: a line begins with a known key, or, after a comma, with any."""
    key = _KEY.match(line)
    if not key or _STEPS.match(line) or _NEGATIVE.match(line) or _REMARK.match(line):
        return False
    return _is_known(key) or before.rstrip().endswith(",")


def _end_of_remarks(lines: Sequence[Line], number: int) -> int:
    """The index after the remarks below the values.

    Each goes on to the next blank line, but where values come before that, it is one line.
    """
    while True:
        first = number
        while first < len(lines) and not lines[first].text.strip():
            first += 1
        if first == len(lines) or not _REMARK.match(lines[first].text):
            return number
        number = first + 1
        while number < len(lines) and lines[number].text.strip():
            if _begins_values(lines[number]):
                return first + 1
            number += 1


def _entry(source: Source, block: Block, names_checkpoint: bool = False) -> Entry:
    """The recipe of one block; what it cannot honour becomes a warning."""
    pairs = (pair for line in block.values for pair in _pairs(source, line))
    values = _Values(list(islice(pairs, MAX_PAIRS)))
    layer = values.layer()
    lines = list(block.text)
    while len(lines) > 1 and not lines[0].text.strip():
        del lines[0]
    negative = next((i for i, line in enumerate(lines) if _NEGATIVE.match(line.text)), len(lines))
    # A block may be nothing but values, or a negative prompt: an empty prompt is before them.
    first = (block.text or block.values)[0]
    layer["prompt"] = _text(source, lines[:negative] or [first._replace(text="")])
    if below := lines[negative:]:
        number, column, text = below[0]
        start = text.index(":") + 1
        layer["negative_prompt"] = _text(
            source, [Line(number, column + start, text[start:]), *below[1:]]
        )
    names_checkpoint |= "model" in values.said
    about_models = _unnamed_models(values.said, str(layer["prompt"].value), names_checkpoint)
    warnings = [*values.warnings, *about_models]
    return Entry(layer, layer["prompt"].position, tuple(warnings), by_another_program=True)


def _text(source: Source, lines: Sequence[Line]) -> Written:
    """Text that begins there; white space around it is not meant."""
    text = "\n".join(line.text for line in lines)
    before = text[: len(text) - len(text.lstrip())]
    first = lines[before.count("\n")]
    column = first.column + len(before) - before.rfind("\n") - 1
    text = text.strip()
    width = max(1, len(text.partition("\n")[0]))
    return Written(text, Position(source, first.number, column, width), text)


def _pairs(source: Source, line: Line) -> Iterator[tuple[str, Written]]:
    """The `key: value` pairs of a line; values with commas are JSON.

    What is no pair ends at the next comma, and has the key "".
    """

    def at(start: int, end: int) -> Position:
        return Position(source, line.number, line.column + start, max(1, end - start))

    text, position = line.text, 0
    while position < len(text):
        found = _KEY.match(text, position)
        start = found.end() if found else position
        value, end = _value(text, start)
        key = found["key"].rstrip() if found else ""
        if key or value:
            named = found.start("key") if found else start
            yield key, Written(value, at(start, end), text[start:end], at(named, named + len(key)))
        comma = text.find(",", end)
        position = comma + 1 if comma >= 0 else len(text)


def _value(line: str, start: int) -> tuple[str, int]:
    if line.startswith(('"', "[", "{"), start):
        with suppress(ValueError, RecursionError):
            value, end = json.JSONDecoder().raw_decode(line, start)
            return value if isinstance(value, str) else line[start:end], end
    if decimal := _DECIMAL_COMMA.match(line, start):
        return decimal[0], decimal.end()
    comma = line.find(",", start)
    end = comma if comma >= 0 else len(line)
    return line[start:end].strip(), end


def _unnamed_models(said: Mapping[str, str], prompt: str, names_checkpoint: bool) -> Iterator[str]:
    """Warnings about models whose files the values do not name: only a hash, or Civitai's names."""
    if not names_checkpoint and (hash_ := said.get(keys.MODEL_HASH)):
        yield (
            f"The model with the hash {shown(hash_)} is not known by name; the usual checkpoint is "
            "used. Write its name in models/checkpoints as 'Model: …' (in a recipe, "
            "'checkpoint: …')."
        )
    resources: object = None
    with suppress(ValueError, RecursionError):
        resources = json.loads(said.get(keys.RESOURCES, ""))
    left = []
    for one in resources if isinstance(resources, list) else ():
        kind = str(one.get("type", "model")).lower() if isinstance(one, dict) else ""
        is_named = names_checkpoint if kind == "checkpoint" else bool(split_loras(prompt)[1])
        if kind and not is_named:
            name = one.get("modelName") or one.get("modelVersionId")
            weight = f" {one['weight']}" if "weight" in one else ""
            left.append(f"{shown(kind)} '{shown(str(name))}'{shown(weight)}")
    if left:
        yield (
            f"Civitai does not say which files these are, so they are left out: {listed(left)}. "
            "Name your files: the checkpoint in 'Model: name', a LoRA in the prompt, "
            "<lora:name:0.8>."
        )


class _Values:
    """The values of a block, each used, or named in a warning."""

    def __init__(self, pairs: Sequence[tuple[str, Written]]) -> None:
        self.warnings: list[str] = []
        self.said = {key.casefold(): str(written.value) for key, written in pairs}
        self._pairs = pairs
        self._layer: Layer = {}
        self._parts: dict[str, Layer] = {}

    def layer(self) -> Layer:
        """The fields that they are."""
        for name, written in self._pairs:
            self._take(name, name.casefold(), written)
        for name, written in self._pairs:
            if name.casefold() == keys.HIRES_SIZE:
                self._take_hires_size(name, written)
        if self._is_civitais_flux() and "cfg_scale" in self._layer:
            # Its CFG scale is the distilled one, its clip skip means nothing.
            self._layer["guidance"] = self._layer["cfg_scale"]
            self._layer["cfg_scale"] = self._layer["guidance"].with_value("1")
            self._layer.pop("clip_skip", None)
        for field, parts in self._parts.items():
            first = next(iter(parts.values()))
            self._layer[field] = first.with_pairs(tuple(parts.items()))
        return self._layer

    def _is_civitais_flux(self) -> bool:
        """Whether Civitai wrote it for FLUX.1, as Forge tells it (modules/infotext_utils.py)."""
        is_civitais = any(key.startswith("civitai") for key in self.said)
        is_flux = any("FLUX" in value for value in self.said.values())
        return is_civitais and is_flux and "guidance" not in self._layer

    def _take(self, name: str, key: str, written: Written) -> None:
        text = str(written.value)
        if not name:
            self._warn(left_out(text))
        elif text.casefold() in keys.SAYS_NOTHING.get(key, ()) or key in keys.INFORMATION:
            return
        elif key in keys.FIELDS:
            self._put(self._layer, keys.FIELDS[key], name, written)
        elif key in keys.PARTS_BY_KEY:
            field, part = keys.PARTS_BY_KEY[key]
            self._put(self._parts.setdefault(field, {}), part, name, written)
        elif key == keys.MODEL_HASH:
            self._layer[CHECKPOINT_HASH] = written
        elif key in keys.EMBEDDINGS:
            self._layer[EMBEDDINGS] = written
        elif _MODULE.fullmatch(key) and not _ENCODER.search(text):
            self._put(self._layer, "vae", name, written)
        elif key != keys.HIRES_SIZE and not self._is_as_in_first_pass(key, text.casefold()):
            self._leave_out(name, written)

    def _is_as_in_first_pass(self, key: str, text: str) -> bool:
        """Whether it says that the second pass has what the first one has."""
        if text.startswith("use same "):
            return True
        first = self.said.get(key.removeprefix("hires "), "")
        return (
            key.startswith("hires ") and number(text) is not None and number(text) == number(first)
        )

    def _put(self, layer: Layer, field: str, name: str, written: Written) -> None:
        if field in ("seed", "variation_seed"):
            seed, warning = seed_of_32_bits(str(written.value))
            written = written.with_value(seed)
            self._warn(warning)
        if field not in layer:
            layer[field] = written
        elif layer[field].value != written.value:
            self._leave_out(name, written)

    def _take_hires_size(self, name: str, written: Written) -> None:
        """hires by its scale. A size that no scale gives leaves all of it out."""
        scale = _scale(written, self._layer.get(SIZE))
        if scale is None:
            self._leave_out(name, written)
            self._parts.pop("hires", None)
        else:
            self._parts.setdefault("hires", {})["scale"] = written.with_value(str(scale))

    def _leave_out(self, name: str, written: Written) -> None:
        if str(written.value).casefold() != "false":
            self._warn(left_out(f"{name}: {written.value}"))

    def _warn(self, message: str) -> None:
        if message and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(message)


def seed_of_32_bits(text: str) -> tuple[str, str]:
    """The seed that gives the same noise, and a warning if it is another one."""
    if not _LONG_SEED.fullmatch(text) or not MAX_SEED < int(text) < 2**64:
        return text, ""
    seed = int(text) % (MAX_SEED + 1)
    return str(seed), (
        f"the seed {text} has more than 32 bits; {seed} is used instead, which gives the same "
        "noise on a CPU."
    )


def _scale(resized: Written, size: Written | None) -> float | None:
    """The scale that leads from a size to another; None if no scale does.

    A1111 writes a side of 0 that follows from the other one.
    """
    before, after = (_SIDES.fullmatch(str(w.value)) if w else None for w in (size, resized))
    if not before or not after:
        return None
    # Rounded up, because the sides are rounded down.
    scales = [
        ceil(int(goal) / int(side) * 10**6) / 10**6
        for side, goal in zip(before.groups(), after.groups(), strict=True)
        if int(goal) and int(side)
    ]
    return scales[0] if scales and max(scales) - min(scales) < 0.01 else None
