"""Our own loop gives what diffusers' pipelines give, called as docs/moving.md calls them."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from PIL import Image

from picowatch.catalog import Catalog
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.engine.unet.denoise import rescaled
from picowatch.engine.unet.noise_levels import NOISE_LEVELS
from picowatch.engine.unet.samplers import build_sampler
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.samplers import SAMPLERS
from tests.engine.requests import ignore_steps, pixels, request
from tests.engine.unet.test_start_images import start

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
    pipeline = StableDiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
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


@pytest.mark.parametrize(("sampler", "schedule_type"), DRAWN)
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
        seed=4,
        steps=8,
    )
    theirs.scheduler = their_scheduler(theirs, sampler, schedule_type)
    expected = theirs(
        requested.prompt,
        negative_prompt=requested.negative_prompt,
        generator=torch.Generator("cpu").manual_seed(requested.seed),
        guidance_scale=requested.cfg_scale,
        num_inference_steps=requested.steps,
        width=requested.width,
        height=requested.height,
        output_type="np",
    ).images[0]
    assert difference_to(expected, ours, requested) <= 1


@pytest.mark.parametrize("cfg_scale", [5.0, 1.0])
def test_cfg_rescale_is_diffusers_guidance_rescale(
    ours: Renderer, theirs: Any, cfg_scale: float
) -> None:
    """And without guidance there is nothing to rescale."""
    requested = request("a corgi", cfg_scale=cfg_scale, cfg_rescale=0.7, seed=4, steps=8)
    theirs.scheduler = their_scheduler(theirs, "DPM++ 2M", "karras")
    expected = theirs(
        requested.prompt,
        generator=torch.Generator("cpu").manual_seed(requested.seed),
        guidance_scale=requested.cfg_scale,
        guidance_rescale=requested.cfg_rescale,
        num_inference_steps=requested.steps,
        width=requested.width,
        height=requested.height,
        output_type="np",
    ).images[0]
    assert difference_to(expected, ours, requested) <= 1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_rescaling_is_diffusers_rescale_noise_cfg(share: float) -> None:
    """Each image of a batch by its own deviation."""
    guided, towards = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = rescale_noise_cfg(guided, towards, share)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(rescaled(guided, towards, share), expected)


@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "DPM++ 2M", "Euler a"])
def test_img2img_is_diffusers_given_the_middle_of_what_the_encoder_gives(
    ours: Renderer, theirs: Any, kept: Path, sampler: str
) -> None:
    """Given a picture it takes a sample instead, from the numbers that the noise needs."""
    gradient = np.linspace(0, 255, 128 * 128 * 3).reshape(128, 128, 3).astype(np.uint8)
    requested = request(
        "a corgi with a red hat",
        sampler=sampler,
        schedule_type="leading",
        seed=4,
        steps=8,
        **start(kept, 0.6, Image.fromarray(gradient)),
    )
    theirs.scheduler = their_scheduler(theirs, sampler, "leading")
    img2img: Any = StableDiffusionImg2ImgPipeline
    pipeline = img2img(**theirs.components)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline.image_processor.preprocess(Image.fromarray(gradient))
    with torch.no_grad():
        latents = pipeline.vae.encode(picture).latent_dist.mode()
    expected = pipeline(
        requested.prompt,
        image=latents * pipeline.vae.config.scaling_factor,
        strength=0.6,
        generator=torch.Generator("cpu").manual_seed(requested.seed),
        guidance_scale=requested.cfg_scale,
        num_inference_steps=requested.steps,
        output_type="np",
    ).images[0]
    assert difference_to(expected, ours, requested) <= 1
