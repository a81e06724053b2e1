"""Says which layers of diffusers' models the layers of LoRA files stand for.

Trainers write the names of diffusers' modules or of the models' authors, with their own prefixes
and often "_" for the dots. The tables follow diffusers' converters (loaders/single_file_utils.py
and lora_conversion_utils.py). All names here have "_" for the dots.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache

# What trainers write before the names of a denoiser's layers, and who they are.
TRAINERS = {
    "base_model.model.": "peft",
    "lora_unet_": "kohya's scripts",
    "lora_transformer_": "OneTrainer",
    "lycoris_": "LyCORIS",
    "model.diffusion_model.": "ComfyUI",
    "diffusion_model.": "ComfyUI",
    "transformer.": "diffusers",
    "unet.": "diffusers",
}
PREFIX = re.compile(f"^(?:{'|'.join(map(re.escape, TRAINERS))})+")
# The end of a key, which tells the tensor's role in its layer: in kohya's or peft's form, that of
# diffusers before it used peft (`to_q_lora.down`, `lora_linear_layer.down`), that of XLabs
# (`qkv_lora1.down`), and LyCORIS'.
FACTOR = r"hada_w[12]_[ab]|lokr_w[12](?:_[ab])?"
ROLE = re.compile(
    r"\.lora_(down|up|A|B)(?:\.\w+)?\.weight$"
    r"|(?:_lora|\.lora|\.lora_linear_layer|(?<=_lora[12]))\.(down|up)\.weight$"
    rf"|\.({FACTOR})(?:\.weight)?$"
)

# By the names of blocks, the authors' and diffusers', "" for layers outside of blocks: the authors'
# layers, and diffusers' whose rows they hold one after the other. Where both are the same, "".
_Blocks = Mapping[tuple[str, str], Mapping[str, str]]


def _same(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "")


def _each(text: str) -> dict[str, str]:
    """Return layers that are named alike: "a=b c=d"."""
    return dict(pair.split("=") for pair in text.split())


_OUTSIDE = ("", "")
_ATTENTION = ("attn_to_q", "attn_to_k", "attn_to_v", "attn_to_out_0")
_ADDED = ("attn_add_q_proj", "attn_add_k_proj", "attn_add_v_proj", "attn_to_add_out")
_QKV, _ADDED_QKV = " ".join(_ATTENTION[:3]), " ".join(_ADDED[:3])
_TIME = _same(*(f"time_text_embed_timestep_embedder_linear_{n}" for n in (1, 2)))
# "qkv_lora1" and such are XLabs' names.
_DOUBLE = {
    "img_attn_qkv": _QKV,
    "txt_attn_qkv": _ADDED_QKV,
    "processor_qkv_lora1": _QKV,
    "processor_qkv_lora2": _ADDED_QKV,
    **_each("img_attn_proj=attn_to_out_0 txt_attn_proj=attn_to_add_out"),
    **_each("processor_proj_lora1=attn_to_out_0 processor_proj_lora2=attn_to_add_out"),
}
_FLUX: _Blocks = {
    ("double_blocks", "transformer_blocks"): _DOUBLE
    | _each("img_mod_lin=norm1_linear txt_mod_lin=norm1_context_linear")
    | _each("img_mlp_0=ff_net_0_proj img_mlp_2=ff_net_2")
    | _each("txt_mlp_0=ff_context_net_0_proj txt_mlp_2=ff_context_net_2"),
    ("single_blocks", "single_transformer_blocks"): {
        "linear1": f"{_QKV} proj_mlp",
        "processor_qkv": _QKV,
        **_each("linear2=proj_out modulation_lin=norm_linear processor_proj=proj_out"),
    },
    ("distilled_guidance_layer_layers", "distilled_guidance_layer_layers"): _each(
        "in_layer=linear_1 out_layer=linear_2"
    ),
    _OUTSIDE: _same("distilled_guidance_layer_in_proj", "distilled_guidance_layer_out_proj")
    | _each("img_in=x_embedder txt_in=context_embedder final_layer_linear=proj_out")
    | _each("final_layer_adaLN_modulation_1=norm_out_linear")
    | {
        f"{theirs}_in_{layer}_layer": f"time_text_embed_{ours}_embedder_linear_{number}"
        for theirs, ours in (("time", "timestep"), ("guidance", "guidance"), ("vector", "text"))
        for number, layer in ((1, "in"), (2, "out"))
    },
}
_FLUX2: _Blocks = {
    ("double_blocks", "transformer_blocks"): _DOUBLE
    | _each("img_mlp_0=ff_linear_in img_mlp_2=ff_linear_out")
    | _each("txt_mlp_0=ff_context_linear_in txt_mlp_2=ff_context_linear_out"),
    ("single_blocks", "single_transformer_blocks"): _each(
        "linear1=attn_to_qkv_mlp_proj linear2=attn_to_out"
    ),
    _OUTSIDE: _each("img_in=x_embedder txt_in=context_embedder final_layer_linear=proj_out")
    | _each("final_layer_adaLN_modulation_1=norm_out_linear")
    | {
        f"{one}_stream_modulation{of}_lin": f"{one}_stream_modulation{of}_linear"
        for one, of in (("single", ""), ("double", "_img"), ("double", "_txt"))
    }
    | {
        f"{one}_in_{layer}_layer": f"time_guidance_embed_{ours}_embedder_linear_{number}"
        for one, ours in (("time", "timestep"), ("guidance", "guidance"))
        for number, layer in ((1, "in"), (2, "out"))
    },
}
_SD3: _Blocks = {
    ("joint_blocks", "transformer_blocks"): {
        "x_block_attn_qkv": _QKV,
        "x_block_attn2_qkv": _QKV.replace("attn", "attn2"),
        "context_block_attn_qkv": _ADDED_QKV,
        **_each("x_block_attn_proj=attn_to_out_0 x_block_attn2_proj=attn2_to_out_0"),
        **_each("context_block_attn_proj=attn_to_add_out"),
        **_each("x_block_adaLN_modulation_1=norm1_linear"),
        **_each("context_block_adaLN_modulation_1=norm1_context_linear"),
        **_each("x_block_mlp_fc1=ff_net_0_proj x_block_mlp_fc2=ff_net_2"),
        **_each("context_block_mlp_fc1=ff_context_net_0_proj"),
        **_each("context_block_mlp_fc2=ff_context_net_2"),
    },
    _OUTSIDE: _same("context_embedder")
    | _each("x_embedder_proj=pos_embed_proj final_layer_linear=proj_out")
    | _each("final_layer_adaLN_modulation_1=norm_out_linear")
    | {
        f"{theirs}_embedder_mlp_{layer}": f"time_text_embed_{ours}_embedder_linear_{number}"
        for theirs, ours in (("t", "timestep"), ("y", "text"))
        for number, layer in ((1, 0), (2, 2))
    },
}
_REFINED = ("layers", "noise_refiner", "context_refiner", "siglip_refiner")
_Z_IMAGE: _Blocks = {
    **{
        (blocks, blocks): {
            "attention_qkv": "attention_to_q attention_to_k attention_to_v",
            "attention_out": "attention_to_out_0",
            **_same("feed_forward_w1", "feed_forward_w2", "feed_forward_w3"),
            **_same("adaLN_modulation_0"),
        }
        for blocks in _REFINED
    },
    _OUTSIDE: _same("t_embedder_mlp_0", "t_embedder_mlp_2", "cap_embedder_1", "siglip_embedder_1")
    | _each("x_embedder=all_x_embedder_2-1 final_layer_linear=all_final_layer_2-1_linear")
    | _each("final_layer_adaLN_modulation_1=all_final_layer_2-1_adaLN_modulation_1"),
}
_LUMINA2: _Blocks = {
    **{
        (blocks, blocks): {
            "attention_qkv": _QKV,
            "attention_out": "attn_to_out_0",
            **{f"feed_forward_w{number}": f"feed_forward_linear_{number}" for number in (1, 2, 3)},
            "adaLN_modulation_1": "norm1_linear",
        }
        for blocks in _REFINED[:3]
    },
    _OUTSIDE: _same("x_embedder")
    | _each("cap_embedder_1=time_caption_embed_caption_embedder_1")
    | _each("t_embedder_mlp_0=time_caption_embed_timestep_embedder_linear_1")
    | _each("t_embedder_mlp_2=time_caption_embed_timestep_embedder_linear_2")
    | _each(
        "final_layer_adaLN_modulation_1=norm_out_linear_1 final_layer_linear=norm_out_linear_2"
    ),
}
_KREA2: _Blocks = {
    **{
        blocks: _each("attn_wq=attn_to_q attn_wk=attn_to_k attn_wv=attn_to_v attn_wo=attn_to_out_0")
        | _each("attn_gate=attn_to_gate mlp_gate=ff_gate mlp_up=ff_up mlp_down=ff_down")
        for blocks in (
            ("blocks", "transformer_blocks"),
            ("txtfusion_layerwise_blocks", "text_fusion_layerwise_blocks"),
            ("txtfusion_refiner_blocks", "text_fusion_refiner_blocks"),
        )
    },
    _OUTSIDE: _each("first=img_in last_linear=final_layer_linear tproj_1=time_mod_proj")
    | _each("tmlp_0=time_embed_linear_1 tmlp_2=time_embed_linear_2")
    | _each("txtmlp_1=txt_in_linear_1 txtmlp_3=txt_in_linear_2")
    | _each("txtfusion_projector=text_fusion_projector"),
}
_AURA_LAYERS = "{0}_c_fc1={1}_linear_1 {0}_c_fc2={1}_linear_2 {0}_c_proj={1}_out_projection"
_AURA_FLOW: _Blocks = {
    ("double_layers", "joint_transformer_blocks"): _each(_AURA_LAYERS.format("mlpX", "ff"))
    | _each(_AURA_LAYERS.format("mlpC", "ff_context"))
    | _each("modX_1=norm1_linear modC_1=norm1_context_linear")
    | dict(zip([f"attn_w2{one}" for one in "qkvo"], _ATTENTION, strict=True))
    | dict(zip([f"attn_w1{one}" for one in "qkvo"], _ADDED, strict=True)),
    ("single_layers", "single_transformer_blocks"): _each(_AURA_LAYERS.format("mlp", "ff"))
    | dict(zip([f"attn_w1{one}" for one in "qkvo"], _ATTENTION, strict=True))
    | {"modCX_1": "norm1_linear"},
    _OUTSIDE: _each("init_x_linear=pos_embed_proj cond_seq_linear=context_embedder")
    | _each("t_embedder_mlp_0=time_step_proj_linear_1 t_embedder_mlp_2=time_step_proj_linear_2")
    | _each("final_linear=proj_out modF_1=norm_out_linear"),
}
_BLOCKS = "transformer_blocks", "transformer_blocks"
_QWEN21: _Blocks = {
    _BLOCKS: _same(*_ATTENTION, "img_mlp_out")
    | {"img_mlp_gate_up": "img_mlp_gate_layer img_mlp_proj"},
    _OUTSIDE: _TIME
    | _same("txt_in_in_layer", "txt_in_out_layer", "img_in", "modulation_1")
    | _same("norm_out_linear", "proj_out"),
}
_QWEN: _Blocks = {
    _BLOCKS: _same(*_ATTENTION, *_ADDED)
    | _same(*(f"{of}_mlp_net_{layer}" for of in ("img", "txt") for layer in ("0_proj", "2")))
    | _same("img_mod_1", "txt_mod_1"),
    _OUTSIDE: _TIME | _same("img_in", "txt_in", "norm_out_linear", "proj_out"),
}
_SANA: _Blocks = {
    _BLOCKS: _same(*(one.replace("attn", f"attn{n}") for one in _ATTENTION for n in (1, 2)))
    | _same("ff_conv_inverted", "ff_conv_depth", "ff_conv_point"),
    _OUTSIDE: _same(*(f"time_embed_emb_timestep_embedder_linear_{n}" for n in (1, 2)))
    # Sana-Sprint's.
    | _same(*(f"time_embed_timestep_embedder_linear_{n}" for n in (1, 2)))
    | _same(*(f"time_embed_guidance_embedder_linear_{n}" for n in (1, 2)))
    | _same("patch_embed_proj", "time_embed_linear", "proj_out")
    | _same("caption_projection_linear_1", "caption_projection_linear_2"),
}
_ERNIE: _Blocks = {
    ("layers", "layers"): _same(*(one.replace("attn", "self_attention") for one in _ATTENTION))
    | _same("mlp_gate_proj", "mlp_up_proj", "mlp_linear_fc2"),
    _OUTSIDE: _same("x_embedder_proj", "text_proj", "time_embedding_linear_1")
    | _same("time_embedding_linear_2", "adaLN_modulation_1", "final_norm_linear", "final_linear"),
}
_COGVIEW4: _Blocks = {
    _BLOCKS: _same(*(one.replace("attn", "attn1") for one in _ATTENTION))
    | _same("norm1_linear", "ff_net_0_proj", "ff_net_2"),
    _OUTSIDE: _same("patch_embed_proj", "patch_embed_text_proj", "norm_out_linear", "proj_out")
    | _same(
        *(
            f"time_condition_embed_{of}_embedder_linear_{n}"
            for of in ("timestep", "condition")
            for n in (1, 2)
        )
    ),
}
_TABLES: Mapping[str, _Blocks] = {
    "aura_flow": _AURA_FLOW,
    "chroma": _FLUX,
    "cogview4": _COGVIEW4,
    "ernie_image": _ERNIE,
    "flux": _FLUX,
    "flux2": _FLUX2,
    "flux2_dev": _FLUX2,
    "krea2": _KREA2,
    "lumina2": _LUMINA2,
    "qwen_image": _QWEN,
    "qwen_image_21": _QWEN21,
    "sana": _SANA,
    "sana_sprint": _SANA,
    "sd3": _SD3,
    "z_image": _Z_IMAGE,
    "z_image_omni": _Z_IMAGE,
}

_IN_A_BLOCK = re.compile(r"(.*?(?:blocks|layers|refiner))_(\d+)_(.+)")


def places(family: str, layer: str) -> tuple[str, ...]:
    """Return the layers that one of a LoRA for this family stands for; () if it is not known."""
    if family not in _TABLES:
        return _unet_place(layer)
    found = _IN_A_BLOCK.fullmatch(layer)
    block, number, inner = found.groups() if found else ("", "", layer)
    ours = _table(family).get((block, inner), ())
    return tuple(one.replace("#", number) for one in ours)


@cache
def _table(family: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return diffusers' layers by blocks and layers in either names; "#" is a block's number."""
    return dict(_pairs(_TABLES[family]))


def _pairs(blocks: _Blocks) -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    for (theirs, ours), layers in blocks.items():
        start = f"{ours}_#_" if ours else ""
        for layer, named in layers.items():
            names = (named or layer).split()
            yield (theirs, layer), tuple(f"{start}{one}" for one in names)
            for one in names:
                yield (ours, one), (f"{start}{one}",)


# UNets: those of Stable Diffusion's authors, SGM, which have two ResNets in a block.
_INNER = re.compile(
    r"(?:(?:down|up)_blocks_\d|mid_block)_(?:attentions_\d_(?:proj_(?:in|out)|transformer_blocks_\d+"
    r"_(?:attn[12]_to_(?:[qkv]|out_0)|ff_net_(?:0_proj|2)))|resnets_\d_(?:conv[12]|conv_shortcut"
    r"|time_emb_proj)|(?:down|up)samplers_0_conv)"
    r"|conv_(?:in|out)|(?:time|add)_embedding_linear_[12]|time_embedding_cond_proj"
)
_SGM = re.compile(r"(input_blocks|middle_block|output_blocks)_(\d+)_(.+)")
_RESNET = _each("in_layers_2=conv1 emb_layers_1=time_emb_proj out_layers_3=conv2") | _each(
    "skip_connection=conv_shortcut"
)
_AROUND = _each("input_blocks_0_0=conv_in out_2=conv_out label_emb_0_0=add_embedding_linear_1") | (
    _each("time_embed_0=time_embedding_linear_1 time_embed_2=time_embedding_linear_2")
    | _each("label_emb_0_2=add_embedding_linear_2")
)


def _unet_place(layer: str) -> tuple[str, ...]:
    # Before it used peft, diffusers wrote its attention processors' layers.
    name = re.sub(r"_processor(_to_[qkvo])", r"\1", layer)
    name = re.sub(r"(_attn[12]_to_out)$", r"\1_0", _AROUND.get(name, name))
    if found := _SGM.fullmatch(name):
        name = _from_sgm(found[1], int(found[2]), found[3])
    return (name,) if _INNER.fullmatch(name) else ()


def _from_sgm(blocks: str, number: int, inner: str) -> str:
    """Return diffusers' name: its blocks hold three of SGM's, the last of which scales."""
    if blocks == "middle_block":
        block, place = "mid_block", ("resnets_0", "attentions_0", "resnets_1")[number % 3]
    else:
        block = "down_blocks" if blocks == "input_blocks" else "up_blocks"
        number -= blocks == "input_blocks"
        of, _, inner = inner.partition("_")
        block = f"{block}_{number // 3}"
        place = f"{'attentions' if of == '1' else 'resnets'}_{number % 3}"
        if inner in ("op", "conv"):
            return f"{block}_{'downsamplers' if inner == 'op' else 'upsamplers'}_0_conv"
    return f"{block}_{place}_{_RESNET.get(inner, inner)}"
