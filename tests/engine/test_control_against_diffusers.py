"""Pictures with ControlNets are those of diffusers' pipelines, for the same random weights."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.control_requests import (
    DEMO,
    SIDE,
    assert_equal,
    drawn,
    expected,
    lines,
    requested,
    theirs,
    unet_of,
    use,
)
from tests.engine.controlnets import controlnet_of, save_folder, save_single, union_of
from tests.engine.pictures import circle, right_half, start
from tests.engine.tiny_models import tiny_sdxl

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


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
