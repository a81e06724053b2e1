"""Text encoders and VAEs in files of their own complete a transformer's file."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from picowatch.engine.pipelines.transformer import fitting_config

from picowatch.catalog import Catalog
from picowatch.catalog.headers import Header
from picowatch.catalog.text_encoders import ENCODERS
from picowatch.catalog.transformer_files import ASSETS
from picowatch.errors import ModelRefused
from tests.catalog.files import Shapes
from tests.catalog.test_families import Z_IMAGE as Z_IMAGE_SHAPES
from tests.catalog.test_families import flux, flux2, sd3
from tests.engine.test_flows import pytestmark as pytestmark
from tests.engine.pipelines.test_transformer_files import FLUX, Z_IMAGE, fp8, rendered, same
from tests.engine.tiny_flows import tiny_flow
from tests.engine.transformer_files import Tensors, weights_of, write

_D: Any = diffusers
_T: Any = transformers
# Where the package has what a tiny folder has.
CONFIGS = {
    FLUX: {
        "transformer": "flux/transformer",
        "vae": "flux/vae",
        "scheduler": "flux/dev/scheduler",
        "text_encoder": "sd15/text_encoder",
        "tokenizer": "sd15/tokenizer",
        "text_encoder_2": "t5/text_encoder",
        "tokenizer_2": "t5/tokenizer",
    },
    Z_IMAGE: {
        "transformer": "z_image/transformer",
        "scheduler": "z_image/turbo/scheduler",
        "text_encoder": "qwen3/text_encoder",
        "tokenizer": "qwen3/tokenizer",
    },
}


def encoder(folder: str, part: str, kind: Any) -> Tensors:
    return dict(kind.from_pretrained(tiny_flow(folder), subfolder=part).state_dict())


def clip() -> Tensors:
    """As it is shared: all below text_model."""
    return {f"text_model.{name}": tensor for name, tensor in _bare_clip().items()}


def _bare_clip() -> Tensors:
    state = encoder(FLUX, "text_encoder", _T.CLIPTextModel)
    return {name.removeprefix("text_model."): tensor for name, tensor in state.items()}


def t5() -> Tensors:
    """Without the second name of its embeddings."""
    state = encoder(FLUX, "text_encoder_2", _T.T5EncoderModel)
    return {name: tensor for name, tensor in state.items() if "embed_tokens" not in name}


def qwen() -> Tensors:
    state = encoder(Z_IMAGE, "text_encoder", _T.Qwen3Model)
    return {f"model.{name}": tensor for name, tensor in state.items()}


def vae() -> Tensors:
    return encoder(FLUX, "vae", _D.AutoencoderKL)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder, and a package that describes tiny models."""
    assets = tmp_path / "assets"
    for folder, places in CONFIGS.items():
        for part, place in places.items():
            without_weights = shutil.ignore_patterns("*.safetensors")
            shutil.copytree(tiny_flow(folder) / part, assets / place, ignore=without_weights)
    monkeypatch.setattr("picowatch.catalog.transformer_files.ASSETS", assets)
    for name, tensors in {"CLIP L": clip(), "T5 XXL": t5(), "Qwen3 4B": qwen()}.items():
        full = ENCODERS[name]
        shape = tuple(tensors[full.tensor].shape)
        monkeypatch.setitem(ENCODERS, name, full._replace(shape=shape))
    return tmp_path / "models"


def add_all(models: Path, folder: str) -> None:
    """The transformer and all that completes it."""
    write(models / "checkpoints/mine-turbo.safetensors", weights_of(folder))
    write(models / "vae/ae.safetensors", vae())
    if folder == FLUX:
        write(models / "text_encoders/clip_l.safetensors", clip())
        write(models / "text_encoders/t5xxl_fp16.safetensors", t5())
    else:
        write(models / "clip/qwen_3_4b.safetensors", qwen())


def whole(models: Path, folder: str) -> Any:
    """The picture of the whole folder."""
    link = models.parent / "whole/checkpoints" / folder
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tiny_flow(folder))
    return rendered(link.parent.parent, folder)


@pytest.mark.parametrize("folder", [FLUX, Z_IMAGE])
def test_files_alone_render_what_the_whole_folder_renders(models: Path, folder: str) -> None:
    """With the package's configs and vocabularies."""
    add_all(models, folder)
    if folder == Z_IMAGE:  # each tiny folder has a VAE of its own
        write(models / "vae/ae.safetensors", encoder(folder, "vae", _D.AutoencoderKL))
    assert same(rendered(models, "mine-turbo"), whole(models, folder))


CHANGED: dict[str, Callable[[], Tensors]] = {
    "checkpoints/mine-turbo": lambda: weights_of(FLUX),
    "text_encoders/clip_l": clip,
    "text_encoders/t5xxl_fp16": t5,
    "vae/ae": vae,
}


@pytest.mark.parametrize("file", CHANGED)
def test_each_file_changes_the_picture_and_the_hash(models: Path, file: str) -> None:
    """A request is for these files and no others."""
    add_all(models, FLUX)
    before, picture = digest(models), rendered(models, "mine-turbo")
    tensors = {name: tensor * 1.1 for name, tensor in CHANGED[file]().items()}
    write(models / f"{file}.safetensors", tensors)
    assert digest(models) != before
    assert not same(rendered(models, "mine-turbo"), picture)


def test_a_renamed_file_does_not_change_the_hash(models: Path) -> None:
    """Nor does a second encoder that is not used."""
    add_all(models, FLUX)
    before = digest(models)
    encoders = models / "text_encoders"
    (encoders / "t5xxl_fp16.safetensors").rename(encoders / "encoder.safetensors")
    write(encoders / "t5xxl_fp8.safetensors", fp8(t5()))
    write(encoders / "qwen.safetensors", qwen())
    assert digest(models) == before


def digest(models: Path) -> str:
    catalog = Catalog(models)
    return catalog.sha256(catalog.find("checkpoint", "mine-turbo"))


@pytest.mark.parametrize("scaled", ["", ".scale_weight"])
def test_an_fp8_text_encoder_is_widened(models: Path, scaled: str) -> None:
    """With its scales, if it has some."""
    add_all(models, FLUX)
    picture = rendered(models, "mine-turbo")
    narrow = fp8(t5(), scaled) | {"shared.weight": t5()["shared.weight"]}
    if scaled:
        del narrow["shared.scale_weight"]
        narrow["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    write(models / "text_encoders/t5xxl_fp16.safetensors", narrow)
    image = rendered(models, "mine-turbo")
    assert image.pixels != picture.pixels
    scales = {name.removesuffix(scaled): one for name, one in narrow.items() if "scale_w" in name}
    wide = {
        name: tensor.float() * scales.get(name.removesuffix(".weight"), torch.ones(()))
        for name, tensor in narrow.items()
        if name.endswith(".weight")
    }
    write(models / "text_encoders/t5xxl_fp16.safetensors", wide)
    assert image.pixels == rendered(models, "mine-turbo").pixels


MISSING = {
    "text_encoders/clip_l": "CLIP L (such as clip_l.safetensors) in models/text_encoders/",
    "text_encoders/t5xxl_fp16": "T5 XXL (such as t5xxl_fp16.safetensors) in models/text_encoders/",
    "vae/ae": "a VAE with 16 latent channels (such as ae.safetensors) in models/vae/",
}


@pytest.mark.parametrize("file", MISSING)
def test_each_missing_file_is_named_with_its_place(models: Path, file: str) -> None:
    """And no other; a diffusers folder would do as well."""
    add_all(models, FLUX)
    (models / f"{file}.safetensors").unlink()
    with pytest.raises(ModelRefused) as refused:
        Catalog(models).find("checkpoint", "mine-turbo")
    assert refused.value.message == (
        "mine-turbo.safetensors is only the transformer of FLUX.1 (dev), without text encoders, "
        f"tokenizers and VAE. It also needs {MISSING[file]}; or a diffusers folder of FLUX.1 "
        "(such as black-forest-labs/FLUX.1-dev) in models/checkpoints/, which lends its own."
    )


def numbers(kind: Any, config: Any) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes of a full-size model's tensors, and how many numbers it has."""
    with torch.device("meta"):
        model = kind.from_config(config) if isinstance(config, dict) else kind(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return shapes, sum(parameter.numel() for parameter in model.parameters())


def config_of(place: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ASSETS / place / "config.json").read_text())
    return found


@pytest.mark.parametrize("variant", ["dev", "schnell", "Fill"])
def test_the_packages_flux_has_the_shapes_of_its_files(variant: str) -> None:
    """12 billion parameters, as its card says."""
    header = flux(384 if variant == "Fill" else 64, guided=variant != "schnell")
    config = fitting_config("flux", variant, config_of("flux/transformer"), Header(header, {}), "")
    shapes, count = numbers(_D.FluxTransformer2DModel, config)
    assert shapes["x_embedder.weight"] == header["img_in.weight"]
    guided = "time_text_embed.guidance_embedder.linear_1.weight" in shapes
    assert guided == ("guidance_in.in_layer.weight" in header)
    assert round(count / 1e9, 1) == 11.9


Numbers = tuple[Shapes, float]


def mmdit(positions: int, width: int, depth: int, *, normed: bool, dual: int = 0) -> Shapes:
    """With what SD 3.5 has and 3 has not."""
    block = "joint_blocks.0.x_block.attn.ln_q.weight"
    second = {f"joint_blocks.{index}.x_block.attn2.qkv.bias": (1,) for index in range(dual)}
    return sd3(positions, width, depth) | ({block: (64,)} if normed else {}) | second


SD3_SIZES: dict[str, Numbers] = {
    "3 Medium": (mmdit(36864, 1536, 24, normed=False), 2.1),
    "3.5 Medium": (mmdit(147456, 1536, 24, normed=True, dual=13), 2.5),
    "3.5 Large": (mmdit(36864, 2432, 38, normed=True), 8.1),
}


@pytest.mark.parametrize("variant", SD3_SIZES)
def test_a_full_size_sd3_is_made_as_its_file_says(variant: str) -> None:
    """With as many billions of numbers as its card says, the table of positions included."""
    header, billions = SD3_SIZES[variant]
    config = fitting_config("sd3", variant, config_of("sd3/transformer"), Header(header, {}), "")
    shapes, count = numbers(_D.SD3Transformer2DModel, config)
    positions = shapes["pos_embed.pos_embed"]
    assert positions == header["pos_embed"]
    assert round((count + math.prod(positions)) / 1e9, 1) == billions


@pytest.mark.parametrize(
    ("text", "width", "double", "single", "billions"),
    [(7680, 3072, 5, 20, 3.9), (12288, 4096, 8, 24, 9.1)],
)
def test_a_full_size_klein_is_made_as_its_file_says(
    text: int, width: int, double: int, single: int, billions: float
) -> None:
    """4 and 9 billion parameters."""
    header = flux2(text) | {
        "img_in.weight": (width, 128),
        **{f"double_blocks.{index}.img_mlp.0.weight": (1,) for index in range(double)},
        **{f"single_blocks.{index}.linear1.weight": (1,) for index in range(single)},
    }
    config = fitting_config("flux2", "", config_of("flux2/transformer"), Header(header, {}), "")
    shapes, count = numbers(_D.Flux2Transformer2DModel, config)
    assert shapes["context_embedder.weight"] == (width, text)
    assert round(count / 1e9, 1) == billions


def test_the_packages_z_image_has_the_shapes_of_its_files() -> None:
    """6 billion parameters, as its card says."""
    shapes, count = numbers(_D.ZImageTransformer2DModel, config_of("z_image/transformer"))
    for name in Z_IMAGE_SHAPES.keys() & shapes.keys():
        assert shapes[name] == Z_IMAGE_SHAPES[name]
    assert round(count / 1e9, 1) == 6.2


@pytest.mark.parametrize(
    ("place", "kind", "name", "billions"),
    [
        ("sd15", _T.CLIPTextModel, "CLIP L", 0.1),
        ("t5", _T.T5EncoderModel, "T5 XXL", 4.8),
        ("qwen3", _T.Qwen3Model, "Qwen3 4B", 4.0),
        ("sdxl/text_encoder_2", _T.CLIPTextModelWithProjection, "CLIP G", 0.7),
        ("qwen3/text_encoder_8b", _T.Qwen3Model, "Qwen3 8B", 7.6),
    ],
)
def test_the_packages_text_encoders_have_the_shapes_of_their_files(
    place: str, kind: Any, name: str, billions: float
) -> None:
    """Those by which the files are recognised."""
    folder = ASSETS / place if "/" in place else ASSETS / place / "text_encoder"
    config = kind.config_class.from_pretrained(folder)
    shapes, count = numbers(kind, config)
    tensor = ENCODERS[name].tensor.removeprefix("model.")
    if tensor not in shapes:
        tensor = tensor.removeprefix("text_model.")
    assert shapes[tensor] == ENCODERS[name].shape
    assert round(count / 1e9, 1) == billions


def test_the_packages_vocabularies_are_those_of_the_models() -> None:
    """Numbers of words as their authors' tokenizers give them."""
    t5_words = _T.T5Tokenizer.from_pretrained(ASSETS / "t5/tokenizer")
    assert t5_words("The house is wonderful.").input_ids == [37, 629, 19, 1627, 5, 1]
    qwen_words = _T.Qwen2Tokenizer.from_pretrained(ASSETS / "qwen3/tokenizer")
    assert qwen_words("a red cube").input_ids == [64, 2518, 23739]
    asked = [{"role": "user", "content": "a red cube"}]
    assert qwen_words.apply_chat_template(
        asked, tokenize=False, add_generation_prompt=True, enable_thinking=True
    ) == ("<|im_start|>user\na red cube<|im_end|>\n<|im_start|>assistant\n")


def test_encoders_and_vaes_in_the_wrong_folder_are_told_the_right_one(models: Path) -> None:
    """Instead of being ignored."""
    write(models / "checkpoints/clip_l.safetensors", clip())
    write(models / "text_encoders/ae.safetensors", vae())
    reasons = {one.name: one.reason for one in Catalog(models).scan().refused}
    assert reasons == {
        "clip_l.safetensors": "clip_l.safetensors is a text encoder, not a checkpoint: move it to "
        "models/text_encoders/.",
        "ae.safetensors": "ae.safetensors is a VAE, not a text encoder: move it to models/vae/.",
    }


def test_of_two_vaes_a_recipe_takes_the_one_that_it_names(models: Path) -> None:
    """A folder, too, which a transformer's file is also completed by."""
    add_all(models, Z_IMAGE)
    folder = models / "vae/soft"
    torch.manual_seed(1)
    config = _D.AutoencoderKL.load_config(tiny_flow(Z_IMAGE) / "vae")
    _D.AutoencoderKL.from_config(config).save_pretrained(folder)
    soft = rendered(models, "mine-turbo", "prompt: a red cube\nvae: soft")
    assert not same(soft, rendered(models, "mine-turbo", "prompt: a red cube\nvae: ae"))
    (models / "vae/ae.safetensors").unlink()
    assert same(soft, rendered(models, "mine-turbo"))
