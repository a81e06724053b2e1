"""A1111's generation parameters as recipes, as A1111, its forks, Civitai and people write them."""

from typing import Any

import pytest

from picowatch.recipe.inventory import Checkpoint, Inventory, Upscaler
from picowatch.recipe.parts import Cutout, Hires, Upscale
from picowatch.recipe.recipe import Recipe, no_hash
from tests.recipe.reading import DEMO, check_warned, messages, of_family, read, read_one, refused

TXT = "corgi.txt"
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(
        Checkpoint("dreamshaper_8", 512),
        Checkpoint("a, b: c", 512),
        of_family("flux1-dev", "flux", "dev"),
    ),
    vaes=("mse",),
    loras=("add_detail",),
    upscalers=(Upscaler("RealESRGAN_x4plus", 4),),
    cutouts=("people/u2netp",),
    default_checkpoint="demo",
)
BLOCK = """a corgi,
# at the beach
Negative prompt: blurry,
dim
Steps: 30, Sampler: DPM++ 2M SDE, Schedule type: Exponential, CFG scale: 6.5, Seed: 42, \
Size: 512x768, Model hash: 879db523c3, Model: dreamshaper_8, VAE hash: 735e4c3a44, \
VAE: mse.safetensors, Clip skip: 2, Version: v1.10.1
"""


def ignored(*pieces: str) -> list[str]:
    return [f"Recipes have no '{piece}' setting; it was ignored." for piece in pieces]


def prompts(recipes: list[Recipe]) -> list[tuple[str, str, int]]:
    return [(r.prompt, r.negative_prompt, r.steps) for r in recipes]


# sd-dynamic-prompts' pnginfo_saver, A1111's sd_hijack ("Used embeddings"), A1111's page.
REMARKS = """
Template: a __animal__,
# with a {hat|cap}
Negative Template: dim, __bad__
Version: v1.10.1

Used embeddings: Camilla-FE [e687]

Saved: 00013-42.png
Time taken: 12.3 sec.
A: 3.21 GB, R: 3.59 GB, Sys: 4.2/8 GB (52.1%)
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog\nNegative prompt: blurry,\ndark\nSteps: 3, Seed: 1\n\n\na fox\n\nwith a hat\n"
         "Steps: 4, Sampler: DDIM\n\nan owl\n",
         [("a dog", "blurry,\ndark", 3), ("a fox\n\nwith a hat", "", 4), ("an owl", "", 24)]),
        ("a\nNegative prompt: b\n\nc\nNegative prompt: d\n", [("a", "b", 24), ("c", "d", 24)]),
        ("\nSteps: 3, Seed: 1\nSteps: 4, Seed: 1", [("", "", 3), ("", "", 4)]),
        ("a cat\nnegative prompt: dim\nsteps: 9, sampler: ddim", [("a cat", "dim", 9)]),
        ("a\nSteps: 3, Seed: 1\0", [("a", "", 3)]),
        (f"a cat\nSteps: 3, Sampler: Euler{REMARKS}\na fox\nSteps: 4, Sampler: Euler{REMARKS}",
         [("a cat", "", 3), ("a fox", "", 4)]),
        ("a\nSteps: 3, Sampler: DDIM\nTemplate: __a__\nb\nSteps: 4, Sampler: DDIM",
         [("a", "", 3), ("b", "", 4)]),
        ("---\nsteps: 7\n---\na fox\nSteps: 4, Seed: 1\n\na cat\nNegative prompt: dim",
         [("a fox", "", 4), ("a cat", "dim", 7)]),
        ("---\na cat\n---\nSteps: 4, Seed: 1", [("---\na cat\n---", "", 4)]),
        ("---\na cat\nSteps: 4, Seed: 1", [("---\na cat", "", 4)]),
        ("---\nNegative prompt: dim\nsteps: 7\n---\na cat\n", [("a cat", "dim", 7)]),
    ],
)  # fmt: skip
def test_where_blocks_begin_and_end(text: str, expected: list[tuple[str, str, int]]) -> None:
    """Values end a block; remarks below them, and settings above all, are no prompts."""
    assert prompts(read(text, TXT)) == expected


def test_lines_that_only_speak_of_steps_are_prompts() -> None:
    lines = ["a dog", "a castle. Steps: 20, Stairs: many", "Steps: 20, Stairs: many", "a cat"]
    assert [recipe.prompt for recipe in read("\n".join(lines), TXT)] == lines


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a cat. Negative prompt: dim", "'Negative prompt:' inside a prompt would be part of"),
        ("a cat Steps: 9, Seed: 7", "'Steps: 9, Seed: …' looks like A1111's"),
        ("Negative prompt: dim\n\na cat\nNegative prompt: dim\nSteps: 9",
         "a second 'Negative prompt:' without a line like 'Steps: 24' before it. End each"),
    ],
)  # fmt: skip
def test_settings_within_a_line_of_a_list_are_refused(line: str, message: str) -> None:
    (found,) = messages(f"a dog\n{line}\n", TXT)
    assert found.startswith(message)


def test_civitais_networks_are_no_prompts() -> None:
    """Its list stands above the values or below them, and names no files."""
    networks = "Additional networks: urn:air:sdxl:lora:civitai:1@2*0.8, urn:air:sdxl:lora:civitai:3"
    text = "a\nNegative prompt: b\n{}Steps: 3, Seed: 1\n{}"
    for recipes in (
        read(text.format(f"{networks}\n", ""), TXT),
        read(text.format("", networks), TXT),
        read(text.format("", f"\n{networks}"), TXT),
    ):
        assert prompts(recipes) == [("a", "b", 3)]
        check_warned(
            recipes[0], "Recipes have no 'Additional networks: urn:…' setting; it was ignored."
        )


def test_values_go_on_in_lines_below() -> None:
    """After a comma, or where a known key begins them."""
    text = "a\nSteps: 3, Sampler: Euler,\nCFG scale: 4, Foo: 1,\nBar: 2\nSeed: 7, Size: 64x64"
    recipe, after = read(f"{text}\nADetailer model: x.pt\nADetailer confidence: 0.3\nb", TXT)
    assert (recipe.cfg_scale, recipe.seed, recipe.size) == (4.0, 7, "64x64")
    check_warned(recipe, *ignored("Foo: 1", "Bar: 2", "ADetailer model: x.pt"))
    assert after.prompt == "b"


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ("Sampler: DPM++ 2M Karras", {"sampler": "DPM++ 2M", "schedule_type": "karras"}),
        ("Sampler: Undefined", {"sampler": "DPM++ 2M"}),
        ("Scheduler: UniPCMultistepScheduler", {"sampler": "UniPC"}),
        ('Model: "a, b: c", Seed: 5', {"checkpoint": "a, b: c", "seed": 5}),
        ("Clip skip: 0, RNG: GPU", {"clip_skip": 1, "noise": "cpu"}),
        ("Noise Schedule: Zero Terminal SNR", {"prediction": "v_zero_snr"}),
        ("VAE: Default (model)", {"vae": "baked"}),
        ("VAE: mse, Module 1: mse", {"vae": "mse"}),
        ('Lora weights: "add_detail: 0.5", Lora hashes: "a: 0123"',
         {"loras": (("add_detail", 0.5),)}),
        ("Postprocess upscale by: 2, Postprocess upscaler: R-ESRGAN 4x+, Rembg: u2netp",
         {"upscale": Upscale("RealESRGAN_x4plus", 2.0), "cutout": Cutout("people/u2netp")}),
        ("Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+",
         {"hires": Hires(2.0, 6, 0.5, "RealESRGAN_x4plus")}),
        ("Denoising strength: 0.4, Hires upscale: 1.5, Hires steps: 9, Hires upscaler: Lanczos",
         {"hires": Hires(1.5, 23, 0.4, "Lanczos")}),
        ("Size: 256x384, Hires resize: 384x0, Hires steps: 5", {"hires": Hires(1.5, 8)}),
        # A1111 takes all of its steps, a recipe their strength's share.
        ("Denoising strength: 0.4, Hires upscale: 2, Hires steps: 8", {"hires": Hires(2, 20, 0.4)}),
        ("Denoising strength: 0, Hires upscale: 2", {"hires": Hires(2, 0, 0.0)}),
        # SD.Next's modules/processing_info.py.
        ("Parser: a1111, App: SD.Next, Pipeline: StableDiffusionPipeline, Operations: txt2img; "
         "hires, Hires scale: 1.5, Hires strength: 0.3, Hires size: 96x96, LoRA networks: maid",
         {"hires": Hires(1.5, 10, denoising_strength=0.3)}),
        ("process: txt2img, draft: false, width: 128, height: 192, baseModel: Illustrious",
         {"size": "128x192"}),
        ("Size: 64x96, width: 128, height: 192", {"size": "64x96"}),
        ("Civitai metadata: {}, Created Date: 2025-01-01T10:00:00Z, Hashes: {\"model\": \"0\"}",
         {"steps": 3}),
    ],
)  # fmt: skip
def test_what_values_mean(values: str, fields: dict[str, Any]) -> None:
    """Keys in any case, values that say nothing, names that others use."""
    recipe = read_one(f"a\nSteps: 3, Version: 1, {values}", TXT, INVENTORY)
    assert {name: getattr(recipe, name) for name in fields} == fields
    check_warned(recipe, *ignored(*(["Parser: a1111"] if "Parser" in values else [])))


FLUX = "CFG scale: 1, Distilled CFG Scale: 3, Model: flux1-dev"


@pytest.mark.parametrize(
    ("values", "warnings"),
    [
        # ComfyUI's nodes that save A1111's text put the scheduler after the sampler.
        ("Sampler: euler_ancestral, normal, CFG Scale: 4", ignored("normal")),
        ("Face restoration: GFPGAN, Hires Fix: false", ignored("Face restoration: GFPGAN")),
        ("CFG scale: 4, CFG Scale: 5", ["CFG Scale is given twice; 4 is used."]),
        ("Module 1: clip_l, Module 2: mse", ignored("Module 1: clip_l")),
        ("Size: 256x384, Hires resize: 512x512, Hires steps: 5", ignored("Hires resize: 512x512")),
        ('Civitai resources: [{"type":"lora","modelName":"Ink"}], Civitai metadata: {}',
         ignored('Civitai resources: [{"type":"lora","modelName":"Ink"}]')),
        ("Inpaint area: Only masked", ["mask_padding has no effect without mask. It was ignored."]),
        ("Seed: 71415104642", ["the seed 71415104642 has more than 32 bits; 2695627906 is used …"]),
        (f"Variation seed: {2**32 + 5}, Variation seed strength: 1, Seed resize from: 64x64",
         ["the seed 4294967301 has … 5 is used …", *ignored("Seed resize from: 64x64")]),
        (f"Sampler: Euler, Schedule type: Simple, {FLUX}, Diffusion in Low Bits: Automatic, "
         "Beta schedule alpha: 0.6, Hires upscale: 2, Hires upscaler: Lanczos, Hires CFG Scale: 1, "
         "Hires Distilled CFG Scale: 3.0, Hires sampler: Use same sampler", []),
        (f"{FLUX}, Diffusion in Low Bits: bnb-nf4, Hires Distilled CFG Scale: 4",
         ignored("Diffusion in Low Bits: bnb-nf4", "Hires Distilled CFG Scale: 4")),
    ],
)  # fmt: skip
def test_what_a_recipe_cannot_say_is_a_warning(values: str, warnings: list[str]) -> None:
    check_warned(read_one(f"a\nSteps: 3, Version: 1, {values}", TXT, INVENTORY), *warnings)


MODEL = "Model: dreamshaper_8"
WORDS = "Braces and names like __animal__ are words here, as in A1111…"


@pytest.mark.parametrize(
    ("prompt", "values", "fields", "warnings"),
    [
        ("a {corgi|cat}", MODEL, {"prompt": r"a \{corgi|cat}"}, [WORDS]),
        ("a __dog__ {best}", MODEL, {"prompt": r"a \__dog\__ \{best}"}, [WORDS]),
        ("a ${x=balloon} __cat(d)__", MODEL, {"prompt": r"a $\{x=balloon} \__cat(d)\__"}, [WORDS]),
        ("a (b:133), 16:9 (c:1.2.3)", MODEL, {"prompt": "a (b), 16:9 (c)"},
         [f"the weight '{weight}' is not … It was ignored." for weight in ("133", "1.2.3")]),
        ("a <lora:add_detail:0.8:0.5>", MODEL, {"prompt": "a <lora:add_detail:0.8>"},
         ["<lora:add_detail:0.8:0.5> is not … <lora:add_detail:0.8> is used instead."]),
        ("a <lora:add_detail:lbw=1,0:.5:te=1>", MODEL, {"prompt": "a <lora:add_detail:.5>"},
         ["<lora:add_detail:lbw=1,0:.5:te=1> is … <lora:add_detail:.5> is used instead."]),
        ("a <lora:add_detail:>", MODEL, {"prompt": "a"},
         ["<lora:add_detail:> is not a LoRA with one weight from -10 to 10. … It was ignored."]),
        ("a <lora:add_detail:0,8>", MODEL, {"prompt": "a"}, ["<lora:add_detail:0,8> … ignored."]),
        ("a cat AND a dog", MODEL, {"prompt": "a cat, a dog"}, ["AND (composing prompts) …"]),
        ("a", f"{MODEL}, Sampler: res_multistep", {"sampler": "DPM++ 2M"},
         ["the sampler res_multistep is not supported; … DPM++ 2M is used instead."]),
    ],
)  # fmt: skip
def test_a_pasted_text_means_what_it_means_in_a_picture(
    prompt: str, values: str, fields: dict[str, Any], warnings: list[str]
) -> None:
    """What a recipe lacks becomes what comes closest, with a warning."""
    text = f"{prompt}\nSteps: 3, Seed: 1, {values}"
    pasted = read_one(text, TXT, INVENTORY)
    by_from = read_one("from: a.png", inventory=INVENTORY, texts={"parameters": text})
    assert pasted.digest(no_hash) == by_from.digest(no_hash)
    assert {name: getattr(pasted, name) for name in fields} == fields
    check_warned(pasted, *warnings)
    check_warned(by_from, *(f"{warning} (in a.png)" for warning in warnings if warning != WORDS))


def test_generation_parameters_under_a_yaml_name_are_recognised() -> None:
    """They are no YAML, but fields in capitals are."""
    (message,) = messages(BLOCK, "corgi.yaml")
    assert message == "this looks like A1111's generation parameters; rename it to corgi.txt"
    (message, *_) = messages("Prompt: a\nNegative Prompt: b\nSteps: many", "corgi.yaml")
    assert "A1111" not in message


def test_a_checkpoint_that_is_not_installed_is_shown_where_it_stands() -> None:
    (problem,) = refused(
        "a cat\nSteps: 20, Model hash: abc, Model: nova, Seed: 1", "a.txt"
    ).problems
    assert (problem.line, problem.column, problem.width) == (2, 36, 4)
    assert problem.message == (
        "no checkpoint 'nova' in models/checkpoints. Only demo is available. Put its file there, "
        "or remove 'Model: nova': only this text asks for it."
    )
