"""The code of families for diffusers' pipelines, beside their rows in `picowatch.families`."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from inspect import signature
from typing import Any

import diffusers

from picowatch.engine.model.modular import adapted, guider_for
from picowatch.families.row import GUIDER, Family, Variant
from picowatch.recipe.prompts.grammar import plain_prompt, without_weights
from picowatch.recipe.request import ImageRequest

# Otherwise it logs a line for what the engine leaves out on purpose.
diffusers.logging.set_verbosity_error()
_BEFORE_TAG = re.compile(r"\s+(?=<lora:)")


def words(prompt: str) -> str:
    """Return a prompt without weights and tags; unlike CLIP, T5 reads the space around tags."""
    return without_weights(plain_prompt(_BEFORE_TAG.sub("", prompt))).strip()


def pipeline_class(row: Family, variant: Variant, kind: str) -> Any:
    """Return diffusers' pipeline class for "text", "image", "mask" or "edit"; or None."""
    name: str = getattr(variant.pipelines or row.pipelines, kind)
    if not name:
        return None
    own = getattr(diffusers, name)
    return adapted(own) if row.modular else own


@cache
def takes(function: Callable[..., Any], argument: str) -> bool:
    """Return whether a function can be called with an argument of this name."""
    return argument in signature(function).parameters


def guidance_inputs(row: Family, request: ImageRequest, steps: int) -> dict[str, Any]:
    """Return a request's guidance as its family's pipelines take it, for a run of so many steps."""
    if row.guidance == GUIDER:
        return {"guider": guider_for(request, steps)}
    values = {field: getattr(request, field) for field in ("cfg_scale", "guidance")}
    values["cfg_scale - 1"] = request.cfg_scale - 1
    return {argument: values[field] for argument, field in row.guidance.items()}


@cache
def _required(pipeline: Any) -> frozenset[str]:
    """Return the required arguments of a pipeline's class."""
    arguments = signature(pipeline).parameters.values()
    return frozenset(argument.name for argument in arguments if argument.default is argument.empty)


def built(row: Family, variant: Variant, kind: str, parts: Mapping[str, Any]) -> Any:
    """Return a diffusers pipeline of these parts, which is cheap to create."""
    cls = pipeline_class(row, variant, kind)
    if row.modular:
        return cls(**parts)
    # None for safety checkers, and for parts that a folder may lack.
    given = {**dict.fromkeys(_required(cls) - parts.keys()), **parts}
    if row.key == "chroma" and kind == "mask":
        # diffusers 0.42 asks for a setting of FLUX.1 that Chroma's configs do not have.
        given["transformer"].register_to_config(guidance_embeds=False)
    pipeline = cls(**given, **variant.options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
