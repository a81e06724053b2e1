"""Writes the tables of docs/ from the code: `make docs`. A test keeps them current."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from picowatch.cli import called_with, parsers
from picowatch.commands import COMMANDS
from picowatch.errors import EXIT_CODES
from picowatch.outbox.listing import OF_FAILURES, OWN
from picowatch.recipe.fields import ROWS, RecipeFields, json_schemas
from picowatch.recipe.samplers import SAMPLERS
from picowatch.settings import DAILY, FOLDERS, Settings

DOCS = Path(__file__).parent


_USUAL: dict[object, str] = {None: "off", "": "none", (): "none"}
# What most recipes use.
DAILY_FIELDS = (
    *("prompt", "negative_prompt", "checkpoint", "width", "height", "seed", "count", "steps"),
    *("cfg_scale", "sampler", "image", "denoising_strength", "mask", "loras", "hires", "upscale"),
    *("control", "sweep"),
)


def recipe_table(daily: bool) -> str:
    """The recipe fields that most people use, or the others: what they take, defaults, aliases.

    Only the first sentence says what a field does: its section in the page has the rest.
    """
    rows: dict[str, list[str]] = {}
    for name, row in ROWS.items():
        if (name in DAILY_FIELDS) is not daily:
            continue
        field = RecipeFields.model_fields[name]
        default = "required" if field.is_required() else _USUAL.get(field.default)
        cells = [
            row.does.split(". ")[0].removesuffix("."),
            row.wanted or _takes(json_schemas()[name]),
            row.default_text or default or _shown(field.default),
        ]
        line = " | ".join(cell.replace("|", "\\|") for cell in cells)
        rows.setdefault(line, []).extend(f"`{one}`" for one in (name, *row.aliases))
    head = ["| field, and aliases | what it does | takes | default |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| {', '.join(names)} | {line} |" for line, names in rows.items())])


def _takes(schema: dict[str, object]) -> str:
    options = schema.get("anyOf")
    if isinstance(options, list):
        return " or ".join(filter(None, (_takes(option) for option in options)))
    if "const" in schema:
        return f"`{schema['const']}`"
    if isinstance(schema.get("enum"), list):
        return ", ".join(f"`{value}`" for value in schema["enum"])  # type: ignore[attr-defined]
    if "minimum" in schema and "maximum" in schema:
        step = f", multiples of {schema['multipleOf']}" if "multipleOf" in schema else ""
        return f"{schema['minimum']}–{schema['maximum']}{step}"
    words = {"string": "text", "boolean": "true or false", "integer": "a whole number",
             "number": "a number", "array": "a list", "null": ""}  # fmt: skip
    return words[str(schema["type"])]


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "true" if default else "false"
    return str(default)


def sampler_table() -> str:
    """Every sampler by its automatic schedule type, and by whether it draws noise."""
    rows = ["| automatic schedule type | samplers without noise | with noise |", "|---|---|---|"]
    for automatic in dict.fromkeys(one.automatic for one in SAMPLERS):
        of_type = [one for one in SAMPLERS if one.automatic == automatic]
        still, noisy = (
            ", ".join(f"`{one.name}`" for one in of_type if one.noisy is noise)
            for noise in (False, True)
        )
        rows.append(f"| `{automatic}` | {still} | {noisy} |")
    twice = ", ".join(f"`{one.name}`" for one in SAMPLERS if one.evaluations == 2)
    return "\n".join([*rows, "", f"These evaluate the model twice a step: {twice}."])


def settings_table(daily: bool) -> str:
    """The settings that most people use, or the others."""
    rows = ["| setting | what it does | default |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if (name in DAILY) is not daily:
            continue
        default = "" if field.default is None else _shown(field.default)
        cells = [f"`{name}`", field.description or "", f"`{default}`" if default else ""]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def command_table() -> str:
    """Every command with its own flags."""
    rows = ["| command | does | flags |", "|---|---|---|"]
    for name, command in parsers()[1].items():
        shared = {"--help", "--debug", *(f"--{folder}" for folder in (*FOLDERS, "settings"))}
        flags = [
            f"`{action.option_strings[-1]}` {action.help}"
            for action in command._actions
            if action.option_strings and action.option_strings[-1] not in shared
        ]
        called = f"picowatch {name}{called_with(command)}"
        cells = [f"`{called}`", COMMANDS[name].summary, "; ".join(flags)]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def exit_code_table() -> str:
    """Every exit code of the tree of errors, and the two others."""
    rows = [f"| {code} | {means} |" for code, means in EXIT_CODES.items()]
    return "\n".join(["| exit code | means |", "|---|---|", *rows])


def listing_table(names: Mapping[str, str]) -> str:
    """What a line of images.jsonl contains besides the request, or one of failures.jsonl."""
    rows = [f"| `{name.replace(', ', '`, `')}` | {means} |" for name, means in names.items()]
    return "\n".join(["| name | what it is |", "|---|---|", *rows])


TABLES = {
    "commands": command_table,
    "exit codes": exit_code_table,
    "images.jsonl": partial(listing_table, OWN),
    "failures.jsonl": partial(listing_table, OF_FAILURES),
    "recipe fields": partial(recipe_table, daily=True),
    "more recipe fields": partial(recipe_table, daily=False),
    "samplers": sampler_table,
    "settings": partial(settings_table, daily=True),
    "more settings": partial(settings_table, daily=False),
}


def written(text: str) -> str:
    """A page with its tables as the code gives them now, each between its two marks."""
    for name, table in TABLES.items():
        marks = re.compile(f"<!-- {name} -->\n.*?<!-- end -->", re.DOTALL)
        filled = f"<!-- {name} -->\n{table()}\n<!-- end -->"
        text = marks.sub(filled.replace("\\", r"\\"), text)
    return text


def pages() -> list[Path]:
    """Every page that may hold tables."""
    return sorted(DOCS.glob("*.md"))


if __name__ == "__main__":
    for page in pages():
        page.write_text(written(page.read_text()))
