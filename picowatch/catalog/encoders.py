"""Recognises VAEs and text encoders by their layers in files, and VAEs in folders by configs.

The names of keys are from diffusers (loaders/single_file_utils.py) and ComfyUI (comfy/sd.py). A
transformer's file may contain both, as whole checkpoints do.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from picowatch.catalog.headers import Header
from picowatch.families import FAMILIES, OF_VAE, row

# VAE files of Stable Diffusion 1.x, 2.x and XL look alike, and so do those of FLUX.1 and of Stable
# Diffusion 3.x; folders tell the scale of latents.
_SCALED_BY = {0.3611: row.FLUX_VAE, 1.5305: row.SD3_VAE}
# diffusers' AutoencoderTiny (TAESD and its relatives) decodes scaled latents. It works for the
# families of the VAE that it replaces, which it only approximates: it completes no checkpoint.
# Headers tell only the number of channels. FLUX.2's (TAEF2) has group-normed layers that diffusers'
# class lacks.
TINY_CLASS, TINY_FLUX2 = "AutoencoderTiny", "tiny, FLUX.2"
TINY = {  # the channels, and the VAE that it replaces
    "tiny": (4, row.SD_VAE),
    "tiny, 16 latent channels": (16, row.SIXTEEN),
    TINY_FLUX2: (32, row.FLUX2_VAE),
}
_TINY_OF_CHANNELS = {channels: variant for variant, (channels, _) in TINY.items()}
_TINY_FIRST, _TINY_LAST = "encoder.layers.0.weight", "decoder.layers.0.weight"
_POOLED = "decoder.layers.2.pool.1.weight"
# The first layers of Wan's and Qwen-Image's encoders, in their authors' names and diffusers'.
_FRAMES = ("encoder.conv1.weight", "encoder.conv_in.weight")
_LAST_WIDTH = 512  # of the last level of FLUX.1's; CogView4's has 1024
_COLOURS = 3
VAE_PREFIX = "first_stage_model."  # before a VAE's tensors in whole checkpoints


def families_of(variant: str) -> tuple[str, ...]:
    """Return the names of the families that a VAE of this variant is for."""
    return tuple(family.name for key, family in FAMILIES.items() if serves(variant, key))


def serves(variant: str, family: str) -> bool:
    """Return whether a VAE of this variant is for that family."""
    return TINY.get(variant, (0, variant))[1] in FAMILIES[family].vaes


def vae_of_header(header: Header) -> str | None:
    """Return the variant of the VAE in a file; None for anything else, also a whole checkpoint."""
    if header.has("model.diffusion_model."):
        return None
    if header.inputs(_TINY_FIRST) == _COLOURS:
        tiny = _TINY_OF_CHANNELS.get(header.inputs(_TINY_LAST))
        return tiny if (_POOLED in header.shapes) == (tiny == TINY_FLUX2) else None
    if any(len(header.shapes.get(name, ())) == 5 for name in _FRAMES):
        colours, latents = max(map(header.inputs, _FRAMES)), header.inputs("decoder.conv_in.weight")
        if (colours, latents) == (_COLOURS + 1, 64):
            return row.QWEN21_VAE
        return row.QWEN_VAE if colours == _COLOURS else None
    if header.has("bn.running_mean"):
        return row.FLUX2_VAE
    prefix = VAE_PREFIX if header.has(VAE_PREFIX) else ""
    first = header.shapes.get(f"{prefix}decoder.conv_in.weight", ())
    if first[1:2] == (16,):
        return row.SIXTEEN if first[0] <= _LAST_WIDTH else None
    of_sd = first[1:2] == (4,) and header.has(f"{prefix}post_quant_conv.")
    return row.SD_VAE if of_sd else None


def vae_of_config(config: Mapping[str, Any]) -> str | None:
    """Return the variant of the VAE with this config in diffusers' layout; None if unknown."""
    class_name, channels = config.get("_class_name"), config.get("latent_channels", 4)
    if class_name == TINY_CLASS:
        tiny = _TINY_OF_CHANNELS.get(channels) if isinstance(channels, int) else None
        return None if tiny == TINY_FLUX2 else tiny
    if class_name != row.KL:
        family = OF_VAE.get(str(class_name))
        return family.vaes[0] if family else None
    if channels == 4:
        return row.SD_VAE
    scale = config.get("scaling_factor")
    return _SCALED_BY.get(scale) if channels == 16 and isinstance(scale, int | float) else None


class Encoder(NamedTuple):
    """A text encoder, known by a tensor."""

    tensor: str
    shape: tuple[int, ...]
    file: str = ""  # without ending; "" if it is read only from whole checkpoints and folders
    config: str = ""  # the package's folders of its config and vocabulary, "" if it has none
    words: str = ""


_CLIP, _T5 = "text_model.embeddings.token_embedding.weight", "shared.weight"
_DECODER = "model.embed_tokens.weight"
ENCODERS = {
    "CLIP L": Encoder(_CLIP, (49408, 768), "clip_l", "sd15/text_encoder", "sd15/tokenizer"),
    "CLIP G": Encoder(_CLIP, (49408, 1280), "clip_g", "sdxl/text_encoder_2", "sd15/tokenizer"),
    "T5 XXL": Encoder(_T5, (32128, 4096), "t5xxl_fp16", "t5/text_encoder", "t5/tokenizer"),
    "Qwen3 4B": Encoder(
        _DECODER, (151936, 2560), "qwen_3_4b", "qwen3/text_encoder", "qwen3/tokenizer"
    ),
    "Qwen3 8B": Encoder(
        _DECODER, (151936, 4096), "qwen_3_8b", "qwen3/text_encoder_8b", "qwen3/tokenizer"
    ),
    "Qwen3 0.6B": Encoder(
        _DECODER, (151936, 1024), "qwen_3_06b_base", "qwen3/text_encoder_06b", "qwen3/tokenizer"
    ),
    "Gemma 2 2B": Encoder(_DECODER, (256000, 2304)),
    "Qwen2.5-VL 7B": Encoder(_DECODER, (152064, 3584)),
}
TRANSFORMER, VAE = "transformer", "VAE"
# The first layer of a VAE's decoder: of Stable Diffusion and FLUX, and of Qwen-Image.
_VAE_DECODERS = ("decoder.conv_in.weight", "decoder.conv1.weight")


def text_encoder(header: Header) -> str:
    """Return the name of the text encoder in a file; "" for anything else."""
    known = ENCODERS.items()
    return next((name for name, own in known if header.shapes.get(own.tensor) == own.shape), "")


def contents(header: Header, prefix: str) -> tuple[tuple[str, str], ...]:
    """Return a transformer file's parts, and the prefixes of their tensors' names."""
    # ComfyUI and Stability have names like "text_encoders.t5xxl.transformer.shared.weight".
    inside = [name for name in header.shapes if name.startswith("text_encoders.")]
    encoders = {
        encoder: name.removesuffix(known.tensor)
        for encoder, known in ENCODERS.items()
        for name in inside
        if name.endswith(f".{known.tensor}") and header.shapes[name] == known.shape
    }
    vaes = (
        (VAE, start)
        for start in ("vae.", VAE_PREFIX)
        if any(start + layer in header.shapes for layer in _VAE_DECODERS)
    )
    return ((TRANSFORMER, prefix), *encoders.items(), *vaes)
