"""Recognises from its header alone what a single safetensors file is.

Key names: CompVis' latent-diffusion layout (`model.diffusion_model.`, `first_stage_model.`,
`cond_stage_model.`), Stability's for SDXL (`conditioner.embedders.`), diffusers' for single
parts. LoRAs and embeddings are recognised in adapters.py.
"""

from picowatch.catalog import adapters
from picowatch.catalog.headers import Header
from picowatch.catalog.lora_keys import misfits
from picowatch.catalog.models import FOLDERS, Kind, Recognised
from picowatch.errors import ModelRefused

UNET = "model.diffusion_model."
_UNET_INPUT = f"{UNET}input_blocks.0.0.weight"
_UNET_CROSS = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_SD1_NATIVE = 512
SD1_TEXT_LAYERS = 12
# diffusers' AutoencoderTiny, and its author's own names.
_TAESD = {"decoder.layers.0.weight", "1.conv.0.weight", "3.conv.0.weight"}
_TAESD |= {f"taesd_{part}.{name}" for part in ("encoder", "decoder") for name in _TAESD}
USABLE_INPUTS = (4, 9)  # 9 are an inpainting checkpoint's

_ARTICLES = {
    "checkpoint": "a checkpoint",
    "vae": "a VAE",
    "lora": "a LoRA",
    "embedding": "an embedding",
}


def recognise(header: Header) -> Recognised:
    """What the file is, if picowatch can use it anywhere; else ModelRefused says what it is."""
    if header.has(UNET):
        return _checkpoint(header)
    if adapters.is_lora(header):
        return Recognised(
            "lora",
            adapters.lora_family(header),
            base_model=adapters.base_model(header),
            trigger_words=adapters.trigger_words(header),
            note=misfits(header.shapes),
        )
    if _is_vae(header):
        return _vae(header)
    if adapters.is_embedding(header):
        return Recognised("embedding", adapters.embedding_family(header))
    raise ModelRefused(f"is {_something_else(header)}.")


def expect_kind(found: Recognised, kind: Kind) -> None:
    """A file belongs in the folder of its kind."""
    if found.kind != kind:
        raise ModelRefused(
            f"is {_ARTICLES[found.kind]}, not {_ARTICLES[kind]}: "
            f"move it to models/{FOLDERS[found.kind]}/."
        )


def _checkpoint(header: Header) -> Recognised:
    """A whole checkpoint in the original layout: UNet, text encoder and VAE."""
    other = _other_family(header)
    if other:
        raise ModelRefused(f"is a checkpoint of {other}: {adapters.ONLY_SD1}")
    in_channels = header.inputs(_UNET_INPUT)
    if in_channels == 8:
        raise ModelRefused("is an image-editing checkpoint (InstructPix2Pix): not supported.")
    if in_channels not in USABLE_INPUTS:
        raise ModelRefused(f"is a checkpoint of an unknown kind: {adapters.ONLY_SD1}")
    if not header.has("cond_stage_model.transformer."):
        raise ModelRefused(
            "is only the UNet of a checkpoint, without text encoder: a complete checkpoint is "
            "needed."
        )
    if not header.has("first_stage_model.decoder."):
        raise ModelRefused("is a checkpoint without its VAE: a complete checkpoint is needed.")
    return Recognised("checkpoint", "sd1", _SD1_NATIVE, in_channels, SD1_TEXT_LAYERS)


def _other_family(header: Header) -> str:
    """The family of a checkpoint that is not Stable Diffusion 1.x; "" for those that are."""
    cross = header.inputs(_UNET_CROSS)
    if header.has(f"{UNET}double_blocks.") or header.has("double_blocks."):
        return "Flux"
    if header.has(f"{UNET}joint_blocks.") or header.has("joint_blocks."):
        return "Stable Diffusion 3"
    if header.has("conditioner.embedders.") or header.has(f"{UNET}label_emb."):
        return "Stable Diffusion XL"
    if header.has("cond_stage_model.model.") or cross == 1024:
        return "Stable Diffusion 2.x"
    if cross == 2048:
        return "Stable Diffusion XL"
    return ""


def _is_vae(header: Header) -> bool:
    return any(
        header.has(f"{prefix}{part}.conv_in.")
        for prefix in ("", "first_stage_model.", "vae.")
        for part in ("encoder", "decoder")
    )


def _vae(header: Header) -> Recognised:
    """A VAE with 4 latent channels. SDXL's has the same shapes; headers do not distinguish them."""
    prefix = "first_stage_model." if header.has("first_stage_model.") else ""
    channels = header.inputs(f"{prefix}decoder.conv_in.weight")
    if channels == 16:
        raise ModelRefused(
            f"is a VAE of Flux or Stable Diffusion 3 (16 latent channels): {adapters.ONLY_SD1}"
        )
    if channels != 4 or not header.has(f"{prefix}post_quant_conv."):
        raise ModelRefused(f"is a VAE of an unknown kind: {adapters.ONLY_SD1}")
    return Recognised("vae", "sd1")


def _something_else(header: Header) -> str:
    """A name for what picowatch cannot use at all."""
    if not header.shapes:
        return "an empty safetensors file, without one tensor"
    if header.has("control_model.") or header.has("controlnet_cond_embedding."):
        return "a ControlNet: not supported"
    if header.has("double_blocks.") or header.has("joint_blocks."):
        return f"a model of {_other_family(header)}: {adapters.ONLY_SD1.rstrip('.')}"
    if header.has("down_blocks.") and header.has("conv_in."):
        return (
            "only the UNet of a diffusers folder: copy the whole folder with its model_index.json"
        )
    if _TAESD & set(header.shapes):
        return "a TAESD, a tiny VAE for previews: a complete VAE is needed"
    if header.has("text_model.") or header.has("encoder.block."):
        return "only a text encoder: a complete checkpoint is needed"
    return (
        f"not a model that picowatch knows; its first tensor is {next(iter(header.shapes))[:80]!r}"
    )
