"""Which family a LoRA is for: by its layers' names and widths, then by what its trainer wrote."""

import pytest

from picowatch.catalog.families import ONLY
from picowatch.catalog.headers import Header
from picowatch.catalog.recognise import expect_usable, recognise
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES
from tests.catalog.files import Shapes


def kohya(layer: str, inputs: int, outputs: int) -> Shapes:
    return {f"{layer}.lora_down.weight": (8, inputs), f"{layer}.lora_up.weight": (outputs, 8)}


def peft(layer: str, inputs: int, outputs: int) -> Shapes:
    return {f"{layer}.lora_A.weight": (8, inputs), f"{layer}.lora_B.weight": (outputs, 8)}


BLOCK = "transformer_blocks_0_attn1_to_q"
USABLE: dict[str, tuple[Shapes, dict[str, str], str]] = {
    "kohya's, in SGM's names": (
        kohya(f"lora_unet_input_blocks_4_1_{BLOCK}", 640, 640),
        {},
        "sdxl",
    ),
    "kohya's middle block": (kohya(f"lora_unet_middle_block_1_{BLOCK}", 1280, 1280), {}, "sdxl"),
    "ComfyUI's": (
        peft("diffusion_model.input_blocks.7.1.transformer_blocks.0.attn1.to_q", 1280, 1280),
        {},
        "sdxl",
    ),
    "kohya's second text encoder": (
        kohya("lora_te2_text_model_encoder_layers_31_mlp_fc1", 1280, 5120),
        {},
        "sdxl",
    ),
    "diffusers' second text encoder": (
        peft("text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj", 1280, 1280),
        {},
        "sdxl",
    ),
    "diffusers' by width": (
        peft("unet.down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_k", 2048, 1280),
        {},
        "sdxl",
    ),
    "peft's by depth": (
        peft(
            "base_model.model.unet.down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_q",
            1280,
            1280,
        ),
        {},
        "sdxl",
    ),
    "by kohya's word": (
        kohya("lora_te1_text_model_encoder_layers_0_mlp_fc1", 768, 3072),
        {"ss_base_model_version": "sdxl_base_v1-0"},
        "sdxl",
    ),
    "by ModelSpec's word": (
        kohya("lora_te1_text_model_encoder_layers_0_mlp_fc1", 768, 3072),
        {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"},
        "sdxl",
    ),
    "width before word": (
        kohya(
            f"lora_unet_down_blocks_0_attentions_0_{BLOCK}".replace("1_to_q", "2_to_k"), 768, 320
        ),
        {"ss_base_model_version": "sdxl_base_v1-0"},
        "sd1",
    ),
    "SD 2 by width": (
        peft("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 1024, 320),
        {},
        "sd2",
    ),
    "one text encoder": (kohya("lora_te1_text_model_encoder_layers_0_mlp_fc1", 768, 3072), {}, ""),
}


@pytest.mark.parametrize("name", USABLE)
def test_a_lora_that_can_be_used_says_its_family(name: str) -> None:
    """By names and widths first."""
    shapes, metadata, family = USABLE[name]
    found = recognise(Header(shapes, metadata))
    assert (found.kind, found.family) == ("lora", family)
    expect_usable(found, "lora")


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
    "Anima": (peft("diffusion_model.blocks.0.self_attn.q_proj", 2048, 2048), {}, "Anima"),
    "Wan": (peft("diffusion_model.blocks.0.self_attn.q", 1536, 1536), {}, "Wan"),
    "AuraFlow": (kohya("lora_unet_double_layers_0_attn_w1q", 3072, 3072), {}, "AuraFlow"),
    "HiDream": (
        peft("diffusion_model.double_stream_blocks.0.block.attn1.to_q", 2560, 2560),
        {},
        "HiDream",
    ),
}


ROWS = {row.name: row for row in FAMILIES.values()}
REFUSED = [name for name, (_, _, family) in FLOWS.items() if not ROWS[family].loras]


@pytest.mark.parametrize("name", FLOWS)
def test_a_lora_for_a_flow_family_says_which(name: str) -> None:
    """In kohya's, diffusers' and the authors' names."""
    shapes, metadata, family = FLOWS[name]
    found = recognise(Header(shapes, metadata))
    assert (found.kind, FAMILIES[found.family].name) == ("lora", family)


@pytest.mark.parametrize("name", REFUSED)
def test_a_lora_that_nothing_loads_is_refused_by_name(name: str) -> None:
    """As its checkpoints are; diffusers loads none for some families that are rendered."""
    shapes, metadata, family = FLOWS[name]
    with pytest.raises(ModelRefused) as refused:
        expect_usable(recognise(Header(shapes, metadata)), "lora")
    why = "diffusers loads none for this family." if ROWS[family].kind else ONLY
    assert refused.value.message == f"is a LoRA for {family}: {why}"


@pytest.mark.parametrize("name", [name for name in FLOWS if name not in REFUSED])
def test_a_lora_for_a_rendered_flow_family_can_be_used(name: str) -> None:
    """The engine compares shapes, too."""
    shapes, metadata, _ = FLOWS[name]
    expect_usable(recognise(Header(shapes, metadata)), "lora")


def test_the_trainers_word_tells_a_transformer_of_unknown_widths() -> None:
    """A new variant of a known family."""
    shapes = peft("transformer.layers.0.attention.to_q", 5120, 5120)
    said = {"modelspec.architecture": "z-image/lora"}
    assert recognise(Header(shapes, said)).family == "z_image"


@pytest.mark.parametrize(
    "shapes",
    [
        peft("unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q", 320, 320),
        {
            "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0."
            "attention_blocks.0.processor.to_q_lora.down.weight": (128, 320)
        },
    ],
)
def test_a_motion_lora_is_refused(shapes: Shapes) -> None:
    """In a sentence of its own: a ControlNet would not do instead."""
    with pytest.raises(ModelRefused) as refused:
        recognise(Header(shapes, {}))
    assert refused.value.message == (
        "is a motion module or motion LoRA (AnimateDiff), for videos: not supported."
    )


def test_a_lora_that_guides_by_depth_is_refused() -> None:
    """Black Forest Labs' FLUX.1-Depth-dev-lora."""
    shapes = peft("double_blocks.0.img_attn.qkv", 3072, 9216)
    shapes["double_blocks.0.img_attn.norm.query_norm.scale"] = (128,)
    with pytest.raises(ModelRefused, match="by depth or edges"):
        recognise(Header(shapes, {}))


def test_a_lora_for_an_unknown_transformer_is_refused() -> None:
    """LTX-Video's text is as wide as that of Stable Diffusion XL."""
    shapes = peft("transformer.transformer_blocks.0.attn2.to_k", 2048, 2048)
    with pytest.raises(ModelRefused) as refused:
        recognise(Header(shapes, {}))
    assert refused.value.message == f"is a LoRA for a transformer of an unknown family: {ONLY}"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("to_q.dora_scale", "a DoRA"),
        ("to_q.lora_magnitude_vector", "a DoRA"),
        ("to_q.lora_B.bias", "a LoRA with biases (lora_bias)"),
        ("to_q.oft_blocks", "an OFT adapter"),
        ("to_q.lora_mid.weight", "a LyCORIS around a kernel (Tucker)"),
        ("to_q.hada_t1", "a LyCORIS around a kernel (Tucker)"),
        ("to_q.on_input", "an (IA)^3 adapter"),
    ],
)
def test_formats_that_the_engine_does_not_render_are_refused_by_name(name: str, what: str) -> None:
    """When they are found, not when they are rendered."""
    shapes = kohya("lora_unet_to_q", 320, 320) | {name: (8,)}
    with pytest.raises(ModelRefused) as refused:
        recognise(Header(shapes, {}))
    assert refused.value.message == f"is {what}: picowatch supports LoRA, LoHa and LoKr."


def test_whole_differences_are_refused_but_not_beside_a_loras_layers() -> None:
    """There they may be zero, which the engine sees."""
    differences = {"diffusion_model.to_q.diff": (8, 8), "diffusion_model.norm.diff_b": (8,)}
    with pytest.raises(ModelRefused, match="a file of whole differences: picowatch supports"):
        recognise(Header(differences, {}))
    layer = peft("diffusion_model.layers.0.attention.qkv", 3840, 11520)
    assert recognise(Header(layer | differences, {})).family == "z_image"
