"""The entries of a TXT recipe."""

import re
from dataclasses import replace

from picowatch.recipe.a1111 import reader as a1111
from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.messages.other_programs import why_no_prompt
from picowatch.recipe.messages.problems import Problems
from picowatch.recipe.messages.suggestions import closest
from picowatch.recipe.read.flags import PromptLine, prompt_and_flags
from picowatch.recipe.read.names import field_called, field_named
from picowatch.recipe.read.yaml_entries import yaml_layer
from picowatch.recipe.written import Entry, Layer, Position, Source

_RULE = re.compile(r"-{3,}\s*")
_FIELD = re.compile(r"\w[\w -]*:")
_PROMPT_FIELD = re.compile(r"(?im)^[ \t]*(?:- +)?prompt:")
# A line like `steps: 10,` or `from: corgi.png` is not a prompt; drawing it would hide a mistake.
_SETTING = re.compile(
    r"(?P<name>[A-Za-z_]{3,30})(?P<sign> ?[:=] *| (?=[\d.]+,?\Z))(?P<value>[-+]?[\d.,x×e]*[\d.]|"
    r"random|true|false|yes|no|on|off|\S*\.(?:png|jpe?g|webp|avif)),?"
)
_JSON = re.compile(r'(?:\[\s*)?\{\s*"[^"\n]{1,200}"\s*:')
# RTF, a web page, a script.
_NO_TEXT = re.compile(
    r"\{\\rtf\d|<(?i:!doctype|html|\?xml)\b|#!"
    r"|(?:from [\w.]+ import .+|import [\w.]+(?: as \w+)?|def \w+\(.*)\s*\n"
)


def txt_entries(source: Source, problems: Problems) -> tuple[list[Entry], Layer]:
    """Return the entries, and the settings above them that all of them start from.

    1. A first line like `prompt: …`, or a field or note with a prompt below, is YAML under a wrong
       name.
    2. JSON and tables are not prompts; the error says what to do.
    3. Below the settings, blocks of A1111's generation parameters are recipes.
    4. Otherwise each line is a prompt with flags; comments may come anywhere.
    """
    first = next((i for i, line in enumerate(source.lines) if not _is_skipped(line)), 0)
    found = re.match(r"\s*(?:- +)?(\w+)\s*(?::(?:\s|$)|= )", source.lines[first])
    field = field_called(found[1]) if found else None
    if found and field and (field == "prompt" or _PROMPT_FIELD.search(source.text)):
        position = Position(source, first + 1, found.start(1) + 1, len(found[1]))
        problems.add(position, rename_to(source, "yaml", "YAML"))
        return [], {}
    if why := _why_no_page(source, source.lines[first]):
        problems.add(source.whole_line(first + 1), why)
        return [], {}
    first, settings = _settings(source, first, problems)
    # Blank lines above keep the line numbers of the file.
    below = replace(source, text="\n" * first + "\n".join(source.lines[first:]))
    if a1111.holds_parameters(below.text):
        return a1111.a1111_entries(below, problems), settings
    entries = _prompt_lines(below, problems)
    if settings and not (entries or problems):
        message = "a prompt is missing. Write it below the settings, in a line of its own."
        problems.add(source.whole_line(first), message)
    return entries, settings


def _is_skipped(text: str) -> bool:
    return not text.strip() or text.lstrip().startswith("#")


def rename_to(source: Source, ending: str, what: str) -> str:
    """Return the message about a file with the wrong ending."""
    stem = source.name.rpartition("/")[2].rpartition(".")[0]
    # Windows hides the ending that its editor adds to corgi.yaml.
    stem = re.sub(r"(?i)(?<=.)\.(ya?ml|json|csv|txt)$", "", stem)
    return f"this looks like {what}; rename it to {stem}.{ending}"


def _why_no_page(source: Source, first: str) -> str:
    """Return the message about a TXT that holds no prompts at all; "" if it may."""
    names = [name.strip('" ') for name in re.split("[,;\t]", first)]
    # A1111's styles.csv has a name for each style.
    if len(names) > 1 and "prompt" in names and {*names} <= {"name", *FIRST_NAME_OF}:
        what = "this is a table, not prompts. Save it with the ending .csv"
        return f"{what}: its first line names fields, and each further line is a recipe."
    if _NO_TEXT.match(source.text.strip()):
        what = "this is RTF, a web page or a script, not plain text with a prompt in each line."
        return f"{what} Save only the prompts (in TextEdit: Format, Make Plain Text)."
    return rename_to(source, "json", "JSON") if _JSON.match(source.text.strip()) else ""


def _settings(source: Source, top: int, problems: Problems) -> tuple[int, Layer]:
    """Return the settings between two `---` lines at the top, and the index of the line below."""
    lines = source.lines
    if not _RULE.fullmatch(lines[top]):
        return 0, {}
    end = next((i for i in range(top + 1, len(lines)) if _RULE.fullmatch(lines[i])), None)
    between = lines[top + 1 : end] if end else ()
    if not any(map(_FIELD.match, between)) and a1111.holds_parameters(source.text):
        return 0, {}  # A1111's prompts may have such lines
    if end is None:
        message = "settings begin here and must end with a second line ---."
        if _PROMPT_FIELD.search(source.text):
            message = rename_to(source, "yaml", "YAML")
        problems.add(source.whole_line(top + 1), message)
        return len(lines), {}
    above = "\n" * (top + 1) + "\n".join(between)
    layer = yaml_layer(Source(source.name, above), problems)
    if "prompt" in layer:
        position = layer["prompt"].name_position
        problems.add(position, "write the prompts below the settings, one per line.")
    return end + 1, layer


def _prompt_lines(source: Source, problems: Problems) -> list[Entry]:
    """Return the prompts, each a line joined with those that backslashes continue."""
    entries: list[Entry] = []
    pieces: list[str] = []
    for number, text in enumerate(source.lines, 1):
        if not pieces and _is_skipped(text):
            continue
        piece = text.rstrip()
        # Only an odd number of backslashes continues: a pair is an escaped backslash.
        goes_on = (len(piece) - len(piece.rstrip("\\"))) % 2
        pieces.append(piece[: len(piece) - goes_on])
        if goes_on and number < len(source.lines):
            continue
        if goes_on:
            what = "a backslash at the end of a line continues it on the next line"
            end = Position(source, number, len(piece))
            problems.add(end, f"{what}, but there is no next line.")
        line, pieces = PromptLine(source, number - len(pieces) + 1, "\n".join(pieces)), []
        written = line.written(0)
        if _RULE.fullmatch(written.text):
            message = "settings between --- lines may appear only once, above all prompts."
            problems.add(written.position, message)
        elif why := (
            why_no_prompt(written.text)
            or a1111.why_no_prompt(written.text)
            or _why_setting(written.text)
        ):
            problems.add(source.whole_line(line.number), why)
        else:
            warnings: list[str] = []
            layer = prompt_and_flags(line, problems, warnings)
            entries.append(Entry(layer, written.position, tuple(warnings)))
    return entries


def _why_setting(line: str) -> str | None:
    setting = _SETTING.fullmatch(line)
    if not setting:
        return None
    name, value = setting["name"], setting["value"]
    reads = "each line of a .txt is a prompt, and this one reads like a setting."
    meant = name if field_named(name) else closest(name, FIRST_NAME_OF)
    if meant != name and not setting["sign"].strip():  # "cats 9" is no "cfg 9"
        return None
    question = "" if meant == name else f"Did you mean '{meant}'? "
    return meant and (
        f"{reads} {question}Write --{meant} {value} after a prompt, or {meant}: {value} between "
        "two lines --- above the prompts."
    )
