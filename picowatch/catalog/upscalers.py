"""Recognises upscalers: networks that enlarge pixels, by the names and shapes in their headers.

Layouts, each from its authors' code: ESRGAN's RRDBNet (https://github.com/xinntao/ESRGAN, with two
older sets of names; https://github.com/xinntao/Real-ESRGAN, from whose BasicSR ours are), Compact
(SRVGGNetCompact, Real-ESRGAN) and SPAN (https://github.com/hongyuanyu/SPAN). How other
architectures are known: the tables of https://github.com/chaiNNer-org/spandrel.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt

from picowatch.errors import ModelRefused

ESRGAN, COMPACT, SPAN = "ESRGAN", "Compact", "SPAN"
SPAN_BLOCKS = 6
_COLOURS = 3
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A network as its shapes tell it; `names` has the file's names by ours.

    `scale` is how much larger a side becomes. ESRGAN has `blocks` of dense layers that add `growth`
    channels each, doubles the size `doublings` times, and begins by folding squares of `unshuffle`
    pixels into channels. Compact has `blocks` convolutions. `normalised`: SPAN takes numbers around
    0.
    """

    architecture: str
    scale: int
    channels: int
    blocks: int
    growth: int = 0
    doublings: int = 0
    unshuffle: int = 1
    normalised: bool = False
    names: Mapping[str, str] = field(default_factory=dict)


# A weight that tells an architecture by its name or a part of it.
_OTHERS = {
    ".conv1x1.": "ESRGAN+",
    "residual_group.overlap_attn.": "HAT",
    "relative_position_index_SA": "ATD",
    "patch_embed.proj.weight": "Swin2SR",
    "residual_group.hf_blocks.": "CRAFT",
    "layers.0.residual_group.blocks.0.norm1.weight": "SwinIR",
    "layers.0.blocks.0.attn.attns.0.rpe_biases": "RGT",
    "layers.0.blocks.0.ffn.sg.": "DAT",
    "before_RG.1.weight": "DAT",
    "layers.0.swin1.norm1.weight": "DRCT",
    "residual_layer.0.residual_layer.0.layer.": "OmniSR",
    "feats.1.channe_mixer.": "RealPLKSR",
    "feats.1.channel_mixer.": "RealPLKSR",
    "feats.1.lk.": "PLKSR",
    "feats.0.safm.": "SAFMN",
    "gblocks.0.weight": "MoSR",
    "unet1.conv1.conv.0.weight": "Real-CUGAN",
    "body.0.body.0.body.3.conv_du.": "RCAN",
    "m_head.0.weight": "SCUNet",
    "window_attn.attn_transform.logit_scale": "GRL",
    "UFONE.0.ITLs.": "DITN",
    "stylegan_decoder.": "GFPGAN, which restores faces",
    "quantize.embedding.weight": "a model that restores faces",
}
_KNOWN = "picowatch runs ESRGAN, Compact and SPAN."

# ESRGAN's names in BasicSR, which are ours, by the others'.
_OLD_BLOCK = re.compile(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(weight|bias)")
_TRUNK_BLOCK = re.compile(r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)\.(weight|bias)")
_NEW_BLOCK = re.compile(r"body\.(\d+)\.rdb(\d)\.conv(\d)\.(weight|bias)")
_TRUNK_NAMES = {
    "conv_first": "conv_first",
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "upconv3": "conv_up3",
    "HRconv": "conv_hr",
    "conv_last": "conv_last",
}
_NEW_NAMES = {name: name for name in _TRUNK_NAMES.values()}


def layout_of(shapes: Shapes) -> Layout | None:
    """The network whose weights these are; None for no upscaler at all.

    ModelRefused for one that picowatch cannot run.
    """
    for mark, name in _OTHERS.items():
        if any(mark in weight for weight in shapes):
            raise ModelRefused(f"is an upscaler by {name}: not supported. {_KNOWN}")
    if "model.1.sub.0.RDB1.conv1.0.weight" in shapes:
        return _esrgan(shapes, _OLD_BLOCK, _old_names(shapes))
    if "RRDB_trunk.0.RDB1.conv1.weight" in shapes:
        return _esrgan(shapes, _TRUNK_BLOCK, _TRUNK_NAMES)
    if "body.0.rdb1.conv1.weight" in shapes:
        return _esrgan(shapes, _NEW_BLOCK, _NEW_NAMES)
    if "conv_1.sk.weight" in shapes and "block_1.c1_r.sk.weight" in shapes:
        return _span(shapes)
    if len(shapes.get("body.0.weight", ())) == 4 and len(shapes.get("body.1.weight", ())) == 1:
        return _compact(shapes)
    return None


def _esrgan(shapes: Shapes, block: re.Pattern[str], named: Mapping[str, str]) -> Layout:
    names: dict[str, str] = {}
    for name in shapes:
        found = block.fullmatch(name)
        layer, _, kind = name.rpartition(".")
        if found:
            index, part, conv, kind = found.groups()
            names[f"body.{int(index)}.rdb{part}.conv{conv}.{kind}"] = name
        elif layer in named:
            names[f"{named[layer]}.{kind}"] = name
    indexes = {int(name.split(".")[1]) for name in names if name.startswith("body.")}
    blocks = len(indexes)
    if max(indexes) != blocks - 1:
        raise ModelRefused(_unknown(ESRGAN))
    doublings = sum(f"conv_up{number}.weight" in names for number in (1, 2, 3))
    first = _shape(shapes, names, "conv_first.weight")
    _expect_colours(_shape(shapes, names, "conv_last.weight")[0])
    unshuffle = isqrt(first[1] // _COLOURS)
    _expect_colours(first[1], _COLOURS * unshuffle**2)
    scale, rest = divmod(2**doublings, unshuffle)
    if rest or unshuffle not in (1, 2, 4) or not scale:
        raise ModelRefused(_unknown(ESRGAN))
    growth = _shape(shapes, names, "body.0.rdb1.conv1.weight")[0]
    if any(
        _shape(shapes, names, f"conv_up{number + 1}.weight")[0] != first[0]
        for number in range(doublings)
    ):
        raise ModelRefused("is an ESRGAN that enlarges by pixel shuffle: not supported.")
    return Layout(ESRGAN, scale, first[0], blocks, growth, doublings, unshuffle, names=names)


def _old_names(shapes: Shapes) -> dict[str, str]:
    """The names of the first ESRGAN, whose layers are numbered: three a doubling, then two."""
    numbers = [int(name.split(".")[1]) for name in shapes if re.match(r"model\.\d{1,3}\.", name)]
    trunk = (re.match(r"model\.1\.sub\.(\d{1,5})\.weight", name) for name in shapes)
    inner = [int(found[1]) for found in trunk if found]
    last = max(numbers)
    if (last - 4) % 3 or not inner:
        raise ModelRefused(_unknown(ESRGAN))
    ups = {f"model.{3 * number}": f"conv_up{number}" for number in range(1, (last - 4) // 3 + 1)}
    return {
        "model.0": "conv_first",
        f"model.1.sub.{inner[0]}": "conv_body",
        **ups,
        f"model.{last - 2}": "conv_hr",
        f"model.{last}": "conv_last",
    }


def _compact(shapes: Shapes) -> Layout:
    """Convolutions with a PReLU after each but the last, whose channels become pixels."""
    numbers = [int(found[1]) for name in shapes if (found := re.match(r"body\.(\d{1,5})\.", name))]
    last = max(numbers)
    first, prelu = shapes["body.0.weight"], shapes["body.1.weight"]
    end = shapes.get(f"body.{last}.weight", ())
    if last % 2 or len(end) != 4 or prelu != first[:1] or len({*numbers}) != last + 1:
        raise ModelRefused(_unknown(COMPACT))
    _expect_colours(first[1])
    scale = _scale_of(end[0], COMPACT)
    names = {name: name for name in shapes if name.startswith("body.")}
    return Layout(COMPACT, scale, first[0], last // 2 - 1, names=names)


def _span(shapes: Shapes) -> Layout:
    first, last = shapes["conv_1.sk.weight"], shapes.get("upsampler.0.weight", ())
    if len(first) != 4 or len(last) != 4:
        raise ModelRefused(_unknown(SPAN))
    _expect_colours(first[1])
    names = {name: name for name in shapes if name != "no_norm" and ".eval_conv." not in name}
    return Layout(
        SPAN,
        _scale_of(last[0], SPAN),
        first[0],
        SPAN_BLOCKS,
        normalised="no_norm" not in shapes,
        names=names,
    )


def _scale_of(channels: int, architecture: str) -> int:
    """The scale at which so many channels become pixels of three colours."""
    scale = isqrt(channels // _COLOURS)
    if not scale or channels != _COLOURS * scale**2:
        raise ModelRefused(_unknown(architecture))
    return scale


def _expect_colours(channels: int, expected: int = _COLOURS) -> None:
    if channels != expected:
        raise ModelRefused(
            f"is an upscaler for pictures of {channels} channels: not supported. {_KNOWN} "
            "They take three, red, green and blue."
        )


def _shape(shapes: Shapes, names: Mapping[str, str], name: str) -> Sequence[int]:
    """The four sides of a convolution's weights."""
    shape = shapes.get(names.get(name, ""), ())
    if len(shape) != 4:
        raise ModelRefused(_unknown(ESRGAN))
    return shape


def _unknown(architecture: str) -> str:
    return f"is an upscaler by {architecture} in a form that is not known: not supported."
