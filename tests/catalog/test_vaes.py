"""VAEs are told apart by their layers, and in folders by their configs."""

import json
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog, Model, Refused
from picowatch.catalog.families import ONLY
from picowatch.catalog.vaes import families_of, serves
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES, FLOWS, UNETS
from tests.catalog.files import Shapes, vae_file_shapes, write_model
from tests.catalog.test_families import flux
from tests.catalog.test_pipelines import WEIGHTS
from tests.catalog.test_recognition import look_at

# The first and last layers of full-size files.
FLUX1: Shapes = {"decoder.conv_in.weight": (512, 16, 3, 3), "encoder.conv_in.bias": (128,)}
FLUX2: Shapes = {
    "decoder.conv_in.weight": (512, 32, 3, 3),
    "encoder.conv_in.weight": (128, 3, 3, 3),
    "bn.running_mean": (128,),
}
WAN: Shapes = {
    "conv2.weight": (16, 16, 1, 1, 1),
    "encoder.conv1.weight": (96, 3, 3, 3, 3),
    "decoder.conv1.weight": (384, 16, 3, 3, 3),
}
QWEN: Shapes = {
    "encoder.conv_in.weight": (96, 3, 3, 3, 3),
    "decoder.conv_in.weight": (384, 16, 3, 3, 3),
}
SANA: Shapes = {
    "encoder.down_blocks.0.0.conv1.weight": (128, 128, 3, 3),
    "decoder.conv_in.weight": (1024, 32, 3, 3),
}


def tiny(channels: int) -> Shapes:
    """diffusers' AutoencoderTiny."""
    return {
        "encoder.layers.0.weight": (64, 3, 3, 3),
        "decoder.layers.0.weight": (64, channels, 3, 3),
    }


FILES: dict[str, tuple[Shapes, str]] = {
    "Stable Diffusion": (vae_file_shapes(), ""),
    "FLUX.1": (FLUX1, "16 latent channels"),
    "CogView4": ({"decoder.conv_in.weight": (1024, 16, 3, 3)}, "CogView4"),
    "FLUX.2": (FLUX2, "FLUX.2"),
    "Wan's names": (WAN, "Qwen-Image"),
    "Qwen-Image": (QWEN, "Qwen-Image"),
    "Sana": (SANA, "Sana"),
    "TAESD": (tiny(4), "tiny"),
    "TAEF1": (tiny(16), "tiny, 16 latent channels"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_known_by_its_layers(tmp_path: Path, name: str) -> None:
    """At full size."""
    shapes, variant = FILES[name]
    found = look_at(tmp_path, shapes, "vae")
    assert isinstance(found, Model)
    assert (found.kind, found.family, found.variant) == ("vae", "", variant)


@pytest.mark.parametrize(
    ("name", "families"),
    [
        ("sd3_vae", ("Stable Diffusion 3.x",)),
        ("stable-diffusion-3.5", ("Stable Diffusion 3.x",)),
        ("ae", families_of("16 latent channels")),
    ],
)
def test_only_its_name_tells_the_vae_of_stable_diffusion_3(
    tmp_path: Path, name: str, families: tuple[str, ...]
) -> None:
    """From FLUX.1's, with which its pictures have wrong colours."""
    write_model(tmp_path / f"vae/{name}.safetensors", FLUX1)
    assert Catalog(tmp_path).inventory().vae_families == {name: families}


def test_a_tiny_vae_is_for_the_families_of_the_vae_that_it_stands_for() -> None:
    """By the number of latent channels, which is all that a header tells."""
    assert families_of("tiny") == families_of("")
    assert families_of("tiny, 16 latent channels") == families_of("16 latent channels")


def test_a_tiny_vae_completes_no_transformer(tmp_path: Path) -> None:
    """Its pictures are approximate: only a recipe that names it gets it."""
    write_model(tmp_path / "checkpoints/flux1-dev.safetensors", flux())
    write_model(tmp_path / "vae/taef1.safetensors", tiny(16))
    with pytest.raises(ModelRefused, match=r"a VAE with 16 latent channels .* in models/vae/"):
        Catalog(tmp_path).find("checkpoint", "flux1-dev")


def test_a_tiny_vae_may_be_a_folder(tmp_path: Path) -> None:
    """In diffusers' layout; those with other channels are refused."""
    for name, channels in (("taesd", 4), ("taef2", 32)):
        folder = tmp_path / "vae" / name
        write_model(folder / "diffusion_pytorch_model.safetensors", tiny(channels))
        config = {"_class_name": "AutoencoderTiny", "latent_channels": channels}
        (folder / "config.json").write_text(json.dumps(config))
    taef2, taesd = look_at_all(tmp_path)
    assert isinstance(taesd, Model)
    assert taesd.variant == "tiny"
    assert isinstance(taef2, Refused)
    assert taef2.reason == f"taef2 is a tiny VAE with 32 latent channels: {ONLY}"


def look_at_all(models: Path) -> list[Model | Refused]:
    found = Catalog(models).scan()
    return sorted((*found.models, *found.refused), key=lambda one: one.name)


UNUSABLE: dict[str, tuple[Shapes, str]] = {
    "Wan 2.2": (
        {
            "encoder.conv1.weight": (160, 12, 3, 3, 3),
            "decoder.conv1.weight": (1024, 48, 3, 3, 3),
        },
        f"is a VAE of an unknown kind: {ONLY}",
    ),
    "Qwen-Image-Layered": (
        {**WAN, "encoder.conv1.weight": (96, 4, 3, 3, 3)},
        f"is a VAE of an unknown kind: {ONLY}",
    ),
    "8 channels": (
        {"decoder.conv_in.weight": (512, 8, 3, 3)},
        f"is a VAE of an unknown kind: {ONLY}",
    ),
    "Sana in its authors' names": (
        {
            "encoder.stages.0.op_list.0.main.conv1.conv.weight": (128, 128, 3, 3),
            "decoder.project_in.main.conv.weight": (1024, 32, 3, 3),
        },
        "is a VAE of Sana in the names of its authors: not supported. Get it in diffusers' names.",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_vae_of_no_family_is_refused(tmp_path: Path, name: str) -> None:
    """In its own words."""
    shapes, words = UNUSABLE[name]
    found = look_at(tmp_path, shapes, "vae")
    assert isinstance(found, Refused)
    assert found.reason == f"it.safetensors {words}"


CONFIGS: dict[str, dict[str, Any]] = {
    "": {"_class_name": "AutoencoderKL", "latent_channels": 4, "scaling_factor": 0.13025},
    "FLUX.1": {"_class_name": "AutoencoderKL", "latent_channels": 16, "scaling_factor": 0.3611},
    "Stable Diffusion 3.x": {
        "_class_name": "AutoencoderKL",
        "latent_channels": 16,
        "scaling_factor": 1.5305,
    },
    "CogView4": {"_class_name": "AutoencoderKL", "latent_channels": 16, "scaling_factor": 1.0},
    "FLUX.2": {"_class_name": "AutoencoderKLFlux2"},
    "Qwen-Image": {"_class_name": "AutoencoderKLQwenImage", "z_dim": 16},
    "Sana": {"_class_name": "AutoencoderDC", "latent_channels": 32},
}


def folder(models: Path, config: dict[str, Any]) -> Catalog:
    """A catalog with this VAE."""
    it = models / "vae/it"
    it.mkdir(parents=True)
    (it / "config.json").write_text(json.dumps(config))
    (it / "diffusion_pytorch_model.safetensors").write_bytes(WEIGHTS)
    return Catalog(models)


@pytest.mark.parametrize("variant", CONFIGS)
def test_a_folder_is_known_by_its_config(tmp_path: Path, variant: str) -> None:
    """Which also says what latents are scaled by."""
    catalog = folder(tmp_path, CONFIGS[variant])
    assert catalog.find("vae", "it").variant == variant
    assert catalog.inventory().vae_families == {"it": families_of(variant)}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"_class_name": "AutoencoderKLWan"},
            "is a diffusers folder, but not of a supported VAE: its class is AutoencoderKLWan.",
        ),
        (
            CONFIGS["FLUX.1"] | {"latent_channels": 12},
            f"is a VAE with 12 latent channels, scaled by 0.3611: {ONLY}",
        ),
        (
            CONFIGS["FLUX.1"] | {"scaling_factor": 7},
            f"is a VAE with 16 latent channels, scaled by 7: {ONLY}",
        ),
        (
            CONFIGS["FLUX.1"] | {"scaling_factor": [1]},
            f"is a VAE with 16 latent channels, scaled by [1]: {ONLY}",
        ),
        (
            CONFIGS["Qwen-Image"] | {"base_dim": 10**9},
            "cannot be used: config.json says base_dim: 1000000000; the limit is 100,000,000.",
        ),
    ],
)
def test_a_folder_of_another_kind_is_refused(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    """Before anything is built."""
    (refused,) = folder(tmp_path, config).scan().refused
    assert refused.reason == f"it {words}"


@pytest.mark.parametrize("family", (*UNETS, *FLOWS))
def test_the_vaes_of_a_family_are_recognised(family: str) -> None:
    """Each variant in a file or a folder. Nothing tells which files would suit CogView3-Plus."""
    variants = {variant for _, variant in FILES.values()} | set(CONFIGS)
    assert {*FAMILIES[family].vaes} <= variants
    assert FAMILIES[family].vaes or family == "cogview3"
    assert not serves("another", family)
