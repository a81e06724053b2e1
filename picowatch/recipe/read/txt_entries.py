"""The entries of a TXT recipe, by the three rules of the docs."""

import re

from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.messages.other_programs import words_of_others
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import closest
from picowatch.recipe.read.a1111 import a1111_entries, holds_parameters
from picowatch.recipe.read.flags import PromptLine, prompt_and_flags
from picowatch.recipe.read.names import field_named
from picowatch.recipe.read.no_prompts import why_no_page, why_no_prompt
from picowatch.recipe.read.yaml_entries import yaml_layer
from picowatch.recipe.written import Entry, Layer, Position, Source

_RULE = re.compile(r"-{3,}\s*")
_PROMPT_FIELD = re.compile(r"(?im)^[ \t]*(?:- +)?prompt:")
# A line like `steps: 10` or `from: corgi.png`: no prompt reads like this, and drawing it would
# hide a mistake.
_SETTING = re.compile(
    r"(?P<name>[A-Za-z_]{3,30}) ?: *(?P<value>[-+]?[\d.,x×e]+|random|true|false|yes|no|on|off|"
    r"\S*\.(?:png|jpe?g|webp|avif))"
)
_NEGATIVE = re.compile(r"(?i)(?P<name>\bnegative[ _]prompt|^negative): *(?P<text>.*)")
MAX_PROMPTS = 10_000


def txt_entries(source: Source, problems: Problems) -> tuple[list[Entry], Layer]:
    """The entries, and the settings above them that all of them start from.

    1. Text with A1111's generation parameters is recipes with those settings.
    2. Otherwise each line is a prompt, with comments, settings and flags.
    3. A first line like `prompt: …` is YAML under a wrong name.
    4. JSON and other programs' command lines are neither; the error says what to write.
    """
    if _looks_like_yaml(source, problems):
        return [], {}
    no_page = why_no_page(source.text, _renamed(source, "json"))
    if no_page:
        first = next(i for i, line in enumerate(source.lines, 1) if line.strip())
        problems.add(source.whole_line(first), no_page)
        return [], {}
    if holds_parameters(source.text):
        return a1111_entries(source, problems), {}
    first, settings = _settings(source, problems)
    entries = _prompt_lines(source, first, problems)
    if settings and not (entries or problems):
        message = "a prompt is missing. Write it below the settings, in a line of its own."
        problems.add(source.whole_line(first), message)
    return entries, settings


def _looks_like_yaml(source: Source, problems: Problems) -> bool:
    """Whether the first line is `prompt: …`, or another field and a prompt comes below."""
    for number, text in enumerate(source.lines, 1):
        if _is_skipped(text):
            continue
        field = re.match(r"\s*(?:- +)?(\w+)\s*:(?:\s|$)", text)
        if not field or not field_named(field[1]):
            return False
        if field_named(field[1]) != "prompt" and not _PROMPT_FIELD.search(source.text):
            return False
        position = Position(source, number, field.start(1) + 1, len(field[1]))
        problems.add(position, rename_to(source, "yaml", "YAML"))
        return True
    return False


def rename_to(source: Source, ending: str, what: str) -> str:
    """What to do about a file with the wrong ending."""
    return f"this looks like {what}; rename it to {_renamed(source, ending)}"


def _renamed(source: Source, ending: str) -> str:
    stem = source.name.rpartition("/")[2].rpartition(".")[0]
    # Windows hides the ending that its editor adds to corgi.yaml.
    stem = re.sub(r"(?i)(?<=.)\.(ya?ml|json|csv|txt)$", "", stem)
    return f"{stem}.{ending}"


def _settings(source: Source, problems: Problems) -> tuple[int, Layer]:
    """The settings between two `---` lines at the top, and the index of the line below."""
    lines = source.lines
    top = next((i for i, text in enumerate(lines) if not _is_skipped(text)), len(lines))
    if top == len(lines) or not _RULE.fullmatch(lines[top]):
        return 0, {}
    end = next((i for i in range(top + 1, len(lines)) if _RULE.fullmatch(lines[i])), None)
    if end is None:
        position = source.whole_line(top + 1)
        is_yaml = _PROMPT_FIELD.search(source.text)
        message = "settings begin here and must end with a second line ---."
        problems.add(position, rename_to(source, "yaml", "YAML") if is_yaml else message)
        return len(lines), {}
    # Blank lines above keep the line numbers of the file.
    above = "\n" * (top + 1) + "\n".join(lines[top + 1 : end])
    layer = yaml_layer(Source(source.name, above), problems)
    if "prompt" in layer:
        position = layer["prompt"].name_position
        problems.add(position, "write the prompts below the settings, one per line.")
    return end + 1, layer


def _is_skipped(text: str) -> bool:
    return not text.strip() or text.lstrip().startswith("#")


def _prompt_lines(source: Source, first: int, problems: Problems) -> list[Entry]:
    entries: list[Entry] = []
    number = first
    while number < len(source.lines):
        if _is_skipped(source.lines[number]):
            number += 1
            continue
        line, number = _whole_line(source, number, problems)
        if _RULE.fullmatch(line.text):
            message = "settings between --- lines may appear only once, above all prompts."
            problems.add(line.at(0, len(line.text)), message)
        elif len(entries) == MAX_PROMPTS:
            message = f"more than {MAX_PROMPTS:,} prompts in one file. Split it."
            problems.add(line.at(0, len(line.text)), message)
            break
        elif why := why_no_prompt(line.text) or _why_setting(line.text):
            problems.add(source.whole_line(line.pieces[0][1].line), why)
        else:
            warnings: list[str] = []
            layer = prompt_and_flags(line, problems, warnings)
            entries.append(Entry(layer, line.at(0, len(line.text)), tuple(warnings)))
    return entries


def _why_setting(line: str) -> str:
    """What to say of a line that is a setting, and would be drawn; "" for a prompt."""
    if negative := _NEGATIVE.search(line):
        return (
            f"'{negative['name']}:' within a prompt would be part of its text. Write "
            f"--negative_prompt {shown(negative['text'])} after the prompt."
        )
    reads = "each line of a .txt is a prompt, and this one reads like a setting."
    setting = _SETTING.fullmatch(line)
    if not setting:
        return ""
    name, value = setting["name"], setting["value"]
    if theirs := words_of_others(name):
        return f"{reads} Recipes have no '{name}'. {theirs}"
    meant = name if field_named(name) else closest(name, FIRST_NAME_OF)
    if not meant:
        return ""
    question = "" if meant == name else f"Did you mean '{meant}'? "
    return (
        f"{reads} {question}Write --{meant} {value} after a prompt, or {meant}: {value} between "
        "two lines --- above the prompts."
    )


def _whole_line(source: Source, number: int, problems: Problems) -> tuple[PromptLine, int]:
    """A line with all that backslashes at its end go on with, and the index after it."""
    text = ""
    pieces: list[tuple[int, Position]] = []
    while True:
        line = source.lines[number]
        body = line.strip()
        pieces.append((len(text), Position(source, number + 1, len(line) - len(line.lstrip()) + 1)))
        number += 1
        # An odd number of backslashes: two of them are one that is meant.
        if (len(body) - len(body.rstrip("\\"))) % 2 == 0:
            return PromptLine(text + body, tuple(pieces)), number
        text += body[:-1].rstrip() + " "
        if number == len(source.lines):
            problems.add(
                Position(source, number, len(line.rstrip())),
                "a backslash at the end of a line continues it on the next line, but there is no "
                "next line.",
            )
            return PromptLine(text, tuple(pieces)), number
