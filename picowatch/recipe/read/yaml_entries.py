"""The entries of a YAML recipe, of a `_defaults.yaml`, and of a TXT's settings."""

import re
from collections.abc import Iterator
from dataclasses import replace

from picowatch.recipe.fields import FIRST_NAME_OF
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import closest
from picowatch.recipe.read.nodes import Mapping, Node, Scalar, Sequence, compose
from picowatch.recipe.read.plain import plain_value
from picowatch.recipe.read.yaml_errors import quoted, wide_colon
from picowatch.recipe.resolve.layers import put
from picowatch.recipe.written import Entry, Layer, Position, Source, Written

# A recipe has fewer fields, and to compare each of a hostile file's takes long.
_MAX_COMPARED = 100
# Not a field: editors look there for the names of fields, above all in JSON.
NAMES_SCHEMA = "$schema"
_PROMPTS = ("prompt", "negative_prompt", "negative")


def yaml_entries(source: Source, problems: Problems) -> list[Entry]:
    """The recipes of a YAML file: a mapping each, alone, in lists or in several documents."""
    entries = []
    for document in compose(source, problems):
        elements = document.elements if isinstance(document, Sequence) else (document,)
        for element in elements:
            if isinstance(element, Mapping):
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
    if isinstance(documents[0], Mapping):
        return layer_of(documents[0], problems)
    problems.add(documents[0].position, "settings are lines like 'steps: 30', one per line.")
    return {}


def layer_of(mapping: Mapping, problems: Problems) -> Layer:
    """The fields of a mapping. What `<<` merges in comes after the mapping's own fields."""
    layer: Layer = {}
    merged: list[Mapping] = []
    for key, value in mapping.pairs:
        if not isinstance(key, Scalar):
            problems.add(key.position, "a field's name must be a word, not a list or a mapping.")
        elif key.text == "<<" and not key.style:
            merged += _merged_mappings(value, problems)
        elif key.text == NAMES_SCHEMA:
            pass
        elif key.text in _PROMPTS and _is_lost(key, value, problems):
            # Empty text instead: that it is missing, too, needs no second message.
            put(layer, key.text, Written("", value.position, "''", key.position), problems)
        else:
            put(layer, key.text, written(value, key.position), problems)
    _forgive_missing_prompt(mapping, layer)
    for other in merged:
        layer = layer_of(other, problems) | layer
    return layer


def _forgive_missing_prompt(mapping: Mapping, layer: Layer) -> None:
    """A misspelt prompt is reported as such; that it is missing, too, needs no second message."""
    for key, value in mapping.pairs[:_MAX_COMPARED]:
        if not isinstance(key, Scalar) or key.text in FIRST_NAME_OF:
            continue
        if closest(key.text, FIRST_NAME_OF) == "prompt":
            layer.setdefault("prompt", Written("", value.position, "''", key.position))


def written(node: Node, key: Position | None = None) -> Written:
    """The value of a node, with its position."""
    if isinstance(node, Sequence):
        parts = tuple(written(element) for element in node.elements)
        value: object = tuple(part.value for part in parts)
        return Written(value, node.position, node.raw.strip(), key, parts, yaml_plain=True)
    if isinstance(node, Mapping):
        pairs = tuple((_name(name), written(value, name.position)) for name, value in node.pairs)
        values = {name: pair.value for name, pair in pairs}
        return Written(values, node.position, node.raw.strip(), key, pairs=pairs, yaml_plain=True)
    if not isinstance(node, Scalar):
        return Written({}, node.position, node.raw.strip(), key, yaml_plain=True)
    if not node.style:
        return Written(plain_value(node.text), node.position, node.raw, key, yaml_plain=True)
    # A block's last line break is how blocks are written, not part of what is meant.
    text = node.text.removesuffix("\n") if node.style in "|>" else node.text
    return Written(text, node.position, node.raw, key)


def _name(key: Node) -> str:
    return key.text if isinstance(key, Scalar) else key.raw.strip()


def start_of(mapping: Mapping) -> Position:
    """The first field, as wide as its name: where to point for what is missing."""
    return mapping.pairs[0][0].position if mapping.pairs else mapping.position


def _is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and not node.style and plain_value(node.text) is None


def _merged_mappings(value: Node, problems: Problems) -> Iterator[Mapping]:
    elements = value.elements if isinstance(value, Sequence) else (value,)
    for element in elements:
        if isinstance(element, Mapping):
            yield element
        else:
            problems.add(element.position, "<< takes a mapping, like <<: *name.")


def _is_lost(key: Scalar, value: Node, problems: Problems) -> bool:
    """Whether YAML lost a part of a prompt that is written there; nobody would see it.

    What follows ` #` is a comment to YAML, and a block of text that is not indented is
    an empty one.
    """
    if not isinstance(value, Scalar):
        return False
    if value.style in ("|", ">") and not value.text.strip():
        problems.add(
            value.position,
            f"{key.text} is empty: the lines of the text below {value.style} must be indented.",
        )
        return True
    if value.style or not value.after.lstrip().startswith("#"):
        return False
    _refuse_cut_off(key, value, problems)
    return True


def _refuse_cut_off(key: Scalar, value: Scalar, problems: Problems) -> None:
    comment = value.after.strip()
    last_line = value.raw.rpartition("\n")[2]
    line = value.position.line + value.raw.count("\n")
    ends = len(last_line) + (value.position.column if line == value.position.line else 1)
    at = ends + len(value.after) - len(value.after.lstrip())
    whole = " ".join(f"{value.text}{value.after}".split())
    understood = f"'{shown(value.text)}'" if value.text else "empty"
    problems.add(
        replace(value.position, line=line, column=at, width=len(comment)),
        f"YAML reads everything from this # on as a comment: {key.text} would be {understood}. "
        f"If it belongs to the text, write {key.text}: {shown(quoted(whole), 200)}; "
        "if it is a comment, give it a line of its own.",
    )


def _tight_fields(node: Node, source: Source) -> Iterator[tuple[Position, str]]:
    """Lines like `prompt:a corgi`, if text begins with one: YAML takes them for one text."""
    if not isinstance(node, Scalar) or node.style:
        return
    first = node.position.line
    for number in range(first, first + node.raw.count("\n") + 1):
        field = re.match(r"\s*(?:- +)*(?P<name>\w+):(?P<value>[^\s/].*)", source.line(number))
        if field and field["name"] in FIRST_NAME_OF:
            position = Position(source, number, field.end("name") + 1)
            yield position, f"{field['name']}: {shown(field['value'].rstrip(), 200)}"
        elif number == first:
            return


def _no_recipe(node: Node, source: Source, in_list: bool) -> str:
    if isinstance(node, Sequence):
        return "a list in a list is not a recipe. Begin each recipe with '- prompt: …'."
    text = shown(node.raw.strip().partition("\n")[0])
    equals = re.match(r"(?P<name>\w+)\s*(?P<sign>=|\N{FULLWIDTH COLON})\s*(?P<value>\S.*)", text)
    if equals and equals["name"] in FIRST_NAME_OF:
        field = f"{equals['name']}: {equals['value']}"
        if equals["sign"] != "=":
            return wide_colon(field)
        return f"a field is written with a colon and a space: '{field}'."
    name = source.name.rpartition("/")[2].rpartition(".")[0]
    if field := _first_flag(node.raw):
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


def _first_flag(text: str) -> str:
    """The first flag of a prompt, as in a TXT, as a field; "" without any."""
    for flag in re.finditer(r"(?<=\s)--(?P<name>[A-Za-z][\w-]*)[ =]+(?P<value>[^\s\"']+)", text):
        name = flag["name"].replace("-", "_")
        if name in FIRST_NAME_OF:
            return f"{name}: {shown(flag['value'])}"
    return ""
