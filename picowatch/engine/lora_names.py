"""What LoRA files call the layers of a checkpoint.

Trainers join a module's name with dots or underscores, after many prefixes: compared as flat text,
these are the modules' own names.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from picowatch.engine.lycoris import FACTOR

Layer = nn.Linear | nn.Conv2d


class LayerId(NamedTuple):
    """A part of the pipeline by diffusers' name, and a module in it."""

    part: str
    module: str


# The end of a key, which says what the tensor is of its layer.
ROLE = re.compile(
    r"\.lora_(?P<role>down|up|mid|A|B)(?:\.\w+)?\.weight$"
    # diffusers before it used peft: `to_q_lora.down`, `to_q.lora.down`, `lora_linear_layer.down`;
    # and XLabs', where the number is part of the layer's name: `qkv_lora1.down`.
    r"|(?:_lora|\.lora|\.lora_linear_layer|(?<=_lora[12]))\.(?P<old>down|up)\.weight$"
    r"|(?:_lora|\.lora|\.lora_linear_layer)?\.(?P<alpha>alpha)$"
    rf"|\.(?P<factor>{FACTOR})(?:\.weight)?$"
)
PEFT_ROLES = {"A": "down", "B": "up"}
DIFFERENCE = re.compile(r"\.diff(_b)?$")
# What is no product of matrices alone, by its tensors' names.
OTHER_KINDS = {
    "a DoRA": re.compile(r"\.dora_scale$|\.lora_magnitude_vector\b"),
    "a file of whole differences": DIFFERENCE,
    "an OFT": re.compile(r"\.b?oft_"),
    "an (IA)³": re.compile(r"\.on_input$"),
    "a LoRA with biases": re.compile(r"\.lora_B(\.\w+)?\.bias$"),
}
DENOISER = re.compile(
    r"^(?:base_model\.model\.|(?:lora_unet|lora_transformer|lycoris)_"
    r"|(?:model\.diffusion_model|diffusion_model|transformer|unet)\.)+"
)
_ENCODERS = {
    "text_encoder": r"lora_te1?_|text_encoder\.|text_encoders\.clip_[lh]\.transformer\.",
    "text_encoder_2": r"lora_te2_|text_encoder_2\.|text_encoders\.clip_g\.transformer\.",
    "text_encoder_3": r"lora_te3_|text_encoder_3\.|text_encoders\.t5xxl\.transformer\.",
}
_ENCODER = re.compile(
    r"^(?:base_model\.model\.)?(?:"
    + "|".join(f"(?P<{part}>{prefix})" for part, prefix in _ENCODERS.items())
    + ")"
)
# The names of the authors of Lumina 2 and Stable Diffusion 3 that diffusers does not convert, or
# only with whole blocks; a name in braces stands for several, whose outputs follow each other.
_X_BLOCK, _CONTEXT = r"joint_blocks_(\d+)_x_block_", r"joint_blocks_(\d+)_context_block_"
_AUTHORS_NAMES = [
    (re.compile(theirs), ours)
    for theirs, ours in {
        r"(.+_\d+_)attention_qkv": r"\1attn_to_{q,k,v}",
        r"(.+_\d+_)attention_out": r"\1attn_to_out_0",
        r"(.+_\d+_feed_forward_)w([123])": r"\1linear_\2",
        r"((?:layers|noise_refiner)_\d+_)adaLN_modulation_1": r"\1norm1_linear",
        _X_BLOCK + r"attn(2?)_qkv": r"transformer_blocks_\1_attn\2_to_{q,k,v}",
        _X_BLOCK + r"attn(2?)_proj": r"transformer_blocks_\1_attn\2_to_out_0",
        _X_BLOCK + r"mlp_fc1": r"transformer_blocks_\1_ff_net_0_proj",
        _X_BLOCK + r"mlp_fc2": r"transformer_blocks_\1_ff_net_2",
        _X_BLOCK + r"adaLN_modulation_1": r"transformer_blocks_\1_norm1_linear",
        _CONTEXT + r"attn_qkv": r"transformer_blocks_\1_attn_{add_q,add_k,add_v}_proj",
        _CONTEXT + r"attn_proj": r"transformer_blocks_\1_attn_to_add_out",
        _CONTEXT + r"mlp_fc1": r"transformer_blocks_\1_ff_context_net_0_proj",
        _CONTEXT + r"mlp_fc2": r"transformer_blocks_\1_ff_context_net_2",
        _CONTEXT + r"adaLN_modulation_1": r"transformer_blocks_\1_norm1_context_linear",
    }.items()
]
# In Stable Diffusion 3's last block this has but shift and scale, in diffusers scale and shift.
_SHIFT_FIRST = re.compile(r"context_block[._]adaLN_modulation[._]1$")


class Modules:
    """The linear layers and convolutions of a pipeline's denoiser and text encoders."""

    def __init__(self, denoiser: str, models: Mapping[str, nn.Module]) -> None:
        self._denoiser = denoiser
        self._encoders = sorted(models.keys() - {denoiser})
        self.by_id: dict[LayerId, Layer] = {
            LayerId(part, name): module
            for part, model in models.items()
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d) and getattr(module, "groups", 1) == 1
        }
        self._by_flat_name = {(one.part, _flat(one.module)): one for one in self.by_id}

    def split(self, layer: str) -> tuple[str, str]:
        """The part that a file's layer belongs to, and the rest of its name.

        Names without a part are the denoiser's, as diffusers first wrote them.
        """
        encoder = _ENCODER.match(layer)
        if encoder is None:
            return self._denoiser, DENOISER.sub("", layer)
        part = str(encoder.lastgroup)
        # kohya and ComfyUI count T5 as the third, as Stable Diffusion 3 has it: it is the last.
        if part == "text_encoder_3" and self._encoders:
            part = self._encoders[-1]
        return part, layer[encoder.end() :]

    def find(self, layer: str) -> tuple[LayerId, ...]:
        """The modules that a file's layer stands for, which are several where its outputs are.

        () if there are none.
        """
        part, name = self.split(layer)
        flat = _flat(name)
        if part != self._denoiser:
            # diffusers 0.16 called CLIP's layers as it calls the UNet's.
            flat = re.sub(r"attn_to_(q|k|v|out)$", r"attn_\1_proj", flat)
        for one in (flat, f"{flat}_0"):  # `to_out` stands for `to_out.0`
            if (part, one) in self._by_flat_name:
                return (self._by_flat_name[part, one],)
        for theirs, ours in _AUTHORS_NAMES:
            if match := theirs.fullmatch(flat):
                names = _expanded(match.expand(ours))
                found = [self._by_flat_name.get((part, each)) for each in names]
                return tuple(each for each in found if each) if None not in found else ()
        return ()

    def shift_is_first(self, layer: str, target: LayerId) -> bool:
        """Whether the halves of a layer's outputs are in another order than its module's."""
        module = self.by_id[target]
        return (
            _SHIFT_FIRST.search(layer) is not None
            and isinstance(module, nn.Linear)
            and module.out_features == 2 * module.in_features
        )


def _flat(name: str) -> str:
    """Without what differs from version to version: `text_model` and attention's `processor`."""
    return name.replace(".", "_").replace("_processor_", "_").removeprefix("text_model_")


def _expanded(name: str) -> list[str]:
    """The names that one with braces stands for."""
    before, brace, rest = name.partition("{")
    choices, _, after = rest.partition("}")
    return [before + choice + after for choice in choices.split(",")] if brace else [name]
