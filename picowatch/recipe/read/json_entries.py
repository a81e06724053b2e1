"""The entries of a JSON recipe: an object is one, a list of them are several."""

import json

from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.read.command_lines import is_comfyui_workflow
from picowatch.recipe.read.json_nodes import compose_json
from picowatch.recipe.read.nodes import Mapping, Sequence
from picowatch.recipe.read.yaml_entries import layer_of, start_of
from picowatch.recipe.written import Entry, Source


def json_entries(source: Source, problems: Problems) -> list[Entry]:
    """The recipes of a JSON file. Raises RecipeInvalid where it is not JSON."""
    document = compose_json(source)
    if is_comfyui_workflow(json.loads(source.text, parse_int=str)):
        problems.add(
            start_of(document) if isinstance(document, Mapping) else document.position,
            "this is a workflow of ComfyUI, which picowatch cannot run. To start from a picture "
            'that it made, save the picture beside a recipe {"from": "picture.png"}.',
        )
        return []
    entries = []
    for element in document.elements if isinstance(document, Sequence) else (document,):
        if isinstance(element, Mapping):
            entries.append(Entry(layer_of(element, problems), start_of(element)))
        else:
            text = shown(element.raw.partition("\n")[0])
            message = f'{text} is not a recipe. A recipe is like {{"prompt": "a corgi"}}.'
            problems.add(element.position, message)
    return entries
