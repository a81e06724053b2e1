"""UNets, VAEs and text encoders of the original layouts as names and shapes, at full size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Shapes = dict[str, tuple[int, ...]]
Entries = Iterator[tuple[str, tuple[int, ...]]]
UNET = "model.diffusion_model."
VAE = "first_stage_model."
SD15_CLIP = "cond_stage_model.transformer.text_model."
CLIP_L = "conditioner.embedders.0.transformer.text_model."
OPEN_CLIP_G = "conditioner.embedders.1.model."
OPEN_CLIP_H = "cond_stage_model.model."


@dataclass(frozen=True)
class Unet:
    """A UNet of CompVis' make; `depths` are the transformer blocks of each level's attentions."""

    widths: Sequence[int]
    depths: Sequence[int]
    text: int
    blocks: int = 2
    middle: int | None = None  # as the last level; 0 is no attention
    pooled: int = 0
    inputs: int = 4
    convolved: bool = False  # attentions are projected by convolutions


SD15 = Unet((320, 640, 1280, 1280), (1, 1, 1, 0), 768, middle=1, convolved=True)
SDXL = Unet((320, 640, 1280), (0, 2, 10), 2048, pooled=2816)
SD2 = Unet((320, 640, 1280, 1280), (1, 1, 1, 0), 1024, middle=1)
REFINER = Unet((384, 768, 1536, 1536), (0, 4, 4, 0), 1280, middle=4, pooled=2560)
SSD_1B = Unet((320, 640, 1280), (0, 2, 4), 2048, middle=0, pooled=2816)


def unet_shapes(unet: Unet, prefix: str = UNET) -> Shapes:
    """Every tensor of the UNet."""
    return {f"{prefix}{name}": shape for name, shape in _unet(unet)}


def _unet(unet: Unet) -> Entries:
    width = unet.widths[0]
    time = 4 * width
    for name, inputs in (("time_embed", width), ("label_emb.0", unet.pooled)):
        if inputs:
            yield from _linear(f"{name}.0", inputs, time)
            yield from _linear(f"{name}.2", time, time)
    yield from _conv("input_blocks.0.0", unet.inputs, width)
    skips, index = [width], 1
    for level, (outputs, depth) in enumerate(zip(unet.widths, unet.depths, strict=True)):
        for _ in range(unet.blocks):
            yield from _residual(f"input_blocks.{index}.0", width, outputs, time)
            yield from _attention(f"input_blocks.{index}.1", outputs, depth, unet)
            width, index = outputs, index + 1
            skips.append(width)
        if level + 1 < len(unet.widths):
            yield from _conv(f"input_blocks.{index}.0.op", width, width)
            index += 1
            skips.append(width)
    middle = unet.depths[-1] if unet.middle is None else unet.middle
    yield from _residual("middle_block.0", width, width, time)
    yield from _attention("middle_block.1", width, middle, unet)
    yield from _residual("middle_block.2", width, width, time)
    for index in range((unet.blocks + 1) * len(unet.widths)):
        level = len(unet.widths) - 1 - index // (unet.blocks + 1)
        outputs, depth = unet.widths[level], unet.depths[level]
        yield from _residual(f"output_blocks.{index}.0", width + skips.pop(), outputs, time)
        yield from _attention(f"output_blocks.{index}.1", outputs, depth, unet)
        if level and index % (unet.blocks + 1) == unet.blocks:
            yield from _conv(f"output_blocks.{index}.{2 if depth else 1}.conv", outputs, outputs)
        width = outputs
    yield from _norm("out.0", width)
    yield from _conv("out.2", width, 4)


def _residual(name: str, inputs: int, outputs: int, time: int) -> Entries:
    yield from _norm(f"{name}.in_layers.0", inputs)
    yield from _conv(f"{name}.in_layers.2", inputs, outputs)
    yield from _linear(f"{name}.emb_layers.1", time, outputs)
    yield from _norm(f"{name}.out_layers.0", outputs)
    yield from _conv(f"{name}.out_layers.3", outputs, outputs)
    if inputs != outputs:
        yield from _conv(f"{name}.skip_connection", inputs, outputs, 1)


def _attention(name: str, width: int, depth: int, unet: Unet) -> Entries:
    if not depth:
        return
    yield from _norm(f"{name}.norm", width)
    for projection in (f"{name}.proj_in", f"{name}.proj_out"):
        yield from (
            _conv(projection, width, width, 1)
            if unet.convolved
            else _linear(projection, width, width)
        )
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, context in (("attn1", width), ("attn2", unet.text)):
            for part, inputs in (("to_q", width), ("to_k", context), ("to_v", context)):
                yield f"{block}.{attention}.{part}.weight", (width, inputs)
            yield from _linear(f"{block}.{attention}.to_out.0", width, width)
        yield from _linear(f"{block}.ff.net.0.proj", width, 8 * width)
        yield from _linear(f"{block}.ff.net.2", 4 * width, width)
        for number in (1, 2, 3):
            yield from _norm(f"{block}.norm{number}", width)


def _vae_residual(name: str, inputs: int, outputs: int) -> Entries:
    yield from _norm(f"{name}.norm1", inputs)
    yield from _conv(f"{name}.conv1", inputs, outputs)
    yield from _norm(f"{name}.norm2", outputs)
    yield from _conv(f"{name}.conv2", outputs, outputs)
    if inputs != outputs:
        yield from _conv(f"{name}.nin_shortcut", inputs, outputs, 1)


def _vae_middle(name: str, width: int) -> Entries:
    yield from _vae_residual(f"{name}.block_1", width, width)
    yield from _norm(f"{name}.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from _conv(f"{name}.attn_1.{part}", width, width, 1)
    yield from _vae_residual(f"{name}.block_2", width, width)


def vae_file_shapes(prefix: str = "") -> Shapes:
    """Every tensor of the autoencoder kl-f8."""
    return dict(_vae(prefix))


def _vae(prefix: str) -> Entries:
    encoder, decoder = f"{prefix}encoder", f"{prefix}decoder"
    yield from _conv(f"{encoder}.conv_in", 3, 128)
    width = 128
    for level, outputs in enumerate((128, 256, 512, 512)):
        for block in range(2):
            yield from _vae_residual(f"{encoder}.down.{level}.block.{block}", width, outputs)
            width = outputs
        if level < 3:
            yield from _conv(f"{encoder}.down.{level}.downsample.conv", width, width)
    yield from _vae_middle(f"{encoder}.mid", width)
    yield from _norm(f"{encoder}.norm_out", width)
    yield from _conv(f"{encoder}.conv_out", width, 8)
    yield from _conv(f"{decoder}.conv_in", 4, width)
    yield from _vae_middle(f"{decoder}.mid", width)
    for level, outputs in reversed(list(enumerate((128, 256, 512, 512)))):
        for block in range(3):
            yield from _vae_residual(f"{decoder}.up.{level}.block.{block}", width, outputs)
            width = outputs
        if level > 0:
            yield from _conv(f"{decoder}.up.{level}.upsample.conv", width, width)
    yield from _norm(f"{decoder}.norm_out", width)
    yield from _conv(f"{decoder}.conv_out", width, 3)
    yield from _conv(f"{prefix}quant_conv", 8, 8, 1)
    yield from _conv(f"{prefix}post_quant_conv", 4, 4, 1)


def clip_shapes(prefix: str = CLIP_L) -> Shapes:
    """CLIP L in transformers' names."""
    return {f"{prefix}{name}": shape for name, shape in _clip(768, 12)}


def _clip(width: int, layers: int) -> Entries:
    yield "embeddings.token_embedding.weight", (49408, width)
    yield "embeddings.position_embedding.weight", (77, width)
    for index in range(layers):
        layer = f"encoder.layers.{index}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{part}", width, width)
        yield from _norm(f"{layer}.layer_norm1", width)
        yield from _linear(f"{layer}.mlp.fc1", width, 4 * width)
        yield from _linear(f"{layer}.mlp.fc2", 4 * width, width)
        yield from _norm(f"{layer}.layer_norm2", width)
    yield from _norm("final_layer_norm", width)


def open_clip_shapes(prefix: str, width: int, layers: int) -> Shapes:
    """OpenCLIP G (1280, 32 layers) or H (1024, 24 layers) in its own names."""
    return {f"{prefix}{name}": shape for name, shape in _open_clip(width, layers)}


def _open_clip(width: int, layers: int) -> Entries:
    yield "token_embedding.weight", (49408, width)
    yield "positional_embedding", (77, width)
    yield "text_projection", (width, width)
    for index in range(layers):
        block = f"transformer.resblocks.{index}"
        yield from _norm(f"{block}.ln_1", width)
        yield f"{block}.attn.in_proj_weight", (3 * width, width)
        yield f"{block}.attn.in_proj_bias", (3 * width,)
        yield from _linear(f"{block}.attn.out_proj", width, width)
        yield from _norm(f"{block}.ln_2", width)
        yield from _linear(f"{block}.mlp.c_fc", width, 4 * width)
        yield from _linear(f"{block}.mlp.c_proj", 4 * width, width)
    yield from _norm("ln_final", width)


def _conv(name: str, inputs: int, outputs: int, side: int = 3) -> Entries:
    yield f"{name}.weight", (outputs, inputs, side, side)
    yield f"{name}.bias", (outputs,)


def _linear(name: str, inputs: int, outputs: int) -> Entries:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Entries:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def sd15_shapes() -> Shapes:
    """A whole checkpoint of Stable Diffusion 1.5."""
    return unet_shapes(SD15) | vae_file_shapes(VAE) | clip_shapes(SD15_CLIP)


def sdxl_shapes(unet: Unet = SDXL) -> Shapes:
    """A whole checkpoint of Stable Diffusion XL, or of a model with its text encoders."""
    return (
        unet_shapes(unet)
        | vae_file_shapes(VAE)
        | clip_shapes()
        | open_clip_shapes(OPEN_CLIP_G, 1280, 32)
    )


def sd2_shapes(unet: Unet = SD2) -> Shapes:
    """A whole checkpoint of Stable Diffusion 2.x."""
    return unet_shapes(unet) | vae_file_shapes(VAE) | open_clip_shapes(OPEN_CLIP_H, 1024, 24)
