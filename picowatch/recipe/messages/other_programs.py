"""Names that users and API clients of other programs write, and what to write in a recipe instead.

Names that mean exactly what a field means are its aliases.
"""

import re
from collections.abc import Iterable

from picowatch.recipe.fields import MIN_SIDE
from picowatch.recipe.messages.suggestions import did_you_mean
from picowatch.recipe.messages.wording import DECIMAL_POINT
from picowatch.recipe.written import plain_name

SHAPE = "aspect_ratio"  # as other programs call it
_COUNT = "Write count for the number of images."
_HIRES = "Write hires: {scale: 2, steps: 20, denoising_strength: 0.5}."
_FACES = "picowatch does not restore faces. Remove it, or write detail: face to draw each again."
_MIDJOURNEY = "It is Midjourney's flag; {}."

# Words that mean the same, and the hint for them. Names that are flags only have hyphens.
# SIZES becomes sizes in the shape that is the value.
_WORDS = {
    "n num_images num_images_per_prompt n_samples n_iter batch_count image_number iterations": (
        _COUNT
    ),
    "batch_size": f"{_COUNT} In picowatch.yaml, batch_size limits how many render at once.",
    "enable_hr hr_scale hires_scale hires_upscale upscale_by hires_steps hr_second_pass_steps "
    "hr_upscaler hires_upscaler": _HIRES,
    "upscaler": "Write upscale: NAME for the finished picture, or hires: {upscaler: NAME}.",
    "scale": "It is a part of hires or upscale: indent it below that line, or write "
    "hires: {scale: 2}.",
    f"resolution {SHAPE} aspect ar dimensions": "Write size: SIZES.",
    "find mask.find mask:_find confidence grow": "It is a part of mask, detail or cutout: write "
    "mask: {find: the sky}.",
    "sep=": "Delete this line: the first row names fields.",
    "prompts": "A recipe has one prompt. Write a recipe for each, or "
    "sweep: {prompt: [a corgi, a cat]}.",
    "images photos pictures": "A recipe has one image. Write a recipe for each, or put them into a "
    "folder with a file _pictures.yaml.",
    "template": "A template is a file _pictures.yaml in the pictures' folder.",
    "output output_dir output_path outdir filename save_as save_to folder": "Pictures are "
    "called like their recipe's file and appear in the outbox. Rename that file.",
    "recipes": "Write the list alone: a line '- prompt: …' for each recipe.",
    "recipe defaults": "Write its fields alone, not indented. Those for all recipes of a folder "
    "belong into its _defaults.yaml.",
    "grayscale greyscale monochrome": "Pictures have colours. Write 'black and white photo' into "
    "the prompt.",
    "crop": "For a shape, write resize: crop and size: SIZES.",
    "dtype torch_dtype precision device models inbox outbox": "It is a setting: write it "
    "into picowatch.yaml, like precision: float16.",
    "embedding embeddings textual_inversion": "An embedding needs no field. Write its name into "
    "the prompt.",
    "img2img init start_image input_image": "Write image: picture.png, and denoising_strength.",
    "inpaint inpainting inpaint_mask mask_image": "Write image: picture.png, and mask: mask.png.",
    "restore_faces face_restore face_restoration codeformer gfpgan": _FACES,
    "refiner refiner_model refiner_checkpoint refiner_switch_at": "SDXL's refiner is not "
    "supported. Remove it; hires: {scale: 1.5} also draws finer details.",
    "ipadapter ip_adapter t2i_adapter": "IP-Adapter and T2I-Adapter are not supported. To follow a "
    "picture, write image or control, or references for checkpoints that edit.",
    "style styles": "picowatch has no styles. Write their words into the prompt, or into "
    "_defaults.yaml.",
    "script x_type x_values y_type y_values x/y/z_plot xyz_plot": "picowatch runs no scripts. For "
    "an X/Y/Z plot, write a sweep, like sweep: {steps: [10, 20]}.",
    "sidecar file_name when_done hooks memory compile executor max_images_per_save": "It is a "
    "setting for all pictures: write it into picowatch.yaml, like sidecar: txt.",
    "<<": "YAML's references (&, * and <<) are not supported. Write the fields again, or into "
    "_defaults.yaml.",
    "--v --niji": _MIDJOURNEY.format("choose a model with --checkpoint"),
    "--no": _MIDJOURNEY.format("write --negative_prompt"),
    "--ar --aspect": _MIDJOURNEY.format("write --size SIZES"),
    "--tile": _MIDJOURNEY.format("write --tiling"),
    "--s": "Midjourney's --s (stylize) has no counterpart; leave it out. For kohya's --s, write "
    "--steps.",
    "--stylize --chaos --q --iw --sref --cref": _MIDJOURNEY.format("leave it out"),
}
# Words that mean a field, and kohya's flags.
_FIELDS = {
    "denoising_strength": "denoise denoising",
    "negative_prompt": "neg",
    "prompt": "positive positive_prompt text",
    "checkpoint": "ckpt_name model_name base_model unet_name",
    "vae": "vae_name",
    "steps": "num_inference_steps sampling_steps performance",
    "sampler": "sampling_method",
    "seed": "generator",
}
_KOHYA = {
    "n": "negative_prompt", "w": "width", "h": "height", "d": "seed", "l": "cfg_scale",
    "t": "denoising_strength",
}  # fmt: skip
FIELDS_MEANT = {word: field for field, words in _FIELDS.items() for word in words.split()}
_HINTS = (
    {word: hint for words, hint in _WORDS.items() for word in words.split()}
    | {word: f"Write {field}." for word, field in FIELDS_MEANT.items()}
    | {f"--{flag}": f"It is kohya's flag; write --{field}." for flag, field in _KOHYA.items()}
)

# Values with which a setting is off, also as JSON or Python writes them.
OFF_WORDS = ("", "none", "null", "false", "0", "0.0", "-1", "[]", "{}", "()")


def words_for(name: str, fields: Iterable[str], value: str = "", before: str = "") -> str:
    """Return an unknown name's remedy, or the field that is meant; `before`: a flag's hyphens."""
    if name.isdigit() and not (before or value):
        return DECIMAL_POINT
    hint = _HINTS.get(before + plain_name(name)) if before else ""
    hint = hint or words_of_others(name)
    if not hint and len(name) > 2:  # everything is like two letters
        hint = did_you_mean(name, fields, before).rstrip()
    return hint.replace("SIZES", _sizes(value)) if "SIZES" in hint else hint


def _sizes(shape: str) -> str:
    """Return sizes of a shape like 16:9 for each kind of checkpoint; a size as it is."""
    sides = re.fullmatch(r"([1-9]\d{0,3}) *[:x×*/] *([1-9]\d{0,3})", shape.strip())
    width, height = map(int, sides.groups()) if sides else (2, 3)
    if min(width, height) >= MIN_SIDE:
        return f"{width}x{height}"
    across, down = round(16 * (width / height) ** 0.5), round(16 * (height / width) ** 0.5)
    kinds = {"SD 1.5": 32, "SDXL and later ones": 64}
    return ", ".join(f"{across * unit}x{down * unit} for {kind}" for kind, unit in kinds.items())


def words_of_others(name: str) -> str:
    """Return the remedy for another program's name; "" for any other."""
    return _HINTS.get(plain_name(name), "")
