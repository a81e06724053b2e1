"""Stable Diffusion 2.x: our own loop gives what diffusers' pipeline gives for the same folder."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from picowatch.engine.models.unets import _TELLING, _prediction

from picowatch.catalog import Catalog
from picowatch.engine.renderer import Renderer
from picowatch.recipe.request import EmbeddingUse, LoraUse
from tests.engine.adapters import adapted_layers, kohya_lora, write
from tests.engine.ldm import write_single_file
from tests.engine.requests import ignore_steps, pixels, request
from tests.engine.tiny_models import tiny_renderer, tiny_sd2

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the tiny checkpoint, as a folder and as a single file."""
    models = tmp_path_factory.mktemp("models")
    (models / "checkpoints").mkdir()
    (models / "checkpoints/tiny").symlink_to(tiny_sd2())
    marks = {"v_pred": torch.zeros(1)}
    write_single_file(tiny_sd2(), models / "checkpoints/single.safetensors", torch.float32, marks)
    return models


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    """Single files are as small as the folder."""
    return tiny_renderer(models, "sd2", tiny_sd2())


def rendered(
    ours: Renderer, models: Path, checkpoint: str, prompt: str = "a corgi", **values: Any
) -> Any:
    wanted = request(
        prompt,
        checkpoint=checkpoint,
        checkpoint_hash=hash_of(models, "checkpoint", checkpoint),
        sampler="Euler",
        schedule_type="leading",
        steps=3,
        width=64,
        height=96,
        exact=True,
        **values,
    )
    return pixels(ours.render([wanted], ignore_steps)[0])


def hash_of(models: Path, kind: Any, name: str) -> str:
    catalog = Catalog(models)
    return catalog.sha256(catalog.find(kind, name))


def pipeline() -> Any:
    """diffusers' for the same folder."""
    found = StableDiffusionPipeline.from_pretrained(
        tiny_sd2(), dtype=torch.float32, local_files_only=True
    )
    found.set_progress_bar_config(disable=True)
    return found


def expected(theirs: Any, negative: str = "") -> Any:
    picture = theirs(
        "a corgi",
        negative_prompt=negative,
        num_inference_steps=3,
        guidance_scale=5.0,
        width=64,
        height=96,
        generator=[torch.Generator("cpu").manual_seed(1)],
        output_type="np",
    ).images[0]
    return (picture * 255).round()


@pytest.mark.parametrize("negative", ["", "a cat"])
def test_a_picture_is_diffusers_picture(models: Path, ours: Renderer, negative: str) -> None:
    """Padded with "!", and by v; an empty negative prompt is encoded."""
    picture = rendered(ours, models, "tiny", negative_prompt=negative)
    assert np.abs(picture - expected(pipeline(), negative)).max() <= 1
    assert picture.std() > 5


def test_the_base_model_predicts_noise(models: Path, ours: Renderer) -> None:
    """Of 512 pixels; here the same weights, by a recipe that says so."""
    theirs: Any = pipeline()
    kind: Any = EulerDiscreteScheduler
    theirs.scheduler = kind.from_config(theirs.scheduler.config, prediction_type="epsilon")
    picture = rendered(ours, models, "tiny", prediction="epsilon")
    assert np.abs(picture - expected(theirs)).max() <= 1
    assert np.abs(picture - rendered(ours, models, "tiny")).max() > 5


def test_a_lora_acts_on_the_text_encoder_and_the_unet(models: Path, ours: Renderer) -> None:
    """As if up x down had been added to every weight."""
    changed: Any = pipeline()
    tensors = kohya_lora(changed.unet, changed.text_encoder, seed=3, alpha=4.0)
    write(models / "loras/style.safetensors", tensors)
    use = LoraUse("style", hash_of(models, "lora", "style"), 0.8)
    for prefix, model in (("unet_", changed.unet), ("te_text_model_", changed.text_encoder)):
        for name, module in adapted_layers(model).items():
            key = f"lora_{prefix}{name.removeprefix('text_model.').replace('.', '_')}"
            up, down = (tensors[f"{key}.lora_{half}.weight"].flatten(1) for half in ("up", "down"))
            weight: Any = module.weight
            weight.data += 0.8 * (up @ down).view_as(weight)
    picture = rendered(ours, models, "tiny", loras=(use,))
    assert np.abs(picture - expected(changed)).max() <= 1
    assert np.abs(picture - rendered(ours, models, "tiny")).max() > 5


def test_an_embedding_means_what_its_vectors_mean(models: Path, ours: Renderer) -> None:
    """With those of "corgi" the word is a corgi."""
    theirs: Any = pipeline()
    tokens = theirs.tokenizer("corgi", add_special_tokens=False)["input_ids"]
    vectors = theirs.text_encoder.get_input_embeddings().weight[tokens].detach().clone()
    write(models / "embeddings/dog.safetensors", {"emb_params": vectors})
    use = EmbeddingUse(
        "dog", sha256((models / "embeddings/dog.safetensors").read_bytes()).hexdigest()
    )
    loaded = ours._checkpoints.load(
        request(checkpoint="tiny", checkpoint_hash=hash_of(models, "checkpoint", "tiny"))
    )
    # The catalog knows embeddings by real widths.
    loaded.prompts._towers[0].embeddings._find = lambda *_: models / "embeddings/dog.safetensors"
    picture = rendered(ours, models, "tiny", "a dog", embeddings=(use,))
    assert np.array_equal(picture, rendered(ours, models, "tiny"))


def test_a_single_file_gives_the_pictures_of_its_folder(models: Path, ours: Renderer) -> None:
    """In the original's names."""
    assert np.array_equal(*(rendered(ours, models, name) for name in ("tiny", "single")))


@pytest.mark.parametrize(("spread", "prediction"), [(0.2, "v_prediction"), (0.05, "epsilon")])
def test_a_single_file_without_marks_is_told_by_its_weights(spread: float, prediction: str) -> None:
    """As ComfyUI tells 768-v from 512-base, whose headers are equal."""
    bias = torch.tensor([-spread, spread])
    unet = SimpleNamespace(state_dict=lambda: {_TELLING: bias})
    model = Catalog(Path("nowhere")).demo
    assert _prediction(model, unet) == prediction
    assert _prediction(replace(model, in_channels=9), unet) == "epsilon"
