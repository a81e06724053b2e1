"""A checkpoint's weights in memory, and their place: diffusers and accelerate move them."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any
from weakref import WeakSet

import torch
from accelerate import cpu_offload_with_hook  # type: ignore[import-untyped]
from accelerate.hooks import remove_hook_from_module  # type: ignore[import-untyped]
from diffusers.hooks import apply_group_offloading

from picowatch.engine.model.families import built
from picowatch.engine.model.measures import empty_cache
from picowatch.engine.model.memory import WeightLocation
from picowatch.families.row import UNCONDITIONAL, Family, Variant


class Placed:
    """The parts of a checkpoint, and its ControlNets."""

    def __init__(
        self,
        row: Family,
        variant: Variant,
        names: Iterable[str],
        place: WeightLocation,
        device: torch.device,
    ) -> None:
        self.row = row
        self.variant = variant
        # By diffusers' names. A part is None until `restore` has read it, and when it was dropped.
        self.by_name: dict[str, Any] = dict.fromkeys(names)
        self.controlnets: dict[tuple[str, str], Any] = {}  # by names and hashes
        self.place = place
        self.vae_file = ("", "")  # its name and hash
        self.read: Callable[[Iterable[str]], dict[str, Any]]
        self._device = device
        self._by_layers: WeakSet[torch.nn.Module] = WeakSet()  # parts whose layers are moved
        self._look: Callable[[], None] | None = None
        self._handles: list[Any] = []

    @property
    def denoiser_name(self) -> str:
        return "unet" if "unet" in self.by_name else "transformer"

    @property
    def denoiser_names(self) -> list[str]:
        """The names of the UNet or transformer, and of a second that knows no prompt."""
        return [name for name in (self.denoiser_name, UNCONDITIONAL) if name in self.by_name]

    @property
    def encoder_names(self) -> list[str]:
        return [name for name in self.by_name if name.startswith("text_encoder")]

    @property
    def modules(self) -> list[Any]:
        parts = (part for part in self.by_name.values() if isinstance(part, torch.nn.Module))
        return [*parts, *self.controlnets.values()]

    def pipeline(self, kind: str = "text", **parts: Any) -> Any:
        """Return a pipeline of the family with these parts, some replaced by `parts`."""
        return built(self.row, self.variant, kind, self.by_name | parts)

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
            self._unhook()
            hook, turns = None, self._in_turn()
            for part in turns:
                _, hook = cpu_offload_with_hook(part, self._device, prev_module_hook=hook)
            # A hook takes only the part before it off the device. ControlNets compute by turns with
            # the denoiser, and others, such as siglip, not for every picture.
            for part in self.modules:
                if part not in turns:
                    cpu_offload_with_hook(part, self._device)
        elif self.place in ("layers", "encoders"):
            encoders = [self.by_name[name] for name in self.encoder_names]
            for part in self.modules if self.place == "layers" else filter(None, encoders):
                if part not in self._by_layers:
                    self._move_by_layers(part)
                    self._by_layers.add(part)

    def _in_turn(self) -> list[torch.nn.Module]:
        """Return the parts that each picture needs, in the order in which they compute."""
        texts = [name for name in self.by_name if name.startswith("text")]
        parts = (self.by_name.get(name) for name in (*texts, *self.denoiser_names, "vae"))
        return [part for part in parts if isinstance(part, torch.nn.Module)]

    def _unhook(self) -> None:
        for module in self.modules:
            remove_hook_from_module(module)

    def _move_by_layers(self, part: torch.nn.Module) -> None:
        if part is self.by_name.get("siglip"):
            part.to(self._device)  # it reads weights of layers that it does not call
            return
        streams = self._device.type == "cuda"
        apply_group_offloading(
            part,
            self._device,
            offload_type="leaf_level",
            use_stream=streams,
            record_stream=streams,
            low_cpu_mem_usage=True,
        )

    @contextmanager
    def unhooked(self) -> Iterator[None]:
        """Let layers change meanwhile: diffusers would put its hooks back for another device."""
        self._unhook()
        try:
            yield
        finally:
            if self.place == "models":
                self.set_up()

    def send_back(self) -> None:
        """Take the weights off the device after a batch, with model offloading."""
        if self.place == "models":
            for module in self.modules:
                module.to("cpu")
            empty_cache(self._device)  # others may need the memory meanwhile
