"""Recognises from its header alone what a single file is: a positive check, family by family.

The rows of picowatch/families.py say which tensors tell a transformer. Names of UNets are those of
CompVis' latent-diffusion (`model.diffusion_model.`, `cond_stage_model.`) and of Stability for SDXL
(`conditioner.embedders.`); of ControlNets those of lllyasviel (`input_hint_block.`) and diffusers
(`controlnet_cond_embedding.`).
"""

import re
from collections import Counter
from dataclasses import replace

from picowatch.catalog import cutouts
from picowatch.catalog.encoders import ENCODERS, contents, text_encoder, vae_of_header
from picowatch.catalog.gguf import stored
from picowatch.catalog.headers import Header
from picowatch.catalog.loras import lora
from picowatch.catalog.models import FOLDERS, Kind, Layout, Recognised
from picowatch.catalog.upscalers import layout_of
from picowatch.errors import ModelRefused
from picowatch.families import (
    DEMO,
    DEMO_WIDTH,
    FAMILIES,
    FAMILY_OF_WIDTH,
    SD3_VAE,
    SIXTEEN,
    Sign,
    Variant,
    hub_folder,
)

# How a sentence ends that refuses another family.
ONLY = "picowatch does not support it; docs/models.md lists what it does."
ARTICLES: dict[Kind, str] = {
    "checkpoint": "a checkpoint",
    "vae": "a VAE",
    "text_encoder": "a text encoder",
    "lora": "a LoRA",
    "embedding": "an embedding",
    "upscaler": "an upscaler",
    "cutout": "a model that cuts out",
    "controlnet": "a ControlNet",
    "depth": "a model that guesses depth",
}

UNET = "model.diffusion_model."
ORIGINAL = "control_model."  # before a ControlNet's names, as its authors first shared it
# How many kinds of maps a union takes: xinsir's first one, and its ProMax with tile and inpaint.
UNIONS = {"union": 6, "union ProMax": 8}
USABLE_INPUTS = (4, 9)  # 9 are an inpainting checkpoint's
POOLED = {"sdxl": 2816}  # the width of what a UNet is told beside the text
_FIRST = "input_blocks.0.0.weight"
_HINT, _DIFFUSERS_HINT = "input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"
_LATENTS, _COLOURS = 4, 3  # inputs of a ControlNet, and channels of its map
_UNION = "task_embedding"
# The published UNets are so wide. Narrower ones, with any width of text, are people's own.
_CHANNELS = 320
_DEMO_CONTROLNET_CHANNELS = 64
# How many transformer blocks each attention of the UNet's first half has in SDXL.
_SDXL_DEPTHS = [2, 2, 10, 10]
_BLOCK = re.compile(r"input_blocks\.(\d+)\.1\.transformer_blocks\.(\d+)\.")
# Parts of names in UNets with a noise schedule of their own, or for videos.
_OTHER_UNETS = ("edm_", ".time_stack.")
# What stands before the names of a transformer's tensors: that of whole checkpoints, of NVIDIA's
# Cosmos, of AuraFlow's authors, or nothing.
_PREFIXES = (UNET, f"{UNET}net.", "net.", "model.", "")
# Beginnings of names in what guides a transformer, and has copies of its layers.
_GUIDES = ("controlnet_", "control_layers.", "control_blocks.", "ip_adapter", "image_proj.")
# Headers do not tell the VAE of Stable Diffusion 3 from that of FLUX.1.
_SD3 = re.compile(r"sd[ ._-]?3|stable[ ._-]?diffusion[ ._-]?3", re.IGNORECASE)
_POSITIONS = ("pos_embed", "pos_embed.pos_embed", "positional_encoding")
_EMBEDDING_WIDTHS = {row.text_width for row in FAMILIES.values() if row.key != "sdxl"} - {0}
_SDXL_WIDTHS = (768, 1280)  # of SDXL's two text encoders


def recognise(header: Header) -> Recognised:
    """Return what the file is; ModelRefused shows what an unknown one begins with."""
    if not header.shapes:
        raise ModelRefused("is an empty file of weights, without one tensor.")
    found = (
        controlnet(header)
        or unet(header)
        or lora(header)
        or _transformer(header)
        or _part(header)
        or _embedding(header)
    )
    if found is None:
        raise ModelRefused(
            f"is no model that picowatch knows: its tensors begin with {header.beginning()}."
        )
    return found


def expect_usable(found: Recognised, kind: Kind, layout: Layout = "file", right: str = "") -> None:
    """Raise ModelRefused unless it is of this kind, and of a family that picowatch renders.

    `right` is the name that the folder of its own kind has here, if it is not the usual one.
    """
    row = FAMILIES.get(found.family)
    why = ""
    if row and found.kind == "lora" and not row.loras:
        why = "diffusers loads none for this family."
    elif row and found.kind == "checkpoint" and row.short and layout == "file":
        why = (
            "picowatch renders it from diffusers folders only. Get the folder "
            f"{hub_folder(found.family, found.variant)} instead (docs/models.md)."
        )
    if row and why:
        name = row.name + (f" ({found.variant})" if found.variant else "")
        of = "of" if found.kind == "checkpoint" else "for"
        raise ModelRefused(f"is {ARTICLES[found.kind]} {of} {name}: {why}")
    if found.kind != kind:
        folder = right or FOLDERS[found.kind]
        raise ModelRefused(
            f"is {ARTICLES[found.kind]}, not {ARTICLES[kind]}: move it to models/{folder}/."
        )


def _transformer(header: Header) -> Recognised | None:
    """The transformer in a file, in its original names or diffusers', with what is beside it."""
    if header.has(_GUIDES):
        return None
    for prefix in _PREFIXES:
        names = [name.removeprefix(prefix) for name in header.shapes if name.startswith(prefix)]
        for row in FAMILIES.values():
            if not row.signs or not any(name.startswith(row.signs) for name in names):
                continue
            signs = {
                name: one.sign or Sign()
                for name, one in row.variants.items()
                if one.sign or one.like is None
            }
            variant = next((name for name in signs if _shows(header, prefix, signs[name])), None)
            if variant is not None:
                return Recognised(
                    "checkpoint",
                    row.key,
                    row.native_size,
                    variant=variant,
                    stored=stored(header),
                    contents=contents(header, prefix),
                )
    return None


def _shows(header: Header, prefix: str, sign: Sign) -> bool:
    if sign.has and not any(header.has(f"{prefix}{name}") for name in sign.has):
        return False
    if any(header.has(f"{prefix}{name}") for name in sign.lacks):
        return False
    if sign.width:
        return sign.width == max(header.inputs(f"{prefix}{name}") for name in sign.of)
    # GGUF files may leave out the first side, which is 1.
    shapes = (header.shapes.get(f"{prefix}{name}", ()) for name in _POSITIONS)
    return sign.positions in (0, max((0, 0, *shape)[-2] for shape in shapes))


def named(found: Recognised, name: str, layout: Layout) -> Recognised:
    """The same, with the variant that its file's or folder's name alone tells."""
    words = name.casefold().replace("_", "-")
    if found.kind == "vae" and found.variant == SIXTEEN and _SD3.search(name):
        return replace(found, variant=SD3_VAE)
    told = (one for one, variant in alike(found, layout).items() if variant.word in words)
    return replace(found, variant=next(told, found.variant))


def alike(found: Recognised, layout: Layout) -> dict[str, Variant]:
    """The variants that only their names tell from this checkpoint's."""
    variants = FAMILIES[found.family].variants if found.kind == "checkpoint" else {}
    return {
        name: one
        for name, one in variants.items()
        if one.like == found.variant and (layout == "file" or one.config is None)
    }


def _part(header: Header) -> Recognised | None:
    """A VAE, a text encoder, an upscaler or what cuts out."""
    vae = vae_of_header(header)
    if vae is not None:
        return Recognised("vae", "", variant=vae)
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
    cutout = cutouts.layout_of(header.shapes)
    return Recognised("cutout", "", variant=cutout.architecture) if cutout else None


def _embedding(header: Header) -> Recognised | None:
    """Textual inversion: A1111's `emb_params`, `clip_l`, SDXL's pair, diffusers' one tensor."""
    shapes = header.shapes
    if "clip_g" in shapes:  # SDXL's, as many vectors of either
        pair = shapes.get("clip_l", ()), shapes["clip_g"]
        fits = pair[0][:1] == pair[1][:1] and (pair[0][1:] + pair[1][1:]) == _SDXL_WIDTHS
        return Recognised("embedding", "sdxl") if fits else None
    named = shapes.keys() & {"emb_params", "clip_l"}
    name = min(named or shapes)
    shape = shapes[name]
    if not named and (len(shapes) > 1 or "." in name):
        return None
    if len(shape) not in (1, 2) or 0 in shape or shape[-1] not in _EMBEDDING_WIDTHS:
        return None
    return Recognised("embedding", FAMILY_OF_WIDTH[shape[-1]])


def unet(header: Header) -> Recognised | None:
    """A checkpoint in the original layout: a UNet, and with it text encoders and VAE."""
    prefix = UNET if f"{UNET}{_FIRST}" in header.shapes else ""
    family = _unet_family(header, prefix)
    if not family:
        return None
    if stored(header) == "scaled fp8":
        raise ModelRefused("is quantised (scaled fp8): get it in float16, bfloat16 or plain fp8.")
    row = FAMILIES[family]
    if lacks := _lacks(header, family):
        raise ModelRefused(
            f"is a checkpoint of {row.name} without its {lacks}: a complete checkpoint is needed."
        )
    inputs, prediction = header.inputs(f"{prefix}{_FIRST}"), _prediction(header)
    small = family == "sd2" and (prediction == "epsilon" or inputs != _LATENTS)
    return Recognised(
        "checkpoint",
        family,
        512 if small else row.native_size,
        inputs,
        row.text_layers,
        prediction,
        "ztsnr" in header.shapes,
        text_width=text_width(header, prefix),
    )


def _unet_family(header: Header, prefix: str) -> str:
    """The family of a UNet with its layers, told by its text encoders or its text; else ""."""
    first = header.shapes.get(f"{prefix}{_FIRST}", ())
    if len(first) != 4 or first[1] not in USABLE_INPUTS or _HINT in header.shapes:
        return ""
    if any(mark in name for name in header.shapes for mark in _OTHER_UNETS):
        return ""
    width, pooled = text_width(header, prefix), header.inputs(f"{prefix}label_emb.0.0.weight")
    family = FAMILY_OF_WIDTH.get(width, "sdxl" if pooled else "sd1")
    for key in ("sdxl", "sd2"):
        if header.has(FAMILIES[key].text_prefixes):
            family = key
            break
    if family == DEMO:  # a Stable Diffusion 1.x of another width
        family = "sd1"
    if first[0] < _CHANNELS:
        return family
    if (width, pooled) != (FAMILIES[family].text_width, POOLED.get(family, 0)):
        return ""
    return "" if family == "sdxl" and _depths(header, prefix) != _SDXL_DEPTHS else family


def _lacks(header: Header, family: str) -> str:
    """The first part that a whole checkpoint of this family has and the file lacks; else ""."""
    starts = FAMILIES[family].text_prefixes
    absent = [start for start in starts if not header.has(start)]
    if absent and (family == "sdxl" or len(absent) == len(starts)):  # of 2.x has one of two names
        return f"text encoder ({absent[0]}…)"
    return "" if header.has("first_stage_model.decoder.") else "VAE"


def text_width(header: Header, prefix: str) -> int:
    """The width of the text that the UNet's cross-attention looks at; 0 without cross-attention."""
    end = ".attn2.to_k.weight"
    names = (name for name in header.shapes if name.startswith(prefix) and name.endswith(end))
    return max(map(header.inputs, names), default=0)


def _depths(header: Header, prefix: str) -> list[int]:
    """The numbers of transformer blocks of the attentions of a UNet's first half."""
    names = (name.removeprefix(prefix) for name in header.shapes if name.startswith(prefix))
    blocks = {(int(found[1]), found[2]) for name in names if (found := _BLOCK.match(name))}
    return [count for _, count in sorted(Counter(layer for layer, _ in blocks).items())]


def _prediction(header: Header) -> str:
    """Read what it predicts, which a tensor (NoobAI) or metadata (kohya, ComfyUI) says."""
    if "v_pred" in header.shapes:
        return "v_prediction"
    for key in ("modelspec.prediction_type", "modelspec.predict_key"):
        said = header.metadata.get(key, "")
        if said in ("v", "epsilon"):
            return "v_prediction" if said == "v" else said
    return ""


def controlnet(header: Header) -> Recognised | None:
    """A ControlNet: a copy of half a UNet with an entry for its map."""
    original = [one for one in (ORIGINAL, "") if f"{one}{_HINT}" in header.shapes]
    prefix = original[0] if original else ""
    hint, first = (_HINT, _FIRST) if original else (_DIFFUSERS_HINT, "conv_in.weight")
    channels = header.inputs(f"{prefix}{hint}"), header.inputs(f"{prefix}{first}")
    # Others have only the difference of their layers from a UNet's, or a LoRA of it.
    if channels != (_COLOURS, _LATENTS) or header.has(("lora_controlnet", f"{prefix}difference")):
        return None
    width = text_width(header, prefix)
    family = FAMILY_OF_WIDTH.get(width, "")
    if header.has(("add_embedding.", f"{prefix}label_emb.")):
        family = "sdxl"  # it is told the picture's size
    elif not width and header.shapes[f"{prefix}{first}"][0] == _DEMO_CONTROLNET_CHANNELS:
        family, width = DEMO, DEMO_WIDTH
    kinds = header.shapes.get(_UNION, (0,))[0]
    variant = next((name for name, known in UNIONS.items() if kinds == known), "")
    if not family or (kinds and not variant):  # a union of unknown kinds of maps
        return None
    return Recognised("controlnet", family, variant=variant, text_width=width)
