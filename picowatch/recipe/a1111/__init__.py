"""A1111's "generation parameters": their keys, those of the table of fields, and the others.

writer.py writes them, reader.py reads them. The formats:
https://github.com/AUTOMATIC1111/stable-diffusion-webui, modules/infotext_utils.py, Forge's of the
same name, and https://github.com/vladmandic/sdnext, modules/processing_info.py.
"""

from collections.abc import Mapping

from picowatch.recipe.fields import PARTS, ROWS
from picowatch.recipe.parts import Row

AREA = "Inpaint area"
ONLY_MASKED = "Only masked"
# A1111's order; other keys of the table come between these. "CFG rescale" is SD.Next's,
# "Distilled CFG Scale" and "Module 1", which is the VAE, are Forge's.
FIRST = (
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Distilled CFG Scale", "CFG rescale"),
    *("Seed", "Size", "Model hash", "Model", "VAE hash", "VAE", "Module 1"),
    *("Denoising strength", "Clip skip", "Mask blur", AREA, "Masked area padding"),
    *("Hires upscale", "Hires steps", "Hires upscaler"),
)
# "Rembg" is https://github.com/AUTOMATIC1111/stable-diffusion-webui-rembg's.
FINISHED = ("Postprocess upscale by", "Postprocess upscaler", "Rembg")
LAST = ("Lora hashes", "TI hashes", *FINISHED, "Version")

# The extension ADetailer's, after its name, by the parts of `detail`
# (https://github.com/Bing-su/adetailer, adetailer/args.py).
DETAIL_KEYS = {
    "prompt": "prompt", "negative_prompt": "negative prompt", "confidence": "confidence",
    "count": "mask only top k", "grow": "dilate erode", "mask_blur": "mask blur",
    "denoising_strength": "denoising strength", "mask_padding": "inpaint padding", "steps": "steps",
}  # fmt: skip
# What its models find; the last model finds any words, its "classes".
FINDERS = {"face": "face_yolov8n.pt", "hand": "hand_yolov8n.pt", "person": "person_yolov8n-seg.pt"}
ANY_WORDS = "yolov8x-worldv2.pt"

HIRES_SIZE = "hires resize"
# A1111's key, Forge Neo's and SD.Next's; the names in them are the embeddings of the prompts.
EMBEDDINGS = ("ti hashes", "ti", "embeddings")
MODEL_HASH = "model hash"


def _by_key(rows: Mapping[str, Row]) -> dict[str, str]:
    return {row.a1111.casefold(): name for name, row in rows.items() if row.a1111}


# The fields by their keys, in lower case: A1111 writes "CFG scale", ComfyUI's nodes and Forge
# "CFG Scale". Fooocus writes "Lora weights".
FIELDS = _by_key(ROWS) | {
    "size": "size",
    "width": "width",
    "height": "height",
    "lora weights": "loras",
    "scheduler": "schedule_type",
    "guidance scale": "cfg_scale",
    "strength": "denoising_strength",
}
# The parts of mappings by their keys: the mapping and the part.
PARTS_BY_KEY = {
    key: (field, name)
    for field, parts in PARTS.items()
    for key, name in _by_key(parts).items()
    if key not in FIELDS
} | {"hires scale": ("hires", "scale"), "hires strength": ("hires", "denoising_strength")}
# Keys that change no picture, or are read with others. The hashes tell which files were used.
INFORMATION = {
    *("version", "vae hash", "hashes", "lora hashes", "user", "created date"),
    *("civitai metadata", "template", "negative template", "app", "pipeline"),
    *("operations", "lora networks", "hires size", "wildcard prompt", "raw prompt"),
    *("raw negative prompt", "batch size", "batch pos", "old prompt editing timelines"),
    *("process", "workflow", "quantity", "basemodel", "disablepoi", "aspectratio", "priority"),
    *("nsfw", "extra", AREA.casefold(), HIRES_SIZE),
}
KNOWN = frozenset({*FIELDS, *PARTS_BY_KEY, *INFORMATION, *EMBEDDINGS, MODEL_HASH})
# Values that say nothing: Civitai's placeholders for the sampler, and what holds without the key.
SAYS_NOTHING = {
    "sampler": ("undefined", "default"),
    "clip skip": ("0",),
    "draft": ("false",),
    "experimental": ("false",),
    "rng": ("gpu", "std_default"),  # any maker's, and stable-diffusion.cpp's
    "diffusion in low bits": ("automatic", "automatic (fp16 lora)"),
    "beta schedule alpha": ("0.6",),
    "beta schedule beta": ("0.6",),
}
