"""What other programs' users and their APIs' clients write, and what a recipe says instead.

Names that mean a field exactly are its aliases.
"""

import re
from collections.abc import Iterable

from picowatch.recipe.messages.suggestions import did_you_mean

_COUNT = "Write count for the number of images."
# Names that mean the same, and what to say of them.
_WORDS = {
    "n images num_images num_images_per_prompt n_samples n_iter batch_count number_of_images "
    "iterations batch": _COUNT,
    "batch_size": f"{_COUNT} In picowatch.yaml, batch_size limits how many render at once.",
    "enable_hr hr_scale hires_scale hires_upscale upscale_by hires_fix hires_denoising_strength": (
        "Write hires: {scale: 2, denoising_strength: 0.5}."
    ),
    "hires_steps hr_second_pass_steps": "Write hires: {steps: 20}.",
    "hr_upscaler hires_upscaler": "Write hires: {scale: 2, upscaler: …}.",
    "upscaler": "Write upscale: NAME for the finished picture, or hires: {upscaler: NAME}.",
    "scale": "It is a part of hires or upscale: indent it below that line, or write "
    "hires: {scale: 2}.",
    "denoise denoising prompt_strength": "Write denoising_strength.",
    "resolution aspect_ratio aspect ar dimensions": "Write size: 512x768.",
    "neg uc undesired_content": "Write negative_prompt.",
    "embedding embeddings textual_inversion textual_inversions": "An embedding needs no field. "
    "Write its name into the prompt.",
    "num_inference_steps ddim_steps sampling_steps": "Write steps.",
    "sampling_method": "Write sampler.",
    "clip_stop_at_last_layers": "Write clip_skip, the same number.",
    "model_hash sd_model_hash": "Write checkpoint: and its name in models/checkpoints, without the "
    "hash.",
    "restore_faces face_restoration codeformer": "picowatch does not restore faces. Remove it.",
    "adetailer adetailer_model": "picowatch does not have ADetailer. Remove it, or redraw the part "
    "with image and mask.",
    "refiner refiner_checkpoint refiner_switch_at": "picowatch does not have SDXL's refiner. "
    "Remove it.",
    "style styles": "picowatch has no styles. Write their words into the prompt, or into "
    "_defaults.yaml.",
    "mask_content masked_content inpainting_fill": "The masked part starts from image. For new "
    "content, write denoising_strength: 1.",
    "inpaint_area inpaint_full_res only_masked inpaint_full_res_padding only_masked_padding": (
        "picowatch always renders the whole picture, not the masked part alone. Remove it."
    ),
    "soft_inpainting": "picowatch does not have soft inpainting. mask_blur sets how wide the "
    "mask's soft edge is.",
    "eta": "The samplers' eta cannot be changed. Remove it. A1111's \"Eta noise seed delta\" is "
    "ensd.",
    "control_weight controlnet_weight": "Write control: {image: …, model: …, weight: 1}.",
    "pixel_perfect": "ControlNets are always pixel perfect. Remove it.",
    "script": "picowatch runs no scripts. For an X/Y/Z plot, write sweep: {steps: [10, 20]}; for "
    "several prompts, a .txt with one on each line.",
    "x_type x_values y_type y_values z_type z_values": "Write a sweep, like sweep: {steps: [10, "
    "20]}.",
    "format quality sidecar": "It is a setting for all pictures: write it into picowatch.yaml.",
}
_FIELDS = {name: words for names, words in _WORDS.items() for name in names.split()}
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
