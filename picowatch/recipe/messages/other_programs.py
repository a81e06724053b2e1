"""Names that users and API clients of other programs write, and what to write in a recipe instead.

Names that mean exactly what a field means are its aliases.
"""

import re
from collections.abc import Iterable

from picowatch.recipe.messages.suggestions import did_you_mean

_COUNT = "Write count for the number of images."
_HIRES = "Write hires: {scale: 2, steps: 20, denoising_strength: 0.5}."
_WHOLE = "picowatch always renders the whole picture, not the masked part alone. Remove it."
_KOHYA = "It is kohya's flag; write --{}."
_MIDJOURNEY = "It is Midjourney's flag; {}."

# Words that mean the same, and the hint for them. Short names that are flags only have hyphens.
_WORDS = {
    "n images num_images num_images_per_prompt n_samples n_iter batch_count number_of_images "
    "iterations batch": _COUNT,
    "batch_size": f"{_COUNT} In picowatch.yaml, batch_size limits how many render at once.",
    "enable_hr hr_scale hires_scale hires_upscale upscale_by hires_denoising_strength "
    "hires_steps hr_second_pass_steps hr_upscaler hires_upscaler": _HIRES,
    "upscaler": "Write upscale: NAME for the finished picture, or hires: {upscaler: NAME}.",
    "scale": "It is a part of hires or upscale: indent it below that line, or write "
    "hires: {scale: 2}.",
    "denoise denoising prompt_strength": "Write denoising_strength.",
    "resolution aspect_ratio aspect ar dimensions": "Write size: 512x768.",
    "neg uc undesired_content": "Write negative_prompt.",
    "embedding embeddings textual_inversion textual_inversions": "An embedding needs no field. "
    "Write its name into the prompt.",
    "num_inference_steps ddim_steps sampling_steps": "Write steps.",
    "sampling_method sampler_index": "Write sampler.",
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
    "inpaint_area inpaint_full_res only_masked inpaint_full_res_padding only_masked_padding": (
        _WHOLE
    ),
    "eta": "The samplers' eta cannot be changed. Remove it. A1111's \"Eta noise seed delta\" is "
    "ensd.",
    "control_weight controlnet_weight": "Write control: {image: …, model: …, weight: 1}.",
    "script x_type x_values y_type y_values z_type z_values": "picowatch runs no scripts. For an "
    "X/Y/Z plot, write a sweep, like sweep: {steps: [10, 20]}.",
    "format quality sidecar": "It is a setting for all pictures: write it into picowatch.yaml.",
    # Only in A1111's API.
    "override_settings alwayson_scripts script_name script_args seed_resize_from_h "
    "seed_resize_from_w s_min_uncond s_churn s_tmin s_tmax s_noise do_not_save_samples "
    "do_not_save_grid send_images save_images firstphase_width firstphase_height comments "
    "inpainting_fill override_settings_restore_afterwards": "It belongs to A1111's API. Remove it.",
    "--n": _KOHYA.format("negative_prompt"),
    "--w": _KOHYA.format("width"),
    "--h": _KOHYA.format("height"),
    "--s": _KOHYA.format("steps"),
    "--d": _KOHYA.format("seed"),
    "--l": _KOHYA.format("cfg_scale"),
    "--t": _KOHYA.format("denoising_strength"),
    "--v --niji": _MIDJOURNEY.format("choose a model with --checkpoint"),
    "--no": _MIDJOURNEY.format("write --negative_prompt"),
    "--stylize --chaos": _MIDJOURNEY.format("leave it out"),
}
_HINTS = {word: hint for words, hint in _WORDS.items() for word in words.split()}
# Values with which a setting is off, also as JSON or Python writes them.
OFF = ("", "none", "null", "false", "0", "0.0", "-1", "[]", "{}", "()")


def words_for(name: str, fields: Iterable[str], before: str = "") -> str:
    """Return the remedy for an unknown name, or the field that may be meant.

    `before` are a flag's hyphens.
    """
    hint = _HINTS.get(before + _plain(name)) if before else ""
    return hint or words_of_others(name) or did_you_mean(name, fields, before).rstrip()


def words_of_others(name: str) -> str:
    """Return the remedy for another program's name; "" for any other."""
    return _HINTS.get(_plain(name), "")


def is_switched_off(name: str, value: object) -> bool:
    """Return whether a setting of another program is off: API clients send all settings."""
    return bool(words_of_others(name)) and str(value).strip().casefold() in OFF


def _plain(name: str) -> str:
    return re.sub(r"[\s-]", "_", name.casefold())
