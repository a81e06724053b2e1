"""What a family of diffusers' pipelines says of itself.

Apart from families.py, because every start of an engine needs this, and few any pipeline.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from picowatch.recipe.request import ImageRequest

# What a pipeline takes in place of one prompt, by its names: tensors with one row, or lists of one.
Encoded = Mapping[str, torch.Tensor | list[torch.Tensor]]
# A pipeline's parts by their names.
Components = Mapping[str, Any]
# How many tokens a prompt has, and how many of them the text encoder reads.
Length = tuple[int, int]
Encode = Callable[[Any, str], Encoded]
Guidance = Callable[[ImageRequest], dict[str, Any]]
CountTokens = Callable[[Components, str], Length]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family.

    The pipelines draw from text, from a start image, and from a start image with a mask; None
    where diffusers has none: then a start image alone gets a white mask. `from_text` encodes
    prompts, too. `encode` gives one prompt as embeddings, by the names that a pipeline takes them
    under; those of a negative prompt have "negative_" before them. `guidance` is what a request
    means for the pipeline. `length` counts a prompt's tokens. `preamble` stands before each prompt,
    but not before negative ones. `optional` parts are None for the pipeline where a folder lacks
    them, `options` are what else it is made with.
    """

    from_text: Any
    from_image: Any = None
    from_mask: Any = None
    encode: Encode
    guidance: Guidance
    length: CountTokens
    preamble: str = ""
    optional: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
