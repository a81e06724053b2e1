"""What ControlNets add to a UNet's second half in each step.

"Adding Conditional Control to Text-to-Image Diffusion Models", https://arxiv.org/abs/2302.05543.
Weights, modes, and when each begins and ends are those of A1111's extension
(https://github.com/Mikubill/sd-webui-controlnet, scripts/hook.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from picowatch.engine.unet.conditions import Conditions, Encoded
from picowatch.recipe.request import ControlUse
from picowatch.recipe.resolve.control import KINDS

# One for each block of the UNet's first half in their order, the middle's last.
Residuals = tuple[torch.Tensor, ...]

# Soft weights: the layers that look at the whole picture count most.
_SOFTENED = 0.825
_LAST = 12  # the index of the middle's residual in Stable Diffusion 1.x


@dataclass(frozen=True, slots=True)
class Hint:
    """A ControlNet and its maps for the images of a batch, a row for each, 0 to 1.

    `soft` weakens the layers that look at details, whatever the mode.
    """

    model: Any
    use: ControlUse
    maps: torch.Tensor
    soft: bool

    def acts(self, share: float) -> bool:
        """Whether it does after this share of the steps."""
        return self.use.start <= share <= self.use.end and self.use.weight > 0

    def residuals(
        self, latents: torch.Tensor, timestep: torch.Tensor, conditions: Conditions, *, guided: bool
    ) -> Residuals:
        """What it adds; `guided`: rows without the prompt come first, then those with it."""
        pooled = self.model.config.global_pool_conditions
        prompt_alone = guided and (self.use.mode == "control" or pooled)
        both = guided and not prompt_alone
        found = self._computed(
            torch.cat([latents] * 2) if both else latents,
            timestep,
            conditions.both if both else conditions.positive,
            torch.cat([self.maps] * 2) if both else self.maps,
        )
        found = tuple(
            one * scale for one, scale in zip(found, self._scales(len(found)), strict=True)
        )
        if prompt_alone:  # nothing is added where the prompt is not
            found = tuple(torch.cat([torch.zeros_like(one), one]) for one in found)
        return found

    def _computed(
        self, latents: torch.Tensor, timestep: torch.Tensor, prompts: Encoded, maps: torch.Tensor
    ) -> Residuals:
        inputs: dict[str, Any] = {
            "encoder_hidden_states": prompts.states,
            "controlnet_cond": maps,
            "added_cond_kwargs": prompts.added(latents),
            "return_dict": False,
        }
        if self.use.kind:
            kind = KINDS.index(self.use.kind)
            kinds = torch.zeros(len(latents), self.model.config.num_control_type)
            kinds[:, kind] = 1
            inputs |= {
                "controlnet_cond": [maps],
                "control_type": kinds.to(latents),
                "control_type_idx": [kind],
            }
        down, middle = self.model(latents, timestep, **inputs)
        return (*down, middle)

    def _scales(self, count: int) -> list[float]:
        soft = self.soft or self.use.mode != "balanced"
        return [
            self.use.weight * (_SOFTENED ** (_LAST - index) if soft else 1.0)
            for index in range(count)
        ]


def residuals_of(
    hints: Sequence[Hint],
    latents: torch.Tensor,
    timestep: torch.Tensor,
    conditions: Conditions,
    share: float,
    *,
    guided: bool,
) -> Residuals | None:
    """What those that act after this share of the steps add together; None if none does."""
    total: Residuals | None = None
    for hint in hints:
        if hint.acts(share):
            found = hint.residuals(latents, timestep, conditions, guided=guided)
            total = tuple(map(torch.add, total, found)) if total else found
    return total
