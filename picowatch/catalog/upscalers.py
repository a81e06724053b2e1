"""Recognises upscalers, networks that enlarge pixels, by the names and shapes in their headers.

The layouts are from their authors' code: ESRGAN's RRDBNet (https://github.com/xinntao/ESRGAN, with
two older sets of names; https://github.com/xinntao/Real-ESRGAN, with the names of BasicSR, which
picowatch uses), Compact (SRVGGNetCompact, Real-ESRGAN) and SPAN
(https://github.com/hongyuanyu/SPAN).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt

ESRGAN, COMPACT, SPAN = "ESRGAN", "Compact", "SPAN"
SPAN_BLOCKS = 6
_COLOURS = 3
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A network as its shapes tell it."""

    architecture: str
    scale: int  # the factor of a side
    channels: int
    blocks: int  # Compact's convolutions, or ESRGAN's blocks of dense layers, …
    growth: int = 0  # … each of which adds so many channels
    doublings: int = 0  # of the size in ESRGAN, …
    unshuffle: int = 1  # … which begins by folding squares of so many pixels into channels
    normalised: bool = False  # SPAN takes values around 0
    names: Mapping[str, str] = field(default_factory=dict)  # the file's by picowatch's


# ESRGAN's blocks in all sets of names, and BasicSR's names of other layers, by the older names.
_BLOCK = re.compile(
    r"(?:model\.1\.sub|RRDB_trunk|body)\.(\d+)\.(?:RDB|rdb)(\d)\.conv(\d)(?:\.0)?\.(weight|bias)"
)
_TRUNK_NAMES = {
    "conv_first": "conv_first", "trunk_conv": "conv_body", "upconv1": "conv_up1",
    "upconv2": "conv_up2", "upconv3": "conv_up3", "HRconv": "conv_hr", "conv_last": "conv_last",
}  # fmt: skip
_NAMES = _TRUNK_NAMES | {name: name for name in _TRUNK_NAMES.values()}


def layout_of(shapes: Shapes) -> Layout | None:
    """Return the network that has exactly these weights; None for any other."""
    try:
        if "model.1.sub.0.RDB1.conv1.0.weight" in shapes:
            return _esrgan(shapes, _old_names(shapes))
        if shapes.keys() & {"RRDB_trunk.0.RDB1.conv1.weight", "body.0.rdb1.conv1.weight"}:
            return _esrgan(shapes, _NAMES)
        if "conv_1.sk.weight" in shapes and "block_1.c1_r.sk.weight" in shapes:
            return _span(shapes)
        if len(shapes.get("body.0.weight", ())) == 4 and len(shapes.get("body.1.weight", ())) == 1:
            return _compact(shapes)
    except (LookupError, ValueError, ArithmeticError):
        pass
    return None


def _esrgan(shapes: Shapes, named: Mapping[str, str]) -> Layout | None:
    names: dict[str, str] = {}
    for name in shapes:
        match = _BLOCK.fullmatch(name)
        layer, _, kind = name.rpartition(".")
        if match:
            index, part, conv, kind = match.groups()
            names[f"body.{int(index)}.rdb{part}.conv{conv}.{kind}"] = name
        elif layer in named:
            names[f"{named[layer]}.{kind}"] = name
    blocks = len({name.split(".")[1] for name in names if name.startswith("body.")})
    doublings = sum(f"conv_up{number}.weight" in names for number in (1, 2, 3))
    channels, inputs, _, _ = shapes[names["conv_first.weight"]]
    growth, _, _, _ = shapes[names["body.0.rdb1.conv1.weight"]]
    colours, _, _, _ = shapes[names["conv_last.weight"]]
    unshuffle = isqrt(inputs // _COLOURS)
    scale, rest = divmod(2**doublings, unshuffle)
    widths = {shapes[names[f"conv_up{number + 1}.weight"]][0] for number in range(doublings)}
    found = len(names), colours, inputs, rest
    if found != (len(shapes), _COLOURS, _COLOURS * unshuffle**2, 0) or not widths <= {channels}:
        return None
    last = f"body.{blocks - 1}.rdb1.conv1.weight"
    if not scale or unshuffle not in (1, 2, 4) or last not in names:
        return None
    return Layout(ESRGAN, scale, channels, blocks, growth, doublings, unshuffle, names=names)


def _old_names(shapes: Shapes) -> dict[str, str]:
    """Return the names of the first ESRGAN's numbered layers: three per doubling, then two."""
    numbers = [int(name.split(".")[1]) for name in shapes if re.match(r"model\.\d{1,3}\.", name)]
    trunk = (re.match(r"model\.1\.sub\.(\d{1,5})\.weight", name) for name in shapes)
    (inner,) = (int(found[1]) for found in trunk if found)
    last = max(numbers)
    return {
        "model.0": "conv_first",
        f"model.1.sub.{inner}": "conv_body",
        **{f"model.{3 * up}": f"conv_up{up}" for up in range(1, (last - 4) // 3 + 1)},
        f"model.{last - 2}": "conv_hr",
        f"model.{last}": "conv_last",
    }


def _compact(shapes: Shapes) -> Layout | None:
    """Recognise convolutions with PReLUs between them; the last channels become pixels."""
    names = {name: name for name in shapes if re.match(r"body\.\d{1,5}\.", name)}
    numbers = {int(name.split(".")[1]) for name in names}
    last = max(numbers)
    channels, inputs, _, _ = shapes["body.0.weight"]
    outputs, _, _, _ = shapes[f"body.{last}.weight"]
    scale = _scale_of(outputs)
    whole = len(names) == len(shapes) and len(numbers) == last + 1 and last % 2 == 0
    if not (whole and scale) or inputs != _COLOURS or shapes["body.1.weight"] != (channels,):
        return None
    return Layout(COMPACT, scale, channels, last // 2 - 1, names=names)


def _span(shapes: Shapes) -> Layout | None:
    channels, inputs, _, _ = shapes["conv_1.sk.weight"]
    outputs, _, _, _ = shapes["upsampler.0.weight"]
    scale = _scale_of(outputs)
    if not scale or inputs != _COLOURS:
        return None
    names = {name: name for name in shapes if name != "no_norm" and ".eval_conv." not in name}
    normalised = "no_norm" not in shapes
    return Layout(SPAN, scale, channels, SPAN_BLOCKS, normalised=normalised, names=names)


def _scale_of(channels: int) -> int:
    """Return the scale at which the channels become pixels of three colours, or 0."""
    scale = isqrt(channels // _COLOURS)
    return scale if channels == _COLOURS * scale**2 else 0
