"""The families of models: their names, which can be rendered, and how headers tell them apart.

Key names after diffusers (CHECKPOINT_KEY_NAMES in loaders/single_file_utils.py), ComfyUI
(comfy/model_detection.py, comfy/supported_models.py) and InvokeAI (model_manager/configs).
"""

from typing import NamedTuple

from picowatch.catalog.headers import Header
from picowatch.recipe.families import FLOW_RULES

NAMES = {
    "demo": "the demo model",
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
    "sd3": "Stable Diffusion 3.x",
    "flux": "FLUX.1",
    "flux2": "FLUX.2",
    "flux3": "FLUX.3",
    "chroma": "Chroma",
    "z_image": "Z-Image",
    "lumina2": "Lumina 2",
    "newbie": "NewBie",
    "qwen_image": "Qwen-Image",
    "krea2": "Krea 2",
    "aura_flow": "AuraFlow",
    "sana": "Sana",
    "pixart": "PixArt",
    "cogview4": "CogView4",
    "hunyuan_dit": "HunyuanDiT",
    "hunyuan_video": "HunyuanVideo",
    "hidream": "HiDream",
    "ovis": "Ovis-Image",
    "ernie_image": "ERNIE-Image",
    "anima": "Anima",
    "wan": "Wan",
}
# Families of UNets, whose single files are whole checkpoints.
UNETS = ("demo", "sd1", "sd2", "sdxl")
# Families that diffusers' pipelines render.
FLOWS = tuple(dict.fromkeys(family for family, _ in FLOW_RULES))
RENDERED = (*UNETS, *FLOWS)
# Those among them whose transformer may be a file of its own: diffusers converts its names.
TRANSFORMER_FILES = tuple(name for name in FLOWS if name not in ("ovis", "pixart", "cogview4"))
# The end of every sentence that refuses another family.
ONLY = "picowatch does not support it; docs/models.md lists what it does."
# Folders on the Hugging Face Hub: what to download of a family or a variant.
_HUB_FOLDERS = {
    ("z_image", ""): "Tongyi-MAI/Z-Image-Turbo",
    ("flux", ""): "black-forest-labs/FLUX.1-schnell",
    ("flux", "dev"): "black-forest-labs/FLUX.1-dev",
    ("flux", "Fill"): "black-forest-labs/FLUX.1-Fill-dev",
    ("flux2", ""): "black-forest-labs/FLUX.2-klein-4B",
    ("flux2", "klein 9B"): "black-forest-labs/FLUX.2-klein-9B",
    ("flux2", "klein base 4B"): "black-forest-labs/FLUX.2-klein-base-4B",
    ("flux2", "klein base 9B"): "black-forest-labs/FLUX.2-klein-base-9B",
    ("qwen_image", ""): "Qwen/Qwen-Image",
    ("sd3", ""): "stabilityai/stable-diffusion-3.5-medium",
    ("sd3", "3.5 Large"): "stabilityai/stable-diffusion-3.5-large",
    ("chroma", ""): "lodestones/Chroma1-HD",
    ("lumina2", ""): "Alpha-VLLM/Lumina-Image-2.0",
    ("krea2", ""): "krea/Krea-2-Raw",
    ("krea2", "Turbo"): "krea/Krea-2-Turbo",
    ("ernie_image", ""): "baidu/ERNIE-Image",
    ("ernie_image", "Turbo"): "baidu/ERNIE-Image-Turbo",
    ("ovis", ""): "AIDC-AI/Ovis-Image-7B",
    ("aura_flow", ""): "fal/AuraFlow",
    ("aura_flow", "0.3"): "fal/AuraFlow-v0.3",
    ("sana", ""): "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
    ("pixart", ""): "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    ("cogview4", ""): "THUDM/CogView4-6B",
}


def hub_folder(family: str, variant: str) -> str:
    """The name of a folder to download."""
    return _HUB_FOLDERS.get((family, variant)) or _HUB_FOLDERS[family, ""]


# The width of the text that a UNet's cross-attention looks at.
DEMO_WIDTH = 96
FAMILY_OF_WIDTH = {DEMO_WIDTH: "demo", 768: "sd1", 1024: "sd2", 2048: "sdxl"}

UNET = "model.diffusion_model."
# What stands before the names below: that of whole checkpoints, of NVIDIA's Cosmos, of AuraFlow's
# authors, or nothing.
_PREFIXES = (UNET, f"{UNET}net.", "net.", "model.", "")
# The beginning of a tensor's name that tells a transformer. The order matters: Chroma, Ovis-Image
# and HunyuanVideo have layers of FLUX.1, Z-Image and NewBie of Lumina 2, Sana of PixArt, and
# AuraFlow has positions as Stable Diffusion 3 does.
_TRANSFORMERS = {
    "joint_blocks.": "sd3",
    "joint_transformer_blocks.": "aura_flow",
    "pos_embed.pos_embed": "sd3",
    "distilled_guidance_layer.": "chroma",
    "context_embedder.token_refiner.": "hunyuan_video",
    "early_stream_modulations.": "flux3",
    "single_stream_modulation.": "flux2",
    "double_blocks.0.img_mlp.gate_proj.": "ovis",
    "txt_in.individual_token_refiner.": "hunyuan_video",
    "double_blocks.0.img_attn.": "flux",
    "single_transformer_blocks.0.proj_mlp.": "flux",
    "clip_text_pooled_proj.": "newbie",
    "layers.0.adaLN_modulation.0.": "z_image",
    "cap_pad_token": "z_image",
    "cap_embedder.": "lumina2",
    "time_caption_embed.caption_embedder.": "lumina2",
    "txt_norm.": "qwen_image",
    "txt_in.text_norm.": "qwen_image",
    "txtfusion.": "krea2",
    "text_fusion.": "krea2",
    "double_layers.": "aura_flow",
    "attention_y_norm.": "sana",
    "caption_norm.": "sana",
    "layers.0.adaLN_sa_ln.": "ernie_image",
    "t_block.": "pixart",
    "mlp_t5.": "hunyuan_dit",
    "caption_projection.0.linear.": "hidream",
    "llm_adapter.": "anima",
    "head.modulation": "wan",
}
# What the width of one tensor's inputs tells of a family: of the image, or of the text encoder.
_FLUX_INPUTS = {64: "dev", 128: "Depth or Canny", 384: "Fill"}
_FLUX_GUIDANCE = ("guidance_in.", "time_text_embed.guidance_embedder.")
_FLUX2_TEXT = {7680: "4B", 12288: "9B", 15360: "dev"}
# By the number of positions, which are those of a square.
_SD3_POSITIONS = {36864: "3 Medium", 147456: "3.5 Medium"}
_AURA_FLOW_POSITIONS = {9216: "0.3"}
_POSITIONS = ("pos_embed", "pos_embed.pos_embed", "positional_encoding")


class Transformer(NamedTuple):
    """A transformer, alone or in a checkpoint: `prefix` stands before its tensors' names.

    The variant is "" where the header does not say. FLUX.1's Krea and Kontext look like its dev;
    Turbo and base differ in their files' names alone.
    """

    family: str
    variant: str
    prefix: str


def transformer(header: Header) -> Transformer | None:
    """The transformer in a file, in its original names or diffusers'; None for anything else."""
    for prefix in _PREFIXES:
        names = [name.removeprefix(prefix) for name in header.shapes if name.startswith(prefix)]
        for beginning, family in _TRANSFORMERS.items():
            if any(name.startswith(beginning) for name in names):
                return Transformer(family, _variant(header, prefix, family), prefix)
    return None


def _variant(header: Header, prefix: str, family: str) -> str:
    def inputs(*names: str) -> int:
        return max(header.inputs(f"{prefix}{name}") for name in names)

    if family == "sd3":
        if header.has(f"{prefix}joint_blocks.37.") or header.has(f"{prefix}transformer_blocks.37."):
            return "3.5 Large"
        return _SD3_POSITIONS.get(_positions(header, prefix), "")
    if family == "flux":
        if not any(header.has(f"{prefix}{name}") for name in _FLUX_GUIDANCE):
            return "schnell"
        return _FLUX_INPUTS.get(inputs("img_in.weight", "x_embedder.weight"), "")
    if family == "flux2":
        return _FLUX2_TEXT.get(inputs("txt_in.weight", "context_embedder.weight"), "")
    if family == "aura_flow":
        return _AURA_FLOW_POSITIONS.get(_positions(header, prefix), "")
    if family == "qwen_image" and header.has(f"{prefix}__index_timestep_zero__"):
        return "Edit"
    if family == "chroma" and header.has(f"{prefix}nerf_"):
        return "Radiance"
    if family == "qwen_image" and header.has(f"{prefix}txt_in.text_norm."):
        return "2.1"
    return ""


def _positions(header: Header, prefix: str) -> int:
    """How many there are; GGUF files may leave out the first side, which is 1."""
    shapes = (header.shapes.get(f"{prefix}{name}", ()) for name in _POSITIONS)
    return max(((0, 0, *shape)[-2] for shape in shapes), default=0)


def variant_by_name(family: str, variant: str, name: str) -> str:
    """The variant of a checkpoint, where its file's or folder's name alone tells it.

    `variant` is what its weights and configs say.
    """
    name = name.casefold()
    if family in ("z_image", "ernie_image"):
        return "Turbo" if "turbo" in name else "Base"
    if family == "krea2" and not variant:
        return "Turbo" if "turbo" in name else "Raw"
    if family == "flux2" and variant in ("", "4B", "9B"):
        return " ".join(filter(None, ("klein", "base" if "base" in name else "", variant)))
    if family == "qwen_image" and not variant and "image-edit" in name.replace("_", "-"):
        return "Edit"
    if family == "flux" and variant == "dev":
        return next((one for one in ("Kontext", "Krea") if one.casefold() in name), variant)
    if (family, variant) == ("sd3", "3.5 Large") and "turbo" in name:
        return "3.5 Large Turbo"
    return variant
