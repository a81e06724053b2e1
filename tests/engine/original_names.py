"""Tensors of diffusers' transformers in their authors' names, as single files have them.

What diffusers' converters do (loaders/single_file_utils.py), the other way round. "#0", "#1" … in
a new name say that these tensors are one there, in this order.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]
Rules = Iterable[Rule]


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


def _qkv(found: re.Match[str]) -> str:
    """The number of q, k or v, which is the last group."""
    return f"qkv#{'qkv'.index(found[found.re.groups])}"


_WAN: Rules = (
    (r"mid_block\.resnets\.0\.", "middle.0."),
    (r"mid_block\.attentions\.0\.", "middle.1."),
    (r"mid_block\.resnets\.1\.", "middle.2."),
    (r"down_blocks\.(\d+)\.", r"downsamples.\1."),
    (r"up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}."),
    (r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"upsamples.{4 * int(m[1]) + 3}."),
    (r"norm1\.", "residual.0."),
    (r"conv1\.", "residual.2."),
    (r"conv_shortcut\.", "shortcut."),
    (r"norm2\.", "residual.3."),
    (r"conv2\.", "residual.6."),
    (r"norm_out\.", "head.0."),
    (r"conv_out\.", "head.2."),
    (r"^post_quant_conv\.", "conv2."),
    (r"^quant_conv\.", "conv1."),
    (r"\.conv_in\.", ".conv1."),
)


def wan_names(state: Tensors) -> Tensors:
    return renamed(state, _WAN)


_Z_IMAGE: Rules = (
    (r"\.to_([qkv])\.", lambda found: f".{_qkv(found)}."),
    (r"\.to_out\.0\.", ".out."),
    (r"\.norm_([qk])\.", r".\1_norm."),
    (r"all_(x_embedder|final_layer)\.2-1", r"\1"),
)


def z_image_names(state: Tensors) -> Tensors:
    return renamed(state, _Z_IMAGE)


_ANIMA: Rules = (
    (r"^transformer_blocks", "blocks"),
    (r"time_embed\.t_embedder", "t_embedder.1"),
    (r"time_embed\.norm", "t_embedding_norm"),
    (r"norm_out\.linear_(\d)", r"final_layer.adaln_modulation.\1"),
    (r"proj_out", "final_layer.linear"),
    (r"norm1\.linear_(\d)", r"adaln_modulation_self_attn.\1"),
    (r"norm2\.linear_(\d)", r"adaln_modulation_cross_attn.\1"),
    (r"norm3\.linear_(\d)", r"adaln_modulation_mlp.\1"),
    (r"attn1\.", "self_attn."),
    (r"attn2\.", "cross_attn."),
    (r"to_([qkv])\.", r"\1_proj."),
    (r"to_out\.0", "output_proj"),
    (r"norm_([qk])\.", r"\1_norm."),
    (r"ff\.net\.0\.proj", "mlp.layer1"),
    (r"ff\.net\.2", "mlp.layer2"),
    (r"patch_embed\.proj", "x_embedder.proj.1"),
)


def anima_names(transformer: Tensors, conditioner: Tensors) -> Tensors:
    """The names of Anima's transformer, with what maps its texts beside it."""
    adapter = {f"llm_adapter.{name}": tensor for name, tensor in conditioner.items()}
    return renamed(transformer, _ANIMA) | adapter


_FLUX3: Rules = (
    (r"^timestep_embedder\.linear_1", "time_in.in_layer"),
    (r"^timestep_embedder\.linear_2", "time_in.out_layer"),
    (r"^target_timestep_embedder\.linear_1", "ref_time_in.in_layer"),
    (r"^target_timestep_embedder\.linear_2", "ref_time_in.out_layer"),
    (r"^x_embedders", "emb_in"),
    (r"^context_embedder", "txt_in"),
    (r"^mode_blocks", "content_mode_blocks"),
    (r"^single_transformer_blocks", "single_blocks"),
    (r"^proj_out", "final_layer.image.linear"),
    (r"^norm_out\.linear", "final_layer.image.adaLN_modulation.1"),
    (r"\.linear\.weight", ".lin.weight"),
    (r"attn\.to_([qkv])\.", r"\1_proj."),
    (r"attn\.to_out\.0", "attn_out"),
    (r"attn\.norm_q\.weight", "norm.query_norm.scale"),
    (r"attn\.norm_k\.weight", "norm.key_norm.scale"),
    (r"ff\.linear_(in|out)", r"mlp_\1"),
)


def flux3_names(state: Tensors, *more: Rule) -> Tensors:
    """The names of FLUX.3's transformer, whose last layer has the shift before the scale."""
    made = renamed(state, (*_FLUX3, *more))
    last = {"final_layer.image.lin.weight": "final_layer.image.linear.weight"}
    made = {last.get(name, name): tensor for name, tensor in made.items()}
    moved = "final_layer.image.adaLN_modulation.1.weight"
    return made | {moved: torch.cat([*reversed(made[moved].chunk(2))])}


_LDM_VAE: Rules = (
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"group_norm", "norm"),
    (r"to_([qkv])\.", r"\1."),
    (r"to_out\.0", "proj_out"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets", lambda found: f"up.{3 - int(found[1])}.block"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{3 - int(found[1])}.upsample"),
)


def ldm_vae_names(state: Tensors, *more: Rule) -> Tensors:
    """The names of Stable Diffusion's VAE, which has four levels; attention is a convolution."""
    return {
        name: tensor[:, :, None, None] if "attn_1" in name and tensor.ndim == 2 else tensor
        for name, tensor in renamed(state, (*_LDM_VAE, *more)).items()
    }


def flux2_vae_names(state: Tensors) -> Tensors:
    """The names of FLUX.2's VAE, without the count of batches."""
    rules = (r"^quant_conv", "encoder.quant_conv"), (r"^post_quant_conv", "decoder.post_quant_conv")
    counted = "bn.num_batches_tracked"
    return ldm_vae_names({name: value for name, value in state.items() if name != counted}, *rules)


_OPEN_CLIP: Rules = (
    (r"^text_model\.", ""),
    (r"encoder\.layers", "transformer.resblocks"),
    (
        r"self_attn\.([qkv])_proj\.(weight|bias)",
        lambda m: f"attn.in_proj_{m[2]}#{'qkv'.find(m[1])}",
    ),
    (r"self_attn", "attn"),
    (r"layer_norm(\d)", r"ln_\1"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
    (r"embeddings\.token_embedding", "token_embedding"),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"final_layer_norm", "ln_final"),
    (r"text_projection\.weight", "text_projection"),
)


def open_clip_names(state: Tensors) -> Tensors:
    """The names of OpenCLIP, whose projection is transposed; q, k and v are one matrix."""
    made = renamed(state, _OPEN_CLIP)
    return {name: value.T if name == "text_projection" else value for name, value in made.items()}


_UNET: Rules = (
    (r"(resnets\.\d)\.norm1", r"\1.in_layers.0"),
    (r"(resnets\.\d)\.conv1", r"\1.in_layers.2"),
    (r"(resnets\.\d)\.norm2", r"\1.out_layers.0"),
    (r"(resnets\.\d)\.conv2", r"\1.out_layers.3"),
    (r"(resnets\.\d)\.time_emb_proj", r"\1.emb_layers.1"),
    (r"(resnets\.\d)\.conv_shortcut", r"\1.skip_connection"),
    (r"^time_embedding\.linear_1", "time_embed.0"),
    (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^time_embedding\.cond_proj", "time_embed.cond_proj"),
    (r"^add_embedding\.linear_1", "label_emb.0.0"),
    (r"^add_embedding\.linear_2", "label_emb.0.2"),
    (r"^conv_in", "input_blocks.0.0"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (r"^mid_block\.resnets\.0", "middle_block.0"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
    (r"^mid_block\.resnets\.1", "middle_block.2"),
)


def unet_names(state: Tensors, config: Mapping[str, Any], *more: Rule) -> Tensors:
    """The names of Stable Diffusion's UNet, or of a ControlNet with `more` parts."""
    layers = config["layers_per_block"] + 1

    def block(found: re.Match[str]) -> str:
        index = int(found[2]) * layers + int(found[4])
        flat = f"input_blocks.{index + 1}" if found[1] == "down" else f"output_blocks.{index}"
        return f"{flat}.{['resnets', 'attentions'].index(found[3])}"

    def upsampler(found: re.Match[str]) -> str:
        behind = 2 if "CrossAttn" in config["up_block_types"][int(found[1])] else 1
        return f"output_blocks.{(int(found[1]) + 1) * layers - 1}.{behind}"

    blocks: Rules = (
        (r"^(down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)", block),
        (
            r"^down_blocks\.(\d)\.downsamplers\.0\.conv",
            lambda found: f"input_blocks.{(int(found[1]) + 1) * layers}.0.op",
        ),
        (r"^up_blocks\.(\d)\.upsamplers\.0", upsampler),
    )
    return renamed(state, (*_UNET, *blocks, *more))
