"""Pictures by ComfyUI as what a recipe starts from: the workflows of its own examples.

https://comfyanonymous.github.io/ComfyUI_examples/flux/, z_image/, sdxl/. Nodes of extensions are
named where they hide something.
"""

import json
from typing import Any

import pytest

from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.recipe import Recipe
from tests.recipe.reading import DEMO, check_refused, check_warned, of_family, read_one

INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(
        *(Checkpoint("Journey", 512), Checkpoint("007", 512)),
        *(of_family(name, "flux", "dev") for name in ("flux1-dev", "Flux/flux1-dev-fp8")),
        of_family("z_image_turbo", "z_image", "Turbo"),
        *(
            of_family(name, "sdxl")
            for name in ("xl/pony", "noobai", "juggernautXL", "OfficialSDXL/sd_xl_base_1.0")
        ),
    ),
    vaes=("mpaffl", "VAEFix", "ae"),
    loras=("maid", "style/film", "xl/lcm", "sd15/lcm", "new/maiden"),
    embeddings=("bad",),
    default_checkpoint="xl/pony",
)
Nodes = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


FLUX: Nodes = {
    "6": node("CLIPTextEncode", text="a lighthouse", clip=["11", 0]),
    "8": node("VAEDecode", samples=["13", 0], vae=["10", 0]),
    "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    "10": node("VAELoader", vae_name="ae.safetensors"),
    "11": node("DualCLIPLoader", clip_name1="t5xxl_fp16.safetensors", clip_name2="clip_l"),
    "12": node("UNETLoader", unet_name="FLUX1\\flux1-dev.safetensors", weight_dtype="default"),
    "13": node("SamplerCustomAdvanced", noise=["25", 0], guider=["22", 0], sampler=["16", 0],
               sigmas=["17", 0], latent_image=["27", 0]),
    "16": node("KSamplerSelect", sampler_name="euler"),
    "17": node("BasicScheduler", scheduler="simple", steps=20, denoise=1, model=["30", 0]),
    "22": node("BasicGuider", model=["30", 0], conditioning=["26", 0]),
    "25": node("RandomNoise", noise_seed=71415104642),
    "26": node("FluxGuidance", guidance=2.5, conditioning=["6", 0]),
    "27": node("EmptySD3LatentImage", width=["40", 0], height=["41", 1], batch_size=1),
    "30": node("ModelSamplingFlux", max_shift=1.15, base_shift=0.5, model=["12", 0]),
    "40": node("PrimitiveInt", value=832),
    "41": node("CR SDXL Aspect Ratio", width=832, height=1216, aspect_ratio="custom"),
}  # fmt: skip
Z_IMAGE: Nodes = {
    "1": node("UnetLoaderGGUF", unet_name="z_image_turbo.gguf"),
    "2": node("LoraLoaderModelOnly", model=["1", 0], lora_name="film.safetensors",
              strength_model=0.8),
    "3": node("ModelSamplingAuraFlow", model=["2", 0], shift=3),
    "4": node("CLIPTextEncode", text="a lighthouse, (dusk:1.2)", clip=["9", 0]),
    "5": node("ConditioningZeroOut", conditioning=["4", 0]),
    "6": node("EmptySD3LatentImage", width=1024, height=768, batch_size=1),
    "7": node("KSampler", seed=7, steps=9, cfg=1, sampler_name="euler", scheduler="simple",
              denoise=1, model=["3", 0], positive=["4", 0], negative=["5", 0],
              latent_image=["6", 0]),
}  # fmt: skip
KARRAS = {"sampler_name": "dpmpp_2m", "scheduler": "karras", "model": ["4", 0]}
PROMPTS = {"positive": ["6", 0], "negative": ["7", 0]}
XL: Nodes = {
    "4": node("CheckpointLoaderSimple", ckpt_name="xl/pony.safetensors"),
    "5": node("EmptyLatentImage", width=832, height=1216, batch_size=1),
    "6": node("CLIPTextEncode", text="a cat", clip=["4", 1]),
    "7": node("CLIPTextEncode", text="blurry, embedding:bad", clip=["4", 1]),
    "20": node("KSampler", seed=8, steps=14, cfg=5, denoise=0.5, latent_image=["21", 0],
               **KARRAS, **PROMPTS),
    "21": node("LatentUpscale", samples=["30", 0], upscale_method="nearest", width=1664),
    "30": node("KSampler", seed=["50", 0], steps=30, cfg=6.5, denoise=1, latent_image=["5", 0],
               **KARRAS, **PROMPTS),
    "50": node("Seed (rgthree)", seed=42),
}  # fmt: skip


def texts_of(nodes: object) -> dict[str, str]:
    return {"prompt": nodes if isinstance(nodes, str) else json.dumps(nodes)}


def read(nodes: object, text: str = "from: a.png", **more: str) -> Recipe:
    return read_one(text, inventory=INVENTORY, texts=texts_of(nodes) | more)


def one_pass(*also: dict[str, Any], **inputs: Any) -> Nodes:
    """Return a workflow of one step, with further inputs of its sampler and nodes 70, 71, …"""
    sampler = XL["30"]["inputs"] | {"seed": 42} | inputs
    nodes = {number: XL[number] for number in "4567"} | {
        "8": node("VAEDecode", samples=["30", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
        "30": node("KSampler", **sampler),
    }
    return nodes | {str(number): extra for number, extra in enumerate(also, 70)}


UNREAD = "These nodes of the workflow were not read and may change the picture: {}."
MISSED = "{0} was not found: the workflow's node {1} was not read. Write '{0}: …' in the recipe."
LINK = ["70", 0]


def encode(text: object) -> dict[str, Any]:
    return node("CLIPTextEncode", text=text, clip=["4", 1])


@pytest.mark.parametrize(
    ("nodes", "expected", "warning"),
    [
        (one_pass() | {"6": encode(""), "7": encode("dim")}, ("", "dim"), ""),
        (one_pass(node("Text", value="a dog")) | {"6": encode(LINK)}, ("a dog", "blurry, bad"), ""),
        # SDXL's edit, HiDream E1 and OmniGen 2.
        (one_pass(node("DualCFGGuider", cond1=["6", 0], cond2=["7", 0], negative=["7", 0]))
         | {"30": node("SamplerCustomAdvanced", guider=LINK, latent_image=["5", 0])},
         ("a cat", "blurry, bad"), ""),
        (one_pass() | {"6": node("CLIPTextEncodeFlux", clip_l="", t5xxl="a dog", clip=["4", 1])},
         ("a dog", "blurry, bad"), ""),
        # Each text encoder of SDXL has its own.
        (one_pass() | {"6": node("CLIPTextEncodeSDXL", text_l="ink", text_g="a dog")},
         ("a dog", "blurry, bad"), "Recipes have no 'text_l: ink' setting; it was ignored."),
        (one_pass(node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0],
                       image=["72", 0]), positive=LINK, negative=["70", 1]),
         ("a cat", "blurry, bad"), UNREAD.format("ControlNetApplyAdvanced")),
        (one_pass() | {"6": node("CLIPTextEncodeSD3", clip_l="a dog", clip_g="ink", t5xxl="a dog")},
         ("a dog", "blurry, bad"), "Recipes have no 'clip_g: ink' setting; it was ignored."),
        (one_pass(node("SDXLPromptStyler", text_positive="a dog"))
         | {"6": node("CLIPTextEncodeSDXL", text_l="ink", text_g=LINK)},
         ("ink", "blurry, bad"), "text_g was not found: … SDXLPromptStyler … Write 'prompt: …"),
        (one_pass(node("Text", text="")) | {"6": encode(LINK)}, ("", "blurry, bad"), ""),
        # A tag is words, unless another node wrote it.
        *((one_pass() | {"6": encode(f"a dog {sign}<lora:film:1>")},
           (r"a dog \<lora:film:1>", "blurry, bad"), "") for sign in ("", "\\")),
        (one_pass(node("LoraTagLoader", text="a dog <lora:film:1>")) | {"6": encode(LINK)},
         ("a dog <lora:film:1>", "blurry, bad"), ""),
        # Nodes that ComfyUI does not have itself are named.
        (one_pass(node("SDXLPromptStyler", text_positive="a dog")) | {"6": encode(LINK)},
         ("", "blurry, bad"), MISSED.format("prompt", "SDXLPromptStyler")),
        # Brackets are words there; here they would change words between the steps.
        (one_pass() | {"6": encode(r"a [cat|dog] (b:1.2) \[c\]")},
         (r"a \[cat|dog\] (b:1.2) \[c\]", "blurry, bad"), ""),
    ],
)  # fmt: skip
def test_prompts_are_found_behind_other_nodes(
    nodes: Nodes, expected: tuple[str, str], warning: str
) -> None:
    recipe = read(nodes)
    assert (recipe.prompt, recipe.negative_prompt) == expected
    check_warned(recipe, *([warning] if warning else []))


LORA = {"lora_name": "film.safetensors", "strength_model": 0.8, "strength_clip": 0.5}
CLIP = ["Recipes have no 'strength_clip: 0.5' setting; it was ignored."]


@pytest.mark.parametrize(
    ("nodes", "fields", "warnings"),
    [
        # FluxGuidance is guidance; noise, steps, sampler and guider are nodes of their own.
        (FLUX,
         {"prompt": "a lighthouse", "negative_prompt": "", "checkpoint": "flux1-dev", "vae": "ae",
          "steps": 20, "cfg_scale": 1, "guidance": 2.5, "sampler": "Euler", "schedule_type":
          "simple", "seed": 71415104642 % 2**32, "size": "832x1216"},
         ["the seed 71415104642 has more than 32 bits…"]),
        # A LoRA between checkpoint and sampler; a zeroed negative prompt counts as empty.
        (Z_IMAGE,
         {"prompt": "a lighthouse, (dusk:1.2)", "negative_prompt": "", "checkpoint":
          "z_image_turbo", "loras": (("style/film", 0.8),), "steps": 9, "cfg_scale": 1, "seed": 7,
          "size": "1024x768"},
         [UNREAD.format("ModelSamplingAuraFlow"), "Z-Image reads prompts as plain text…"]),
        # The first pass is read: the sampler that begins with an empty picture.
        (XL,
         {"seed": 42, "steps": 30, "cfg_scale": 6.5, "sampler": "DPM++ 2M", "schedule_type":
          "karras", "checkpoint": "xl/pony", "size": "832x1216", "prompt": "a cat",
          "negative_prompt": "blurry, bad"},
         ["The workflow has 2 samplers; only the first one was read."]),
        # None of these nodes is a start image.
        (one_pass(node("SDXL Empty Latent (rgthree)", dimensions="832 x 1216 (portrait)"),
                  latent_image=LINK), {"size": "1024x1024"},
         [MISSED.format("size", "SDXL Empty Latent (rgthree)")]),
        (one_pass(node("Int Literal", int=50)) | {"5": node("EmptyLatentImage", width=832,
                                                            height=LINK)},
         {"steps": 30}, [MISSED.format("size", "Int Literal")]),
        # Nodes that provide a value in a way of their own are named, also without a link.
        (one_pass(node("Int Literal", int=50), steps=LINK), {"steps": 24},
         [MISSED.format("steps", "Int Literal")]),
        (one_pass() | {"4": node("NunchakuFluxDiTLoader", model_path="pony.safetensors")},
         {"checkpoint": "xl/pony"}, [MISSED.format("checkpoint", "NunchakuFluxDiTLoader")]),
        (FLUX | {"16": node("SamplerEulerAncestral"), "25": node("RandomNoise", noise_seed=1),
                 "17": node("Flux2Scheduler", steps=9)}, {"steps": 9},
         [MISSED.format("sampler", "SamplerEulerAncestral")]),
        # Only their names are A1111's.
        (one_pass(scheduler="beta"), {"schedule_type": "beta"},
         ["ComfyUI's schedule beta has other noise levels than A1111's, which picowatch takes…"]),
        # Recipes cannot skip steps without a start image.
        (one_pass(denoise=0.5), {"denoising_strength": 0.75},
         ["denoise 0.5 of an empty picture was ignored: without a start image, …"]),
        # The noise of a batch's other pictures is no seed's.
        (one_pass(node("EmptyLatentImage", width=832, height=1216, batch_size=4),
                  latent_image=LINK), {"size": "832x1216", "seed": 42},
         ["The workflow drew 4 pictures at once, from one seed: only the first of them …"]),
        # The VAE is that of the decoder; others encode latents for another model.
        (one_pass(node("VAELoader", vae_name="ae.safetensors"))
         | {"8": node("VAEDecode", samples=["30", 0], vae=LINK)}, {"vae": "ae"}, []),
        (one_pass(node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["4", 1]))
         | {"6": node("CLIPTextEncode", text="a cat", clip=LINK)}, {"clip_skip": 2}, []),
        # A recipe has one weight for model and text encoders.
        (one_pass(node("LoraLoader", model=["4", 0], **LORA), model=LINK),
         {"loras": (("style/film", 0.8),)}, CLIP),
        # A name may be in several folders, and in another one than there.
        (one_pass(node("LoraLoaderModelOnly", model=["71", 0], lora_name="sd15\\lcm.safetensors"),
                  node("LoraLoaderModelOnly", model=["72", 0], lora_name="xl/lcm.safetensors"),
                  node("LoraLoaderModelOnly", model=["4", 0], lora_name="new/maid"), model=LINK),
         {"loras": (("sd15/lcm", 1), ("xl/lcm", 1), ("maid", 1))}, []),
        (one_pass() | {"4": node("Efficient Loader", ckpt_name="pony", vae_name="Baked VAE",
                                 lora_name="film", lora_model_strength=0.4)},
         {"loras": (("style/film", 0.4),), "vae": "baked"}, []),
        # Nodes between model and file are named; those that only provide values are not.
        (one_pass(node("FreeU_V2", model=["4", 0], b1=1.3), node("Reroute", image=["8", 0]),
                  node("ImageUpscaleWithModel", image=["71", 0], upscale_model=["73", 0]),
                  node("UpscaleModelLoader", model_name="4x.safetensors"), model=LINK)
         | {"9": node("SaveImage", filename_prefix="ComfyUI", images=["72", 0])},
         {"steps": 30}, [UNREAD.format("FreeU_V2 and ImageUpscaleWithModel")]),
    ],
)  # fmt: skip
def test_a_workflow_is_read(nodes: Nodes, fields: dict[str, Any], warnings: list[str]) -> None:
    """Each value from its node, whatever the nodes' numbers; what is not read is a warning."""
    recipe = read(nodes)
    assert {name: getattr(recipe, name) for name in fields} == fields
    check_warned(recipe, *warnings)


def test_a_start_image_is_not_in_the_picture() -> None:
    load = node("VAEEncode", pixels=["71", 0]), node("LoadImage", image="x.png")
    nodes = one_pass(*load, latent_image=LINK, denoise=0.5)
    recipe = read(nodes, "from: a.png\nimage: x.png\nsize: 832x1216")
    assert (recipe.image, recipe.denoising_strength) == ("x.png", 0.5)
    check_warned(recipe, "the start image is not inside the picture; 'image: …' in the recipe …")
    sampler = one_pass(latent_image=LINK, steps=20, start_at_step=14)["30"]
    del sampler["inputs"]["denoise"]
    advanced = nodes | {"30": sampler | {"class_type": "KSamplerAdvanced"}}
    assert read(advanced, "from: a.png\nimage: x.png").denoising_strength == 0.3


def test_a_text_beside_the_workflow_only_adds_to_it() -> None:
    """Users fill in the values of comfy-image-saver by hand, or leave them out.

    https://github.com/LykosAI/StabilityMatrix writes both; the text has the size after upscaling.
    """
    text = "unknown\nNegative prompt: unknown\nSteps: 20, Sampler: euler, Seed: 1, Clip skip: 2"
    recipe = read(one_pass(), parameters=f"{text}, Size: 1664x2432")
    assert (recipe.prompt, recipe.steps, recipe.seed, recipe.clip_skip) == ("a cat", 30, 42, 2)
    assert recipe.size == "832x1216"
    hidden = one_pass() | {"6": node("CLIPTextEncodeFlux", t5xxl="a", clip_l=LINK), "70": node("X")}
    (said,) = read(hidden).warnings
    assert said.startswith("clip_l was not found")
    assert not read(hidden, "from: a.png\nprompt: mine").warnings
    hidden = one_pass(node("X"), steps=LINK) | {"6": node("CLIPTextEncode", text=LINK)}
    recipe = read(hidden, parameters=f"{text}, Size: 1664x2432")
    assert (recipe.prompt, recipe.steps, recipe.warnings) == ("unknown", 20, ())
    check_warned(read(hidden, "from: a.png\nsteps: 9"), MISSED.format("prompt", "X"))
    unreadable = read({"1": node("LoadImage", image="x.png")}, parameters=text)
    assert (unreadable.prompt, unreadable.steps) == ("unknown", 20)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"1": node("LoadImage")}, "… has no node like KSampler, with …, but LoadImage. Write …"),
        ('{"1": {"class_type": "KSampler"', "a.png: its workflow from ComfyUI is damaged."),
        ({"1": {"class_type": "KSampler"}}, "a.png: its workflow from ComfyUI is damaged."),
        ({str(n): node("Note") for n in range(2001)}, "… its workflow has more than 2,000 nodes."),
    ],
)
def test_what_cannot_be_read_is_said(nodes: object, message: str) -> None:
    check_refused("from: a.png", message, texts=texts_of(nodes))


def test_a_workflow_that_never_ran_is_not_a_picture_without_settings() -> None:
    """ComfyUI's editor saves it with nodes and links alone."""
    texts = {"workflow": json.dumps({"nodes": [], "links": []})}
    check_refused(
        "from: a.png", "a.png: it has a workflow …, without … a run. Run it there, …", texts=texts
    )


def test_a_workflow_in_a_circle_ends() -> None:
    nodes = Z_IMAGE | {
        "1": node("A", model=["3", 0]),
        "4": node("B", conditioning=["5", 0], text=["5", 0]),
        "5": node("C", conditioning=["4", 0], text=["4", 0]),
        "6": node("D", samples=["6", 0]),
    }
    assert "not found" in str(read(nodes).warnings)
