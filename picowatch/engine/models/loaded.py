"""A checkpoint in memory."""

from dataclasses import dataclass, field
from typing import Any

from picowatch.engine.unet.embeddings import Embeddings
from picowatch.engine.unet.loras import Loras
from picowatch.engine.unet.prompts import PromptEncoder
from picowatch.engine.unet.unets import Shape

# Latents, mask, and the latents of what the mask leaves.
INPAINTING_CHANNELS = 9


@dataclass(slots=True)
class Loaded:
    """A checkpoint's parts, ready to compute; `schedule` is its scheduler's config.

    LoRAs and embeddings live and go with the checkpoint they act on. `residence` is how it
    works at present (see residence.py), None if nothing was arranged yet. `compiled` are the
    compiled UNets that compute with its weights.
    """

    prompts: PromptEncoder
    text_encoder: Any
    unet: Any
    vae: Any
    schedule: dict[str, Any]
    loras: Loras
    embeddings: Embeddings
    native_size: int
    residence: tuple[bool, bool, str] | None = None
    compiled: dict[Shape, Any] = field(default_factory=dict)

    @property
    def inpaints(self) -> bool:
        """True for an inpainting checkpoint: its UNet looks at mask and start image, too."""
        return bool(self.unet.config.in_channels == INPAINTING_CHANNELS)
