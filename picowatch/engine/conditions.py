"""What guides a UNet besides latents and timestep: encoded prompts, and when each does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch

from picowatch.engine.noise import LATENT_FACTOR


class Encoded(NamedTuple):
    """Encoded texts, a row for each image: what guides the UNet besides latents and timestep.

    `states` are rows x tokens x width. `pooled`, rows x width, is a summary of each text, for
    families whose UNet is shown one (SDXL).
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None

    def zeros(self) -> "Encoded":
        """Zeros in these shapes."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return Encoded(torch.zeros_like(self.states), pooled)

    def added(self, latents: torch.Size) -> dict[str, torch.Tensor] | None:
        """What SDXL's UNet is told besides: the summary, and the picture's size; None elsewhere."""
        if self.pooled is None:
            return None
        rows, device = len(self.pooled), self.pooled.device
        return {"text_embeds": self.pooled, "time_ids": _time_ids(rows, *latents[2:], device)}

    @staticmethod
    def joined(parts: Sequence["Encoded"]) -> "Encoded":
        """Join the rows of all, in their order."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Encoded(
            torch.cat([part.states for part in parts]), torch.cat(pooled) if pooled else None
        )


@lru_cache(maxsize=8)
def _time_ids(rows: int, height: int, width: int, device: torch.device) -> torch.Tensor:
    """What SDXL is told of a picture's size, a row for each: height and width, crop, both again.

    Section 2.2 of https://arxiv.org/abs/2307.01952; the original size is the one that is
    rendered, nothing is cropped, as in A1111.
    """
    sides = [height * LATENT_FACTOR, width * LATENT_FACTOR]
    ids = [*sides, 0, 0, *sides]
    return torch.tensor([ids], dtype=torch.float32, device=device).repeat(rows, 1)


@dataclass(frozen=True)
class Conditions:
    """The encoded negative prompts and prompts of a batch."""

    negative: Encoded
    positive: Encoded

    @cached_property
    def both(self) -> Encoded:
        """The rows of all negative prompts, then those of all prompts: once, not in each step."""
        return Encoded.joined((self.negative, self.positive))

    @staticmethod
    def joined(rows: Sequence["Conditions"]) -> "Conditions":
        """Join the conditions of all images, in their order."""
        return Conditions(
            Encoded.joined([row.negative for row in rows]),
            Encoded.joined([row.positive for row in rows]),
        )


def at_each_evaluation(images: Iterable[Sequence[Conditions]]) -> list[Conditions]:
    """What guides a batch at each evaluation of a pass, from what guides each of its images.

    Prompt editing changes it between the steps. It is the same object where nothing changed.
    """
    known: dict[tuple[int, ...], Conditions] = {}
    found = []
    for rows in zip(*images, strict=True):
        key = tuple(map(id, rows))
        if key not in known:
            known[key] = Conditions.joined(rows)
        found.append(known[key])
    return found
