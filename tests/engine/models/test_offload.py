"""Models that take turns on a device: where their weights are, and how they are kept."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from picowatch.engine.models import offload
from picowatch.engine.models.loaded import _tile

CPU = torch.device("cpu")


def test_weights_are_kept_in_pinned_blocks_in_their_own_layouts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A block is pinned once for many; what is larger than one has its own."""
    pinned: list[int] = []
    empty = torch.empty

    def noted(size: int, *, pin_memory: bool, **named: Any) -> torch.Tensor:
        assert pin_memory
        pinned.append(size)
        return empty(size, **named)

    monkeypatch.setattr(torch, "empty", noted)
    monkeypatch.setattr(offload, "_BLOCK_BYTES", 4096)
    source = torch.Generator().manual_seed(1)
    tensors = [
        torch.randn(3, 5, generator=source),
        torch.randn(2, 3, 4, 4, generator=source).to(memory_format=torch.channels_last),
        torch.randn(60, 60, generator=source).half(),
        torch.arange(7),
        torch.tensor(2.5),
    ]
    kept = list(offload._kept(tensors, torch.device("cuda")))
    assert len(pinned) == 3
    for tensor, copy in zip(tensors, kept, strict=True):
        assert torch.equal(tensor, copy)
        assert tensor.dtype == copy.dtype
        assert tensor.stride() == copy.stride()


def test_those_of_one_turn_are_there_at_a_time_and_none_is_copied_back() -> None:
    """Its weights are the very ones that were there before it came."""
    models = [nn.Linear(2, 2) for _ in range(3)]
    offload.bring_in_turn([models[:1], models[1:]], CPU)
    hooks: list[Any] = [model._hf_hook for model in models]
    there: list[Any] = hooks[0]._there
    before = [[weight.data_ptr() for weight in model.parameters()] for model in models]
    for computing, expected in ((0, [0]), (1, [1]), (2, [1, 2]), (1, [1, 2]), (0, [0])):
        models[computing](torch.ones(1, 2))
        assert there == [hooks[index] for index in expected]
    offload.send_back(models[0])
    assert not there
    assert [[weight.data_ptr() for weight in model.parameters()] for model in models] == before


def test_a_vae_works_in_tiles_at_its_native_size() -> None:
    """diffusers' own tile is as large as a picture of 512x512, so that nothing would be saved."""
    kind: Any = AutoencoderKL
    vae = kind(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        sample_size=512,
    )
    seen: list[tuple[int, ...]] = []
    vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    latents = torch.zeros(1, 4, 64, 64)
    with torch.inference_mode():
        vae.enable_tiling()
        vae.decode(latents)
        assert seen == [(64, 64)]
        seen.clear()
        _tile(vae)
        assert vae.decode(latents).sample.shape[2:] == (512, 512)
    assert len(seen) > 4 and max(seen) == (32, 32)
