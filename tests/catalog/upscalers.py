"""The shapes of upscalers, as their authors' files have them, and small ones of the same kinds."""

from tests.catalog.files import Shapes


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
