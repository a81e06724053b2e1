"""Ways to ask a UNet for its prediction: as it was loaded, or compiled for one shape."""

from typing import Any, NamedTuple, Protocol

import torch


class Shape(NamedTuple):
    """What a compiled UNet is made for.

    `rows` go through it at a time: two an image with guidance, one without. `height` and
    `width` are the latents', `tokens` the length of the encoded prompt.
    """

    rows: int
    height: int
    width: int
    tokens: int


class Unet(Protocol):
    """A UNet that can be asked; `dtype` is the type it takes and gives."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def compiled(self) -> bool: ...

    def __call__(
        self, latents: torch.Tensor, timestep: torch.Tensor, states: torch.Tensor
    ) -> torch.Tensor:
        """The prediction for noisy latents at a timestep, guided by encoded prompts."""
        ...


class EagerUnet:
    """diffusers' module itself, layer by layer, with whatever hooks act on it."""

    compiled = False

    def __init__(self, module: Any) -> None:
        self._module = module
        self.dtype: torch.dtype = module.dtype

    def __call__(
        self, latents: torch.Tensor, timestep: torch.Tensor, states: torch.Tensor
    ) -> torch.Tensor:
        """See `Unet`."""
        predicted: torch.Tensor = self._module(latents, timestep, encoder_hidden_states=states)[0]
        return predicted
