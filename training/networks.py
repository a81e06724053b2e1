"""The denoiser's networks, untrained."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.scenes import ANIMALS, COLOURS, POSITIONS, RELATIONS, SHAPES, SIZES, THINGS
from training.tokenizer import MAX_TOKENS
from training.untyped import UNet2DConditionModel

TEXT_WIDTH = 96
KINDS = (*SHAPES, *THINGS, *ANIMALS)
PROBED = {
    "position": len(POSITIONS),
    "size": len(SIZES),
    "subject": len(KINDS),
    "relation": len(RELATIONS),
    "second subject": len(KINDS),
    "second colour": len(COLOURS),
    "background": len(COLOURS),
    "colour": len(COLOURS),
    "hat": len(COLOURS) + 1,
    "bow tie": len(COLOURS) + 1,
    "sunglasses": 2,
}


class Denoiser(nn.Module):
    """The two networks that are kept, and the probes that are thrown away.

    The probes read what the scene is from the caption's embedding: without them the text encoder
    hardly tells left from right.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet = new_unet()
        self.text_encoder = new_text_encoder(tokenizer)
        self.probes = nn.ModuleDict(
            {
                name: nn.Linear(self.text_encoder.config.hidden_size, classes)
                for name, classes in PROBED.items()
            }
        )


def new_unet() -> Any:
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 96, 112),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    start_branches_at_zero(unet)
    # Plain attention: at such narrow heads a third faster than SDPA's backward on the CPU.
    unet.set_attn_processor(AttnProcessor())
    return unet


@torch.no_grad()
def start_branches_at_zero(unet: Any) -> None:
    """zero_module() of the original latent diffusion code, which diffusers leaves out."""
    for name, module in unet.named_modules():
        if name.endswith(("conv2", "proj_out")) or name == "conv_out":
            module.weight.zero_()
            module.bias.zero_()


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            # SDPA's backward is slow on the CPU.
            attn_implementation="eager",
        )
    )
