"""Parts and whole checkpoints of tiny flow families in files, as people share them."""

import importlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

from picowatch.catalog.encoders import ENCODERS
from picowatch.catalog.folder_files import read_index
from picowatch.families import FAMILIES
from tests.engine.ldm import weights
from tests.engine.original_names import Tensors, flux2_vae_names, ldm_vae_names, wan_names
from tests.engine.tiny_flows import FOLDERS, tiny_flow

Z_IMAGE, FLUX, SD35, KLEIN = "Z-Image-Turbo", "FLUX.1-dev", "sd3.5-medium", "FLUX.2-klein"
SD3, CHROMA, LUMINA, QWEN = "sd3-medium", "Chroma1-HD", "Lumina-Image-2.0", "Qwen-Image"
ANIMA = "Anima"


# The text encoders of tiny folders, and how files of them are called.
ENCODERS_OF = {
    FLUX: {"text_encoder": "CLIP L", "text_encoder_2": "T5 XXL"},
    Z_IMAGE: {"text_encoder": "Qwen3 4B"},
    SD35: {"text_encoder": "CLIP L", "text_encoder_2": "CLIP G", "text_encoder_3": "T5 XXL"},
    SD3: {"text_encoder": "CLIP L", "text_encoder_2": "CLIP G"},
    KLEIN: {"text_encoder": "Qwen3 4B"},
    CHROMA: {"text_encoder": "T5 XXL"},
    LUMINA: {"text_encoder": "Gemma 2 2B"},
    QWEN: {"text_encoder": "Qwen2.5-VL 7B"},
    ANIMA: {"text_encoder": "Qwen3 0.6B"},
}
# ldm_vae_names otherwise
VAE_NAMES = {KLEIN: flux2_vae_names, QWEN: wan_names, ANIMA: wan_names}
ALONE = (FLUX, Z_IMAGE, SD35, SD3, KLEIN)


def pretend(monkeypatch: pytest.MonkeyPatch, assets: Path, folder: str) -> None:
    """Replace the package's configs and the known encoders by those of a tiny folder."""
    family = FOLDERS[folder].family
    own = ("transformer", "scheduler", "text_conditioner")
    places = {part: f"{family}/{part}" for part in own} | {"t5_tokenizer": "t5/tokenizer"}
    places["vae"] = f"{FAMILIES[family].vae_assets or family}/vae"
    for part, encoder in ENCODERS_OF[folder].items():
        known = ENCODERS[encoder]
        shape = tuple(tensors_of(folder, part)[known.tensor].shape)
        monkeypatch.setitem(ENCODERS, encoder, known._replace(shape=shape))
        places |= {part: known.config, part.replace("text_encoder", "tokenizer"): known.words}
    if folder in (*ALONE, ANIMA):
        without_weights = shutil.ignore_patterns("*.safetensors")
        for part in places.keys() & read_index(tiny_flow(folder)):
            source, place = tiny_flow(folder) / part, assets / places[part]
            shutil.copytree(source, place, ignore=without_weights, dirs_exist_ok=True)
        monkeypatch.setattr("picowatch.catalog.parts.ASSETS", assets)
    tiny = "txt_in.weight:48 | context_embedder.weight:48"
    klein = FAMILIES["flux2"].variants
    klein = {**klein, "klein 4B": replace(klein["klein 4B"], sign=tiny)}
    monkeypatch.setitem(FAMILIES, "flux2", replace(FAMILIES["flux2"], variants=klein))


def tensors_of(folder: str, part: str) -> Tensors:
    """A text encoder or VAE, in the names that files of it have."""
    if part == "vae":
        return VAE_NAMES.get(folder, ldm_vae_names)(weights(tiny_flow(folder) / part))
    kind, held = read_index(tiny_flow(folder))[part][1], weights_of(folder, part)
    if "T5" in kind:
        return {name: tensor for name, tensor in held.items() if "embed_tokens" not in name}
    if folder == QWEN:
        return {
            name.replace("model.language_model.", "model."): weight for name, weight in held.items()
        }
    if "CLIP" not in kind:
        return {f"model.{name.removeprefix('model.')}": tensor for name, tensor in held.items()}
    bare = {name.removeprefix("text_model."): tensor for name, tensor in held.items()}
    return {name if "projection" in name else f"text_model.{name}": t for name, t in bare.items()}


PREFIX = "model.diffusion_model."


def weights_of(name: str, part: str = "transformer") -> Tensors:
    library, kind = read_index(tiny_flow(name))[part]
    made = getattr(importlib.import_module(library), kind)
    return dict(made.from_pretrained(tiny_flow(name), subfolder=part).state_dict())


def write_gguf(path: Path, tensors: Tensors, kind: str) -> None:
    """A GGUF file as city96's program and llama.cpp write it.

    Matrices are quantised, the rest is in full; the first sides of length 1 are left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "lumina2")
    for name, tensor in tensors.items():
        chosen = _type_of(name, tensor, kind)
        while tensor.ndim > 1 and len(tensor) == 1:
            tensor = tensor[0]
        writer.add_tensor(name, quantize(tensor.float().numpy(), chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rounded(tensors: Tensors, kind: str) -> Tensors:
    made = {}
    for name, tensor in tensors.items():
        chosen = _type_of(name, tensor, kind)
        held = dequantize(quantize(tensor.float().numpy(), chosen), chosen)
        made[name] = torch.from_numpy(held.copy())
    return made


def _type_of(name: str, tensor: torch.Tensor, kind: str) -> GGMLQuantizationType:
    if name.endswith("pad_token"):
        return GGMLQuantizationType.BF16
    matrix = name.endswith(".weight") and tensor.ndim == 2 and tensor.shape[1] % 32 == 0
    return GGMLQuantizationType[kind if matrix else "F32"]
