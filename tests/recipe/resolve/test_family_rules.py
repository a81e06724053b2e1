"""What the families of checkpoints cannot do is said when a recipe is saved, and what they do."""

import re
from pathlib import Path

import pytest

from picowatch.families import FAMILIES
from picowatch.recipe import Checkpoint, Inventory
from picowatch.recipe.families import DEMO_RULES, rules_of
from tests.recipe.flow_rules import FLOW_RULES
from tests.recipe.reading import DEMO, hash_of, read_one, refused

INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(
        Checkpoint("turbo", 1024, family="Z-Image", rules=rules_of("z_image", "Turbo")),
        Checkpoint("z-base", 1024, family="Z-Image", rules=rules_of("z_image", "Base")),
        Checkpoint("dev", 1024, family="FLUX.1", rules=rules_of("flux", "dev")),
        Checkpoint("krea", 1024, family="FLUX.1", rules=rules_of("flux", "Krea")),
        Checkpoint("fill", 1024, family="FLUX.1", rules=rules_of("flux", "Fill")),
        Checkpoint("klein", 1024, family="FLUX.2", rules=rules_of("flux2", "klein 4B")),
        Checkpoint("k-base", 1024, family="FLUX.2", rules=rules_of("flux2", "klein base 4B")),
        Checkpoint("qwen", 1328, family="Qwen-Image", rules=rules_of("qwen_image")),
        Checkpoint("ernie", 1024, family="ERNIE-Image", rules=rules_of("ernie_image", "Base")),
        Checkpoint("e-turbo", 1024, family="ERNIE-Image", rules=rules_of("ernie_image", "Turbo")),
        Checkpoint("ovis", 1024, family="Ovis-Image", rules=rules_of("ovis")),
        Checkpoint("raw", 1024, family="Krea 2", rules=rules_of("krea2", "Raw")),
        Checkpoint("k-turbo", 1024, family="Krea 2", rules=rules_of("krea2", "Turbo")),
        Checkpoint("schnell", 1024, family="FLUX.1", rules=rules_of("flux", "schnell")),
        Checkpoint("aura", 1024, family="AuraFlow", rules=rules_of("aura_flow")),
        Checkpoint("sana", 1024, family="Sana", rules=rules_of("sana")),
        Checkpoint("pixart", 1024, family="PixArt", rules=rules_of("pixart", "Sigma")),
        Checkpoint("lumina", 1024, family="Lumina 2", rules=rules_of("lumina2")),
        Checkpoint("sd3", 1024, family="Stable Diffusion 3.x", rules=rules_of("sd3", "3 Medium")),
        Checkpoint("xl", 1024, family="Stable Diffusion XL", rules=rules_of("sdxl")),
        Checkpoint("tiny", 128, family="the demo model", rules=DEMO_RULES),
    ),
)


@pytest.mark.parametrize(
    ("checkpoint", "steps", "cfg_scale", "guidance"),
    [
        ("turbo", 8, 1, 0),
        ("z-base", 50, 5, 0),
        ("dev", 28, 1, 3.5),
        ("krea", 28, 1, 4.5),
        ("schnell", 4, 1, 0),
        ("klein", 4, 1, 0),
        ("k-base", 50, 4, 0),
        ("qwen", 50, 4, 0),
        ("ernie", 50, 4, 0),
        ("e-turbo", 8, 1, 0),
        ("ovis", 50, 5, 0),
        ("raw", 52, 4.5, 0),
        ("k-turbo", 8, 1, 0),
        ("lumina", 50, 4, 0),
        ("sd3", 28, 7, 0),
        ("xl", 24, 7.5, 0),
        ("tiny", 24, 4, 0),
    ],
)
def test_what_a_recipe_leaves_out_is_the_familys(
    checkpoint: str, steps: int, cfg_scale: float, guidance: float
) -> None:
    """And what it says wins."""
    recipe = read_one(f"prompt: a\ncheckpoint: {checkpoint}", inventory=INVENTORY)
    assert (recipe.steps, recipe.cfg_scale, recipe.guidance) == (steps, cfg_scale, guidance)
    own = read_one(f"prompt: a\ncheckpoint: {checkpoint}\nsteps: 3", inventory=INVENTORY)
    assert own.steps == 3


@pytest.mark.parametrize(
    ("above", "defaults", "cfg_scales"),
    [("", "", [4, 7.5, 1]), ("cfg_scale: 6", "", [6, 6, 6]), ("", "cfg_scale: 6", [6, 6, 6])],
)
def test_a_sweep_over_checkpoints_leaves_each_its_own_defaults(
    above: str, defaults: str, cfg_scales: list[float]
) -> None:
    """Unless the recipe or its folder says otherwise."""
    text = f"prompt: a\nseed: 1\n{above}\nsweep:\n  checkpoint: [tiny, xl, turbo]\n"
    recipe = read_one(text, inventory=INVENTORY, defaults={"_defaults.yaml": defaults})
    assert [request.cfg_scale for request in recipe.image_requests(hash_of)] == cfg_scales


def test_the_docs_list_the_defaults_of_each_flow_family() -> None:
    """The table in docs/models.md, by the names of families and variants."""
    text = (Path(__file__).parents[3] / "docs/models.md").read_text()
    table = text.partition("## Defaults of flow families")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:5] for line in table.splitlines() if line.startswith("| ")]
    listed = {name.strip(): tuple(map(_number, values)) for name, *values in rows[1:]}
    rules = {
        f"{FAMILIES[family].name} {variant}".strip(): (
            known.defaults["steps"],
            known.defaults["cfg_scale"],
            known.defaults["guidance"],
        )
        for (family, variant), known in FLOW_RULES.items()
    }
    sizes = re.compile(" (4B|9B|0.3)$")  # they change nothing
    assert listed == {name: values for name, values in rules.items() if not sizes.search(name)}
    assert all(values == listed[sizes.sub("", name)] for name, values in rules.items())


def _number(cell: str) -> float:
    return float(cell.strip() or 0)


@pytest.mark.parametrize("checkpoint", ["fill", "klein", "k-base"])
def test_what_looks_at_its_start_image_begins_with_noise(checkpoint: str) -> None:
    """Unless the recipe says otherwise; the others move away from it."""
    text = "prompt: a\nimage: a.png\nmask: b.png\ncheckpoint: "
    recipe = read_one(text + checkpoint, inventory=INVENTORY)
    assert recipe.denoising_strength == 1
    own = read_one(f"{text}{checkpoint}\nstrength: 0.8", inventory=INVENTORY)
    assert own.denoising_strength == 0.8
    assert read_one(f"{text}dev", inventory=INVENTORY).denoising_strength == 0.75


def test_a_flow_has_its_own_schedule() -> None:
    """As Forge calls it; Stable Diffusion's is trailing spacing under that name."""
    for written in ("", "sampler: Euler", "sampler: Euler Simple", "schedule_type: simple"):
        recipe = read_one(f"prompt: a\ncheckpoint: dev\n{written}", inventory=INVENTORY)
        assert (recipe.sampler, recipe.schedule_type) == ("Euler", "simple")
    other = read_one("prompt: a\ncheckpoint: xl\nsampler: Euler Simple", inventory=INVENTORY)
    assert (other.sampler, other.schedule_type) == ("Euler", "sgm_uniform")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "checkpoint: turbo\nsampler: Heun",
            "the sampler Heun cannot be used: it steps along noise, but Z-Image steps along a "
            "flow. Use Euler, DPM++ 2M or UniPC, or leave it out.",
        ),
        (
            "checkpoint: pixart\nsampler: Heun",
            "the sampler Heun cannot be used: PixArt has a sampler of its own. Use DPM++ 2M, or "
            "leave it out.",
        ),
        ("checkpoint: sana\nwidth: 80", "width must be a multiple of 32: 64 or 96 would do."),
        (
            "checkpoint: aura\nheight: 1040",
            "height is 1040; the limit for AuraFlow is 1024 pixels.",
        ),
        (
            "checkpoint: turbo\nsampler: DPM++ 2M Karras",
            "Z-Image does not take the schedule type 'karras': it has a schedule of its own. "
            "Remove it, or write simple.",
        ),
        (
            "checkpoint: turbo\nschedule_type: karras",
            "Z-Image does not take the schedule type 'karras': it has a schedule of its own. "
            "Remove it, or write simple.",
        ),
        (
            "checkpoint: turbo\nguidance: 3",
            "Z-Image has no guidance: guidance is a number that FLUX.1 dev was trained with; use "
            "cfg_scale. Remove it.",
        ),
        (
            "checkpoint: xl\nguidance: 3",
            "Stable Diffusion XL has no guidance: guidance is a number that FLUX.1 dev was "
            "trained with; use cfg_scale. Remove it.",
        ),
        (
            "checkpoint: dev\nclip_skip: 2",
            "FLUX.1 has no clip_skip: its text encoders are read where it was trained to. "
            "Remove it.",
        ),
        (
            "checkpoint: dev\ncfg_rescale: 0.5",
            "FLUX.1 has no cfg_rescale: it is for Stable Diffusion with a high cfg_scale. "
            "Remove it.",
        ),
        (
            "checkpoint: fill",
            "the checkpoint 'fill' redraws the part of a picture that a mask shows. Add image and "
            "mask.",
        ),
        (
            "checkpoint: fill\nimage: a.png",
            "the checkpoint 'fill' redraws the part of a picture that a mask shows. Add mask.",
        ),
        (
            "checkpoint: fill\nimage: a.png\nmask: b.png\ncfg_scale: 2",
            "FLUX.1 has no cfg_scale: Fill follows the prompt by guidance alone. Remove it.",
        ),
        (
            "checkpoint: klein\nimage: a.png\nsize: 1280x1024",
            "FLUX.2 takes start images of at most 1,048,576 pixels (1024x1024), but the size is "
            "1280x1024. Use a smaller size.",
        ),
        (
            "checkpoint: klein\nhires: true",
            "FLUX.2 has no hires: diffusers has no second pass for it. Remove it.",
        ),
        (
            "checkpoint: raw\nimage: a.png",
            "Krea 2 has no image: it cannot start from a picture. Remove it.",
        ),
        (
            "checkpoint: raw\nhires: true",
            "Krea 2 has no hires: it cannot start from a picture. Remove it.",
        ),
        ("checkpoint: dev\nwidth: 72", "width must be a multiple of 16: 64 or 80 would do."),
        (
            "checkpoint: dev\nsize: 1040x1024\nhires: 1.5",
            "hires makes 1560x1536 of 1040x1024, but FLUX.1 has sides that are multiples of 16. "
            "Use another scale or size.",
        ),
        (
            "checkpoint: lumina\nhires: 2",
            "Lumina 2 has no hires: it cannot start from a picture. Remove it.",
        ),
        (
            "checkpoint: sd3\nhires: 4",
            "hires makes 4096x4096 of 1024x1024; the limit is 3072 pixels a side. Use a smaller "
            "scale or size.",
        ),
        (
            "checkpoint: dev\nhires: {upscaler: Latent (nearest)}",
            "the upscaler Latent (nearest) is for Stable Diffusion's latents. With FLUX.1 use "
            "Lanczos, Nearest or a model.",
        ),
    ],
)
def test_what_a_family_cannot_do_is_refused(text: str, message: str) -> None:
    """Before anything is loaded; one mistake, one sentence."""
    problems = refused(f"prompt: a\n{text}", inventory=INVENTORY).problems
    assert [problem.message for problem in problems] == [message]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "prompt: a (red:1.2) cube\ncheckpoint: dev",
            "FLUX.1 reads prompts as plain text: their weights and BREAK were left out, the words "
            "stayed.",
        ),
        (
            "prompt: a BREAK b\ncheckpoint: turbo",
            "Z-Image reads prompts as plain text: their weights and BREAK were left out, the words "
            "stayed.",
        ),
        (
            "prompt: a\nnegative_prompt: b\ncheckpoint: dev",
            "The negative prompt was ignored: it has no effect at cfg_scale 1.",
        ),
        (
            "prompt: a\ncheckpoint: turbo\ncfg_scale: 2",
            "The checkpoint 'turbo' was trained for cfg_scale 1: a higher one takes longer, and "
            "may change nothing or make pictures worse.",
        ),
    ],
)
def test_what_a_family_does_not_honour_is_warned_about(text: str, warning: str) -> None:
    """The picture is rendered; with what the family can do, nothing is said."""
    assert read_one(text, inventory=INVENTORY).warnings == (warning,)


def test_what_a_family_can_do_goes_without_a_word() -> None:
    """Escaped brackets are plain text; hires enlarges pixels by itself."""
    recipe = read_one(
        "prompt: a \\(red\\) cube\nnegative_prompt: b\ncheckpoint: dev\ncfg_scale: 2\nhires: true",
        inventory=INVENTORY,
    )
    assert recipe.warnings == ()
    assert recipe.hires is not None and recipe.hires.upscaler == "Lanczos"
