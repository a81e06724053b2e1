"""Our own loop gives what diffusers' pipelines give, called as docs/moving.md calls them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from diffusers.callbacks import SDCFGCutoffCallback
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from picowatch.engine.unet.denoise import rescaled
from PIL import Image

from picowatch.catalog import Catalog
from picowatch.engine.noise_levels import NOISE_LEVELS
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.engine.samplers import build_sampler
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.samplers import SAMPLERS
from tests.engine.pictures import start
from tests.engine.requests import ignore_steps, pixels, request
from tests.kinds import one_of_each_kind

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

DEMO = Catalog(Path("nowhere")).demo.path

# The classes as docs/moving.md names them, with what a user adds for a sampler.
CLASSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, {}),
    "DPM++ 2M SDE": (
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    "DPM++ 2M SDE Heun": (
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
    ),
    # k-diffusion's steps, over the noise levels of these classes.
    "DPM++ 3M SDE": (diffusers.EulerDiscreteScheduler, {}),
    "DPM++ 2S a": (diffusers.KDPM2AncestralDiscreteScheduler, {}),
    "DPM++ SDE": (diffusers.DPMSolverSinglestepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "Euler": (diffusers.EulerDiscreteScheduler, {}),
    "Euler a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "Heun": (diffusers.HeunDiscreteScheduler, {}),
    "LMS": (LMSDiscreteScheduler, {}),
    "DPM2": (diffusers.KDPM2DiscreteScheduler, {}),
    "DPM2 a": (diffusers.KDPM2AncestralDiscreteScheduler, {}),
    "DDIM": (diffusers.DDIMScheduler, {}),
    "DDPM": (diffusers.DDPMScheduler, {}),
    "SA-Solver": (diffusers.SASolverScheduler, {}),
    "DEIS": (diffusers.DEISMultistepScheduler, {}),
    "UniPC": (diffusers.UniPCMultistepScheduler, {}),
    "PNDM": (diffusers.PNDMScheduler, {}),
    "LCM": (diffusers.LCMScheduler, {}),
    "TCD": (diffusers.TCDScheduler, {}),
}
# The samplers that were published with "leading": it is their "uniform".
LEADING = ("DDIM", "DDPM", "PNDM", "LCM", "TCD")


def options(sampler: str, schedule_type: str) -> dict[str, Any]:
    """What docs/moving.md adds to `from_config` for a schedule type."""
    match schedule_type:
        case "sgm_uniform":
            return {"timestep_spacing": "trailing"}
        case "uniform" if sampler not in LEADING:
            return {"timestep_spacing": "linspace"}
        case "karras" | "exponential":
            return {f"use_{schedule_type}_sigmas": True, "timestep_spacing": "linspace"}
    return {}


# Enough for multistep samplers to reach their order, at a size where a step takes least.
SMALL: dict[str, Any] = {"seed": 4, "steps": 6, "width": 64, "height": 64}

# diffusers has no option for these, or one that needs scipy: see test_samplers.py.
COMBINATIONS = [
    (sampler.name, schedule_type)
    for sampler in SAMPLERS
    for schedule_type in sampler.schedule_types
    if schedule_type not in NOISE_LEVELS
]
LEADING_DRAWN = ("Euler", "Euler a", "Heun", "DPM2", "UniPC", "DEIS", "DDIM", "PNDM", "DPM++ 2M")
DRAWN = [
    *((sampler, "leading") for sampler in LEADING_DRAWN),
    *(("Euler", kind) for kind in ("uniform", "karras")),
    *(("DPM++ 2M", "karras"), ("Euler a", "uniform"), ("DPM++ SDE", "karras")),
    ("DPM++ 2M SDE Heun", "exponential"),
]
DRAWN_IN_EACH_RUN = (
    *((sampler, "leading") for sampler in ("Euler a", "DPM2", "UniPC", "PNDM", "DDIM")),
    *(("Euler", "karras"), ("DPM++ 2M SDE Heun", "exponential")),
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the start images are kept."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def ours(kept: Path) -> Renderer:
    """In this process and on one thread, as theirs: several spin on a busy machine."""
    return Renderer(
        EngineOptions(models=Path("nowhere"), device="cpu", threads=1, start_images=kept)
    )


@pytest.fixture(scope="module")
def loaded() -> Any:
    """diffusers' pipeline for the same folder."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        DEMO, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def theirs(loaded: Any) -> Any:
    """The pipeline with the folder's scheduler, whichever the test before has put in."""
    scheduler: Any = diffusers.PNDMScheduler
    loaded.scheduler = scheduler.from_pretrained(DEMO, subfolder="scheduler")
    return loaded


def their_scheduler(pipeline: Any, sampler: str, schedule_type: str) -> Any:
    kind, added = CLASSES[sampler]
    return kind.from_config(pipeline.scheduler.config, **added, **options(sampler, schedule_type))


def their_picture(pipeline: Any, requested: ImageRequest, **more: Any) -> Any:
    """What the pipeline draws for the same prompts, seed, guidance and steps."""
    return pipeline(
        requested.prompt,
        negative_prompt=requested.negative_prompt or None,
        generator=torch.Generator("cpu").manual_seed(requested.seed),
        guidance_scale=requested.cfg_scale,
        num_inference_steps=requested.steps,
        output_type="np",
        **more,
    ).images[0]


def size_of(requested: ImageRequest) -> dict[str, int]:
    """For pipelines that draw from noise alone."""
    return {"width": requested.width, "height": requested.height}


def difference_to(expected: Any, ours: Renderer, requested: ImageRequest) -> int:
    (image,) = ours.render([requested], ignore_steps)
    return int(np.abs(pixels(image) - (expected * 255).round()).max())


@pytest.mark.parametrize(("sampler", "schedule_type"), COMBINATIONS)
def test_each_schedule_is_the_one_of_diffusers_class_for_the_folder(
    theirs: Any, sampler: str, schedule_type: str
) -> None:
    """Timesteps, noise levels and the noise to begin with, by docs/moving.md's options."""
    expected = their_scheduler(theirs, sampler, schedule_type)
    expected.set_timesteps(20)
    config = theirs.scheduler.config
    scheduler = build_sampler(sampler, schedule_type, 20, config).scheduler
    assert torch.equal(scheduler.timesteps, expected.timesteps)
    assert float(scheduler.init_noise_sigma) == float(expected.init_noise_sigma)
    assert torch.equal(
        getattr(scheduler, "sigmas", torch.zeros(0)), getattr(expected, "sigmas", torch.zeros(0))
    )


@pytest.mark.parametrize(("sampler", "schedule_type"), one_of_each_kind(DRAWN, DRAWN_IN_EACH_RUN))
def test_a_picture_is_the_one_of_diffusers_pipeline(
    ours: Renderer, theirs: Any, sampler: str, schedule_type: str
) -> None:
    """The same prompt, negative prompt, seed and sampler; at most rounding differs.

    clip_skip is left out: diffusers 0.42's pipeline cannot do it with transformers 5.6 or later.
    """
    requested = request(
        "a corgi with a red hat",
        negative_prompt="blurry",
        sampler=sampler,
        schedule_type=schedule_type,
        **SMALL,
    )
    theirs.scheduler = their_scheduler(theirs, sampler, schedule_type)
    expected = their_picture(theirs, requested, **size_of(requested))
    assert difference_to(expected, ours, requested) <= 1


@pytest.mark.parametrize("cfg_scale", [5.0, 1.0])
def test_cfg_rescale_is_diffusers_guidance_rescale(
    ours: Renderer, theirs: Any, cfg_scale: float
) -> None:
    """And without guidance there is nothing to rescale."""
    requested = request("a corgi", cfg_scale=cfg_scale, cfg_rescale=0.7, **SMALL)
    theirs.scheduler = their_scheduler(theirs, "DPM++ 2M", "karras")
    expected = their_picture(theirs, requested, guidance_rescale=0.7, **size_of(requested))
    assert difference_to(expected, ours, requested) <= 1


def test_cfg_end_is_diffusers_cutoff(ours: Renderer, theirs: Any) -> None:
    """Guidance ends with the step after exactly that share, or the one before it."""
    requested = request("a corgi", cfg_end=0.5, negative_prompt="blurry", **SMALL)
    theirs.scheduler = their_scheduler(theirs, "DPM++ 2M", "karras")
    cutoff = {
        "callback_on_step_end": SDCFGCutoffCallback(cutoff_step_ratio=0.5),
        "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
    }
    expected = their_picture(theirs, requested, **size_of(requested), **cutoff)
    assert difference_to(expected, ours, requested) <= 1


def test_steps_without_guidance_compute_half_the_rows(ours: Renderer, tmp_path: Path) -> None:
    """As A1111's "Skip Early CFG" counts; each pass of hires by its own steps."""
    rows: list[int] = []
    hook = ours._checkpoints.load(request()).unet.register_forward_pre_hook(
        lambda _, inputs: rows.append(len(inputs[0]))
    )
    small: dict[str, Any] = {"width": 64, "height": 64, "sampler": "Euler"}
    small["schedule_type"] = "uniform"
    hires = Hires(scale=1.5, steps=5, denoising_strength=0.8)
    part = request(cfg_start=0.3, cfg_end=0.7, steps=10, hires=hires, **small)
    without, plain = (
        request(cfg_start=1.0, steps=2, **small),
        request(cfg_scale=1.0, steps=2, **small),
    )
    try:
        ours.render([part, replace(part, seed=2)], ignore_steps)
        (first,), (second,) = (ours.render([one], ignore_steps) for one in (without, plain))
    finally:
        hook.remove()
    # Of ten steps those after 0.4 to 0.7 of them, and of four the one after 0.5.
    assert rows == [2] * 4 + [4] * 4 + [2] * 2 + [2, 2, 4, 2] + [1] * 4
    assert first.pixels == second.pixels


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_rescaling_is_diffusers_rescale_noise_cfg(share: float) -> None:
    """Each image of a batch by its own deviation."""
    guided, towards = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = rescale_noise_cfg(guided, towards, share)
    torch.testing.assert_close(rescaled(guided, towards, share), expected)


@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "DPM++ 2M", "Euler a"])
def test_img2img_is_diffusers_given_the_middle_of_what_the_encoder_gives(
    ours: Renderer, theirs: Any, kept: Path, sampler: str
) -> None:
    """Given a picture it takes a sample instead, from the numbers that the noise needs."""
    gradient = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    requested = request(
        "a corgi with a red hat",
        sampler=sampler,
        schedule_type="leading",
        **SMALL,
        **start(kept, 0.6, Image.fromarray(gradient)),
    )
    theirs.scheduler = their_scheduler(theirs, sampler, "leading")
    img2img: Any = StableDiffusionImg2ImgPipeline
    pipeline = img2img(**theirs.components)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline.image_processor.preprocess(Image.fromarray(gradient))
    with torch.no_grad():
        latents = pipeline.vae.encode(picture).latent_dist.mode()
    latents = latents * pipeline.vae.config.scaling_factor
    expected = their_picture(pipeline, requested, image=latents, strength=0.6)
    assert difference_to(expected, ours, requested) <= 1
