"""The demo model in memory, and comparisons of models."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from picowatch.catalog import Catalog, Kind, Model
from picowatch.catalog.parts import parts_of
from picowatch.engine.model.cache import Cache
from picowatch.engine.model.devices import Target, choose_target
from picowatch.engine.model.load import load_part
from picowatch.recipe.request import ControlUse, EmbeddingUse, ImageRequest, LoraUse
from tests.engine.requests import request

CPU = choose_target("cpu", "float32")


def read_part(model: Model, name: str, target: Target = CPU, quantize: str = "") -> Any:
    """Load one part of a checkpoint."""
    return load_part(model, target, target.device, name, quantize)


def load(model: Model, target: Target = CPU) -> dict[str, Any]:
    """Load all parts of a checkpoint."""
    return {part.name: read_part(model, part.name, target) for part in parts_of(model)}


@cache
def demo() -> dict[str, Any]:
    """The demo model's parts, from its folder."""
    return load(Catalog(Path("nowhere")).demo)


def named(
    models: Path, pictures: Mapping[str, str] = MappingProxyType({}), **values: Any
) -> ImageRequest:
    """A request for files of a models folder: the values have their names alone.

    `pictures` has the hashes of start images, masks and control images by name.
    """
    catalog = Catalog(models)

    def hash_of(kind: Kind, name: str) -> str:
        return catalog.sha256(catalog.find(kind, name))

    kinds: tuple[Kind, ...] = ("checkpoint", "vae")
    hashes = {f"{kind}_hash": hash_of(kind, values[kind]) for kind in kinds if values.get(kind)}
    for field in ("image", "mask"):
        if values.get(field) in pictures:
            hashes[f"{field}_hash"] = pictures[values[field]]
    if "upscale" in values:
        hashes["upscaler_hash"] = hash_of("upscaler", values["upscale"].model)
    if "cutout" in values:
        hashes["cutout_hash"] = hash_of(*values["cutout"].file)
    if "hires" in values and "demo" in values["hires"].upscaler:
        hashes["hires_upscaler_hash"] = hash_of("upscaler", values["hires"].upscaler)
    loras, embeddings = values.pop("loras", {}), values.pop("embeddings", ())
    control = (
        {**use, "model_hash": hash_of("controlnet", use["model"])}
        for use in values.pop("control", ())
    )
    return request(
        **values | hashes,
        loras=tuple(LoraUse(name, hash_of("lora", name), loras[name]) for name in loras),
        embeddings=tuple(EmbeddingUse(name, hash_of("embedding", name)) for name in embeddings),
        control=tuple(
            ControlUse(**use, image_hash=pictures.get(use["image"], "")) for use in control
        ),
    )


def assert_equal(ours: Any, theirs: Any) -> None:
    """Assert that two models have the same weights in the same types."""
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, tensor in ours.state_dict().items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name
    buffers = {name: buffer.dtype for name, buffer in theirs.named_buffers()}
    assert {name: buffer.dtype for name, buffer in ours.named_buffers()} == buffers
    assert not any(weight.requires_grad for weight in ours.parameters())
    assert not ours.training


def endless() -> Cache:
    """Return a cache with room for everything."""
    return Cache(lambda: (2**60, 2**60), lambda: None)
