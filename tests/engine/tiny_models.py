"""Tiny diffusers folders of UNet families: real class names and config keys, toy widths."""

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import diffusers
import torch
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())  # 256 characters, one for each byte
FIRST, SECOND = 32, 48  # widths of the text encoders
LATENTS, INPAINTING = 4, 9  # inputs of a UNet


def checkpoints_of(models: Path, **folders: Path) -> Path:
    """A models folder with these checkpoints, by their names."""
    (models / "checkpoints").mkdir(parents=True)
    for name, folder in folders.items():
        (models / "checkpoints" / name).symlink_to(folder)
    return models


def folder_until_exit(prefix: str) -> Path:
    """A new folder for models that many tests share; it is gone when this process ends."""
    folder = Path(mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def tiny_sdxl(*, inpaints: bool = False, embeds_guidance: bool = False) -> Path:
    """Stable Diffusion XL, made once; its weights are random, and the same each time.

    An inpainting UNet also looks at the mask and at what it leaves; one that was distilled for few
    steps (LCM) at the guidance.
    """
    torch.manual_seed(0)
    return _saved(
        "XLInpaint" if inpaints else "XL",
        vae=kl_vae(scaling_factor=0.13025, force_upcast=True),
        text_encoder=clip_text_encoder(CLIPTextModel, FIRST, "quick_gelu"),
        text_encoder_2=clip_text_encoder(CLIPTextModelWithProjection, SECOND, "gelu"),
        tokenizer=clip_tokenizer("<|endoftext|>"),
        tokenizer_2=clip_tokenizer("!"),
        unet=tiny_unet(inpaints, embeds_guidance),
        scheduler=_scheduler(),
    )


@cache
def tiny_sd2(*, inpaints: bool = False, embeds_guidance: bool = False) -> Path:
    """Stable Diffusion 2.x, which predicts v; for inpainting, noise. See `tiny_sdxl`."""
    torch.manual_seed(0)
    return _saved(
        "Inpaint" if inpaints else "",
        vae=kl_vae(scaling_factor=0.18215),
        text_encoder=clip_text_encoder(CLIPTextModel, FIRST, "gelu"),
        tokenizer=clip_tokenizer("!"),
        unet=tiny_unet(
            inpaints,
            embeds_guidance,
            cross_attention_dim=FIRST,
            addition_embed_type=None,
            projection_class_embeddings_input_dim=None,
            transformer_layers_per_block=1,
        ),
        scheduler=_scheduler(prediction_type="epsilon" if inpaints else "v_prediction"),
        safety_checker=None,
        feature_extractor=None,
    )


def _saved(kind: str, **parts: Any) -> Path:
    folder = folder_until_exit("tiny-sd-")
    getattr(diffusers, f"StableDiffusion{kind}Pipeline")(**parts).save_pretrained(folder)
    return folder


def clip_tokenizer(padding: str) -> Any:
    """Bytes without merges; the id 0 is "!", as in CLIP's vocabulary."""
    letters = ["!"] + [one for one in LETTERS if one != "!"]
    words = letters + [f"{one}</w>" for one in letters] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token=padding, model_max_length=77)


def clip_text_encoder(kind: Any, width: int, activation: str) -> Any:
    """A CLIP for `clip_tokenizer`, in this width."""
    config = CLIPTextConfig(
        vocab_size=2 * len(LETTERS) + 2,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=width,
        hidden_act=activation,
        bos_token_id=2 * len(LETTERS),
        eos_token_id=2 * len(LETTERS) + 1,
        pad_token_id=1,
    )
    return kind(config)


def tiny_unet(inpaints: bool, embeds_guidance: bool, **changed: Any) -> Any:
    """Stable Diffusion XL's, with random weights."""
    config: dict[str, Any] = {
        "in_channels": INPAINTING if inpaints else LATENTS,
        "time_cond_proj_dim": 16 if embeds_guidance else None,
        "sample_size": 16,
        "block_out_channels": (32, 64, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3),
        "attention_head_dim": (2, 4, 8),
        "use_linear_projection": True,
        "cross_attention_dim": FIRST + SECOND,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + SECOND,
    }
    kind: Any = diffusers.UNet2DConditionModel
    return kind(**(config | changed))


def kl_vae(kind: Any = diffusers.AutoencoderKL, **more: Any) -> Any:
    """Return a VAE of four levels, with weights of its own."""
    return kind(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8] * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        **more,
    )


def _scheduler(**more: Any) -> Any:
    kind: Any = diffusers.EulerDiscreteScheduler
    return kind(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        timestep_spacing="leading",
        **more,
    )
