"""Which family a LoRA is for: by its layers' names and widths, then by what its trainer wrote."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from picowatch.catalog import Catalog, Model
from picowatch.catalog.headers import Header
from picowatch.catalog.recognise import expect_usable, recognise
from picowatch.errors import ModelRefused
from picowatch.families import DEMO_WIDTH, FAMILIES
from picowatch.recipe.resolve.installed import find_lora
from tests.catalog.files import Shapes, kohya_lora_shapes
from tests.catalog.shapes import kohya, peft

BLOCK = "transformer_blocks_0_attn1_to_q"
CROSS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
SAYS_XL = {"ss_base_model_version": "sdxl_base_v1-0"}
TE1 = kohya("lora_te1_text_model_encoder_layers_0_mlp_fc1", 768, 3072)

# Shapes, a trainer's notes, and the key of the family.
UNETS: dict[str, tuple[Shapes, dict[str, str], str]] = {
    "kohya's, in SGM's names": (
        kohya(f"lora_unet_input_blocks_4_1_{BLOCK}", 640, 640),
        *({}, "sdxl"),
    ),
    "ComfyUI's": (
        peft("diffusion_model.input_blocks.7.1.transformer_blocks.0.attn1.to_q", 1280, 1280),
        *({}, "sdxl"),
    ),
    "kohya's second text encoder": (
        kohya("lora_te2_text_model_encoder_layers_31_mlp_fc1", 1280, 5120),
        *({}, "sdxl"),
    ),
    "diffusers' second text encoder": (
        peft("text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj", 1280, 1280),
        *({}, "sdxl"),
    ),
    "by width": (peft(CROSS, 2048, 1280), {}, "sdxl"),
    "peft's by depth": (
        peft(
            "base_model.model.unet.down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_q",
            *(1280, 1280),
        ),
        *({}, "sdxl"),
    ),
    "by kohya's word": (TE1, SAYS_XL, "sdxl"),
    "by ModelSpec's word": (
        TE1,
        {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"},
        "sdxl",
    ),
    "width before word": (kohya_lora_shapes(), SAYS_XL, "sd1"),
    "diffusers' only text encoder is te1 in kohya's names": (TE1 | kohya_lora_shapes(), {}, "sd1"),
    "SD 1 by width": (peft(CROSS, 768, 320), {}, "sd1"),
    "the demo model's": (peft(CROSS, DEMO_WIDTH, 320), {}, "demo"),
    "SD 2 by width": (peft(CROSS, 1024, 320), {}, "sd2"),
    "LoHa by width": (
        {
            f"{CROSS}.hada_w1_a": (320, 4),
            f"{CROSS}.hada_w1_b": (4, 1024),
            f"{CROSS}.hada_w2_a": (320, 4),
            f"{CROSS}.hada_w2_b": (4, 1024),
        },
        *({}, "sd2"),
    ),
    "unsaid": (TE1, {}, ""),
    "unsaid by a UNet's layer": (kohya("lora_unet_conv_in", 4, 320), {}, ""),
}


FLOWS: dict[str, tuple[Shapes, dict[str, str], str]] = {
    "SD 3, kohya": (
        kohya("lora_unet_joint_blocks_0_context_block_attn_qkv", 1536, 4608)
        | kohya("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280, 5120),
        {},
        "Stable Diffusion 3.x",
    ),
    "SD 3, diffusers": (
        peft("transformer.transformer_blocks.0.attn.to_q", 1536, 1536),
        {},
        "Stable Diffusion 3.x",
    ),
    "SD 3.5 Large, diffusers": (
        peft("transformer.transformer_blocks.0.attn.to_q", 2432, 2432),
        {},
        "Stable Diffusion 3.x",
    ),
    "SD 3, OneTrainer": (
        kohya("lora_transformer_transformer_blocks_0_attn_to_q", 1536, 1536)
        | kohya("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280, 5120),
        {},
        "Stable Diffusion 3.x",
    ),
    "FLUX.1, OneTrainer": (
        kohya("lora_transformer_single_transformer_blocks_0_attn_to_q", 3072, 3072)
        | kohya("lora_te1_text_model_encoder_layers_0_mlp_fc1", 768, 3072)
        | kohya("lora_te2_encoder_block_0_layer_0_SelfAttention_q", 4096, 4096),
        {},
        "FLUX.1",
    ),
    "FLUX.1, LyCORIS": (
        kohya("lycoris_single_transformer_blocks_0_attn_to_q", 3072, 3072),
        {},
        "FLUX.1",
    ),
    "FLUX.1, kohya": (kohya("lora_unet_double_blocks_0_img_attn_qkv", 3072, 9216), {}, "FLUX.1"),
    "FLUX.1, authors": (
        peft("diffusion_model.single_blocks.0.linear1", 3072, 21504),
        {},
        "FLUX.1",
    ),
    "FLUX.1, peft around all of it": (
        peft("base_model.model.diffusion_model.single_blocks.0.linear1", 3072, 21504),
        {},
        "FLUX.1",
    ),
    "FLUX.1, in a checkpoint's names": (
        kohya("model.diffusion_model.single_blocks.0.linear1", 3072, 21504),
        {},
        "FLUX.1",
    ),
    "FLUX.1, diffusers": (
        peft("transformer.single_transformer_blocks.0.attn.to_q", 3072, 3072)
        | peft("transformer.transformer_blocks.0.attn.to_q", 3072, 3072),
        {},
        "FLUX.1",
    ),
    "FLUX.1, double blocks alone": (
        peft("transformer.transformer_blocks.0.attn.to_q", 3072, 3072)
        | peft("transformer.transformer_blocks.0.ff.net.0.proj", 3072, 12288),
        {},
        "FLUX.1",
    ),
    "FLUX.1, xlabs": (
        {"double_blocks.0.processor.qkv_lora1.down.weight": (16, 3072)},
        {},
        "FLUX.1",
    ),
    "Chroma by its trainer's word": (
        kohya("lora_unet_double_blocks_0_img_attn_qkv", 3072, 9216),
        {"modelspec.architecture": "chroma/lora"},
        "Chroma",
    ),
    "Chroma": (
        kohya("lora_unet_distilled_guidance_layer_in_proj", 64, 5120)
        | kohya("lora_unet_double_blocks_0_img_attn_qkv", 3072, 9216),
        {},
        "Chroma",
    ),
    "FLUX.2 dev": (peft("diffusion_model.double_blocks.0.img_attn.qkv", 6144, 18432), {}, "FLUX.2"),
    "FLUX.2 klein": (peft("diffusion_model.single_blocks.0.linear1", 3072, 27648), {}, "FLUX.2"),
    "FLUX.2, diffusers": (
        peft("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", 3072, 27648),
        {},
        "FLUX.2",
    ),
    "FLUX.2 klein 9B, double blocks alone": (
        peft("transformer.transformer_blocks.0.attn.to_q", 4096, 4096),
        {},
        "FLUX.2",
    ),
    "Z-Image, authors": (
        peft("diffusion_model.layers.0.attention.qkv", 3840, 11520),
        {},
        "Z-Image",
    ),
    "Z-Image, diffusers": (peft("transformer.layers.0.attention.to_q", 3840, 3840), {}, "Z-Image"),
    "Lumina 2, diffusers": (peft("transformer.layers.0.attn.to_q", 2304, 2304), {}, "Lumina 2"),
    "Lumina 2, diffusers' feed-forward layers alone": (
        peft("transformer.layers.0.feed_forward.linear_1", 2304, 9216),
        {},
        "Lumina 2",
    ),
    "Lumina 2": (kohya("lora_unet_layers_0_attention_qkv", 2304, 3840), {}, "Lumina 2"),
    "Qwen-Image": (
        peft("transformer.transformer_blocks.0.img_mlp.net.0.proj", 3072, 12288),
        {},
        "Qwen-Image",
    ),
    "Qwen-Image, attention alone": (
        peft("transformer_blocks.0.attn.to_q", 3072, 3072),
        {},
        "Qwen-Image",
    ),
    "Krea 2": (peft("diffusion_model.blocks.0.attn.wq", 3072, 3072), {}, "Krea 2"),
    "AuraFlow, diffusers": (
        peft("transformer.joint_transformer_blocks.0.attn.to_q", 3072, 3072),
        {},
        "AuraFlow",
    ),
    "Sana": (peft("transformer.transformer_blocks.0.attn1.to_q", 2240, 2240), {}, "Sana"),
    "CogView4 by its trainer's word": (
        peft("transformer.transformer_blocks.0.attn1.to_q", 4096, 4096),
        {"modelspec.architecture": "cogview4/lora"},
        "CogView4",
    ),
    "CogView4": (peft("transformer.transformer_blocks.0.attn1.to_q", 4096, 4096), {}, "CogView4"),
    "Chroma by ModelSpec, not by kohya's word": (
        kohya("lora_unet_double_blocks_0_img_attn_qkv", 3072, 9216),
        {"ss_base_model_version": "flux1", "modelspec.architecture": "chroma/lora"},
        "Chroma",
    ),
    "Krea 2, diffusers": (
        peft("transformer.transformer_blocks.0.attn.to_q", 6144, 6144),
        {},
        "Krea 2",
    ),
    "ERNIE-Image": (
        peft("diffusion_model.layers.0.self_attention.to_q", 3072, 3072),
        {},
        "ERNIE-Image",
    ),
    "Ovis-Image by its trainer's word": (
        peft("transformer.single_transformer_blocks.0.attn.to_q", 3072, 3072),
        {"modelspec.architecture": "ovis-image/lora"},
        "Ovis-Image",
    ),
    "AuraFlow": (kohya("lora_unet_double_layers_0_attn_w1q", 3072, 3072), {}, "AuraFlow"),
}


ROWS = {row.name: row for row in FAMILIES.values()}


@pytest.mark.parametrize("name", UNETS)
def test_a_lora_for_stable_diffusion_says_its_family(name: str) -> None:
    """By names and widths first."""
    shapes, metadata, family = UNETS[name]
    found = recognise(Header(shapes, metadata))
    assert (found.kind, found.family) == ("lora", family)
    expect_usable(found, "lora")


@pytest.mark.parametrize("name", FLOWS)
def test_a_lora_for_a_flow_family_says_which(name: str) -> None:
    """In kohya's, diffusers' and the authors' names; of some families diffusers loads none."""
    shapes, metadata, family = FLOWS[name]
    found = recognise(Header(shapes, metadata))
    assert (found.kind, FAMILIES[found.family].name) == ("lora", family)
    if ROWS[family].loras:
        expect_usable(found, "lora")
    else:
        with pytest.raises(ModelRefused, match="diffusers loads none for this family"):
            expect_usable(found, "lora")


def test_the_trainers_word_tells_a_transformer_of_unknown_widths() -> None:
    """A new variant of a known family."""
    shapes = peft("transformer.layers.0.attention.to_q", 5120, 5120)
    said = {"modelspec.architecture": "z-image/lora"}
    assert recognise(Header(shapes, said)).family == "z_image"


@pytest.mark.parametrize(
    "shapes",
    [
        # LTX-Video's text is as wide as that of Stable Diffusion XL.
        peft("transformer.transformer_blocks.0.attn2.to_k", 2048, 2048),
        kohya("lora_unet_blocks_0_self_attn_q", 1536, 1536),  # Wan's
    ],
)
def test_a_lora_for_an_unknown_transformer_is_refused(shapes: Shapes) -> None:
    """With what it begins with."""
    with pytest.raises(ModelRefused, match="a transformer that picowatch does not know: its tens"):
        recognise(Header(shapes, {}))


@pytest.mark.parametrize(
    "part",
    ["dora_scale", "lora_magnitude_vector", "lora_B.bias", "lora_mid.weight", "hada_t1", "oft_r"],
)
def test_a_layer_with_more_than_a_lora_needs_is_refused(part: str) -> None:
    """When it is found, not when it is rendered: without that part the pictures would differ."""
    shapes = peft(CROSS, 768, 320) | {f"{CROSS}.{part}": (8,)}
    with pytest.raises(
        ModelRefused, match=f"layers have a '{part}', which picowatch does not know"
    ):
        recognise(Header(shapes, {}))


def test_differences_beside_a_loras_layers_may_be_zero() -> None:
    """The engine looks. A file of nothing else is none that is known."""
    differences: Shapes = {"diffusion_model.to_q.diff": (8, 8), "diffusion_model.n.diff_b": (8,)}
    with pytest.raises(ModelRefused, match="is no model that picowatch knows"):
        recognise(Header(differences, {}))
    layer = peft("diffusion_model.layers.0.attention.qkv", 3840, 11520)
    beside: Shapes = {"diffusion_model.layers.0.attention.qkv.diff_b": (8,)}
    assert recognise(Header(layer | differences | beside, {})).family == "z_image"


def described(tmp_path: Path, **metadata: str) -> Model:
    """A LoRA file with a trainer's notes in it."""
    tmp_path.joinpath("loras").mkdir()
    weights = {name: np.zeros(shape, np.float16) for name, shape in kohya_lora_shapes().items()}
    save_file(weights, tmp_path / "loras/it.safetensors", metadata)
    (found,) = Catalog(tmp_path).scan().models
    return found


def test_a_lora_names_its_base_model_and_trigger_words(tmp_path: Path) -> None:
    """kohya's notes: the checkpoint's file, and how often each tag was trained."""
    tags = {"10_pixel": {"pixel art": 40, "a dog": 3}, "5_more": {"pixel art": 9, "sprite\n": 20}}
    found = described(
        tmp_path, ss_sd_model_name="v1-5.safetensors", ss_tag_frequency=json.dumps(tags)
    )
    assert found.base_model == "v1-5.safetensors"
    assert found.trigger_words == ("pixel art", "sprite", "a dog")


def test_a_trigger_phrase_comes_before_tags(tmp_path: Path) -> None:
    """Stability's ModelSpec has a field for it."""
    notes = {"modelspec.trigger_phrase": "pxl style", "modelspec.architecture": "sd-v1/lora"}
    found = described(tmp_path, **notes)
    assert (found.base_model, found.trigger_words) == ("sd-v1/lora", ("pxl style",))


def test_a_lora_can_be_called_by_the_name_that_its_trainer_gave_it(tmp_path: Path) -> None:
    """kohya writes it, and A1111 calls the file so in prompts."""
    found = described(tmp_path, ss_output_name="Pixel Art v2")
    inventory = Catalog(tmp_path).inventory()
    assert find_lora("pixel art v2", inventory) == find_lora("it", inventory) == found.name == "it"


@pytest.mark.parametrize("tags", ["", "no JSON", "[1]", '{"a": 1}', '{"a": {"b": "c"}}', "null"])
def test_odd_notes_in_a_lora_do_no_harm(tmp_path: Path, tags: str) -> None:
    """Anybody can write anything there."""
    found = described(tmp_path, ss_tag_frequency=tags, ss_sd_model_name="None")
    assert (found.base_model, found.trigger_words) == ("", ())
