"""The layers of Stable Diffusion XL that LoRAs adapt, under each of their names."""

from typing import Any

from diffusers import UNet2DConditionModel
from picowatch.engine.models.weights import empty
from picowatch.engine.unet.loras import modules_by_layer
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from picowatch.catalog.lora_keys import layer_of, misfits
from picowatch.catalog.lora_layers import LayerId, has_layer
from tests.catalog.unets import SDXL, unet_shapes

UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
OPEN_CLIP_G = CLIPTextConfig(hidden_size=1280, num_hidden_layers=32, num_attention_heads=20)


def layers() -> set[LayerId]:
    """Those of diffusers' modules, without weights; the larger text encoder as the second one."""
    unet = empty(UNet2DConditionModel, UNET)
    text_encoder = empty(CLIPTextModelWithProjection, OPEN_CLIP_G)
    return {
        LayerId("text_encoder_2", layer.module) if layer.part == "text_encoder" else layer
        for layer in modules_by_layer(unet, text_encoder)
    }


def kohya_keys(prefix: str) -> list[str]:
    """A LoRA of every layer of the UNet, as kohya or ComfyUI names them."""
    matrices = [name for name, shape in unet_shapes(SDXL, "").items() if len(shape) > 1]
    modules = [name.removesuffix(".weight") for name in matrices]
    if prefix.endswith("_"):
        modules = [module.replace(".", "_") for module in modules]
    return [f"{prefix}{module}.lora_down.weight" for module in modules]


def test_every_name_of_stabilitys_is_that_of_a_module_in_diffusers() -> None:
    """SGM's blocks, as kohya joins them, and with dots: all 794, none of them twice."""
    unet = {layer for layer in layers() if layer.part == "denoiser"}
    for prefix in ("lora_unet_", "diffusion_model."):
        found = [known[0] for key in kohya_keys(prefix) if (known := layer_of(key))]
        assert len(found) == len(set(found)) == len(unet)
        assert set(found) == unet


def test_the_layers_of_sdxl_are_known_without_loading_it() -> None:
    """`models` says of a file which of its layers do nothing."""
    assert [layer for layer in layers() if not has_layer("sdxl", layer)] == []
    assert misfits(kohya_keys("lora_unet_"), "sdxl") == ""
    assert (
        misfits(
            [
                "lora_te1_text_model_encoder_layers_11_mlp_fc1.lora_up.weight",
                "lora_te2_text_model_encoder_layers_31_mlp_fc2.lora_up.weight",
                "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
                "base_model.model.text_encoder_2.encoder.layers.0.mlp.fc1.lora_B.weight",
                "lora_te2_text_projection.lora_down.weight",
            ],
            "sdxl",
        )
        == ""
    )
    beyond = "lora_te1_text_model_encoder_layers_12_mlp_fc1.lora_up.weight"
    assert misfits([beyond], "sdxl").startswith("does nothing: Stable Diffusion XL has none of")
