"""What need not be computed in each step, because text, timestep or weight alone decides it.

A text's keys and values for cross-attention are the same in every step. All timesteps of a pass
are known before the first, so what layers make of them is computed for all at once.

A tensor that is marked carries what layers made of it, and a layer that gets the same tensor again
gives that. Threads that share a UNet have tensors of their own. What is kept goes with its tensor,
which lasts for a pass: it is never another prompt's, nor from before a LoRA.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

# Attributes of marked tensors.
_OUTPUTS, _EMBEDDED = "picowatch_outputs", "picowatch_embedded"
_TEXT_LAYERS = ("attn2.to_k", "attn2.to_v")
# Of one text. Stable Diffusion 1.x keeps 4 MB for a row in float16, and XL 26 MB.
_MOST_KEPT_BYTES = 256 * 2**20


class _Kept:
    """Mixed into a layer's class: what it made of a marked tensor is what it gives again.

    Around `__call__`, because hooks act in there: what they add (LoRAs) is kept with it.
    """

    def __call__(self, given: torch.Tensor, *others: Any, **named: Any) -> Any:
        outputs: _Outputs | None = getattr(given, _OUTPUTS, None)
        known = None if outputs is None else outputs.get(self)
        if known is not None:
            return known
        found = super().__call__(given, *others, **named)  # type: ignore[misc]
        if outputs is not None:
            outputs.keep(self, found)
        return found


class _KeptTimesteps:
    """Mixed into a UNet's class: a timestep of `embed_all` need not be embedded again."""

    def get_time_embed(self, sample: torch.Tensor, timestep: Any) -> Any:
        found = embedded(timestep)
        if found is not None:
            return found.given
        return super().get_time_embed(sample=sample, timestep=timestep)  # type: ignore[misc]


class _Outputs(dict[Any, torch.Tensor]):
    """What layers made of a tensor, up to a number of bytes: larger batches gain least from it."""

    def __init__(self) -> None:
        super().__init__()
        self._left = _MOST_KEPT_BYTES

    def keep(self, layer: Any, output: torch.Tensor) -> None:
        if output.nbytes <= self._left:
            self._left -= output.nbytes
            self[layer] = output


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a UNet makes of one timestep: 1 x width, and what its blocks make of that.

    `given` stands for the timestep where the UNet embeds it. `projected` has the blocks' outputs
    one after the other; None if the blocks are shown more than the timestep (SDXL).
    """

    given: torch.Tensor
    embedding: torch.Tensor
    projected: torch.Tensor | None

    def become(self, other: "Embedded") -> None:
        """Another timestep's values in these tensors."""
        self.embedding.copy_(other.embedding)
        if self.projected is not None:
            assert other.projected is not None
            self.projected.copy_(other.projected)


def keep_outputs_of(tensor: torch.Tensor) -> dict[Any, torch.Tensor]:
    """Mark a tensor: from now on it carries what layers make of it."""
    outputs: _Outputs | None = getattr(tensor, _OUTPUTS, None)
    if outputs is None:
        outputs = _Outputs()
        setattr(tensor, _OUTPUTS, outputs)
    return outputs


def of_weight(layer: Any, given: object, make: Callable[[], Any]) -> Any:
    """What `make` makes of a layer's weight, kept with the layer.

    It is made anew where `given` differs, or the layer has another weight, as LoRAs give it one; no
    weight changes in place.
    """
    made_of, made_for, kept = vars(layer).get("_kept", (None, None, None))
    if made_of is not layer.weight or made_for != given:
        kept = make()
        layer._kept = (layer.weight, given, kept)
    return kept


def is_hooked(layer: Any) -> bool:
    """Whether more acts in a layer than its weights: a LoRA, or accelerate, which brings them."""
    return bool(layer._forward_hooks) or hasattr(layer, "_hf_hook")


def embedded(timestep: torch.Tensor) -> Embedded | None:
    """What goes with a timestep of `embed_all`."""
    found: Embedded | None = getattr(timestep, _EMBEDDED, None)
    return found


def keep_between_steps(unet: Any) -> None:
    """Let a UNet's layers keep what they make of marked tensors; others change nothing.

    Its blocks get the timestep's embedding after the activation, which each of them applied before:
    diffusers' own `time_embed_act` and `skip_time_act`.
    """
    for name, layer in unet.named_modules():
        if name.endswith(_TEXT_LAYERS):
            _keep(layer)
    blocks = _blocks(unet)
    if unet.config.act_fn != "silu" or unet.time_embed_act or any(b.skip_time_act for b in blocks):
        return
    unet.time_embed_act = nn.SiLU()
    for block in blocks:
        block.skip_time_act = True
        _keep(block.time_emb_proj)
    _keep(unet.time_embedding)
    _keep(unet.time_embed_act)
    _mix_in(_KeptTimesteps, unet)


def embed_all(unet: Any, timesteps: torch.Tensor) -> Sequence[torch.Tensor]:
    """The timesteps one by one; each carries what the layers make of it, as `Embedded`.

    Not of a UNet that is told the guidance, nor of one whose weights are elsewhere just now.
    """
    steps = timesteps.unbind()
    weight = unet.conv_in.weight
    if not isinstance(unet.time_embed_act, _Kept) or weight.device != timesteps.device:
        return steps
    if unet.config.time_cond_proj_dim is not None or not len(timesteps):
        return steps
    embeddings = unet.time_embedding(unet.time_proj(timesteps).to(unet.dtype))
    # What SDXL's blocks are shown depends on the text besides.
    layers = [] if unet.config.addition_embed_type else [b.time_emb_proj for b in _blocks(unet)]
    projected: Sequence[torch.Tensor | None] = [None] * len(steps)
    if layers:
        activated = unet.time_embed_act(embeddings)
        projected = torch.split(torch.cat([layer(activated) for layer in layers], dim=1), 1)
    for step, embedding, row in zip(steps, torch.split(embeddings, 1), projected, strict=True):
        setattr(step, _EMBEDDED, _carried(unet, layers, embedding, row))
    return steps


def _carried(
    unet: Any, layers: Sequence[Any], embedding: torch.Tensor, row: torch.Tensor | None
) -> Embedded:
    """Stand-ins that lead from a timestep to its embedding, and from there to the layers' parts."""
    given = embedding.new_empty(0)
    keep_outputs_of(given)[unet.time_embedding] = embedding
    if row is not None:
        activated = embedding.new_empty(0)
        keep_outputs_of(embedding)[unet.time_embed_act] = activated
        parts = torch.split(row, [layer.out_features for layer in layers], dim=1)
        keep_outputs_of(activated).update(zip(layers, parts, strict=True))
    return Embedded(given, embedding, row)


def _blocks(unet: Any) -> list[Any]:
    return [block for block in unet.modules() if isinstance(block, ResnetBlock2D)]


def _keep(layer: nn.Module) -> None:
    _mix_in(_Kept, layer)


def _mix_in(mixin: type, module: nn.Module) -> None:
    kind = type(module)
    module.__class__ = type(kind.__name__, (mixin, kind), {})
