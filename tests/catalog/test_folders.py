"""Diffusers folders: recognised by their indexes and configs, refused in words."""

import json
import shutil
from math import prod
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog
from picowatch.catalog.encoders import families_of
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES
from tests.catalog.files import Shapes, found_in, header, refused_in, write_model
from tests.catalog.shapes import controlnet, diffusers_controlnet, tiny_vae

Config = dict[str, Any]  # or an index of configs


def index_of(family: str) -> Config:
    """The index of a family's folder, without the part that only editing needs."""
    row = FAMILIES[family]
    parts = {part: ["a library", classes[0]] for part, classes in row.parts.items()}
    parts.pop("processor", None)
    return {"_class_name": row.pipelines.text} | parts


FLUX, SD3, KLEIN, KREA2 = map(index_of, ("flux", "sd3", "flux2", "krea2"))
QWEN, SD1, SDXL = map(index_of, ("qwen_image", "sd1", "sdxl"))
SDXL_UNET = {
    "in_channels": 4,
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": [1, 2, 10],
    "projection_class_embeddings_input_dim": 2816,
}
SD1_UNET = {"in_channels": 4, "sample_size": 64, "cross_attention_dim": 768}


def write_folder(models: Path, name: str, index: Config, **configs: Any) -> Path:
    """A folder of the parts of an index, with weights of one tensor."""
    folder = models / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    for part, entry in index.items():
        if not isinstance(entry, list) or entry == [None, None] or part.endswith("_layers"):
            continue
        (folder / part).mkdir()
        if part.startswith("tokenizer"):
            (folder / part / "tokenizer.json").write_text("{}")
            continue
        kind = "scheduler_config" if part == "scheduler" else "config"
        (folder / part / f"{kind}.json").write_text(json.dumps(configs.get(part, {})))
        if part != "scheduler":
            write_model(folder / part / "model.safetensors", {"a": (2, 2)})
    return folder


LARGE = {"num_layers": 38, "pos_embed_max_size": 192}
DISTILLED, WIDE = {"is_distilled": True}, "joint_attention_dim"
SAVED_FOR_IMAGES = FLUX | {"_class_name": "FluxImg2ImgPipeline"}
WITHOUT_T5 = SD3 | {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
INFINITE = {"lambda_min_clipped": float("-inf")}  # diffusers writes it for its DPM++ schedulers
# The folder's name, its index, the transformer's config; then family, variant and native size.
FLOWS: list[tuple[str, Config, Config, tuple[str, str, int]]] = [
    ("FLUX.1-Krea-dev", FLUX, {"guidance_embeds": True}, ("flux", "Krea", 1024)),
    ("Krea", FLUX, {"guidance_embeds": False}, ("flux", "schnell", 1024)),
    ("flux", SAVED_FOR_IMAGES, {}, ("flux", "schnell", 1024)),
    ("klein", KLEIN | DISTILLED, {WIDE: 7680}, ("flux2", "klein 4B", 1024)),
    ("large", SD3, LARGE, ("sd3", "3.5 Large", 1024)),
    ("sd3", WITHOUT_T5, {}, ("sd3", "3 Medium", 1024)),
]


@pytest.mark.parametrize(("name", "index", "transformer", "expected"), FLOWS)
def test_a_folder_with_a_transformer_is_recognised(
    tmp_path: Path, name: str, index: Config, transformer: Config, expected: tuple[str, str, int]
) -> None:
    write_folder(tmp_path, name, index, transformer=transformer, scheduler=INFINITE)
    model = found_in(tmp_path)
    assert (model.family, model.variant, model.native_size) == expected
    assert (model.name, model.kind) == (name, "checkpoint")


INPAINT = SD1 | {"_class_name": "StableDiffusionInpaintPipeline"}
SD2_UNET = SD1_UNET | {"sample_size": 96, "cross_attention_dim": 1024}
V_PREDICTION = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
UNETS: list[tuple[Config, Config, Config, tuple[Any, ...]]] = [
    (SD1, SD2_UNET, {}, ("sd2", 768, 4, "", False)),
    (INPAINT, SD1_UNET | {"in_channels": 9}, {}, ("sd1", 512, 9, "", False)),
    (SDXL, SDXL_UNET, V_PREDICTION, ("sdxl", 1024, 4, "v_prediction", True)),
]


@pytest.mark.parametrize(("index", "unet", "schedule", "expected"), UNETS)
def test_a_folder_with_a_unet_is_recognised(
    tmp_path: Path, index: Config, unet: Config, schedule: Config, expected: tuple[Any, ...]
) -> None:
    """By the UNet's config; the scheduler's says what is predicted."""
    write_folder(tmp_path, "it", index, unet=unet, scheduler=schedule)
    model = found_in(tmp_path)
    found = model.family, model.native_size, model.in_channels, model.prediction, model.zero_snr
    assert found == expected
    assert model.text_layers == 12  # what transformers has where the config does not say


Changes = dict[str, Any]  # configs or bytes by path; None where something is deleted


def change(folder: Path, changes: Changes) -> None:
    for name, content in changes.items():
        path = folder / name
        if content is None:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(content))


def another_unet(index: Config, **values: Any) -> tuple[Config, Changes, str]:
    """A row of a UNet with another number than those that are known."""
    usual = SDXL_UNET if index is SDXL else SD1_UNET
    said = "".join(f"its {key} is {value}." for key, value in values.items())
    words = f"it is a diffusers folder with a UNet that picowatch does not know: {said}"
    return index, {"unet/config.json": usual | values}, words


SDNQ: Config = {"quant_method": "sdnq", "weights_dtype": "uint4"}


def quantised(told: Any, words: str) -> tuple[Config, Changes, str]:
    start = "is quantised (quantization_config) in a form that picowatch does not know: "
    return FLUX, {ENCODER: {"quantization_config": told}}, start + words


def packed_as(weight: tuple[int, ...], scale: tuple[int, ...]) -> tuple[Config, Changes, str]:
    """A row of a folder whose weights are packed in another way than SDNQ packs them."""
    types = {"a.weight": "U8", "a.scale": "F32"}
    head = header({"a.weight": weight, "a.scale": scale}, types=types)
    row, changes, words = quantised(SDNQ, "a.weight has the shape ")
    file = head + bytes(prod(weight) + 4 * prod(scale))
    return row, changes | {"text_encoder_2/model.safetensors": file}, words


ENCODER, SCHEDULE = "text_encoder_2/config.json", "scheduler/scheduler_config.json"
TEXT = "text_encoder/config.json"
LAYERS = {"text_encoder_select_layers": [1, 2]}  # Krea 2 reads twelve of its text encoder
ONE_OF_TWO = {
    "text_encoder_2/model.safetensors": None,
    "text_encoder_2/model-00001-of-00002.safetensors": header({}),
}
OF_TWO_DOWNLOADS = ONE_OF_TWO | {
    f"text_encoder_2/model-0000{n}-of-00003.safetensors": header({}) for n in (1, 2, 3)
}
REFINER = SDXL_UNET | {"projection_class_embeddings_input_dim": 2560}
ONLY_INDEX: Changes = {"vae/model.safetensors": None, "vae/model.safetensors.index.json": {}}
PICKLED = {"transformer/model.safetensors": None, "transformer/model.bin": b""}
CUT_OFF = {"vae/model.safetensors": header({"a": (2, 2)})[:20]}
UNFINISHED = {"vae/model.safetensors.aria2": b"abc"}
DOWNLOAD = "type `hf download black-forest-labs/FLUX.1-schnell --local-dir models/checkpoints/it`."
REFUSED: list[tuple[Config, Changes, str]] = [
    (FLUX, {"vae": None}, "without vae/: copy the whole folder."),
    (FLUX, {"transformer/config.json": None}, "incomplete: transformer/config.json is missing."),
    (FLUX, {"tokenizer_2/tokenizer.json": None}, "without a vocabulary in tokenizer_2/ (token"),
    (FLUX | {"transformer": ["my_code", "My"]}, {}, "transformer is My, not FluxTransformer2DM"),
    quantised({"quant_method": "bitsandbytes"}, "quant_method: bitsandbytes. Get it in bfloat16"),
    quantised(SDNQ | {"weights_dtype": "uint3"}, "weights_dtype: uint3"),
    quantised(SDNQ | {"modules_dtype_dict": {"float8_e4m3fn": []}}, "weights_dtype: float8_e4m3fn"),
    quantised(SDNQ | {"quant_conv": True}, "quant_conv. Get it in bfloat16."),
    quantised(SDNQ | {"hadamard_group_size": 96}, "hadamard_group_size: 96"),
    quantised(SDNQ | {"use_hadamard": True, "sdnq_version": "0.1.9"}, "use_hadamard of SDNQ 0.1.9"),
    (FLUX, {ENCODER: {"a": {"quantization_config": SDNQ}}}, "is quantised in a part"),
    packed_as((8, 5), (8, 1)),
    packed_as((32,), (8, 0)),
    (FLUX, ONE_OF_TWO, "text_encoder_2/ has 1 of 2 files of weights. Type `hf download black-"),
    (FLUX, OF_TWO_DOWNLOADS, "text_encoder_2/ has files of two downloads, …-of-00002 and …"),
    (FLUX, ONLY_INDEX, f"has only the index of the weights in vae/: {DOWNLOAD}"),
    (FLUX, dict.fromkeys(FLUX.keys() - {"_class_name"}), f"model_index.json: {DOWNLOAD}"),
    (FLUX, PICKLED, "weights in transformer/ only as pickle files"),
    (FLUX, CUT_OFF, "its file vae/model.safetensors is cut off inside its header (20 bytes)"),
    # It has its whole size and header at once; whole repositories are fetched so.
    (FLUX, UNFINISHED, "it is a diffusers folder without weights in vae/."),
    (KREA2 | LAYERS, {}, "says text_encoder_select_layers: [1, 2]; only [2,"),
    another_unet(SDXL, transformer_layers_per_block=[1, 2, 4]),  # SSD-1B
    (SDXL, {"unet/config.json": REFINER}, "is the refiner of Stable Diffusion XL: picowatch draws"),
    another_unet(SD1, in_channels=8),  # InstructPix2Pix
    # Numbers that would cost gigabytes or minutes.
    (SD1, {SCHEDULE: {"trained_betas": [0.1] * 20_000}}, f"cannot be used: {SCHEDULE} says"),
    (SD1, {TEXT: {"vocab_size": 10**9}}, "says vocab_size: 1000000000; the limit is "),
    (SD1, {"unet/config.json": {"layers_per_block": [1, 1, 10**6]}}, "; the limit is "),
]


@pytest.mark.parametrize(("index", "changes", "words"), REFUSED)
def test_what_is_missing_or_not_allowed_is_said(
    tmp_path: Path, index: Config, changes: Changes, words: str
) -> None:
    change(write_folder(tmp_path, "it", index), changes)
    assert words in refused_in(tmp_path)


# -- folders of a single part

KL = {"_class_name": "AutoencoderKL", "latent_channels": 16}
VAES: dict[str, Config] = {
    "": {"_class_name": "AutoencoderKL", "scaling_factor": 0.13025},
    "FLUX.1": KL | {"scaling_factor": 0.3611},
    "Stable Diffusion 3.x": KL | {"scaling_factor": 1.5305},
    "FLUX.2": {"_class_name": "AutoencoderKLFlux2"},
    "Qwen-Image": {"_class_name": "AutoencoderKLQwenImage", "z_dim": 16},
    "Qwen-Image 2.1": {"_class_name": "AutoencoderKLQwenImage21", "z_dim": 64},
    "tiny": {"_class_name": "AutoencoderTiny"},
}


def write_part(path: Path, config: Config, shapes: Shapes) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    return write_model(path / "diffusion_pytorch_model.safetensors", shapes)


CONTROLNET = {"_class_name": "ControlNetModel"}
DEPTH = {"model_type": "depth_anything", "backbone_config": {"model_type": "dinov2"}}
BACKBONE = {"model_type": "dinov2", "num_hidden_layers": 10**9}
UNION = diffusers_controlnet(2048, sdxl=True, kinds=6)
KNOWN_PARTS: list[tuple[str, Config, Shapes, str]] = [
    *(("vae", config, tiny_vae(4), variant) for variant, config in VAES.items()),
    ("controlnet", {"_class_name": "ControlNetUnionModel"}, UNION, "union"),
    ("depth", DEPTH, {"x": (8,)}, "Depth Anything"),
]


@pytest.mark.parametrize(("kind", "config", "shapes", "variant"), KNOWN_PARTS)
def test_a_folder_of_a_single_part_is_known_by_its_config(
    tmp_path: Path, kind: str, config: Config, shapes: Shapes, variant: str
) -> None:
    """Named as the folder; weights for training do not count."""
    path = write_part(tmp_path / kind / "it", config, shapes)
    write_model(path.with_suffix(".non_ema.safetensors"), shapes)
    found = found_in(tmp_path)
    assert (found.kind, found.name, found.variant) == (kind, "it", variant)
    if kind == "vae":
        assert Catalog(tmp_path).inventory().vae_families == {"it": families_of(variant)}


QWEN_VAE, WAN = VAES["Qwen-Image"], {"_class_name": "AutoencoderKLWan"}
PARTS: list[tuple[str, Config, Shapes, str]] = [
    ("vae", WAN, tiny_vae(4), "is not the folder of a VAE that picowatch knows (_class_name: Aut"),
    ("vae", QWEN_VAE | {"base_dim": 10**9}, tiny_vae(4), "config.json says base_dim: 1000000000"),
    ("controlnet", {"_class_name": "Flux"}, diffusers_controlnet(768), "but not of a ControlNet"),
    ("controlnet", CONTROLNET, controlnet(4096), "is not a ControlNet that picowatch knows: "),
    ("depth", {"model_type": "dpt"}, {"x": (8,)}, "is the folder of another model (dpt)"),
    ("depth", DEPTH | {"backbone_config": {"model_type": "swin"}}, {"x": (8,)}, "inside (swin)"),
    ("depth", DEPTH | {"backbone_config": {"hidden_size": 384}}, {"x": (8,)}, "without a known"),
    ("depth", DEPTH | {"backbone_config": BACKBONE}, {"x": (8,)}, "says num_hidden_layers: 1000"),
]


@pytest.mark.parametrize(("kind", "config", "shapes", "words"), PARTS)
def test_a_folder_of_another_part_is_refused(
    tmp_path: Path, kind: str, config: Config, shapes: Shapes, words: str
) -> None:
    write_part(tmp_path / kind / "it", config, shapes)
    assert words in refused_in(tmp_path)


# -- strange folders


@pytest.mark.timeout(60)  # else it hangs
@pytest.mark.parametrize("name", ["tokenizer/tokenizer.json", "vae/config.json"])
def test_what_has_no_end_is_refused_unread(tmp_path: Path, name: str) -> None:
    """Reading a pipe or a device would never end; hashing checks again."""
    folder = write_folder(tmp_path, "it", SD1, unet=SD1_UNET)
    model = found_in(tmp_path)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ModelRefused, match="not a regular file"):
        Catalog(tmp_path).sha256(model)
    assert f"{name} is not a regular file" in refused_in(tmp_path)


def test_links_that_cannot_be_followed_refuse_themselves_alone(tmp_path: Path) -> None:
    """A disk that is away, a target that is too long, and a link to itself."""
    folder = write_folder(tmp_path, "it", SD1, unet=SD1_UNET)
    (folder.parent / "long.safetensors").symlink_to("x" * 300)
    (folder.parent / "deep").symlink_to("y" * 300)
    (folder.parent / "disk").symlink_to(tmp_path / "away")
    (folder.parent / "loop.safetensors").symlink_to("loop.safetensors")
    (tmp_path / "vae").symlink_to("vae")
    found = Catalog(tmp_path).scan()
    assert [model.name for model in found.models] == ["it"]
    nowhere = {entry.name for entry in found.refused if "link leads nowhere" in entry.reason}
    assert {"deep", "disk", "long.safetensors"} <= nowhere
    expected = {"deep", "disk", "long.safetensors", "loop.safetensors", "vae"}
    assert {refused.name for refused in found.refused} == expected
