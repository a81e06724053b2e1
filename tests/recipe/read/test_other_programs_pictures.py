"""Pictures by other programs, as files: what `from:` and `show` take from them, and what they say.

Each layout is that of real files; where it is published stands beside it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from picowatch.metadata.embedded_text import texts_in
from picowatch.metadata.recipe_yaml import others_yaml
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.recipe import Recipe, no_hash
from tests import pictures
from tests.commands.picowatch import picowatch_here
from tests.recipe.read.test_comfyui import INVENTORY, XL
from tests.recipe.reading import DEMO, check_said, check_warned, read_one


def png(texts: Mapping[str, str]) -> bytes:
    information = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        information.add_text(keyword, text)
    return encoded("PNG", pnginfo=information)


def encoded(kind: str, **options: Any) -> bytes:
    return pictures.encoded(Image.new("RGB", (16, 16)), kind, **options)


def exif(comment: bytes = b"", **texts: str) -> Image.Exif:
    tags = Image.Exif()
    for name, text in texts.items():
        tags[ExifTags.Base[name]] = text
    if comment:
        tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return tags


@dataclass
class Picture:
    """A file, the fields that it gives, and pieces of its warnings."""

    content: bytes
    fields: dict[str, Any]
    warnings: tuple[str, ...] = ()


# https://github.com/comfyanonymous/ComfyUI: SaveImage, SaveAnimatedWEBP (comfy_extras).
WORKFLOW = {"nodes": [], "links": [], "version": 0.4}
COMFYUI = {
    "prompt": "a cat", "negative_prompt": "blurry, bad", "checkpoint": "xl/pony",
    "sampler": "DPM++ 2M", "schedule_type": "karras", "steps": 30, "cfg_scale": 6.5, "seed": 42,
    "size": "832x1216",
}  # fmt: skip
CIVITAI = {**XL, "extra": {"airs": []}, "extraMetadata": '{"prompt": "class_type"}'}
TWO_PASSES = ("The workflow has 2 samplers; only the first one was read.",)

# Version 3.3: pictures in public test suites.
INVOKEAI_3 = {
    "app_version": "3.3.0post3", "generation_mode": "txt2img",
    "positive_prompt": "retro artstyle, (1990s (style))1.2, anime++",
    "negative_prompt": "(worst quality)++, [low quality]", "width": 512, "height": 768,
    "seed": 3186540132, "rand_device": "cpu", "cfg_scale": 7.5, "steps": 24,
    "scheduler": "dpmpp_2m_k", "clip_skip": 1,
    "model": {"model_name": "Journey", "base_model": "sd-1", "model_type": "main"},
    "controlnets": [{"control_model": {"model_name": "canny"}, "control_weight": 1}],
    "ipAdapters": [], "t2iAdapters": [], "loras": [],
    "vae": {"model_name": "mpaffl", "base_model": "sd-1"},
}  # fmt: skip
# Since version 4: invokeai/app/invocations/metadata.py.
INVOKEAI_6 = {
    "app_version": "6.9.0", "generation_mode": "sdxl_txt2img", "positive_prompt": "1girl",
    "negative_prompt": "", "positive_style_prompt": "1girl", "width": 1024, "height": 1344,
    "seed": 2443106208, "rand_device": "cuda", "cfg_scale": 5.0, "cfg_rescale_multiplier": 0.25,
    "steps": 20, "scheduler": "euler", "seamless_x": True, "seamless_y": True,
    "model": {"key": "b1", "hash": "blake3:c7f4", "name": "noobai", "base": "sdxl", "type": "main"},
    "loras": [{"model": {"key": "a", "name": "maid", "base": "sdxl"}, "weight": 0.75}],
    "hrf_enabled": True, "negative_style_prompt": "dim", "hidiffusion": False,
    "hidiffusion_t1_ratio": 0.4, "z_image_shift": "auto",
}  # fmt: skip
# sd-parsers, tests/test_fooocus.py.
FOOOCUS = {
    "adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "juggernautXL",
    "base_model_hash": "aeb7e9e689", "clip_skip": 2,
    "full_negative_prompt": ["(worst quality:1.4)", "anime"],
    "full_prompt": ["cinematic still a smiling goldfish", "intricate"], "guidance_scale": 4,
    "loras": [["maid.safetensors", 0.5, "0123456789"]],
    "lora_combined_1": "maid.safetensors : 0.5", "metadata_scheme": "fooocus",
    "negative_prompt": "", "performance": "Speed", "prompt": "a smiling goldfish",
    "prompt_expansion": "intricate", "refiner_model": "None", "refiner_switch": 0.5,
    "resolution": "(768, 1280)", "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras",
    "seed": "1952411511", "sharpness": 2, "steps": 30, "styles": "['Fooocus V2']",
    "vae": "Default (model)", "version": "Fooocus v2.4.3",
}  # fmt: skip
FOOOCUS_FIELDS = {
    "prompt": "cinematic still a smiling goldfish, intricate",
    "negative_prompt": "(worst quality:1.4), anime", "checkpoint": "juggernautXL", "vae": "baked",
    "sampler": "DPM++ 2M SDE", "schedule_type": "karras", "steps": 30, "cfg_scale": 4,
    "seed": 1952411511, "size": "768x1280", "clip_skip": 1, "loras": (("maid", 0.5),),
}  # fmt: skip
FOOOCUS_WARNINGS = ("'adm_guidance: (1.5, 0.8, 0.3)'", "'sharpness: 2'")

# https://github.com/mcmonkeyprojects/SwarmUI, docs/Image Metadata Format.md.
SWARMUI = {
    "sui_image_params": {
        "prompt": "a photo of a cat <segment:face>smile", "model": "OfficialSDXL/sd_xl_base_1.0",
        "seed": 1, "steps": 20, "cfgscale": "7.0", "aspectratio": "1:1", "width": 1024,
        "height": 1024, "automaticvae": True, "loras": "maid,film", "loraweights": ["0.8", "1"],
        "clipstopatlayer": -2, "variationseed": 5, "variationseedstrength": "0.2",
        "seamlesstileable": "true", "comfyuisampler": "dpmpp_2m", "comfyuischeduler": "karras",
        "zeronegative": True, "negativeprompt": "<embed:xl/bad.safetensors>, (<embedding:bad>:1.2)",
        "swarm_version": "0.9.3.1",
    },
    "sui_extra_data": {"date": "2024-11-13", "generation_time": "6.11 seconds"},
    "sui_models": [{"name": "sd_xl_base_1.0.safetensors", "param": "model", "hash": "0xd7a9"}],
}  # fmt: skip
# https://github.com/ataylorm/FluxAIGridComparisons: version 0.9.1 as JPEG.
SWARMUI_FLUX = {
    "sui_image_params": {
        "prompt": "A Close-Up photograph of 日本の城", "model": "Flux/flux1-dev-fp8",
        "seed": 305223794, "steps": 25, "cfgscale": 1.0, "fluxguidancescale": 3.0,
        "aspectratio": "1:1", "width": 1024, "height": 1024, "sampler": "euler",
        "scheduler": "simple", "nopreviews": True, "wildcardseed": -1, "imageformat": "JPG",
        "vae": "ae.sft", "negativeprompt": "", "swarm_version": "0.9.1.1", "date": "2024-08-07",
    }
}  # fmt: skip
SWARMUI_FLUX_FIELDS = {
    "prompt": "A Close-Up photograph of 日本の城", "checkpoint": "Flux/flux1-dev-fp8", "vae": "ae",
    "sampler": "Euler", "steps": 25, "cfg_scale": 1, "guidance": 3, "seed": 305223794,
    "size": "1024x1024",
}  # fmt: skip
SWARMUI_COMMENT = json.dumps(SWARMUI_FLUX, indent=2)

PICODIFFUSION = {
    "generator": "picodiffusion", "prompt": "a corgi", "negative_prompt": "dim", "seed": "42",
    "steps": "30", "cfg": "6.5", "sampler": "dpmpp_2m_karras", "checkpoint": "Journey.safetensors",
    "vae": "", "lora": "maid", "lora_weight": "0.8", "width": "512", "height": "768",
}  # fmt: skip

PICTURES = {
    "comfyui png": Picture(
        png({"prompt": json.dumps(XL), "workflow": json.dumps(WORKFLOW)}),
        COMFYUI,
        TWO_PASSES,
    ),
    "line ends in json": Picture(
        png({"prompt": json.dumps(XL).replace("a cat", r"a\r\n cat\u0000")}),
        COMFYUI | {"prompt": "a\n cat"},
        TWO_PASSES,
    ),
    "comfyui webp": Picture(
        encoded("WEBP", exif=exif(Model=f"prompt:{json.dumps(XL)}", Make="workflow:{}")),
        COMFYUI,
        TWO_PASSES,
    ),
    "comfyui at civitai, jpeg": Picture(
        encoded("JPEG", exif=exif(b"UNICODE\0" + json.dumps(CIVITAI).encode("utf-16-be"))),
        COMFYUI,
        TWO_PASSES,
    ),
    "invokeai 3": Picture(
        png({"invokeai_metadata": json.dumps(INVOKEAI_3), "invokeai_graph": "{}"}),
        {
            "prompt": "retro artstyle, (1990s (style))1.2, anime++",
            "negative_prompt": "(worst quality)++, \\[low quality\\]", "checkpoint": "Journey",
            "vae": "mpaffl", "sampler": "DPM++ 2M", "schedule_type": "karras", "steps": 24,
            "cfg_scale": 7.5, "clip_skip": 2, "seed": 3186540132, "size": "512x768",
        },
        ("'controlnets: [", "InvokeAI's weights (word+"),
    ),
    "invokeai 6": Picture(
        png({"invokeai_metadata": json.dumps(INVOKEAI_6), "invokeai_workflow": "{}"}),
        {
            "prompt": "1girl", "checkpoint": "noobai", "sampler": "Euler",
            "schedule_type": "leading", "steps": 20, "cfg_scale": 5, "cfg_rescale": 0.25,
            "seed": 2443106208, "noise": "nvidia", "tiling": True, "size": "1024x1344",
            "loras": (("maid", 0.75),),
        },
        ("'hrf_enabled: True'", "'negative_style_prompt: dim'"),
    ),
    "fooocus png": Picture(
        png({"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"}),
        FOOOCUS_FIELDS,
        FOOOCUS_WARNINGS,
    ),
    "fooocus jpeg": Picture(
        encoded("JPEG", exif=exif(UserComment=json.dumps(FOOOCUS), MakerNote="fooocus")),
        FOOOCUS_FIELDS,
        FOOOCUS_WARNINGS,
    ),
    "swarmui png": Picture(
        png({"parameters": json.dumps(SWARMUI, indent=2)}),
        {
            "prompt": "a photo of a cat <segment:face>smile", "negative_prompt": "bad, (bad:1.2)",
            "checkpoint": "OfficialSDXL/sd_xl_base_1.0", "sampler": "DPM++ 2M",
            "schedule_type": "karras", "steps": 20, "cfg_scale": 7, "clip_skip": 2, "seed": 1,
            "variation_seed": 5, "variation_strength": 0.2, "tiling": True, "size": "1024x1024",
            "loras": (("maid", 0.8), ("style/film", 1)),
        },
        ("'zeronegative: True'", "'prompt: <segment:…>'"),
    ),
    "swarmui jpeg": Picture(
        encoded("JPEG", exif=exif(b"UNICODE\0" + SWARMUI_COMMENT.encode("utf-16-le"))),
        SWARMUI_FLUX_FIELDS,
    ),
    "picodiffusion": Picture(
        png(PICODIFFUSION),
        {
            "prompt": "a corgi", "negative_prompt": "dim", "checkpoint": "Journey", "vae": "baked",
            "sampler": "DPM++ 2M", "schedule_type": "karras", "steps": 30, "cfg_scale": 6.5,
            "clip_skip": 3, "seed": 42, "size": "512x768", "loras": (("maid", 0.8),),
        },
    ),
}  # fmt: skip


def read(content: bytes) -> Recipe:
    return read_one("from: a.png", inventory=INVENTORY, texts=texts_in(BytesIO(content)))


@pytest.mark.parametrize("name", PICTURES)
def test_a_recipe_starts_from_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning for each setting that recipes lack; `show` prints the same recipe."""
    picture, recipe = PICTURES[name], read(PICTURES[name].content)
    assert {field: getattr(recipe, field) for field in picture.fields} == picture.fields
    check_warned(recipe, *(f"…{piece}…" for piece in picture.warnings))
    (tmp_path / "a.png").write_bytes(picture.content)
    monkeypatch.setattr("picowatch.catalog.Catalog.inventory", lambda *_: INVENTORY)
    shown = picowatch_here(tmp_path, "show", "a.png").stdout
    comments = [line for line in shown.splitlines() if line.startswith("# ")]
    assert all(any(piece in line for line in comments) for piece in picture.warnings)
    assert read_one(shown, inventory=INVENTORY).digest(no_hash) == recipe.digest(no_hash)
    told = picowatch_here(tmp_path, "show", "--json", "a.png").stdout
    assert json.loads(told) == texts_in(BytesIO(picture.content))


@pytest.mark.parametrize("values", ["Model: XL\\007, ", ""])
def test_show_does_not_need_the_checkpoint(values: str) -> None:
    """A comment says that it is missing, or that several are installed; the rest is as usual.

    Another program's folder is left out: recipes that name one mean one of models/checkpoints.
    """
    text = f"a\nSteps: 9, Sampler: Restart, Schedule type: Simple, Seed: x, {values}Size: 64x64"
    several = Inventory(DEMO, (Checkpoint("a", 512), Checkpoint("b", 512)))
    printed = others_yaml({"parameters": text}, several).splitlines()
    comments = [line for line in printed if line.startswith("#")]
    check_said(comments, "# no checkpoint …", "# the sampler …", "# seed must be a whole number …")
    lines = printed[len(comments) :]
    assert lines == [
        "prompt: a", *["checkpoint: '007'"] * bool(values),
        "sampler: Heun", "schedule_type: simple", "steps: 9", "size: 64x64",
    ]  # fmt: skip


def test_invokeais_weights_are_words_with_a_warning() -> None:
    """They are another grammar than A1111's. A word that switches settings off is a prompt, too."""
    weighed = ("sky--, b", "a word+", "a (b c)1.5", '("a", "b").and()')
    for text in (*weighed, "a well-known (b), c-", "auto"):
        metadata = {"positive_prompt": text, "model": {"name": "Journey"}, "steps": 3}
        recipe = read(png({"invokeai_metadata": json.dumps(metadata)}))
        assert recipe.prompt == text
        check_warned(recipe, *["InvokeAI's weights …"] * (text in weighed))
