"""What no step changes is computed once for a pass, and comes out the same."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from picowatch.engine.unet import kept
from picowatch.engine.unet.conditions import Encoded
from picowatch.engine.unet.denoise import EagerUnet, Inputs
from picowatch.engine.unet.kept import keep_between_steps
from tests.engine.models.test_checkpoints import demo
from tests.engine.tiny_models import tiny_sdxl

LAYERS = ("attn2.to_k", "attn2.to_v", "time_emb_proj", "linear_1")
TIMESTEPS = torch.tensor([900.0, 500.0, 20.0])


@contextmanager
def counted(unet: Any) -> Iterator[Counter[str]]:
    """How often each of these layers computes, meanwhile."""
    counts: Counter[str] = Counter()
    handles = [
        layer.register_forward_hook(partial(_count, counts, name))
        for name, layer in unet.named_modules()
        if name.endswith(LAYERS) and "add_embedding" not in name
    ]
    yield counts
    for handle in handles:
        handle.remove()


def _count(counts: Counter[str], name: str, *_: object) -> None:
    counts[name] += 1


def inputs(unet: Any, seed: int, *, pooled: int = 0) -> tuple[torch.Tensor, Encoded]:
    """Latents and an encoded text of two rows."""
    source = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, 4, 8, 8, generator=source)
    states = torch.randn(2, 77, unet.config.cross_attention_dim, generator=source)
    summary = torch.randn(2, pooled, generator=source) if pooled else None
    return latents, Encoded(states, summary)


def plain_copy(unet: Any) -> Any:
    """diffusers' own, with the same weights."""
    plain: Any = UNet2DConditionModel.from_config(unet.config)
    plain.load_state_dict(unet.state_dict())
    return plain.eval()


@pytest.fixture(scope="module")
def unet() -> Any:
    unet = plain_copy(demo().unet)
    keep_between_steps(unet)
    return unet


@torch.inference_mode()
def test_texts_and_timesteps_are_computed_once(unet: Any) -> None:
    """For two texts by turns, as `[a|b]` has them; each prediction is diffusers' to the bit."""
    plain, ours = plain_copy(unet), EagerUnet(unet)
    (latents, first), (_, second) = inputs(unet, 1), inputs(unet, 2)
    with counted(unet) as counts:
        for step, text in zip(ours.foresee(TIMESTEPS), (first, second, first), strict=True):
            found = ours(Inputs(latents, step, text))
            expected = plain(latents, step, encoder_hidden_states=text.states)[0]
            assert float((found - expected).abs().max()) <= 1e-6
    assert {counts[name] for name in counts if "attn2" in name} == {2}
    assert {counts[name] for name in counts if "attn2" not in name} == {1}


@torch.inference_mode()
def test_another_pass_keeps_nothing_of_the_one_before(unet: Any) -> None:
    """A LoRA acts on the layers from the next pass on, as a hook that adds to their outputs."""
    plain, ours = plain_copy(unet), EagerUnet(unet)
    latents, text = inputs(unet, 1)
    for model in (unet, plain):
        for name, layer in model.named_modules():
            if name.endswith(LAYERS[:3]):
                layer.register_forward_hook(lambda module, given, output: 1.5 * output)
    without = ours(Inputs(latents, TIMESTEPS[1], Encoded(text.states.clone())))
    [step] = ours.foresee(TIMESTEPS[1:2])
    found = ours(Inputs(latents, step, Encoded(text.states.clone())))
    expected = plain(latents, TIMESTEPS[1], encoder_hidden_states=text.states)[0]
    for one in (without, found):
        assert float((one - expected).abs().max()) <= 1e-5
    for module in unet.modules():
        module._forward_hooks.clear()
    again = ours(Inputs(latents, step, text))
    assert float((again - expected).abs().max()) > 1e-3


@torch.inference_mode()
def test_what_sdxl_adds_to_the_timestep_is_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its embedding is foreseen, but not what the blocks make of both; large texts are not kept."""
    kind: Any = UNet2DConditionModel
    plain = kind.from_pretrained(tiny_sdxl(), subfolder="unet")
    unet = plain_copy(plain)
    keep_between_steps(unet)
    ours = EagerUnet(unet)
    latents, text = inputs(unet, 1, pooled=48)
    with counted(unet) as counts:
        for step in ours.foresee(TIMESTEPS):
            found = ours(Inputs(latents, step, text))
            added = text.added(latents)
            expected = plain(latents, step, text.states, added_cond_kwargs=added)[0]
            assert float((found - expected).abs().max()) <= 1e-5
    assert counts["time_embedding.linear_1"] == 1
    assert {counts[name] for name in counts if name.endswith("time_emb_proj")} == {3}
    monkeypatch.setattr(kept, "_MOST_KEPT_BYTES", 0)
    with counted(unet) as counts:
        for timestep in TIMESTEPS[:2]:
            ours(Inputs(latents, timestep, text._replace(states=text.states.clone())))
    assert {counts[name] for name in counts if "attn2" in name} == {2}
