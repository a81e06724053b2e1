"""Names of layers in LoRA files, as the tables of families say them.

The tables follow diffusers' converters (loaders/single_file_utils.py and
lora_conversion_utils.py). All names here have "_" for the dots.
"""

from collections.abc import Mapping

# By the names of blocks, the authors' and diffusers', "" for layers outside: "a=b" for an author's
# layer and diffusers', "a=b,c" if it holds the rows of several in turn, "a" if both have one name.
Blocks = Mapping[tuple[str, str], str]

OUTSIDE = ("", "")
ATTENTION = "attn_to_q attn_to_k attn_to_v attn_to_out_0"
ADDED = "attn_add_q_proj attn_add_k_proj attn_add_v_proj attn_to_add_out"
QKV, ADDED_QKV = (",".join(names.split()[:3]) for names in (ATTENTION, ADDED))
# "qkv_lora1" and such are XLabs' names.
DOUBLE = f"""
    img_attn_qkv={QKV} txt_attn_qkv={ADDED_QKV} img_attn_proj=attn_to_out_0
    txt_attn_proj=attn_to_add_out processor_qkv_lora1={QKV} processor_qkv_lora2={ADDED_QKV}
    processor_proj_lora1=attn_to_out_0 processor_proj_lora2=attn_to_add_out
"""
AROUND_BLOCKS = "img_in=x_embedder txt_in=context_embedder final_layer_linear=proj_out"
