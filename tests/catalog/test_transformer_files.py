"""Transformers in files of their own: recognised, and completed by a folder that is installed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from picowatch.catalog import Catalog, Model, Refused
from picowatch.catalog.families import ONLY
from picowatch.catalog.headers import Header
from picowatch.catalog.recognise import recognise
from picowatch.errors import ModelRefused
from picowatch.recipe.resolve.installed import NotInstalled, find_checkpoint
from tests.catalog.files import UNET, Shapes, write_model
from tests.catalog.test_families import (
    CHROMA,
    LUMINA,
    QWEN_IMAGE,
    VAE_AND_TEXT,
    Z_IMAGE,
    below,
    flux,
    flux2,
    sd3,
)
from tests.engine.tiny_flows import tiny_flow

DIFFUSERS_FLUX: Shapes = {
    "x_embedder.weight": (3072, 64),
    "context_embedder.weight": (3072, 4096),
    "time_text_embed.guidance_embedder.linear_1.weight": (3072, 256),
    "transformer_blocks.0.attn.add_q_proj.weight": (3072, 3072),
    "single_transformer_blocks.0.proj_mlp.weight": (12288, 3072),
}
RECOGNISED: dict[str, tuple[Shapes, str, str, bool]] = {
    "flux1-dev": (flux(), "flux", "dev", False),
    "flux1-dev-with-encoders": (below(UNET, flux()) | VAE_AND_TEXT, "flux", "dev", False),
    "flux1-krea-dev": (flux(), "flux", "Krea", True),
    "flux1-fill-dev": (flux(384), "flux", "Fill", False),
    "flux1-schnell": (flux(guided=False), "flux", "schnell", False),
    "flux1-diffusers": (DIFFUSERS_FLUX, "flux", "dev", False),
    "flux1-prefixed": (below(UNET, DIFFUSERS_FLUX), "flux", "dev", False),
    "Chroma1-HD": (CHROMA, "chroma", "", False),
    "chroma-with-encoders": (below(UNET, CHROMA) | VAE_AND_TEXT, "chroma", "", False),
    "lumina_2": (LUMINA, "lumina2", "", False),
    "qwen_image": (QWEN_IMAGE, "qwen_image", "", False),
    "z_image_turbo": (Z_IMAGE, "z_image", "Turbo", True),
    "z_image": (below(UNET, Z_IMAGE) | VAE_AND_TEXT, "z_image", "Base", True),
    "sd3_medium": (below(UNET, sd3(36864, 1536, 24)), "sd3", "3 Medium", False),
    "sd3.5_medium": (sd3(147456, 1536, 24), "sd3", "3.5 Medium", False),
    "sd3.5_large": (below(UNET, sd3(36864, 2432, 38)), "sd3", "3.5 Large", False),
    "sd3.5_large_turbo": (sd3(36864, 2432, 38), "sd3", "3.5 Large Turbo", True),
    "sd3.5_medium_diffusers": (
        {"pos_embed.pos_embed": (1, 147456, 1536), "transformer_blocks.0.attn2.to_q.bias": (1536,)},
        "sd3",
        "3.5 Medium",
        False,
    ),
    "flux-2-klein-4b": (flux2(7680), "flux2", "klein 4B", True),
    "flux-2-klein-base-4b": (flux2(7680), "flux2", "klein base 4B", True),
    "flux-2-klein-9b": (below(UNET, flux2(12288)), "flux2", "klein 9B", True),
    "krea2_raw": ({"txtfusion.projector.weight": (1, 12)}, "krea2", "Raw", True),
    "krea2_turbo": ({"text_fusion.projector.weight": (1, 12)}, "krea2", "Turbo", True),
    "ernie-image-turbo": ({"layers.0.adaLN_sa_ln.weight": (4096,)}, "ernie_image", "Turbo", True),
}
FLUX_LACKS = (
    "without text encoders, tokenizers and VAE. It also needs CLIP L (such as clip_l.safetensors) "
    "in models/text_encoders/, T5 XXL (such as t5xxl_fp16.safetensors) in models/text_encoders/ "
    "and a VAE with 16 latent channels (such as ae.safetensors) in models/vae/; or a diffusers "
    "folder of FLUX.1 (such as black-forest-labs/FLUX.1-dev) in models/checkpoints/, which lends "
    "its own."
)


def look_at(models: Path, name: str, shapes: Shapes) -> Model | Refused:
    """What the catalog says of one file in models/checkpoints/."""
    path = write_model(models / f"checkpoints/{name}.safetensors", shapes)
    found = Catalog(models).scan()
    everything: list[Model | Refused] = [*found.models, *found.refused]
    return next(one for one in everything if one.path == path)


@pytest.mark.parametrize("name", RECOGNISED)
def test_family_and_variant_are_recognised(tmp_path: Path, name: str) -> None:
    """The variant by the header, or by the file's name if that alone says it."""
    shapes, *expected = RECOGNISED[name]
    found = look_at(tmp_path, name, shapes)
    assert isinstance(found, Model)
    assert [found.family, found.variant, found.by_name] == expected
    assert found.native_size == (1328 if found.family == "qwen_image" else 1024)


def test_what_is_missing_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    """The checkpoint is listed; a recipe that names it learns what to do."""
    found = look_at(tmp_path, "flux1-dev", flux())
    assert isinstance(found, Model)
    message = f"flux1-dev.safetensors is only the transformer of FLUX.1 (dev), {FLUX_LACKS}"
    assert found.missing == message
    catalog = Catalog(tmp_path)
    with pytest.raises(NotInstalled) as refused:
        find_checkpoint("flux1-dev", catalog.inventory())
    assert str(refused.value) == f"the checkpoint 'flux1-dev' cannot be used: {message}"
    with pytest.raises(ModelRefused, match="only the transformer"):
        catalog.find("checkpoint", "flux1-dev")


def test_a_folder_of_the_family_completes_it(tmp_path: Path) -> None:
    """Of its variant, if there is one; of another one, with what the package has for its own."""
    add_folder(tmp_path, "FLUX.1-schnell")
    found = look_at(tmp_path, "flux1-dev", flux())
    assert isinstance(found, Model)
    assert not found.missing
    parts = {part.name: part.folder for part in found.parts}
    assert parts["vae"] == tmp_path / "checkpoints/FLUX.1-schnell/vae"
    for name in ("scheduler", "transformer"):
        assert parts[name].parts[-3:] == ("assets", "flux", name)
    add_folder(tmp_path, "FLUX.1-dev")
    found = Catalog(tmp_path).find("checkpoint", "flux1-dev")
    assert {part.folder.parent.name for part in found.parts} == {"FLUX.1-dev"}


def test_a_folder_that_only_lends_needs_no_weights_of_a_transformer(tmp_path: Path) -> None:
    """A recipe cannot name it; its hash for others is that of the whole folder."""
    folder = tmp_path / "checkpoints/Z-Image-Turbo"
    shutil.copytree(tiny_flow("Z-Image-Turbo"), folder)
    write_model(tmp_path / "checkpoints/z-turbo.safetensors", Z_IMAGE)
    catalog = Catalog(tmp_path)
    whole = catalog.sha256(catalog.find("checkpoint", "z-turbo"))
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    assert catalog.sha256(catalog.find("checkpoint", "z-turbo")) == whole
    assert [one.name for one in catalog.inventory().checkpoints] == ["z-turbo"]
    with pytest.raises(ModelRefused) as refused:
        catalog.find("checkpoint", "Z-Image-Turbo")
    assert refused.value.message == (
        "Z-Image-Turbo/ has no weights in transformer/: it only completes transformer files. To "
        "render with it, copy the whole folder."
    )


def test_a_folder_of_another_family_does_not(tmp_path: Path) -> None:
    """Its text encoders are others."""
    add_folder(tmp_path, "Z-Image-Turbo")
    found = look_at(tmp_path, "flux1-dev", flux())
    assert isinstance(found, Model)
    assert found.missing


@pytest.mark.parametrize(("inputs", "variant"), [(128, "Depth or Canny"), (100, "")])
def test_a_variant_that_cannot_be_rendered_is_refused(
    tmp_path: Path, inputs: int, variant: str
) -> None:
    """With its name, if it has one."""
    found = look_at(tmp_path, "it", flux(inputs))
    assert isinstance(found, Refused)
    name = f"FLUX.1 ({variant})" if variant else "FLUX.1"
    assert found.reason == f"it.safetensors is a checkpoint of {name}: {ONLY}"


@pytest.mark.parametrize(
    ("name", "shapes", "says"),
    [
        ("qwen_image_edit_fp8", QWEN_IMAGE, "Qwen-Image (Edit)"),
        ("flux1-dev-kontext_fp8", flux(), "FLUX.1 (Kontext)"),
    ],
)
def test_an_editing_model_is_refused_by_its_name(
    tmp_path: Path, name: str, shapes: Shapes, says: str
) -> None:
    """Older files of Qwen-Image-Edit look like Qwen-Image, and Kontext's like FLUX.1 dev."""
    found = look_at(tmp_path, name, shapes)
    assert isinstance(found, Refused)
    assert f"is a checkpoint of {says}: picowatch does not support it" in found.reason


CHANGES = {
    "checkpoints/z-turbo.safetensors": True,
    "checkpoints/Z-Image-Turbo/vae/diffusion_pytorch_model.safetensors": True,
    "checkpoints/Z-Image-Turbo/text_encoder/model.safetensors": True,
    "checkpoints/Z-Image-Turbo/tokenizer/tokenizer.json": True,
    "checkpoints/Z-Image-Turbo/scheduler/scheduler_config.json": True,
    "checkpoints/Z-Image-Turbo/transformer/config.json": True,
    "checkpoints/Z-Image-Turbo/transformer/diffusion_pytorch_model.safetensors": False,
    "checkpoints/Z-Image-Turbo/model_index.json": False,
}


@pytest.mark.parametrize("changed", CHANGES)
def test_each_file_that_changes_pixels_is_in_the_hash(tmp_path: Path, changed: str) -> None:
    """And none that does not: the folder's own transformer is not read."""
    shutil.copytree(tiny_flow("Z-Image-Turbo"), tmp_path / "checkpoints/Z-Image-Turbo")
    save_file(
        {name: torch.zeros(shape[:1]) for name, shape in Z_IMAGE.items()},
        tmp_path / "checkpoints/z-turbo.safetensors",
    )
    before = digest(tmp_path)
    path = tmp_path / changed
    content = path.read_bytes()
    if path.suffix == ".json":
        path.write_bytes(content + b" ")
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert (digest(tmp_path) != before) == CHANGES[changed]


def test_names_do_not_change_the_hash(tmp_path: Path) -> None:
    """A renamed file or folder renders the same."""
    add_folder(tmp_path, "Z-Image-Turbo")
    path = write_model(tmp_path / "checkpoints/z-turbo.safetensors", Z_IMAGE)
    before = digest(tmp_path)
    (tmp_path / "checkpoints/Z-Image-Turbo").rename(tmp_path / "checkpoints/another-turbo")
    catalog = Catalog(tmp_path)
    path.rename(path.with_name("my-turbo.safetensors"))
    assert catalog.sha256(catalog.find("checkpoint", "my-turbo")) == before


def digest(models: Path) -> str:
    catalog = Catalog(models)
    return catalog.sha256(catalog.find("checkpoint", "z-turbo"))


def add_folder(models: Path, name: str) -> None:
    folder = models / "checkpoints" / name
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(tiny_flow(name))


LAYER = "noise_refiner.0.attention.qkv"
Types = dict[str, str]
STORED: dict[str, tuple[Shapes, Types, str]] = {
    "float16": ({}, {}, "float16"),
    "bfloat16": ({f"{LAYER}.weight": (8, 8)}, {"": "BF16"}, "bfloat16"),
    "fp8": ({f"{LAYER}.weight": (8, 8)}, {"": "F8_E4M3"}, "fp8"),
    "fp8 with five bits of exponent": ({f"{LAYER}.weight": (8, 8)}, {"": "F8_E5M2"}, "fp8"),
    "a number for each layer": (
        {f"{LAYER}.weight": (8, 8), f"{LAYER}.scale_weight": (1,), "scaled_fp8": (2,)},
        {"": "F8_E4M3", f"{LAYER}.scale_weight": "F32"},
        "scaled fp8",
    ),
    "a number for each row": (
        {f"{LAYER}.weight": (8, 8), f"{LAYER}.weight_scale": (8, 1)},
        {"": "F8_E4M3", f"{LAYER}.weight_scale": "F32"},
        "scaled fp8",
    ),
}


@pytest.mark.parametrize("name", STORED)
def test_how_weights_are_stored_is_told_by_the_header(name: str) -> None:
    """By the type of most of them."""
    shapes, types, expected = STORED[name]
    assert recognise(typed(Z_IMAGE | shapes, types)).stored == expected


def typed(shapes: Shapes, types: Types, **metadata: str) -> Header:
    """`types` has the type of all tensors under "", and of some by their names."""
    usual = types.get("", "F16")
    return Header(shapes, metadata, {name: types.get(name, usual) for name in shapes})


GET = "not supported. Get it in bfloat16, in fp8, or as a GGUF file."
QUANTISED: dict[str, tuple[Shapes, Types, str]] = {
    "NF4": (
        {f"{LAYER}.weight.quant_state.bitsandbytes__nf4": (64,)},
        {},
        "NF4 (bitsandbytes)",
    ),
    "FP4": (
        {f"{LAYER}.weight.quant_state.bitsandbytes__fp4": (64,)},
        {},
        "FP4 (bitsandbytes)",
    ),
    "Nunchaku": (
        {f"{LAYER}.qweight": (8, 8), f"{LAYER}.wscales": (8, 8)},
        {},
        "SVDQuant (Nunchaku)",
    ),
    "nvfp4": (
        {f"{LAYER}.weight": (8, 4), f"{LAYER}.weight_scale_2": ()},
        {f"{LAYER}.weight": "U8"},
        "nvfp4",
    ),
    "nvfp4 with one scale": (
        {f"{LAYER}.weight": (8, 4), f"{LAYER}.weight_scale": (8, 1)},
        {f"{LAYER}.weight": "U8", f"{LAYER}.weight_scale": "F8_E4M3"},
        "nvfp4",
    ),
    "mxfp8": (
        {f"{LAYER}.weight": (8, 64), f"{LAYER}.weight_scale": (8, 2)},
        {f"{LAYER}.weight": "F8_E4M3", f"{LAYER}.weight_scale": "F8_E8M0"},
        "mxfp8",
    ),
    "int8": ({f"{LAYER}.weight": (8, 8)}, {f"{LAYER}.weight": "I8"}, "int8"),
    "int8 with scales": (
        {f"{LAYER}.weight": (8, 8), f"{LAYER}.weight_scale": ()},
        {f"{LAYER}.weight": "I8"},
        "int8",
    ),
    "blocks": (
        {f"{LAYER}.weight": (256, 256), f"{LAYER}.weight_scale": (2, 2)},
        {f"{LAYER}.weight": "F8_E4M3"},
        "fp8 with a scale for each block of weights",
    ),
    "smoothed": (
        {f"{LAYER}.weight": (8, 8), f"{LAYER}.pre_quant_scale": (8,)},
        {f"{LAYER}.weight": "F8_E4M3"},
        "fp8 with smoothed inputs",
    ),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_formats_that_cannot_be_read_are_refused_by_name(name: str) -> None:
    """Without their scales such weights would be noise."""
    shapes, types, words = QUANTISED[name]
    with pytest.raises(ModelRefused) as refused:
        recognise(typed(Z_IMAGE | shapes, types))
    assert refused.value.message == f"is quantised as {words}: {GET}"


@pytest.mark.parametrize("format_name", ["int8_convrot", "mxfp8", "hybrid_mxfp8"])
def test_a_format_that_the_file_names_is_refused(format_name: str) -> None:
    """ComfyUI lists each layer's in the metadata."""
    layers = {LAYER: {"format": "float8_e4m3fn"}, "other": {"format": format_name}}
    told = json.dumps({"format_version": "1.0", "layers": layers})
    with pytest.raises(ModelRefused, match=format_name):
        recognise(typed(Z_IMAGE, {}, _quantization_metadata=told))


@pytest.mark.parametrize(
    "told", ["", "no JSON", "[]", '{"layers": 1}', '{"layers": {"a": 1}}', "[" * 100_000]
)
def test_odd_descriptions_of_layers_do_no_harm(told: str) -> None:
    """Anybody can write anything there."""
    found = recognise(typed(Z_IMAGE, {}, _quantization_metadata=told))
    assert (found.family, found.stored) == ("z_image", "float16")


def test_a_text_encoder_that_no_transformer_file_uses_is_refused_by_its_name(
    tmp_path: Path,
) -> None:
    """Instead of being listed and never read."""
    write_model(
        tmp_path / "text_encoders/gemma_2_2b.safetensors",
        {"model.embed_tokens.weight": (256000, 2304)},
    )
    (refused,) = Catalog(tmp_path).scan().refused
    assert refused.reason == (
        "gemma_2_2b.safetensors is Gemma 2 2B, a text encoder that picowatch reads from diffusers "
        "folders and whole checkpoints only."
    )
