"""Tensors of diffusers' transformers in their authors' names, as single files have them.

What diffusers' converters do (loaders/single_file_utils.py), the other way round. "#0", "#1" … in
a new name say that these tensors are one there, in this order.
"""

import re
from collections.abc import Iterable

import torch

Tensors = dict[str, torch.Tensor]
Rules = Iterable[tuple[str, str]]


def renamed(state: Tensors, rules: Rules) -> Tensors:
    """Each rule is a regular expression and what replaces it, one after the other."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        whole, mark, rest = name.partition("#")
        groups.setdefault(whole + rest[1:], {})[rest[:1] if mark else ""] = tensor
    return {
        name: torch.cat([parts[number] for number in sorted(parts)])
        for name, parts in groups.items()
    }


def _swapped(state: Tensors, *words: str) -> Tensors:
    """diffusers has scale and shift where the authors have shift and scale."""
    return {
        name: torch.cat(tensor.chunk(2)[::-1]) if any(word in name for word in words) else tensor
        for name, tensor in state.items()
    }


_SD3 = (
    (r"^pos_embed\.pos_embed$", "pos_embed"),
    (r"^pos_embed\.proj", "x_embedder.proj"),
    (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
    (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"^proj_out", "final_layer.linear"),
    (r"^transformer_blocks", "joint_blocks"),
    (r"\.attn\.add_q_proj", ".context_block.attn.qkv#0"),
    (r"\.attn\.add_k_proj", ".context_block.attn.qkv#1"),
    (r"\.attn\.add_v_proj", ".context_block.attn.qkv#2"),
    (r"\.attn\.to_add_out", ".context_block.attn.proj"),
    (r"\.attn\.norm_added_", ".context_block.attn.ln_"),
    (r"\.norm1_context\.linear", ".context_block.adaLN_modulation.1"),
    (r"\.ff_context\.net\.0\.proj", ".context_block.mlp.fc1"),
    (r"\.ff_context\.net\.2", ".context_block.mlp.fc2"),
    (r"(\d)\.(attn2?)\.to_q", r"\1.x_block.\2.qkv#0"),
    (r"(\d)\.(attn2?)\.to_k", r"\1.x_block.\2.qkv#1"),
    (r"(\d)\.(attn2?)\.to_v", r"\1.x_block.\2.qkv#2"),
    (r"(\d)\.(attn2?)\.to_out\.0", r"\1.x_block.\2.proj"),
    (r"(\d)\.(attn2?)\.norm_", r"\1.x_block.\2.ln_"),
    (r"\.norm1\.linear", ".x_block.adaLN_modulation.1"),
    (r"\.ff\.net\.0\.proj", ".x_block.mlp.fc1"),
    (r"\.ff\.net\.2", ".x_block.mlp.fc2"),
)


def sd3_names(state: Tensors) -> Tensors:
    """Stability's."""
    last = max(int(name.split(".")[1]) for name in state if name.startswith("transformer_blocks."))
    swapped = _swapped(state, "norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear")
    return renamed(swapped, _SD3)


_FLUX_BLOCKS = (
    (r"^single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj", r"single_blocks.\1.linear1"),
    (r"^single_transformer_blocks\.(\d+)\.attn\.to_q", r"single_blocks.\1.linear1#0"),
    (r"^single_transformer_blocks\.(\d+)\.attn\.to_k", r"single_blocks.\1.linear1#1"),
    (r"^single_transformer_blocks\.(\d+)\.attn\.to_v", r"single_blocks.\1.linear1#2"),
    (r"^single_transformer_blocks\.(\d+)\.proj_mlp", r"single_blocks.\1.linear1#3"),
    (r"^single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
    (r"^single_transformer_blocks\.(\d+)\.attn\.to_out", r"single_blocks.\1.linear2"),
    (
        r"^single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight",
        r"single_blocks.\1.norm.query_norm.scale",
    ),
    (
        r"^single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight",
        r"single_blocks.\1.norm.key_norm.scale",
    ),
    (r"^single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.lin"),
    (r"^transformer_blocks", "double_blocks"),
    (r"\.attn\.to_q", ".img_attn.qkv#0"),
    (r"\.attn\.to_k", ".img_attn.qkv#1"),
    (r"\.attn\.to_v", ".img_attn.qkv#2"),
    (r"\.attn\.add_q_proj", ".txt_attn.qkv#0"),
    (r"\.attn\.add_k_proj", ".txt_attn.qkv#1"),
    (r"\.attn\.add_v_proj", ".txt_attn.qkv#2"),
    (r"\.attn\.to_out\.0", ".img_attn.proj"),
    (r"\.attn\.to_add_out", ".txt_attn.proj"),
    (r"\.attn\.norm_added_q\.weight", ".txt_attn.norm.query_norm.scale"),
    (r"\.attn\.norm_added_k\.weight", ".txt_attn.norm.key_norm.scale"),
    (r"\.attn\.norm_q\.weight", ".img_attn.norm.query_norm.scale"),
    (r"\.attn\.norm_k\.weight", ".img_attn.norm.key_norm.scale"),
    (r"\.ff\.(net\.0\.proj|linear_in)", ".img_mlp.0"),
    (r"\.ff\.(net\.2|linear_out)", ".img_mlp.2"),
    (r"\.ff_context\.(net\.0\.proj|linear_in)", ".txt_mlp.0"),
    (r"\.ff_context\.(net\.2|linear_out)", ".txt_mlp.2"),
    (r"\.norm1\.linear", ".img_mod.lin"),
    (r"\.norm1_context\.linear", ".txt_mod.lin"),
    (r"^x_embedder", "img_in"),
    (r"^context_embedder", "txt_in"),
    (r"^proj_out", "final_layer.linear"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
)
_FLUX2 = (
    *_FLUX_BLOCKS,
    (r"^time_guidance_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
    (r"^time_guidance_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
    (r"_stream_modulation(_img|_txt|)\.linear", r"_stream_modulation\1.lin"),
)


def flux2_names(state: Tensors) -> Tensors:
    """Black Forest Labs' of FLUX.2."""
    return renamed(_swapped(state, "norm_out.linear"), _FLUX2)
