"""The published networks that cut out: their names and shapes, and weights for them."""

import torch

from picowatch.catalog.cutouts import DEPTHS, LEVELS, Shapes, Widths, layers_of

# Channels inside of each stage, and those that it gives, in the order of DEPTHS.
_LARGE = (
    *((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)),
    *((256, 512), (128, 256), (64, 128), (32, 64), (16, 64)),
)
PUBLISHED = {"u2netp": ((16, 64),) * 11, "u2net": _LARGE, "isnet": _LARGE}


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """What is in the file of this name, but for counts of batches."""
    stem = 64 if name == "isnet" else 0
    shapes = _convolution("conv_in", 3, stem, 3) if stem else {}
    gives: dict[str, int] = {}
    takes = stem or 3
    for stage, (inside, wide) in zip(DEPTHS, PUBLISHED[name], strict=True):
        if stage.endswith("d"):
            number = int(stage[5])
            takes += gives[f"stage{number}"]
        for layer, into, out, _ in layers_of(stage, Widths(takes, inside, wide)):
            shapes |= _convolution(f"{stage}.{layer}.conv_s1", into, out, 3)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{stage}.{layer}.bn_s1.{part}"] = (out,)
        gives[stage] = takes = wide
    sides = [gives[f"stage{number}d"] for number in range(1, LEVELS)] + [gives["stage6"]]
    for number, wide in enumerate(sides, 1):
        shapes |= _convolution(f"side{number}", wide, 1, 3)
    return shapes if stem else shapes | _convolution("outconv", LEVELS, 1, 1)


def _convolution(name: str, takes: int, gives: int, side: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (gives, takes, side, side), f"{name}.bias": (gives,)}


def weights(shapes: Shapes) -> dict[str, torch.Tensor]:
    """The same for the same shapes, such that a network's numbers neither vanish nor explode."""
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
