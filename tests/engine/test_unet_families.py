"""What Stable Diffusion 2.x and XL have besides: two text encoders, sizes, predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from picowatch.catalog import Catalog
from picowatch.engine.conditions import Conditions
from picowatch.engine.families import prompt_encoder
from picowatch.engine.load import Components, load
from picowatch.engine.prompts import PromptEncoder
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import EmbeddingUse, ImageRequest
from tests.engine.adapters import write
from tests.engine.demo import CPU, named
from tests.engine.ldm import write_single_file
from tests.engine.requests import NUMPY_WARNINGS, Pixels, difference, draw, pixels
from tests.engine.tiny_models import (
    FIRST,
    checkpoints_of,
    tiny_renderer,
    tiny_sd2,
    tiny_sdxl,
)

pytestmark = NUMPY_WARNINGS


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families") / "models"
    return checkpoints_of(folder, sd2=tiny_sd2(), sdxl=tiny_sdxl())


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    """Single files of XL are as small as the folder."""
    return tiny_renderer(models, "sdxl", tiny_sdxl())


@pytest.fixture(scope="module")
def sdxl(models: Path) -> Components:
    """The parts of the tiny checkpoint."""
    return load(Catalog(models).find("checkpoint", "sdxl"), CPU, CPU.device)


def asked(models: Path, checkpoint: str = "sdxl", **values: Any) -> ImageRequest:
    given: dict[str, Any] = {
        "prompt": "a corgi",
        "checkpoint": checkpoint,
        "sampler": "Euler",
        "schedule_type": "leading",
        "steps": 3,
        "width": 64,
        "height": 96,
        "exact": True,
    }
    wanted: ImageRequest = named(models, **given | values)
    return wanted


def drawn(ours: Renderer, models: Path, checkpoint: str = "sdxl", **values: Any) -> Pixels:
    return pixels(draw(ours, asked(models, checkpoint, **values))[0])


def test_pictures_of_a_batch_are_those_made_alone(models: Path, ours: Renderer) -> None:
    """Each with its own summary."""
    wanted = [
        asked(models, prompt=prompt, seed=seed, exact=False)
        for seed, prompt in enumerate(("a corgi", "a cat", "a red star", "x"))
    ]
    together = draw(ours, *wanted)
    for image, one in zip(together, wanted, strict=True):
        assert difference(image, draw(ours, one)[0]) <= 1
    assert difference(*together[:2]) > 5


def test_hires_tells_the_second_pass_its_own_size(models: Path, ours: Renderer) -> None:
    """Height and width, nothing cropped, and both again: as A1111 does."""
    told: list[tuple[float, ...]] = []

    def listen(module: Any, given: Any, named: dict[str, Any]) -> None:
        told.extend(map(tuple, named["added_cond_kwargs"]["time_ids"].tolist()))

    hires = Hires(scale=2.0, denoising_strength=0.5, upscaler="Latent")
    wanted = asked(models, hires=hires)
    unet = ours._checkpoints.load(wanted, "device").denoiser
    hook = unet.register_forward_pre_hook(listen, with_kwargs=True)
    (image,) = draw(ours, wanted)
    hook.remove()
    assert list(dict.fromkeys(told)) == [(96, 64, 0, 0, 96, 64), (192, 128, 0, 0, 192, 128)]
    assert (image.width, image.height) == (128, 192)


def guiding(prompts: PromptEncoder, wanted: ImageRequest) -> Conditions:
    """What guides the first step."""
    with torch.inference_mode():
        return prompts.guiding(wanted, 1)[0][0]


def encoder(sdxl: Components, files: dict[str, Path]) -> PromptEncoder:
    """XL's, with these embeddings."""
    return prompt_encoder("sdxl", sdxl.parts, lambda _, name, __: files[name], CPU.device)


def test_an_embedding_has_vectors_for_both_text_encoders(
    models: Path, sdxl: Components, tmp_path: Path
) -> None:
    """With those of "corgi" it means a corgi, also after one that fits the first encoder alone.

    A wildcard may name one of another family: it is refused, and shifts no other.
    """
    tokens = sdxl.parts["tokenizer"]("corgi", add_special_tokens=False)["input_ids"]
    vectors = {
        key: model.get_input_embeddings().weight[tokens].detach().clone()
        for key, model in zip(("clip_l", "clip_g"), sdxl.encoders, strict=True)
    }
    files = {
        "dog": write(tmp_path / "dog.safetensors", vectors),
        "narrow": write(tmp_path / "narrow.safetensors", {"emb_params": torch.ones(2, FIRST)}),
    }
    prompts = encoder(sdxl, files)
    narrow, dog = (EmbeddingUse(name, name) for name in ("narrow", "dog"))
    with pytest.raises(RenderFailed, match="its vectors have 32 numbers"):
        guiding(prompts, asked(models, prompt="a narrow", embeddings=(narrow,)))
    found = guiding(prompts, asked(models, prompt="a dog", embeddings=(dog,)))
    meant = guiding(prompts, asked(models, prompt="a corgi"))
    assert torch.equal(found.positive.states, meant.positive.states)


def test_an_empty_negative_prompt_is_zeros_if_it_is_empty_at_each_step(
    models: Path, sdxl: Components
) -> None:
    """As in A1111."""
    prompts = encoder(sdxl, {})
    plain = guiding(prompts, asked(models)).negative
    edited = prompts.guiding(asked(models, negative_prompt="[a cat::1]"), 1)[0][-1].negative
    assert plain.pooled is not None
    assert not bool(plain.states.any()) and not bool(plain.pooled.any())
    assert bool(edited.states.any())


def test_a_file_of_diffusers_script_gives_the_pictures_of_its_folder(
    models: Path, ours: Renderer
) -> None:
    """It left the projection of the summary in the name and order of transformers."""
    path = models / "checkpoints/scripted.safetensors"
    write_single_file(tiny_sdxl(), path, torch.float32)
    tensors = load_file(path)
    projection = tensors.pop("conditioner.embedders.1.model.text_projection")
    tensors["conditioner.embedders.1.model.text_projection.weight"] = projection.T
    write(path, tensors)
    assert np.array_equal(drawn(ours, models), drawn(ours, models, "scripted"))
