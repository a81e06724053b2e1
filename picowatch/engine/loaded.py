"""A checkpoint ready to draw: its parts, encoded prompts and LoRAs."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from picowatch.engine.families import Encoded, built, pipeline_class, prompt_encoder
from picowatch.engine.load import Components
from picowatch.engine.loras import Loras
from picowatch.engine.verify import FindFile
from picowatch.families import FAMILIES
from picowatch.recipe.request import LoraUse

_KEPT_PROMPTS = 64


class Prompts:
    """The encoded prompts that a checkpoint of a flow family read last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Encoded] = OrderedDict()

    def encoded(self, text: str, encode: Callable[[], Encoded]) -> Encoded:
        """One prompt, from memory if it was encoded before."""
        if text not in self._kept:
            while len(self._kept) >= _KEPT_PROMPTS:
                self._kept.popitem(last=False)
            self._kept[text] = encode()
        self._kept.move_to_end(text)
        return self._kept[text]

    def forget(self) -> None:
        """Encode everything again: the text encoders no longer compute what they did."""
        self._kept.clear()


class Loaded:
    """A checkpoint's components, and what was made of them.

    With `in_turn`, text encoders and denoiser are in memory one after the other.
    """

    def __init__(
        self, components: Components, find: FindFile, device: torch.device, *, in_turn: bool = False
    ) -> None:
        self.components = components
        self.row = FAMILIES[components.family]
        self.variant = self.row.variant(components.variant)
        self.in_turn = in_turn
        self._find = find
        self._loras = Loras(components.family, self.pipeline(), find)
        self.prompts: Any = Prompts()
        if self.row.kind == "unet":
            self.prompts = prompt_encoder(components.family, components.parts, find, device)

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return self.components.denoiser

    @property
    def vae(self) -> Any:
        """The VAE."""
        return self.components.vae

    @property
    def modules(self) -> list[Any]:
        """All that computes and is in memory."""
        parts = [*self.components.parts.values(), *self.components.controlnets.values()]
        return [part for part in parts if isinstance(part, torch.nn.Module)]

    def pipeline(self, kind: str = "text", **parts: Any) -> Any:
        """A pipeline of the family over these parts in place of its own."""
        return built(self.row, self.variant, kind, self.components.parts | parts)

    def has_pipeline(self, kind: str) -> bool:
        """Whether diffusers has one for "image" or "mask"."""
        return pipeline_class(self.row, self.variant, kind) is not None

    def use_loras(self, uses: Sequence[LoraUse]) -> None:
        """Let exactly these LoRAs act."""
        if self._loras.apply(uses):
            self.prompts.forget()

    @property
    def loras(self) -> Loras:
        """Its LoRAs."""
        return self._loras

    def bring_encoders(self) -> None:
        """Before prompts are encoded, where parts take turns."""
        if self.in_turn and self.components.encoders_are_away:
            self.components.drop([self.components.denoiser_name])
            self.components.restore(self.components.encoder_names)

    def bring_denoiser(self) -> None:
        """Before the first step, where parts take turns; its LoRAs act again."""
        if self.in_turn and self.components.denoiser is None:
            self.components.drop(self.components.encoder_names)
            self.components.restore([self.components.denoiser_name])
            uses, self._loras = self._loras.applied, self._new_loras()
            self._loras.apply(uses)

    def _new_loras(self) -> Loras:
        return Loras(self.components.family, self.pipeline(), self._find)
