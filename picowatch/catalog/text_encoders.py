"""Text encoders in files, told apart by the names and widths of their tensors.

A transformer's file may hold one, and a VAE: whole checkpoints have everything.
"""

from typing import NamedTuple

from picowatch.catalog.headers import Header


class Encoder(NamedTuple):
    """A text encoder: a tensor that it has, that tensor's shape, and a file as it is shared.

    Without a file it is read from whole checkpoints and diffusers folders only. `config` and
    `words` are the package's folders of its config and vocabulary, "" where it has none.
    """

    tensor: str
    shape: tuple[int, ...]
    file: str
    config: str = ""
    words: str = ""


_CLIP = "text_model.embeddings.token_embedding.weight"
_DECODER = "model.embed_tokens.weight"
_CLIP_WORDS, _QWEN_WORDS = "sd15/tokenizer", "qwen3/tokenizer"
ENCODERS = {
    "CLIP L": Encoder(
        *(_CLIP, (49408, 768)), "clip_l.safetensors", "sd15/text_encoder", _CLIP_WORDS
    ),
    "CLIP G": Encoder(
        *(_CLIP, (49408, 1280)), "clip_g.safetensors", "sdxl/text_encoder_2", _CLIP_WORDS
    ),
    "T5 XXL": Encoder(
        "shared.weight",
        (32128, 4096),
        "t5xxl_fp16.safetensors",
        config="t5/text_encoder",
        words="t5/tokenizer",
    ),
    "Qwen3 4B": Encoder(
        *(_DECODER, (151936, 2560)), "qwen_3_4b.safetensors", "qwen3/text_encoder", _QWEN_WORDS
    ),
    "Qwen3 8B": Encoder(
        *(_DECODER, (151936, 4096)), "qwen_3_8b.safetensors", "qwen3/text_encoder_8b", _QWEN_WORDS
    ),
    "Gemma 2 2B": Encoder(_DECODER, (256000, 2304), ""),
    "Qwen2.5-VL 7B": Encoder(_DECODER, (152064, 3584), ""),
}
_INSIDE = "text_encoders."
TRANSFORMER, VAE = "transformer", "VAE"
_VAES = ("vae.", "first_stage_model.")
# The first layer of a VAE's decoder: of Stable Diffusion and FLUX, and of Qwen-Image.
_VAE_DECODERS = ("decoder.conv_in.weight", "decoder.conv1.weight")


def text_encoder(header: Header) -> str:
    """The name of a text encoder that picowatch uses; "" for anything else."""
    for name, encoder in ENCODERS.items():
        if header.shapes.get(encoder.tensor) == encoder.shape:
            return name
    return ""


def _encoders_inside(header: Header) -> dict[str, str]:
    """The text encoders of a whole checkpoint, and what stands before their tensors' names.

    ComfyUI and Stability call them "text_encoders.t5xxl.transformer.shared.weight" and such.
    """
    inside = [name for name in header.shapes if name.startswith(_INSIDE)]
    return {
        encoder: name.removesuffix(known.tensor)
        for encoder, known in ENCODERS.items()
        for name in inside
        if name.endswith(f".{known.tensor}") and header.shapes[name] == known.shape
    }


def contents(header: Header, prefix: str) -> tuple[tuple[str, str], ...]:
    """A transformer file's parts by name, and what stands before the names of their tensors."""
    vaes = (
        (VAE, start)
        for start in _VAES
        if any(start + one in header.shapes for one in _VAE_DECODERS)
    )
    return ((TRANSFORMER, prefix), *_encoders_inside(header).items(), *vaes)
