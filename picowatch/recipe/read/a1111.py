"""A1111's "generation parameters": text to values. The inverse of metadata/a1111.py.

Also read is what other programs write in this format: Draw Things
(https://github.com/cocktailpeanut/breadmachine/issues/2), Forge, Fooocus
(https://github.com/lllyasviel/Fooocus, modules/meta_parser.py), SD.Next
(https://github.com/vladmandic/sdnext, modules/processing_info.py) and clients of the AI Horde.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import ceil

from picowatch.recipe.fields import MAPPINGS, MAX_SEED, NOISE_NAMES, PARTS, PROMPTS, ROWS, SIZE
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import MAX_WARNINGS, left_out
from picowatch.recipe.prompts.editing import edits_in, parse_edits
from picowatch.recipe.prompts.grammar import split_loras
from picowatch.recipe.read.a1111_blocks import (
    MAX_LINES,
    Block,
    Line,
    block_of_picture,
    blocks,
    negative_in,
)
from picowatch.recipe.read.controlnet import KEY as CONTROLNET
from picowatch.recipe.read.controlnet import left_out_controlnet
from picowatch.recipe.read.plain import number
from picowatch.recipe.resolve.hires import final_side
from picowatch.recipe.resolve.installed import EMBEDDINGS, MODULE
from picowatch.recipe.resolve.layers import put
from picowatch.recipe.row import Row
from picowatch.recipe.written import Entry, Layer, Position, Source, Written

_SIDES = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_KEY = re.compile(r"\s*(?P<key>\w[\w \-/.]*):\s*")
# Values are separated by a comma and a space: 7,5 is one number, which the field then refuses.
_DECIMAL_COMMA = re.compile(r"[0-9]{1,9},[0-9]{1,9}(?=\s*(?:,|$))")


def _by_key(rows: Mapping[str, Row]) -> dict[str, str]:
    """The fields by their keys, in lower case."""
    return {
        key.casefold(): name
        for name, row in rows.items()
        if row.a1111
        for key in (row.a1111.key, *row.a1111.also)
    }


_FIELDS = _by_key(ROWS) | {"size": SIZE}
# The parts of mappings, by their keys: the mapping and the part.
_PARTS = {
    key: (field, name)
    for field, parts in PARTS.items()
    for key, name in _by_key(parts).items()
    if key not in _FIELDS
}
_HIRES_SIZE = "hires resize"
# Draw Things is known by it; its negative prompt is a line of its own that begins with "-".
_DRAW_THINGS_KEY = "guidance scale"
# Forge's further model files: a VAE, or text encoders, which their names tell.
_MODULE = re.compile(r"(?:hires )?module \d+")
_ENCODER = re.compile(r"clip|t5|qwen|gemma|llama|mistral|encoder", re.IGNORECASE)
# What Forge writes of the second pass where it is as the first, and of types that it chose itself.
_SAME = re.compile(r"use same .*", re.IGNORECASE)
_CHOSEN = re.compile(r"automatic(?: \(.*\))?", re.IGNORECASE)
# The second pass' keys whose values are fields of the first one in a recipe.
_SAME_AS = {"hires cfg scale": "cfg_scale", "hires distilled cfg scale": "guidance"}
# What the schedule type Beta means without them (https://arxiv.org/abs/2407.12173).
_BETA = {"beta schedule alpha": 0.6, "beta schedule beta": 0.6}
# A small decoder for previews; picowatch has none.
_TAESD = "taesd"
# Programs whose seeds have more bits draw their noise on the CPU, and torch uses the low 32 there.
_SEED_BITS = 64
MAX_PARAMETERS = 1000
MAX_BLOCKS = 10_000
# A1111's option, and the version from which texts without it are of today's rule
# (modules/infotext_versions.py).
_OLD_EDITING = "old prompt editing timelines"
_NEW_EDITING_SINCE = (1, 6)
_VERSION = re.compile(r"v?(\d{1,3})\.(\d{1,3})\.\d{1,3}\b.*")
# The hashes of LoRAs and embeddings say which files were meant; the prompt has their names.
_INFORMATION = {
    "version",
    _OLD_EDITING,
    "model hash",
    "vae hash",
    "hashes",
    "lora hashes",
    "user",
    "created date",
    "civitai resources",
    "civitai metadata",
    "template",
    "negative template",
    "app",
    "pipeline",
    "operations",
    "lora networks",
    "hires size",
    "wildcard prompt",
    "raw prompt",
    "raw negative prompt",
    "batch size",
    "batch pos",
}
# Fooocus has its LoRAs there: "name: weight, name: weight".
_LORAS = "lora weights"
# A1111's and SD.Next's.
_EMBEDDINGS = {"ti hashes", "embeddings"}
# Civitai's own generator names models there, and nowhere else.
_RESOURCES = "civitai resources"
_KNOWN_KEYS = frozenset({*_FIELDS, *_PARTS, _HIRES_SIZE, *_INFORMATION, *_EMBEDDINGS, _LORAS})


_OLD_RULE = (
    "the words in [from:to:when] changed by A1111's rule from before 1.6, in which hires began the "
    "same changes anew, and 1.0 was a step. Here, numbers with a point are shares of the steps, "
    "and from 1.0 on those of the second pass."
)


def parameters_of(source: Source, line: Line) -> Iterator[tuple[str, Written]]:
    """The `key: value` pairs of a `Steps: …` line; values with commas are JSON.

    Only the first MAX_PARAMETERS and one more. What is no pair ends at the next comma, and has the
    key "".
    """

    def at(start: int, end: int) -> Position:
        return Position(source, line.number, line.column + start, max(1, end - start))

    text, position = line.text, 0
    for _ in range(MAX_PARAMETERS + 1):
        if position >= len(text):
            return
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
        try:
            value, end = json.JSONDecoder().raw_decode(line, start)
        except (ValueError, RecursionError):
            pass
        else:
            return value if isinstance(value, str) else line[start:end], end
    if decimal := _DECIMAL_COMMA.match(line, start):
        return decimal[0], decimal.end()
    comma = line.find(",", start)
    end = comma if comma >= 0 else len(line)
    return line[start:end].strip(), end


def a1111_entries(source: Source, problems: Problems) -> list[Entry]:
    """The recipes of a TXT with generation parameters, a block each."""
    entries: list[Entry] = []
    if len(source.lines) > MAX_LINES:
        message = f"more than {MAX_LINES:,} lines in one file. Split it."
        problems.add(Position(source, MAX_LINES + 1, 1), message)
        return []
    for block in blocks(source, _KNOWN_KEYS):
        if len(entries) == MAX_BLOCKS:
            number = (block.text or block.values)[0].number
            message = f"more than {MAX_BLOCKS:,} prompts in one file. Split it."
            problems.add(source.whole_line(number), message)
            break
        entry, model_hash = _entry(source, block, problems)
        entries.append(entry)
        if model_hash:
            problems.add(model_hash.position, _unknown_hash(str(model_hash.value)))
    return entries


def a1111_picture(source: Source, problems: Problems) -> tuple[Entry, str]:
    """The recipe of a picture's text, and the model's hash if it does not name the model."""
    entry, model_hash = _entry(source, block_of_picture(source), problems)
    return entry, str(model_hash.value) if model_hash else ""


def _entry(source: Source, block: Block, problems: Problems) -> tuple[Entry, Written | None]:
    """The recipe of one block, and the model's hash if it does not name the model, too.

    What it cannot honour becomes a warning.
    """
    pairs = [pair for line in block.values for pair in parameters_of(source, line)]
    said = {key.casefold(): written for key, written in pairs}
    warnings: list[str] = []
    layer = _Values(pairs, problems, warnings).layer()
    lines = list(block.text)
    while len(lines) > 1 and not lines[0].text.strip():
        del lines[0]
    prompt, negative = _prompts(lines, _DRAW_THINGS_KEY in said)
    # A block may be nothing but values, or a negative prompt: an empty prompt is before them.
    first = (block.text or block.values)[0]
    layer["prompt"] = _text(source, prompt or [first._replace(text="")])
    if negative:
        layer["negative_prompt"] = _text(source, negative)
    if left := _without_files(said, str(layer["prompt"].value)):
        warnings.append(left)
    if _edits_by_the_old_rule(said) and _changes_otherwise(layer):
        warnings.append(_OLD_RULE)
    entry = Entry(layer, layer["prompt"].position, tuple(warnings), forgives=True)
    return entry, None if "model" in said else said.get("model hash")


def _prompts(
    lines: Sequence[Line], is_of_draw_things: bool
) -> tuple[Sequence[Line], Sequence[Line]]:
    """The lines of the prompt and of the negative prompt."""
    for index, line in enumerate(lines):
        negative = negative_in(line)
        if negative:
            return lines[:index], [negative, *lines[index + 1 :]]
    last = lines[-1] if lines else None
    if last and is_of_draw_things and re.match(r"-\s*[^\s-]", last.text):
        return lines[:-1], [last._replace(column=last.column + 1, text=last.text[1:])]
    return lines, []


def _edits_by_the_old_rule(said: Layer) -> bool:
    """Whether A1111 counted by its rule from before 1.6, which its option brings back."""
    version, option = (str(said[k].value) if k in said else "" for k in ("version", _OLD_EDITING))
    found = _VERSION.fullmatch(version)
    before = found and tuple(map(int, found.groups())) < _NEW_EDITING_SINCE
    return bool(before) or option.casefold() == "true"


def _changes_otherwise(layer: Layer) -> bool:
    """Whether words change at other steps by the old rule and by today's."""
    prompts = [str(layer[field].value) for field in PROMPTS if field in layer]
    steps = [
        edit.when
        for prompt in prompts
        for edit in edits_in(parse_edits(split_loras(prompt)[0]))
        if edit.when
    ]
    return any("hires" in layer or ("." in when and float(when) >= 1) for when in steps)


def _without_files(said: Layer, prompt: str) -> str:
    """The warning about models that only Civitai's resources name, "" if there are none."""
    resources: object = None
    if _RESOURCES in said:
        with suppress(ValueError, RecursionError):
            resources = json.loads(str(said[_RESOURCES].value))
    has_tags, left = bool(split_loras(prompt)[1]), []
    for one in resources if isinstance(resources, list) else ():
        if not isinstance(one, dict):
            continue
        kind = str(one.get("type", "model")).lower()
        if "model" in said if kind == "checkpoint" else has_tags:
            continue
        weight = f" {one['weight']}" if "weight" in one else ""
        name = one.get("modelName") or one.get("modelVersionId")
        left.append(f"{shown(kind)} '{shown(str(name))}'{shown(weight)}")
    if not left:
        return ""
    return (
        f"Civitai does not say which files these are, so they are left out: {listed(left)}. "
        "Name your files: the checkpoint in 'Model: name', a LoRA in the prompt, <lora:name:0.8>."
    )


def _text(source: Source, lines: Sequence[Line]) -> Written:
    """Text that begins there; white space around it is not meant."""
    text = "\n".join(line.text for line in lines)
    before = text[: len(text) - len(text.lstrip())]
    first = lines[before.count("\n")]
    column = first.column + len(before) - before.rfind("\n") - 1
    text = text.strip()
    width = max(1, len(text.partition("\n")[0]))
    return Written(text, Position(source, first.number, column, width), text)


def _is_civitais_flux(pairs: Sequence[tuple[str, Written]]) -> bool:
    """Whether Civitai wrote it for FLUX.1, as Forge tells it (modules/infotext_utils.py)."""
    keys = {name.casefold() for name, _ in pairs}
    return (
        any(key.startswith("civitai") for key in keys)
        and "distilled cfg scale" not in keys
        and any("FLUX" in str(written.value) for _, written in pairs)
    )


def _as_flux(pairs: Sequence[tuple[str, Written]]) -> list[tuple[str, Written]]:
    """Civitai's CFG scale is the distilled one, its clip skip and sampler "Undefined" are none."""
    result = []
    for name, written in pairs:
        key = name.casefold()
        if key == "cfg scale":
            result += [("Distilled CFG Scale", written), (name, replace(written, value="1"))]
        elif key != "clip skip" and (key, written.value) != ("sampler", "Undefined"):
            result.append((name, written))
    return result


class _Values:
    """The values of a block, each used, or named in a warning."""

    def __init__(
        self, pairs: Sequence[tuple[str, Written]], problems: Problems, warnings: list[str]
    ) -> None:
        self._pairs = _as_flux(pairs) if _is_civitais_flux(pairs) else pairs
        self._problems = problems
        self._warnings = warnings
        self._fields: Layer = {}
        self._parts: dict[str, list[tuple[str, Written]]] = {field: [] for field in MAPPINGS}
        self._modules: list[tuple[str, Written]] = []
        self._second_pass: list[tuple[str, Written]] = []

    def layer(self) -> Layer:
        """The fields that they are."""
        sizes = []
        for index, (name, written) in enumerate(self._pairs):
            if index == MAX_PARAMETERS:
                key = written.name_position
                self._problems.add(key, f"more than {MAX_PARAMETERS:,} values in this line.")
                break
            if name.casefold() == _HIRES_SIZE:
                sizes.append(written)
            else:
                self._take(name, written)
        self._take_second_pass()
        self._take_modules()
        self._put_hires_size(sizes)
        self._put_mappings()
        return self._fields

    def _take(self, name: str, written: Written) -> None:
        key = name.casefold()
        if key in _FIELDS:
            self._put(_FIELDS[key], written)
        elif key in _PARTS:
            field, part = _PARTS[key]
            self._parts[field].append((part, written))
        elif _SAME.fullmatch(str(written.value)) or _is_usual(key, str(written.value)):
            return
        elif key in _SAME_AS:
            self._second_pass.append((name, written))
        elif key == _LORAS:
            self._put("loras", _weighed(written))
        elif key in _EMBEDDINGS:
            self._fields[EMBEDDINGS] = written
        elif _MODULE.fullmatch(key):
            self._modules.append((name, written))
        elif CONTROLNET.fullmatch(key):
            self._warn(left_out_controlnet(name, str(written.value)))
        elif key not in _INFORMATION:
            self._leave_out(name, written)

    def _put(self, field: str, written: Written) -> None:
        if field == "vae" and str(written.value).casefold() == _TAESD:
            self._warn(
                "the VAE TAESD is not part of picowatch; the checkpoint's own is used instead."
            )
            return
        if field == "noise" and str(written.value).casefold() not in NOISE_NAMES:
            return  # "GPU" is any maker's
        if field in ("seed", "variation_seed"):
            seed, warning = seed_of_32_bits(str(written.value))
            written = replace(written, value=seed)
            if warning:
                self._warn(warning)
        same = self._fields.get(field)
        if same is None or same.value != written.value:
            put(self._fields, field, written, self._problems)

    def _take_second_pass(self) -> None:
        """Both passes of a recipe follow the prompt equally."""
        for name, written in self._second_pass:
            first = self._fields.get(_SAME_AS[name.casefold()])
            if first is None or not _equal(str(first.value), str(written.value)):
                self._leave_out(name, written)

    def _take_modules(self) -> None:
        """One of Forge's modules may be the VAE; the text encoders are the checkpoint's own."""
        vae = self._fields.get("vae")
        vaes = [pair for pair in self._modules if not _ENCODER.search(str(pair[1].value))]
        for name, written in self._modules:
            if vae and vae.value == written.value:
                continue
            if len(vaes) == 1 and vaes[0][0] == name and vae is None:
                self._fields[MODULE] = written
            else:
                self._leave_out(name, written)

    def _put_hires_size(self, sizes: Sequence[Written]) -> None:
        """hires by its scale. A size that no scale gives leaves all of it out."""
        for size in sizes:
            scale = _scale(size, self._fields.get("size"))
            if scale is None:
                self._leave_out("Hires resize", size)
                self._parts["hires"].clear()
                return
            self._parts["hires"].append(("scale", replace(size, value=str(scale))))

    def _put_mappings(self) -> None:
        for field, parts in self._parts.items():
            if parts:
                self._fields[field] = parts[0][1].with_pairs(tuple(parts))

    def _leave_out(self, name: str, written: Written) -> None:
        if name and str(written.value).casefold() == "false":
            return
        self._warn(left_out(f"{name}: {written.value}" if name else str(written.value)))

    def _warn(self, message: str) -> None:
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(message)


def _weighed(written: Written) -> Written:
    """The names and weights of a text as the mapping that they are in a recipe."""
    parts = (part.rpartition(":") for part in str(written.value).split(","))
    pairs = ((name.strip(), replace(written, value=weight.strip())) for name, _, weight in parts)
    return written.with_pairs(tuple(pairs))


def _is_usual(key: str, value: str) -> bool:
    """Whether a key says what is so without it."""
    if key == "diffusion in low bits":
        return bool(_CHOSEN.fullmatch(value))
    return key in _BETA and _equal(value, str(_BETA[key]))


def _equal(one: str, other: str) -> bool:
    """Whether two texts are the same number."""
    return number(one) is not None and number(one) == number(other)


def seed_of_32_bits(text: str) -> tuple[str, str]:
    """The seed that gives the same noise, and a warning if it is another one."""
    if not re.fullmatch(r"[0-9]{10,20}", text) or not MAX_SEED < int(text) < 2**_SEED_BITS:
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
    sides = [(int(b), int(a)) for b, a in zip(before.groups(), after.groups(), strict=True)]
    sides = [(side, goal) for side, goal in sides if goal]
    for side, goal in sides:
        # Rounded up, because the sides are rounded down.
        scale = ceil(goal / side * 10**6) / 10**6 if side else 0
        if all(final_side(side, scale) == goal // 8 * 8 for side, goal in sides):
            return scale
    return None


def _unknown_hash(value: str) -> str:
    return (
        f"the model with the hash {shown(value)} is not known by name. "
        "Write 'Model: ' and its name in models/checkpoints instead."
    )
