"""Metadata of pictures: image request to A1111's text, picowatch's JSON and YAML, and back."""

from picowatch.metadata.a1111 import parameters_text
from picowatch.metadata.chunk import Chunk, escaped_json, picowatch_json, read_chunk
from picowatch.metadata.png import PARAMETERS, PICOWATCH, found_in_png
from picowatch.metadata.recipe_yaml import recipe_yaml

__all__ = [
    "PARAMETERS",
    "PICOWATCH",
    "Chunk",
    "escaped_json",
    "found_in_png",
    "parameters_text",
    "picowatch_json",
    "read_chunk",
    "recipe_yaml",
]
