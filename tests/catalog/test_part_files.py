"""Text encoders and VAEs in files of their own complete a transformer's file."""

from pathlib import Path

import pytest

from picowatch.catalog import Catalog, Model
from picowatch.catalog.text_encoders import ENCODERS
from picowatch.errors import ModelRefused
from tests.catalog.files import UNET, Shapes, write_model
from tests.catalog.test_families import below, flux, flux2, sd3
from tests.catalog.test_vaes import FLUX1

ENCODER_FILES = {known.file: {known.tensor: known.shape} for known in ENCODERS.values()}
SD3_VAE_INSIDE: Shapes = {"first_stage_model.decoder.conv_in.weight": (512, 16, 3, 3)}


def add(models: Path, transformer: Shapes, *encoders: str, vae: str = "ae") -> None:
    """A transformer called it, these text encoders' files, and a VAE with 16 latent channels."""
    write_model(models / "checkpoints/it.safetensors", transformer)
    for name in encoders:
        write_model(models / "text_encoders" / name, ENCODER_FILES[name])
    if vae:
        write_model(models / f"vae/{vae}.safetensors", FLUX1)


def completed(models: Path) -> Model:
    return Catalog(models).find("checkpoint", "it")


CLIP_L, CLIP_G, T5 = "clip_l.safetensors", "clip_g.safetensors", "t5xxl_fp16.safetensors"
ENCODERS_PLACE = "in models/text_encoders/"
IS_ONLY = "it.safetensors is only the transformer of"
WITHOUT = "without text encoders, tokenizers and VAE. It also needs"
NEEDS_CLIPS = (
    f"CLIP L (such as {CLIP_L}) {ENCODERS_PLACE}",
    f"CLIP G (such as {CLIP_G}) {ENCODERS_PLACE}",
)
NEEDS_SD3_VAE = (
    "a VAE of Stable Diffusion 3 with sd3 in its name (such as sd3_vae.safetensors) in models/vae/"
)
SD3_FOLDER = (
    "; or a diffusers folder of Stable Diffusion 3.x (such as "
    "stabilityai/stable-diffusion-3.5-medium) in models/checkpoints/, which lends its own."
)
LACKS: dict[str, tuple[Shapes, tuple[str, ...], str, str]] = {
    "CLIP": (flux(), (T5,), "ae", f"{WITHOUT} CLIP L (such as {CLIP_L}) {ENCODERS_PLACE}; or"),
    "T5": (flux(), (CLIP_L,), "ae", f"{WITHOUT} T5 XXL (such as {T5}) {ENCODERS_PLACE}; or"),
    "a VAE": (
        flux(),
        (CLIP_L, T5),
        "",
        f"{WITHOUT} a VAE with 16 latent channels (such as ae.safetensors) in models/vae/; or",
    ),
    "all of SD 3, but T5, which is not needed": (
        sd3(147456, 1536, 24),
        (),
        "ae",
        f"{IS_ONLY} Stable Diffusion 3.x (3.5 Medium), {WITHOUT} {NEEDS_CLIPS[0]}, "
        f"{NEEDS_CLIPS[1]} and {NEEDS_SD3_VAE}{SD3_FOLDER}",
    ),
    "text encoders beside a VAE inside": (
        below(UNET, sd3(147456, 1536, 24)) | SD3_VAE_INSIDE,
        (),
        "",
        "it.safetensors has only the transformer and the VAE of Stable Diffusion 3.x (3.5 Medium). "
        f"It also needs {NEEDS_CLIPS[0]} and {NEEDS_CLIPS[1]}{SD3_FOLDER}",
    ),
    "a VAE with 32 channels": (
        flux2(7680),
        ("qwen_3_4b.safetensors",),
        "ae",
        f"{WITHOUT} a VAE with 32 latent channels (such as flux2-vae.safetensors) in models/vae/; "
        "or a diffusers folder of FLUX.2 (klein 4B) (such as black-forest-labs/FLUX.2-klein-4B)",
    ),
}


@pytest.mark.parametrize("what", LACKS)
def test_each_missing_file_is_named_with_its_place(tmp_path: Path, what: str) -> None:
    """And no other; a diffusers folder would do as well."""
    transformer, encoders, vae, message = LACKS[what]
    add(tmp_path, transformer, *encoders, vae=vae)
    with pytest.raises(ModelRefused) as refused:
        completed(tmp_path)
    assert message in refused.value.message


def test_the_largest_file_of_each_part_counts(tmp_path: Path) -> None:
    """float16 where there is fp8, too; SD 3's VAE by its name, as headers do not tell it."""
    add(tmp_path, sd3(147456, 1536, 24), CLIP_L, CLIP_G, T5, vae="sd3_vae")
    larger = ENCODER_FILES[T5] | {"more.weight": (8,)}
    write_model(tmp_path / "text_encoders/larger.safetensors", larger)
    add(tmp_path, sd3(147456, 1536, 24))
    used = {part.name: part.weights.stem for part in completed(tmp_path).parts if part.weights}
    assert used == {
        "transformer": "it",
        "vae": "sd3_vae",
        "text_encoder": "clip_l",
        "text_encoder_2": "clip_g",
        "text_encoder_3": "larger",
    }


def test_a_file_in_the_wrong_folder_is_told_the_right_one(tmp_path: Path) -> None:
    """Instead of being ignored."""
    write_model(tmp_path / "checkpoints/clip_l.safetensors", ENCODER_FILES[CLIP_L])
    write_model(tmp_path / "text_encoders/ae.safetensors", FLUX1)
    reasons = {one.name: one.reason for one in Catalog(tmp_path).scan().refused}
    assert reasons == {
        "clip_l.safetensors": "clip_l.safetensors is a text encoder, not a checkpoint: move it to "
        "models/text_encoders/.",
        "ae.safetensors": "ae.safetensors is a VAE, not a text encoder: move it to models/vae/.",
    }


def test_each_file_is_in_the_hash_and_its_name_is_not(tmp_path: Path) -> None:
    """A request is for these weights, whatever the files are called."""
    add(tmp_path, flux2(7680), "qwen_3_4b.safetensors", vae="")
    vae = {"decoder.conv_in.weight": (512, 32, 3, 3), "bn.running_mean": (128,)}
    path = write_model(tmp_path / "vae/flux2-vae.safetensors", vae)
    catalog = Catalog(tmp_path)
    before = catalog.sha256(completed(tmp_path))
    path = path.rename(path.with_name("other.safetensors"))
    write_model(tmp_path / "text_encoders" / CLIP_L, ENCODER_FILES[CLIP_L])  # not used
    assert catalog.sha256(completed(tmp_path)) == before
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert catalog.sha256(completed(tmp_path)) != before
