"""A1111's "generation parameters": text to fields. writer.py writes such text.

A block is the prompt, a line `Negative prompt: …`, and a line of values, `Steps: 24, Sampler: …`.
Case does not count: people write the lines by hand. A line of values may continue in the next line.
Remarks of A1111's page and of extensions may follow, which are not prompts: `Template:`
(https://github.com/adieyal/sd-dynamic-prompts), `Time taken:`, `Used embeddings:`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby, islice
from math import ceil
from typing import NamedTuple

from picowatch.recipe import a1111
from picowatch.recipe.fields import CHECKPOINT_HASH, EMBEDDINGS, PROMPTS
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import left_out
from picowatch.recipe.parts import Hires
from picowatch.recipe.passes import steps_taken
from picowatch.recipe.read.foreign import ForeignSettings, final
from picowatch.recipe.written import Entry, Position, Source, number, switch

_NEGATIVE = re.compile(r"\s*Negative prompt:", re.IGNORECASE)
_STEPS = re.compile(r"\s*Steps:(?P<alone>\s*\d+\s*,?\s*$)?", re.IGNORECASE)
# A key; its limited length keeps the search fast.
_KEY = re.compile(r"\s*(?P<key>\w[\w \-/.]{0,60}):\s*")
_NEXT_KEY = re.compile(rf",{_KEY.pattern}")
_WITHIN = re.compile(rf"\bSteps:\s*\d+\s*,{_KEY.pattern}")
_REMARK = re.compile(
    r"\s*(?:(?:Negative )?Template:|Time taken:|Used embeddings:|Torch active/reserved:|Sys VRAM:"
    r"|Saved: \S+\.\w+|A: [\d.]+ GB, R: )"
)
# Civitai's list of LoRAs and embeddings, above the values or below them.
_NETWORKS = re.compile(r"\s*Additional networks: *urn:")
# Values are separated by a comma and a space: 7,5 is one number, which the field then refuses.
_DECIMAL_COMMA = re.compile(r"[0-9]{1,9},[0-9]{1,9}(?=\s*(?:,|$))")
_SIDES = re.compile(r"([1-9][0-9]{0,4})x([0-9]{1,5})")
# Forge's further model files: a VAE, or text encoders, which are told by their names.
_MODULE = re.compile(r"module \d+")
_ENCODER = re.compile(r"clip|t5|qwen|gemma|llama|mistral|encoder", re.IGNORECASE)
# Keys that are not recipe fields.
_HIDDEN = dict.fromkeys(a1111.EMBEDDINGS, EMBEDDINGS) | {a1111.MODEL_HASH: CHECKPOINT_HASH}
_WORDS = (
    "Braces and names like __animal__ are words here, as in A1111. For wildcards, save a list of "
    "prompts, with settings like '--steps 30' after each, or YAML."
)
# ADetailer's keys: each pass of it becomes an entry of `detail`.
_DETAIL = re.compile(r"adetailer (?P<name>.+?)(?: (?P<number>\d{1,2})(?:nd|rd|th))?")
# What the models of its users find, by a part of their names.
_FINDS = {
    "face": "face", "hand": "hand", "person": "person", "people": "person", "body": "person",
    "eye": "eyes", "hair": "hair", "cloth": "clothes",
}  # fmt: skip
# Its keys that are read with another key.
_WITH_OTHERS = ("tab enable", "steps")
_SEVERAL = "[SEP]"  # between its prompts for one thing each
MAX_PAIRS = 1000
# A line's number and text.
Line = tuple[int, str]


class Block(NamedTuple):
    """The lines of one picture: its prompts, and its values."""

    text: Sequence[Line]
    values: Sequence[Line] = ()


def holds_parameters(text: str) -> bool:
    """Return whether a text is A1111's: a line of it has values, or begins the negative prompt."""
    return any(_NEGATIVE.match(line) or _says_values(line) for line in text.split("\n"))


def begins_parameters(text: str) -> bool:
    """Return whether a text has an unindented line of values; YAML indents its prompts."""
    return any(not line[:1].isspace() and _says_values(line) for line in text.split("\n"))


def why_no_prompt(line: str) -> str | None:
    """Return the message about a line with values inside a prompt; None for a prompt."""
    found = next(filter(_is_known, _WITHIN.finditer(line)), None)
    return found and (
        f"'{shown(found[0].rstrip())} …' looks like A1111's settings within a prompt. Write the "
        "prompt, 'Negative prompt: …' and 'Steps: …' on separate lines."
    )


def _says_values(line: str) -> bool:
    """Return whether a line begins with steps, and another of A1111's keys follows."""
    found = _STEPS.match(line)
    return found is not None and any(map(_is_known, _NEXT_KEY.finditer(line, found.end())))


def _begins_values(line: str) -> bool:
    found = _STEPS.match(line)
    return found is not None and (found["alone"] is not None or _says_values(line))


def _is_known(found: re.Match[str]) -> bool:
    key = found["key"].rstrip().casefold()
    return key in a1111.KNOWN or key.startswith("adetailer ")


def a1111_entries(source: Source, problems: Problems) -> list[Entry]:
    """Return the recipes of a TXT with generation parameters, one per block."""
    entries = []
    for block in _blocks(source.lines):
        has_negative = False
        for at, line in block.text:
            is_negative = _NEGATIVE.match(line) is not None
            why = why_no_prompt(line)
            if is_negative and has_negative:
                what = "a second 'Negative prompt:' without a line like 'Steps: 24' before it."
                why = f"{what} End each picture's text with such a line."
            has_negative |= is_negative
            if why:
                problems.add(source.whole_line(at), why)
        entries.append(_entry(source, block))
    return entries


def read_parameters(text: str, found: ForeignSettings) -> None:
    """Read the settings of a picture's text: its last block with values, or all of it."""
    lines = text.split("\n")
    with_values = [block for block in _blocks(lines) if block.values]
    _read_block(with_values[-1] if with_values else Block(list(enumerate(lines, 1))), found)


def _blocks(text: Sequence[str]) -> Iterator[Block]:
    """Yield the blocks of a text: each ends with its values, those without at a blank line."""
    lines = list(enumerate(text, 1))
    start = number = 0
    while number < len(lines):
        if not _begins_values(lines[number][1]):
            number += 1
            continue
        end = number + 1
        while end < len(lines) and _goes_on(lines[end - 1][1], lines[end][1]):
            end += 1
        filled = (at for at in range(end, len(lines)) if lines[at][1].strip())
        if (after := next(filled, None)) is not None and _NETWORKS.match(lines[after][1]):
            end = after + 1  # Civitai's list may stand below a blank line
        yield Block(lines[start:number], lines[number:end])
        start = number = _end_of_remarks(lines, end)
    for is_filled, paragraph in groupby(lines[start:], lambda line: bool(line[1].strip())):
        if is_filled:
            yield Block(list(paragraph))


def _goes_on(before: str, line: str) -> bool:
    """Return whether values continue: the line begins with a known key, or any after a comma."""
    if _NETWORKS.match(line):
        return True
    key = _KEY.match(line)
    if not key or _STEPS.match(line) or _NEGATIVE.match(line) or _REMARK.match(line):
        return False
    return _is_known(key) or before.rstrip().endswith(",")


def _end_of_remarks(lines: Sequence[Line], number: int) -> int:
    """Return the index after the remarks below the values."""
    while True:
        first = number
        while first < len(lines) and not lines[first][1].strip():
            first += 1
        if first == len(lines) or not _REMARK.match(lines[first][1]):
            return number
        # A remark ends at the next blank line; if values come before that, it is a single line.
        number = first + 1
        while number < len(lines) and lines[number][1].strip():
            if _begins_values(lines[number][1]):
                return first + 1
            number += 1


def _entry(source: Source, block: Block) -> Entry:
    """Return the recipe of one block of a file; what it cannot honour becomes a warning."""
    found = ForeignSettings()
    _read_block(block, found)
    for field in found.values.keys() & PROMPTS:
        if (text := final(found.values[field])) != found.values[field]:
            found.values[field] = text
            found.warn(_WORDS)
    # A block may have only values or a negative prompt; then its prompt is empty.
    filled = (number for number, text in block.text if text.strip())
    first = next(filled, (block.text or block.values)[0][0])
    entry = found.entry(source.whole_line(first))
    if checkpoint := entry.layer.get("checkpoint"):  # the one value that may be an error
        for at, line in block.values:
            key, name, _ = line.partition(f"Model: {checkpoint.value}")
            if name:
                width = len(str(checkpoint.value))
                position = Position(source, at, len(key + name) - width + 1, width)
                entry.layer["checkpoint"] = replace(checkpoint, position=position)
    return entry


def _read_block(block: Block, found: ForeignSettings) -> None:
    """Read prompts and values."""
    for line in filter(_NETWORKS.match, (text for lines in block for _, text in lines)):
        found.warn(left_out(line))
    block = Block(*([line for line in lines if not _NETWORKS.match(line[1])] for lines in block))
    pairs = list(islice((pair for _, line in block.values for pair in _pairs(line)), MAX_PAIRS))
    said = {key.casefold(): text for key, text in pairs}
    _read_values(pairs, said, found)
    texts = [text for _, text in block.text]
    negative = next((i for i, text in enumerate(texts) if _NEGATIVE.match(text)), len(texts))
    found.values["prompt"] = "\n".join(texts[:negative]).strip()
    if below := texts[negative:]:
        found.values["negative_prompt"] = "\n".join(below).partition(":")[2].strip()
    # ADetailer's passes; its version is no value of one.
    passes = defaultdict[int, dict[str, str]](dict)
    for key, text in said.items():
        if (match := _DETAIL.fullmatch(key)) and match["name"] != "version":
            passes[int(match["number"] or 1)][match["name"]] = text
    details = (_detail(values, said, found) for _, values in sorted(passes.items()))
    if told := [*filter(None, details)]:
        found.values["detail"] = told


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """Yield a line's `key: value` pairs, values with commas as JSON; other text has the key ""."""
    at = 0
    while at < len(line):
        found = _KEY.match(line, at)
        start = found.end() if found else at
        value, end = _value(line, start)
        key = found["key"].rstrip() if found else ""
        if key or value:
            yield key, value
        comma = line.find(",", end)
        at = comma + 1 if comma >= 0 else len(line)


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


def _read_values(
    pairs: Sequence[tuple[str, str]], said: Mapping[str, str], found: ForeignSettings
) -> None:
    """Read the values of a block: each becomes a field, or is named in a warning."""
    values = found.values
    for name, text in pairs:
        key = name.casefold()
        field, part = a1111.PARTS_BY_KEY.get(key, ("", ""))
        if key.startswith("adetailer ") or _says_nothing(key, text.casefold(), said):
            continue
        if not name:
            found.warn(left_out(text))
        elif hidden := _HIDDEN.get(key):
            values[hidden] = text
        elif field:
            if values.setdefault(field, {}).setdefault(part, text) != text:
                found.leave_out(name, text)
        elif key in a1111.FIELDS or (_MODULE.fullmatch(key) and not _ENCODER.search(text)):
            found.put(a1111.FIELDS.get(key, "vae"), text, name)
        else:
            found.leave_out(name, text)
    if said.get(a1111.AREA.casefold(), "").casefold() == a1111.ONLY_MASKED.casefold():
        values.setdefault("mask_padding", "32")
    if resized := said.get(a1111.HIRES_SIZE):  # if no scale gives this size, hires is left out
        scale, hires = _scale(resized, values.get("size", "")), values.pop("hires", {})
        found.leave_out("Hires resize", None if scale else resized)
        values |= {"hires": hires | {"scale": str(scale)}} if scale else {}
    if "hires" in values:
        _read_hires_steps(values["hires"], said)


def _says_nothing(key: str, text: str, said: Mapping[str, str]) -> bool:
    """Return whether a key changes no picture, or repeats another key, as in the second pass."""
    if key in a1111.INFORMATION or text in a1111.SAYS_NOTHING.get(key, ()):
        return True
    if key in ("width", "height"):
        return "size" in said
    if _MODULE.fullmatch(key):
        return text == said.get("vae", "").casefold().removesuffix(".safetensors")
    first = said.get(key.removeprefix("hires "), "") if key.startswith("hires ") else ""
    is_equal = number(text) is not None and number(text) == number(first)
    return text.startswith("use same ") or (is_equal and key not in a1111.PARTS_BY_KEY)


def _read_hires_steps(hires: dict[str, str], said: Mapping[str, str]) -> None:
    """Set the steps of which the strength's share are A1111's: it takes all of its own."""
    # In A1111 they are by default as many as in the first pass. In a text of picowatch, steps that
    # the first pass would lead to are the default of `hires`.
    usual = number(said.get("steps", ""))
    taken = number(hires.pop("steps", "0")) or usual
    strength = number(said.get("denoising strength") or hires.get("denoising_strength", ""))
    strength = Hires.denoising_strength if strength is None else strength
    if not isinstance(taken, int) or not isinstance(usual, int) or not 0 < strength <= 1:
        return
    is_ours = said.get("version", "").startswith("picowatch")
    if not is_ours or steps_taken(usual, strength) != taken:
        hires["steps"] = str(ceil(taken / strength - 1e-9))


def _scale(resized: str, size: str) -> float | None:
    """Return the scale between two sizes, if any; A1111 writes 0 for a side that follows."""
    before, after = _SIDES.fullmatch(size), _SIDES.fullmatch(resized)
    if not before or not after:
        return None
    # Rounded up, because the sides are rounded down.
    sides = zip(map(int, before.groups()), map(int, after.groups()), strict=True)
    scales = [ceil(goal / side * 10**6) / 10**6 for side, goal in sides if goal and side]
    return scales[0] if scales and max(scales) - min(scales) < 0.01 else None


def _detail(
    values: dict[str, str], said: Mapping[str, str], found: ForeignSettings
) -> dict[str, str]:
    """Return a pass; nothing if it is off, or if nobody knows what its model finds."""
    model, words = values.pop("model", ""), values.pop("model classes", "")
    if model in ("", "None") or not _is_on(values, "tab enable", "True"):
        return {}
    words = words or next((finds for part, finds in _FINDS.items() if part in model.casefold()), "")
    if not words:
        found.leave_out("ADetailer model", model)
        return {}
    what = f"'{shown(words)}' is found by a model of models/segmentation, not by {shown(model)}"
    found.warn(f"{what}: other places may be redrawn.")
    detail = {"find": words, "size": said.get("size", "")}
    if _is_on(values, "use inpaint width height"):
        detail["size"] = f"{values.get('inpaint width')}x{values.get('inpaint height')}"
    for part, key in a1111.DETAIL_KEYS.items():
        is_used = part != "steps" or _is_on(values, "use separate steps")
        if is_used and (text := values.pop(key, "")):
            detail[part] = text
    for field in [name for name in detail if name in PROMPTS]:
        first, *others = detail[field].split(_SEVERAL)
        if others:
            found.leave_out("ADetailer prompt", _SEVERAL.join(others).strip())
        detail[field] = final(first.replace("[PROMPT]", found.values.get(field, "")).strip())
    for key, text in values.items():  # with a switch that is off, a value changes nothing
        is_told = key in _WITH_OTHERS or key.startswith(("inpaint ", "use "))
        if key == "inpaint only masked" and switch(text) is False:
            found.warn("ADetailer's whole picture as surroundings: only the part is drawn.")
        elif not is_told:
            found.leave_out(f"ADetailer {key}", text)
    return {part: text for part, text in detail.items() if text}


def _is_on(values: Mapping[str, str], key: str, usual: str = "") -> bool:
    return switch(values.get(key, usual) or "false") is True
