"""Names of layers in LoRA files, as the tables of families say them.

The tables follow diffusers' converters (loaders/single_file_utils.py and
lora_conversion_utils.py). All names here have "_" for the dots.
"""

from collections.abc import Mapping

# By the names of blocks, the authors' and diffusers', "" for layers outside of blocks: the authors'
# layers, and diffusers' whose rows they hold one after the other. Where both are the same, "".
Blocks = Mapping[tuple[str, str], Mapping[str, str]]


def same(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "")


def each(text: str) -> dict[str, str]:
    """Return layers that are named alike: "a=b c=d"."""
    return dict(pair.split("=") for pair in text.split())


OUTSIDE = ("", "")
ATTENTION_LAYERS = ("attn_to_q", "attn_to_k", "attn_to_v", "attn_to_out_0")
ADDED = ("attn_add_q_proj", "attn_add_k_proj", "attn_add_v_proj", "attn_to_add_out")
QKV, ADDED_QKV = " ".join(ATTENTION_LAYERS[:3]), " ".join(ADDED[:3])
# "qkv_lora1" and such are XLabs' names.
DOUBLE = {
    "img_attn_qkv": QKV,
    "txt_attn_qkv": ADDED_QKV,
    "processor_qkv_lora1": QKV,
    "processor_qkv_lora2": ADDED_QKV,
    **each("img_attn_proj=attn_to_out_0 txt_attn_proj=attn_to_add_out"),
    **each("processor_proj_lora1=attn_to_out_0 processor_proj_lora2=attn_to_add_out"),
}
AROUND_BLOCKS = each("img_in=x_embedder txt_in=context_embedder final_layer_linear=proj_out")
