"""A1111's "generation parameters": text to values. The inverse of metadata/a1111.py.

The format: the prompt, a line `Negative prompt: …`, a line `Steps: 24, Sampler: …, …`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from picowatch.recipe.hires import find_upscaler
from picowatch.recipe.layers import put
from picowatch.recipe.places import Entry, Layer, Source, Spot, Written
from picowatch.recipe.problems import Problems, shown
from picowatch.recipe.wording import MAX_WARNINGS, left_out

NEGATIVE = "Negative prompt:"
_STEPS_AND_SAMPLER = re.compile(r"Steps:.*\bSampler:")
# Within A1111's text the line may lack the sampler.
_STEPS = re.compile(r"Steps:\s*\d+\s*(?:,|$)|Steps:.*\bSampler:")
_KEY = re.compile(r"\s*(?P<key>\w[\w \-/.]*):\s*")

_FIELDS = {
    "Steps": "steps",
    "Sampler": "sampler",
    "Schedule type": "schedule_type",
    "CFG scale": "cfg_scale",
    "Seed": "seed",
    "Size": "size",
    "Clip skip": "clip_skip",
    "Model": "checkpoint",
    "VAE": "vae",
    "Denoising strength": "denoising_strength",
    "Mask blur": "mask_blur",
}
_HIRES = {"Hires upscale": "scale", "Hires steps": "steps", "Hires upscaler": "upscaler"}
# What comes closest to the upscalers that A1111 loads as models of their own.
_CLOSEST_UPSCALER = "Lanczos"
MAX_PARAMETERS = 1000
# The hashes of LoRAs and embeddings tell which files were meant; the prompt has their names.
_INFORMATION = {
    "Version",
    "Model hash",
    "VAE hash",
    "Hashes",
    "Lora hashes",
    "TI hashes",
    "RNG",
    "User",
    "Created Date",
    "Civitai resources",
    "Civitai metadata",
    "Template",
    "Negative Template",
    "Batch size",
    "Batch pos",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One `key: value` of the last line; offsets within that line."""

    key: str
    value: str
    key_offset: int
    value_offset: int
    raw: str


def holds_parameters(text: str) -> bool:
    """Whether a TXT is A1111's text: a `Negative prompt:` or a `Steps: …, Sampler: …` line."""
    return any(
        line.startswith(NEGATIVE) or _STEPS_AND_SAMPLER.match(line) for line in text.split("\n")
    )


def parameters_of(line: str) -> Iterator[Parameter]:
    """The `key: value` pairs of a `Steps: …` line; values with commas are JSON.

    Only the first MAX_PARAMETERS and one more.
    """
    position = 0
    for _ in range(MAX_PARAMETERS + 1):
        found = _KEY.match(line, position)
        if not found:
            return
        start = found.end()
        value, end = _value(line, start)
        raw = line[start:end]
        yield Parameter(found["key"].rstrip(), value, found.start("key"), start, raw)
        comma = line.find(",", end)
        position = comma + 1 if comma >= 0 else len(line)


def _value(line: str, start: int) -> tuple[str, int]:
    if line.startswith(('"', "[", "{"), start):
        try:
            value, end = json.JSONDecoder().raw_decode(line, start)
        except (ValueError, RecursionError):
            pass
        else:
            return value if isinstance(value, str) else line[start:end], end
    comma = line.find(",", start)
    end = comma if comma >= 0 else len(line)
    return line[start:end].strip(), end


def a1111_entries(source: Source, problems: Problems) -> list[Entry]:
    """The recipes of a TXT with generation parameters, a block each."""
    entries = []
    for start, end in _blocks(source):
        entries.append(a1111_block(source, start, end, problems))
        model_hash = hash_alone(source.lines[end - 1])
        if model_hash:
            spot = Spot(source, end, model_hash.value_offset + 1, max(1, len(model_hash.raw)))
            problems.add(spot, _hash_alone(model_hash.value))
    return entries


def _blocks(source: Source) -> Iterator[tuple[int, int]]:
    """Line ranges. A `Steps:` line ends a block.

    Without such lines between them, `Negative prompt:` lines are told apart by blank lines.
    """
    start = 0
    for number, line in enumerate(source.lines):
        if _STEPS.match(line):
            yield from _parted(source, start, number + 1, ends_with_steps=True)
            start = number + 1
    yield from _parted(source, start, len(source.lines), ends_with_steps=False)


def _parted(
    source: Source, start: int, end: int, ends_with_steps: bool
) -> Iterator[tuple[int, int]]:
    negatives = sum(line.startswith(NEGATIVE) for line in source.lines[start:end])
    if ends_with_steps and negatives <= 1:
        yield start, end
        return
    paragraphs = _paragraphs(source, start, end)
    if not ends_with_steps:
        yield from paragraphs
        return
    last = max(
        index
        for index, (first, behind) in enumerate(paragraphs)
        if any(line.startswith(NEGATIVE) for line in source.lines[first:behind])
    )
    yield from paragraphs[:last]
    yield paragraphs[last][0], end


def _paragraphs(source: Source, start: int, end: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    inside = False
    for number in range(start, end):
        filled = bool(source.lines[number].strip())
        if filled and inside:
            found[-1] = (found[-1][0], number + 1)
        elif filled:
            found.append((number, number + 1))
        inside = filled
    return found


def hash_alone(line: str) -> Parameter | None:
    """The model's hash in a `Steps:` line that does not name the model, too."""
    if not _STEPS.match(line):
        return None
    found = {parameter.key: parameter for parameter in parameters_of(line)}
    return None if "Model" in found else found.get("Model hash")


def a1111_block(source: Source, start: int, end: int, problems: Problems) -> Entry:
    """The recipe of one block of lines. What it cannot honour becomes a warning."""
    while start < end - 1 and not source.lines[start].strip():
        start += 1
    has_steps = _STEPS.match(source.lines[end - 1]) is not None
    warnings: list[str] = []
    layer = _settings(source, end, problems, warnings) if has_steps else {}
    lines = source.lines[start : end - has_steps]
    split = next((i for i, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    layer["prompt"] = _text(source, start + 1, 1, lines[:split])
    if split < len(lines):
        first, *more = lines[split:]
        negative = [first[len(NEGATIVE) :], *more]
        column = len(NEGATIVE) + 1
        layer["negative_prompt"] = _text(source, start + split + 1, column, negative)
    return Entry(layer, layer["prompt"].spot, tuple(warnings), forgives_idle=True)


def _text(source: Source, line: int, column: int, lines: Sequence[str]) -> Written:
    """Text that begins there; white space around it is not meant."""
    text = "\n".join(lines)
    before = text[: len(text) - len(text.lstrip())]
    if "\n" in before:
        line, column = line + before.count("\n"), 1
    column += len(before) - before.rfind("\n") - 1
    text = text.strip()
    width = max(1, len(text.partition("\n")[0]))
    return Written(text, Spot(source, line, column, width), text)


def _settings(source: Source, number: int, problems: Problems, warnings: list[str]) -> Layer:
    layer: Layer = {}
    hires: list[tuple[str, Written]] = []
    for place, parameter in enumerate(parameters_of(source.line(number))):
        key = Spot(source, number, parameter.key_offset + 1, len(parameter.key))
        if place == MAX_PARAMETERS:
            problems.add(key, f"more than {MAX_PARAMETERS:,} values in this line.")
            break
        spot = Spot(source, number, parameter.value_offset + 1, max(1, len(parameter.raw)))
        written = Written(parameter.value, spot, parameter.raw, key)
        if parameter.key in _FIELDS:
            put(layer, _FIELDS[parameter.key], written, problems)
        elif parameter.key in _HIRES:
            hires.append((_HIRES[parameter.key], _upscaled(written, parameter, warnings)))
        elif parameter.key not in _INFORMATION and len(warnings) < MAX_WARNINGS:
            warnings.append(left_out(f"{parameter.key}: {parameter.value}"))
    if hires:
        first = hires[0][1]
        layer["hires"] = replace(first, value=dict(hires), pairs=tuple(hires))
    return layer


def _upscaled(written: Written, parameter: Parameter, warnings: list[str]) -> Written:
    """The value; an upscaler that picowatch does not have becomes the closest one."""
    if parameter.key != "Hires upscaler":
        return written
    try:
        return replace(written, value=find_upscaler(parameter.value))
    except ValueError:
        warnings.append(
            f"the upscaler '{shown(parameter.value)}' is not in picowatch; {_CLOSEST_UPSCALER} "
            "is used instead."
        )
        return replace(written, value=_CLOSEST_UPSCALER)


def _hash_alone(value: str) -> str:
    return (
        f"the model with the hash {shown(value)} is not known by name. "
        "Write 'Model: ' and its name in models/checkpoints instead."
    )
