"""A checkpoint ready to draw: its parts, encoded prompts and LoRAs."""

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from accelerate import cpu_offload_with_hook  # type: ignore[import-untyped]
from diffusers.hooks import apply_group_offloading

from picowatch.catalog import Model
from picowatch.catalog.parts import parts_of
from picowatch.engine.model.families import (
    Encoded,
    built,
    editor_of,
    prompt_encoder,
    reader_of,
)
from picowatch.engine.model.memory import Place
from picowatch.engine.model.prompts import PromptEncoder
from picowatch.engine.model.verify import Verified
from picowatch.families import FAMILIES
from picowatch.recipe.request import LoraUse

if TYPE_CHECKING:
    from picowatch.engine.model.compile import Compiled
    from picowatch.engine.model.graphs import Graphed
    from picowatch.engine.model.loras import Loras

_KEPT_TEXTS = 32  # up to ten megabytes each


class Loaded:
    """A checkpoint in memory: its parts by diffusers' names, and ControlNets by their hashes.

    `place` says where its weights are, `vae_file` is the name and the hash of its VAE. A part is
    None before `restore` reads it, and after it was dropped to make room for another.
    """

    def __init__(
        self, model: Model, verified: Verified, device: torch.device, place: Place
    ) -> None:
        self.row = FAMILIES[model.family]
        self.variant = self.row.variant(model.variant)
        self.reader = reader_of(model.family, model.variant)
        self.native_size = model.native_size
        self.parts: dict[str, Any] = {part.name: None for part in parts_of(model)}
        self.controlnets: dict[str, Any] = {}
        self.read: Callable[[Iterable[str]], dict[str, Any]]
        self.place = place
        self.vae_file = ("", "")
        self._look: Callable[[], None] | None = None
        self._handles: list[Any] = []
        self._verified = verified
        self._device = device
        self._base: Any = None  # the pipeline that moves weights
        self._moved: WeakSet[torch.nn.Module] = WeakSet()  # with group offloading
        self.compiled: Compiled | None = None  # the denoiser
        self.graphed: Graphed | None = None  # … and its graphs
        self._loras: Loras | None = None
        self._uses: tuple[LoraUse, ...] = ()
        self._texts: dict[object, Any] = {}  # what a flow family's text encoders made of them

    @cached_property
    def prompts(self) -> PromptEncoder:
        """The encoder of a UNet's prompts."""
        return prompt_encoder(self.row.key, self.parts, self._verified, self._device)

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return self.parts[self._denoiser_name]

    @property
    def vae(self) -> Any:
        """The VAE."""
        return self.parts["vae"]

    @property
    def _denoiser_name(self) -> str:
        return "unet" if self.row.kind == "unet" else "transformer"

    @property
    def _encoder_names(self) -> list[str]:
        return [name for name in self.parts if name.startswith("text_encoder")]

    @property
    def schedule(self) -> dict[str, Any]:
        """The noise schedule in the checkpoint's own config, without defaults."""
        config = dict(self.parts["scheduler"].config)
        defaults = config.pop("_use_default_values", ())
        return {key: value for key, value in config.items() if key not in defaults}

    @property
    def modules(self) -> list[Any]:
        """All modules in memory."""
        return [*self._computing_parts(), *self.controlnets.values()]

    @property
    def lora_warnings(self) -> tuple[str, ...]:
        """Warnings about parts of LoRA files that have no effect."""
        return self._loras.warnings if self._loras else ()

    def pipeline(self, kind: str = "text", **parts: Any) -> Any:
        """Return a pipeline of the family with its parts, some replaced by `parts`."""
        return built(self.row, self.variant, kind, self.parts | parts)

    def drop(self, names: Iterable[str]) -> None:
        """Release the memory of these parts."""
        for name in names:
            self.parts[name] = None

    def restore(self, names: Collection[str]) -> None:
        """Read those of these parts that are not in memory."""
        missing = [name for name, part in self.parts.items() if name in names and part is None]
        found = self.read(missing)
        self.parts |= found
        self._watch(*(part for part in found.values() if isinstance(part, torch.nn.Module)))

    @contextmanager
    def watched(self, look: Callable[[], None]) -> Iterator[None]:
        """Let every block of layers call `look` first, also in parts that are restored meanwhile.

        Hooks on all modules would cost small models some percent of their time.
        """
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
        if look := self._look:
            for blocks in chain.from_iterable(module.modules() for module in modules):
                for block in blocks if isinstance(blocks, torch.nn.ModuleList) else ():
                    self._handles.append(block.register_forward_pre_hook(lambda *_: look()))

    def place_weights(self) -> None:
        """Set up diffusers' offloading, unless all weights are on the device."""
        if self.place == "models":
            if self._base is not None:
                self._base.remove_all_hooks()
            self._base = self.pipeline()
            self._base.enable_model_cpu_offload(device=self._device)
            for net in self.controlnets.values():
                if not hasattr(net, "_hf_hook"):
                    cpu_offload_with_hook(net, self._device)
        elif self.place in ("layers", "encoders"):
            for part in self.modules if self.place == "layers" else self._encoders():
                if part not in self._moved:
                    self._move_by_layers(part)
                    self._moved.add(part)

    def _move_by_layers(self, part: torch.nn.Module) -> None:
        if part is self.parts.get("siglip"):
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

    def _encoders(self) -> list[torch.nn.Module]:
        return [self.parts[name] for name in self._encoder_names if self.parts[name] is not None]

    def _computing_parts(self) -> list[torch.nn.Module]:
        parts = self.parts.values()
        return [part for part in parts if isinstance(part, torch.nn.Module)]

    def send_back(self) -> None:
        """Take the weights off the device after a batch, with model offloading."""
        if self._base is not None:
            self._base.maybe_free_model_hooks()
            for net in self.controlnets.values():  # they compute by turns with the denoiser
                net.to("cpu")

    def use_loras(self, uses: Sequence[LoraUse]) -> None:
        """Use exactly these LoRAs, where parts take turns on each as it comes."""
        self._uses = tuple(uses)
        self._apply_loras()

    def _apply_loras(self) -> None:
        if self._loras is None and self._uses:
            # Imported here: every engine's start would wait for peft.
            from picowatch.engine.model.loras import Loras

            self._loras = Loras(self.pipeline, self.row.key, self._verified)
        if self._loras is None or self._loras.applied == self._uses:
            return
        if self._base is not None:
            # diffusers would put them back for another device.
            self._base.remove_all_hooks()
        before = self._loras.of_texts
        try:
            self._loras.apply(self._uses)
        finally:
            self.forget_graphs()
            if self.row.kind == "unet" and before != self._loras.of_texts:
                self.prompts.forget()
            if self._base is not None:
                self.place_weights()

    def forget_graphs(self) -> None:
        """Release the denoiser's graphs, because its layers change or memory is short."""
        if self.graphed:
            self.graphed.forget()

    def encoded(self, text: str) -> Encoded:
        """Return the embeddings of a text for a flow family."""
        encode = self.reader.encode
        found: Encoded = self._known(text, lambda: encode(self.pipeline(), text))
        return found

    def read_with(self, text: str, pictures: Sequence[Any], hashes: tuple[str, ...]) -> Any:
        """Return the result of the editing pipeline's `encode_prompt` for a text and pictures."""
        editor = editor_of(self.row, self.variant)
        # Some encoders see the photos in the size of the picture; others need only their number.
        key = text, (hashes, tuple(one.size for one in pictures)) if editor.sees else len(hashes)

        def read() -> Any:
            pipeline = self.pipeline("edit")
            return pipeline.encode_prompt(prompt=[text], **editor.reads(pipeline, pictures))

        return self._known(key, read)

    def _known(self, key: object, encode: Callable[[], Any]) -> Any:
        """Return what the text encoders, which come for it, made of a text before or make now."""
        key = self._loras.of_texts if self._loras else (), key
        if key not in self._texts:
            if self.place == "turns":
                self._exchange([self._denoiser_name], self._encoder_names)
            while len(self._texts) >= _KEPT_TEXTS:
                del self._texts[next(iter(self._texts))]
            self._texts[key] = encode()
        return self._texts[key]

    def bring_denoiser(self) -> None:
        """Restore the denoiser and its LoRAs before the first step, where parts take turns."""
        if self.place == "turns":
            self._exchange(self._encoder_names, [self._denoiser_name])

    def _exchange(self, dropped: Sequence[str], brought: Sequence[str]) -> None:
        """Drop some parts and restore others, unless the latter are in memory."""
        if all(self.parts[name] is not None for name in brought):
            return
        self._loras = None
        self.drop(dropped)
        gc.collect()  # frees modules that refer to each other
        self.restore(brought)
        self._apply_loras()
