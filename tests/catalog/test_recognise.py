"""Single files are recognised by their headers; unknown ones are refused."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog, Kind, Model, Refused
from picowatch.catalog.encoders import serves
from picowatch.catalog.headers import Header
from picowatch.catalog.models import FOLDERS
from picowatch.catalog.recognise import recognise
from picowatch.errors import ModelRefused
from picowatch.families import DEMO_WIDTH, FAMILIES
from picowatch.families.row import Family
from tests.catalog.files import (
    CLIP_L,
    OPEN_CLIP_G,
    OPEN_CLIP_H,
    UNET,
    UNET_CROSS,
    UNET_INPUT,
    VAE,
    Shapes,
    sd2_shapes,
    sd15_shapes,
    sdxl_shapes,
    write_model,
)
from tests.catalog.shapes import (
    CHROMA,
    DIFFUSERS_FLUX,
    FLUX1_VAE,
    LUMINA,
    QWEN_IMAGE,
    VAE_AND_TEXT,
    Z_IMAGE,
    below,
    compact_shapes,
    controlnet,
    diffusers_controlnet,
    esrgan_shapes,
    flux,
    flux2,
    sd3,
    span_shapes,
    tiny_vae,
    without,
)

SD1, SD2, SDXL = sd15_shapes(), sd2_shapes(), sdxl_shapes()
INPAINTING: Shapes = {UNET_INPUT: (320, 9, 3, 3)}
V_PRED: Shapes = {"v_pred": ()}


def moved(shapes: Shapes, prefix: str, other: str) -> Shapes:
    return {
        other + name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def look_at(
    models: Path, shapes: Shapes, kind: Kind = "checkpoint", name: str = "it"
) -> Model | Refused:
    path = write_model(models / FOLDERS[kind] / f"{name}.safetensors", shapes)
    found = Catalog(models).scan()
    everything: list[Model | Refused] = [*found.models, *found.refused]
    return next(entry for entry in everything if entry.path == path)


SAYS = "modelspec.prediction_type"
MERGED = without(SD1, "cond_stage_model.") | {
    "cond_stage_model.transformer.final_layer_norm.weight": (768,)
}
SMALL_SDXL: Shapes = {
    UNET_INPUT: (32, 4, 3, 3),
    f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (64, 80),
    f"{UNET}label_emb.0.0.weight": (128, 96),
    f"{CLIP_L}final_layer_norm.bias": (32,),
    f"{OPEN_CLIP_G}ln_final.bias": (48,),
    "first_stage_model.decoder.conv_in.weight": (64, 4, 3, 3),
}
STABILITYS = "conditioner.embedders.0.model."
V, SNR = {"prediction": "v_prediction"}, {"zero_snr": True}
BASE = {"native_size": 512}
# Family, shapes, metadata, and what is different from a model as it came out.
UNET_FILES: list[tuple[str, Shapes, dict[str, str], dict[str, Any]]] = [
    ("sd1", SD1, {}, {}),
    ("sd1", SD1 | INPAINTING, {}, {"in_channels": 9}),
    ("sd1", MERGED, {}, {}),
    ("sdxl", SDXL, {}, {}),
    ("sdxl", SMALL_SDXL, {}, {}),
    # The metadata are those of the checkpoint that it was trained from.
    ("sdxl", SDXL | V_PRED | {"ztsnr": ()}, {SAYS: "epsilon"}, V | SNR),
    ("sdxl", SDXL, {SAYS: "v"}, V),
    ("sdxl", SDXL, {"modelspec.predict_key": "epsilon"}, {"prediction": "epsilon"}),
    ("sd2", SD2, {}, {}),
    ("sd2", without(SD2, OPEN_CLIP_H) | moved(SD2, OPEN_CLIP_H, STABILITYS), {}, {}),
    ("sd2", SD2, {SAYS: "epsilon"}, {"prediction": "epsilon"} | BASE),
    ("sd2", SD2 | INPAINTING, {}, {"in_channels": 9} | BASE),
]


@pytest.mark.parametrize(("family", "shapes", "metadata", "more"), UNET_FILES)
def test_a_checkpoint_with_a_unet_is_recognised(
    family: str, shapes: Shapes, metadata: dict[str, str], more: dict[str, Any]
) -> None:
    """Family, native size, inputs, layers for clip_skip and prediction, without a weight."""
    size, layers = {"sd1": (512, 12), "sd2": (768, 23), "sdxl": (1024, 12)}[family]
    usual = {"native_size": size, "in_channels": 4, "text_layers": layers}
    expected = usual | {"prediction": "", "zero_snr": False, "family": family} | more
    found = asdict(recognise(Header(shapes, metadata)))
    assert {name: found[name] for name in expected} == expected


ANIMA: Shapes = {
    "llm_adapter.blocks.0.cross_attn.q_proj.weight": (1024, 1024),
    "blocks.0.mlp.layer1.weight": (8192, 2048),
}
# A file's name, family, variant, whether its name alone says that, and shapes.
TRANSFORMERS: list[tuple[str, str, str, bool, Shapes]] = [
    ("flux1-dev", "flux", "dev", True, flux()),
    ("flux1-dev-kontext_fp8", "flux", "Kontext", True, flux()),
    ("flux1-fill-dev", "flux", "Fill", False, flux(384)),
    ("flux1-prefixed", "flux", "dev", True, below(UNET, DIFFUSERS_FLUX)),
    ("z_image", "z_image", "Base", True, below(UNET, Z_IMAGE) | VAE_AND_TEXT),
    ("sd3_medium", "sd3", "3 Medium", False, below(UNET, sd3(36864))),
    ("sd3.5_large_turbo", "sd3", "3.5 Large Turbo", True, sd3(36864, 38)),
    ("flux2-dev", "flux2_dev", "", False, below(UNET, flux2(15360))),
    ("flux-2-klein-base-4b", "flux2", "klein base 4B", True, flux2(7680)),
    ("flux-2-klein-9b", "flux2", "klein 9B", True, below(UNET, flux2(12288))),
    ("krea2_raw", "krea2", "Raw", True, {"txtfusion.projector.weight": (1, 12)}),
    ("qwen_image_edit_fp8", "qwen_image", "Edit", True, QWEN_IMAGE),
    ("any", "qwen_image", "Edit 2511", False, QWEN_IMAGE | {"__index_timestep_zero__": (1,)}),
    ("ernie-turbo", "ernie_image", "Turbo", True, {"layers.0.adaLN_sa_ln.weight": (4096,)}),
    ("anima-base-v1.0", "anima", "", True, below("net.", ANIMA)),
    ("any-aesthetic", "anima", "Aesthetic", True, below(f"{UNET}net.", ANIMA) | VAE_AND_TEXT),
]


@pytest.mark.parametrize(("name", "family", "variant", "by_name", "shapes"), TRANSFORMERS)
def test_a_transformer_says_its_family_and_variant(
    tmp_path: Path, name: str, family: str, variant: str, *, by_name: bool, shapes: Shapes
) -> None:
    """The variant by the header, or by the file's name if that alone says it."""
    found = look_at(tmp_path, shapes, name=name)
    assert isinstance(found, Model)
    assert (found.family, found.variant, found.by_name) == (family, variant, by_name)
    assert found.native_size == (1328 if family == "qwen_image" else 1024)


SIXTEEN = "16 latent channels"
WAN_VAE: Shapes = {
    "encoder.conv1.weight": (96, 3, 3, 3, 3),
    "decoder.conv1.weight": (384, 16, 3, 3, 3),
}
QWEN21_VAE: Shapes = {
    "encoder.conv_in.weight": (96, 4, 3, 3, 3),
    "decoder.conv_in.weight": (1152, 64, 3, 3, 3),
}
FLUX2_VAE: Shapes = {
    "decoder.conv_in.weight": (512, 32, 3, 3),
    "encoder.conv_in.weight": (128, 3, 3, 3),
    "bn.running_mean": (128,),
}
SMALL = diffusers_controlnet(0, sdxl=True)
CLIP: Shapes = {"text_model.embeddings.token_embedding.weight": (49408, 768)}
WITH_CHECKPOINT = controlnet(768, prefix="control_model.") | SD1
NO_ATTENTION = diffusers_controlnet(0) | {"conv_in.weight": (64, 4, 3, 3)}
# Kind, family or scale, variant and shapes.
PARTS: list[tuple[Kind, str | int, str, Shapes]] = [
    ("vae", "", "", moved(SD1, VAE, "")),
    ("vae", "", "", moved(SD1, VAE, VAE)),
    ("vae", "", SIXTEEN, FLUX1_VAE),
    ("vae", "", "FLUX.2", FLUX2_VAE),
    ("vae", "", "Qwen-Image", WAN_VAE),
    ("vae", "", "Qwen-Image 2.1", QWEN21_VAE),
    ("vae", "", "tiny", tiny_vae(4)),
    ("vae", "", "tiny, 16 latent channels", tiny_vae(16)),
    ("text_encoder", "", "CLIP L", CLIP),
    ("controlnet", "sd1", "", controlnet(768, prefix="control_model.")),
    ("controlnet", "sd1", "", WITH_CHECKPOINT),
    ("controlnet", "sd2", "", diffusers_controlnet(1024)),
    ("controlnet", "sdxl", "", controlnet(2048, sdxl=True)),
    ("controlnet", "sdxl", "", diffusers_controlnet(2048, sdxl=True)),
    ("controlnet", "sdxl", "union", SMALL | {"task_embedding": (6, 320)}),
    ("controlnet", "sdxl", "union ProMax", SMALL | {"task_embedding": (8, 320)}),
    ("controlnet", "demo", "", diffusers_controlnet(DEMO_WIDTH)),
    ("controlnet", "demo", "", NO_ATTENTION),
    ("embedding", "sd1", "", {"emb_params": (8, 768)}),
    ("embedding", "sd1", "", {"clip_l": (4, 768)}),
    ("embedding", "sd2", "", {"<corgi>": (1, 1024)}),
    ("embedding", "sdxl", "", {"clip_l": (4, 768), "clip_g": (4, 1280)}),
    ("upscaler", 4, "ESRGAN", esrgan_shapes("old")),  # 4x-UltraSharp
    ("upscaler", 2, "ESRGAN", esrgan_shapes("trunk", doublings=1)),  # BSRGANx2
    ("upscaler", 2, "ESRGAN", esrgan_shapes("new", takes=12)),  # RealESRGAN_x2plus
    ("upscaler", 1, "ESRGAN", esrgan_shapes("old", doublings=0)),  # 1x-DeJPG
    ("upscaler", 4, "Compact", compact_shapes(4, blocks=32)),  # realesr-general-x4v3
    ("upscaler", 4, "SPAN", span_shapes(4, normalised=False)),  # ClearReality
]


@pytest.mark.parametrize(("kind", "family", "variant", "shapes"), PARTS)
def test_a_part_or_an_addition_is_recognised(
    tmp_path: Path, kind: Kind, family: str | int, variant: str, shapes: Shapes
) -> None:
    """By its layers, in whatever names they are; in another folder it is told the right one."""
    found = look_at(tmp_path, shapes, kind)
    assert isinstance(found, Model)
    told_by = found.scale if kind == "upscaler" else found.family
    assert (found.kind, told_by, found.variant) == (kind, family, variant)
    if family == "demo" and kind == "controlnet":
        assert found.text_width == DEMO_WIDTH
    refused = look_at(tmp_path, shapes, "lora")
    assert isinstance(refused, Refused)
    assert refused.reason.endswith(f"not a LoRA: move it to models/{FOLDERS[kind]}/.")


CONTROL_LORA = controlnet(2048, sdxl=True) | {"lora_controlnet": (1,)}
ONE_BLOCK = esrgan_shapes("new", blocks=1)
UNKNOWN: dict[str, Shapes] = {
    # Stable Diffusion with other inputs, layers or schedules.
    "SSD-1B": {name: shape for name, shape in SDXL.items() if ".transformer_blocks.9." not in name},
    "depth": SD2 | {UNET_INPUT: (320, 5, 3, 3)},
    "video": SD2 | {f"{UNET}input_blocks.1.1.time_stack.0.attn1.to_q.weight": (8, 8)},
    "CosXL": SDXL | V_PRED | {"edm_vpred.sigma_max": ()},
    # Transformers near those that are known.
    "HunyuanVideo": flux() | {"img_in.weight": (3072, 16, 1, 2, 2)},
    "ControlNet for FLUX.1": DIFFUSERS_FLUX | {"controlnet_x_embedder.weight": (3072, 64)},
    # VAEs.
    "Wan 2.2's VAE": WAN_VAE | {"encoder.conv1.weight": (160, 12, 3, 3, 3)},
    "Layered's VAE": QWEN21_VAE | {"decoder.conv_in.weight": (384, 16, 3, 3, 3)},
    "a tiny VAE of 32 channels": tiny_vae(32),
    "CogView4's VAE": {"decoder.conv_in.weight": (1024, 16, 3, 3)},
    "Sana's VAE": {"encoder.down_blocks.0.0.conv1.weight": (128, 128, 3, 3)},
    # What guides by other means.
    "difference": controlnet(768) | {"difference": (1,)},
    "Control-LoRA": CONTROL_LORA,
    "IP-Adapter": {"image_proj.proj.weight": (3072, 1024)},
    "maps with one channel": controlnet(768) | {"input_hint_block.0.weight": (16, 1, 3, 3)},
    "texts 4096 wide": controlnet(4096),
    "another union": SMALL | {"task_embedding": (7, 320)},
    # Upscalers.
    "ESRGAN+": ONE_BLOCK | {"body.0.rdb1.conv1x1.weight": (32, 64, 1, 1)},
    "grey": esrgan_shapes("new", blocks=1, takes=1, gives=1),
    "odd colours": esrgan_shapes("old", blocks=1, takes=7),
    "odd layers": esrgan_shapes("old", blocks=1) | {"model.11.weight": (3, 64, 3, 3)},
    "blocks beyond measure": ONE_BLOCK | {"body.4000000000.rdb1.conv1.weight": (32, 64, 3, 3)},
    "no last layer": without(compact_shapes(blocks=1), "body.4"),
    "no scale": compact_shapes(blocks=1) | {"body.4.weight": (47, 64, 3, 3)},
    # Embeddings, and everything else.
    "unequal pair": {"clip_l": (4, 768), "clip_g": (3, 1280)},
    "500 numbers": {"emb_params": (4, 500)},
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_refused_with_its_beginning(name: str) -> None:
    """The sentence lets its owner, and us, tell what it is."""
    shapes = UNKNOWN[name]
    with pytest.raises(ModelRefused) as refused:
        recognise(Header(shapes, {}))
    begin = f"is not a model that picowatch knows: its tensors begin with {next(iter(shapes))!r} "
    assert refused.value.message.startswith(begin)
    assert refused.value.message.endswith("].")


def named(*names: str) -> Shapes:
    return dict.fromkeys(names, (8, 8))


VIDEOS = "a model for videos: picowatch draws pictures."
GET = "picowatch draws it from a diffusers folder only. Get that instead."
REFINER = (
    without(SDXL, CLIP_L, OPEN_CLIP_G)
    | moved(SDXL, OPEN_CLIP_G, STABILITYS)
    | {UNET_INPUT: (384, 4, 3, 3), f"{UNET}label_emb.0.0.weight": (1536, 2560)}
    | {name: (1536, 1280) for name in SDXL if name.endswith(".attn2.to_k.weight")}
)
OMNI = Z_IMAGE | named("siglip_embedder.0.weight")
HIDREAM = named("model.t_embedder1.mlp.0.weight", "model.final_layer2.linear.weight")
# Models that are not drawn, with tensors named as in published files, and the folder to get if that
# is drawn; tests/engine/test_downloads.py has more of them.
KNOWN: list[tuple[Shapes, str]] = [
    (HIDREAM, "is HiDream-O1, which diffusers"),
    (CHROMA | named("nerf_blocks.0.norm.scale"), "is Chroma1-Radiance, which diffusers"),
    (LUMINA | {"clip_text_pooled_proj.0.weight": (1024,)}, "is NewBie, which diffusers"),
    (REFINER, "is the refiner of Stable Diffusion XL: picowatch draws with the base model"),
    (named("clf.1.weight", "clip_txt_mapper.weight"), "is the first stage of Stable Cascade"),
    (below(UNET, named("clf.1.weight", "clip_mapper.weight")), "the second stage of Stable"),
    (named("early_stream_modulations.video.lin.weight"), f"is FLUX.3, {VIDEOS}"),
    (named("genre_embedder.weight"), "is ACE-Step, a model for sound"),
    (flux(128), "is FLUX.1 Depth or Canny, of which picowatch draws no pictures."),
    (OMNI, f"Z-Image Omni (Tongyi-MAI/Z-Image-Omni-Base): {GET}"),
]
GEMMA: Shapes = {"model.embed_tokens.weight": (256000, 2304)}
NO_VAE = without(SD2, VAE)
OTHER_ENCODER = SD1 | {UNET_CROSS: (320, 1024)}
REFUSED: list[tuple[Kind, Shapes, str]] = [
    ("checkpoint", {}, "is an empty file of weights"),
    ("checkpoint", moved(SDXL, UNET, ""), f"XL without its text encoder ({CLIP_L[:35]}"),
    ("checkpoint", without(SDXL, OPEN_CLIP_G), f"its text encoder ({OPEN_CLIP_G}…): a "),
    ("checkpoint", OTHER_ENCODER, "of Stable Diffusion 2.x without its text encoder"),
    ("checkpoint", NO_VAE, "without its VAE: a complete checkpoint is needed."),
    ("text_encoder", GEMMA, "is Gemma 2 2B, a text encoder that picowatch reads from diffusers"),
    ("vae", SD1, "is a checkpoint, not a VAE: move it to models/checkpoints/."),
    ("embedding", {"emb_params": (76, 768)}, "is an embedding of 76 vectors: prompts take 75"),
    ("embedding", {"clip_l": (99, 768), "clip_g": (99, 1280)}, "is an embedding of 99 vectors"),
    *(("checkpoint", *known) for known in KNOWN),
]


@pytest.mark.parametrize(("kind", "shapes", "words"), REFUSED)
def test_what_cannot_be_used_here_says_why(
    tmp_path: Path, kind: Kind, shapes: Shapes, words: str
) -> None:
    found = look_at(tmp_path, shapes, kind)
    assert isinstance(found, Refused)
    assert words in found.reason


LAYER = "noise_refiner.0.attention.qkv"
WEIGHT, SCALE = f"{LAYER}.weight", f"{LAYER}.weight_scale"
FP8 = "F8_E4M3"
Types = dict[str, str]  # of some tensors by their names, and of all others under ""

SMOOTHED: Shapes = {WEIGHT: (8, 8), SCALE: (), f"{LAYER}.pre_quant_scale": (8,)}
SMOOTHED_FP4 = SMOOTHED | {WEIGHT: (8192, 8192), SCALE: (8192, 512), f"{SCALE}_2": ()}
BY_LAYER: Shapes = {WEIGHT: (8, 8), f"{LAYER}.scale_weight": (1,), "scaled_fp8": (2,)}
UNET_SCALE, SECOND = f"{UNET}out.2.scale_weight", f"{SCALE}_2"
PACKED = {WEIGHT: "U8", SCALE: FP8, SECOND: "F32"}
UNKNOWN_FORM = "is quantised in a form that picowatch does not know"
STORED: list[tuple[Shapes, Types, str]] = [
    (Z_IMAGE, {}, "float16"),
    (Z_IMAGE | {WEIGHT: (8, 8)}, {"": "BF16"}, "bfloat16"),
    (Z_IMAGE | {WEIGHT: (8, 8)}, {"": FP8}, "fp8"),
    (Z_IMAGE | BY_LAYER, {"": FP8, f"{LAYER}.scale_weight": "F32"}, "scaled fp8"),
    (SDXL | {UNET_SCALE: ()}, {"": FP8, UNET_SCALE: "F32"}, ""),
    (Z_IMAGE | {WEIGHT: (8192, 8192), SCALE: (8192, 512), SECOND: ()}, PACKED, "nvfp4"),
    (Z_IMAGE | SMOOTHED_FP4, PACKED | {SCALE: "U8"}, "nvfp4"),
    # NF4, Nunchaku's, mxfp8, int8 of others, with smoothed inputs: without their scales such
    # weights would be noise.
    (Z_IMAGE | {WEIGHT: (8, 8)}, {WEIGHT: "U8"}, UNKNOWN_FORM),
    (Z_IMAGE | {WEIGHT: (8, 64), SCALE: (8, 2)}, {WEIGHT: FP8, SCALE: "F8_E8M0"}, UNKNOWN_FORM),
    (Z_IMAGE | {WEIGHT: (8, 8), SCALE: ()}, {WEIGHT: "I8"}, UNKNOWN_FORM),
    (Z_IMAGE | SMOOTHED, {WEIGHT: FP8}, UNKNOWN_FORM),
]


@pytest.mark.parametrize(("shapes", "types", "expected"), STORED)
def test_how_weights_are_stored_is_told_by_the_header(
    shapes: Shapes, types: Types, expected: str
) -> None:
    """By the type of most of them; a form that the engine cannot read is refused."""
    usual = types.get("", "F16")
    header = Header(shapes, {}, {name: types.get(name, usual) for name in shapes})
    if not expected.startswith("is quantised"):
        assert recognise(header).stored == expected
        return
    with pytest.raises(ModelRefused, match=re.escape(expected)):
        recognise(header)


INT8, ROWS = {WEIGHT: "I8", SCALE: "F32"}, {WEIGHT: (8, 64), SCALE: (8, 1)}
ROTATED = {"format": "int8_tensorwise", "convrot": True}
TOLD: list[tuple[Types, dict[str, Any], str]] = [
    (INT8, {"format": "int8_tensorwise"}, "int8"),
    (INT8, {**ROTATED, "convrot_groupsize": 64}, "int8"),
    (INT8, {**ROTATED, "convrot_groupsize": 64.0}, "int8"),
    (INT8, {**ROTATED, "params": {"convrot_groupsize": 64}}, "int8"),
    (INT8, {**ROTATED, "convrot_groupsize": 32}, "int8_tensorwise"),
    (INT8, {**ROTATED, "convrot_groupsize": 0}, "int8_tensorwise"),
    (INT8, {**ROTATED, "convrot_groupsize": 1e999}, "int8_tensorwise"),
    (INT8, {"format": "int8_tensorwise", "params": {"convrot": True}}, "int8_tensorwise"),
    ({WEIGHT: FP8, SCALE: "F32"}, {**ROTATED, "format": "float8_e4m3fn"}, "float8_e4m3fn"),
    (INT8, ROTATED, "int8_tensorwise"),  # in groups of 256
    ({WEIGHT: FP8, SCALE: "U8"}, {"format": "mxfp8"}, "mxfp8"),
    ({WEIGHT: FP8, SCALE: "F32"}, {"format": "float8_e4m3fn"}, "scaled fp8"),
    ({WEIGHT: FP8, SCALE: "F32"}, {}, "None"),
]


@pytest.mark.parametrize(("types", "told", "expected"), TOLD)
def test_comfyui_tells_how_layers_are_quantised(
    types: Types, told: dict[str, Any], expected: str
) -> None:
    """What the engine does not read is refused by its format's name."""
    shapes = Z_IMAGE | ROWS
    header = Header(shapes, {}, dict.fromkeys(shapes, "F16") | types, {LAYER: told})
    if expected in ("int8", "scaled fp8"):
        assert recognise(header).family == "z_image"
        return
    with pytest.raises(ModelRefused, match=f"{UNKNOWN_FORM}: {expected} "):
        recognise(header)


@pytest.mark.parametrize("row", FAMILIES.values(), ids=lambda row: row.key)
def test_the_vaes_of_a_family_are_recognised(row: Family) -> None:
    """In a file or a folder. A tiny VAE is for the families of the one that it stands for."""
    variants = {variant for kind, _, variant, _ in PARTS if kind == "vae"}
    assert {*row.vaes} <= variants | {"FLUX.1", "Stable Diffusion 3.x"}
    assert row.vaes
    assert serves("tiny", row.key) == serves("", row.key)
    assert serves("tiny, 16 latent channels", row.key) == serves(SIXTEEN, row.key)
