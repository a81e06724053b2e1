"""Pictures by ComfyUI as what a recipe starts from: the workflows of its own examples.

https://comfyanonymous.github.io/ComfyUI_examples/flux/, z_image/, sdxl/.
"""

import json
from typing import Any

import pytest

from picowatch.recipe import Checkpoint, Inventory, Recipe, RecipeInvalid, read_recipes
from picowatch.recipe.families import rules_of
from tests.recipe.reading import DEMO, PicturesWith

INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(
        Checkpoint("flux1-dev", 1024, family="FLUX.1", rules=rules_of("flux", "dev")),
        Checkpoint("z_image_turbo", 1024, family="Z-Image", rules=rules_of("z_image", "Turbo")),
        Checkpoint("xl/pony", 1024, family="Stable Diffusion XL", rules=rules_of("sdxl")),
    ),
    vaes=("ae",),
    loras=("style/film",),
    embeddings=("bad",),
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
    "13": node(
        "SamplerCustomAdvanced",
        noise=["25", 0],
        guider=["22", 0],
        sampler=["16", 0],
        sigmas=["17", 0],
        latent_image=["27", 0],
    ),
    "16": node("KSamplerSelect", sampler_name="euler"),
    "17": node("BasicScheduler", scheduler="simple", steps=20, denoise=1, model=["30", 0]),
    "22": node("BasicGuider", model=["30", 0], conditioning=["26", 0]),
    "25": node("RandomNoise", noise_seed=71415104642),
    "26": node("FluxGuidance", guidance=2.5, conditioning=["6", 0]),
    "27": node("EmptySD3LatentImage", width=["40", 0], height=1216, batch_size=1),
    "30": node("ModelSamplingFlux", max_shift=1.15, base_shift=0.5, model=["12", 0]),
    "40": node("PrimitiveInt", value=832),
}
Z_IMAGE: Nodes = {
    "1": node("UnetLoaderGGUF", unet_name="z_image_turbo.gguf"),
    "2": node(
        "LoraLoaderModelOnly", model=["1", 0], lora_name="film.safetensors", strength_model=0.8
    ),
    "3": node("ModelSamplingAuraFlow", model=["2", 0], shift=3),
    "4": node("CLIPTextEncode", text="a lighthouse, (dusk:1.2)", clip=["9", 0]),
    "5": node("ConditioningZeroOut", conditioning=["4", 0]),
    "6": node("EmptySD3LatentImage", width=1024, height=768, batch_size=1),
    "7": node(
        "KSampler",
        seed=7,
        steps=9,
        cfg=1,
        sampler_name="euler",
        scheduler="simple",
        denoise=1,
        model=["3", 0],
        positive=["4", 0],
        negative=["5", 0],
        latent_image=["6", 0],
    ),
}
XL: Nodes = {
    "4": node("CheckpointLoaderSimple", ckpt_name="xl/pony.safetensors"),
    "5": node("EmptyLatentImage", width=832, height=1216, batch_size=4),
    "6": node("CLIPTextEncode", text="a cat", clip=["4", 1]),
    "7": node("CLIPTextEncode", text="blurry, embedding:bad", clip=["4", 1]),
    "20": node(
        "KSampler",
        seed=8,
        steps=14,
        cfg=5,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=0.5,
        model=["4", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["21", 0],
    ),
    "21": node(
        "LatentUpscale", samples=["30", 0], upscale_method="nearest", width=1664, height=2432
    ),
    "30": node(
        "KSampler",
        seed=["50", 0],
        steps=30,
        cfg=6.5,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=1,
        model=["4", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["5", 0],
    ),
    "50": node("Seed (rgthree)", seed=42),
}


def read(nodes: object, text: str = "from: a.png") -> Recipe:
    picture = {"prompt": nodes if isinstance(nodes, str) else json.dumps(nodes)}
    (recipe,) = read_recipes(
        "a.yaml", text.encode(), INVENTORY, pictures=PicturesWith(lambda _: picture)
    )
    return recipe


def refused(nodes: object) -> str:
    with pytest.raises(RecipeInvalid) as invalid:
        read(nodes)
    (problem,) = invalid.value.problems
    return problem.message


def test_flux_is_read() -> None:
    """FluxGuidance is guidance; noise, steps, sampler and guider are nodes of their own."""
    recipe = read(FLUX)
    assert (recipe.prompt, recipe.negative_prompt) == ("a lighthouse", "")
    assert (recipe.checkpoint, recipe.vae) == ("flux1-dev", "ae")
    assert (recipe.steps, recipe.cfg_scale, recipe.guidance) == (20, 1, 2.5)
    assert (recipe.sampler, recipe.schedule_type) == ("Euler", "simple")
    assert (recipe.seed, recipe.size) == (71415104642 % 2**32, "832x1216")
    assert [warning.split(";")[0] for warning in recipe.warnings] == [
        "the seed 71415104642 has more than 32 bits"
    ]


def test_a_flux_prompt_may_stand_in_a_node_for_both_encoders() -> None:
    """With its guidance."""
    encode = node("CLIPTextEncodeFlux", clip_l="sea", t5xxl="a lighthouse by the sea", guidance=3)
    recipe = read(FLUX | {"26": encode})
    assert (recipe.prompt, recipe.guidance) == ("a lighthouse by the sea", 3)


def test_z_image_is_read() -> None:
    """A LoRA between checkpoint and sampler; a zeroed negative prompt counts as empty."""
    recipe = read(Z_IMAGE)
    assert (recipe.prompt, recipe.negative_prompt) == ("a lighthouse, (dusk:1.2)", "")
    assert (recipe.checkpoint, recipe.loras) == ("z_image_turbo", (("style/film", 0.8),))
    assert (recipe.steps, recipe.cfg_scale, recipe.seed) == (9, 1, 7)
    assert recipe.size == "1024x768"
    assert recipe.warnings[0] == (
        "Recipes have no 'ModelSamplingAuraFlow: 3' setting; it was ignored."
    )


def test_of_two_passes_the_first_is_read() -> None:
    """The one that begins with an empty picture, whatever its number."""
    recipe = read(XL)
    assert (recipe.seed, recipe.steps, recipe.cfg_scale) == (42, 30, 6.5)
    assert (recipe.sampler, recipe.schedule_type) == ("DPM++ 2M", "karras")
    assert (recipe.checkpoint, recipe.size) == ("xl/pony", "832x1216")
    assert (recipe.prompt, recipe.negative_prompt) == ("a cat", "blurry, bad")
    assert recipe.warnings == ("The workflow draws in 2 steps; only the first one was read.",)


def test_brackets_that_are_words_there_are_a_warning() -> None:
    """Here they change words between the steps."""
    recipe = read(XL | {"6": node("CLIPTextEncode", text="a [cat|dog] [b]", clip=["4", 1])})
    assert recipe.prompt == "a [cat|dog] [b]"
    assert recipe.warnings[-1] == (
        "'[cat|dog]' in prompt changes words between the steps, as in A1111. If the other program "
        "read it as words, write \\[ and \\]."
    )


def test_a_start_image_is_not_in_the_picture() -> None:
    """The recipe can name it."""
    nodes = XL | {"30": XL["20"] | {"inputs": XL["20"]["inputs"] | {"latent_image": ["60", 0]}}}
    nodes |= {"60": node("VAEEncode", pixels=["61", 0]), "61": node("LoadImage", image="x.png")}
    nodes.pop("20")
    recipe = read(nodes, "from: a.png\nimage: x.png\nsize: 832x1216")
    assert (recipe.image, recipe.denoising_strength) == ("x.png", 0.5)
    assert recipe.warnings == (
        "the start image is not inside the picture; 'image: …' in the recipe names one.",
    )


def one_pass(**inputs: Any) -> Nodes:
    """A picture of one step, whose sampler has these inputs, too."""
    sampler = XL["30"]["inputs"] | {"seed": 42} | inputs
    save = node("SaveImage", filename_prefix="ComfyUI", images=["8", 0])
    only = {number: XL[number] for number in "4567"}
    return only | {
        "8": node("VAEDecode", samples=["30", 0], vae=["4", 2]),
        "9": save,
        "30": node("KSampler", **sampler),
    }


def test_clip_skip_is_read() -> None:
    """A node between the checkpoint and the prompts' own says it."""
    nodes = one_pass() | {
        "6": node("CLIPTextEncode", text="a cat", clip=["70", 0]),
        "70": node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["4", 1]),
    }
    assert read(one_pass()).clip_skip == 1
    recipe = read(nodes)
    assert (recipe.clip_skip, recipe.warnings) == (2, ())


def test_a_controlnet_leaves_both_prompts_as_they_are_and_is_a_warning() -> None:
    """Its node passes both on; the picture that it follows is not in this one."""
    nodes = one_pass(positive=["70", 0], negative=["70", 1]) | {
        "70": node(
            "ControlNetApplyAdvanced",
            positive=["6", 0], negative=["7", 0], control_net=["71", 0], image=["72", 0],
            strength=1,
        ),
        "71": node("ControlNetLoader", control_net_name="canny.safetensors"),
        "72": node("LoadImage", image="x.png"),
    }  # fmt: skip
    recipe = read(nodes)
    assert (recipe.prompt, recipe.negative_prompt) == ("a cat", "blurry, bad")
    assert recipe.warnings == (
        "The workflow's node ControlNetApplyAdvanced was not read; it may change the picture.",
    )


def test_nodes_that_change_the_picture_and_are_not_read_are_named() -> None:
    """On the way from the models and prompts to the file; those that only give values are not."""
    nodes = one_pass(model=["70", 0], positive=["71", 0]) | {
        "70": node("FreeU_V2", model=["4", 0], b1=1.3),
        "71": node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["7", 0]),
        "72": node("Reroute", image=["8", 0]),
        "73": node("ImageUpscaleWithModel", image=["72", 0], upscale_model=["74", 0]),
        "74": node("UpscaleModelLoader", model_name="4x.safetensors"),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["73", 0]),
    }
    assert read(nodes).warnings == (
        "The workflow's nodes ConditioningCombine, FreeU_V2 and ImageUpscaleWithModel were not "
        "read; they may change the picture.",
    )


def test_another_weight_for_the_text_encoder_is_a_warning() -> None:
    """A recipe's LoRA has one weight for both."""
    lora = node(
        "LoraLoader", model=["4", 0], clip=["4", 1], lora_name="film.safetensors",
        strength_model=0.8, strength_clip=0.5,
    )  # fmt: skip
    nodes = one_pass(model=["70", 0]) | {"70": lora}
    recipe = read(nodes)
    assert recipe.loras == (("style/film", 0.8),)
    ignored = "Recipes have no 'strength_clip: 0.5' setting; it was ignored."
    assert recipe.warnings == (ignored,)
    lora["inputs"]["strength_clip"] = 0.8
    assert read(nodes).warnings == ()


def test_a_node_of_several_loras_is_read() -> None:
    """rgthree's; entries that are switched off did nothing."""
    loras = node(
        "Power Lora Loader (rgthree)", model=["4", 0], clip=["4", 1],
        PowerLoraLoaderHeaderWidget={"type": "PowerLoraLoaderHeaderWidget"},
        lora_1={"on": True, "lora": "style\\film.safetensors", "strength": 0.8},
        lora_2={"on": False, "lora": "absent.safetensors", "strength": 1},
        lora_3={"on": True, "lora": 7, "strength": 1},
    )  # fmt: skip
    loras["inputs"]["➕ Add Lora"] = ""
    nodes = one_pass(model=["70", 0]) | {"70": loras}
    recipe = read(nodes)
    assert recipe.loras == (("style/film", 0.8),)
    assert recipe.warnings == ()
    loras["inputs"]["lora_1"]["strengthTwo"] = 0.5
    assert read(nodes).warnings == (
        "Recipes have no 'strength_clip: 0.5' setting; it was ignored.",
    )


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            {"1": node("LoadImage", image="x.png")},
            "its workflow from ComfyUI has none of the nodes",
        ),
        ('{"1": {"class_type": "KSampler"', "its workflow from ComfyUI is damaged"),
        ({"1": {"class_type": "KSampler"}}, "its workflow from ComfyUI is damaged"),
        ('{"1": ["class_type", "class_type"]}', "its workflow from ComfyUI is damaged"),
        ({str(n): node("Note") for n in range(2001)}, "its workflow has more than 2,000 nodes"),
    ],
)
def test_what_cannot_be_read_is_said(nodes: object, message: str) -> None:
    """With what the recipe can do instead."""
    assert f"a.png: {message}" in refused(nodes)


def test_a_workflow_in_a_circle_ends() -> None:
    """Nodes that give each other their input."""
    nodes = Z_IMAGE | {
        "1": node("A", model=["3", 0]),
        "4": node("B", conditioning=["5", 0]),
        "5": node("C", conditioning=["4", 0]),
        "6": node("D", samples=["6", 0]),
    }
    with pytest.raises(RecipeInvalid):
        read(nodes)
