"""Which family a LoRA is for: by its layers' names and widths, then by what its trainer wrote."""

import json
from pathlib import Path

import pytest

from picowatch.catalog import Catalog
from picowatch.catalog.headers import Header
from picowatch.catalog.recognise import recognise
from picowatch.errors import ModelRefused
from picowatch.families import DEMO_WIDTH
from picowatch.recipe.installed import find
from tests.catalog.files import Shapes, found_in, kohya_lora_shapes, write_model
from tests.catalog.shapes import kohya, peft

CROSS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
ARCHITECTURE = "modelspec.architecture"
TE2 = kohya("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280, 5120)
TE1 = kohya("lora_te1_text_model_encoder_layers_0_mlp_fc1", 768, 3072)

UNETS: list[tuple[str, Shapes, dict[str, str]]] = [
    ("sdxl", kohya("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", 640, 640), {}),
    ("sdxl", TE2, {}),
    ("sdxl", peft(f"base_model.model.{CROSS}".replace("s.0.attn2", "s.9.attn1"), 1280, 1280), {}),
    ("sdxl", TE1, {"ss_base_model_version": "sdxl_base_v1-0"}),
    ("sd1", kohya_lora_shapes(), {"ss_base_model_version": "sdxl_base_v1-0"}),  # width counts
    ("demo", peft(CROSS, DEMO_WIDTH, 320), {}),
    ("sd2", {f"{CROSS}.hada_w1_a": (320, 4), f"{CROSS}.hada_w1_b": (4, 1024)}, {}),
    ("", TE1, {}),
    ("", kohya("lora_unet_conv_in", 4, 320), {}),
]


U, D = "lora_unet_", "diffusion_model."
T, S = "transformer.transformer_blocks.0", "transformer.single_transformer_blocks.0"
FLUX_QKV = kohya(f"{U}double_blocks_0_img_attn_qkv", 3072, 9216)
DIFFERENCES: Shapes = {
    f"{D}to_q.diff": (8, 8),
    f"{D}n.diff_b": (8,),
    f"{D}layers.0.attention.qkv.diff_b": (8,),
}
FLOWS: list[tuple[str, Shapes]] = [
    ("sd3", kohya(f"{U}joint_blocks_0_context_block_attn_qkv", 1536, 4608) | TE2),
    ("sd3", peft(f"{T}.attn.to_q", 1536, 1536)),
    ("flux", kohya("lora_transformer_single_transformer_blocks_0_attn_to_q", 3072, 3072) | TE1),
    ("flux", FLUX_QKV),
    ("flux", FLUX_QKV | kohya(f"{U}txt_in", 4096, 3072)),  # T5 is as wide as FLUX.2 klein 9B
    ("flux", peft(f"{T}.attn.to_q", 3072, 3072) | peft(f"{T}.ff.net.0.proj", 3072, 12288)),
    ("flux", {"double_blocks.0.processor.qkv_lora1.down.weight": (16, 3072)}),  # XLabs'
    ("chroma", kohya(f"{U}distilled_guidance_layer_in_proj", 64, 5120) | FLUX_QKV),
    ("flux2_dev", peft(f"{D}double_blocks.0.img_attn.qkv", 6144, 18432)),
    ("flux2", peft(f"{D}single_blocks.0.linear1", 3072, 27648)),
    ("flux2", peft(f"{T}.attn.to_q", 4096, 4096)),  # klein 9B's double blocks alone
    ("lumina2", peft("transformer.layers.0.attn.to_q", 2304, 2304)),
    ("qwen_image", peft(f"{T}.img_mlp.net.0.proj", 3072, 12288)),
    ("krea2", peft(f"{T}.attn.to_q", 6144, 6144)),
    # Names with which diffusers draws any transformer: those of AuraFlow, Sana and CogView4.
    ("", peft("transformer.joint_transformer_blocks.0.attn.to_q", 3072, 3072)),
    ("", peft(f"{T}.attn1.to_q", 2240, 2240)),
    ("ernie_image", peft(f"{D}layers.0.self_attention.to_q", 3072, 3072)),
    # Differences beside its layers may be zero: the engine checks.
    ("z_image", peft(f"{D}layers.0.attention.qkv", 3840, 11520) | DIFFERENCES),
]
FLUX_1 = {"ss_base_model_version": "flux1"}
# What trainers write, where layers look like another family's or like none.
SAID: list[tuple[str, Shapes, dict[str, str]]] = [
    ("chroma", FLUX_QKV, {"ss_base_model_version": "flux1", ARCHITECTURE: "chroma/lora"}),
    ("z_image", peft("transformer.layers.0.attention.to_q", 5120, 5120), {ARCHITECTURE: "z-image"}),
    # Double blocks alone look like Qwen-Image's.
    ("flux", peft(f"{T}.attn.to_q", 3072, 3072), {ARCHITECTURE: "flux-1-dev/lora"}),
    ("flux", kohya(f"lora_transformer_{T[12:].replace('.', '_')}_attn_to_q", 3072, 3072), FLUX_1),
    ("flux2", peft(f"{T}.attn.to_q", 3072, 3072), {ARCHITECTURE: "flux-2-klein-4b/lora"}),
    ("qwen_image_21", peft(f"{T}.attn.to_q", 3072, 3072), {ARCHITECTURE: "qwen-image-2.1/lora"}),
    # Layers that only one family has count more than what is said.
    ("chroma", kohya(f"{U}distilled_guidance_layer_in_proj", 64, 5120) | FLUX_QKV, FLUX_1),
]


def test_a_lora_says_its_family() -> None:
    """Names and widths come before what is written."""
    for family, shapes, said in [*UNETS, *((*flow, {}) for flow in FLOWS), *SAID]:
        found = recognise(Header(shapes, said))
        assert (found.kind, found.family) == ("lora", family), next(iter(shapes))


def test_a_lora_without_metadata_is_for_all_families_with_its_layers(tmp_path: Path) -> None:
    """Chroma has FLUX.1's layers, but for modulations and what embeds guidance."""
    modulated = FLUX_QKV | kohya(f"{U}double_blocks_0_img_mod_lin", 3072, 18432)
    files = {"either": (FLUX_QKV, {}), "flux": (modulated, {}), "said": (FLUX_QKV, FLUX_1)}
    for name, (shapes, said) in files.items():
        write_model(tmp_path / f"loras/{name}.safetensors", shapes, metadata=said)
    assert Catalog(tmp_path).inventory().lora_families == {
        "either": ("FLUX.1", "Chroma"),
        "flux": ("FLUX.1",),
        "said": ("FLUX.1",),
    }


MORE = ["dora_scale", "lora_B.bias", "lora_mid.weight", "oft_r"]
OTHER = "a transformer that picowatch does not know: its tens"
REFUSED: list[tuple[Shapes, str]] = [
    # LTX-Video's text is as wide as that of Stable Diffusion XL.
    (peft(f"{D}transformer_blocks.0.attn2.to_k", 2048, 2048), OTHER),
    (DIFFERENCES, "is not a model that picowatch knows"),
    *(
        (peft(CROSS, 768, 320) | {f"{CROSS}.{part}": (8,)}, f"layers have a '{part}', which")
        for part in MORE
    ),
]


def test_what_is_unknown_in_a_lora_is_named() -> None:
    """When it is found, not when it is rendered: without that part the pictures would differ."""
    for shapes, words in REFUSED:
        with pytest.raises(ModelRefused, match=words):
            recognise(Header(shapes, {}))


def test_a_lora_says_what_its_trainer_wrote(tmp_path: Path) -> None:
    """kohya's notes: the checkpoint, how often each tag was trained, and a name for prompts."""
    tags = {"10_pixel": {"pixel art": 40, "a dog": 3}, "5_more": {"pixel art": 9, "sprite\n": 20}}
    notes = {"ss_sd_model_name": "v1-5.safetensors", "ss_output_name": "Pixel Art v2"}
    notes["ss_tag_frequency"] = json.dumps(tags)
    write_model(tmp_path / "loras/it.safetensors", kohya_lora_shapes(), metadata=notes)
    found = found_in(tmp_path)
    assert found.base_model == "v1-5.safetensors"
    assert found.trigger_words == ("pixel art", "sprite", "a dog")
    inventory = Catalog(tmp_path).inventory()
    assert find("lora", "pixel art v2", inventory) == find("lora", "it", inventory) == "it"
    # Stability's ModelSpec has fields for them.
    notes = {"modelspec.trigger_phrase": "pxl style", "modelspec.architecture": "sd-v1/lora"}
    other = recognise(Header(kohya_lora_shapes(), notes))
    assert (other.base_model, other.trigger_words) == ("sd-v1/lora", ("pxl style",))
    # Anything can be written there.
    for written in ("", "no JSON", "[1]", '{"a": 1}', '{"a": {"b": "c"}}', "null"):
        odd = {"ss_tag_frequency": written, "ss_sd_model_name": "None"}
        other = recognise(Header(kohya_lora_shapes(), odd))
        assert (other.base_model, other.trigger_words) == ("", ())
