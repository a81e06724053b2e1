"""The names and shapes that identify models, at full size."""

from tests.catalog.files import Shapes

FLUX1_VAE: Shapes = {"decoder.conv_in.weight": (512, 16, 3, 3), "encoder.conv_in.bias": (128,)}


def without(shapes: Shapes, *prefixes: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefixes)}


def below(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def flux(inputs: int = 64) -> Shapes:
    return {
        "guidance_in.in_layer.weight": (3072, 256),
        "img_in.weight": (3072, inputs),
        "txt_in.weight": (3072, 4096),
        "vector_in.in_layer.weight": (3072, 768),
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
        "single_blocks.0.linear1.weight": (21504, 3072),
    }


DIFFUSERS_FLUX: Shapes = {
    "x_embedder.weight": (3072, 64),
    "context_embedder.weight": (3072, 4096),
    "time_text_embed.guidance_embedder.linear_1.weight": (3072, 256),
    "transformer_blocks.0.attn.add_q_proj.weight": (3072, 3072),
    "single_transformer_blocks.0.proj_mlp.weight": (12288, 3072),
}
CHROMA = without(flux(), "guidance_in.", "vector_in.") | {
    "distilled_guidance_layer.in_proj.weight": (5120, 64)
}


def flux2(text: int) -> Shapes:
    """FLUX.2 tells its size by the text encoder's width."""
    return {
        "img_in.weight": (3072, 128),
        "txt_in.weight": (3072, text),
        "single_stream_modulation.lin.weight": (9216, 3072),
        "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
    }


def sd3(positions: int, depth: int = 24) -> Shapes:
    """MMDiT: SD 3 and 3.5 differ in depth and in the number of positions."""
    return {
        "pos_embed": (1, positions, 1536),
        "joint_blocks.0.context_block.attn.qkv.weight": (4608, 1536),
        f"joint_blocks.{depth - 1}.x_block.mlp.fc1.weight": (6144, 1536),
    }


LUMINA: Shapes = {
    "cap_embedder.1.weight": (2304, 2304),
    "layers.0.adaLN_modulation.1.weight": (9216, 1024),
}
Z_IMAGE: Shapes = {
    "cap_embedder.1.weight": (3840, 2560),
    "cap_pad_token": (1, 3840),
    "layers.0.adaLN_modulation.0.weight": (15360, 256),
}
QWEN_IMAGE: Shapes = {
    "img_in.weight": (3072, 64),
    "txt_norm.weight": (3584,),
    "transformer_blocks.0.attn.add_k_proj.weight": (3072, 3072),
}
VAE_AND_TEXT: Shapes = {
    "text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight": (4096,),
    "vae.decoder.conv_in.weight": (512, 16, 3, 3),
}


def tiny_vae(channels: int) -> Shapes:
    return {
        "encoder.layers.0.weight": (64, 3, 3, 3),
        "decoder.layers.0.weight": (64, channels, 3, 3),
    }


def controlnet(width: int, *, prefix: str = "", sdxl: bool = False) -> Shapes:
    """A ControlNet in lllyasviel's names; SDXL is told the picture's size."""
    shapes: Shapes = {
        "input_hint_block.0.weight": (16, 3, 3, 3),
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, width),
    }
    return below(prefix, shapes | ({"label_emb.0.0.weight": (1280, 2816)} if sdxl else {}))


def diffusers_controlnet(width: int, *, sdxl: bool = False, kinds: int = 0) -> Shapes:
    """A ControlNet in diffusers' names, for texts of a width if it has attention; or a union."""
    shapes: Shapes = {
        "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
        "conv_in.weight": (320, 4, 3, 3),
    }
    if width:
        shapes |= {"down_blocks.2.attentions.0.attn2.to_k.weight": (640, width)}
    if sdxl:
        shapes |= {"add_embedding.linear_1.weight": (1280, 2816)}
    return shapes | ({"task_embedding": (kinds, 320)} if kinds else {})


def kohya(layer: str, inputs: int, outputs: int) -> Shapes:
    return {f"{layer}.lora_down.weight": (8, inputs), f"{layer}.lora_up.weight": (outputs, 8)}


def peft(layer: str, inputs: int, outputs: int) -> Shapes:
    return {f"{layer}.lora_A.weight": (8, inputs), f"{layer}.lora_B.weight": (outputs, 8)}


# -- upscalers, as their authors' files have them, and small ones of the same kinds


def _conv(name: str, takes: int, gives: int, side: int = 3) -> Shapes:
    return {f"{name}.weight": (gives, takes, side, side), f"{name}.bias": (gives,)}


def esrgan_shapes(
    form: str = "new",
    *,
    blocks: int = 23,
    channels: int = 64,
    growth: int = 32,
    doublings: int = 2,
    takes: int = 3,
    gives: int = 3,
) -> Shapes:
    """RRDBNet in its three sets of names: "old" (numbered), "trunk" (BSRGAN) and "new"."""
    block, first, inner, up, hr, last = {
        "old": (
            *("model.1.sub.{}.RDB{}.conv{}.0", "model.0", f"model.1.sub.{blocks}", "model.{}"),
            *(f"model.{3 * doublings + 2}", f"model.{3 * doublings + 4}"),
        ),
        "trunk": (
            *("RRDB_trunk.{}.RDB{}.conv{}", "conv_first", "trunk_conv", "upconv{}"),
            *("HRconv", "conv_last"),
        ),
        "new": (
            *("body.{}.rdb{}.conv{}", "conv_first", "conv_body", "conv_up{}"),
            *("conv_hr", "conv_last"),
        ),
    }[form]
    shapes = _conv(first, takes, channels)
    for index in range(blocks):
        for part in range(1, 4):
            for conv in range(5):
                found = channels if conv == 4 else growth
                name = block.format(index, part, conv + 1)
                shapes |= _conv(name, channels + conv * growth, found)
    shapes |= _conv(inner, channels, channels)
    for number in range(1, doublings + 1):
        shapes |= _conv(up.format(3 * number if form == "old" else number), channels, channels)
    return shapes | _conv(hr, channels, channels) | _conv(last, channels, gives)


def compact_shapes(scale: int = 4, *, channels: int = 64, blocks: int = 16) -> Shapes:
    """SRVGGNetCompact; Real-ESRGAN's general model has 32 blocks, its anime video one 16."""
    shapes = _conv("body.0", 3, channels) | {"body.1.weight": (channels,)}
    for index in range(blocks):
        at = 2 * index + 2
        shapes |= _conv(f"body.{at}", channels, channels) | {f"body.{at + 1}.weight": (channels,)}
    return shapes | _conv(f"body.{2 * blocks + 2}", channels, 3 * scale**2)


def span_shapes(scale: int = 4, *, channels: int = 48, normalised: bool = True) -> Shapes:
    """SPAN, with the convolutions of its training and the merged ones."""
    shapes = _span_conv("conv_1", 3, channels) | _span_conv("conv_2", channels, channels)
    for block in range(1, 7):
        for part in range(1, 4):
            shapes |= _span_conv(f"block_{block}.c{part}_r", channels, channels)
    shapes |= _conv("conv_cat", 4 * channels, channels, 1)
    shapes |= _conv("upsampler.0", channels, 3 * scale**2)
    return shapes if normalised else shapes | {"no_norm": (1,)}


def _span_conv(name: str, takes: int, gives: int) -> Shapes:
    return (
        _conv(f"{name}.sk", takes, gives, 1)
        | _conv(f"{name}.conv.0", takes, 2 * takes, 1)
        | _conv(f"{name}.conv.1", 2 * takes, 2 * gives)
        | _conv(f"{name}.conv.2", 2 * gives, gives, 1)
        | _conv(f"{name}.eval_conv", takes, gives)
    )
