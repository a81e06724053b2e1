"""The entries of a YAML recipe, of a `_defaults.yaml`, and of a TXT's settings."""

import re
from collections.abc import Iterator
from dataclasses import replace

from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import closest
from picowatch.recipe.read.nodes import compose
from picowatch.recipe.read.yaml_errors import quoted, wide_colon, without_colon
from picowatch.recipe.resolve.layers import put
from picowatch.recipe.written import Entry, Layer, Position, Source, Written

# A recipe has fewer fields, and to compare each of a hostile file's takes long.
_MAX_COMPARED = 100
_MAX_AFTER = 300
# Not a field: editors look there for the names of fields, above all in JSON.
NAMES_SCHEMA = "$schema"
_PROMPTS = ("prompt", "negative_prompt", "negative")


def yaml_entries(source: Source, problems: Problems) -> list[Entry]:
    """The recipes of a YAML file: a mapping each, alone, in lists or in several documents."""
    entries = []
    for document in compose(source, problems):
        for element in elements_of(document):
            if isinstance(element.value, dict):
                entries.append(Entry(layer_of(element, problems), start_of(element)))
            elif tight := list(_tight_fields(element, source)):
                for position, instead in tight:
                    problems.add(
                        position, f"a space is missing after the colon: write '{instead}'."
                    )
            elif not _is_nothing(document):
                problems.add(element.position, _no_recipe(element, source, element is not document))
    return entries


def yaml_layer(source: Source, problems: Problems) -> Layer:
    """The one mapping of a `_defaults.yaml` or of a TXT's settings; empty if not found."""
    documents = [node for node in compose(source, problems) if not _is_nothing(node)]
    for node in documents[1:]:
        problems.add(node.position, "settings are one mapping; this is a second document.")
    if not documents:
        return {}
    if isinstance(documents[0].value, dict):
        return layer_of(documents[0], problems)
    problems.add(documents[0].position, "settings are lines like 'steps: 30', one per line.")
    return {}


def elements_of(node: Written) -> tuple[Written, ...]:
    """Those of a list; anything else is alone."""
    return node.parts if isinstance(node.value, tuple) else (node,)


def layer_of(mapping: Written, problems: Problems) -> Layer:
    """The fields of a mapping. What `<<` merges in comes after the mapping's own fields."""
    layer: Layer = {}
    merged: list[Written] = []
    for key, (name, value) in zip(mapping.keys, mapping.pairs, strict=True):
        if isinstance(key.value, tuple | dict):
            problems.add(key.position, "a field's name must be a word, not a list or a mapping.")
        elif name == "<<" and not key.style:
            merged += _merged_mappings(value, problems)
        elif name == NAMES_SCHEMA:
            pass
        elif name in _PROMPTS and _is_lost(name, value, problems):
            # Empty text instead: that it is missing, too, needs no second message.
            put(layer, name, Written("", value.position, "''", value.key), problems)
        else:
            put(layer, name, value, problems)
    _forgive_missing_prompt(mapping, layer)
    for other in merged:
        layer = layer_of(other, problems) | layer
    return layer


def _forgive_missing_prompt(mapping: Written, layer: Layer) -> None:
    """A misspelt prompt is reported as such; that it is missing, too, needs no second message."""
    for name, value in mapping.pairs[:_MAX_COMPARED]:
        if name not in FIRST_NAME_OF and closest(name, FIRST_NAME_OF) == "prompt":
            layer.setdefault("prompt", Written("", value.position, "''", value.key))


def start_of(mapping: Written) -> Position:
    """The first field, as wide as its name: where to point for what is missing."""
    return mapping.keys[0].position if mapping.keys else mapping.position


def _is_nothing(node: Written) -> bool:
    return node.style == "" and node.value is None


def _merged_mappings(value: Written, problems: Problems) -> Iterator[Written]:
    for element in elements_of(value):
        if isinstance(element.value, dict):
            yield element
        else:
            problems.add(element.position, "<< takes a mapping, like <<: *name.")


def _is_lost(name: str, value: Written, problems: Problems) -> bool:
    """Whether YAML lost a part of a prompt that is written there; nobody would see it.

    What follows ` #` is a comment to YAML, and a block of text that is not indented is
    an empty one.
    """
    if value.style in ("|", ">") and not value.text.strip():
        problems.add(
            value.position,
            f"{name} is empty: the lines of the text below {value.style} must be indented.",
        )
        return True
    return value.style == "" and _is_cut_off(name, value, problems)


def _is_cut_off(name: str, value: Written, problems: Problems) -> bool:
    last_line = value.raw.rpartition("\n")[2]
    line = value.position.line + value.raw.count("\n")
    end = len(last_line) + (value.position.column - 1 if line == value.position.line else 0)
    # A piece is enough for an error, and a line may be a megabyte with thousands of scalars.
    after = value.position.source.line(line)[end : end + _MAX_AFTER]
    comment = after.strip()
    if not comment.startswith("#"):
        return False
    at = end + 1 + len(after) - len(after.lstrip())
    whole = " ".join(f"{value.text}{after}".split())
    understood = f"'{shown(value.text)}'" if value.text else "empty"
    problems.add(
        replace(value.position, line=line, column=at, width=len(comment)),
        f"YAML reads everything from this # on as a comment: {name} would be {understood}. "
        f"If it belongs to the text, write {name}: {shown(quoted(whole), 200)}; "
        "if it is a comment, give it a line of its own.",
    )
    return True


def _tight_fields(node: Written, source: Source) -> Iterator[tuple[Position, str]]:
    """Lines like `prompt:a corgi`, if text begins with one: YAML takes them for one text."""
    if node.style != "":
        return
    first = node.position.line
    for number in range(first, first + node.raw.count("\n") + 1):
        field = re.match(r"\s*(?:- +)*(?P<name>\w+):(?P<value>[^\s/].*)", source.line(number))
        if field and field["name"] in FIRST_NAME_OF:
            position = Position(source, number, field.end("name") + 1)
            yield position, f"{field['name']}: {shown(field['value'].rstrip(), 200)}"
        elif number == first:
            return


def _no_recipe(node: Written, source: Source, in_list: bool) -> str:
    if isinstance(node.value, tuple):
        return "a list in a list is not a recipe. Begin each recipe with '- prompt: …'."
    text = shown(node.raw.strip().partition("\n")[0])
    equals = re.match(r"(?P<name>\w+)\s*(?P<sign>=|\N{FULLWIDTH COLON})\s*(?P<value>\S.*)", text)
    if equals and equals["name"] in FIRST_NAME_OF:
        field = f"{equals['name']}: {equals['value']}"
        if equals["sign"] != "=":
            return wide_colon(field)
        return f"a field is written with a colon and a space: '{field}'."
    if without := without_colon(text):
        return without[1]
    name = source.name.rpartition("/")[2].rpartition(".")[0]
    if field := first_flag(node.raw)[1]:
        prompt = shown(re.split(r"\s--", node.raw.strip(), maxsplit=1)[0])
        remedy = f"Rename the file to {name}.txt, or write each flag as a field: '{field}'."
        if in_list:
            remedy = f"Write '- prompt: {prompt}', and below it each flag as a field: '  {field}'."
        return f"this is a prompt with flags, as a .txt file has them. {remedy}"
    if in_list and not text:
        return "this element of the list is empty. Write '- prompt: …', or delete it."
    if in_list:
        return f"'{text}' is not a recipe. Begin each recipe with '- prompt: …'."
    return (
        f"this is text, not a recipe. Write 'prompt: {text}', or rename the file to "
        f"{name}.txt: there each line is a prompt."
    )


def first_flag(text: str) -> tuple[str, str]:
    """The first flag of a prompt, as in a TXT, and as a field; both "" without any."""
    for flag in re.finditer(r"(?<=\s)--(?P<name>[A-Za-z][\w-]*)[ =]+(?P<value>[^\s\"']+)", text):
        name = flag["name"].replace("-", "_")
        if name in FIRST_NAME_OF:
            return flag[0], f"{name}: {shown(flag['value'])}"
    return "", ""
