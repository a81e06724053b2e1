"""Flags after a prompt in a TXT: `a corgi --steps 30 --negative_prompt "blurry, dim"`."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import itemgetter

from picowatch.recipe.fields import FIRST_NAME_OF, MAPPINGS, MOST_IMAGES, SWITCHES
from picowatch.recipe.messages.other_programs import is_switched_off, words_for
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import MAX_WARNINGS, left_out, sizes_of_ratio, wrong_value
from picowatch.recipe.read.names import excuse_prompt, field_named, put
from picowatch.recipe.written import Layer, Position, Written, number, plain_name

_NAME = r"(?P<name>[A-Za-z][\w-]{0,100})"
_FLAG = re.compile(rf"(?:(?<=\s)|^)--{_NAME}(?:\s*=\s*|\s+|$)")
# What word processors make of two hyphens, a hyphen too few, a space too few. The last two only
# with a number behind them: search engines have taught people to write -blurry.
_NO_FLAG = re.compile(
    rf"(?:(?:(?<=\s)|^)[\N{{EN DASH}}\N{{EM DASH}}]|(?:(?:(?<=\s)|^)-|(?<=[^\s-])--)"
    rf"(?=[\w-]{{1,40}}[ =]{{1,9}}\d)){_NAME}"
)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
# A1111 reads its lines as a shell does; an apostrophe that only begins a value is one.
_SINGLE_QUOTED = re.compile(r"'([^']*)'(?=\s+--[A-Za-z]|\s*$)")

# Names of A1111, CompVis and stable-diffusion.cpp that are not ours with hyphens.
ALIASES = {
    "sampler_index": "sampler",
    "sampling_method": "sampler",
    "batch_count": "count",
    "scale": "cfg_scale",
    "ddim_steps": "steps",
    "ddim_eta": "eta",
    "H": "height",
    "W": "width",
}
# A1111's "Prompts from file": their product is the count.
_FACTORS = ("batch_size", "n_iter", "n_samples")
# Their other flags: what a recipe cannot say is left out with a warning, unless it is switched
# off; where they put and show their files means nothing here.
_THEIRS_ALONE = ("styles", "seed_resize_from_h", "seed_resize_from_w", "restore_faces", "eta")
_THEIR_FILES = (
    *("outpath_samples", "outpath_grids", "prompt_for_display"),
    *("do_not_save_samples", "do_not_save_grid"),
)
MAX_FLAGS = 200  # there are not so many fields
_TAKING_MAPPINGS = (*MAPPINGS, "loras", "control", "sweep")


@dataclass(frozen=True, slots=True)
class PromptLine:
    """A prompt with its flags. `pieces` are the offsets and positions of the lines it is of."""

    text: str
    pieces: tuple[tuple[int, Position], ...]

    def at(self, offset: int, width: int) -> Position:
        """The position of a piece of the text."""
        start, position = self.pieces[bisect_right(self.pieces, offset, key=itemgetter(0)) - 1]
        return position.shifted(offset - start, max(1, width))

    def written(self, start: int, end: int, key: Position | None = None) -> Written:
        """A piece of the text."""
        raw = self.text[start:end].strip()
        start += len(self.text[start:end]) - len(self.text[start:end].lstrip())
        return Written(raw, self.at(start, len(raw)), raw, key)


def prompt_and_flags(line: PromptLine, problems: Problems, warnings: list[str]) -> Layer:
    """The fields of one prompt line.

    A flag's value, after a space or =, runs to the next ` --`, or, if it opens with a double
    quote, to the closing one. What other programs alone can do goes to `warnings`.
    """
    layer: Layer = {}
    first = _FLAG.search(line.text)
    end = first.start() if first else len(line.text)
    prompt = line.written(0, end)
    if prompt.text:
        layer["prompt"] = prompt
        _refuse_no_flags(line, 0, end, problems)
    factors: list[Written] = []
    for index, (name, written) in enumerate(_flags(line, first, problems)):
        if index == MAX_FLAGS:
            message = f"more than {MAX_FLAGS} flags in one line."
            problems.add(written.name_position, message)
            break
        _put_flag(layer, name, written, factors, problems, warnings)
    _put_count(layer, factors, problems)
    return layer


def _flags(
    line: PromptLine, found: re.Match[str] | None, problems: Problems
) -> Iterator[tuple[str, Written]]:
    """The names as written, and the values."""
    while found:
        start = found.end()
        name = found["name"]
        key = line.at(found.start(), len(name) + 2)
        quoted = _QUOTED.match(line.text, start) or _SINGLE_QUOTED.match(line.text, start)
        found = _FLAG.search(line.text, quoted.end() if quoted else start)
        end = found.start() if found else len(line.text)
        written = line.written(start, end, key)
        if quoted:
            if after := line.written(quoted.end(), end).text:
                problems.add(
                    line.written(quoted.end(), end).position,
                    f"'{shown(after)}' stands after the closing quote. Put the quotes around all "
                    'of it; write \\" for a quote inside.',
                )
            is_double = quoted[0].startswith('"')
            text = re.sub(r'\\(["\\])', r"\1", quoted[1]) if is_double else quoted[1]
            written = written.with_value(text)
        elif written.text.startswith('"'):
            message = 'the quote " that opens here is never closed.'
            problems.add(line.at(start, 1), message)
        elif _refuse_no_flags(line, start, end, problems):
            continue
        yield name, written


def _put_flag(
    layer: Layer,
    flag: str,
    written: Written,
    factors: list[Written],
    problems: Problems,
    warnings: list[str],
) -> None:
    name = ALIASES.get(flag) or ALIASES.get(plain_name(flag), plain_name(flag))
    field = "scheduler" if name in ("scheduler", "schedule") else field_named(name)
    key = written.name_position
    if name in _FACTORS:
        factors.append(written)
    elif field is None and name in _THEIRS_ALONE:
        if not is_switched_off(name, written.text) and len(warnings) < MAX_WARNINGS:
            warnings.append(left_out(f"--{flag} {written.text}".rstrip()))
    elif field is None and name not in _THEIR_FILES:
        problems.add(key, _unknown(flag, written.text))
        excuse_prompt(layer, name, written)
    elif field in _TAKING_MAPPINGS and written.text.startswith("{"):
        message = (
            f"a flag takes no mapping. Write {name}: {shown(written.text, 200)} between two lines "
            "--- above the prompts, or in a .yaml file."
        )
        problems.add(written.position, message)
    elif field and written.raw:
        put(layer, field, seed_list(written) if field == "seed" else written, problems)
    elif field in (*SWITCHES, *MAPPINGS):
        put(layer, field, Written("true", key, "", key), problems)
    elif field:
        problems.add(key, f"--{flag} has no value: write --{flag} and what it takes.")


def _unknown(flag: str, value: str) -> str:
    words = words_for(flag, FIRST_NAME_OF, "--")
    if flag == "ar":
        words = f"It is Midjourney's flag; write --size {sizes_of_ratio(value)}."
    return f"unknown flag '--{shown(flag)}'. {words}".rstrip()


def seed_list(written: Written) -> Written:
    """`1, 2, 3` is a list, with or without its brackets."""
    if "," not in written.text:
        return written
    texts = [text.strip() for text in written.text.strip("[] ").split(",")]
    parts = tuple(Written(text, written.position, text) for text in texts)
    return replace(written, value=tuple(texts), parts=parts)


def _put_count(layer: Layer, factors: list[Written], problems: Problems) -> None:
    """A1111's batch_size times n_iter is the count."""
    product = 1
    for factor in factors:
        value = number(factor.text)
        if not isinstance(value, int) or not 1 <= value <= MOST_IMAGES:
            problems.add(factor.position, wrong_value("count", factor))
            return
        product *= value
    if factors:
        put(layer, "count", factors[0].with_value(str(product)), problems)


def _refuse_no_flags(line: PromptLine, start: int, end: int, problems: Problems) -> bool:
    """Whether a text has what was meant for a flag, and would be part of it."""
    found = [one for one in _NO_FLAG.finditer(line.text, start, end) if field_named(one["name"])]
    for one in found:
        problems.add(
            line.at(one.start(), len(one[0])),
            f"'{shown(one[0])}' would be part of the text. For a flag, write a space and two "
            f"hyphens: --{one['name']}.",
        )
    return bool(found)
