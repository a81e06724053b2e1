"""Text encoders and VAEs are read from the transformer's own file, or complete it as files."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from picowatch.catalog import Catalog
from picowatch.catalog.text_encoders import ENCODERS
from picowatch.engine.sizes import weights_of as sizes_of
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES, Family, Sign
from tests.engine.ldm import ldm_vae
from tests.engine.memory.test_flow_rungs import UNLOADED, on_rung
from tests.engine.original_names import flux2_names, sd3_names
from tests.engine.test_flows import pytestmark as pytestmark
from tests.engine.pipelines.test_transformer_files import (
    FLUX,
    KLEIN,
    SD35,
    SMALL,
    Z_IMAGE,
    of_the_folder,
    rendered,
    renderer,
    requests,
    same,
)
from tests.engine.pipelines.test_vaes import wan
from tests.engine.tiny_flows import tiny_flow
from tests.engine.transformer_files import PREFIX, Tensors, weights_of, write

SD3_MEDIUM, CHROMA, LUMINA = "sd3-medium", "Chroma1-HD", "Lumina-Image-2.0"
QWEN = "Qwen-Image"


class Part(NamedTuple):
    """A part of a tiny folder: what the package or a file calls it, and the class of its weights.

    `package` is where the package has the config of the full-size one.
    """

    name: str
    kind: str
    package: str
    encoder: str = ""


_CLIP_L = Part("clip_l", "CLIPTextModelWithProjection", "sd15/text_encoder", "CLIP L")
_T5 = Part("t5xxl", "T5EncoderModel", "t5/text_encoder", "T5 XXL")
_QWEN3 = "qwen3/text_encoder"
PARTS: dict[str, dict[str, Part]] = {
    FLUX: {
        "text_encoder": Part("clip_l", "CLIPTextModel", "sd15/text_encoder", "CLIP L"),
        "text_encoder_2": _T5,
        "vae": Part("vae.", "AutoencoderKL", "flux/vae"),
    },
    Z_IMAGE: {
        "text_encoder": Part("qwen3_4b", "Qwen3Model", _QWEN3, "Qwen3 4B"),
        "vae": Part("vae.", "AutoencoderKL", "flux/vae"),
    },
    SD35: {
        "text_encoder": _CLIP_L,
        "text_encoder_2": Part(
            "clip_g", "CLIPTextModelWithProjection", "sdxl/text_encoder_2", "CLIP G"
        ),
        "text_encoder_3": _T5,
        "vae": Part("first_stage_model.", "AutoencoderKL", "sd3/vae"),
    },
    KLEIN: {
        "text_encoder": Part("qwen3_4b", "Qwen3Model", _QWEN3, "Qwen3 4B"),
        "vae": Part("vae.", "AutoencoderKLFlux2", "flux2/vae"),
    },
    CHROMA: {"text_encoder": _T5, "vae": Part("vae.", "AutoencoderKL", "")},
    LUMINA: {
        "text_encoder": Part("gemma2_2b", "Gemma2Model", "", "Gemma 2 2B"),
        "vae": Part("vae.", "AutoencoderKL", ""),
    },
    QWEN: {
        "text_encoder": Part(
            "qwen25_7b", "Qwen2_5_VLForConditionalGeneration", "", "Qwen2.5-VL 7B"
        ),
        "vae": Part("vae.", "AutoencoderKLQwenImage", ""),
    },
}
PARTS[SD3_MEDIUM] = {name: one for name, one in PARTS[SD35].items() if name != "text_encoder_3"}
# Where the package has what else a tiny folder has.
PLACES = {
    FLUX: {"transformer": "flux/transformer", "scheduler": "flux/dev/scheduler"},
    Z_IMAGE: {"transformer": "z_image/transformer", "scheduler": "z_image/turbo/scheduler"},
    SD35: {"transformer": "sd3/transformer", "scheduler": "sd3/scheduler"},
    SD3_MEDIUM: {"transformer": "sd3/transformer", "scheduler": "sd3/scheduler"},
    KLEIN: {"transformer": "flux2/transformer", "scheduler": "flux2/scheduler"},
}
TOKENIZERS = {"CLIP L": "sd15/tokenizer", "T5 XXL": "t5/tokenizer", "Qwen3 4B": "qwen3/tokenizer"}
NAMES: dict[str, Callable[[Tensors], Tensors]] = {
    SD35: sd3_names,
    SD3_MEDIUM: sd3_names,
    KLEIN: flux2_names,
}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def pretend(monkeypatch: pytest.MonkeyPatch, assets: Path, folder: str) -> None:
    """That the package's configs and the known encoders are those of a tiny folder."""
    places = dict(PLACES.get(folder, {}))
    for part, one in PARTS[folder].items():
        places[part] = one.package
        if one.encoder:
            known = ENCODERS[one.encoder]
            shape = tuple(tensors_of(folder, part)[known.tensor].shape)
            monkeypatch.setitem(ENCODERS, one.encoder, known._replace(shape=shape))
            if place := TOKENIZERS.get(one.encoder):
                places[part.replace("text_encoder", "tokenizer")] = place
    if folder in PLACES:
        for part, place in places.items():
            without_weights = shutil.ignore_patterns("*.safetensors")
            shutil.copytree(tiny_flow(folder) / part, assets / place, ignore=without_weights)
        monkeypatch.setattr("picowatch.catalog.transformer_files.ASSETS", assets)
    tiny = Sign(of=("txt_in.weight", "context_embedder.weight"), width=48)
    row = replace(FAMILIES["flux2"], by_header=(("4B", tiny),))
    monkeypatch.setitem(cast("dict[str, Family]", FAMILIES), "flux2", row)


def tensors_of(folder: str, part: str) -> Tensors:
    """A text encoder or VAE, in the names that files of it have."""
    if part == "vae":
        names = wan if folder == QWEN else ldm_vae
        return names(tiny_flow(folder) / part)
    name = PARTS[folder][part].kind
    kind: Any = getattr(transformers, name)
    state: Tensors = dict(kind.from_pretrained(tiny_flow(folder), subfolder=part).state_dict())
    if "T5" in name:
        return {name: tensor for name, tensor in state.items() if "embed_tokens" not in name}
    if folder == QWEN:
        return {name.replace("model.language_model.", "model."): one for name, one in state.items()}
    if "CLIP" not in name:
        return {f"model.{name}": tensor for name, tensor in state.items()}
    bare = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    return {
        name if "projection" in name else f"text_model.{name}": one for name, one in bare.items()
    }


def transformer_of(folder: str, prefix: str) -> Tensors:
    tensors = NAMES.get(folder, dict)(weights_of(folder))
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def whole_file(folder: str, *parts: str) -> Tensors:
    """A checkpoint with these parts of the folder, or with all of them."""
    made = transformer_of(folder, PREFIX)
    for part, one in PARTS[folder].items():
        if part not in (parts or PARTS[folder]):
            continue
        prefix = f"text_encoders.{one.name}.transformer." if one.encoder else one.name
        made |= {f"{prefix}{name}": tensor for name, tensor in tensors_of(folder, part).items()}
    return made


@pytest.mark.parametrize("folder", [FLUX, Z_IMAGE, SD35, KLEIN])
def test_a_whole_checkpoint_needs_nothing_else(
    models: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Its picture is the folder's, its hash that of the file, and each part counts once."""
    pretend(monkeypatch, models.parent / "assets", folder)
    path = write(models / "checkpoints/mine-turbo.safetensors", whole_file(folder))
    assert same(rendered(models, "mine-turbo", SMALL), of_the_folder(folder))
    catalog = Catalog(models)
    found = catalog.find("checkpoint", "mine-turbo")
    assert catalog.sha256(found) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert catalog.size(found) == path.stat().st_size
    whole = models / "checkpoints/whole"
    whole.symlink_to(tiny_flow(folder))
    ours, theirs = (sizes_of(one, 2) for one in (found, catalog.find("checkpoint", "whole")))
    assert ours.denoiser == theirs.denoiser
    assert ours.vae == pytest.approx(theirs.vae, rel=0.01)


def test_text_encoders_inside_are_read_again_where_memory_is_short(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They leave memory after each prompt, and the transformer comes from the same file."""
    pretend(monkeypatch, models.parent / "assets", Z_IMAGE)
    write(models / "checkpoints/mine-turbo.safetensors", whole_file(Z_IMAGE))
    engine = renderer(models)
    for _ in range(2):
        (wanted,) = requests(models, "mine-turbo", SMALL)
        (image,) = on_rung(engine, UNLOADED, wanted)
        assert same(image, of_the_folder(Z_IMAGE))


@pytest.mark.parametrize("folder", [CHROMA, LUMINA, QWEN])
def test_what_is_inside_is_read_instead_of_what_a_folder_lends(
    models: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """The folder only adds what the file has not: here its text encoders and VAE are others."""
    pretend(monkeypatch, models.parent / "assets", folder)
    lender = models / "checkpoints/lender"
    shutil.copytree(tiny_flow(folder), lender)
    for part in PARTS[folder]:
        (path,) = (lender / part).glob("*.safetensors")
        changed = {name: tensor * 1.3 for name, tensor in load_file(path).items()}
        save_file(changed, path, metadata={"format": "pt"})
    write(models / "checkpoints/mine.safetensors", whole_file(folder))
    expected = of_the_folder(folder)
    assert same(rendered(models, "mine", SMALL), expected)
    assert not same(rendered(models, "lender", SMALL), expected)


def test_fp8_encoders_inside_are_multiplied_by_their_scales(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Comfy-Org's scaled files have them."""
    pretend(monkeypatch, models.parent / "assets", FLUX)
    tensors = whole_file(FLUX)
    name = "text_encoders.t5xxl.transformer.encoder.block.0.layer.1.DenseReluDense.wo.weight"
    scale = tensors[name].abs().max() / 448
    narrow = (tensors[name] / scale).to(torch.float8_e4m3fn)
    wide = tensors | {name: narrow.float() * scale}
    path = models / "checkpoints/mine.safetensors"
    write(path, wide)
    expected = rendered(models, "mine", SMALL)
    scaled = {
        name: narrow,
        name.replace(".weight", ".scale_weight"): scale,
        "model.diffusion_model.scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn),
    }
    write(path, tensors | scaled)
    assert same(rendered(models, "mine", SMALL), expected)


FILES = {"clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl_fp16", "qwen3_4b": "qwen_3_4b"}
VAES = {SD35: "sd3_vae", SD3_MEDIUM: "sd3_vae", KLEIN: "flux2-vae"}


def add_files(models: Path, folder: str, *without: str) -> None:
    """Each part in a file of its own, and a VAE of FLUX.1, which looks like that of SD 3."""
    write(models / "checkpoints/mine.safetensors", transformer_of(folder, ""))
    for part, one in PARTS[folder].items():
        path = f"text_encoders/{FILES[one.name]}" if one.encoder else f"vae/{VAES[folder]}"
        if part not in without:
            write(models / f"{path}.safetensors", tensors_of(folder, part))
    write(models / "vae/ae.safetensors", tensors_of(FLUX, "vae"))


@pytest.mark.parametrize("folder", [SD35, SD3_MEDIUM, KLEIN])
def test_files_complete_a_transformer(
    models: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """T5 is not needed: without it the picture is that of a folder without it."""
    pretend(monkeypatch, models.parent / "assets", folder)
    add_files(models, folder)
    assert same(rendered(models, "mine", SMALL), of_the_folder(folder))


def test_clip_l_is_read_without_a_projection(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files made for other models have one; OpenCLIP's own name of G's is transposed."""
    pretend(monkeypatch, models.parent / "assets", SD3_MEDIUM)
    add_files(models, SD3_MEDIUM)
    encoders = models / "text_encoders"
    clip_l = tensors_of(SD3_MEDIUM, "text_encoder") | {"text_projection.weight": torch.ones(32, 32)}
    write(encoders / "clip_l.safetensors", clip_l)
    clip_g = tensors_of(SD3_MEDIUM, "text_encoder_2")
    clip_g["text_projection"] = clip_g.pop("text_projection.weight").T
    write(encoders / "clip_g.safetensors", clip_g)
    assert same(rendered(models, "mine", SMALL), of_the_folder(SD3_MEDIUM))


LACKS = {
    "all": (
        SD35,
        ("text_encoder", "text_encoder_2", "text_encoder_3", "vae"),
        "mine.safetensors is only the transformer of Stable Diffusion 3.x (3.5 Medium), without "
        "text encoders, tokenizers and VAE. It also needs CLIP L (such as clip_l.safetensors) in "
        "models/text_encoders/, CLIP G (such as clip_g.safetensors) in models/text_encoders/ and a "
        "VAE of Stable Diffusion 3 with sd3 in its name (such as sd3_vae.safetensors) in "
        "models/vae/; or a diffusers folder of Stable Diffusion 3.x (such as "
        "stabilityai/stable-diffusion-3.5-medium) in models/checkpoints/, which lends its own.",
    ),
    "a VAE": (
        KLEIN,
        ("vae",),
        "mine.safetensors is only the transformer of FLUX.2 (klein 4B), without text encoders, "
        "tokenizers and VAE. It also needs a VAE with 32 latent channels (such as "
        "flux2-vae.safetensors) in models/vae/; or a diffusers folder of FLUX.2 (klein 4B) (such "
        "as black-forest-labs/FLUX.2-klein-4B) in models/checkpoints/, which lends its own.",
    ),
}


@pytest.mark.parametrize("what", LACKS)
def test_what_is_missing_is_named(models: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """But not T5, without which Stable Diffusion 3 renders, too."""
    folder, without, message = LACKS[what]
    pretend(monkeypatch, models.parent / "assets", folder)
    add_files(models, folder, *without)
    with pytest.raises(ModelRefused) as refused:
        Catalog(models).find("checkpoint", "mine")
    assert refused.value.message == message


def test_what_is_there_is_named_too(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stability's own files have the VAE, but no text encoder."""
    pretend(monkeypatch, models.parent / "assets", SD35)
    write(models / "checkpoints/mine.safetensors", whole_file(SD35, "vae"))
    with pytest.raises(ModelRefused) as refused:
        Catalog(models).find("checkpoint", "mine")
    assert refused.value.message.startswith(
        "mine.safetensors has only the transformer and the VAE of Stable Diffusion 3.x "
        "(3.5 Medium). It also needs CLIP L (such as clip_l.safetensors) in models/text_encoders/ "
        "and CLIP G (such as clip_g.safetensors) in models/text_encoders/; or a diffusers folder"
    )
