"""What computes in a denoiser's place: compiled code, or a card's graphs."""

import torch

from picowatch.engine.model.compile import Compiled
from picowatch.engine.model.graphs import Graphed
from picowatch.engine.model.loaded import Loaded
from picowatch.engine.model.memory import FULL, Rung
from picowatch.engine.protocol import CompileState, EngineOptions
from picowatch.recipe.request import ImageRequest

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
