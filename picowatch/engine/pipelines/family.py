"""What a family of diffusers' pipelines says of itself; the adapter in loaded.py does the rest."""

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


def count_tokens(tokenizer: Any, text: str) -> int:
    """With the marks that the tokenizer adds."""
    return len(tokenizer(text)["input_ids"])


def read_by(tokenizer: str, most: int) -> Callable[[Components, str], Length]:
    """Of a text encoder that reads the prompt alone, up to a number of tokens."""
    return lambda components, prompt: (count_tokens(components[tokenizer], prompt), most)


def usual_guidance(request: ImageRequest) -> dict[str, Any]:
    """Where the pipeline's guidance_scale is what recipes call cfg_scale."""
    return {"guidance_scale": request.cfg_scale}


def guidance_without_binning(request: ImageRequest) -> dict[str, Any]:
    """For pipelines that draw in one of a few sizes and scale the picture to the requested one."""
    return usual_guidance(request) | {
        "negative_prompt": None,  # it is encoded
        "use_resolution_binning": False,
    }


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
    encode: Callable[[Any, str], Encoded]
    guidance: Callable[[ImageRequest], dict[str, Any]]
    length: Callable[[Components, str], Length]
    preamble: str = ""
    optional: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
