"""Keeps one checkpoint in memory, and loads another when it is asked for."""

import gc
import json
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from picowatch.catalog import Catalog, Kind, Model, weight_files
from picowatch.engine import weights
from picowatch.engine.devices import Place
from picowatch.engine.embeddings import Embeddings
from picowatch.engine.loaded import Loaded
from picowatch.engine.loras import Loras
from picowatch.engine.model_files import unchanged
from picowatch.engine.prompts import PromptEncoder
from picowatch.engine.residence import move_out
from picowatch.errors import ModelRefused, RenderFailed
from picowatch.recipe.request import ImageRequest

BAKED = "baked"
_WORDS: dict[Kind, str] = {"lora": "LoRA", "vae": "VAE"}
_WHEN_WHOLE = "When it is there and whole, save the recipe again."
# Configs and tokenizer of Stable Diffusion 1.x, which single files leave out.
SD15 = Path(__file__).parent.parent / "assets" / "sd15"


class Checkpoints:
    """The checkpoint and VAE in memory, told apart by their hashes.

    `configs` is the folder that describes single files.
    """

    def __init__(self, catalog: Catalog, place: Place, configs: Path = SD15) -> None:
        self._catalog = catalog
        self._place = place
        self._configs = configs
        self._home = place
        self._loaded: Loaded | None = None
        self._checkpoint = ""
        self._vae = ("", "")

    def held(self, request: ImageRequest) -> Loaded | None:
        """The parts this image needs, if they are in memory."""
        same = self._checkpoint == request.checkpoint_hash
        return self._loaded if same and self._vae == (request.vae, request.vae_hash) else None

    def load(self, request: ImageRequest, home: torch.device | None = None) -> Loaded:
        """The parts this image needs; what it does not need goes before anything comes.

        Weights are read to `home`, the place's device if not told otherwise.
        """
        self._home = replace(self._place, device=home or self._place.device)
        kept = self._loaded if self._checkpoint == request.checkpoint_hash else None
        self._loaded = None
        if kept is None:
            self.give_memory_back()
            kept = self._load_checkpoint(request)
        move_out(kept)
        kept.vae = None
        kept.vae = self._load_vae(request)
        self._loaded = kept
        self._checkpoint, self._vae = request.checkpoint_hash, (request.vae, request.vae_hash)
        return self._loaded

    def forget(self) -> None:
        """Hold nothing any more."""
        self._loaded = None
        self.give_memory_back()

    def give_memory_back(self) -> None:
        """Before more is taken."""
        gc.collect()
        if self._place.device.type == "cuda":
            torch.cuda.empty_cache()

    def _load_checkpoint(self, request: ImageRequest) -> Loaded:
        """All of a checkpoint but its VAE."""
        with self._proved("checkpoint", request.checkpoint, request.checkpoint_hash) as model:
            configs = model.path if model.layout == "folder" else self._configs
            encoder = self._text_encoder(model, configs)
            unet = self._unet(model, configs)
            tokenizer = _tokenizer(configs)
            schedule = read_config(configs / "scheduler" / "scheduler_config.json")
        embeddings = Embeddings(
            encoder, lambda use: self._find("embedding", use.name, use.hash).path
        )
        device = self._place.device
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
        )

    def _load_vae(self, request: ImageRequest) -> Any:
        """The VAE of the checkpoint, or the one the image asks for."""
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
        place = self._home.for_unet(model.native_size)
        config = read_config(configs / "unet" / "config.json")
        config["in_channels"] = model.in_channels
        if model.layout == "file":
            tensors = weights.read_unet(model.path, config, place)
        else:
            tensors = weights.read_tensors(weight_files(model.path / "unet"), place)
        unet = weights.empty(UNet2DConditionModel, config)
        return weights.fill(unet, tensors, f"UNet of {model.name!r}", place)

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
        what = f"{_WORDS.get(kind, kind)} {name!r}"
        return unchanged(lambda: self._find(kind, name, expected_hash), what)

    def _find(self, kind: Kind, name: str, expected_hash: str) -> Model:
        """The model file that the image was asked with: found by name, proved by hash."""
        try:
            model = self._catalog.find(kind, name)
            found_hash = self._catalog.sha256(model)
        except ModelRefused as refused:
            raise RenderFailed(refused.message, refused.remedy or _WHEN_WHOLE) from refused
        if found_hash != expected_hash:
            raise RenderFailed(
                f"The {_WORDS.get(kind, kind)} {name!r} is another file now than when this image "
                "was asked for.",
                "Save the recipe again to use it as it is now.",
            )
        return model


def _tokenizer(configs: Path) -> Any:
    return CLIPTokenizer.from_pretrained(configs / "tokenizer", local_files_only=True)


def read_config(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
