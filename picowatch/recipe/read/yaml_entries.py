"""The entries of a YAML or JSON recipe, of a `_defaults.yaml`, and of a TXT's settings."""

from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.read import names
from picowatch.recipe.read.nodes import compose, compose_json, nearly_field
from picowatch.recipe.written import Entry, Layer, Position, Source, SourceValue


def yaml_entries(source: Source, problems: Problems) -> list[Entry]:
    """Return a YAML file's recipes: mappings, alone, in lists or in several documents."""
    documents = compose(source, problems)
    return [entry for document in documents for entry in _entries_of(document, problems)]


def json_entries(source: Source, problems: Problems) -> list[Entry]:
    """Return a JSON file's recipes. RecipeInvalid if it is not JSON or beyond the limits."""
    document = compose_json(source)
    value = document.value if isinstance(document.value, dict) else {}
    # ComfyUI's API maps numbers to nodes, perhaps below "prompt"; its editor has a list of them.
    prompt = value.get("prompt")
    nodes = (value, *(prompt if isinstance(prompt, dict) else value).values())
    is_listed = isinstance(value.get("nodes"), tuple)
    if is_listed or any(isinstance(node, dict) and "class_type" in node for node in nodes):
        what = "this is a workflow of ComfyUI, which picowatch cannot run. To start from a picture"
        remedy = 'that it made, save the picture beside a recipe {"from": "picture.png"}.'
        problems.add(_start_of(document), f"{what} {remedy}")
        return []
    return _entries_of(document, problems)


def _entries_of(document: SourceValue, problems: Problems) -> list[Entry]:
    entries = []
    for element in document.parts if isinstance(document.value, tuple) else (document,):
        if isinstance(element.value, dict):
            entries.append(Entry(_layer_of(element, problems), _start_of(element)))
        elif element.value is not None or element is not document:
            _refuse(element, problems)
    return entries


def yaml_layer(source: Source, problems: Problems) -> Layer:
    """Return the one mapping of a `_defaults.yaml` or of a TXT's settings; {} without a mapping."""
    documents = [node for node in compose(source, problems) if node.value is not None]
    for node in documents[1:]:
        problems.add(node.position, "settings are one mapping; this is a second document.")
    if not documents:
        return {}
    if isinstance(documents[0].value, dict):
        return _layer_of(documents[0], problems)
    problems.add(documents[0].position, "settings are lines like 'steps: 30', one per line.")
    return {}


def _layer_of(mapping: SourceValue, problems: Problems) -> Layer:
    layer: Layer = {}
    for name, value in mapping.pairs:
        if name == "$schema":  # no field: editors look there for the schema, above all in JSON
            continue
        if field := names.field_called(name, value.text):
            names.add(layer, field, name, value, problems)
        else:
            problems.add(value.name_position, names.unknown(name, value.text))
            names.excuse_prompt(layer, name, value)
    names.check_notes(layer, problems)
    return layer


def _start_of(mapping: SourceValue) -> Position:
    """Return the position of the first field's name, to point at for missing fields."""
    return mapping.pairs[0][1].name_position if mapping.pairs else mapping.position


def _refuse(node: SourceValue, problems: Problems) -> None:
    """Report text that is not a mapping: lines that are almost fields, or anything else."""
    source, line = node.position.source, node.position.line
    while found := nearly_field(source.line(line)):
        problems.add(Position(source, line, found[0]), found[1])
        line += 1
    if line > node.position.line:
        return
    name = source.name.rpartition("/")[2].rpartition(".")[0]
    text = shown(node.position.text) if node.text else '"…"'
    instead = f"'prompt: {text}'"
    other = f", or rename the file to {name}.txt: there each line is a prompt"
    if source.name.lower().endswith(".json"):
        instead, other = f'{{"prompt": {text}}}', ""
    problems.add(node.position, f"this is not a recipe. Write {instead}{other}.")
