"""Recognises LoRAs: how their layers are stored, and which family they are for.

The layers are those of kohya's sd-scripts, diffusers and peft, and LyCORIS' LoHa and LoKr. Their
names are as in diffusers' loaders/lora_conversion_utils.py: diffusers' own, those of the models'
authors, and kohya's, which have "_" for the dots of either.
"""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from math import prod

from picowatch.catalog.headers import Header, small_json
from picowatch.catalog.models import Recognised
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES, FAMILY_OF_WIDTH, UNETS

# What trainers write before the names of a denoiser's layers, and who they are.
_TRAINERS = {
    "base_model.model.": "peft", "lora_unet_": "kohya's scripts", "lora_transformer_": "OneTrainer",
    "lycoris_": "LyCORIS", "model.diffusion_model.": "ComfyUI", "diffusion_model.": "ComfyUI",
    "transformer.": "diffusers", "unet.": "diffusers",
}  # fmt: skip
PREFIX = re.compile(f"^(?:{'|'.join(map(re.escape, _TRAINERS))})+")
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
    if kind == "general":  # without a row of its own, a transformer's layers have diffusers' names
        return (layer,)
    if kind == "flow":
        found = _IN_A_BLOCK.fullmatch(layer)
        block, number, inner = found.groups() if found else ("", "", layer)
        return tuple(name.replace("#", number) for name in _table(family).get((block, inner), ()))
    # Before it used peft, diffusers wrote its attention processors' layers.
    name = re.sub(r"_processor(_to_[qkvo])", r"\1", layer)
    name = re.sub(r"(_attn[12]_to_out)$", r"\1_0", _AROUND.get(name, name))
    if found := _SGM.fullmatch(name):
        name = _from_sgm(found[1], int(found[2]), found[3])
    return (name,) if _INNER.fullmatch(name) else ()


@cache
def _table(family: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return diffusers' layers by blocks and layers in either names; "#" is a block's number."""
    found = {}
    for (theirs, ours), layers in FAMILIES[family].lora_blocks.items():
        start = f"{ours}_#_" if ours else ""
        for layer, named in _each(layers).items():
            names = named.split(",")
            found[theirs, layer] = tuple(f"{start}{name}" for name in names)
            found |= {(ours, name): (f"{start}{name}",) for name in names}
    return found


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


Shapes = Mapping[str, tuple[int, ...]]

# Further tensors of a layer: a scale, and differences that ComfyUI extracts, many of them zero.
_BESIDE = ("alpha", "diff", "diff_b")
_INPUTS = (".lora_down.", ".lora_A.", ".lora.down.", "_lora.down.")
# The UNets' blocks in diffusers' names and in SGM's.
_UNET_BLOCKS = (
    *("down_blocks_", "mid_block_", "up_blocks_"),
    *("input_blocks_", "middle_block_", "output_blocks_"),
)
_UNET_END = re.compile(r"(conv|time|add|label|class|out)_")  # layers outside the blocks
# Deeper stacks of transformer blocks than other UNets have, and SGM's names: kohya's for SDXL.
_ONLY_SDXL = re.compile(
    r"(?:down|mid|up)_blocks?_\d?.*_transformer_blocks_[1-9]|(?:in|out)put_blocks_|middle_block_"
)
# Prefixes of the names of text encoders' layers.
_TEXTS = ("lora_te", "text_encoder", "base_model.model.text_model.")
# With what takes texts in: T5's for FLUX.1 are as wide as the layers of FLUX.2 klein 9B.
_OF_TEXTS = re.compile(f"^({'|'.join(map(re.escape, _TEXTS))})|txt_in|context_embedder")
OR_CHROMA = "or Chroma"  # the variant of a LoRA for FLUX.1 whose layers Chroma has, too
# The metadata with the checkpoint that a LoRA was trained on, or at least its kind.
_BASES = ("ss_sd_model_name", "ss_base_model_version", "modelspec.architecture")
_MOST_WORDS = 5
_MOST_LETTERS = 100
_MOST_COUNTED = 1_000_000


def lora(header: Header) -> Recognised | None:
    """Recognise a LoRA and its family ("" if unknown); return None for other files."""
    layers = {name[: role.start()] for name in header.shapes if (role := ROLE.search(name))}
    if not layers:
        return None
    _refuse_other_parts(header, layers)
    own = {
        layer: PREFIX.sub("", layer).replace(".", "_")
        for layer in sorted(layers)
        if not layer.startswith(_TEXTS)
    }
    said = _said(header.metadata)
    family = _family(header, said, own)
    if family and not FAMILIES[family].loras:
        raise ModelRefused(f"is a LoRA for {FAMILIES[family].name}: diffusers loads none for it.")
    # A part of a LoRA misleads. Text encoders' layers without effect are said with the picture.
    if family and (unknown := _unknown_to(family, own)):
        first = unknown[0]
        trainer = next((who for start, who in _TRAINERS.items() if first.startswith(start)), "")
        raise ModelRefused(
            f"is a LoRA for {FAMILIES[family].name} in names{trainer and f' of {trainer}'} that "
            f"picowatch does not know for {len(unknown)} of its {len(own)} layers, such "
            f"as {first[:80]!r}. Convert its names to those of diffusers."
        )
    is_either = family == "flux" and not (said or _unknown_to("chroma", own))
    return Recognised(
        "lora",
        family,
        variant=OR_CHROMA if is_either else "",
        base_model=next(filter(None, (_noted(header.metadata, key) for key in _BASES)), ""),
        trained_as=_noted(header.metadata, "ss_output_name"),
        trigger_words=_trigger_words(header.metadata),
    )


def _refuse_other_parts(header: Header, layers: set[str]) -> None:
    """Raise ModelRefused for a layer with unknown tensors: without a DoRA's, pictures differ."""
    for name in header.shapes:
        if ROLE.search(name):
            continue
        layer, rest = name.rpartition(".")[0], name.rpartition(".")[2]
        while layer and layer not in layers:
            layer, _, more = layer.rpartition(".")
            rest = f"{more}.{rest}"
        if layer and rest not in _BESIDE:
            raise ModelRefused(
                f"is an adapter whose layers have a {rest[:80]!r}, which picowatch does not know: "
                "it supports LoRA, LoHa and LoKr."
            )


def _unknown_to(family: str, own: Mapping[str, str]) -> list[str]:
    """Return the layers that a family's denoiser lacks."""
    return [layer for layer, name in own.items() if not places(family, name)]


def _family(header: Header, said: str, own: Mapping[str, str]) -> str:
    """Return the family by the layers' names and widths, or by the trainer's metadata, or "".

    Raises ModelRefused for a transformer's LoRA of an unknown family, unless it has the names with
    which diffusers draws any. `lora_te1_` tells nothing: diffusers exports it for every family.
    """
    header = Header(header.shapes | _halves(header.shapes), header.metadata)
    names = {PREFIX.sub("", name).replace(".", "_") for name in header.shapes}
    if not any(name.startswith(_UNET_BLOCKS) for name in names):
        flow = "" if said in UNETS else said
        if flow and not _unknown_to(flow, own):
            return flow
        if family := _transformer_family(header.shapes, own) or flow:
            return family
        if header.has("transformer."):  # diffusers' names
            return ""
        if any(map(PREFIX.match, header.shapes)) and not any(map(_UNET_END.match, names)):
            raise ModelRefused(
                "is a LoRA for a transformer that picowatch does not know: its tensors begin with "
                f"{header.beginning()}."
            )
    for name in header.shapes:
        is_input = "attn2" in name and "to_k" in name and any(mark in name for mark in _INPUTS)
        if is_input and (family := FAMILY_OF_WIDTH.get(header.inputs(name), "")):
            return family
    if header.has("lora_te2_") or any("text_encoder_2." in name for name in header.shapes):
        return "sdxl"
    return "sdxl" if any(map(_ONLY_SDXL.search, names)) else said


def _halves(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the sides of a LoHa's or LoKr's layers as tensors of a LoRA that has the same."""
    found: dict[str, tuple[int, ...]] = {}
    for layer, kind in {name.rpartition(".")[::2] for name in shapes}:
        if kind.startswith(("hada_w1", "lokr_w1")):
            factors = ("hada_w1",) if kind.startswith("hada") else ("lokr_w1", "lokr_w2")
            sides = [_sides(shapes, f"{layer}.{factor}") for factor in factors]
            found[f"{layer}.lora_down.weight"] = (1, prod(columns for _, columns in sides))
            found[f"{layer}.lora_up.weight"] = (prod(rows for rows, _ in sides), 1)
    return found


def _sides(shapes: Shapes, factor: str) -> tuple[int, int]:
    """Return the rows and columns of a factor, which is a matrix or the product of two."""
    left, right = (shapes.get(factor) or shapes.get(f"{factor}_{half}", ()) for half in "ab")
    return (*left, 1)[0], (*right, 1, 1)[1]


def _transformer_family(shapes: Shapes, own: Mapping[str, str]) -> str:
    """Return the first family of a LoRA's size that has the most of its layers; "" for none."""
    sides = {side for name in shapes if not _OF_TEXTS.search(name) for side in shapes[name]}
    rows = [row.key for row in FAMILIES.values() if sides & {*row.lora_sides}]
    unknown = {key: len(_unknown_to(key, own)) for key in rows}
    family = min(unknown, key=unknown.__getitem__, default="")
    return family if family and unknown[family] < len(own) else ""


def _said(metadata: Mapping[str, str]) -> str:
    """Return the family in the metadata: Stability's architecture, or kohya's base version.

    For Chroma, trainers write "chroma/lora" as the former and "flux1" as the latter. The longest
    mark counts: that of FLUX.1 is in those of FLUX.2.
    """
    for key in ("modelspec.architecture", "ss_base_model_version"):
        base = metadata.get(key, "").lower()
        marks = {mark: row.key for row in FAMILIES.values() for mark in row.lora_marks}
        if found := [mark for mark in marks if mark in base]:
            return marks[max(found, key=len)]
    return ""


def _trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the trainer's trigger phrase, or the five most frequent tags in training."""
    if phrase := _noted(metadata, "modelspec.trigger_phrase"):
        return (phrase,)
    counts: Counter[str] = Counter()
    try:
        for tags in small_json(metadata.get("ss_tag_frequency", "{}")).values():
            counts.update({str(tag): min(int(count), _MOST_COUNTED) for tag, count in tags.items()})
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError):
        return ()
    return tuple(filter(None, (_line(tag) for tag, _ in counts.most_common(_MOST_WORDS))))


def _noted(metadata: Mapping[str, str], key: str) -> str:
    """Return the metadata's text under this key; kohya's scripts write "None" for nothing."""
    text = _line(metadata.get(key, ""))
    return "" if text == "None" else text


def _line(text: str) -> str:
    """Return an untrusted text as a short printable line."""
    words = "".join(c if c.isprintable() else " " for c in text[:1000]).split()
    return " ".join(words)[:_MOST_LETTERS]
