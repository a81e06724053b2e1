"""Keeps checkpoints in memory, and loads others when they are requested."""

import gc
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from picowatch.catalog import Catalog, Kind, Model, read_config, weight_files
from picowatch.engine.devices import Target
from picowatch.engine.memory.usage import free_bytes
from picowatch.engine.models import weights
from picowatch.engine.models.loaded import Loaded, move_out
from picowatch.engine.models.model_files import WORDS, find_model, unchanged
from picowatch.engine.unet.embeddings import Embeddings
from picowatch.engine.unet.loras import Loras
from picowatch.engine.unet.onednn import suits, take_onednn
from picowatch.engine.unet.prompts import PromptEncoder
from picowatch.recipe.fields import BAKED
from picowatch.recipe.request import ImageRequest

# Files hold float16 as a rule, which float32 doubles.
_WEIGHTS_GROW = 2
# What a batch takes besides the weights.
_WORKING_BYTES = 3 * 2**30
# Configs and tokenizer of Stable Diffusion 1.x, which single files leave out.
SD15 = Path(__file__).parents[2] / "assets" / "sd15"


class _Kept(NamedTuple):
    """A checkpoint in memory, and the name and hash of the VAE in it."""

    loaded: Loaded
    vae: tuple[str, str]


class Checkpoints:
    """The checkpoints in memory, told apart by their hashes: the last one, more while they fit.

    `configs` is the folder that describes single files.
    """

    def __init__(self, catalog: Catalog, target: Target, configs: Path = SD15) -> None:
        self._catalog = catalog
        self._target = target
        self._configs = configs
        self._home = target
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # the last used last

    def held(self, request: ImageRequest) -> Loaded | None:
        """The parts this image needs, if they are in memory."""
        kept = self._kept.get(request.checkpoint_hash)
        if kept is None or kept.vae != (request.vae, request.vae_hash):
            return None
        self._kept.move_to_end(request.checkpoint_hash)
        return kept.loaded

    def load(self, request: ImageRequest, home: torch.device | None = None) -> Loaded:
        """The parts this image needs; what does not fit beside them goes before anything comes.

        Weights are read to `home`, the target's device if not told otherwise: then memory is
        short, and nothing else is kept.
        """
        self._home = replace(self._target, device=home or self._target.device)
        kept = self._kept.pop(request.checkpoint_hash, None)
        if home is not None:
            self.forget()
        loaded = kept.loaded if kept else None
        if loaded is None:
            self._make_room(request)
            loaded = self._load_checkpoint(request)
        move_out(loaded)
        loaded.vae = None
        loaded.vae = self._load_vae(request)
        self._kept[request.checkpoint_hash] = _Kept(loaded, (request.vae, request.vae_hash))
        return loaded

    def forget(self) -> None:
        """Hold nothing any more."""
        self._kept.clear()
        self.give_memory_back()

    def forget_others(self, request: ImageRequest) -> bool:
        """Hold this image's checkpoint alone; False if nothing else was there."""
        others = [name for name in self._kept if name != request.checkpoint_hash]
        for name in others:
            del self._kept[name]
        return bool(others)

    def _make_room(self, request: ImageRequest) -> None:
        """Let the checkpoints that were used longest ago go until another one fits."""
        model = self._find("checkpoint", request.checkpoint, request.checkpoint_hash)
        needed = _WEIGHTS_GROW * model.bytes + _WORKING_BYTES
        while self._kept and free_bytes(self._target.device) < needed:
            self._kept.popitem(last=False)
            self.give_memory_back()

    def give_memory_back(self) -> None:
        """Before more is taken."""
        gc.collect()
        if self._target.device.type == "cuda":
            torch.cuda.empty_cache()

    def _load_checkpoint(self, request: ImageRequest) -> Loaded:
        """All of a checkpoint but its VAE."""
        with self._proved("checkpoint", request.checkpoint, request.checkpoint_hash) as model:
            configs = model.path if model.layout == "folder" else self._configs
            encoder = self._text_encoder(model, configs)
            unet = self._unet(model, configs)
            single = model.layout == "file"
            tokenizer = _tokenizer_of_single_files(configs) if single else _tokenizer(configs)
            schedule = read_config(configs / "scheduler" / "scheduler_config.json")
        embeddings = Embeddings(
            encoder, lambda use: self._find("embedding", use.name, use.hash).path
        )
        device = self._target.device
        return Loaded(
            prompts=PromptEncoder(tokenizer, encoder, embeddings, device),
            text_encoder=encoder,
            unet=unet,
            vae=None,
            schedule=schedule,
            loras=Loras(
                unet, encoder, lambda use: self._find("lora", use.name, use.hash).path, device
            ),
            embeddings=embeddings,
            native_size=model.native_size,
        )

    def _load_vae(self, request: ImageRequest) -> Any:
        """The VAE of the checkpoint, or the one the image requests."""
        if request.vae == BAKED:
            proved = self._proved("checkpoint", request.checkpoint, request.checkpoint_hash)
        else:
            proved = self._proved("vae", request.vae, request.vae_hash)
        with proved as model:
            return self._read_vae(model)

    def _read_vae(self, model: Model) -> Any:
        if model.layout == "file":
            config = read_config(self._configs / "vae" / "config.json")
            tensors = weights.read_vae(model.path, config, self._home)
        else:
            folder = model.path / "vae" if model.kind == "checkpoint" else model.path
            config = read_config(folder / "config.json")
            tensors = weights.read_tensors(weight_files(folder), self._home)
            tensors = weights.modern_vae_names(tensors)
        vae = weights.empty(AutoencoderKL, config)
        return weights.fill(vae, tensors, f"VAE of {model.name!r}", self._home)

    def _unet(self, model: Model, configs: Path) -> Any:
        target = self._home.for_unet(model.native_size)
        config = read_config(configs / "unet" / "config.json")
        config["in_channels"] = model.in_channels
        if model.layout == "file":
            tensors = weights.read_unet(model.path, config, target)
        else:
            tensors = weights.read_tensors(weight_files(model.path / "unet"), target)
        unet = weights.empty(UNet2DConditionModel, config)
        unet = weights.fill(unet, tensors, f"UNet of {model.name!r}", target)
        # The device it computes on, not the one that holds it until the memory ladder moves it.
        if suits(self._target.device, target.dtype):
            take_onednn(unet)
        return unet

    def _text_encoder(self, model: Model, configs: Path) -> Any:
        config = read_config(configs / "text_encoder" / "config.json")
        if model.layout == "file":
            tensors = weights.read_text_encoder(model.path, self._home)
        else:
            tensors = weights.read_tensors(weight_files(model.path / "text_encoder"), self._home)
        encoder = weights.empty(CLIPTextModel, CLIPTextConfig(**config))
        tensors = weights.text_encoder_names(encoder, tensors)
        return weights.fill(encoder, tensors, f"text encoder of {model.name!r}", self._home)

    def _proved(self, kind: Kind, name: str, expected_hash: str) -> AbstractContextManager[Model]:
        """The model file for reading: it is the one asked for before and after that."""
        what = f"{WORDS.get(kind, kind)} {name!r}"
        return unchanged(lambda: self._find(kind, name, expected_hash), what)

    def _find(self, kind: Kind, name: str, expected_hash: str) -> Model:
        """The model file that the image requests: found by name, verified by hash."""
        return find_model(self._catalog, kind, name, expected_hash)


@cache
def _tokenizer_of_single_files(configs: Path) -> Any:
    """They all share one, which takes a third of a second to read."""
    return _tokenizer(configs)


def _tokenizer(configs: Path) -> Any:
    return CLIPTokenizer.from_pretrained(configs / "tokenizer", local_files_only=True)
