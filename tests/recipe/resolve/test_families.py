"""Defaults of families of checkpoints, and what these cannot do."""

import re
from pathlib import Path

import pytest

from picowatch.families import FAMILIES
from picowatch.recipe.inventory import Inventory
from picowatch.recipe.messages.problems import RecipeInvalid
from tests.recipe.reading import (
    DEMO,
    FLOW_RULES,
    check_refused,
    check_warned,
    hash_of,
    of_family,
    read_one,
    refused,
    request_of,
)

SD1, XL = "Stable Diffusion 1.x", "Stable Diffusion XL"
# Name of the checkpoint, its family's key, its variant.
INSTALLED = (
    *(("turbo", "z_image", "Turbo"), ("dev", "flux", "dev"), ("krea", "flux", "Krea")),
    *(
        ("fill", "flux", "Fill"),
        ("klein", "flux2", "klein 4B"),
        ("k-base", "flux2", "klein base 4B"),
    ),
    *(("qwen-2.1", "qwen_image_21"), ("lumina", "lumina2"), ("sd3", "sd3", "3 Medium")),
    *(("xl", "sdxl"), ("dream", "sd1")),
)
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=tuple(of_family(*which) for which in INSTALLED),
    vaes=("mse", "ae", "qwen"),
    vae_families={"mse": (SD1, XL), "ae": ("FLUX.1", "Z-Image"), "qwen": ("Qwen-Image",)},
    loras=("pixel", "styles/line", "unsaid"),
    embeddings=("bad hands", "glow", "unsaid"),
    lora_families={"pixel": (SD1,), "styles/line": (XL,)},
    embedding_families={"bad hands": (SD1,), "glow": (XL,)},
    wildcards={"both": ("[red|blue]",)},
)


def test_the_docs_list_the_defaults_of_each_flow_family() -> None:
    """The table in docs/models.md, by the names of families and variants."""
    text = (Path(__file__).parents[3] / "docs/models.md").read_text()
    table = text.partition("## Defaults of flow families")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:5] for line in table.splitlines() if line.startswith("| ")]
    listed = {name.strip(): [float(cell.strip() or 0) for cell in row] for name, *row in rows[1:]}
    rules = {
        f"{FAMILIES[family].name} {variant}".strip(): [
            known.defaults[name] for name in ("steps", "cfg_scale", "guidance")
        ]
        for (family, variant), known in FLOW_RULES.items()
    }
    sizes = re.compile(" (4B|9B|0.3)$")  # they change nothing
    assert listed == {name: values for name, values in rules.items() if not sizes.search(name)}
    assert all(values == listed[sizes.sub("", name)] for name, values in rules.items())


def test_what_looks_at_its_start_image_begins_with_noise() -> None:
    """The recipe can override this; other families start from the picture."""
    text = "prompt: a\nimage: a.png\nmask: b.png\ncheckpoint: "
    for checkpoint, strength in {"fill": 1, "klein": 1, "k-base": 1, "dev": 0.75}.items():
        assert read_one(text + checkpoint, inventory=INVENTORY).denoising_strength == strength
        own = read_one(f"{text}{checkpoint}\nstrength: 0.8", inventory=INVENTORY)
        assert own.denoising_strength == 0.8


def test_a_flow_has_its_own_schedule() -> None:
    """As Forge calls it; Stable Diffusion's is trailing spacing under that name."""
    for written in ("", "sampler: Euler", "sampler: Euler Simple", "schedule_type: simple"):
        recipe = read_one(f"prompt: a\ncheckpoint: dev\n{written}", inventory=INVENTORY)
        assert (recipe.sampler, recipe.schedule_type) == ("Euler", "simple")
    other = read_one("prompt: a\ncheckpoint: xl\nsampler: Euler Simple", inventory=INVENTORY)
    assert (other.sampler, other.schedule_type) == ("Euler", "sgm_uniform")


OTHER_LORA = "the LoRA '{0}' is for {1}, but the checkpoint '{2}' belongs to {3}. Remove …"
OTHER_EMBEDDING = "the embedding '{}' is for {}, but the checkpoint '{}' belongs to {}. Remove …"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("checkpoint: turbo\nsampler: Heun", "… Use Euler, DPM++ 2M or UniPC, or leave it out."),
        ("checkpoint: turbo\nsampler: DPM++ 2M Karras", "… Remove it, or write simple."),
        ("checkpoint: qwen-2.1\nwidth: 80", "width must be a multiple of 32: 64 or 96 would do."),
        ("checkpoint: lumina\ndetail: face", "… has no detail: it cannot start from a picture. …"),
        ("checkpoint: dev\ndetail: {find: face, prompt: '[red:blue:0.5]'}", "… cannot change …"),
        ("checkpoint: fill", "the checkpoint 'fill' redraws … selects. Add image and mask."),
        ("checkpoint: klein\nimage: a.png\nsize: 1280x1024",
         "FLUX.2 takes start images of at most 1,048,576 pixels …, but the size is 1280x1024. …"),
        ("checkpoint: dev\nsize: 1040x1024\nhires: 1.5", "… but FLUX.1 needs … multiples of 16. …"),
        ("checkpoint: sd3\nhires: 4", "hires makes 4096x4096 from 1024x1024; the limit is 3072 …"),
        ("checkpoint: dev\nhires: {upscaler: Latent}", "… With FLUX.1 use Lanczos, Nearest or …"),
        ("loras: pixel\ncheckpoint: xl",
         OTHER_LORA.format("pixel", SD1, "xl", XL) + " … 'loras: {pixel: {family: sdxl}}'."),
        ("prompt: a <lora:line:0.5>\ncheckpoint: dream",
         OTHER_LORA.format("styles/line", XL, "dream", SD1)),
        ("prompt: (Glow:1.2)\ncheckpoint: dream", OTHER_EMBEDDING.format("glow", XL, "dream", SD1)),
        ("negative_prompt: unsaid\ncheckpoint: dev",
         OTHER_EMBEDDING.format("unsaid", "Stable Diffusion", "dev", "FLUX.1")),
        ("checkpoint: dev\nvae: qwen", "… 'dev' belongs to FLUX.1. Use ae or baked."),
    ],
)  # fmt: skip
def test_what_a_family_cannot_do_is_refused(text: str, message: str) -> None:
    prompt = "" if text.startswith("prompt") else "prompt: a\n"
    check_refused(prompt + text, message, inventory=INVENTORY)


def test_a_family_with_one_prompt_for_all_steps_refuses_to_change_words() -> None:
    """In all ways, also in what a wildcard draws; mere weights are ignored."""
    text = "checkpoint: dev\nprompt: a [cat|dog], ([a:b:5]:1.2)\nnegative_prompt: '[a:9]'\n"
    problems = refused(text, inventory=INVENTORY).problems
    assert [(p.line, p.column, p.width) for p in problems] == [(2, 9, 26), (2, 9, 26), (3, 18, 7)]
    assert problems[0].message == (
        "FLUX.1 cannot change words between the steps: [cat|dog] is for Stable Diffusion. Write "
        "the words you want."
    )
    drawn = read_one("checkpoint: dev\nprompt: a __both__\nseed: 1", inventory=INVENTORY)
    with pytest.raises(RecipeInvalid, match=r"line 2, column 9: FLUX.1 cannot change words"):
        drawn.image_requests(hash_of)
    able = request_of("checkpoint: dream\nprompt: a __both__\nseed: 1", inventory=INVENTORY)
    assert able.prompt == "a [red|blue]"


PLAIN = "{} reads prompts as plain text: weights and BREAK were ignored."
NO_NEGATIVE = "The negative prompt was ignored: it has no effect at cfg_scale 1."


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("prompt: a (red:1.2) cube\ncheckpoint: dev", [PLAIN.format("FLUX.1")]),
        ("prompt: a\nnegative_prompt: b\ncheckpoint: dev", [NO_NEGATIVE]),
        ("prompt: a\nnegative_prompt: b\ncheckpoint: xl\ncfg_scale: 1", [NO_NEGATIVE]),
        ("prompt: a\ncheckpoint: turbo\ncfg_scale: 2",
         ["The checkpoint 'turbo' was trained for cfg_scale 1: a higher one takes longer, …"]),
        ("prompt: a \\(red\\) cube\ncheckpoint: dev\nhires: true", []),
        ("prompt: a bad hands unsaid <lora:pixel>\nloras: unsaid\ncheckpoint: dream", []),
        ("prompt: a\ncheckpoint: xl\nloras: {pixel: {family: sdxl}}", []),
        ("prompt: a glow, bad hands <lora:pixel>\nloras: line\ncheckpoint: demo", []),
    ],
)  # fmt: skip
def test_what_a_family_does_not_honour_is_warned_about(text: str, warnings: list[str]) -> None:
    """The picture is rendered; with what the family can do, nothing is said."""
    check_warned(read_one(text, inventory=INVENTORY), *warnings)


def test_what_is_for_another_family_than_a_pictures_is_left_out() -> None:
    """Whoever starts from the picture did not write it, and cannot remove it."""
    picture = {
        "parameters": "a (bad hands:1.2) <lora:pixel:1> unsaid\nNegative prompt: glow, dim\n"
        "Steps: 3, Sampler: Euler, CFG scale: 4, Model: dream"
    }
    for checkpoint, prompt, negative, left_out in (
        ("dream", "a (bad hands:1.2) <lora:pixel:1> unsaid", ", dim", ["embedding 'glow'"]),
        ("xl", "a (:1.2)  unsaid", "glow, dim", ["LoRA 'pixel'", "embedding 'bad hands'"]),
    ):
        text = f"from: a.png\ncheckpoint: {checkpoint}"
        recipe = read_one(text, inventory=INVENTORY, texts=picture)
        assert (recipe.prompt, recipe.negative_prompt) == (prompt, negative)
        check_warned(recipe, *(f"the {what} is for …" for what in left_out))
