"""A checkpoint ready to draw: its weights, texts and LoRAs, and what computes for its denoiser."""

import gc
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from accelerate import cpu_offload_with_hook  # type: ignore[import-untyped]
from accelerate.hooks import remove_hook_from_module  # type: ignore[import-untyped]
from diffusers.hooks import apply_group_offloading

from picowatch.catalog import Model
from picowatch.catalog.folders import settings_of
from picowatch.catalog.parts import parts_of
from picowatch.engine.model.cache import Cache
from picowatch.engine.model.compile import Compiled, Graphed
from picowatch.engine.model.devices import empty_cache
from picowatch.engine.model.families import Texts, built, reading_of
from picowatch.engine.model.memory import FULL, Rung, WeightLocation
from picowatch.engine.model.verify import Verified
from picowatch.engine.private import without_defaults
from picowatch.engine.protocol import CompileState, EngineOptions
from picowatch.families import FAMILIES
from picowatch.families.row import DENOISERS, Family, Variant
from picowatch.recipe.request import ImageRequest, LoraUse

if TYPE_CHECKING:
    from picowatch.engine.model.loras import Loras

Accelerated = Compiled | Graphed | None  # compiled code, or a card's graphs


@dataclass(eq=False)
class Placed:
    """The parts of a checkpoint, and its ControlNets."""

    _row: Family
    _variant: Variant
    # By diffusers' names. A part is None until `restore` has read it, and when it was dropped.
    by_name: dict[str, Any]
    place: WeightLocation
    _device: torch.device
    controlnets: dict[tuple[str, str], Any] = field(default_factory=dict)  # by names and hashes
    vae_file: tuple[str, str] = ("", "")  # its name and hash
    read: Callable[[Iterable[str]], dict[str, Any]] = field(init=False)
    _by_layers: WeakSet[torch.nn.Module] = field(default_factory=WeakSet)  # whose layers are moved
    _look: Callable[[], None] | None = None
    _handles: list[Any] = field(default_factory=list)

    @property
    def denoiser_names(self) -> list[str]:
        """The names of the UNet or transformer, and of a second that knows no prompt."""
        return [name for name in DENOISERS if name in self.by_name]

    @property
    def encoder_names(self) -> list[str]:
        return [name for name in self.by_name if name.startswith("text_encoder")]

    @property
    def modules(self) -> list[Any]:
        parts = (part for part in self.by_name.values() if isinstance(part, torch.nn.Module))
        return [*parts, *self.controlnets.values()]

    def pipeline(self, kind: str = "text", **parts: Any) -> Any:
        """Return a pipeline of the family with these parts, some replaced by `parts`."""
        return built(self._row, self._variant, kind, self.by_name | parts)

    def drop(self, names: Iterable[str]) -> None:
        """Release the memory of these parts."""
        for name in names:
            self.by_name[name] = None

    def restore(self, names: Collection[str]) -> None:
        """Read those of these parts that are not in memory."""
        missing = [name for name, part in self.by_name.items() if name in names and part is None]
        found = self.read(missing)
        self.by_name |= found
        self._watch(*(part for part in found.values() if isinstance(part, torch.nn.Module)))

    @contextmanager
    def watched(self, look: Callable[[], None]) -> Iterator[None]:
        """Let every block of layers call `look` first, also in parts restored meanwhile."""
        self._look = look
        try:
            self._watch(*self.modules)  # a variable here would keep them in memory
            yield
        finally:
            self._look = None
            for handle in self._handles:
                handle.remove()
            self._handles.clear()

    def _watch(self, *modules: torch.nn.Module) -> None:
        if look := self._look:  # on all modules it would cost small models some percent
            for blocks in chain.from_iterable(module.modules() for module in modules):
                for block in blocks if isinstance(blocks, torch.nn.ModuleList) else ():
                    self._handles.append(block.register_forward_pre_hook(lambda *_: look()))

    def set_up(self) -> None:
        """Set up offloading, unless all weights are on the device."""
        if self.place == "models":
            self.unhook()
            texts = [name for name in self.by_name if name.startswith("text")]
            order = (self.by_name.get(name) for name in (*texts, *self.denoiser_names, "vae"))
            # The parts that each picture needs, in the order in which they compute.
            hook, turns = None, [part for part in order if isinstance(part, torch.nn.Module)]
            for part in turns:
                _, hook = cpu_offload_with_hook(part, self._device, prev_module_hook=hook)
            # A hook takes only the part before it off the device. ControlNets compute by turns with
            # the denoiser, and others, such as siglip, not for every picture.
            for part in self.modules:
                if part not in turns:
                    cpu_offload_with_hook(part, self._device)
        elif self.place in ("layers", "encoders"):
            encoders = [self.by_name[name] for name in self.encoder_names]
            streams = self._device.type == "cuda"
            for part in self.modules if self.place == "layers" else filter(None, encoders):
                if part in self._by_layers:
                    continue
                if part is self.by_name.get("siglip"):
                    part.to(self._device)  # it reads weights of layers that it does not call
                else:
                    apply_group_offloading(
                        part,
                        self._device,
                        offload_type="leaf_level",
                        use_stream=streams,
                        record_stream=streams,
                        low_cpu_mem_usage=True,
                    )
                self._by_layers.add(part)

    def unhook(self) -> None:
        """Remove the hooks of model offloading."""
        for module in self.modules:
            remove_hook_from_module(module)

    def send_back(self) -> None:
        """Take the weights off the device after a batch, with model offloading."""
        if self.place == "models":
            for module in self.modules:
                module.to("cpu")
            empty_cache(self._device)  # others may need the memory meanwhile


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
        parts: dict[str, Any] = dict.fromkeys(part.name for part in parts_of(model))
        self.parts = Placed(self.row, self.variant, parts, place, device)
        reading, bring = reading_of(self.row, self.variant), partial(self._take_turns, texts=True)
        self.texts = Texts(reading, parts, self.parts.pipeline, bring, verified, device, kept, key)
        self._verified, self._kept, self._path, self._device = verified, kept, model.path, device
        self._loras: Loras | None = None
        self._uses: tuple[LoraUse, ...] = ()
        self.compiled: Compiled | None = None  # the denoiser
        self.graphed: Graphed | None = None  # … and its graphs

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return self.parts.by_name[self.parts.denoiser_names[0]]

    @property
    def vae(self) -> Any:
        return self.parts.by_name["vae"]

    @property
    def schedule(self) -> dict[str, Any]:
        """The noise schedule in the checkpoint's own config, without defaults."""
        return without_defaults(self.parts.by_name["scheduler"].config)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What has no effect: parts of LoRA files, and compiling where it failed."""
        loras = self._loras.warnings if self._loras else ()
        failure = self.compiled.failure if self.compiled else ""
        return (*loras, failure) if failure else loras

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
        self.parts.unhook()  # diffusers would put its hooks back for another device
        try:
            self._loras.apply(self._uses)
        finally:
            self.forget_graphs()
            self.texts.loras = self._loras.of_texts
            if self.parts.place == "models":
                self.parts.set_up()

    def forget_graphs(self) -> None:
        """Release the denoiser's graphs, because its layers change or memory is short."""
        if self.graphed:
            self.graphed.forget()

    def accelerated(
        self, request: ImageRequest, rung: Rung, options: EngineOptions, *, graphs: bool
    ) -> Accelerated:
        """Return what computes in the denoiser's place, None if nothing can.

        The settings decide, and what a batch changes in the denoiser.
        """
        if rung != FULL:
            self.forget_graphs()
        if rung != FULL or request.exact or request.tiling or request.step_cache:
            return None
        changed = request.loras or request.control or request.quantize
        # On a card, diffusers compiles a third of a UNet, which becomes slower.
        slower = self._device.type == "cuda" and self.row.kind == "unet"
        if options.compile and not changed and not slower:
            if self.compiled is None:
                given = self.denoiser, request.checkpoint_hash, self._device, options.cache
                self.compiled = Compiled(*given)
            if not self.compiled.failure:
                return self.compiled
        if not graphs:
            return None
        self.graphed = self.graphed or Graphed(self.denoiser, self._device)
        self.graphed.replayed = False
        return self.graphed

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


def compile_state(used: Accelerated) -> CompileState:
    """Return what computed in the denoiser's place, for a picture's metadata."""
    if isinstance(used, Graphed) and used.replayed:
        return "graph"
    return isinstance(used, Compiled) and not used.failure
