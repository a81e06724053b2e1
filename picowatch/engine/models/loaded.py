"""A checkpoint in memory: its parts, and where their weights are while it computes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any

import torch
from accelerate import cpu_offload  # type: ignore[import-untyped]
from accelerate.hooks import (  # type: ignore[import-untyped]
    ModelHook,
    add_hook_to_module,
    remove_hook_from_module,
)
from diffusers.hooks.group_offloading import apply_group_offloading
from diffusers.hooks.hooks import HookRegistry
from diffusers.models.attention_processor import AttnProcessor2_0
from torch.nn import functional

from picowatch.engine.memory.ladder import Offload, Rung
from picowatch.engine.models.offload import bring_in_turn
from picowatch.engine.models.weights import drop_weights, has_weights
from picowatch.engine.unet.loras import Loras
from picowatch.engine.unet.prompts import PromptEncoder

# Latents, mask, and the latents of what the mask leaves.
INPAINTING_CHANNELS = 9


class Placed:
    """A checkpoint whose weights a rung of the memory ladder puts somewhere.

    What raises NotImplementedError is asked only of checkpoints whose ladder has a rung for it:
    UNets are small enough to be neither cast nor read again.
    """

    rung: Rung | None
    vae: Any

    @property
    def turns(self) -> tuple[Sequence[Any], ...]:
        """Its parts by what they do one after the other: encode prompts, denoise, decode."""
        raise NotImplementedError

    @property
    def models(self) -> tuple[Any, ...]:
        """Its parts in the order in which they compute; the VAE is the last."""
        return tuple(chain(*self.turns))

    @property
    def dtype(self) -> torch.dtype:
        """The type that its denoiser computes in."""
        dtype: torch.dtype = self.turns[1][-1].dtype
        return dtype

    def slice_attention(self, *, on: bool) -> None:
        """Let attention work on a part of the picture at a time, if that saves memory."""

    def cast_weights(self) -> None:
        """Keep the denoiser's weights in 8 bits."""
        raise NotImplementedError

    def read_again(self, model: Any) -> None:
        """Read the weights of one of its models, which were dropped, from its files."""
        raise NotImplementedError


@dataclass
class Loaded(Placed):
    """A checkpoint's parts, ready to compute; `schedule` is its scheduler's config.

    LoRAs, embeddings and ControlNets (by their hashes) belong to the checkpoint that they act on.
    `rung` is the one of the memory ladder that it computes on, None before the first.
    """

    family: str
    prompts: PromptEncoder
    text_encoders: tuple[Any, ...]
    unet: Any
    vae: Any
    schedule: dict[str, Any]
    loras: Loras
    native_size: int
    rung: Rung | None = None
    controlnets: dict[str, Any] = field(default_factory=dict)

    @property
    def embeds_guidance(self) -> bool:
        """True for a distilled checkpoint (LCM) whose UNet is told the guidance to follow."""
        return self.unet.config.time_cond_proj_dim is not None

    @property
    def turns(self) -> tuple[Sequence[Any], ...]:
        """See `Placed.turns`."""
        return self.text_encoders, (*self.controlnets.values(), self.unet), (self.vae,)

    def slice_attention(self, *, on: bool) -> None:
        """See `Placed.slice_attention`; on the whole if not `on`."""
        processor = SlicedAttention() if on else AttnProcessor2_0()
        for model in (self.unet, *self.controlnets.values()):
            model.set_attn_processor(processor)

    def suits(self, rung: Rung) -> bool:
        """Every rung of its ladder can be undone: none casts, and none reads from disk."""
        return not rung.cast and rung.offload != "disk"

    def encode_anew(self) -> None:
        """Forget encoded prompts: its text encoders have changed."""
        self.prompts.forget()

    @property
    def inpaints(self) -> bool:
        """True for an inpainting checkpoint: its UNet also looks at mask and start image."""
        return bool(self.unet.config.in_channels == INPAINTING_CHANNELS)


# Queries that are computed at a time.
_SLICE = 1024
_CPU = torch.device("cpu")


class SlicedAttention:
    """diffusers' AttnProcessor2_0 for UNets of Stable Diffusion, a slice of the queries at a time.

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
            functional.scaled_dot_product_attention(query[:, :, begin : begin + _SLICE], key, value)
            for begin in range(0, query.shape[2], _SLICE)
        ]
        attended = torch.cat(slices, dim=2).transpose(1, 2).flatten(2)
        result: torch.Tensor = attn.to_out[1](attn.to_out[0](attended.to(query.dtype)))
        return result


def apply_rung(loaded: Placed, rung: Rung, device: torch.device) -> None:
    """Let the checkpoint compute as this rung says; costs nothing if it does already."""
    if loaded.rung is not None and _settings(loaded.rung) == _settings(rung):
        return
    undo_rung(loaded)
    if rung.tiled:
        _tile(loaded.vae)
    if rung.sliced:
        loaded.slice_attention(on=True)
    if rung.cast:
        loaded.cast_weights()
    _move_weights(loaded, rung.offload, device)
    loaded.rung = rung


_TILE = 256  # pixels; diffusers' default is a VAE's native size, of which there is one tile


def _tile(vae: Any) -> None:
    """Let a VAE work on tiles that save memory at its native size, too."""
    vae.enable_tiling()
    side = getattr(vae, "tile_sample_min_size", 0)  # those of video models have sides of their own
    if side > _TILE:
        vae.tile_latent_min_size = vae.tile_latent_min_size * _TILE // side
        vae.tile_sample_min_size = _TILE


# What of a rung concerns the checkpoint.
_settings = attrgetter("tiled", "sliced", "offload", "cast")
# diffusers' names for the hooks of its group offload, the last registered first.
_GROUP_HOOKS = ("lazy_prefetch_group_offloading", "layer_execution_tracker", "group_offloading")


def undo_rung(loaded: Placed) -> None:
    """Remove hooks and memory savings; the weights stay on the device where they were last.

    Also after a move that ran out of memory: then `rung` is None and some are there. What was cast
    stays so: 8 bits do not say what the others were.
    """
    for model in loaded.models:
        if model is not None:
            remove_hook_from_module(model, recurse=True)
            for name in _GROUP_HOOKS:
                HookRegistry.check_if_exists_or_initialize(model).remove_hook(name)
    if loaded.vae is not None:
        loaded.vae.disable_tiling()
    loaded.slice_attention(on=False)
    loaded.rung = None


def _move_weights(loaded: Placed, offload: Offload, device: torch.device) -> None:
    """Everything on the device, or in the computer's memory until it is needed, or in its files.

    The VAE is never taken apart: it is small, and may have to change its type (see latents.py).
    """
    *encoders, denoiser, vae = loaded.models
    if offload == "disk":
        vae.to(device)
        _read_in_turn(loaded, device)
        return
    for model in encoders:
        model.to(_CPU if offload else device)
    for model in (denoiser, vae):
        model.to(_CPU if offload not in ("", "encoders") else device)
    if offload == "encoders":
        bring_in_turn([encoders], device)
    elif offload == "model":
        bring_in_turn(loaded.turns, device)
    elif offload == "sequential":
        for model in (*encoders, denoiser):
            cpu_offload(model, device)
    elif offload in ("group", "encoder layers"):
        for model in encoders:
            _bring_layers(model, device, ahead=False)
    if offload == "encoder layers":
        bring_in_turn([[denoiser], [vae]], device)
    elif offload == "group":
        # A prompt is encoded once, but a transformer computes in each step.
        _bring_layers(denoiser, device, ahead=device.type == "cuda")
    if offload in ("sequential", "group"):
        bring_in_turn([[vae]], device)


def _read_in_turn(loaded: Placed, device: torch.device) -> None:
    """The text encoders make room for the transformer when it computes, and the reverse."""
    *encoders, denoiser, vae = loaded.models
    for model in encoders:
        add_hook_to_module(model, _ReadFirst(device, loaded, [denoiser]))
    add_hook_to_module(denoiser, _ReadFirst(device, loaded, encoders))
    add_hook_to_module(vae, _ReadFirst(device, loaded, []))


class _ReadFirst(ModelHook):  # type: ignore[misc]
    """Before a model computes: drops the weights of others and reads its own, unless it has them.

    `execution_device` tells diffusers' pipelines where it computes, which they take from weights.
    """

    def __init__(self, device: torch.device, loaded: Placed, others: list[Any]) -> None:
        self.execution_device = device
        self._loaded = loaded
        self._others = others

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        for other in filter(has_weights, self._others):
            drop_weights(other)
        if not has_weights(module):
            self._loaded.read_again(module)
        return args, kwargs


def _bring_layers(model: Any, device: torch.device, *, ahead: bool) -> None:
    """Each layer comes to the device when it computes; `ahead`: while the one before computes.

    Memory is pinned for a layer at a time. torch's allocator rounds pinned blocks up to powers of
    two: pinning all weights would take up to twice their size.
    """
    apply_group_offloading(
        model,
        onload_device=device,
        offload_device=_CPU,
        offload_type="leaf_level",
        use_stream=ahead,
        low_cpu_mem_usage=True,
    )
