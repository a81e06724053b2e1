"""Tensors of diffusers' transformers in their authors' names, as single files have them.

What diffusers' converters do (loaders/single_file_utils.py), the other way round. "#0", "#1" … in
a new name say that these tensors are one there, in this order.
"""

import re
from collections.abc import Callable, Iterable

import torch

Tensors = dict[str, torch.Tensor]
Rules = Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]


def renamed(state: Tensors, rules: Rules) -> Tensors:
    """Each rule is a regular expression and what replaces it, one after the other."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        whole, mark, rest = name.partition("#")
        groups.setdefault(whole + rest[1:], {})[rest[:1] if mark else ""] = tensor
    return {
        name: torch.cat([parts[number] for number in sorted(parts)])
        for name, parts in groups.items()
    }


def _swapped(state: Tensors, *words: str) -> Tensors:
    """Swap shift and scale, which diffusers has in the other order."""
    return {
        name: torch.cat(tensor.chunk(2)[::-1]) if any(word in name for word in words) else tensor
        for name, tensor in state.items()
    }


def _qkv(found: re.Match[str]) -> str:
    """The number of q, k or v, which is the last group."""
    return f"qkv#{'qkv'.index(found[found.re.groups])}"


_WAN: Rules = (
    (r"mid_block\.resnets\.0\.", "middle.0."),
    (r"mid_block\.attentions\.0\.", "middle.1."),
    (r"mid_block\.resnets\.1\.", "middle.2."),
    (r"down_blocks\.(\d+)\.", r"downsamples.\1."),
    (r"up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}."),
    (r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"upsamples.{4 * int(m[1]) + 3}."),
    (r"norm1\.", "residual.0."),
    (r"conv1\.", "residual.2."),
    (r"conv_shortcut\.", "shortcut."),
    (r"norm2\.", "residual.3."),
    (r"conv2\.", "residual.6."),
    (r"norm_out\.", "head.0."),
    (r"conv_out\.", "head.2."),
    (r"^post_quant_conv\.", "conv2."),
    (r"^quant_conv\.", "conv1."),
    (r"\.conv_in\.", ".conv1."),
)


def wan_names(state: Tensors) -> Tensors:
    """The names of Wan's authors."""
    return renamed(state, _WAN)


_Z_IMAGE: Rules = (
    (r"\.to_([qkv])\.", lambda found: f".{_qkv(found)}."),
    (r"\.to_out\.0\.", ".out."),
    (r"\.norm_([qk])\.", r".\1_norm."),
    (r"all_(x_embedder|final_layer)\.2-1", r"\1"),
)


def z_image_names(state: Tensors) -> Tensors:
    """The names of Z-Image's authors."""
    return renamed(state, _Z_IMAGE)
