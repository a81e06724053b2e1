"""Tiny CLIPs and VAEs, and folders for tiny models."""

import atexit
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import diffusers
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTokenizer

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())  # 256 characters, one for each byte
FIRST, SECOND = 32, 48  # widths of the text encoders


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
