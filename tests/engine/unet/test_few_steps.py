"""Few-step checkpoints and LoRAs: the schedulers of their authors, and no negative half."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionXLPipeline,
    TCDScheduler,
)
from torch import nn

from picowatch.catalog import Catalog
from picowatch.engine.renderer import Renderer
from picowatch.recipe.request import ImageRequest, LoraUse
from tests.engine.adapters import Tensors, random_layer, write
from tests.engine.ldm import write_single_file
from tests.engine.requests import Pixels, ignore_steps, pixels, request
from tests.engine.tiny_models import tiny_renderer, tiny_sdxl

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]
TRAILING = {"timestep_spacing": "trailing"}
# The layers of an LCM-LoRA, by diffusers' train_lcm_distill_lora_sdxl.py; the names of the last
# ones in kohya's way of training everything.
LCM_LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
    *("time_emb_proj", "conv_in", "add_embedding.linear_1", "time_embedding.linear_2"),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the tiny checkpoint."""
    models = tmp_path_factory.mktemp("models")
    (models / "checkpoints").mkdir()
    (models / "checkpoints/tiny").symlink_to(tiny_sdxl())
    return models


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    return tiny_renderer(models, "sdxl", tiny_sdxl())


@pytest.fixture(scope="module")
def theirs() -> Any:
    return pipeline()


def pipeline(folder: Path | None = None) -> Any:
    """diffusers' for the same folder."""
    found = StableDiffusionXLPipeline.from_pretrained(
        folder or tiny_sdxl(), dtype=torch.float32, local_files_only=True
    )
    found.set_progress_bar_config(disable=True)
    return found


def asked(models: Path, checkpoint: str = "tiny", **values: Any) -> ImageRequest:
    catalog = Catalog(models)
    given = {
        "checkpoint": checkpoint,
        "checkpoint_hash": catalog.sha256(catalog.find("checkpoint", checkpoint)),
        "sampler": "Euler",
        "schedule_type": "sgm_uniform",
        "steps": 4,
        "cfg_scale": 1.0,
        "width": 64,
        "height": 64,
        "exact": True,
    }
    return request("a corgi", **(given | values))


def expected(pipeline: Any, wanted: ImageRequest, **values: Any) -> Any:
    picture = pipeline(
        wanted.prompt,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.cfg_scale,
        width=wanted.width,
        height=wanted.height,
        generator=[torch.Generator("cpu").manual_seed(wanted.seed)],
        output_type="np",
        **values,
    ).images[0]
    return (picture * 255).round()


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(
    ("sampler", "schedule_type", "scheduler", "options", "called"),
    [
        ("Euler", "sgm_uniform", EulerDiscreteScheduler, TRAILING, {}),
        ("Euler a", "sgm_uniform", EulerAncestralDiscreteScheduler, TRAILING, {}),
        ("LCM", "uniform", LCMScheduler, {}, {}),
        ("DDIM", "sgm_uniform", DDIMScheduler, TRAILING | {"clip_sample": False}, {}),
        ("TCD", "uniform", TCDScheduler, {}, {"eta": 0.3}),
    ],
    ids=["Lightning", "Turbo", "LCM", "Hyper", "unified Hyper"],
)
def test_a_picture_is_the_one_of_the_authors_scheduler(
    sampler: str,
    schedule_type: str,
    scheduler: Any,
    options: dict[str, Any],
    called: dict[str, Any],
    steps: int,
    models: Path,
    ours: Renderer,
    theirs: Any,
) -> None:
    """Made as their model cards make it. TCD's eta is the scheduler's own default."""
    wanted = asked(models, sampler=sampler, schedule_type=schedule_type, steps=steps)
    (image,) = ours.render([wanted], ignore_steps)
    before = theirs.scheduler
    theirs.scheduler = scheduler.from_config(before.config, **options)
    try:
        assert np.abs(pixels(image) - expected(theirs, wanted, **called)).max() <= 1
    finally:
        theirs.scheduler = before
    assert pixels(image).std() > 5


@pytest.mark.parametrize(("cfg_scale", "rows"), [(1.0, 2), (1.5, 4)])
def test_without_guidance_half_as_much_goes_through_the_unet(
    cfg_scale: float, rows: int, models: Path, ours: Renderer
) -> None:
    """A batch of two, with a negative prompt or not."""
    batch = [
        asked(models, cfg_scale=cfg_scale, exact=False, seed=seed, negative_prompt="a cat")
        for seed in (1, 2)
    ]
    seen: list[int] = []
    unet = ours._checkpoints.load(batch[0]).unet
    hook = unet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    ours.render(batch, ignore_steps)
    hook.remove()
    assert seen == [rows] * 4


def lcm_lora(unet: Any, down: str, up: str, alpha: str) -> Tensors:
    """Random layers under one trainer's names; alpha is the rank where it is not written."""
    tensors: Tensors = {}
    for number, (name, module) in enumerate(unet.named_modules()):
        if isinstance(module, nn.Linear | nn.Conv2d) and name.endswith(LCM_LAYERS):
            names = {"name": name, "flat": name.replace(".", "_")}
            halves = random_layer(module, number, size=0.2)
            tensors |= zip((down.format(**names), up.format(**names)), halves, strict=True)
            if alpha:
                tensors[alpha.format(**names)] = torch.tensor(float(len(halves[0])))
    return tensors


@pytest.fixture(scope="module")
def merged() -> Any:
    """The pipeline with up x down times 0.9 added to every weight, and LCM's scheduler."""
    changed = pipeline()
    halves = lcm_lora(changed.unet, "{name}:down", "{name}:up", "")
    for key, down in halves.items():
        name, _, half = key.partition(":")
        if half == "down":
            module = changed.unet.get_submodule(name)
            up = halves[f"{name}:up"]
            added = (up.flatten(1) @ down.flatten(1)).view_as(module.weight)
            module.weight.data += 0.9 * added
    scheduler: Any = LCMScheduler
    changed.scheduler = scheduler.from_config(changed.scheduler.config)
    return changed


@pytest.mark.parametrize(
    ("name", "down", "up", "alpha"),
    [
        ("kohya", "lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight",
         "lora_unet_{flat}.alpha"),
        ("peft", "unet.{name}.lora_A.weight", "unet.{name}.lora_B.weight", ""),
        ("peft-alone", "base_model.model.{name}.lora_A.weight",
         "base_model.model.{name}.lora_B.weight", ""),
        ("diffusers", "unet.{name}.lora.down.weight", "unet.{name}.lora.up.weight", ""),
    ],
)  # fmt: skip
def test_an_lcm_lora_acts_on_every_layer_of_the_unet(
    name: str, down: str, up: str, alpha: str, models: Path, ours: Renderer, merged: Any
) -> None:
    """Attention, residual blocks, embeddings and what resizes, under each trainer's names.

    Those of Stability's generative-models, which Lightning's files have: test_sdxl_layers.py.
    """
    wanted = asked(models, sampler="LCM", schedule_type="uniform")
    unet = ours._checkpoints.load(wanted).unet
    tensors = lcm_lora(unet, down, up, alpha)
    assert len(tensors) > 250
    path = write(models / f"loras/{name}.safetensors", tensors)
    found = Catalog(models)
    use = LoraUse(path.stem, found.sha256(found.find("lora", path.stem)), 0.9)
    (image,) = ours.render(
        [asked(models, sampler="LCM", schedule_type="uniform", loras=(use,))], ignore_steps
    )
    assert image.warnings == ()
    assert np.abs(pixels(image) - expected(merged, wanted)).max() <= 1
    plain: Pixels = pixels(ours.render([wanted], ignore_steps)[0])
    assert np.abs(pixels(image) - plain).max() > 5


def test_a_distilled_checkpoint_is_told_the_guidance(tmp_path: Path) -> None:
    """LCM's own checkpoints follow it without a negative half, as a folder and as a file."""
    folder = tiny_sdxl(embeds_guidance=True)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/tiny").symlink_to(folder)
    write_single_file(folder, tmp_path / "checkpoints/single.safetensors", torch.float32)
    renderer = tiny_renderer(tmp_path, "sdxl", tiny_sdxl())  # whose configs do not say it
    theirs: Any = pipeline(folder)
    scheduler: Any = LCMScheduler
    theirs.scheduler = scheduler.from_config(theirs.scheduler.config)
    seen: list[int] = []
    for name in ("tiny", "single"):
        given = {"sampler": "LCM", "schedule_type": "uniform"}
        plain = asked(tmp_path, name, **given)
        unet = renderer._checkpoints.load(plain).unet
        unet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        for cfg_scale in (1.0, 8.0):
            wanted = asked(tmp_path, name, **given, cfg_scale=cfg_scale)
            (image,) = renderer.render([wanted], ignore_steps)
            assert np.abs(pixels(image) - expected(theirs, wanted)).max() <= 1, cfg_scale
    assert seen == [1] * 16
