"""Loads the checkpoints of flow families."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
import transformers

from picowatch.catalog import Model, weight_files
from picowatch.catalog.folder_files import without_variant
from picowatch.catalog.headers import read_header
from picowatch.catalog.models import Part
from picowatch.catalog.transformer_files import part_of, parts_of
from picowatch.engine.devices import Target
from picowatch.engine.models.model_files import FindFile
from picowatch.engine.models.weights import drop_weights, take_weights
from picowatch.engine.pipelines.families import rules_of
from picowatch.engine.pipelines.loaded import Interruption, LoadedPipeline
from picowatch.engine.pipelines.part_files import read_part_file
from picowatch.engine.pipelines.samplers import scheduler_of
from picowatch.engine.pipelines.transformer import read_transformer
from picowatch.engine.unet.loras import Loras
from picowatch.errors import RenderFailed

FindAgain = Callable[[], AbstractContextManager[Model]]
_CPU = torch.device("cpu")
_OFFLINE: dict[str, Any] = {"local_files_only": True}


def load(
    model: Model, target: Target, read_to: Target, find_file: FindFile, again: FindAgain
) -> LoadedPipeline:
    """All of a checkpoint but its VAE; see `unets.load`.

    If the transformer is read to "meta", it waits in its files until the prompts are encoded.
    `again` verifies the checkpoint for reading parts of it once more.
    """
    dtype, encoders_to = target.flow_dtype, _with_room(target, read_to)
    components = {
        part.name: _read(model, part, dtype, encoders_to)
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
        loras=Loras(model.family, transformer, encoders, find_file, target.device),
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
    return _read(checkpoint, part, target.flow_dtype, _with_room(target, read_to))


def _read(model: Model, part: Part, dtype: torch.dtype, device: torch.device) -> Any:
    """A part of the checkpoint, its weights on `device`."""
    if not part.weights:
        return read_part(part, dtype, device)
    if part.name == "transformer":
        return read_transformer(model, part, dtype, device)
    return read_part_file(part, dtype, device)


def _open(model: Model, part: Part, dtype: torch.dtype) -> Any:
    """A part in main memory, where its weights may be parts of files."""
    return _read(model, part, dtype, _CPU) if part.weights else _open_part(part, dtype)


def _transformer(model: Model, dtype: torch.dtype, device: torch.device) -> Any:
    part = part_of(model, "transformer")
    if device.type != "meta":
        return _read(model, part, dtype, device)
    found = _open(model, part, dtype)
    drop_weights(found)
    return found


def _with_room(target: Target, read_to: Target) -> torch.device:
    """Where parts are read to that do not wait in their files."""
    return target.device if read_to.device.type == "meta" else read_to.device


def read_part(part: Part, dtype: torch.dtype, device: torch.device) -> Any:
    """A part of a diffusers folder: allowed classes, safetensors, no network."""
    found = _open_part(part, dtype)
    if not isinstance(found, torch.nn.Module):
        return found
    return _with_weights_of_its_own(found.to(device))


def _open_part(part: Part, dtype: torch.dtype) -> Any:
    """The same, but its weights may be parts of files that are mapped into memory."""
    folder, name = part.folder, part.class_name
    if part.name.startswith("tokenizer"):
        return getattr(transformers, name).from_pretrained(folder, **_padding(part), **_OFFLINE)
    if part.name == "scheduler":
        kind = getattr(diffusers, name)
        return scheduler_of(kind, kind.load_config(folder, **_OFFLINE))
    kind = getattr(transformers, name, None) or getattr(diffusers, name)
    with _usual_names(folder) as found:
        model, info = kind.from_pretrained(
            found, dtype=dtype, use_safetensors=True, output_loading_info=True, **_OFFLINE
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise RenderFailed(
            f"{folder.name}/ is incomplete: {len(missing)} weights are missing, starting with "
            f"{missing[0]}.",
            "Get the folder again.",
        )
    return model.eval().requires_grad_(False)


@contextmanager
def _usual_names(folder: Path) -> Iterator[Path]:
    """The folder; of weights in float16 or bfloat16 one with links to them under the plain names.

    diffusers does not find all that it named so, and not below every path. Nor does it find several
    files without an index, which converted ones lack.
    """
    weights = {without_variant(path.name): path for path in weight_files(folder)}
    index = f"{min(weights).partition('-')[0]}.safetensors.index.json"
    listed = len(weights) == 1 or (folder / index).is_file()
    if listed and all(name == path.name for name, path in weights.items()):
        yield folder
        return
    with TemporaryDirectory() as other:
        for name, path in {"config.json": folder / "config.json", **weights}.items():
            Path(other, name).symlink_to(path.absolute())
        if len(weights) > 1:
            tensors = {
                one: name for name, path in weights.items() for one in read_header(path).shapes
            }
            Path(other, index).write_text(json.dumps({"metadata": {}, "weight_map": tensors}))
        yield Path(other)


def _padding(part: Part) -> dict[str, str]:
    """OpenCLIP's G pads with "!", unlike CLIP's L; the package has one vocabulary for both."""
    second = part.name == "tokenizer_2" and part.class_name.startswith("CLIP")
    return {"pad_token": "!"} if second else {}


def _with_weights_of_its_own(model: Any) -> Any:
    """Copies, because safetensors maps files into memory; see `read_tensors` in weights.py."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    return model
