"""What other programs' users and their APIs' clients write, and what a recipe says instead.

Names that mean a field exactly are its aliases.
"""

import re
from collections.abc import Iterable

from picowatch.recipe.messages.suggestions import did_you_mean

_COUNT = "Write count for the number of images."
_HIRES = "Write hires: {scale: 2, denoising_strength: 0.5}."
_HIRES_STEPS = "Write hires: {steps: 20}."
_STRENGTH = "Write denoising_strength."
_NO_FACES = "picowatch does not restore faces. Remove it."
_NO_REFINER = "picowatch does not have SDXL's refiner. Remove it."
_NO_ADETAILER = (
    "picowatch does not have ADetailer. Remove it, or redraw the part with image and mask."
)
_STYLES = "picowatch has no styles. Write their words into the prompt, or into _defaults.yaml."
_MASKED = "The masked part starts from image. For new content, write denoising_strength: 1."
_WHOLE = "picowatch always renders the whole picture, not the masked part alone. Remove it."
_SWEEP = "Write a sweep, like sweep: {steps: [10, 20]}."
_CONTROL = "Write control: {image: …, model: …, weight: 1}."
_SETTING = "It is a setting for all pictures: write it into picowatch.yaml."
_FIELDS = {
    **dict.fromkeys(("n", "images", "num_images", "num_images_per_prompt", "n_samples"), _COUNT),
    **dict.fromkeys(("n_iter", "batch_count", "number_of_images", "iterations"), _COUNT),
    "batch_size": f"{_COUNT} In picowatch.yaml, batch_size limits how many render at once.",
    **dict.fromkeys(("enable_hr", "hr_scale", "hires_scale", "hires_upscale"), _HIRES),
    **dict.fromkeys(("upscale_by", "hires_fix", "hires_denoising_strength"), _HIRES),
    **dict.fromkeys(("hires_steps", "hr_second_pass_steps"), _HIRES_STEPS),
    **dict.fromkeys(("hr_upscaler", "hires_upscaler"), "Write hires: {scale: 2, upscaler: …}."),
    "upscaler": "Write upscale: NAME for the finished picture, or hires: {upscaler: NAME}.",
    "scale": "It is a part of hires or upscale: indent it below that line, or write "
    "hires: {scale: 2}.",
    **dict.fromkeys(("denoise", "denoising", "prompt_strength"), _STRENGTH),
    **dict.fromkeys(("resolution", "aspect_ratio", "ar", "dimensions"), "Write size: 512x768."),
    **dict.fromkeys(("num_inference_steps", "ddim_steps", "sampling_steps"), "Write steps."),
    "sampling_method": "Write sampler.",
    "clip_stop_at_last_layers": "Write clip_skip, the same number.",
    **dict.fromkeys(
        ("model_hash", "sd_model_hash"),
        "Write checkpoint: and its name in models/checkpoints, without the hash.",
    ),
    **dict.fromkeys(("restore_faces", "face_restoration", "codeformer"), _NO_FACES),
    **dict.fromkeys(("adetailer", "adetailer_model"), _NO_ADETAILER),
    **dict.fromkeys(("refiner", "refiner_checkpoint", "refiner_switch_at"), _NO_REFINER),
    **dict.fromkeys(("style", "styles"), _STYLES),
    **dict.fromkeys(("mask_content", "masked_content", "inpainting_fill"), _MASKED),
    **dict.fromkeys(("inpaint_area", "inpaint_full_res", "only_masked"), _WHOLE),
    **dict.fromkeys(("inpaint_full_res_padding", "only_masked_padding"), _WHOLE),
    "soft_inpainting": "picowatch does not have soft inpainting. mask_blur sets how wide the "
    "mask's soft edge is.",
    "eta": "The samplers' eta cannot be changed. Remove it. A1111's \"Eta noise seed delta\" is "
    "ensd.",
    **dict.fromkeys(("control_weight", "controlnet_weight"), _CONTROL),
    "pixel_perfect": "ControlNets are always pixel perfect. Remove it.",
    "script": "picowatch runs no scripts. For an X/Y/Z plot, write sweep: {steps: [10, 20]}; for "
    "several prompts, a .txt with one on each line.",
    **dict.fromkeys(("x_type", "x_values", "y_type", "y_values", "z_type", "z_values"), _SWEEP),
    **dict.fromkeys(("format", "quality", "sidecar"), _SETTING),
}
# The parts of mappings.
_PARTS = {
    "hires": {
        "upscale_by": "scale",
        "hires_steps": "steps",
        "denoise": "denoising_strength",
        "denoising": "denoising_strength",
    },
    "upscale": {"upscale_by": "scale"},
}


def words_for(name: str, fields: Iterable[str], before: str = "") -> str:
    """What to write instead of an unknown name, or which of the fields may have been meant."""
    return words_of_others(name) or did_you_mean(name, fields, before).rstrip()


def words_of_others(name: str) -> str:
    """What to write instead of another program's name; nothing for all others."""
    return _FIELDS.get(_plain(name), "")


def words_for_part(field: str, name: str, parts: Iterable[str]) -> str:
    """The same for a part of a field that is a mapping."""
    plain = _plain(name)
    if field == "control" and plain == "pixel_perfect":
        return f"{_FIELDS[plain]} "
    return did_you_mean(_PARTS.get(field, {}).get(plain, name), parts)


def _plain(name: str) -> str:
    return re.sub(r"[\s-]", "_", name.casefold())
