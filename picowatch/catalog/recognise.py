"""Recognises a single file by its header: it has to match a known family.

The rows of picowatch/families/ have the tensors by which transformers are recognised. UNets have
the names of CompVis' latent-diffusion (`model.diffusion_model.`, `cond_stage_model.`) or of
Stability's SDXL (`conditioner.embedders.`), ControlNets those of lllyasviel (`input_hint_block.`)
or diffusers (`controlnet_cond_embedding.`).
"""

import re
from collections import Counter
from dataclasses import replace

from picowatch.catalog import cutouts
from picowatch.catalog.dequantise import stored
from picowatch.catalog.encoders import ENCODERS, VAE_PREFIX, contents, text_encoder, vae_of_header
from picowatch.catalog.headers import Header
from picowatch.catalog.loras import lora
from picowatch.catalog.models import Kind, Layout, Recognised
from picowatch.catalog.upscalers import layout_of
from picowatch.errors import ModelRefused
from picowatch.families import DEMO_WIDTH, FAMILIES, FAMILY_OF_WIDTH
from picowatch.families.general import diffusers_here
from picowatch.families.row import DEMO, SD3_VAE, SIXTEEN, Variant

REFINER = (
    "is the refiner of Stable Diffusion XL: picowatch draws with the base model, and with hires in "
    "place of this one."
)
_TOKENS = "txt_in.individual_token_refiner."
# By what is said: names, with a folder to get, and signs (`Header.shows`), of which "|" is between
# the authors' names and diffusers'. The first counts.
_KNOWN = {
    "is {}, which {diffusers} cannot draw.": {
        "HiDream-O1": "t_embedder1. final_layer2.",
        "Chroma1-Radiance": "nerf_blocks.",
        "NewBie": "cap_embedder. clip_text_pooled_proj.",
    },
    "is {}, of which picowatch draws no pictures.": {
        "GLM-Image": "glyph_projector. prior_token_embedding.",
        "Qwen-Image-Layered": "time_text_embed.addition_t_embedding.",
        "OmniGen2": "time_caption_embed. ref_image_patch_embedder.",
        "FLUX.1 Depth or Canny": "guidance_in. vector_in. img_in.weight:128"
        " | time_text_embed.guidance_embedder. x_embedder.weight:128",
        "Cosmos Predict": "blocks.0.adaln_modulation_self_attn. !llm_adapter."
        " | time_embed.t_embedder. patch_embed.proj.",
        "the first stage of Stable Cascade": "clf. clip_txt_mapper.",
        "the second stage of Stable Cascade": "clf. clip_mapper.",
    },
    REFINER: {"": "conditioner.embedders.0.model."},
    "is {}: picowatch draws it from a diffusers folder only. Get that instead.": {
        "HunyuanImage (hunyuanvideo-community/HunyuanImage-2.1-Diffusers)": f"{_TOKENS} byt5_in."
        " | context_embedder.token_refiner. time_guidance_embed.",
        "HiDream-I1 (HiDream-ai/HiDream-I1-Full)": "caption_projection. double_stream_blocks.",
        "Ovis-Image (AIDC-AI/Ovis-Image-7B)": "double_blocks.0.img_mlp.gate_proj."
        " | context_embedder_norm.",
        "Ideogram 4 (CalamitousFelicitousness/Ideogram-4-bf16-Diffusers)": "llm_cond_proj.",
        "LongCat-Image (meituan-longcat/LongCat-Image)": "double_blocks. txt_in.weight:3584"
        f" !{_TOKENS} | time_embed.timestep_embedder. context_embedder.weight:3584",
        "Bria FIBO (briaai/FIBO)": "time_embed.timestep_embedder. caption_projection."
        " single_transformer_blocks. | perceiver. noise_refiner.",
        "Bria 3.2 (briaai/BRIA-3.2)": "time_embed.timestep_embedder. single_transformer_blocks.",
        "CogView (zai-org/CogView4-6B)": "time_condition_embed. patch_embed.text_proj.",
        "Kandinsky 5 (kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers)": "visual_embeddings."
        " pooled_text_embeddings.",
        "PRX (Photoroom/prx-1024-t2i-beta)": "blocks.0.attention.txt_kv_proj.",
        "JoyImage-Edit (jdopensource/JoyAI-Image-Edit-Diffusers)": "double_blocks.0.attn."
        "img_attn_qkv.",
        "Nucleus-Image (NucleusAI/NucleusMoE-Image)": "transformer_blocks.0.encoder_proj.",
        "HunyuanDiT (Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers)": "mlp_t5.",
        "Z-Image Omni (Tongyi-MAI/Z-Image-Omni-Base)": "siglip_embedder.",
        "AuraFlow (fal/AuraFlow-v0.3)": "double_layers.",
        "AuraFlow (fal/AuraFlow)": "joint_transformer_blocks.",
        "Sana (Efficient-Large-Model/Sana_1600M_1024px_diffusers)": "attention_y_norm.",
        "Sana (Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers)": "caption_norm.",
        "PixArt (PixArt-alpha/PixArt-Sigma-XL-2-1024-MS)": "t_block."
        " | adaln_single. pos_embed.proj.",
    },
    "is {}, a model for videos: picowatch draws pictures.": {
        "FLUX.3": "early_stream_modulations.video.",
        "HunyuanVideo": f"{_TOKENS} | context_embedder.token_refiner.",
        "Wan": "head.modulation | condition_embedder.time_proj.",
        "LTX": "patchify_proj. | time_embed.emb. caption_projection.",
        "Mochi": "t5_yproj. | time_embed.pooler.",
        "CogVideoX": "patch_embed.text_proj. time_embedding.",
        "Cosmos": "blocks.block0.blocks.",
        "MiniMax H3": "video_patch_proj.",
    },
    "is {}, a model for sound: picowatch draws pictures.": {
        "Stable Audio": "transformer.rotary_pos_emb. to_timestep_embed.",
        "ACE-Step": "genre_embedder.",
    },
}


ARTICLES: dict[Kind, str] = {
    "checkpoint": "a checkpoint", "vae": "a VAE", "text_encoder": "a text encoder",
    "lora": "a LoRA", "embedding": "an embedding", "upscaler": "an upscaler",
    "cutout": "a cutout model", "controlnet": "a ControlNet", "depth": "a depth model",
    "segmentation": "a segmentation model",
}  # fmt: skip

UNET = "model.diffusion_model."
ORIGINAL = "control_model."  # the prefix in the first files of ControlNet's authors
# The kinds of maps that a union takes: xinsir's first, and its ProMax with tile and inpaint.
UNIONS = {"union": 6, "union ProMax": 8}
USABLE_INPUTS = (4, 9)  # 9 for inpainting checkpoints
POOLED = {"sdxl": 2816}  # the width of the UNet's added conditions: pooled text and sizes
_FIRST = "input_blocks.0.0.weight"
_HINT, _DIFFUSERS_HINT = "input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"
_LATENTS, _COLOURS = 4, 3  # inputs of a ControlNet, and channels of its map
_CHANNELS = 320  # of published UNets; narrower UNets, with any width of text, are home-made
_BLOCK = re.compile(r"input_blocks\.(\d+)\.1\.transformer_blocks\.(\d+)\.")
# The prefixes of a transformer's tensors: in whole checkpoints, NVIDIA's Cosmos and AuraFlow.
_PREFIXES = (UNET, f"{UNET}net.", "net.", "model.", "")
# Prefixes in networks that guide a transformer and have copies of its layers.
_GUIDES = ("controlnet_", "control_layers.", "control_blocks.", "ip_adapter", "image_proj.")
# Headers do not tell the VAE of Stable Diffusion 3 from that of FLUX.1.
_SD3 = re.compile(r"sd[ ._-]?3|stable[ ._-]?diffusion[ ._-]?3", re.IGNORECASE)
_EMBEDDING_WIDTHS = {row.text_width for row in FAMILIES.values() if row.key != "sdxl"} - {0}
_SDXL_WIDTHS = (768, 1280)  # of SDXL's two text encoders
_MAX_VECTORS = 75  # an embedding is within one chunk of a prompt


def recognise(header: Header) -> Recognised:
    """Return what the file is. ModelRefused shows the first tensors of an unknown file."""
    if not header.shapes:
        raise ModelRefused("is an empty file of weights, without any tensor.")
    if found := controlnet(header) or unet(header) or lora(header):
        return found
    prefixes = [*filter(header.has, _PREFIXES)]
    for says, models in _KNOWN.items():
        for name, signs in models.items():
            if any(header.shows(signs, prefix) for prefix in prefixes):
                raise ModelRefused(says.format(name, diffusers=diffusers_here()))
    found = _transformer(header) or _part(header) or _embedding(header)
    if found is None:
        raise ModelRefused(
            f"is not a model that picowatch knows: its tensors begin with {header.beginning()}."
        )
    return found


def _transformer(header: Header) -> Recognised | None:
    """Recognise a transformer with its original names or diffusers', and the parts beside it."""
    if header.has(_GUIDES):
        return None
    for prefix in filter(header.has, _PREFIXES):
        for row in FAMILIES.values():
            if not (row.signs and header.has(tuple(prefix + sign for sign in row.signs))):
                continue
            for variant, own in row.variants.items():
                if (own.sign or own.like is None) and header.shows(own.sign, prefix):
                    return Recognised(
                        "checkpoint",
                        row.key,
                        row.native_size,
                        variant=variant,
                        stored=stored(header),
                        contents=contents(header, prefix),
                    )
    return None


def named(found: Recognised, name: str, layout: Layout) -> Recognised:
    """Return what was found, with the variant that only the file's or folder's name tells."""
    words = name.casefold().replace("_", "-")
    if found.kind == "vae" and found.variant == SIXTEEN and _SD3.search(name):
        return replace(found, variant=SD3_VAE)
    told = (key for key, variant in alike(found, layout).items() if variant.word in words)
    return replace(found, variant=next(told, found.variant))


def alike(found: Recognised, layout: Layout) -> dict[str, Variant]:
    """Return the variants that only names tell from this checkpoint's variant."""
    variants = FAMILIES[found.family].variants if found.kind == "checkpoint" else {}
    return {
        name: variant
        for name, variant in variants.items()
        if variant.like == found.variant and (layout == "file" or variant.config is None)
    }


def _part(header: Header) -> Recognised | None:
    """Recognise a VAE, a text encoder, an upscaler or a cutout model."""
    if (vae := vae_of_header(header)) is not None:
        return Recognised("vae", "", variant=vae)
    encoder = text_encoder(header)
    if encoder and not ENCODERS[encoder].file:
        raise ModelRefused(
            f"is {encoder}, a text encoder that picowatch reads from diffusers folders and whole "
            "checkpoints only."
        )
    if encoder:
        return Recognised("text_encoder", "", variant=encoder, stored=stored(header))
    if layout := layout_of(header.shapes):
        return Recognised("upscaler", "", variant=layout.architecture, scale=layout.scale)
    cutout = cutouts.layout_of(header.shapes)
    return Recognised("cutout", "", variant=cutout.architecture) if cutout else None


def _embedding(header: Header) -> Recognised | None:
    """Recognise a textual inversion: `emb_params`, `clip_l`, SDXL's pair, diffusers' tensor."""
    shapes = header.shapes
    if "clip_g" in shapes:  # SDXL's: as many vectors for either encoder
        pair = shapes.get("clip_l", ()), shapes["clip_g"]
        if pair[0][:1] != pair[1][:1] or pair[0][1:] + pair[1][1:] != _SDXL_WIDTHS:
            return None
        count, family = pair[1][0], "sdxl"
    else:
        named = shapes.keys() & {"emb_params", "clip_l"}
        name = min(named or shapes)
        shape = shapes[name]
        if not named and (len(shapes) > 1 or "." in name):
            return None
        if len(shape) not in (1, 2) or 0 in shape or shape[-1] not in _EMBEDDING_WIDTHS:
            return None
        count, family = shape[0] if len(shape) == 2 else 1, FAMILY_OF_WIDTH[shape[-1]]
    if count > _MAX_VECTORS:
        raise ModelRefused(
            f"is an embedding of {count} vectors: prompts take {_MAX_VECTORS} at most."
        )
    return Recognised("embedding", family)


def unet(header: Header) -> Recognised | None:
    """Recognise a checkpoint in the original layout: a UNet with text encoders and VAE."""
    prefix = UNET if f"{UNET}{_FIRST}" in header.shapes else ""
    family = _unet_family(header, prefix)
    if not family:
        return None
    stored(header)  # the engine can read its weights
    row = FAMILIES[family]
    absent = [start for start in row.text_prefixes if not header.has(start)]
    has_either = family == "sd2" and header.has(row.text_prefixes)  # 2.x has either name
    lacks = "" if header.has(f"{VAE_PREFIX}decoder.") else "VAE"
    if absent and not has_either:
        lacks = f"text encoder ({absent[0]}…)"
    if lacks:
        raise ModelRefused(
            f"is a checkpoint of {row.name} without its {lacks}: a complete checkpoint is needed."
        )
    inputs, prediction = header.inputs(f"{prefix}{_FIRST}"), _prediction(header)
    small = family == "sd2" and (prediction == "epsilon" or inputs != _LATENTS)
    texts = (start for start in row.text_prefixes if header.has(start))  # of 2.x either name
    towers = zip(("text_encoder", "text_encoder_2"), texts, strict=False)
    return Recognised(
        "checkpoint",
        family,
        512 if small else row.native_size,
        inputs,
        row.text_layers,
        prediction,
        "ztsnr" in header.shapes,
        contents=(("unet", prefix), ("vae", VAE_PREFIX), *towers),
        text_width=text_width(header, prefix),
    )


def _unet_family(header: Header, prefix: str) -> str:
    """Return a UNet's family by its text encoders or the width of its text; "" if unknown."""
    first = header.shapes.get(f"{prefix}{_FIRST}", ())
    if len(first) != 4 or first[1] not in USABLE_INPUTS or _HINT in header.shapes:
        return ""
    # UNets with a noise schedule of their own, and those for videos.
    if any("edm_" in name or ".time_stack." in name for name in header.shapes):
        return ""
    width, pooled = text_width(header, prefix), header.inputs(f"{prefix}label_emb.0.0.weight")
    told = (key for key in ("sdxl", "sd2") if header.has(FAMILIES[key].text_prefixes))
    family = next(told, FAMILY_OF_WIDTH.get(width, "sdxl" if pooled else "sd1"))
    if family == DEMO:  # a Stable Diffusion 1.x of another width
        family = "sd1"
    if first[0] < _CHANNELS:
        return family
    if (width, pooled) != (FAMILIES[family].text_width, POOLED.get(family, 0)):
        return ""
    # Transformer blocks in each attention of SDXL's first half.
    matches = (_BLOCK.match(name, len(prefix)) for name in header.shapes if name.startswith(prefix))
    blocks = {(int(found[1]), found[2]) for found in matches if found}
    depths = [count for _, count in sorted(Counter(layer for layer, _ in blocks).items())]
    return "" if family == "sdxl" and depths != [2, 2, 10, 10] else family


def text_width(header: Header, prefix: str) -> int:
    """Return the width of the text in the UNet's cross-attention; 0 without cross-attention."""
    end = ".attn2.to_k.weight"
    names = (name for name in header.shapes if name.startswith(prefix) and name.endswith(end))
    return max(map(header.inputs, names), default=0)


def _prediction(header: Header) -> str:
    """Return what the UNet predicts by a tensor (NoobAI) or metadata (kohya, ComfyUI), or ""."""
    if "v_pred" in header.shapes:
        return "v_prediction"
    for key in ("modelspec.prediction_type", "modelspec.predict_key"):
        said = header.metadata.get(key, "")
        if said in ("v", "epsilon"):
            return "v_prediction" if said == "v" else said
    return ""


def controlnet(header: Header) -> Recognised | None:
    """Recognise a ControlNet: a copy of half a UNet with an input for its map."""
    original = [start for start in (ORIGINAL, "") if f"{start}{_HINT}" in header.shapes]
    prefix = original[0] if original else ""
    hint, first = (_HINT, _FIRST) if original else (_DIFFUSERS_HINT, "conv_in.weight")
    channels = header.inputs(f"{prefix}{hint}"), header.inputs(f"{prefix}{first}")
    # Some store only the difference from a UNet's layers, or a LoRA of it.
    if channels != (_COLOURS, _LATENTS) or header.has(("lora_controlnet", f"{prefix}difference")):
        return None
    width = text_width(header, prefix)
    family = FAMILY_OF_WIDTH.get(width, "")
    if header.has(("add_embedding.", f"{prefix}label_emb.")):
        family = "sdxl"  # only SDXL takes the picture's size
    elif not width and header.shapes[f"{prefix}{first}"][0] == 64:  # the package's
        family, width = DEMO, DEMO_WIDTH
    kinds = (*header.shapes.get("task_embedding", ()), 0)[0]
    variant = next((name for name, known in UNIONS.items() if kinds == known), "")
    if not family or (kinds and not variant):  # a union of unknown kinds of maps
        return None
    return Recognised("controlnet", family, variant=variant, text_width=width)
