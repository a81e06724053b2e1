"""Model files that are headers only: real key names and shapes, sparse weights."""

from pathlib import Path

from benchmarks.make_sd15 import checkpoint_shapes, header, vae_shapes

Shapes = dict[str, tuple[int, ...]]

UNET = "model.diffusion_model."
UNET_INPUT = f"{UNET}input_blocks.0.0.weight"
UNET_CROSS = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
TEXT = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"


def write_model(path: Path, shapes: Shapes, missing_bytes: int = 0) -> Path:
    """A safetensors file of the right size whose weights are a hole; `missing_bytes` cut it off."""
    head = header(shapes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + _weight_bytes(shapes) - missing_bytes)
    return path


def sd15_shapes() -> Shapes:
    """A whole Stable Diffusion 1.5 checkpoint."""
    return checkpoint_shapes()


def vae_file_shapes(prefix: str = "") -> Shapes:
    """A VAE by itself, as kohya's tools (bare) or a cut-out checkpoint (prefix) have it."""
    return dict(vae_shapes(prefix))


def kohya_lora_shapes() -> Shapes:
    """One adapted layer, in kohya's names."""
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    return {
        f"{layer}.alpha": (),
        f"{layer}.lora_down.weight": (8, 768),
        f"{layer}.lora_up.weight": (320, 8),
    }


def _weight_bytes(shapes: Shapes) -> int:
    total = 0
    for shape in shapes.values():
        count = 1
        for side in shape:
            count *= side
        total += 2 * count
    return total
