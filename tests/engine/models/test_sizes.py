"""What headers say of a checkpoint's size in memory is what its parts then take."""

from pathlib import Path

import pytest

from picowatch.catalog import Catalog
from picowatch.engine.devices import choose_target
from picowatch.engine.models.checkpoints import Checkpoints
from picowatch.engine.models.sizes import weights_of
from tests.engine.ldm import write_single_file
from tests.engine.models.test_checkpoints import DEMO, checkpoints, named
from tests.engine.pipelines.test_flows import requests_of
from tests.engine.pipelines.tiny_flows import tiny_flow
from tests.engine.pipelines.transformer_files import weights_of as transformer_weights
from tests.engine.pipelines.transformer_files import write_gguf, z_image_names


def held(*models: object) -> int:
    return sum(tensor.nbytes for model in models for tensor in model.parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_folder_of_a_flow_family(models: Path, precision: str) -> None:
    """In the type that it computes in, whatever its files have."""
    (models / "checkpoints").mkdir(parents=True)
    (models / "checkpoints/FLUX.1-dev").symlink_to(tiny_flow("FLUX.1-dev"))
    target = choose_target("cpu", precision)  # type: ignore[arg-type]
    loading = Checkpoints(Catalog(models), target)
    (wanted,) = requests_of(models, "FLUX.1-dev", "prompt: a red cube")
    weights = loading.weights(wanted)
    *encoders, transformer, vae = loading.load(wanted).models
    assert weights.flow
    assert weights.encoders == pytest.approx(held(*encoders), rel=0.01)
    assert weights.denoiser == held(transformer)
    assert weights.vae == held(vae)


def test_a_gguf_file_takes_what_its_quantised_weights_take(models: Path) -> None:
    """They are widened a layer at a time, while it computes."""
    (models / "checkpoints").mkdir(parents=True)
    (models / "checkpoints/Z-Image-Turbo").symlink_to(tiny_flow("Z-Image-Turbo"))
    tensors = z_image_names(transformer_weights("Z-Image-Turbo"))
    write_gguf(models / "checkpoints/mine-turbo.gguf", tensors, "Q4_0")
    catalog = Catalog(models)
    folder, quantised = (
        weights_of(catalog.find("checkpoint", name), 4)
        for name in ("Z-Image-Turbo", "mine-turbo.gguf")
    )
    assert quantised.encoders == folder.encoders
    loading = Checkpoints(catalog, choose_target("cpu", "float32"))
    loaded = loading.load(named(models, checkpoint="mine-turbo.gguf"))
    assert quantised.denoiser == held(loaded.components["transformer"])
    assert quantised.denoiser < folder.denoiser / 3


@pytest.mark.parametrize("name", ["one", "folder"])
def test_a_unet_checkpoint(models: Path, name: str) -> None:
    """A single file has copies of its weights as well, which are not loaded."""
    write_single_file(DEMO, models / "checkpoints/one.safetensors")
    (models / "checkpoints/folder").symlink_to(DEMO)
    wanted = named(models, checkpoint=name)
    loading = checkpoints(models)
    weights, loaded = loading.weights(wanted), loading.load(wanted)
    assert not weights.flow
    assert weights.denoiser == pytest.approx(held(loaded.unet), rel=0.01)
    assert weights.vae == pytest.approx(held(loaded.vae), rel=0.01)
    assert weights.encoders == pytest.approx(held(*loaded.text_encoders), rel=0.01)


def test_other_folders_do_not_count(models: Path) -> None:
    """A safety checker is never loaded."""
    folder = models / "checkpoints/mine"
    folder.mkdir(parents=True)
    for part in DEMO.iterdir():
        (folder / part.name).symlink_to(part)
    (folder / "safety_checker").symlink_to(DEMO / "unet")
    catalog = Catalog(models)
    found = weights_of(catalog.find("checkpoint", "mine"), 4)
    assert found == weights_of(catalog.demo, 4)
