"""The LoRA and the embedding for the demo model: their files, not how good they are."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from picowatch.catalog.headers import read_header
from picowatch.catalog.recognise import recognise
from picowatch.families import DEMO_WIDTH
from training.drawing import draw
from training.pictures import as_batch
from training.scenes import AnimalScene, ShapeScene
from training.sprites import CELL, blockiness, fitted_latents, sharp_scenes, sprite
from training.styles import (
    MASCOT,
    MASCOT_LOOK,
    STYLE,
    TRIGGER,
    VECTORS,
    frozen,
    speak_of_mascot,
    train_embedding,
    train_lora,
    with_vectors,
)
from training.vae import SCALING_FACTOR

DEMO = Path(__file__).parents[2] / "picowatch/assets/demo"

# numpy 2.4 and torch 2.13 inside diffusers 0.42.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of two steps on two sprites."""
    folder = tmp_path_factory.mktemp("lora")
    train_lora(frozen(DEMO), folder, steps=2, sprites=2, fitting_steps=1)
    return folder / f"{STYLE}.safetensors"


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding of two steps on two pictures."""
    folder = tmp_path_factory.mktemp("embedding")
    train_embedding(frozen(DEMO), folder, steps=2, pictures=2)
    return folder / f"{MASCOT}.safetensors"


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def test_every_layer_of_the_lora_fits_the_demo_model(lora: Path) -> None:
    """Kohya's names, none left over; the UNet's alone."""
    names = {name.replace(".", "_") for name, _ in frozen(DEMO).unet.named_modules()}
    layers = {key.partition(".")[0] for key in tensors_of(lora)}
    assert layers <= {f"lora_unet_{name}" for name in names}


def test_the_lora_is_half_precision_and_small(lora: Path) -> None:
    """So that it can lie in the repository."""
    assert {tensor.dtype for tensor in tensors_of(lora).values()} == {torch.float16}
    assert lora.stat().st_size < 290_000


def test_training_moves_the_lora_away_from_nothing(lora: Path) -> None:
    """The halves that start at zero do not stay there."""
    ups = [tensor for key, tensor in tensors_of(lora).items() if key.endswith("lora_up.weight")]
    assert all(tensor.isfinite().all() for tensor in ups)
    assert any(tensor.any() for tensor in ups)


def test_the_loras_header_says_what_kohya_would(lora: Path) -> None:
    """Base model, network, title, and the trigger among the tags."""
    metadata = read_header(lora).metadata
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["ss_network_module"] == "networks.lora"
    assert metadata["modelspec.title"] == STYLE
    (tags,) = json.loads(metadata["ss_tag_frequency"]).values()
    assert tags[TRIGGER] > 0


def test_the_catalog_recognises_both(lora: Path, embedding: Path) -> None:
    """As made for the demo model, by the width of its text."""
    for path, kind in ((lora, "lora"), (embedding, "embedding")):
        found = recognise(read_header(path))
        assert (found.kind, found.family) == (kind, "demo")


def test_the_embedding_holds_its_vectors_under_a1111s_name(embedding: Path) -> None:
    """One a row, as wide as the demo model's text."""
    tensors = tensors_of(embedding)
    assert set(tensors) == {"emb_params"}
    assert tensors["emb_params"].shape == (VECTORS, DEMO_WIDTH)


def test_the_same_steps_give_the_same_file(embedding: Path, tmp_path: Path) -> None:
    """Steps decide, seeds are fixed."""
    train_embedding(frozen(DEMO), tmp_path, steps=2, pictures=2)
    again = tensors_of(tmp_path / embedding.name)["emb_params"]
    assert torch.allclose(again, tensors_of(embedding)["emb_params"], atol=1e-4)


def test_vectors_take_their_places_in_turn() -> None:
    """In every row, the others untouched."""
    output = torch.zeros(2, 4, 3)
    vectors = torch.tensor([[1.0] * 3, [2.0] * 3])
    layers = torch.tensor([[False, True, True, False], [True, True, False, False]])
    assert with_vectors(output, layers, vectors)[..., 0].tolist() == [[0, 1, 2, 0], [1, 2, 0, 0]]


def test_the_mascots_captions_never_say_what_it_wears() -> None:
    """What is said need not be learnt."""
    scene = replace(MASCOT_LOOK, background="blue")
    rng = random.Random(1)
    texts = {speak_of_mascot(scene, rng) for _ in range(100)}
    assert len(texts) > 3
    for text in texts:
        assert text.count("corgi") == VECTORS
        assert not {"hat", "sunglasses", "yellow"} & set(text.split())


@pytest.mark.parametrize(
    "scene", [ShapeScene("white", "red", "star"), AnimalScene("blue", hat="pink")]
)
def test_a_sprite_has_one_colour_in_every_cell(scene: ShapeScene | AnimalScene) -> None:
    """All steps lie on the cells' borders."""
    small = sprite(scene).reduce(CELL)
    assert small.resize((128, 128), 0).tobytes() == sprite(scene).tobytes()
    assert blockiness(sprite(scene)) == 1.0
    assert blockiness(draw(scene, random.Random(2))) < 0.3


def test_fitting_brings_the_decoded_picture_nearer() -> None:
    """The encoder alone smooths the stairs away."""
    vae: Any = frozen(DEMO).vae
    pictures = [sprite(scene) for scene in sharp_scenes(random.Random(3), 2)]
    before, after = (
        distance(vae, fitted_latents(vae, pictures, steps), pictures) for steps in (0, 20)
    )
    assert after < before


def distance(vae: Any, latents: torch.Tensor, pictures: list[Image.Image]) -> float:
    """How far the decoded latents are from the pictures."""
    decoded: torch.Tensor = vae.decode(latents / SCALING_FACTOR).sample
    return float((decoded - as_batch(pictures)).abs().mean())
