"""The code of families for diffusers' pipelines, beside their rows in `picowatch.families`.

Modular pipelines are called as classic pipelines here. diffusers composes them of blocks. The block
that reads prompts is a pipeline of its own, so that texts are encoded before the first step, and
the other blocks are the pipeline that draws. Both get parts that are loaded already.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from inspect import signature
from typing import Any

import diffusers

from picowatch.families.row import GUIDER, Family, Variant
from picowatch.recipe.passes import is_guided
from picowatch.recipe.prompts.grammar import plain_prompt, without_weights
from picowatch.recipe.request import ImageRequest

# Otherwise it logs a line for what the engine leaves out on purpose.
diffusers.logging.set_verbosity_error()
# It logs the traceback of each block around that which raised, also where a batch is to end.
logging.getLogger("diffusers.modular_pipelines.modular_pipeline").setLevel(logging.CRITICAL)

_BEFORE_TAG = re.compile(r"\s+(?=<lora:)")
_READS = "text_encoder"  # the block that reads prompts
_D: Any = diffusers


class Modular:
    """A modular pipeline that is called as a classic pipeline, the base of `adapted` classes.

    It is created from all `parts` of its blocks, of which text encoders may be None while they are
    not in memory. TypeError names a part that is missing or an argument that no block takes:
    diffusers would draw without.
    """

    component_names: Sequence[str]
    default_blocks_name: str
    _drawn: Any  # diffusers' own class

    def __init__(self, **parts: Any) -> None:
        blocks = getattr(_D, self.default_blocks_name)()
        blocks.sub_blocks.pop("prompt_upsampler", None)  # a language model that rewrites prompts
        self._reading_blocks = blocks.sub_blocks.pop(_READS)
        for loop in _loops(blocks):
            loop.set_progress_bar_config(disable=True)
        super().__init__(blocks=blocks)  # type: ignore[call-arg]
        self._parts = parts
        self._names = {parameter.name for parameter in blocks.inputs}
        self._names |= {output.name for output in self._reading_blocks.intermediate_outputs}
        _give(self, parts)

    @cached_property
    def _reader(self) -> Any:
        """The pipeline that reads prompts."""
        reader = self._drawn(blocks=self._reading_blocks)
        _give(reader, self._parts)
        return reader

    def encode_prompt(self, prompt: str | list[str], **named: Any) -> dict[str, Any]:
        """Return what the text encoder's block makes of a prompt, by the names of its outputs."""
        text = prompt if isinstance(prompt, str) else prompt[0]
        outputs = [output.name for output in self._reading_blocks.intermediate_outputs]
        if "guider" in self._reader.component_names:  # it would encode a negative prompt, too
            self._reader.guider = _D.ClassifierFreeGuidance(guidance_scale=1.0)
        found = self._reader(prompt=text, output=outputs, **named)
        return {name: value for name, value in found.items() if value is not None}

    def __call__(
        self,
        *,
        prompt: list[str] | None = None,
        negative_prompt: list[str] | None = None,
        guider: Any = None,
        return_dict: bool = False,
        **named: Any,
    ) -> tuple[Any]:
        """Draw, with embeddings or prompts."""
        for prefix, text in (("", prompt), ("negative_", negative_prompt)):
            if text is not None:
                found = self.encode_prompt(prompt=text)
                named |= {f"{prefix}{name}": value for name, value in found.items()}
        if unknown := named.keys() - self._names:
            raise TypeError(f"{type(self).__name__} takes no {min(unknown)}")
        if "guider" in self.component_names:
            self.guider = guider
        drawn: Any = super()
        return (drawn.__call__(output="images", **named),)


def _loops(block: Any) -> Iterator[Any]:
    """Yield the denoising loops: a pipeline's own setting for bars reaches only outer blocks."""
    if hasattr(block, "loop_step"):
        yield block
    for inner in getattr(block, "sub_blocks", {}).values():
        yield from _loops(inner)


def _give(pipeline: Any, parts: Mapping[str, Any]) -> None:
    """Give a pipeline its parts: `update_components` takes no wrappers of modules."""
    if missing := {*pipeline.null_component_names} - parts.keys():
        raise TypeError(f"{type(pipeline).__name__} needs a {min(missing)}")
    for name in {*pipeline.component_names} & parts.keys():
        setattr(pipeline, name, parts[name])


@cache
def adapted(kind: Any) -> Any:
    """Return the class that is called as a classic pipeline, for a class of modular pipelines."""
    return type(kind.__name__, (Modular, kind), {"_drawn": kind})


def guider_for(request: ImageRequest, steps: int) -> Any:
    """Return the guidance of a run of so many steps."""
    guided = [step for step in range(steps) if is_guided(request, step / steps)]
    if not guided:
        return _D.ClassifierFreeGuidance(guidance_scale=1.0)
    # In the middle of a step, because diffusers rounds shares of the steps down.
    return _D.ClassifierFreeGuidance(
        guidance_scale=request.cfg_scale,
        guidance_rescale=request.cfg_rescale,
        start=(guided[0] + 0.5) / steps if guided[0] else 0.0,
        stop=min(1.0, (guided[-1] + 1.5) / steps),
    )


def words(prompt: str) -> str:
    """Return a prompt without weights and tags; unlike CLIP, T5 reads the space around tags."""
    return without_weights(plain_prompt(_BEFORE_TAG.sub("", prompt))).strip()


def pipeline_class(row: Family, variant: Variant, kind: str) -> Any:
    """Return diffusers' pipeline class for "text", "image", "mask" or "edit"; or None."""
    name: str = getattr(variant.pipelines, kind)
    if not name:
        return None
    own = getattr(diffusers, name)
    return adapted(own) if row.modular else own


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


def built(row: Family, variant: Variant, kind: str, parts: Mapping[str, Any]) -> Any:
    """Return a diffusers pipeline of these parts, which is cheap to create."""
    cls = pipeline_class(row, variant, kind)
    if row.modular:
        return cls(**parts)
    # None for safety checkers, and for parts that a folder may lack.
    arguments = signature(cls).parameters.items()
    given = {name: None for name, own in arguments if own.default is own.empty} | dict(parts)
    if row.key == "chroma" and kind == "mask":
        # diffusers 0.42 asks for a setting of FLUX.1 that Chroma's configs do not have.
        given["transformer"].register_to_config(guidance_embeds=False)
    pipeline = cls(**given, **variant.options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
