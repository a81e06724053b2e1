"""Text encoders are read without what no pipeline reads, and give the same to the bit."""

from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from typing import Any

import diffusers
import pytest
import torch

from picowatch.catalog import Catalog
from picowatch.engine.model import load as loading
from picowatch.engine.model.load import bytes_of_parts
from picowatch.engine.model.tensors import read_tensors
from picowatch.families import FAMILIES, FLOWS
from picowatch.families.row import Family, Pipelines
from tests.engine.demo import CPU, read_part
from tests.engine.flow_requests import flow_models, scripted

# Folders with what nobody reads: further layers, a head, or both.
UNREAD = {
    "FLUX.2-klein": ("model.layers.28.", "model.layers.29.", "lm_head."),
    "FLUX.2-dev": (".layers.31.", ".layers.32.", "lm_head."),
    "Qwen-Image": ("lm_head.",),
    "Qwen-Image-Edit": ("lm_head.",),
    "Qwen-Image-2.1": ("lm_head.",),
}


def pipelines_of(row: Family) -> Iterator[Any]:
    """Every class of diffusers that draws a family's pictures."""
    for found in (row.pipelines, *(variant.pipelines for variant in row.variants.values())):
        for name in (getattr(found or Pipelines(), kind.name) for kind in fields(Pipelines)):
            if name:
                yield getattr(diffusers, name)


@pytest.mark.parametrize("family", FLOWS)
def test_a_row_says_how_many_layers_its_pipelines_read(family: str) -> None:
    """One more than the last, whose output transformers would normalise."""
    row = FAMILIES[family]
    for kind in pipelines_of(row):
        taken: dict[str, Any] = dict(signature(kind.__call__).parameters)
        if issubclass(kind, diffusers.ModularPipeline):
            blocks = getattr(diffusers, kind.default_blocks_name)()
            taken = {parameter.name: parameter for parameter in blocks.inputs}
        read = taken.get("text_encoder_out_layers")
        assert row.encoder_layers == (max(read.default) + 1 if read else 0)


@pytest.mark.parametrize("name", UNREAD)
def test_what_no_pipeline_reads_is_neither_read_nor_held(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate of memory knows it, and prompts are encoded as by the whole encoder."""
    read: list[str] = []

    def noted(*given: Any, **named: Any) -> Any:
        tensors = read_tensors(*given, **named)
        read.extend(tensors)
        return tensors

    monkeypatch.setattr(loading, "read_tensors", noted)
    model = Catalog(flow_models(name)).find("checkpoint", name)
    encoder = read_part(model, "text_encoder")
    pipeline = scripted(getattr(diffusers, FAMILIES[model.family].pipelines.text), name)
    whole = {name: weight.nbytes for name, weight in pipeline.text_encoder.named_parameters()}
    unread = {key for key in whole if any(part in key for part in UNREAD[name])}
    held = sum(weight.nbytes for weight in encoder.parameters())
    assert unread
    assert not [key for key in read if any(part in key for part in UNREAD[name])]
    assert held == sum(size for key, size in whole.items() if key not in unread)
    assert bytes_of_parts(model, CPU).encoders == (held,)
    expected = encoded(pipeline)
    pipeline.register_modules(text_encoder=encoder)
    assert all(map(torch.equal, encoded(pipeline), expected))


@torch.inference_mode()
def encoded(pipeline: Any) -> list[torch.Tensor]:
    """What a pipeline makes of a prompt."""
    more = {"image": None} if "image" in signature(pipeline.encode_prompt).parameters else {}
    found = pipeline.encode_prompt(prompt=["a red cube"], **more)
    return [tensor for tensor in found if tensor is not None]
