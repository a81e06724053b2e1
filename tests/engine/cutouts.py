"""The published cutout networks: their names and shapes, and weights for them."""

import torch

from picowatch.catalog.cutouts import DEPTHS, Layout, Shapes, Widths, tensors_of

# Channels inside of each stage, and those that it gives, in the order of DEPTHS.
_LARGE = (
    *((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)),
    *((256, 512), (128, 256), (64, 128), (32, 64), (16, 64)),
)
PUBLISHED = {"u2netp": ((16, 64),) * 11, "u2net": _LARGE, "isnet": _LARGE}


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return the tensors of the published file of this name, without counts of batches."""
    stem = 64 if name == "isnet" else 0
    stages: dict[str, Widths] = {}
    takes = stem or 3
    for stage, (inside, wide) in zip(DEPTHS, PUBLISHED[name], strict=True):
        if stage.endswith("d"):
            takes += stages[stage.removesuffix("d")].gives
        stages[stage] = Widths(takes, inside, wide)
        takes = wide
    return dict(tensors_of(Layout(stem, stages)))


def weights(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Return weights by the shapes, with which a network's values neither vanish nor explode."""
    made: dict[str, torch.Tensor] = {}
    for name in sorted(shapes):
        noise = torch.randn(shapes[name], generator=torch.Generator().manual_seed(len(made)))
        if name.endswith(("running_var", "bn_s1.weight")):
            noise = noise.abs() * 0.2 + 0.9
        elif noise.ndim == 1:
            noise = noise * 0.1
        else:
            noise = noise * (2 / noise[0].numel()) ** 0.5
        made[name] = noise
    return made
