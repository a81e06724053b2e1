"""Folders of modular pipelines as they are published, and a plain script that reads one."""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from picowatch.engine.model.load import read_processor
from picowatch.engine.private import pad_without_torchvision

_D: Any = diffusers
INDEX = "modular_model_index.json"


def write_modular(folder: Path, pipeline: str, hub: str, parts: Mapping[str, Any]) -> None:
    """Write an index whose parts name a repository, and the parts beside it.

    diffusers finds them all the same (modular_pipeline.py, _is_local_component).
    """
    index: dict[str, Any] = {
        "_class_name": pipeline,
        "_blocks_class_name": getattr(_D, pipeline).default_blocks_name,
        "_diffusers_version": diffusers.__version__,
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        kind = type(part).__name__
        # One that is made without torchvision has another class.
        kind = "Qwen3VLProcessor" if kind == "Processor" else kind
        hint = ["transformers" if hasattr(transformers, kind) else "diffusers", kind]
        source = {"pretrained_model_name_or_path": hub, "subfolder": name, "type_hint": hint}
        index[name] = [None, None, {"revision": None, "variant": None} | source]
    (folder / INDEX).write_text(json.dumps(index))


def scripted_modular(folder: Path) -> Any:
    pad_without_torchvision()
    index = json.loads((folder / INDEX).read_text())
    own = getattr(_D, index["_class_name"])
    blocks = getattr(_D, index["_blocks_class_name"])()
    blocks.sub_blocks.pop("prompt_upsampler", None)
    pipeline = own(blocks=blocks)
    parts = {}
    for name, (_, _, source) in ((one, two) for one, two in index.items() if one[0] != "_"):
        library, kind = source["type_hint"]
        if kind.endswith("VLProcessor"):
            parts[name] = read_processor(folder / name, kind)
            continue
        found = getattr(import_module(library), kind)
        parts[name] = found.from_pretrained(folder / name, local_files_only=True)
    pipeline.update_components(**parts)
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipeline


def called_modular(pipeline: Any, values: dict[str, Any]) -> Any:
    """Return the images; `guidance_scale` and its limits become a guider."""
    given = {
        name: values.pop(f"guidance_{name}")
        for name in _GUIDER & {name.removeprefix("guidance_") for name in values}
    }
    if given and "guider" in pipeline.component_names:
        own = {"rescale": "guidance_rescale", "scale": "guidance_scale"}
        named = {own.get(name, name): value for name, value in given.items()}
        pipeline.update_components(guider=_D.ClassifierFreeGuidance(**named))
    return pipeline(**values, output="images")


_GUIDER = {"scale", "rescale", "start", "stop"}
