"""Loads the checkpoints of flow families."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch

from picowatch.catalog import Model
from picowatch.catalog.models import Part
from picowatch.catalog.transformer_files import part_of, parts_of
from picowatch.engine.devices import Target
from picowatch.engine.models.parts import FindFile
from picowatch.engine.models.weights import drop_weights, take_weights
from picowatch.engine.pipelines.families import rules_of
from picowatch.engine.pipelines.folder import open_part, read_part
from picowatch.engine.pipelines.loaded import Interruption, LoadedPipeline
from picowatch.engine.pipelines.part_files import read_part_file
from picowatch.engine.pipelines.transformer import read_transformer
from picowatch.engine.unet.loras import Loras

FindAgain = Callable[[], AbstractContextManager[Model]]
_CPU = torch.device("cpu")


def load(
    model: Model, target: Target, read_to: Target, find_file: FindFile, again: FindAgain
) -> LoadedPipeline:
    """All of a checkpoint but its VAE; see `sd1.load`.

    If the transformer is read to "meta", it waits in its files until the prompts are encoded.
    `again` verifies the checkpoint for reading parts of it once more.
    """
    dtype, encoders_to = target.flow_dtype, _with_room(target, read_to)
    components = {
        part.name: _read(part, dtype, encoders_to)
        for part in parts_of(model)
        if part.name not in ("vae", "transformer")
    }
    components["transformer"] = transformer = _transformer(model, dtype, read_to.device)
    encoders = [part for name, part in components.items() if name.startswith("text_encoder")]

    def read_again(name: str) -> None:
        with again() as found:
            part = part_of(found, name)
            fresh = _open(found, part, dtype)
            mapped = target.device.type == "cpu" and not part.weights
            take_weights(components[name], fresh.to(target.device), copy=mapped)

    return LoadedPipeline(
        family=model.family,
        rules=rules_of(model.family, model.variant),
        components=components,
        loras=Loras(
            model.family,
            transformer,
            encoders,
            lambda use: find_file("lora", use.name, use.hash),
            target.device,
        ),
        native_size=model.native_size,
        interruption=Interruption(transformer, *encoders),
        read_part=read_again,
    )


def load_vae(checkpoint: Model, vae: Model, target: Target, read_to: Target) -> Any:
    """The VAE of a checkpoint, or another one for it.

    A file does not say what its latents are scaled by: the config is that of the checkpoint's own.
    """
    part = part_of(checkpoint, "vae")
    if vae.kind == "vae" and vae.layout == "file":
        part = replace(part, weights=vae.path, prefix="")
    elif vae.kind == "vae":
        part = replace(part, folder=vae.path, weights=None)
    return _read(part, target.flow_dtype, _with_room(target, read_to))


def _read(part: Part, dtype: torch.dtype, device: torch.device) -> Any:
    """Any part but the transformer, its weights on `device`."""
    return read_part_file(part, dtype, device) if part.weights else read_part(part, dtype, device)


def _open(model: Model, part: Part, dtype: torch.dtype) -> Any:
    """Any part in main memory, where its weights may be parts of files."""
    if not part.weights:
        return open_part(part, dtype)
    if part.name == "transformer":
        return read_transformer(model, dtype, _CPU)
    return read_part_file(part, dtype, _CPU)


def _transformer(model: Model, dtype: torch.dtype, device: torch.device) -> Any:
    if device.type != "meta":
        return read_transformer(model, dtype, device)
    found = _open(model, part_of(model, "transformer"), dtype)
    drop_weights(found)
    return found


def _with_room(target: Target, read_to: Target) -> torch.device:
    """Where parts are read to that do not wait in their files."""
    return target.device if read_to.device.type == "meta" else read_to.device
