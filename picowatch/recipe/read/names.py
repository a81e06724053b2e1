"""The names of fields as files write them, and layers of their values."""

from functools import lru_cache

from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.messages.other_programs import words_for
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import closest
from picowatch.recipe.messages.wording import given_twice
from picowatch.recipe.samplers import meaning_of_scheduler
from picowatch.recipe.written import FORBIDDEN, NOTE, Layer, SourceValue, invisible, plain_name

MAX_NOTES = 2_000  # characters of an entry, which may request many images
ALL_FIELDS = "docs/recipes.md lists all fields; a note's name begins with _, like _title."
_OF_PROMPTS = ("prompt", "recipe", "recipes", "defaults")  # names of what has a prompt


def field_named(name: str) -> str | None:
    """Return the field with this name or alias, or None."""
    return FIRST_NAME_OF.get(plain_name(name))


def field_called(name: str, value: str = "") -> str | None:
    """Return the field that a name means with that value, a note's name as it is, or None."""
    if name.startswith(NOTE):
        return name
    # What other programs call scheduler is a schedule type, or a sampler.
    is_scheduler = plain_name(name) in ("scheduler", "schedule")
    return field_named(meaning_of_scheduler(value) if is_scheduler else name)


def unknown(name: str, value: str = "", before: str = "", otherwise: str = ALL_FIELDS) -> str:
    """Return the message about a name that is not a field; `before` are a flag's hyphens."""
    what = f"unknown flag '{before}{shown(name)}'." if before else f"unknown field '{shown(name)}'."
    return f"{what} {words_for(name, FIRST_NAME_OF, value, before) or otherwise}".rstrip()


def check_notes(layer: Layer, problems: Problems) -> None:
    """Report notes of one entry that are no text, not printable or too long."""
    notes = [(name, note) for name, note in layer.items() if name.startswith(NOTE)]
    for name, note in notes:
        if isinstance(note.value, tuple | dict):
            message = f"{shown(name)} is a note, as its name begins with {NOTE}. Notes are text."
            if name == "_defaults":
                message += " Write its fields here, or into the file _defaults.yaml."
            problems.add(note.position, message)
        elif hidden := FORBIDDEN.search(name + note.text):
            what = f"{shown(name)} contains {invisible(hidden[0])}. Remove it."
            problems.add(note.position, what)
    if notes and sum(len(note.text) for _, note in notes) > MAX_NOTES:
        name, note = notes[-1]
        message = f"{shown(name)}: the notes of an entry have more than {MAX_NOTES:,} characters."
        problems.add(note.position, message)


def add(
    layer: Layer, field: str, name: str, written: SourceValue, problems: Problems, column: str = ""
) -> None:
    """Add the value of a field that the file calls `name`, unless it has a value.

    `column`: in a CSV, the column that the value before is from.
    """
    if field in layer and layer[field].raw:
        problems.add(written.name_position, given_twice(name, layer[field], column))
    else:
        layer[field] = written


def excuse_prompt(layer: Layer, name: str, unknown: SourceValue) -> None:
    """Add an empty prompt if an unknown name may be meant as the prompt: one error is enough."""
    if " " in unknown.text or _is_like_prompt(name):
        layer.setdefault("prompt", SourceValue("", unknown.position))


@lru_cache(maxsize=256)  # a CSV asks for its columns in each row
def _is_like_prompt(name: str) -> bool:
    return closest(name, (*FIRST_NAME_OF, *_OF_PROMPTS)) in _OF_PROMPTS
