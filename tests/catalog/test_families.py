"""Which family a checkpoint belongs to, by its header: those rendered, and the names of others."""

from dataclasses import replace
from pathlib import Path

import pytest

from picowatch.catalog import Catalog, Model, Refused
from picowatch.catalog.families import ONLY
from picowatch.catalog.headers import Header
from picowatch.catalog.models import Recognised
from picowatch.catalog.recognise import recognise
from tests.catalog.files import UNET, UNET_INPUT, Shapes, sd15_shapes, write_model
from tests.catalog.unets import (
    CLIP_L,
    KOALA_1B,
    KOALA_700M,
    OPEN_CLIP_G,
    OPEN_CLIP_H,
    REFINER,
    SD2,
    SDXL,
    SSD_1B,
    VEGA,
    open_clip_shapes,
    sd2_shapes,
    sdxl_shapes,
    unet_shapes,
)

SCALAR: tuple[int, ...] = ()


def without(shapes: Shapes, *prefixes: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefixes)}


def below(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def checkpoint(
    family: str, size: int, layers: int, inputs: int = 4, prediction: str = "", zero: bool = False
) -> Recognised:
    width = {"sd1": 768, "sd2": 1024, "sdxl": 2048}[family]
    return Recognised(
        "checkpoint", family, size, inputs, layers, prediction, zero, text_width=width
    )


SDXL_SHAPES = sdxl_shapes()
V_PRED: Shapes = {"v_pred": SCALAR}
RECOGNISED: dict[str, tuple[Shapes, dict[str, str], Recognised]] = {
    "SD 1.5": (sd15_shapes(), {}, checkpoint("sd1", 512, 12)),
    "SD 1.5 that says epsilon": (
        sd15_shapes(),
        {"modelspec.prediction_type": "epsilon"},
        checkpoint("sd1", 512, 12, prediction="epsilon"),
    ),
    "SDXL": (SDXL_SHAPES, {}, checkpoint("sdxl", 1024, 12)),
    "SDXL with position ids and scale": (
        SDXL_SHAPES
        | {f"{CLIP_L}embeddings.position_ids": (1, 77), f"{OPEN_CLIP_G}logit_scale": ()},
        {},
        checkpoint("sdxl", 1024, 12),
    ),
    "SDXL inpainting": (
        SDXL_SHAPES | {UNET_INPUT: (320, 9, 3, 3)},
        {},
        checkpoint("sdxl", 1024, 12, inputs=9),
    ),
    "SDXL v-prediction": (
        SDXL_SHAPES | V_PRED,
        {},
        checkpoint("sdxl", 1024, 12, prediction="v_prediction"),
    ),
    "SDXL v-prediction with zero terminal SNR": (
        SDXL_SHAPES | V_PRED | {"ztsnr": SCALAR},
        {"modelspec.prediction_type": "epsilon"},  # of the checkpoint it was trained from
        checkpoint("sdxl", 1024, 12, prediction="v_prediction", zero=True),
    ),
    "SDXL v-prediction by kohya's metadata": (
        SDXL_SHAPES,
        {"modelspec.prediction_type": "v"},
        checkpoint("sdxl", 1024, 12, prediction="v_prediction"),
    ),
    "SDXL by ComfyUI's metadata": (
        SDXL_SHAPES,
        {"modelspec.predict_key": "epsilon"},
        checkpoint("sdxl", 1024, 12, prediction="epsilon"),
    ),
    "SDXL with odd metadata": (
        SDXL_SHAPES,
        {"modelspec.prediction_type": "sample"},
        checkpoint("sdxl", 1024, 12),
    ),
    "SD 2.1": (sd2_shapes(), {}, checkpoint("sd2", 768, 23)),
    "SD 2.1 that says v": (
        sd2_shapes(),
        {"modelspec.prediction_type": "v"},
        checkpoint("sd2", 768, 23, prediction="v_prediction"),
    ),
    "SD 2.1 base": (
        sd2_shapes(),
        {"modelspec.prediction_type": "epsilon"},
        checkpoint("sd2", 512, 23, prediction="epsilon"),
    ),
    "SD 2 inpainting": (
        sd2_shapes(replace(SD2, inputs=9)),
        {},
        checkpoint("sd2", 512, 23, inputs=9),
    ),
    "SD 2.1 in Stability's names": (
        without(sd2_shapes(), OPEN_CLIP_H)
        | open_clip_shapes("conditioner.embedders.0.model.", 1024, 24),
        {},
        checkpoint("sd2", 768, 23),
    ),
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_a_checkpoint_is_recognised_by_its_header(name: str) -> None:
    """Family, native size, inputs, layers for clip_skip and prediction, without a weight."""
    shapes, metadata, expected = RECOGNISED[name]
    assert recognise(Header(shapes, metadata)) == expected


def test_the_headers_here_are_those_of_whole_checkpoints() -> None:
    """As diffusers' modules of the original sizes give them."""
    assert len(SDXL_SHAPES) == 2513
    elements = sum(_elements(shape) for shape in SDXL_SHAPES.values())
    assert 2 * elements == 6_937_675_734


def _elements(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def flux(inputs: int = 64, guided: bool = True) -> Shapes:
    """What tells FLUX.1 and its variants."""
    guidance: Shapes = {"guidance_in.in_layer.weight": (3072, 256)} if guided else {}
    return guidance | {
        "img_in.weight": (3072, inputs),
        "txt_in.weight": (3072, 4096),
        "vector_in.in_layer.weight": (3072, 768),
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
        "single_blocks.0.linear1.weight": (21504, 3072),
    }


CHROMA = without(flux(), "guidance_in.", "vector_in.") | {
    "distilled_guidance_layer.in_proj.weight": (5120, 64)
}


def flux2(text: int) -> Shapes:
    """FLUX.2 tells its size by the text encoder's width."""
    return {
        "img_in.weight": (3072, 128),
        "txt_in.weight": (3072, text),
        "double_stream_modulation_img.lin.weight": (18432, 3072),
        "single_stream_modulation.lin.weight": (9216, 3072),
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
    }


def sd3(positions: int, width: int, depth: int) -> Shapes:
    """MMDiT: SD 3 and 3.5 differ in depth and in the number of positions."""
    blocks: Shapes = {
        f"joint_blocks.{index}.x_block.mlp.fc1.weight": (4 * width, width) for index in range(depth)
    }
    return blocks | {
        "pos_embed": (1, positions, width),
        "joint_blocks.0.context_block.attn.qkv.weight": (3 * width, width),
        "joint_blocks.0.context_block.adaLN_modulation.1.bias": (6 * width,),
    }


LUMINA: Shapes = {
    "cap_embedder.0.weight": (2304,),
    "cap_embedder.1.weight": (2304, 2304),
    "noise_refiner.0.attention.k_norm.weight": (96,),
    "layers.0.adaLN_modulation.1.weight": (9216, 1024),
}
Z_IMAGE: Shapes = {
    "cap_embedder.0.weight": (2560,),
    "cap_embedder.1.weight": (3840, 2560),
    "cap_pad_token": (1, 3840),
    "noise_refiner.0.attention.k_norm.weight": (128,),
    "layers.0.adaLN_modulation.0.weight": (15360, 256),
}
QWEN_IMAGE: Shapes = {
    "img_in.weight": (3072, 64),
    "txt_norm.weight": (3584,),
    "txt_in.weight": (3072, 3584),
    "transformer_blocks.0.attn.add_k_proj.weight": (3072, 3072),
}
PIXART: Shapes = {
    "t_block.1.weight": (6912, 1152),
    "y_embedder.y_embedding": (300, 4096),
    "blocks.0.cross_attn.q_linear.weight": (1152, 1152),
}
AURA_FLOW: Shapes = {"double_layers.0.attn.w1q.weight": (3072, 3072)}
ANIMA: Shapes = {
    "x_embedder.proj.1.weight": (2048, 68),
    "blocks.0.mlp.layer1.weight": (8192, 2048),
    "llm_adapter.blocks.0.cross_attn.q_proj.weight": (1024, 1024),
}
VAE_AND_TEXT: Shapes = {
    "text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight": (4096,),
    "vae.decoder.conv_in.weight": (512, 16, 3, 3),
}

OTHER_FAMILIES: dict[str, tuple[Shapes, str]] = {
    "Chroma1-Radiance": (CHROMA | {"nerf_blocks.0.norm.scale": (64,)}, "Chroma (Radiance)"),
    "FLUX.2 dev": (below(UNET, flux2(15360)), "FLUX.2 (dev)"),
    "FLUX.3": ({"early_stream_modulations.image.lin.weight": (6, 6)}, "FLUX.3"),
    "HunyuanVideo": (
        {
            "txt_in.individual_token_refiner.blocks.0.norm1.weight": (3072,),
            "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
        },
        "HunyuanVideo",
    ),
    "NewBie": (LUMINA | {"clip_text_pooled_proj.0.weight": (1024,)}, "NewBie"),
    "Qwen-Image-Edit": (
        QWEN_IMAGE | {"__index_timestep_zero__": ()},
        "Qwen-Image (Edit)",
    ),
    "Qwen-Image 2.1": (
        {"txt_in.text_norm.weight": (4096,), "img_in.weight": (3072, 128)},
        "Qwen-Image (2.1)",
    ),
    "HiDream": ({"caption_projection.0.linear.weight": (2560, 4096)}, "HiDream"),
    "Wan": ({"head.modulation": (1, 2, 1536), "head.head.weight": (64, 1536)}, "Wan"),
    "Anima": (ANIMA, "Anima"),
    "Anima in Cosmos' names": (below("net.", ANIMA), "Anima"),
    "Anima with encoders": (below(f"{UNET}net.", ANIMA) | VAE_AND_TEXT, "Anima"),
}


def look_at(tmp_path: Path, shapes: Shapes) -> Model | Refused:
    """What the catalog says of one file in models/checkpoints/."""
    write_model(tmp_path / "checkpoints/it.safetensors", shapes)
    found = Catalog(tmp_path).scan()
    return found.models[0] if found.models else found.refused[0]


@pytest.mark.parametrize("name", OTHER_FAMILIES)
def test_a_checkpoint_of_another_family_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """With its variant, where the header tells it; with encoders, or the transformer alone."""
    shapes, family = OTHER_FAMILIES[name]
    found = look_at(tmp_path, shapes)
    assert isinstance(found, Refused)
    assert found.reason == f"it.safetensors is a checkpoint of {family}: {ONLY}"


FOLDERS_ONLY: dict[str, tuple[Shapes, str]] = {
    "HunyuanDiT": (
        {"mlp_t5.0.weight": (8192, 2048)},
        "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",
    ),
    "Ovis-Image": (
        flux() | {"double_blocks.0.img_mlp.gate_proj.weight": (8, 8), "txt_norm.weight": (8,)},
        "AIDC-AI/Ovis-Image-7B",
    ),
    "PixArt": (PIXART, "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"),
    "Sana": (
        PIXART | {"attention_y_norm.weight": (2240,)},
        "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
    ),
    "Sana in diffusers' names": (
        {"caption_norm.weight": (2240,)},
        "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
    ),
    "AuraFlow": (below("model.", AURA_FLOW), "fal/AuraFlow"),
    "AuraFlow (0.3)": (
        AURA_FLOW | {"positional_encoding": (1, 9216, 3072)},
        "fal/AuraFlow-v0.3",
    ),
    "AuraFlow (0.3) in diffusers' names": (
        {
            "joint_transformer_blocks.0.attn.to_q.weight": (3072, 3072),
            "pos_embed.pos_embed": (1, 9216, 3072),
        },
        "fal/AuraFlow-v0.3",
    ),
}


@pytest.mark.parametrize("family", FOLDERS_ONLY)
def test_a_file_whose_names_nothing_converts_is_told_which_folder_to_get(
    tmp_path: Path, family: str
) -> None:
    """Its family is rendered from folders."""
    shapes, folder = FOLDERS_ONLY[family]
    name = family.removesuffix(" in diffusers' names")
    found = look_at(tmp_path, shapes)
    assert isinstance(found, Refused)
    assert found.reason == (
        f"it.safetensors is a checkpoint of {name}: picowatch renders it from diffusers folders "
        f"only. Get the folder {folder} instead (docs/models.md)."
    )


NEEDED = "a complete checkpoint is needed."
REFINER_SHAPES = (
    unet_shapes(REFINER)
    | open_clip_shapes("conditioner.embedders.0.model.", 1280, 32)
    | {"first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3)}
)
ONLY_UNET = f"is only the UNet of a checkpoint, without text encoder: {NEEDED}"
UNUSABLE: dict[str, tuple[Shapes, str]] = {
    "refiner": (
        REFINER_SHAPES,
        "is the refiner of Stable Diffusion XL, which only finishes pictures of the base model: "
        "not supported. Use the base checkpoint without it.",
    ),
    "SSD-1B": (
        sdxl_shapes(SSD_1B),
        "is SSD-1B, a Stable Diffusion XL with fewer layers: not supported.",
    ),
    "Vega": (
        sdxl_shapes(VEGA),
        "is Segmind Vega, a Stable Diffusion XL with fewer layers: not supported.",
    ),
    "KOALA-700M": (
        sdxl_shapes(KOALA_700M),
        "is KOALA-700M, a Stable Diffusion XL with fewer layers: not supported.",
    ),
    "KOALA-1B": (
        sdxl_shapes(KOALA_1B),
        "is KOALA-1B, a Stable Diffusion XL with fewer layers: not supported.",
    ),
    "a cut SDXL": (
        sdxl_shapes(replace(SDXL, depths=(0, 2, 8))),
        "is a checkpoint of Stable Diffusion XL with other layers: not supported.",
    ),
    "InstructPix2Pix of SD 1": (
        sd15_shapes() | {UNET_INPUT: (320, 8, 3, 3)},
        "is an image-editing checkpoint (InstructPix2Pix): not supported.",
    ),
    "InstructPix2Pix of SDXL": (
        SDXL_SHAPES | {UNET_INPUT: (320, 8, 3, 3)},
        "is an image-editing checkpoint (InstructPix2Pix): not supported.",
    ),
    "depth": (
        sd2_shapes(replace(SD2, inputs=5)),
        "is a depth-to-image checkpoint, which also needs a depth map: not supported.",
    ),
    "upscaler": (
        sd2_shapes(replace(SD2, inputs=7)),
        "is an upscaling checkpoint: not supported.",
    ),
    "unCLIP": (
        sd2_shapes(replace(SD2, pooled=2048)),
        "is an unCLIP checkpoint of Stable Diffusion 2.x, for variations of a picture: not "
        "supported.",
    ),
    "video": (
        sd2_shapes() | {f"{UNET}input_blocks.1.1.time_stack.0.attn1.to_q.weight": (320, 320)},
        "is a video checkpoint (Stable Video Diffusion): not supported.",
    ),
    "CosXL": (
        SDXL_SHAPES | V_PRED | {"edm_vpred.sigma_max": SCALAR, "edm_vpred.sigma_min": SCALAR},
        "is an EDM v-prediction checkpoint (CosXL), with a noise schedule of its own: not "
        "supported.",
    ),
    "Playground 2.5": (
        SDXL_SHAPES | {"edm_mean": (1, 4, 1, 1), "edm_std": (1, 4, 1, 1)},
        "is Playground 2.5, which has a noise schedule of its own (EDM): not supported.",
    ),
    **{
        f"SDXL with {name}": (
            SDXL_SHAPES | {name: (1,)},
            "is quantised, with scales beside its weights "
            "(scaled fp8, NF4): not supported. Get it in float16 or bfloat16.",
        )
        for name in (
            f"{UNET}scaled_fp8",
            f"{UNET}out.2.scale_weight",
            f"{UNET}out.2.weight_scale",
            f"{UNET}out.2.comfy_quant",
            f"{UNET}out.2.weight.quant_state.bitsandbytes__nf4",
        )
    },
    "SDXL's UNet alone": (unet_shapes(SDXL), ONLY_UNET),
    "SD 2.1's UNet alone": (unet_shapes(SD2), ONLY_UNET),
    "SD 2.1 without VAE": (
        without(sd2_shapes(), "first_stage_model."),
        f"is a checkpoint without its VAE: {NEEDED}",
    ),
    "SDXL's UNet alone, without prefix": (unet_shapes(SDXL, ""), ONLY_UNET),
    "SDXL without its second text encoder": (
        without(SDXL_SHAPES, OPEN_CLIP_G),
        f"is a checkpoint of Stable Diffusion XL with only one of its two text encoders: {NEEDED}",
    ),
    "SDXL without its first text encoder": (
        without(SDXL_SHAPES, CLIP_L),
        f"is a checkpoint of Stable Diffusion XL with only one of its two text encoders: {NEEDED}",
    ),
    "SDXL without VAE": (
        without(SDXL_SHAPES, "first_stage_model."),
        f"is a checkpoint without its VAE: {NEEDED}",
    ),
    "a UNet with other inputs": (
        SDXL_SHAPES | {UNET_INPUT: (320, 6, 3, 3)},
        f"is a checkpoint of an unknown kind: {ONLY}",
    ),
    "a transformer of an unknown kind": (
        below(UNET, {"blocks.0.weight": (8, 8)}),
        f"is a checkpoint of an unknown kind: {ONLY}",
    ),
    "transformer of a diffusers folder": (
        {"transformer_blocks.0.attn.add_q_proj.weight": (8, 8)},
        "is only the transformer of a diffusers folder: copy the whole folder with its "
        "model_index.json, or get a complete checkpoint.",
    ),
    "ControlNet without prefix": (
        {"input_blocks.0.0.weight": (320, 4, 3, 3), "input_hint_block.0.weight": (16, 3, 3, 3)},
        "is a ControlNet for an unknown family, with texts 0 wide.",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_no_family_can_use_is_refused_in_its_own_words(tmp_path: Path, name: str) -> None:
    """Exactly these, after the file's name."""
    shapes, words = UNUSABLE[name]
    found = look_at(tmp_path, shapes)
    assert isinstance(found, Refused)
    assert found.reason == f"it.safetensors {words}"


def test_a_small_random_sdxl_is_one_whatever_its_widths(tmp_path: Path) -> None:
    """Tests render with such."""
    shapes: Shapes = {
        UNET_INPUT: (32, 4, 3, 3),
        f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (64, 80),
        f"{UNET}label_emb.0.0.weight": (128, 96),
        f"{CLIP_L}final_layer_norm.bias": (32,),
        f"{OPEN_CLIP_G}ln_final.bias": (48,),
        "first_stage_model.decoder.conv_in.weight": (64, 4, 3, 3),
    }
    found = look_at(tmp_path, shapes)
    assert isinstance(found, Model)
    assert (found.family, found.native_size) == ("sdxl", 1024)
