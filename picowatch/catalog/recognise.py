"""Recognises from its header alone what a single safetensors file is.

Key names: CompVis' latent-diffusion layout (`model.diffusion_model.`, `first_stage_model.`,
`cond_stage_model.`), Stability's for SDXL (`conditioner.embedders.`), diffusers' for single
parts. LoRAs and embeddings are recognised in adapters.py.
"""

import re
from itertools import groupby
from typing import Any

from picowatch.catalog import adapters
from picowatch.catalog.controlnets import (
    is_controlnet,
    is_first_controlnet,
    recognise_controlnet,
)
from picowatch.catalog.families import ONLY, UNET, transformer
from picowatch.catalog.headers import Header
from picowatch.catalog.models import FOLDERS, Kind, Layout, Recognised
from picowatch.catalog.storage import stored
from picowatch.catalog.text_encoders import ENCODERS, contents, text_encoder
from picowatch.catalog.upscalers import layout_of
from picowatch.catalog.vaes import is_vae, recognise_vae
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES, FAMILY_OF_WIDTH, UNETS, Family, hub_folder
from picowatch.recipe.messages.problems import shown

# Halves of a TAESD, in its author's names or diffusers'.
_TAESD = {"decoder.layers.0.weight", "1.conv.0.weight", "3.conv.0.weight"}
_TAESD |= {f"taesd_{part}.{name}" for part in ("encoder", "decoder") for name in _TAESD}
USABLE_INPUTS = (4, 9)  # 9 are an inpainting checkpoint's
# What UNets with other inputs are for.
OTHER_INPUTS = {
    5: "is a depth-to-image checkpoint, which also needs a depth map: not supported.",
    7: "is an upscaling checkpoint: not supported.",
    8: "is an image-editing checkpoint (InstructPix2Pix): not supported.",
}
REFINER = (
    "is the refiner of Stable Diffusion XL, which only finishes pictures of the base model: "
    "not supported. Use the base checkpoint without it."
)
# How many transformer blocks each attention of the UNet's first half has in SDXL, and those of a
# level in models that were distilled from it.
_SDXL_DEPTHS = [2, 2, 10, 10]
_DISTILLED = {"SSD-1B": [2, 4], "Segmind Vega": [1, 2], "KOALA-700M": [2, 5], "KOALA-1B": [2, 6]}
_TRANSFORMER_BLOCK = re.compile(
    r"(?:model\.diffusion_model\.)?input_blocks\.(\d+)\.1\.transformer_blocks\.(\d+)\."
)
# Without their scales, such weights would give noise: ComfyUI's and bitsandbytes' names.
_SCALED = re.compile(
    r"(?:^|\.)scaled_fp8$|\.(?:scale_weight|weight_scale|comfy_quant)$|\.quant_state\."
)

_OF_A_FOLDER = (
    "of a diffusers folder: copy the whole folder with its model_index.json, or get a complete "
    "checkpoint"
)
ARTICLES = {
    "checkpoint": "a checkpoint",
    "vae": "a VAE",
    "text_encoder": "a text encoder",
    "lora": "a LoRA",
    "embedding": "an embedding",
    "upscaler": "an upscaler",
    "controlnet": "a ControlNet",
    "depth": "a model that guesses depth",
}


def recognise(header: Header) -> Recognised:
    """What the file is, whichever family it belongs to; ModelRefused for what nothing can use."""
    if f"{UNET}input_blocks.0.0.weight" in header.shapes and not is_first_controlnet(header):
        return _unet(header, UNET)
    if is_controlnet(header):
        return recognise_controlnet(header)
    if adapters.is_lora(header):
        return _lora(header)
    if "input_blocks.0.0.weight" in header.shapes:
        return _unet(header, "")
    found = transformer(header)
    if found:
        return Recognised(
            "checkpoint",
            found.family,
            FAMILIES[found.family].native_size,
            variant=found.variant,
            stored=stored(header),
            contents=contents(header, found.prefix),
        )
    if header.has(UNET):
        raise ModelRefused(f"is a checkpoint of an unknown kind: {ONLY}")
    if is_vae(header):
        return recognise_vae(header)
    encoder = text_encoder(header)
    if encoder and not ENCODERS[encoder].file:
        raise ModelRefused(
            f"is {encoder}, a text encoder that picowatch reads from diffusers folders and whole "
            "checkpoints only."
        )
    if encoder:
        return Recognised("text_encoder", "", variant=encoder, stored=stored(header))
    layout = layout_of(header.shapes)
    if layout:
        return Recognised("upscaler", "", variant=layout.architecture, scale=layout.scale)
    if adapters.is_embedding(header):
        return Recognised("embedding", adapters.embedding_family(header))
    raise ModelRefused(f"is {_something_else(header)}.")


def _lora(header: Header) -> Recognised:
    return Recognised(
        "lora",
        adapters.lora_family(header),
        base_model=adapters.base_model(header),
        trained_as=adapters.trained_as(header),
        trigger_words=adapters.trigger_words(header),
    )


def expect_usable(found: Recognised, kind: Kind, layout: Layout = "file", right: str = "") -> None:
    """A file belongs in the folder of its kind, and to a family that can be rendered.

    `right` is what that folder is called here, if not as usual.
    """
    if found.family and not _is_usable(FAMILIES[found.family], found.kind, kind, layout):
        raise ModelRefused(f"{_with_family(found)}: {_why_not(found)}")
    if found.kind != kind:
        folder = right or FOLDERS[found.kind]
        raise ModelRefused(
            f"is {ARTICLES[found.kind]}, not {ARTICLES[kind]}: move it to models/{folder}/."
        )


def _is_usable(row: Family, found: Kind, kind: Kind, layout: Layout) -> bool:
    if found == "lora":
        return row.loras
    if kind == "checkpoint" and row.kind == "flow":
        return layout == "folder" or not row.short
    return row.kind == "unet"


def expect_rendered(found: Recognised, layout: Layout) -> None:
    """A checkpoint's variant is one that can be rendered; a file's is exactly that."""
    if found.kind != "checkpoint" or FAMILIES[found.family].kind != "flow":
        return
    variants = FAMILIES[found.family].variants
    if found.variant not in variants and (layout == "file" or "" not in variants):
        raise ModelRefused(f"{_with_family(found)}: {ONLY}")


def _why_not(found: Recognised) -> str:
    """Say why: its family is not rendered, or only from folders: with one to get instead."""
    if FAMILIES[found.family].kind != "flow":
        return ONLY
    if found.kind == "lora":
        return "diffusers loads none for this family."
    return (
        "picowatch renders it from diffusers folders only. Get the folder "
        f"{hub_folder(found.family, found.variant)} instead (docs/models.md)."
    )


def _with_family(found: Recognised) -> str:
    name = FAMILIES[found.family].name + (f" ({found.variant})" if found.variant else "")
    if found.kind == "lora":
        return f"is a LoRA for {name}"
    if found.kind in ("embedding", "controlnet"):
        return f"is {ARTICLES[found.kind]} for {name}"
    return f"is a checkpoint of {name}"


def _unet(header: Header, prefix: str) -> Recognised:
    """A checkpoint in the original layout: a UNet, and with it text encoders and VAE."""
    _refuse_variants(header, prefix)
    family = _unet_family(header, prefix)
    in_channels = header.inputs(f"{prefix}input_blocks.0.0.weight")
    if family in UNETS:
        _check_complete(header, family)
    prediction = _prediction(header)
    return Recognised(
        "checkpoint",
        family,
        _native_size(family, prediction, in_channels),
        in_channels,
        FAMILIES[family].text_layers,
        prediction,
        "ztsnr" in header.shapes,
        text_width=cross_width(header, prefix),
    )


def _refuse_variants(header: Header, prefix: str) -> None:
    """UNets that need what picowatch has not: another noise schedule, more inputs, other layers."""
    shapes = header.shapes
    if "edm_mean" in shapes or "edm_std" in shapes:
        raise ModelRefused("is Playground 2.5, which has a noise schedule of its own (EDM): "
                           "not supported.")  # fmt: skip
    if "edm_vpred.sigma_max" in shapes:
        raise ModelRefused(
            "is an EDM v-prediction checkpoint (CosXL), with a noise schedule of its own: "
            "not supported."
        )
    if any(".time_stack." in name for name in shapes):
        raise ModelRefused("is a video checkpoint (Stable Video Diffusion): not supported.")
    if any(_SCALED.search(name) for name in shapes):
        raise ModelRefused(
            "is quantised, with scales beside its weights (scaled fp8, NF4): not supported. "
            "Get it in float16 or bfloat16."
        )
    inputs = header.inputs(f"{prefix}input_blocks.0.0.weight")
    if inputs not in USABLE_INPUTS:
        unknown = f"is a checkpoint of an unknown kind: {ONLY}"
        raise ModelRefused(OTHER_INPUTS.get(inputs, unknown))
    width = cross_width(header, prefix)
    pooled = header.inputs(f"{prefix}label_emb.0.0.weight")
    if width == 1280 or pooled == 2560:
        raise ModelRefused(REFINER)
    if width == 1024 and pooled:
        raise ModelRefused(
            "is an unCLIP checkpoint of Stable Diffusion 2.x, for variations of a picture: "
            "not supported."
        )
    depths = _depths(header)
    if width == 2048 and depths != _SDXL_DEPTHS:
        raise distilled([depth for depth, _ in groupby(depths)])


def distilled(depths: list[Any]) -> ModelRefused:
    """The refusal of a model with other layers than SDXL, of these depths by level."""
    for name, known in _DISTILLED.items():
        if known == depths:
            return ModelRefused(
                f"is {name}, a Stable Diffusion XL with fewer layers: not supported."
            )
    return ModelRefused("is a checkpoint of Stable Diffusion XL with other layers: not supported.")


def cross_width(header: Header, prefix: str) -> int:
    """The width of the text that the UNet's cross-attention looks at; 0 without cross-attention."""
    for name in header.shapes:
        if name.startswith(prefix) and name.endswith(".attn2.to_k.weight"):
            return header.inputs(name)
    return 0


def _depths(header: Header) -> list[int]:
    blocks: dict[int, set[str]] = {}
    for name in header.shapes:
        match = _TRANSFORMER_BLOCK.match(name)
        if match:
            blocks.setdefault(int(match[1]), set()).add(match[2])
    return [len(blocks[index]) for index in sorted(blocks)]


def _unet_family(header: Header, prefix: str) -> str:
    """Tell the family by its text encoders; a UNet alone by the width of the text it looks at."""
    if any(map(header.has, FAMILIES["sdxl"].text_prefixes)):
        return "sdxl"
    if any(map(header.has, FAMILIES["sd2"].text_prefixes)):
        return "sd2"
    family = FAMILY_OF_WIDTH.get(cross_width(header, prefix), "")
    if family == "sdxl" or header.has(f"{prefix}label_emb."):
        return "sdxl"
    return "sd2" if family == "sd2" else "sd1"


def _check_complete(header: Header, family: str) -> None:
    found = [prefix for prefix in FAMILIES[family].text_prefixes if header.has(prefix)]
    if not found:
        raise ModelRefused(
            "is only the UNet of a checkpoint, without text encoder: a complete checkpoint is "
            "needed."
        )
    if family == "sdxl" and len(found) < len(FAMILIES[family].text_prefixes):
        raise ModelRefused(
            f"is a checkpoint of {FAMILIES[family].name} with only one of its two text encoders: "
            "a complete checkpoint is needed."
        )
    if not header.has("first_stage_model.decoder."):
        raise ModelRefused("is a checkpoint without its VAE: a complete checkpoint is needed.")


def _prediction(header: Header) -> str:
    """Tell what it predicts, which a tensor (NoobAI) or metadata (kohya, ComfyUI) says."""
    if "v_pred" in header.shapes:
        return "v_prediction"
    for key in ("modelspec.prediction_type", "modelspec.predict_key"):
        said = header.metadata.get(key, "")
        if said in ("v", "epsilon"):
            return "v_prediction" if said == "v" else said
    return ""


def _native_size(family: str, prediction: str, in_channels: int) -> int:
    """Stable Diffusion 2.x has 768 pixels where it predicts v; its inpainting predicts epsilon."""
    if family == "sdxl":
        return 1024
    if family == "sd2" and prediction != "epsilon" and in_channels == 4:
        return 768
    return 512


def _something_else(header: Header) -> str:
    """A name for what picowatch cannot use at all."""
    if not header.shapes:
        return "an empty safetensors file, without one tensor"
    if header.has("down_blocks.") and header.has("conv_in."):
        return f"only the UNet {_OF_A_FOLDER}"
    if header.has("transformer_blocks.0."):
        return f"only the transformer {_OF_A_FOLDER}"
    if _TAESD & set(header.shapes):
        return (
            "only a half of a TAESD: get it whole, in diffusers' names (such as "
            "diffusion_pytorch_model.safetensors of madebyollin/taesd)"
        )
    if header.has("token_embd."):
        architecture = shown(header.metadata.get("general.architecture", ""))
        return f"a language model as GGUF ({architecture}): not supported"
    if header.has("text_model.") or header.has("encoder.block."):
        return "a text encoder of an unknown kind: not supported"
    return (
        f"not a model that picowatch knows; its first tensor is {next(iter(header.shapes))[:80]!r}"
    )
