"""A checkpoint ready to draw: its weights, texts and LoRAs, and what computes for its denoiser."""

import gc
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from picowatch.catalog import Model
from picowatch.catalog.folders import settings_of
from picowatch.catalog.parts import parts_of
from picowatch.engine.model.cache import Cache
from picowatch.engine.model.compile import Compiled
from picowatch.engine.model.graphs import Graphed
from picowatch.engine.model.memory import FULL, Rung, WeightLocation
from picowatch.engine.model.placed import Placed
from picowatch.engine.model.texts import Texts, reading_of
from picowatch.engine.model.verify import Verified
from picowatch.engine.private import without_defaults
from picowatch.engine.protocol import CompileState, EngineOptions
from picowatch.families import FAMILIES
from picowatch.recipe.request import ImageRequest, LoraUse

if TYPE_CHECKING:
    from picowatch.engine.model.loras import Loras


class Loaded:
    """A checkpoint in memory, in the cache by `key`; `place` says where its weights are."""

    def __init__(
        self,
        model: Model,
        verified: Verified,
        device: torch.device,
        place: WeightLocation,
        kept: Cache,
        key: Hashable,
    ) -> None:
        self.row = FAMILIES[model.family]
        self.variant = self.row.variant(model.variant)
        if self.row.kind == "general":
            self.variant = replace(self.variant, options=settings_of(model.path))
        self.native_size = model.native_size
        names = [part.name for part in parts_of(model)]
        self.parts = Placed(self.row, self.variant, names, place, device)
        self.texts = Texts(
            reading_of(self.row, self.variant),
            self.parts.by_name,
            self.parts.pipeline,
            partial(self._take_turns, texts=True),
            verified,
            device,
            kept,
            key,
        )
        self._verified, self._kept, self._path = verified, kept, model.path
        self._loras: Loras | None = None
        self._uses: tuple[LoraUse, ...] = ()
        self.compiled: Compiled | None = None  # the denoiser
        self.graphed: Graphed | None = None  # … and its graphs

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return self.parts.by_name[self.parts.denoiser_name]

    @property
    def vae(self) -> Any:
        return self.parts.by_name["vae"]

    @property
    def schedule(self) -> dict[str, Any]:
        """The noise schedule in the checkpoint's own config, without defaults."""
        return without_defaults(self.parts.by_name["scheduler"].config)

    @property
    def lora_warnings(self) -> tuple[str, ...]:
        """Warnings about parts of LoRA files that have no effect."""
        return self._loras.warnings if self._loras else ()

    def use_loras(self, uses: Sequence[LoraUse]) -> None:
        """Use exactly these LoRAs, where parts take turns on each as it comes."""
        self._uses = tuple(uses)
        if self._loras is None and self._uses:
            # Imported here: every engine's start would wait for peft.
            from picowatch.engine.model.loras import Loras

            given = self.parts.pipeline, self.row.key, self._verified, self._kept, self._path
            self._loras = Loras(*given)
        if self._loras is None or self._loras.applied == self._uses:
            return
        try:
            with self.parts.unhooked():
                self._loras.apply(self._uses)
        finally:
            self.forget_graphs()
            self.texts.loras = self._loras.of_texts

    def forget_graphs(self) -> None:
        """Release the denoiser's graphs, because its layers change or memory is short."""
        if self.graphed:
            self.graphed.forget()

    def bring_denoiser(self) -> None:
        """Restore the denoiser and its LoRAs before the first step, where parts take turns."""
        self._take_turns(texts=False)

    def _take_turns(self, *, texts: bool) -> None:
        """Where parts take turns, drop some and restore others, unless these are in memory."""
        parts = self.parts
        turns = parts.denoiser_names, parts.encoder_names
        dropped, brought = turns if texts else reversed(turns)
        if parts.place == "turns" and any(parts.by_name[name] is None for name in brought):
            self._loras = None
            parts.drop(dropped)
            gc.collect()  # frees modules that refer to each other
            parts.restore(brought)
            self.use_loras(self._uses)


# Compiled code, or a card's graphs.
Accelerated = Compiled | Graphed | None


class Accelerator:
    """Decides for each batch by the settings, and by what the batch changes in the denoiser."""

    def __init__(self, options: EngineOptions, device: torch.device) -> None:
        self._device = device
        self._on_card = device.type == "cuda"
        self._compiles, self._cache = options.compile, options.cache
        self.uses_graphs = options.graphs and self._on_card

    def of(self, loaded: Loaded, request: ImageRequest, rung: Rung) -> Accelerated:
        """Return what computes in the denoiser's place, None if nothing can."""
        if rung != FULL:
            loaded.forget_graphs()
        if rung != FULL or request.exact or request.tiling or request.step_cache:
            return None
        changed = request.loras or request.control or request.quantize
        # On a card, diffusers compiles a third of a UNet, which becomes slower.
        if self._compiles and not changed and not (self._on_card and loaded.row.kind == "unet"):
            if loaded.compiled is None:
                key = request.checkpoint_hash
                loaded.compiled = Compiled(loaded.denoiser, key, self._device, self._cache)
            if not loaded.compiled.failure:
                return loaded.compiled
        if not self.uses_graphs:
            return None
        loaded.graphed = loaded.graphed or Graphed(loaded.denoiser, self._device)
        loaded.graphed.replayed = False
        return loaded.graphed

    def state(self, loaded: Loaded, used: Accelerated) -> CompileState:
        """Return what computed in the denoiser's place, for a picture's metadata."""
        if isinstance(used, Graphed) and used.replayed:
            return "graph"
        return isinstance(used, Compiled) and not self.warnings(loaded)

    def warnings(self, loaded: Loaded) -> tuple[str, ...]:
        """Return why the checkpoint could not be compiled."""
        failure = loaded.compiled.failure if loaded.compiled else ""
        return (failure,) if failure else ()
