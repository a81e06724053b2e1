"""Where a loaded checkpoint's weights are while it works, and how its parts save memory."""

from typing import Any

import torch
from accelerate import cpu_offload, cpu_offload_with_hook  # type: ignore[import-untyped]
from accelerate.hooks import remove_hook_from_module  # type: ignore[import-untyped]
from diffusers.models.attention_processor import AttnProcessor2_0
from torch.nn import functional

from picowatch.engine.memory.ladder import Offload, Way
from picowatch.engine.models.loaded import Loaded

# Queries that attend at a time.
_ROWS = 1024
_CPU = torch.device("cpu")


class SlicedAttention:
    """diffusers' AttnProcessor2_0 for Stable Diffusion 1.x, a slice of the queries at a time.

    diffusers' own SlicedAttnProcessor computes whole score matrices, which takes more memory
    than torch's attention does where that has a kernel that needs none.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def heads(states: torch.Tensor) -> torch.Tensor:
            rows, length, width = states.shape
            return states.view(rows, length, attn.heads, width // attn.heads).transpose(1, 2)

        query, key, value = heads(attn.to_q(hidden_states)), attn.to_k(context), attn.to_v(context)
        key, value = heads(key), heads(value)
        slices = [
            functional.scaled_dot_product_attention(query[:, :, begin : begin + _ROWS], key, value)
            for begin in range(0, query.shape[2], _ROWS)
        ]
        attended = torch.cat(slices, dim=2).transpose(1, 2).flatten(2)
        result: torch.Tensor = attn.to_out[1](attn.to_out[0](attended.to(query.dtype)))
        return result


def settle_in(loaded: Loaded, way: Way, device: torch.device) -> None:
    """Make the checkpoint work in this way; costs nothing if it does already."""
    wanted = (way.tiled, way.sliced, way.offload)
    if loaded.residence == wanted:
        return
    move_out(loaded)
    if way.tiled:
        loaded.vae.enable_tiling()
    if way.sliced:
        loaded.unet.set_attn_processor(SlicedAttention())
    _place(loaded, way.offload, device)
    loaded.residence = wanted


def move_out(loaded: Loaded) -> None:
    """Take hooks and savings away; the weights are then wherever they were last.

    Also after a move that memory ran out in: then `residence` is None and some are there.
    """
    for model in (loaded.text_encoder, loaded.unet, loaded.vae):
        if model is not None:
            remove_hook_from_module(model, recurse=True)
    if loaded.vae is not None:
        loaded.vae.disable_tiling()
    loaded.unet.set_attn_processor(AttnProcessor2_0())  # type: ignore[no-untyped-call]
    loaded.compiled.clear()  # they hold on to weights where those were
    loaded.residence = None


def _place(loaded: Loaded, offload: Offload, device: torch.device) -> None:
    """Everything on the device, or in the computer's memory until it is needed.

    The VAE is never taken apart: it is small, and may have to change its type (see vae.py).
    """
    text, unet, vae = loaded.text_encoder, loaded.unet, loaded.vae
    if not offload:
        for model in (text, unet, vae):
            model.to(device)
        return
    for model in (text, unet, vae):
        model.to(_CPU)
    if offload == "model":
        _, text_hook = cpu_offload_with_hook(text, device)
        _, unet_hook = cpu_offload_with_hook(unet, device, prev_module_hook=text_hook)
        cpu_offload_with_hook(vae, device, prev_module_hook=unet_hook)
    else:
        cpu_offload(text, device)
        cpu_offload(unet, device)
        cpu_offload_with_hook(vae, device)
