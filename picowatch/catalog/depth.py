"""Recognises Depth Anything: a model that guesses how far away the things in a picture are.

Only its folder in transformers' layout is used: DepthAnythingForDepthEstimation
(https://huggingface.co/docs/transformers/model_doc/depth_anything).
"""

from pathlib import Path
from typing import Any

from picowatch.catalog.configs import known_values, read_json
from picowatch.catalog.folder_files import check_files, check_weights
from picowatch.catalog.models import Recognised
from picowatch.errors import ModelRefused

# What the model consists of; with anything else transformers might fetch or run something.
_KNOWN = """
    patch_size reassemble_hidden_size reassemble_factors neck_hidden_sizes fusion_hidden_size
    head_in_index head_hidden_size depth_estimation_type max_depth
"""
_KNOWN_BACKBONE = """
    hidden_size num_hidden_layers num_attention_heads mlp_ratio hidden_act layer_norm_eps
    image_size patch_size num_channels qkv_bias layerscale_value use_swiglu_ffn out_features
    out_indices apply_layernorm reshape_hidden_states use_mask_token
"""


def recognise_depth_folder(folder: Path) -> Recognised:
    """A folder of Depth Anything; ModelRefused says what else it is, or what is missing."""
    check_files(folder)
    depth_config(folder)
    check_weights(folder)
    return Recognised("depth", "")


def depth_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The known values of its config, and of that of its backbone."""
    values = read_json(folder / "config.json")
    if values.get("model_type") != "depth_anything":
        raise ModelRefused("is not a folder of Depth Anything, which guesses depth.")
    backbone = values.get("backbone_config")
    if not isinstance(backbone, dict) or backbone.get("model_type") != "dinov2":
        raise ModelRefused("is Depth Anything with an unknown backbone: DINOv2 is supported.")
    return (
        known_values("config.json", values, _KNOWN.split()),
        known_values("its backbone_config", backbone, _KNOWN_BACKBONE.split()),
    )
