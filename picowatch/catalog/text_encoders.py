"""Text encoders in files of their own, told apart by the names and widths of their tensors."""

from typing import NamedTuple

from picowatch.catalog.headers import Header


class Encoder(NamedTuple):
    """A text encoder: a tensor that it has, that tensor's shape, and a file as it is shared."""

    tensor: str
    shape: tuple[int, ...]
    file: str


ENCODERS = {
    "CLIP L": Encoder(
        "text_model.embeddings.token_embedding.weight", (49408, 768), "clip_l.safetensors"
    ),
    "T5 XXL": Encoder("shared.weight", (32128, 4096), "t5xxl_fp16.safetensors"),
    "Qwen3 4B": Encoder("model.embed_tokens.weight", (151936, 2560), "qwen_3_4b.safetensors"),
}


def text_encoder(header: Header) -> str:
    """The name of a text encoder that picowatch uses; "" for anything else."""
    for name, encoder in ENCODERS.items():
        if header.shapes.get(encoder.tensor) == encoder.shape:
            return name
    return ""
