"""What a family of diffusers' pipelines says of itself; the adapter in loaded.py does the rest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from picowatch.recipe.request import ImageRequest

# What a pipeline takes in place of one prompt, by its names: tensors with one row, or lists of one.
Encoded = Mapping[str, torch.Tensor | list[torch.Tensor]]
# A pipeline's parts by their names.
Components = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family.

    The pipelines draw from text, from a start image, and from a start image with a mask; None
    where diffusers has none: then a start image alone gets a white mask. `from_text` encodes
    prompts, too. `encode` gives one prompt as embeddings, by the names that a pipeline takes them
    under; those of a negative prompt have "negative_" before them. `guidance` is what a request
    means for the pipeline. `tokenizer` is the part that counts a prompt's tokens, of which the
    text encoder reads `most_tokens`.
    """

    from_text: Any
    from_image: Any = None
    from_mask: Any = None
    encode: Callable[[Any, str], Encoded]
    guidance: Callable[[ImageRequest], dict[str, Any]]
    tokenizer: str = "tokenizer"
    most_tokens: int = 512
