"""A1111's generation parameters as other programs, extensions and pages write them.

Samples follow what is found in public repositories; where, is said beside them.
"""

from dataclasses import replace

import pytest

from picowatch.recipe import Checkpoint, Inventory, Recipe
from picowatch.recipe.families import rules_of
from picowatch.recipe.parts import Hires
from tests.recipe.reading import DEMO, messages, read, read_one

TXT = "corgi.txt"
FLUX = Checkpoint("flux1-dev", 1024, family="FLUX.1", rules=rules_of("flux", "dev"))
INVENTORY = Inventory(demo=DEMO, checkpoints=(Checkpoint("sd_v1.4_f16", 512),), vaes=("mse",))
FLOWS = Inventory(demo=DEMO, checkpoints=(FLUX,))


def left_out(*pieces: str) -> tuple[str, ...]:
    return tuple(f"Recipes have no '{piece}' setting; it was ignored." for piece in pieces)


def prompts(recipes: list[Recipe]) -> list[tuple[str, str, int]]:
    return [(r.prompt, r.negative_prompt, r.steps) for r in recipes]


@pytest.mark.parametrize(
    ("values", "warnings"),
    [
        # ComfyUI's nodes that save A1111's text put the scheduler after the sampler.
        ("Sampler: euler_ancestral, normal, CFG Scale: 4", ("normal",)),
        ("Sampler: Euler a, txt2img, CFG scale: 4", ("txt2img",)),
        ("Sampler: Euler a, Styles: foo, bar, CFG scale: 4", ("Styles: foo", "bar")),
        ("Sampler: Euler a, (x:1.2), , CFG scale: 4", ("(x:1.2)",)),
    ],
)
def test_a_piece_that_is_no_value_ends_at_the_next_comma(
    values: str, warnings: tuple[str, ...]
) -> None:
    """What stands after it counts, and the piece is named."""
    recipe = read_one(f"a\nSteps: 9, {values}, Seed: 7, Size: 256x192", TXT)
    assert (recipe.steps, recipe.sampler, recipe.cfg_scale) == (9, "Euler a", 4.0)
    assert (recipe.seed, recipe.size) == (7, "256x192")
    assert recipe.warnings == left_out(*warnings)


# sd-dynamic-prompts' pnginfo_saver, A1111's sd_hijack ("Used embeddings"), A1111's page.
REMARKS = """
Template: a __animal__,
# with a {hat|cap}
Negative Template: dim, __bad__
Version: v1.10.1

Used embeddings: Camilla-FE [e687]
Time taken: 12.3 sec.
A: 3.21 GB, R: 3.59 GB, Sys: 4.2/8 GB (52.1%)
"""


def test_remarks_below_the_values_are_no_prompts() -> None:
    """A template has as many lines as its prompt had; the next block begins after them."""
    text = f"a cat\nSteps: 3, Sampler: Euler{REMARKS}\na fox\nSteps: 4, Sampler: Euler{REMARKS}"
    assert prompts(read(text, TXT)) == [("a cat", "", 3), ("a fox", "", 4)]
    text = "a\nSteps: 3, Sampler: DDIM\nTemplate: __a__\nb\nSteps: 4, Sampler: DDIM"
    assert prompts(read(text, TXT)) == [("a", "", 3), ("b", "", 4)]


def test_values_go_on_in_the_next_line() -> None:
    """A mail program broke it."""
    recipe = read_one("a\nSteps: 3, Sampler: Euler, CFG scale: 4,\nSeed: 7, Size: 64x64\n", TXT)
    assert (recipe.cfg_scale, recipe.seed, recipe.size) == (4.0, 7, "64x64")


@pytest.mark.parametrize(
    "text",
    [
        "a cat\nNegative prompt: dim\nSteps: 9, Seed: 7",
        "a cat\nNegative Prompt: dim\nSteps: 9, CFG scale: 7.5, Seed: 7",
        "    a cat\n    Negative prompt: dim\n    Steps: 9, Sampler: DPM++ 2M Karras, Seed: 7",
        # What `exiftool` shows of a user comment: a dot for each line break.
        "Parameters                      : a cat.Negative prompt: dim.Steps: 9, Seed: 7",
        "User Comment                    : a cat.Negative prompt: dim.Steps: 9, Seed: 7",
        "a cat Negative prompt: dim Steps: 9, Seed: 7",
        "a cat\nNegative prompt: dim.Steps: 9, Seed: 7",
        "a cat.Negative prompt: dim.Steps: 9, Seed: 7.Template: a __b__.Negative Template: c",
    ],
)
def test_no_shape_of_the_text_is_drawn_as_a_prompt(text: str) -> None:
    """Without a sampler, indented, or all in one line."""
    assert [(*one, r.seed) for r in read(text, TXT) for one in prompts([r])] == [
        ("a cat", "dim", 9, 7)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Negative prompt: a\n\nNegative prompt: b\n", [("", "a", 24), ("", "b", 24)]),
        ("Steps: 3, Seed: 1\nSteps: 4, Seed: 1", [("", "", 3), ("", "", 4)]),
        ("Negative prompt: a.Steps: 3, Seed: 1", [("", "a", 3)]),
        ("Parameters: ", None),
    ],
)
def test_a_block_may_lack_its_prompt(text: str, expected: list[tuple[str, str, int]]) -> None:
    """An empty prompt is one. A heading alone is no block."""
    assert prompts(read(text, TXT)) == (expected or [(text.strip(), "", 24)])


def test_each_line_that_is_a_whole_block_is_a_recipe() -> None:
    """Several such lines are several recipes."""
    text = "an owl\n\na cat. Steps: 3, Seed: 7\na fox.Negative prompt: .Steps: 4, Seed: 8"
    assert prompts(read(text, TXT)) == [("an owl", "", 24), ("a cat.", "", 3), ("a fox", "", 4)]


def test_problems_point_into_a_line_that_holds_all() -> None:
    """At the value, wherever it stands."""
    assert messages("a cat.Steps: 9, Seed: 7, Size: 100x64", TXT) == [
        "width must be a multiple of 8: 96 or 104 would do."
    ]


def test_a_negative_prompt_within_a_line_is_refused() -> None:
    """Its words would be part of the picture."""
    (message,) = messages("a dog\na cat. Negative prompt: dim\n", TXT)
    assert message == (
        "'Negative prompt:' within a prompt would be part of its text. Write --negative_prompt "
        "dim after the "
        "prompt."
    )


def test_draw_things_text_is_read_with_its_negative_line() -> None:
    """As cocktailpeanut/breadmachine#2 shows it."""
    recipe = read_one(
        "a picture of a guitar (floating on a lake)\n-ocean, (sunny)\nSteps: 10, Sampler: DDIM, "
        "Guidance Scale: 10.0, Seed: 1177739245, Size: 1152x768, Model: sd_v1.4_f16.ckpt, "
        "Strength: 1.0, Hires Fix: true, First Stage Size: 768x512, Second Stage Strength: 0.7",
        TXT,
        INVENTORY,
    )
    assert (recipe.prompt, recipe.negative_prompt) == (
        "a picture of a guitar (floating on a lake)", "ocean, (sunny)",
    )  # fmt: skip
    assert (recipe.cfg_scale, recipe.checkpoint) == (10.0, "sd_v1.4_f16")
    assert recipe.warnings[:3] == left_out(
        "Hires Fix: true", "First Stage Size: 768x512", "Second Stage Strength: 0.7"
    )


def test_a_line_with_a_hyphen_is_a_prompt_to_all_others() -> None:
    """Draw Things alone writes "Guidance Scale"."""
    assert read_one("a\n-b\nSteps: 3, Sampler: Euler", TXT).prompt == "a\n-b"


@pytest.mark.parametrize(
    ("size", "scale"), [("512x768", 2.0), ("384x0", 1.5), ("384x576", 1.5), ("256x384", 1.0)]
)
def test_hires_with_a_size_has_the_scale_that_gives_it(size: str, scale: float) -> None:
    """A1111 writes a size or a scale."""
    text = f"a\nSteps: 3, Sampler: Euler, Size: 256x384, Hires resize: {size}, Hires steps: 5"
    recipe = read_one(text, TXT)
    assert recipe.hires and (recipe.hires.scale, recipe.hires.steps) == (scale, 5)


def test_hires_that_changes_the_aspect_is_left_out_whole() -> None:
    """Steps and upscaler alone would be another second pass."""
    recipe = read_one(
        "a\nSteps: 3, Sampler: Euler, Size: 256x384, Hires upscaler: Latent, Hires steps: 5, "
        "Hires resize: 512x512",
        TXT,
    )
    assert recipe.hires is None
    assert recipe.warnings == left_out("Hires resize: 512x512")


def test_a_seed_beyond_32_bits_is_that_of_the_same_noise() -> None:
    """ComfyUI's and Fooocus' seeds have 63 bits, and torch's CPU generator uses 32 of them."""
    recipe = read_one("a\nSteps: 3, Sampler: Euler, Seed: 71415104642", TXT)
    assert recipe.seed == 71415104642 % 2**32
    assert recipe.warnings == (
        "the seed 71415104642 has more than 32 bits; 2695627906 is used instead, which gives the "
        "same noise on a CPU.",
    )


@pytest.mark.parametrize(
    ("values", "vae", "warnings"),
    [
        ("VAE: TAESD", "baked", ("the VAE TAESD is not part of picowatch; the checkpoint's own is "
                                 "used instead.",)),
        ("VAE: Automatic", "baked", ()),
        ("VAE: Default (model)", "baked", ()),
        ("Module 1: mse", "mse", ()),
        ("VAE: mse, Module 1: mse", "mse", ()),
        ("VAE: mse, Module 1: ae", "mse", left_out("Module 1: ae")),
        ("Module 1: clip_l, Module 2: mse", "mse", left_out("Module 1: clip_l")),
        ("Module 1: mse, Module 2: other", "baked",
         left_out("Module 1: mse", "Module 2: other")),
        ("Module 1: ae, Module 2: t5xxl_fp16", "baked",
         (*left_out("Module 2: t5xxl_fp16"), "There is no VAE 'ae' in models/vae; the checkpoint's "
          "own is used instead.")),
        ("Hires Module 1: Use same choices", "baked", ()),
    ],
)  # fmt: skip
def test_what_names_a_vae(values: str, vae: str, warnings: tuple[str, ...]) -> None:
    """Forge calls its further files modules; one of them may be the VAE."""
    recipe = read_one(f"a\nSteps: 3, Sampler: Euler, {values}", TXT, INVENTORY)
    assert (recipe.vae, recipe.warnings) == (vae, warnings)


@pytest.mark.parametrize("values", ["VAE: mse", "Module 1: mse"])
def test_the_vae_is_nearer_than_a_folders_default(values: str) -> None:
    """Whatever it is called."""
    text = f"a\nSteps: 3, Sampler: Euler, {values}"
    assert read_one(text, TXT, INVENTORY, {"_defaults.yaml": "vae: other"}).vae == "mse"


def test_fooocus_text_is_read() -> None:
    """Its modules/meta_parser.py: Scheduler beside the sampler's name, raw prompts, LoRAs."""
    recipe = read_one(
        "a cat, cinematic still\nNegative prompt: dim\nSteps: 30, Sampler: DPM++ 2M SDE Karras, "
        'Seed: 7, Size: 256x256, CFG scale: 4, Sharpness: 2.0, ADM Guidance: "(1.5, 0.8, 0.3)", '
        "Model: sd_v1.4_f16, Model hash: 0123456789, Performance: Speed, Scheduler: karras, "
        "VAE: Default (model), Raw prompt: a cat, Raw negative prompt: , Version: Fooocus v2.5.5",
        TXT,
        INVENTORY,
    )
    assert (recipe.sampler, recipe.schedule_type) == ("DPM++ 2M SDE", "karras")
    assert (recipe.seed, recipe.cfg_scale, recipe.vae) == (7, 4.0, "baked")
    assert recipe.warnings == left_out(
        "Sharpness: 2.0", "ADM Guidance: (1.5, 0.8, 0.3)", "Performance: Speed"
    )


def test_loras_of_fooocus_text_are_used() -> None:
    """Beside the prompt, with their weights: its prompts have no tags."""
    inventory = replace(INVENTORY, loras=("xl/add-detail", "maid"))
    recipe = read_one(
        'a cat\nSteps: 30, Sampler: Euler, Lora hashes: "add-detail: 0123456789, '
        'maid: 0123456789", Lora weights: "add-detail: 0.5, maid: -1.0", Version: Fooocus v2.5.5',
        TXT,
        inventory,
    )
    assert recipe.loras == (("xl/add-detail", 0.5), ("maid", -1.0))
    assert recipe.warnings == ()


def test_loras_of_fooocus_text_for_another_family_are_left_out() -> None:
    """As tags in prompts are."""
    inventory = replace(FLOWS, loras=("detail",), lora_families={"detail": "Stable Diffusion XL"})
    recipe = read_one(f'a\nSteps: 9, {F}, Lora weights: "detail: 0.5"', TXT, inventory)
    assert recipe.loras == ()
    assert recipe.warnings == ("The LoRA 'detail' was left out: it is for Stable Diffusion XL.",)


def test_sd_nexts_text_is_read() -> None:
    """Its modules/processing_info.py: a second pass by other names, and what says nothing."""
    recipe = read_one(
        "a cat\nNegative prompt: dim\nSteps: 20, Size: 256x256, Sampler: UniPC, Seed: 7, "
        "CFG scale: 6, App: SD.Next, Version: f903a36, Pipeline: StableDiffusionPipeline, "
        "Operations: hires; txt2img, Model: sd_v1.4_f16, HiRes mode: 1, "
        "Hires upscaler: Latent, Hires scale: 1.5, "
        "Hires size: 384x384, Hires force: True, Hires steps: 10, Hires strength: 0.3, "
        "LoRA networks: maid, LoRA hashes: 0123456789ab",
        TXT,
        INVENTORY,
    )
    assert recipe.hires == Hires(scale=1.5, steps=10, denoising_strength=0.3, upscaler="Latent")
    assert recipe.warnings == left_out("HiRes mode: 1", "Hires force: True")


def test_one_value_under_two_keys_is_one() -> None:
    """Another value is a mistake."""
    text = "a\nSteps: 3, Sampler: Euler, CFG scale: 4, CFG Scale: {}"
    assert read_one(text.format(4), TXT).cfg_scale == 4.0
    assert messages(text.format(5), TXT) == [
        "'cfg_scale' is given twice: already on line 2 as 'CFG scale'. Keep one."
    ]


# Forge's modules/processing.py; F is what it writes for FLUX.1.
F = "Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3, Model: flux1-dev"


@pytest.mark.parametrize(
    ("more", "warnings"),
    [
        ("", ()),
        ("Diffusion in Low Bits: Automatic (fp16 LoRA)", ()),
        (
            "Diffusion in Low Bits: bnb-nf4 (fp16 LoRA)",
            left_out("Diffusion in Low Bits: bnb-nf4 (fp16 LoRA)"),
        ),
        ("Beta schedule alpha: 0.6, Beta schedule beta: 0.6", ()),
        ("Beta schedule alpha: 0.5", left_out("Beta schedule alpha: 0.5")),
        (
            "Hires upscale: 2, Hires upscaler: Lanczos, Hires CFG Scale: 1, "
            "Hires Distilled CFG Scale: 3.0, Hires checkpoint: Use same checkpoint, "
            "Hires sampler: Use same sampler",
            (),
        ),
        (
            "Hires upscale: 2, Hires upscaler: Lanczos, Hires Distilled CFG Scale: 4",
            left_out("Hires Distilled CFG Scale: 4"),
        ),
        (
            "Refiner: sd_xl_refiner_1.0, Refiner switch at: 0.8",
            left_out("Refiner: sd_xl_refiner_1.0", "Refiner switch at: 0.8"),
        ),
        ("Emphasis: No norm", left_out("Emphasis: No norm")),
        (
            "Clip skip: 2",
            (
                "clip_skip was ignored: FLUX.1 has none. Its text encoders are read where it was "
                "trained to.",
            ),
        ),
    ],
)
def test_forges_flux_is_read(more: str, warnings: tuple[str, ...]) -> None:
    """What a recipe cannot say is named, unless it is as usual."""
    recipe = read_one(f"a\nSteps: 9, {F}, {more}", TXT, FLOWS)
    assert (recipe.guidance, recipe.cfg_scale) == (3, 1)
    assert (recipe.sampler, recipe.schedule_type) == ("Euler", "simple")
    assert recipe.warnings == warnings


@pytest.mark.parametrize(
    ("values", "sampler", "warning"),
    [
        (
            "Sampler: Heun, Schedule type: Beta",
            "Euler",
            "The sampler Heun was replaced by Euler: FLUX.1 steps along a flow.",
        ),
        (
            "Sampler: DPM++ 2M, Schedule type: Beta",
            "DPM++ 2M",
            "The schedule type beta was ignored: FLUX.1 has a schedule of its own.",
        ),
        (
            "Sampler: Euler, Hires upscale: 2, Hires upscaler: Latent",
            "Euler",
            "The upscaler Latent was replaced by Lanczos: it is for Stable Diffusion's latents.",
        ),
    ],
)
def test_pasted_settings_that_a_flow_cannot_do_are_warnings(
    values: str, sampler: str, warning: str
) -> None:
    """Another program wrote them; in a recipe of one's own they are mistakes."""
    recipe = read_one(f"a\nSteps: 9, {values}, Model: flux1-dev", TXT, FLOWS)
    assert recipe.sampler == sampler
    assert warning in recipe.warnings


def test_civitais_flux_is_read_as_forge_reads_it() -> None:
    """Its CFG scale is the distilled one; its clip skip and sampler mean nothing."""
    text = (
        "a\nSteps: 25, CFG scale: 3.5, Sampler: Undefined, Seed: 7, Size: 832x1216, Clip skip: 2, "
        'Created Date: 2024-09-01T00:00:00Z, Civitai resources: [{"type":"checkpoint",'
        '"modelVersionId":691639,"modelName":"FLUX","modelVersionName":"Dev"}], '
        "Civitai metadata: {}, Model: flux1-dev"
    )
    recipe = read_one(text, TXT, FLOWS)
    assert (recipe.guidance, recipe.cfg_scale, recipe.clip_skip) == (3.5, 1, 1)
    assert (recipe.sampler, recipe.schedule_type, recipe.size) == ("Euler", "simple", "832x1216")
    assert recipe.warnings == ()
    other = read_one(text.replace("FLUX", "Pony").replace("Undefined", "Euler"), TXT, FLOWS)
    assert (other.cfg_scale, other.guidance) == (3.5, 3.5)
