"""Rows for pipelines of diffusers that have none of their own, made from their signatures.

diffusers' source is parsed, not imported: that would take seconds, and only the engine needs torch.
"""

import ast
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from inspect import Parameter
from pathlib import Path
from typing import Any

from picowatch.errors import ModelRefused
from picowatch.families import row

_NEEDED = ("prompt", "num_inference_steps", "generator", "height", "width")
_NEEDED_PARTS = ("transformer", "vae", "scheduler")
# Inputs of pipelines for something else than a picture from words and pictures, and of GLM-Image's,
# whose language model draws a whole batch from one seed.
_OTHERS = (
    *("num_frames", "audio_length_in_s", "audio_end_in_s", "control_image", "input_images"),
    *("image_embeds", "image_embeddings", "layers", "messages", "prior_token_ids"),
)
# Parts that are never loaded: what they do does not change what a picture shows.
_UNUSED = {"safety_checker", "feature_extractor", "watermarker"}
# The arguments that make a pipeline draw the size and read the words of a recipe.
_INPUTS = ("use_resolution_binning", "clean_caption", "enable_prompt_rewrite")
_LACKS = row.FLOW_LACKS | {
    "prediction": "its folder says what it predicts",
    "step_cache": "nobody tried it with this pipeline",
}
_USUAL_STEPS = 28
_CLASS = re.compile(r"\nclass (\w+)\(")
_Parameters = Mapping[str, Parameter]


@cache
def general_row(pipeline: str) -> row.Family:
    """Return the row of a pipeline by its signature. ModelRefused goes on after its name."""
    call, parts = signature(pipeline, "__call__"), signature(pipeline, "__init__")
    if call is None or parts is None:
        raise ModelRefused(f"{diffusers_here()} does not have this pipeline.")
    for need, has in ((_NEEDED, call), (_NEEDED_PARTS, parts)):
        if missing := [name for name in need if name not in has]:
            raise ModelRefused(f"it has no {missing[0]}.")
    required = {name for name, parameter in call.items() if parameter.default is parameter.empty}
    if others := sorted((required - {"prompt", "image"}) | (call.keys() & {*_OTHERS})):
        raise ModelRefused(f"it takes {others[0]}, which recipes do not have.")
    lacks, references = row.NO_PICTURES, None
    if "image" in call:
        reference = row.References(most=1, required="image" in required)
        references = row.LOOKS_AT_TEN if "list" in call["image"].annotation else reference
        lacks = row.ONLY_EDITS
    guidance, cfg_scale, embedded = _guided(call)
    lacks = lacks | ({} if embedded else row.NO_GUIDANCE)
    lacks = lacks | ({} if cfg_scale else row.BY_GUIDANCE | row.NO_NEGATIVE)
    steps = int(_number(call, "num_inference_steps")) or _USUAL_STEPS
    guided = {"guided": cfg_scale > 1, "references": references}
    return row.Family(
        key=pipeline,
        name=pipeline.removesuffix("Pipeline"),
        kind="general",
        pipelines=row.Pipelines(text=pipeline, edit=pipeline if references else ""),
        guidance=guidance,
        inputs=dict.fromkeys((argument for argument in _INPUTS if argument in call), False),
        size_multiple=32,  # for any VAE and transformer
        native_size=0 if "use_resolution_binning" in call else int(_number(call, "height")),
        samplers=row.FLOW_SAMPLERS if "FlowMatch" in parts["scheduler"].annotation else (row.DPM,),
        lacks=_LACKS | lacks,
        variants={"": row.flow_variant(steps, max(1.0, cfg_scale), embedded, **guided)},
        texts=row.Reading(encode="later", reads={}),
        parts={name: () for name in parts if name not in _UNUSED},
        optional=tuple(name for name, part in parts.items() if part.default is not part.empty),
    )


def _guided(call: _Parameters) -> tuple[row.Guidance, float, float]:
    """Return how a pipeline is guided, and the defaults of cfg_scale and guidance, 0 for none."""
    scale, true = _number(call, "guidance_scale"), _number(call, "true_cfg_scale")
    if true:
        return {**row.TRUE_CFG_SCALE, **(row.GUIDANCE if scale else {})}, true, scale
    if scale:
        is_cfg = "negative_prompt" in call  # otherwise it is an input of the model
        return (row.CFG_SCALE, scale, 0.0) if is_cfg else (row.GUIDANCE, 0.0, scale)
    distilled = _number(call, "distilled_guidance_scale")
    return {"distilled_guidance_scale": "guidance"} if distilled else {}, 0.0, distilled


def _number(call: _Parameters, name: str) -> float:
    """Return a parameter's default, 0 unless it is a number."""
    default = call[name].default if name in call else None
    return float(default) if isinstance(default, int | float) else 0.0


@cache
def signature(pipeline: str, method: str) -> _Parameters | None:
    """Return the parameters of a pipeline's method, or of its parents'; None if it is unknown.

    Defaults that are no literals are None, annotations are texts.
    """
    path = _sources().get(pipeline)
    nodes = ast.parse(path.read_text("utf-8")).body if path else []
    for own in (item for item in nodes if isinstance(item, ast.ClassDef) and item.name == pipeline):
        for node in own.body:
            if isinstance(node, ast.FunctionDef) and node.name == method:
                return _parameters(node.args)
        parents = (signature(ast.unparse(base), method) for base in own.bases)
        return next((parent for parent in parents if parent is not None), None)
    return None


@cache
def _sources() -> Mapping[str, Path]:
    """Return the modules of diffusers' pipelines by their classes; none if it is not installed."""
    found = find_spec("diffusers")
    folder = Path(found.origin).parent if found and found.origin else None
    paths = folder.glob("pipelines/*/pipeline_*.py") if folder else ()
    return {name: path for path in paths for name in _CLASS.findall(path.read_text("utf-8"))}


def _parameters(given: ast.arguments) -> _Parameters:
    """Return the parameters after `self`."""
    names = [*given.args[1:], *given.kwonlyargs]
    lacking = len(given.args[1:]) - len(given.defaults)
    defaults = [*[None] * lacking, *given.defaults, *given.kw_defaults]
    return {
        argument.arg: Parameter(
            argument.arg,
            Parameter.KEYWORD_ONLY,
            default=_literal(default) if default else Parameter.empty,
            annotation=ast.unparse(argument.annotation) if argument.annotation else "",
        )
        for argument, default in zip(names, defaults, strict=True)
    }


def _literal(node: ast.expr) -> Any:
    with suppress(ValueError):
        return ast.literal_eval(node)
    return None


def diffusers_here() -> str:
    return f"diffusers {version('diffusers')}" if _sources() else "diffusers, which is missing,"
