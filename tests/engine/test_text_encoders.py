"""Text encoders are read without what no pipeline reads."""

from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from typing import Any

import diffusers
import pytest

from picowatch.catalog import Catalog
from picowatch.engine.model import load as loading
from picowatch.engine.model.tensors import read_tensors
from picowatch.families import FAMILIES, FLOWS
from picowatch.families.row import Family, Pipelines
from tests.engine.demo import read_part
from tests.engine.flow_requests import flow_models
from tests.engine.ldm import weights

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
def test_what_no_pipeline_reads_is_not_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """test_load.py compares what is held and reckoned, test_flows.py what becomes of prompts."""
    read: list[str] = []

    def noted(*given: Any, **named: Any) -> Any:
        tensors = read_tensors(*given, **named)
        read.extend(tensors)
        return tensors

    monkeypatch.setattr(loading, "read_tensors", noted)
    model = Catalog(flow_models(name)).find("checkpoint", name)
    read_part(model, "text_encoder")
    whole = {*weights(model.path / "text_encoder")}
    expected = {key for key in whole if not any(part in key for part in UNREAD[name])}
    assert {*read} == expected != whole
