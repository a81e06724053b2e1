"""The most downloaded transformers of October 2026, with all their tensors' names and shapes.

The names are those of diffusers' classes, made without memory, or of the models' authors where the
tests know how they rename them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from picowatch.catalog import Catalog
from picowatch.catalog.parts import ASSETS
from tests.catalog.files import Shapes, write_model
from tests.catalog.shapes import without
from tests.engine.original_names import Tensors, anima_names, flux3_names, z_image_names

Naming = Callable[[Tensors], Tensors]
_FLUX2 = "Flux2Transformer2DModel"
_HIDREAM: dict[str, Any] = {
    "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2,
    "num_single_layers": 2, "attention_head_dim": 128, "num_attention_heads": 20,
    "caption_channels": [4096, 4096], "text_emb_dim": 2048, "axes_dims_rope": (64, 32, 32),
    "llama_layers": [0, 1, 2, 3],
}  # fmt: skip


def made(
    class_name: str, config: str | dict[str, Any] = "", naming: Naming | None = None
) -> Callable[[], Shapes]:
    """A transformer's tensors, by a config of the package or by settings."""

    def shapes() -> Shapes:
        settings = config
        if isinstance(config, str):
            file = ASSETS / config / "transformer/config.json"
            settings = json.loads(file.read_text()) if config else {}
        with torch.device("meta"):
            model = getattr(diffusers, class_name).from_config(settings)
        tensors = model.state_dict()
        tensors = naming(tensors) if naming else tensors
        return {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    return shapes


def anima(transformer: Tensors) -> Tensors:
    with torch.device("meta"):
        conditioner = diffusers.AnimaTextConditioner()
    return anima_names(transformer, conditioner.state_dict())


def shallow(class_name: str, config: dict[str, Any] | None = None) -> Callable[[], Shapes]:
    """A transformer's tensors by its class' settings, but for the number of its layers."""
    return made(class_name, {"num_layers": 2, **(config or {})})


GUIDED = {"guidance_embeds": True}
DRAWN: dict[str, tuple[Callable[[], Shapes], str, str]] = {
    "sd3.5_medium": (made("SD3Transformer2DModel", "sd3/3.5-medium"), "sd3", "3.5 Medium"),
    "sd3.5_large": (made("SD3Transformer2DModel", "sd3/3.5-large"), "sd3", "3.5 Large"),
    "flux1-dev": (made("FluxTransformer2DModel", GUIDED), "flux", "dev"),
    "flux1-krea-dev": (made("FluxTransformer2DModel", GUIDED), "flux", "Krea"),
    "flux1-kontext-dev": (made("FluxTransformer2DModel", GUIDED), "flux", "Kontext"),
    "flux1-schnell": (made("FluxTransformer2DModel"), "flux", "schnell"),
    "flux1-fill-dev": (
        made("FluxTransformer2DModel", {**GUIDED, "in_channels": 384}), "flux", "Fill"
    ),
    "flux2-dev": (made(_FLUX2), "flux2_dev", ""),
    "flux-2-klein-4b": (made(_FLUX2, "flux2"), "flux2", "klein 4B"),
    "flux-3-image-klein": (
        made("Flux3Transformer2DModel", {"flow_map": True}, flux3_names), "flux3", "klein"
    ),
    "flux-3-image-klein-base": (
        made("Flux3Transformer2DModel", {}, flux3_names), "flux3", "klein base"
    ),
    "anima-base-v1.0": (made("CosmosTransformer3DModel", "anima", anima), "anima", ""),
    "anima-turbo-v1.0": (made("CosmosTransformer3DModel", "anima", anima), "anima", "Turbo"),
    "z_image_turbo_bf16": (
        made("ZImageTransformer2DModel", "", z_image_names), "z_image", "Turbo"
    ),
    "qwen_image_2512": (made("QwenImageTransformer2DModel"), "qwen_image", ""),
    "qwen_image_edit_2509": (made("QwenImageTransformer2DModel"), "qwen_image", "Edit 2509"),
    "qwen_image_2.1": (made("QwenImage21Transformer2DModel"), "qwen_image_21", ""),
    "krea2_turbo": (made("Krea2Transformer2DModel"), "krea2", "Turbo"),
    "ernie-image": (made("ErnieImageTransformer2DModel"), "ernie_image", "Base"),
    "Chroma1-HD": (made("ChromaTransformer2DModel"), "chroma", ""),
    "lumina_2_model": (made("Lumina2Transformer2DModel"), "lumina2", ""),
}  # fmt: skip
REFUSED: dict[str, tuple[Callable[[], Shapes], str]] = {
    "hidream_i1_full": (shallow("HiDreamImageTransformer2DModel", _HIDREAM), "HiDream-I1"),
    "ideogram4": (shallow("Ideogram4Transformer2DModel"), "Ideogram 4"),
    "ideogram4_fused": (
        lambda: without(shallow("Ideogram4Transformer2DModel")(), "layers.0.attention.to_"),
        "Ideogram 4",
    ),
    "longcat_image": (
        shallow("LongCatImageTransformer2DModel", {"num_layers": 10, "num_single_layers": 20}),
        "LongCat-Image",
    ),
    "ovis_image": (shallow("OvisImageTransformer2DModel"), "Ovis-Image"),
    "glm_image": (shallow("GlmImageTransformer2DModel"), "GLM-Image"),
    "hunyuanimage2.1": (shallow("HunyuanImageTransformer2DModel"), "HunyuanImage"),
    "hunyuan_video": (shallow("HunyuanVideoTransformer3DModel"), "HunyuanVideo"),
    "wan2.2_t2v": (shallow("WanTransformer3DModel"), "Wan"),
    "ltx-2": (shallow("LTX2VideoTransformer3DModel"), "LTX"),
    "mochi": (shallow("MochiTransformer3DModel"), "Mochi"),
    "cogvideox": (shallow("CogVideoXTransformer3DModel"), "CogVideoX"),
    "cosmos_predict2": (shallow("CosmosTransformer3DModel"), "Cosmos Predict"),
    "kandinsky5lite_t2i": (shallow("Kandinsky5Transformer3DModel"), "Kandinsky 5"),
    "prx": (shallow("PRXTransformer2DModel"), "PRX"),
    "bria-3.2": (shallow("BriaTransformer2DModel"), "Bria 3.2"),
    "fibo": (shallow("BriaFiboTransformer2DModel"), "Bria FIBO"),
    "fibo2": (shallow("BriaFibo2Transformer2DModel"), "Bria FIBO"),
    "cogview4": (shallow("CogView4Transformer2DModel"), "CogView"),
    "pixart_sigma": (shallow("PixArtTransformer2DModel"), "PixArt"),
    "sana_1.6b": (shallow("SanaTransformer2DModel"), "Sana"),
    "auraflow": (shallow("AuraFlowTransformer2DModel"), "AuraFlow"),
    "nucleus_image": (shallow("NucleusMoEImageTransformer2DModel"), "Nucleus-Image"),
    "joyimage_edit": (shallow("JoyImageEditTransformer3DModel"), "JoyImage-Edit"),
}


@pytest.mark.filterwarnings("ignore")
def test_each_is_drawn_or_refused_by_its_name(tmp_path: Path) -> None:
    """No file is taken for another model, and none is unknown."""
    files = {name: row[0] for name, row in DRAWN.items()}
    files |= {name: row[0] for name, row in REFUSED.items()}
    for name, shapes in files.items():
        write_model(tmp_path / f"checkpoints/{name}.safetensors", shapes())
    found = Catalog(tmp_path).scan()
    drawn = {model.name: (model.family, model.variant) for model in found.models}
    assert drawn == {name: (family, variant) for name, (_, family, variant) in DRAWN.items()}
    said = {entry.name.removesuffix(".safetensors"): entry.reason for entry in found.refused}
    assert said.keys() == REFUSED.keys()
    assert {name: said[name] for name, (_, word) in REFUSED.items() if word not in said[name]} == {}
    assert not [reason for reason in said.values() if "picowatch knows" in reason]
