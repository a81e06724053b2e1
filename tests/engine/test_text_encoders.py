"""Text encoders are read without what no pipeline reads, and give the same to the bit."""

from inspect import signature
from typing import Any

import diffusers
import pytest
import torch

from picowatch.catalog import Catalog
from picowatch.engine.model import load as loading
from picowatch.engine.model.devices import choose_target
from picowatch.engine.model.load import bytes_of_parts, load_part
from picowatch.engine.model.tensors import read_tensors
from picowatch.families import FAMILIES
from tests.engine.flow_requests import flow_models, scripted

FULL, CPU = choose_target("cpu", "float32"), torch.device("cpu")
# Folders with what nobody reads: further layers, a head, or both.
UNREAD = {
    "FLUX.2-klein": ("model.layers.28.", "model.layers.29.", "lm_head."),
    "FLUX.2-dev": (".layers.31.", ".layers.32.", "lm_head."),
    "Qwen-Image-Edit": ("lm_head.",),
}


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
    encoder = load_part(model, FULL, CPU, "text_encoder")
    pipeline = scripted(getattr(diffusers, FAMILIES[model.family].pipelines.text), name)
    whole = {name: weight.nbytes for name, weight in pipeline.text_encoder.named_parameters()}
    unread = {one for one in whole if any(part in one for part in UNREAD[name])}
    held = sum(weight.nbytes for weight in encoder.parameters())
    assert unread
    assert not [one for one in read if any(part in one for part in UNREAD[name])]
    assert held == sum(size for one, size in whole.items() if one not in unread)
    assert bytes_of_parts(model, FULL).encoders == (held,)
    expected = encoded(pipeline)
    pipeline.register_modules(text_encoder=encoder)
    assert all(map(torch.equal, encoded(pipeline), expected))


@torch.inference_mode()
def encoded(pipeline: Any) -> list[torch.Tensor]:
    """What a pipeline makes of a prompt."""
    more = {"image": None} if "image" in signature(pipeline.encode_prompt).parameters else {}
    found = pipeline.encode_prompt(prompt=["a red cube"], **more)
    return [one for one in found if one is not None]
