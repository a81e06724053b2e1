"""The entries of a YAML or JSON recipe, of a `_defaults.yaml`, and of a TXT's settings."""

import re
from dataclasses import replace

from picowatch.recipe.fields import FIRST_NAME_OF, PROMPTS
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.wording import quoted
from picowatch.recipe.read.names import field_named, put
from picowatch.recipe.read.nodes import compose
from picowatch.recipe.read.yaml_errors import nearly_field
from picowatch.recipe.written import Entry, Layer, Position, Source, Written

# Not a field: editors look there for the names of fields, above all in JSON.
NAMES_SCHEMA = "$schema"
_MAX_AFTER = 300


def yaml_entries(source: Source, problems: Problems) -> list[Entry]:
    """The recipes of a YAML file: a mapping each, alone, in lists or in several documents."""
    documents = compose(source, problems)
    return [entry for document in documents for entry in entries_of(document, problems)]


def entries_of(document: Written, problems: Problems) -> list[Entry]:
    """The recipes of a document."""
    entries = []
    for element in document.parts if isinstance(document.value, tuple) else (document,):
        if isinstance(element.value, dict):
            layer = layer_of(element, problems)
            entries.append(Entry(layer, start_of(element)))
        elif element.value is not None or element is not document:
            _refuse(element, problems)
    return entries


def yaml_layer(source: Source, problems: Problems) -> Layer:
    """The one mapping of a `_defaults.yaml` or of a TXT's settings; empty if not found."""
    documents = [node for node in compose(source, problems) if node.value is not None]
    for node in documents[1:]:
        problems.add(node.position, "settings are one mapping; this is a second document.")
    if not documents:
        return {}
    if isinstance(documents[0].value, dict):
        return layer_of(documents[0], problems)
    problems.add(documents[0].position, "settings are lines like 'steps: 30', one per line.")
    return {}


def layer_of(mapping: Written, problems: Problems) -> Layer:
    """The fields of a mapping."""
    layer: Layer = {}
    for name, value in mapping.pairs:
        if name == NAMES_SCHEMA:
            continue
        if field_named(name) in PROMPTS and _has_lost_text(name, value, problems):
            value = replace(value, value="")
        if not put(layer, name, value, problems) and " " in value.text:
            # It explains why there is no prompt, which is not to be said as well.
            layer.setdefault("prompt", replace(value, value=""))
    return layer


def start_of(mapping: Written) -> Position:
    """The first field, as wide as its name: where to point for what is missing."""
    return mapping.pairs[0][1].name_position if mapping.pairs else mapping.position


def _has_lost_text(name: str, value: Written, problems: Problems) -> bool:
    """Whether a comment follows a prompt: it was probably meant, and nobody would see it lost."""
    if value.raw[:1] in ("'", '"', "|", ">"):
        return False
    last_line = value.raw.rpartition("\n")[2]
    line = value.position.line + value.raw.count("\n")
    end = len(last_line) + (value.position.column - 1 if line == value.position.line else 0)
    # A piece is enough for an error, and a line may be a megabyte with thousands of scalars.
    after = value.position.source.line(line)[end : end + _MAX_AFTER]
    comment = after.strip()
    if not comment.startswith("#"):
        return False
    column = end + 1 + len(after) - len(after.lstrip())
    whole = " ".join(f"{value.text}{after}".split())
    problems.add(
        replace(value.position, line=line, column=column, width=len(comment)),
        f"everything from this # on is a comment. If it belongs to the text, write {name}: "
        f"{shown(quoted(whole), 200)}; if it is a comment, give it a line of its own.",
    )
    return True


def _refuse(node: Written, problems: Problems) -> None:
    """What is no recipe: text, or lines that are nearly fields."""
    source, first = node.position.source, node.position.line
    for number in range(first, first + node.raw.count("\n") + 1):
        if not (found := nearly_field(source.line(number))):
            break
        problems.add(Position(source, number, found[0]), found[1])
    else:
        return
    if number > first:
        return
    text = shown(node.raw.partition("\n")[0])
    if source.is_json:
        message = f'{text} is not a recipe. A recipe is like {{"prompt": "a corgi"}}.'
        problems.add(node.position, message)
        return
    name = source.name.rpartition("/")[2].rpartition(".")[0]
    text = text if isinstance(node.value, str) else "…"
    problems.add(
        node.position,
        f"this is not a recipe. Write 'prompt: {text}', or rename the file to {name}.txt: there "
        "each line is a prompt.",
    )


def first_flag(text: str) -> tuple[str, str]:
    """The first flag of a prompt, as in a TXT, and as a field; both "" without any."""
    for flag in re.finditer(r"(?<=\s)--(?P<name>[A-Za-z][\w-]*)[ =]+(?P<value>[^\s\"']+)", text):
        name = flag["name"].replace("-", "_")
        if name in FIRST_NAME_OF:
            return flag[0], f"{name}: {shown(flag['value'])}"
    return "", ""
