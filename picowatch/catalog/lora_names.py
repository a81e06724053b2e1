"""Says which layers of diffusers' models the layers of LoRA files stand for.

Trainers write the names of diffusers' modules or of the models' authors, with their own prefixes
and often "_" for the dots, as all names here have. The rows of families have the tables of their
layers (families/row.py).
"""

import re
from collections.abc import Iterator
from functools import cache

from picowatch.families import FAMILIES
from picowatch.families.row import Blocks

# What trainers write before the names of a denoiser's layers, and who they are.
TRAINERS = {
    "base_model.model.": "peft", "lora_unet_": "kohya's scripts", "lora_transformer_": "OneTrainer",
    "lycoris_": "LyCORIS", "model.diffusion_model.": "ComfyUI", "diffusion_model.": "ComfyUI",
    "transformer.": "diffusers", "unet.": "diffusers",
}  # fmt: skip
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

# Anima's LoRAs also change what maps its texts, whose layers have the same name everywhere.
CONDITIONER = "text_conditioner_"

_IN_A_BLOCK = re.compile(r"(.*?(?:blocks(?:_image(?:_cond)?)?|layers|refiner))_(\d+)_(.+)")


def places(family: str, layer: str) -> tuple[str, ...]:
    """Return the layers that a layer of a LoRA for this family stands for; () if it is unknown."""
    kind = FAMILIES[family].kind if family else "unet"
    if kind != "flow":  # without a row of its own, a transformer's layers have diffusers' names
        return (layer,) if kind == "general" else _unet_place(layer)
    found = _IN_A_BLOCK.fullmatch(layer)
    block, number, inner = found.groups() if found else ("", "", layer)
    return tuple(name.replace("#", number) for name in _table(family).get((block, inner), ()))


@cache
def _table(family: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return diffusers' layers by blocks and layers in either names; "#" is a block's number."""
    return dict(_pairs(FAMILIES[family].lora_blocks))


def _pairs(blocks: Blocks) -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    for (theirs, ours), layers in blocks.items():
        start = f"{ours}_#_" if ours else ""
        for layer, named in _each(layers).items():
            names = named.split(",")
            yield (theirs, layer), tuple(f"{start}{name}" for name in names)
            for name in names:
                yield (ours, name), (f"{start}{name}",)


def _each(layers: str) -> dict[str, str]:
    """Return the authors' layers and diffusers' in a text of "a=b", or "a" if both are the same."""
    pairs = (pair.partition("=") for pair in layers.split())
    return {theirs: ours or theirs for theirs, _, ours in pairs}


# UNets: those of Stable Diffusion's authors, SGM, which have two ResNets in a block.
_INNER = re.compile(
    r"(?:(?:down|up)_blocks_\d|mid_block)_(?:attentions_\d_(?:proj_(?:in|out)|transformer_blocks_\d+"
    r"_(?:attn[12]_to_(?:[qkv]|out_0)|ff_net_(?:0_proj|2)))|resnets_\d_(?:conv[12]|conv_shortcut"
    r"|time_emb_proj)|(?:down|up)samplers_0_conv)"
    r"|conv_(?:in|out)|(?:time|add)_embedding_linear_[12]|time_embedding_cond_proj"
)
_SGM = re.compile(r"(input_blocks|middle_block|output_blocks)_(\d+)_(.+)")
_RESNET = _each("""
    in_layers_2=conv1 emb_layers_1=time_emb_proj out_layers_3=conv2 skip_connection=conv_shortcut
""")
_AROUND = _each("""
    input_blocks_0_0=conv_in out_2=conv_out time_embed_0=time_embedding_linear_1
    time_embed_2=time_embedding_linear_2 label_emb_0_0=add_embedding_linear_1
    label_emb_0_2=add_embedding_linear_2
""")


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
