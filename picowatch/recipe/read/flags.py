"""Flags after a prompt in a TXT: `a corgi --steps 30 --negative_prompt "blurry, dim"`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice

from picowatch.recipe.fields import MAPPINGS, SWITCHES
from picowatch.recipe.messages.other_programs import OFF_WORDS
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import MAX_WARNINGS, left_out
from picowatch.recipe.read import names
from picowatch.recipe.written import NOTE, Layer, Position, Source, SourceValue, number, plain_name

_NAME = r"(?P<name>_?[A-Za-z][\w-]{0,100})"
_FLAG = re.compile(rf"(?:(?<=\s)|^)--{_NAME}(?:\s*=\s*|\s+|$)")
# What is almost a flag: with more hyphens, with the dashes of word processors, with `:3` or
# `.scale` after the name. With one hyphen, without a space before it or with one after it, a number
# must follow: people also write -blurry, as in search engines.
_DASH = "[-\N{HYPHEN}-\N{HORIZONTAL BAR}\N{MINUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}]"
_NUMBER_FOLLOWS = r"(?=[\w-]{1,40}[ =]{1,9}\d)"
_NO_FLAG = re.compile(
    rf"(?P<dashes>(?<!\S){_DASH}{{2,9}}|(?<!\S)[\N{{EN DASH}}\N{{EM DASH}}]"
    rf"|(?:(?<!\S){_DASH}{{2,9}} |(?<!\S)-|(?<=[^\s-])--){_NUMBER_FOLLOWS})"
    rf"{_NAME}(?P<after>[.:][\w.]*)?"
)
# The flags of InvokeAI and stable-diffusion.cpp. Two of these, or one with a number at the end, are
# a command line, not an old BMW -S 54 engine.
_SHORT = re.compile(
    r"(?<!\S)-[AbCfHIimnopsSW](?: ?(?=\d)| )(?P<value>\"[^\"]*\"|'[^']*'|[^\s\"'-]\S*)"
)
_LONG_ONES = (
    "It is a short flag of another program. Write the prompt first, and then long flags: --steps, "
    "--seed, --width, --height, --cfg_scale, --sampler, --image, --denoising_strength, --count."
)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
# A1111 reads its lines as a shell does; a single quote without a closing quote is an apostrophe.
_SINGLE_QUOTED = re.compile(r"'([^']*)'(?=\s+--[A-Za-z]|\s*$)")

# Flags of A1111, CompVis and stable-diffusion.cpp whose names are not our fields'.
ALIASES = {
    "sampler_index": "sampler", "sampling_method": "sampler", "batch_count": "n_iter",
    "n_samples": "batch_size", "scale": "cfg_scale", "ddim_steps": "steps", "ddim_eta": "eta",
    "H": "height", "W": "width",
}  # fmt: skip
# In A1111's "Prompts from file", their product is the count.
_FACTORS = ("batch_size", "n_iter")
# Other programs' further flags, which are ignored with a warning, unless they are off.
THEIRS_ALONE = (
    *("styles", "seed_resize_from_h", "seed_resize_from_w", "restore_faces", "eta"),
    *("outpath_samples", "outpath_grids", "prompt_for_display"),
    *("do_not_save_samples", "do_not_save_grid"),
)
MAX_FLAGS = 200  # more than there are fields


@dataclass(frozen=True, slots=True)
class PromptLine:
    """A prompt with its flags, in one or more lines of the file, the first one `number`."""

    source: Source
    number: int
    text: str

    def written(
        self, start: int, end: int | None = None, key: Position | None = None
    ) -> SourceValue:
        """Return a piece of the text, without white space around it and line breaks inside."""
        raw = self.text[start:end]
        start += len(raw) - len(raw.lstrip())
        raw = raw.strip()
        line = self.number + self.text.count("\n", 0, start)
        column = start - self.text.rfind("\n", 0, start)
        position = Position(self.source, line, column, max(1, len(raw.partition("\n")[0].rstrip())))
        raw = _in_one_line(raw)
        return SourceValue(raw, position, raw, key)


def _in_one_line(text: str) -> str:
    return " ".join(filter(None, map(str.strip, text.split("\n")))) if "\n" in text else text


def prompt_and_flags(line: PromptLine, problems: Problems, warnings: list[str]) -> Layer:
    """Return the fields of one prompt line.

    A flag's value, after a space or =, extends to the next ` --`, or, if it begins with a double
    quote, to the closing quote. Flags that only other programs know are added to `warnings`.
    """
    layer: Layer = {}
    first = _FLAG.search(line.text)
    end = first.start() if first else len(line.text)
    prompt = line.written(0, end)
    if prompt.text:
        layer["prompt"] = prompt
        _refuse_no_flags(line, 0, end, problems)
    for index, (name, written) in enumerate(_flags(line, first, problems)):
        if index == MAX_FLAGS:
            problems.add(written.name_position, f"more than {MAX_FLAGS} flags in one line.")
            break
        _put_flag(layer, name, written, problems, warnings)
    if factors := [layer.pop(name) for name in _FACTORS if name in layer]:
        product = 1
        for count in factors:
            value = number(count.text)
            if not isinstance(value, int) or value < 1:
                break  # it is no count, and the field refuses it
            product *= value
        else:
            count = count.with_value(str(product))
        names.add(layer, "count", count.name_position.text, count, problems)
    names.check_notes(layer, problems)
    return layer


def _flags(
    line: PromptLine, found: re.Match[str] | None, problems: Problems
) -> Iterator[tuple[str, SourceValue]]:
    """Yield the flags' names as written, and their values."""
    while found:
        start, name = found.end(), found["name"]
        key = line.written(found.start(), found.end("name")).position
        quoted = _QUOTED.match(line.text, start) or _SINGLE_QUOTED.match(line.text, start)
        found = _FLAG.search(line.text, quoted.end() if quoted else start)
        end = found.start() if found else len(line.text)
        written = line.written(start, end, key)
        if quoted:
            after = line.written(quoted.end(), end)
            if after.text:
                what = f"'{shown(after.text)}' comes after the closing quote."
                remedy = 'Put the quotes around the whole value; write \\" for a quote inside.'
                problems.add(after.position, f"{what} {remedy}")
            is_double = quoted[0].startswith('"')
            text = re.sub(r'\\(["\\])', r"\1", quoted[1]) if is_double else quoted[1]
            written = written.with_value(_in_one_line(text))
        elif written.text.startswith('"'):
            message = 'the quote " that opens here is never closed.'
            problems.add(replace(written.position, width=1), message)
        elif _refuse_no_flags(line, start, end, problems):
            continue
        yield name, written


def _put_flag(
    layer: Layer, flag: str, written: SourceValue, problems: Problems, warnings: list[str]
) -> None:
    plain = flag if flag.startswith(NOTE) else plain_name(flag)
    name = ALIASES.get(flag) or ALIASES.get(plain, plain)
    field = name if name in _FACTORS else names.field_called(name, written.text)
    key = written.name_position
    if field is None and name in THEIRS_ALONE:
        if written.text.casefold() not in OFF_WORDS and len(warnings) < MAX_WARNINGS:
            warnings.append(left_out(f"--{flag} {written.text}".rstrip()))
    elif field is None:
        problems.add(key, names.unknown(flag, written.text, "--"))
        names.excuse_prompt(layer, flag, written)
    elif written.raw:
        names.add(layer, field, field, written, problems)
    elif field in (*SWITCHES, *MAPPINGS):
        names.add(layer, field, field, SourceValue("true", key, "true", key), problems)
    else:
        problems.add(key, f"--{flag} has no value. Write one after it.")


def _refuse_no_flags(line: PromptLine, start: int, end: int, problems: Problems) -> bool:
    """Report what looks like flags in a text, where they are none; return whether it has any."""
    short = list(islice(_SHORT.finditer(line.text, start, end), 2))
    is_last = len(short) == 1 and not line.text[short[0].end() : end].strip()
    is_command = len(short) > 1 or (is_last and short[0]["value"][0].isdigit())
    found = False
    for piece in chain(_NO_FLAG.finditer(line.text, start, end), short[:is_command]):
        if remedy := _LONG_ONES if piece.re is _SHORT else _why_no_flag(piece):
            found = True
            what = f"'{shown(piece[0])}' would be part of the text. {remedy}"
            problems.add(line.written(piece.start(), piece.end()).position, what)
    return found


def _why_no_flag(found: re.Match[str]) -> str:
    """Return what to write instead of a misspelt flag; "" if the text is not a flag."""
    name, after, dashes = found["name"], found["after"] or "", found["dashes"]
    if after.strip(".:") and after.startswith("."):
        value = found.string[found.end() : found.end() + 60].lstrip(" =").partition(" ")[0]
        whole = f"{name}: {{{after[1:]}: {shown(value) or '…'}}}"
        return f"A flag has no parts. Write {whole} between two lines --- above the prompts."
    if names.field_named(name):
        flag = f"--{name} {after.strip('.:')}".rstrip()
        return f"For a flag, write a space and two hyphens: {flag}."
    return 'For text, write --prompt "…" around all of it.' if dashes == "--" else ""
