"""The entries of a JSON recipe: an object is one, a list of them are several."""

import json

from picowatch.recipe.messages.problems import Problems
from picowatch.recipe.read.no_prompts import is_comfyui_workflow
from picowatch.recipe.read.nodes import compose_json
from picowatch.recipe.read.yaml_entries import entries_of, start_of
from picowatch.recipe.written import Entry, Source


def json_entries(source: Source, problems: Problems) -> list[Entry]:
    """The recipes of a file. Raises RecipeInvalid where it is not JSON, or beyond the limits."""
    document = compose_json(source)
    if is_comfyui_workflow(json.loads(source.text, parse_int=str)):
        problems.add(
            start_of(document),
            "this is a workflow of ComfyUI, which picowatch cannot run. To start from a picture "
            'that it made, save the picture beside a recipe {"from": "picture.png"}.',
        )
        return []
    return entries_of(document, problems)
