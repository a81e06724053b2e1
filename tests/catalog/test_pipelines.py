"""Diffusers folders of flow families: recognised by their parts, refused in words."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog, Model, Refused

FLUX: dict[str, Any] = {
    "_class_name": "FluxPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
}
SD3 = {
    "_class_name": "StableDiffusion3Pipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
    "tokenizer_3": ["transformers", "T5TokenizerFast"],
}
# An empty safetensors file with one number.
HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  '
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of FLUX.1 dev, as far as the catalog looks."""
    return write_folder(tmp_path, "FLUX.1-dev", FLUX, {"guidance_embeds": True})


def write_folder(
    models: Path, name: str, index: dict[str, Any], transformer: dict[str, Any]
) -> Path:
    """A folder of the parts of an index."""
    folder = models / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    for part, entry in index.items():
        if part == "_class_name" or entry == [None, None]:
            continue
        (folder / part).mkdir()
        if part.startswith("tokenizer"):
            (folder / part / "tokenizer.json").write_text("{}")
        elif part == "scheduler":
            (folder / part / "scheduler_config.json").write_text("{}")
        else:
            config = transformer if part == "transformer" else {}
            (folder / part / "config.json").write_text(json.dumps(config))
            (folder / part / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def found_in(models: Path) -> Model | Refused:
    found = Catalog(models).scan()
    every: list[Model | Refused] = [*found.models, *found.refused]
    return every[0]


def test_a_whole_folder_is_recognised(folder: Path, tmp_path: Path) -> None:
    """With its variant, and its native size."""
    model = found_in(tmp_path)
    assert isinstance(model, Model)
    assert (model.name, model.kind, model.family) == ("FLUX.1-dev", "checkpoint", "flux")
    assert (model.variant, model.native_size) == ("dev", 1024)
    (folder / "transformer/config.json").write_text('{"guidance_embeds": false}')
    assert getattr(found_in(tmp_path), "variant", "") == "schnell"
    for saved_by in ("FluxImg2ImgPipeline", "FluxInpaintPipeline"):
        _index(_class_name=saved_by)(folder)
        assert getattr(found_in(tmp_path), "variant", "") == "schnell"
    _index(_class_name="FluxFillPipeline")(folder)
    assert getattr(found_in(tmp_path), "variant", "") == "Fill"


KLEIN: dict[str, Any] = {
    "_class_name": "Flux2KleinPipeline",
    "transformer": ["diffusers", "Flux2Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLFlux2"],
    "text_encoder": ["transformers", "Qwen3ForCausalLM"],
    "tokenizer": ["transformers", "Qwen2TokenizerFast"],
}


@pytest.mark.parametrize(
    ("distilled", "width", "variant"),
    [
        ({"is_distilled": True}, 7680, "klein 4B"),
        ({"is_distilled": False}, 12288, "klein base 9B"),
        ({}, 7680, "klein base 4B"),
        ({"is_distilled": True}, 48, "klein"),
        ({"is_distilled": True}, [7680], "klein"),
    ],
)
def test_klein_is_told_by_its_index(
    folder: Path, tmp_path: Path, distilled: dict[str, bool], width: object, variant: str
) -> None:
    """As diffusers reads it: distilled only where it says so. The text's width tells the size."""
    _index(**KLEIN, **distilled)(folder)
    (folder / "transformer/config.json").write_text(json.dumps({"joint_attention_dim": width}))
    model = found_in(tmp_path)
    assert isinstance(model, Model)
    assert (model.family, model.variant) == ("flux2", variant)


def test_qwen_image_is_larger(folder: Path, tmp_path: Path) -> None:
    """Its card recommends 1328 x 1328."""
    _index(
        _class_name="QwenImagePipeline",
        transformer=["diffusers", "QwenImageTransformer2DModel"],
        vae=["diffusers", "AutoencoderKLQwenImage"],
        text_encoder=["transformers", "Qwen2_5_VLForConditionalGeneration"],
        tokenizer=["transformers", "Qwen2Tokenizer"],
    )(folder)
    model = found_in(tmp_path)
    assert isinstance(model, Model)
    assert (model.family, model.variant, model.native_size) == ("qwen_image", "", 1328)


KREA2: dict[str, Any] = {
    "_class_name": "Krea2Pipeline",
    "transformer": ["diffusers", "Krea2Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage"],
    "text_encoder": ["transformers", "Qwen3VLModel"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "text_encoder_select_layers": [2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35],
}


def test_krea_2_is_told_by_its_index(folder: Path, tmp_path: Path) -> None:
    """Only what it was trained with is read: other layers of the encoder are refused."""
    for distilled, variant in ((True, "Turbo"), (False, "Raw")):
        _index(**KREA2, is_distilled=distilled)(folder)
        model = found_in(tmp_path)
        assert isinstance(model, Model)
        assert (model.family, model.variant) == ("krea2", variant)
    _index(**{**KREA2, "text_encoder_select_layers": [1, 2]})(folder)
    refused = found_in(tmp_path)
    assert isinstance(refused, Refused)
    assert refused.reason.startswith(
        "FLUX.1-dev cannot be used: model_index.json says text_encoder_select_layers: [1, 2]; "
        "only [2, 5, 8,"
    )


def test_krea_is_told_by_its_name(folder: Path, tmp_path: Path) -> None:
    """Its weights have the shapes of dev; schnell stays schnell."""
    folder.rename(folder.with_name("FLUX.1-Krea-dev"))
    assert getattr(found_in(tmp_path), "variant", "") == "Krea"
    config = folder.with_name("FLUX.1-Krea-dev") / "transformer/config.json"
    config.write_text('{"guidance_embeds": false}')
    assert getattr(found_in(tmp_path), "variant", "") == "schnell"


@pytest.mark.parametrize(
    ("name", "transformer", "variant"),
    [
        ("sd3", {"num_layers": 24, "pos_embed_max_size": 192}, "3 Medium"),
        ("sd3.5", {"num_layers": 24, "pos_embed_max_size": 384}, "3.5 Medium"),
        ("large", {"num_layers": 38, "pos_embed_max_size": 192}, "3.5 Large"),
        ("Large-Turbo", {"num_layers": 38, "pos_embed_max_size": 192}, "3.5 Large Turbo"),
    ],
)
def test_variants_of_stable_diffusion_3(
    tmp_path: Path, name: str, transformer: dict[str, Any], variant: str
) -> None:
    """By the transformer's config; which Large is Turbo only the name says."""
    write_folder(tmp_path, name, SD3, transformer)
    model = found_in(tmp_path)
    assert isinstance(model, Model)
    assert (model.family, model.variant) == ("sd3", variant)


def test_an_optional_text_encoder_may_be_null(tmp_path: Path) -> None:
    """Then its tokenizer is not read; a folder that is only missing could be a broken download."""
    without = SD3 | {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    folder = write_folder(tmp_path, "sd3", without, {"num_layers": 24})
    assert isinstance(found_in(tmp_path), Model)
    (folder / "model_index.json").write_text(json.dumps(SD3))
    refused = found_in(tmp_path)
    assert isinstance(refused, Refused)
    assert refused.reason == (
        "sd3 is a diffusers folder without text_encoder_3/: copy the whole folder, or write "
        "[null, null] for it in model_index.json."
    )


SANA = {
    "_class_name": "SanaPipeline",
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "transformer": ["diffusers", "SanaTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderDC"],
    "text_encoder": ["transformers", "Gemma2Model"],
    "tokenizer": ["transformers", "GemmaTokenizerFast"],
}


@pytest.mark.parametrize(
    ("sample_size", "native"), [(16, 512), (32, 1024), (128, 2048), ("many", 1024), (-3, 1024)]
)
def test_the_native_size_is_that_of_the_transformer(
    tmp_path: Path, sample_size: object, native: int
) -> None:
    """Where a pipeline has transformers of several; no more than a recipe can say."""
    write_folder(tmp_path, "sana", SANA, {"sample_size": sample_size})
    assert getattr(found_in(tmp_path), "native_size", 0) == native


def _without(part: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(folder / part)


def _index(**changed: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / "model_index.json").write_text(json.dumps(FLUX | changed))


def _config(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "text_encoder_2/config.json").write_text(text)


def _schedule(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "scheduler/scheduler_config.json").write_text(text)


def _no_vocabulary(folder: Path) -> None:
    (folder / "tokenizer_2/tokenizer.json").unlink()


def _one_shard_of_two(folder: Path) -> None:
    part = folder / "text_encoder_2"
    (part / "model.safetensors").rename(part / "model-00001-of-00002.safetensors")


def _pickles(folder: Path) -> None:
    part = folder / "transformer"
    (part / "model.safetensors").rename(part / "model.bin")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without("vae"), "is a diffusers folder without vae/: copy the whole folder."),
        (
            _index(transformer=["my_code", "MyTransformer"]),
            "is a diffusers folder whose transformer is MyTransformer, not "
            "FluxTransformer2DModel: not supported.",
        ),
        (
            _index(text_encoder_2=[None, None]),
            "is a diffusers folder whose text_encoder_2 is None, not T5EncoderModel: "
            "not supported.",
        ),
        (
            _config('{"num_layers": 100000}'),
            "cannot be used: text_encoder_2/config.json says num_layers: 100000; the limit is 200.",
        ),
        (
            _config('{"quantization_config": {"quant_method": "bitsandbytes"}}'),
            "is quantised (quantization_config): not supported. Get it in bfloat16.",
        ),
        (
            _config(json.dumps({"dim_mult": [1] * 2000})),
            "cannot be used: text_encoder_2/config.json says dim_mult with 2,000 entries; the "
            "limit is 1,000.",
        ),
        (
            _schedule('{"num_train_timesteps": 100000000}'),
            "cannot be used: scheduler/scheduler_config.json says num_train_timesteps: 100000000; "
            "the limit is 10,000.",
        ),
        (
            _no_vocabulary,
            "is a diffusers folder without a vocabulary in tokenizer_2/ (tokenizer.json, or "
            "vocab.json, or spiece.model): copy the whole folder.",
        ),
        (
            _one_shard_of_two,
            "is incomplete: text_encoder_2/ has 1 of 2 files of weights. Download the rest.",
        ),
        (
            _pickles,
            "has its weights in transformer/ only as pickle files (.bin), which can run code: "
            "get the folder's .safetensors files instead, or convert them with `picowatch "
            "convert`, which runs none.",
        ),
    ],
)
def test_what_is_missing_or_not_allowed_is_said(
    folder: Path, tmp_path: Path, change: Callable[[Path], object], reason: str
) -> None:
    """Before anything is loaded."""
    change(folder)
    refused = found_in(tmp_path)
    assert isinstance(refused, Refused)
    assert refused.reason == f"FLUX.1-dev {reason}"


def test_everything_that_is_read_counts_for_the_hash(folder: Path, tmp_path: Path) -> None:
    """Vocabularies and templates without .json, too."""
    catalog = Catalog(tmp_path)
    hashes = {catalog.sha256(catalog.find("checkpoint", "FLUX.1-dev"))}
    for name in (
        "tokenizer_2/spiece.model",
        "tokenizer/chat_template.jinja",
        "tokenizer/merges.txt",
        "transformer/config.json",
        "scheduler/scheduler_config.json",
    ):
        (folder / name).write_text('{"changed": true}')
        hashes.add(catalog.sha256(catalog.find("checkpoint", "FLUX.1-dev")))
    assert len(hashes) == 6
