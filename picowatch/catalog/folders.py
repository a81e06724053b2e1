"""Recognises diffusers folders: a model_index.json and a folder for each part."""

from pathlib import Path
from typing import Any, TypeGuard

from picowatch.catalog.configs import read_config, read_json
from picowatch.catalog.families import ONLY
from picowatch.catalog.folder_files import INDEX, check_files, check_weights, is_file, is_folder
from picowatch.catalog.models import Recognised
from picowatch.catalog.pipelines import from_text, recognise_pipeline
from picowatch.catalog.recognise import (
    OTHER_INPUTS,
    REFINER,
    USABLE_INPUTS,
    distilled,
)
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES, row_of_pipeline
from picowatch.recipe.messages.problems import shown

# The parts of a checkpoint; the second ones are Stable Diffusion XL's.
_PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
_SDXL_PARTS = (*_PARTS, "text_encoder_2", "tokenizer_2")
_WEIGHED_PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
_VAE_FACTOR = 8
_SAMPLE_SIZES = range(8, 257)  # sides of 64 to 2048 pixels
# How many inputs the UNets of other pipelines have.
_PIPELINE_INPUTS = {
    "StableDiffusionDepth2ImgPipeline": 5,
    "StableDiffusionUpscalePipeline": 7,
    "StableDiffusionInstructPix2PixPipeline": 8,
    "StableDiffusionXLInstructPix2PixPipeline": 8,
}
# Relatives of what is supported, by what the names of their pipelines begin with.
_RELATIVES = {
    "FluxKontext": "FLUX.1 Kontext, which edits pictures",
    "FluxControlNet": "FLUX.1 with a ControlNet",
    "FluxControl": "FLUX.1 Depth or Canny, which also needs a depth map or edges",
    "FluxPriorRedux": "FLUX.1 Redux, which varies pictures",
    "Flux2KleinKV": "FLUX.2 klein KV, which edits pictures",
    "QwenImage21": "Qwen-Image 2.1 (Qwen-Image and Qwen-Image-2512 are supported)",
    "QwenImageControlNet": "Qwen-Image with a ControlNet",
    "QwenImageEdit": "Qwen-Image-Edit, which edits pictures",
    "QwenImageLayered": "Qwen-Image-Layered, which takes pictures apart",
    "Flux2Pipeline": "FLUX.2 dev (FLUX.2 klein is supported)",
}
_SDXL_DEPTHS = [2, 10]  # blocks of transformers in the two levels of the UNet that have them


def recognise_checkpoint_folder(folder: Path) -> Recognised:
    """A whole diffusers folder; ModelRefused says what is missing or not supported."""
    named = str(read_json(folder / INDEX).get("_class_name"))
    pipeline = from_text(named)
    row = row_of_pipeline(pipeline)
    if row is None:
        raise ModelRefused(_other_pipeline(named))
    if row.kind == "flow":
        return recognise_pipeline(folder, row)
    check_files(folder)
    unet = read_config(folder / "unet" / "config.json")
    family = _unet_family(pipeline, unet)
    in_channels, sample_size = unet.get("in_channels"), unet.get("sample_size")
    if isinstance(in_channels, int) and in_channels in OTHER_INPUTS:
        raise ModelRefused(OTHER_INPUTS[in_channels])
    if in_channels not in USABLE_INPUTS or not _is_sample_size(sample_size):
        raise ModelRefused("is a diffusers folder with a UNet that picowatch does not support.")
    parts = _SDXL_PARTS if family == "sdxl" else _PARTS
    for part in parts:
        if not is_folder(folder / part):
            raise ModelRefused(f"is a diffusers folder without {part}/: copy the whole folder.")
    weighed = [part for part in parts if part in _WEIGHED_PARTS]
    for part in weighed:
        check_weights(folder / part)
    configs = {part: read_config(folder / part / "config.json") for part in weighed}
    schedule = read_config(folder / "scheduler" / "scheduler_config.json")
    if str(schedule.get("_class_name")).startswith("EDM"):
        raise ModelRefused(
            "is a diffusers folder with a noise schedule of its own (EDM, as of Playground 2.5): "
            "not supported."
        )
    prediction = schedule.get("prediction_type")
    return Recognised(
        "checkpoint",
        family,
        sample_size * _VAE_FACTOR,
        in_channels,
        min(_text_layers(configs[part]) for part in weighed if part.startswith("text_encoder")),
        prediction if prediction in ("epsilon", "v_prediction") else "",
        schedule.get("rescale_betas_zero_snr") is True,
        text_width=_text_width(unet),
    )


def _other_pipeline(name: str) -> str:
    """The sentence that refuses a folder of a pipeline that picowatch cannot run."""
    if name in _PIPELINE_INPUTS:
        return OTHER_INPUTS[_PIPELINE_INPUTS[name]]
    relative = next((_RELATIVES[start] for start in _RELATIVES if name.startswith(start)), "")
    if relative:
        return f"is {relative}: not supported."
    named = [row for row in FAMILIES.values() if _is_called(name, row.key)]
    family = max(named, key=lambda row: len(row.key)).name if named else f"a {shown(name)}"
    return f"is a diffusers folder of {family}: {ONLY}"


def _is_called(pipeline: str, family: str) -> bool:
    """Whether a pipeline's name begins with a family's: QwenImageEditPipeline, not AnimateDiff."""
    word, called = family.replace("_", ""), pipeline.replace("StableDiffusion", "SD")
    return called.casefold().startswith(word) and not called[len(word) :][:1].islower()


def _unet_family(pipeline: str, unet: dict[str, Any]) -> str:
    """Tell the family by the pipeline and the UNet's config.

    Raises ModelRefused for SDXL's refiner and small relatives.
    """
    width = unet.get("cross_attention_dim")
    if pipeline not in FAMILIES["sdxl"].folders:
        # Stable Diffusion 1.x projects by convolutions.
        return "sd2" if width == 1024 or unet.get("use_linear_projection") else "sd1"
    if width == 1280 or unet.get("projection_class_embeddings_input_dim") == 2560:
        raise ModelRefused(REFINER)
    layers = unet.get("transformer_layers_per_block")
    depths = layers[1:] if isinstance(layers, list) else []
    if width == 2048 and depths != _SDXL_DEPTHS:
        raise distilled(depths)
    return "sdxl"


def _text_layers(config: dict[str, Any]) -> int:
    layers = config.get("num_hidden_layers")
    usual = FAMILIES["sd1"].text_layers  # as transformers has it then
    return layers if isinstance(layers, int) else usual


def _text_width(unet: dict[str, Any]) -> int:
    width = unet.get("cross_attention_dim")
    return width if isinstance(width, int) else 0


def _is_sample_size(value: object) -> TypeGuard[int]:
    return type(value) is int and value in _SAMPLE_SIZES


def is_part_folder(folder: Path) -> bool:
    """True for a folder with a config.json of its own: of a single part, as a VAE."""
    return is_file(folder / "config.json") and not is_file(folder / INDEX)
