"""Metadata of pictures: image request to A1111's text, picowatch's JSON and YAML, and back."""

from picowatch.metadata.a1111 import parameters_text
from picowatch.metadata.chunk import Chunk, picowatch_json, read_chunk
from picowatch.metadata.png import PARAMETERS, PICOWATCH, PngText, png_texts
from picowatch.metadata.recipe_yaml import recipe_yaml

__all__ = [
    "PARAMETERS",
    "PICOWATCH",
    "Chunk",
    "PngText",
    "parameters_text",
    "picowatch_json",
    "png_texts",
    "read_chunk",
    "recipe_yaml",
]
