"""Pictures with ControlNets are those of diffusers' pipelines, for the same random weights."""

from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image, ImageDraw

from picowatch.catalog import Catalog
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.recipe.request import ControlUse, ImageRequest
from tests.engine.control.controlnets import controlnet_of, save_folder, save_single, union_of
from tests.engine.pictures import circle, keep, right_half, start
from tests.engine.requests import Pixels, ignore_steps, pixels, request
from tests.engine.tiny_models import tiny_sdxl

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

SIDE = 64
DEMO = Catalog(Path("nowhere")).demo.path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints and ControlNets; start images and control images are kept there, too."""
    models = tmp_path_factory.mktemp("models")
    (models / "checkpoints").mkdir()
    (models / "checkpoints/xl").symlink_to(tiny_sdxl())
    small, large = unet_of(DEMO), unet_of(tiny_sdxl())
    save_single(controlnet_of(small, 1), models / "controlnet/first.safetensors")
    save_folder(controlnet_of(small, 2), models / "controlnet/second")
    save_single(controlnet_of(large, 3), models / "controlnet/xl.safetensors")
    save_single(union_of(large), models / "controlnet/union.safetensors")
    return models


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    return Renderer(EngineOptions(models=models, device="cpu", threads=1, start_images=models))


@cache
def components(folder: Path) -> dict[str, Any]:
    """The parts of a checkpoint, in diffusers' hands, with Euler's steps."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    scheduler: Any = diffusers.EulerDiscreteScheduler
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    # Not set by transformers once a card was pretended in this process, as other tests do.
    found: dict[str, Any] = pipeline.components
    for encoder in (found["text_encoder"], found.get("text_encoder_2")):
        for name, positions in encoder.named_buffers() if encoder else ():
            assert name.endswith("position_ids")
            positions.copy_(torch.arange(positions.shape[1]))
    return found


def unet_of(folder: Path) -> Any:
    return components(folder)["unet"]


def lines(shift: int = 0) -> Image.Image:
    """White lines on black."""
    picture = Image.new("RGB", (SIDE, SIDE))
    ImageDraw.Draw(picture).line((8 + shift, 8, 50, 40, 12, 50), "white", 3)
    return picture


def use(models: Path, name: str, picture: Image.Image | None = None, **values: Any) -> ControlUse:
    catalog = Catalog(models)
    return ControlUse(
        image="lines.png",
        image_hash=keep(models, picture or lines()),
        model=name,
        model_hash=catalog.sha256(catalog.find("controlnet", name)),
        **values,
    )


def requested(models: Path, *uses: ControlUse, checkpoint: str = "demo", **values: Any) -> Any:
    catalog = Catalog(models)
    given = {
        "checkpoint": checkpoint,
        "checkpoint_hash": catalog.sha256(catalog.find("checkpoint", checkpoint)),
        "sampler": "Euler",
        "schedule_type": "leading",
        "negative_prompt": "a cat",
        "steps": 5,
        "width": SIDE,
        "height": SIDE,
        "control": uses,
    }
    return request("a corgi", **(given | values))


def theirs(kind: Any, folder: Path, controlnet: Any) -> Any:
    pipeline = kind(**components(folder), controlnet=controlnet)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def expected(pipeline: Any, one: ImageRequest, **values: Any) -> Any:
    given = {
        "prompt": one.prompt,
        "negative_prompt": one.negative_prompt,
        "num_inference_steps": one.steps,
        "guidance_scale": one.cfg_scale,
        "width": SIDE,
        "height": SIDE,
        "generator": [torch.Generator("cpu").manual_seed(one.seed)],
        "output_type": "np",
    }
    return (pipeline(**(given | values)).images[0] * 255).round()


def drawn(ours: Renderer, one: ImageRequest) -> Pixels:
    (image,) = ours.render([one], ignore_steps)
    return pixels(image)


def assert_equal(found: Pixels, wanted: Any, plain: Pixels) -> None:
    """1 of 255 at most, and the ControlNet acted."""
    assert np.abs(found - wanted).max() <= 1
    assert np.abs(found - plain).max() > 5


@pytest.mark.parametrize(
    ("ours_say", "they_say"),
    [
        ({"weight": 0.8}, {"controlnet_conditioning_scale": 0.8}),
        # diffusers ends a step earlier than A1111.
        ({"start": 0.3, "end": 0.6}, {"control_guidance_start": 0.3, "control_guidance_end": 0.8}),
    ],
    ids=["weight", "start and end"],
)
@pytest.mark.parametrize("cfg_scale", [5.0, 1.0])
def test_a_picture_follows_one_controlnet(
    models: Path, ours: Renderer, ours_say: Any, they_say: Any, cfg_scale: float
) -> None:
    """With guidance and without."""
    one = requested(models, use(models, "first", **ours_say), cfg_scale=cfg_scale)
    kind = diffusers.StableDiffusionControlNetPipeline
    pipeline = theirs(kind, DEMO, controlnet_of(unet_of(DEMO), 1))
    wanted = expected(pipeline, one, image=lines(), **they_say)
    plain = drawn(ours, requested(models, cfg_scale=cfg_scale))
    assert_equal(drawn(ours, one), wanted, plain)


def test_a_picture_follows_two_controlnets(models: Path, ours: Renderer) -> None:
    """Each with its own picture and weight; one is a file, one a folder."""
    second = use(models, "second", lines(20), weight=0.5)
    one = requested(models, use(models, "first"), second)
    unet = unet_of(DEMO)
    pipeline = theirs(
        diffusers.StableDiffusionControlNetPipeline,
        DEMO,
        [controlnet_of(unet, 1), controlnet_of(unet, 2)],
    )
    wanted = expected(
        pipeline, one, image=[lines(), lines(20)], controlnet_conditioning_scale=[1.0, 0.5]
    )
    assert_equal(drawn(ours, one), wanted, drawn(ours, requested(models, use(models, "first"))))


@pytest.fixture
def middles(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers encodes start images to the mode of the VAE's distribution, as we do."""
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )


@pytest.mark.usefixtures("middles")
def test_a_start_image_is_changed_as_in_diffusers(models: Path, ours: Renderer) -> None:
    """The ControlNet acts from the first step that is taken."""
    values = start(models, 0.8, circle(SIDE))
    one = requested(models, use(models, "first"), **values)
    pipeline = theirs(
        diffusers.StableDiffusionControlNetImg2ImgPipeline,
        DEMO,
        controlnet_of(unet_of(DEMO), 1),
    )
    wanted = expected(
        pipeline,
        one,
        image=circle(SIDE),
        control_image=lines(),
        strength=0.8,
        controlnet_conditioning_scale=1.0,
    )
    assert_equal(drawn(ours, one), wanted, drawn(ours, requested(models, **values)))


@pytest.mark.usefixtures("middles")
def test_a_part_is_redrawn_as_in_diffusers(models: Path, ours: Renderer) -> None:
    """What the mask leaves stays as it is."""
    values = {**start(models, 1.0, circle(SIDE)), **right_half(models)}
    one = requested(models, use(models, "first"), **values)
    pipeline = theirs(
        diffusers.StableDiffusionControlNetInpaintPipeline,
        DEMO,
        controlnet_of(unet_of(DEMO), 1),
    )
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    wanted = expected(
        pipeline,
        one,
        image=circle(SIDE),
        mask_image=mask.resize((SIDE, SIDE)),
        control_image=lines(),
        strength=1.0,
        controlnet_conditioning_scale=1.0,
    )
    half = SIDE // 2
    found, plain = drawn(ours, one), drawn(ours, requested(models, **values))
    assert_equal(found[:, half + 2 :], wanted[:, half + 2 :], plain[:, half + 2 :])


@pytest.mark.parametrize(
    ("name", "values", "kind", "make", "they_say"),
    [
        (
            "xl",
            {"weight": 0.7},
            diffusers.StableDiffusionXLControlNetPipeline,
            lambda unet: controlnet_of(unet, 3),
            {"image": lines()},
        ),
        (
            "union",
            {"weight": 0.7, "kind": "normals"},
            diffusers.StableDiffusionXLControlNetUnionPipeline,
            union_of,
            {"control_image": [lines()], "control_mode": [4]},
        ),
    ],
    ids=["plain", "union"],
)
def test_sdxl_follows_controlnets(
    models: Path, ours: Renderer, name: str, values: Any, kind: Any, make: Any, they_say: Any
) -> None:
    """They are told the picture's size and the prompt's summary; a union the kind of its map."""
    one = requested(models, use(models, name, **values), checkpoint="xl")
    pipeline = theirs(kind, tiny_sdxl(), make(unet_of(tiny_sdxl())))
    wanted = expected(pipeline, one, controlnet_conditioning_scale=0.7, **they_say)
    assert_equal(drawn(ours, one), wanted, drawn(ours, requested(models, checkpoint="xl")))
