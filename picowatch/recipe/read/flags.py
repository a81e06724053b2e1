"""Flags after a prompt in a TXT: `a corgi --steps 30 --negative_prompt "blurry, dim"`."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from picowatch.recipe.fields import FIRST_NAME_OF, MAPPINGS, MOST_IMAGES, SWITCHES
from picowatch.recipe.messages.other_programs import words_for
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import MAX_WARNINGS, left_out, sizes_of_ratio, wrong_value
from picowatch.recipe.read.plain import number
from picowatch.recipe.resolve.layers import meaning_of_scheduler, put
from picowatch.recipe.written import At, Layer, Position, Written

_FLAG = re.compile(r"(?:(?<=\s)|^)--(?P<name>[A-Za-z][\w-]*)")
# What word processors and phones make of two hyphens.
_LONG_DASH = re.compile(r"(?:(?<=\s)|^)[\N{EN DASH}\N{EM DASH}](?P<name>[A-Za-z][\w-]*)")
# Only with a number behind it: search engines have taught people to write -blurry.
_NO_SPACE = re.compile(r"(?<=[^\s-])--(?P<name>[A-Za-z][\w-]{0,40})(?=[ =]{1,9}\d)")
_ONE_HYPHEN = re.compile(r"(?:(?<=\s)|^)-(?P<name>[A-Za-z][\w-]{0,40})(?=[ =]{1,9}\d)")

# A1111 reads its lines as a shell does; an apostrophe that only begins a value is one.
_SINGLE_QUOTED = re.compile(r"'(?P<text>[^']*)'(?=\s+--[A-Za-z]|\s*$)")

# stable-diffusion.cpp's names that are not ours with hyphens, and CompVis'.
ALIASES = {
    "sampling_method": "sampler",
    "batch_count": "count",
    "H": "height",
    "W": "width",
    "ddim_steps": "steps",
}
# CompVis' flags without a value that name a sampler.
_SAMPLERS = {"plms": "PLMS", "ddim": "DDIM"}
# A1111's "Prompts from file", and CompVis: their product is the count.
_FACTORS = ("batch_size", "n_iter", "n_samples")
# Their other flags: what a recipe cannot say is left out with a warning, unless it is switched
# off; where they put and show their files means nothing here.
_THEIRS_ALONE = {
    *("styles", "seed_resize_from_h", "seed_resize_from_w", "restore_faces"),
    *("ddim_eta", "fixed_code", "laion400m", "config"),
}
_OFF = {"false", "0", "0.0", "-1"}
_THEIR_FILES = {
    *("outpath_samples", "outpath_grids", "prompt_for_display"),
    *("do_not_save_samples", "do_not_save_grid"),
    *("outdir", "skip_grid", "skip_save", "n_rows", "precision", "C", "f"),
}
_KOHYA = {
    "n": "negative_prompt",
    "w": "width",
    "h": "height",
    "s": "steps",
    "d": "seed",
    "l": "cfg_scale",
    "t": "denoising_strength",
}
_TAKING_MAPPINGS = (*MAPPINGS, "loras", "control", "sweep")
# There are not so many fields.
MAX_FLAGS = 200
_OTHER_TOOLS = {
    "scheduler": "stable-diffusion.cpp's schedule type; write --schedule_type",
    "schedule": "stable-diffusion.cpp's schedule type; write --schedule_type",
    "sampler_index": "A1111's older name; write --sampler",
    "p": "write the prompt first, without a flag, or after --prompt",
    "scale": "CompVis' cfg_scale; write --cfg_scale",
    "from_file": "write the prompts of that file here, one per line",
    "v": "Midjourney's version; choose a model with --checkpoint",
    "niji": "Midjourney's version; choose a model with --checkpoint",
    "no": "Midjourney's negative prompt; write --negative_prompt",
    "stylize": "Midjourney's; leave it out, or write --cfg_scale",
    "chaos": "Midjourney's; leave it out",
}


def prompt_and_flags(text: str, at: At, problems: Problems, warnings: list[str]) -> Layer:
    """The fields of one prompt line.

    A flag's value, after a space or =, runs to the next ` --`, or, if it opens with a double
    quote, to the closing one. `at` gives the position of an offset and width in the text. What
    other programs alone can do goes to `warnings`.
    """
    layer: Layer = {}
    first = _FLAG.search(text)
    prompt = (text[: first.start()] if first else text).strip()
    if prompt:
        start = text.index(prompt)
        layer["prompt"] = Written(
            prompt, at(start, len(prompt)), prompt, at=partial(_from, at, start)
        )
        _refuse_other_dashes(prompt, start, at, problems)
    factors: list[Written] = []
    flags = _flags(text, first.start() if first else len(text), at, problems)
    for index, (name, written) in enumerate(flags):
        if index == MAX_FLAGS:
            message = f"more than {MAX_FLAGS} flags in one line."
            problems.add(written.name_position, message)
            break
        if name in _THEIRS_ALONE:
            _leave_out(name, written, warnings)
        elif name not in _THEIR_FILES:
            _put_flag(layer, name, written, factors, problems)
    _put_count(layer, factors, problems)
    return layer


def _from(at: At, start: int, offset: int, width: int) -> Position:
    return at(start + offset, width)


def _put_flag(
    layer: Layer, written_name: str, written: Written, factors: list[Written], problems: Problems
) -> None:
    name = written_name.replace("-", "_")
    name = ALIASES.get(name, name)
    if name in ("scheduler", "schedule"):
        name = meaning_of_scheduler(written.value)
    key = written.name_position
    if name in _SAMPLERS and not written.raw:
        put(layer, "sampler", Written(_SAMPLERS[name], key, "", key), problems)
    elif name in _FACTORS:
        factors.append(written)
    elif name not in FIRST_NAME_OF:
        problems.add(key, _why_refused(written_name, name, str(written.value)))
    elif FIRST_NAME_OF[name] in _TAKING_MAPPINGS and str(written.value).startswith("{"):
        message = (
            f"a flag takes no mapping. Write {name}: {shown(str(written.value), 200)} between two "
            "lines --- above the prompts, or in a .yaml file."
        )
        problems.add(written.error_position, message)
    elif written.raw:
        put(layer, name, _seed_list(written) if name == "seed" else written, problems)
    elif FIRST_NAME_OF[name] in (*SWITCHES, *MAPPINGS):
        put(layer, name, Written(True, key, "", key), problems)
    else:
        message = f"--{written_name} has no value: write --{written_name} and what it takes."
        problems.add(key, message)


def _leave_out(name: str, written: Written, warnings: list[str]) -> None:
    value = str(written.value)
    if value.lower() not in _OFF and len(warnings) < MAX_WARNINGS:
        warnings.append(left_out(f"--{name} {value}".rstrip()))


def _why_refused(written: str, name: str, value: str) -> str:
    if written in _KOHYA:
        meant = _KOHYA[written]
        return f"--{written}: kohya's {meant}; write --{meant}"
    if name in _OTHER_TOOLS:
        return f"--{written}: {_OTHER_TOOLS[name]}"
    if name == "ar":
        return f"--ar: Midjourney's aspect ratio; write --size {sizes_of_ratio(value)}"
    words = words_for(name, FIRST_NAME_OF, "--")
    return f"unknown flag '--{shown(written)}'. {words}".rstrip()


def _seed_list(written: Written) -> Written:
    """`--seed 1, 2, 3` is a list, with or without its brackets."""
    if "," not in str(written.value):
        return written
    texts = [text.strip() for text in str(written.value).strip("[] ").split(",")]
    parts = tuple(Written(text, written.position, text) for text in texts)
    return replace(written, value=tuple(texts), parts=parts)


def _put_count(layer: Layer, factors: list[Written], problems: Problems) -> None:
    """A1111's batch_size times n_iter is the count."""
    product = 1
    for factor in factors:
        value = number(str(factor.value))
        if not isinstance(value, int) or not 1 <= value <= MOST_IMAGES:
            problems.add(factor.error_position, wrong_value("count", factor))
            return
        product *= value
    if factors:
        put(layer, "count", replace(factors[0], value=product), problems)


def _flags(text: str, start: int, at: At, problems: Problems) -> Iterator[tuple[str, Written]]:
    """The names as written, and the values."""
    position = start
    while found := _FLAG.search(text, position):
        value_start = _skip_spaces(text, found.end())
        if text.startswith("=", value_start):
            value_start = _skip_spaces(text, value_start + 1)
        quote = text[value_start : value_start + 1]
        if quote == '"':
            value, end = _quoted(text, value_start, at, problems)
        elif whole := _SINGLE_QUOTED.match(text, value_start):
            value, end = whole["text"], whole.end()
        else:
            following = _FLAG.search(text, value_start)
            end = following.start() if following else len(text)
            value = text[value_start:end].strip()
            _refuse_other_dashes(value, value_start, at, problems)
        raw = text[value_start:end].strip()
        name = found["name"]
        key = at(found.start(), len(name) + 2)
        value_position = at(value_start, max(1, len(raw)))
        inside = partial(_from, at, value_start)
        yield name, Written(value, value_position, raw, key, at=inside)
        position = end


def _skip_spaces(text: str, position: int) -> int:
    return len(text) - len(text[position:].lstrip())


def _quoted(text: str, start: int, at: At, problems: Problems) -> tuple[str, int]:
    """A value in double quotes: `\\"` and `\\\\` stand for a quote and a backslash."""
    found = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL).match(text, start)
    if not found:
        problems.add(at(start, 1), 'the quote " that opens here is never closed.')
        return text[start + 1 :], len(text)
    following = _FLAG.search(text, found.end())
    end = following.start() if following else len(text)
    after = text[found.end() : end].strip()
    if after:
        start = text.index(after, found.end())
        problems.add(
            at(start, len(after)),
            "there is more text after the closing quote. Put the quotes around all of it; "
            'write \\" for a quote inside.',
        )
    return re.sub(r'\\(["\\])', r"\1", found[1]), end


def _refuse_other_dashes(text: str, start: int, at: At, problems: Problems) -> None:
    for found in _NO_SPACE.finditer(text):
        if found["name"].replace("-", "_") in FIRST_NAME_OF:
            where = at(start + found.start(), len(found[0]))
            problems.add(where, f"a space is missing before '{found[0]}'.")
    for pattern, what in ((_LONG_DASH, "a long dash"), (_ONE_HYPHEN, "only one hyphen")):
        for found in pattern.finditer(text):
            name = found["name"]
            if name.replace("-", "_") in FIRST_NAME_OF:
                problems.add(
                    at(start + found.start(), len(found[0])),
                    f"there is {what} before '{name}'; for a flag, write two hyphens: --{name}.",
                )
