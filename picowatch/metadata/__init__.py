"""Metadata of pictures: image requests as A1111's text, picowatch's JSON and YAML, and back."""

from picowatch.metadata.chunk import Chunk, chunk_of, escaped_json, picowatch_json, read_chunk
from picowatch.metadata.embedded_text import PARAMETERS, PICOWATCH, read_texts, texts_in
from picowatch.metadata.recipe_yaml import differing_fields, others_yaml, recipe_yaml
from picowatch.recipe.a1111.writer import parameters_text, without_postprocessing

__all__ = [
    "PARAMETERS",
    "PICOWATCH",
    "Chunk",
    "chunk_of",
    "differing_fields",
    "escaped_json",
    "others_yaml",
    "parameters_text",
    "picowatch_json",
    "read_chunk",
    "read_texts",
    "recipe_yaml",
    "texts_in",
    "without_postprocessing",
]
