"""Tiny folders of networks that find places by words: transformers' classes with random weights.

Their tokenizers are the smallest possible, so words mean nothing to them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.engine.tiny_flows import BERT_WORDS, LETTERS, TOKENIZERS, clip_tokenizer

_T: Any = transformers
# fmt: off
_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
_TEXT = {
    **_SMALL, "vocab_size": 2 * len(LETTERS) + 2, "num_hidden_layers": 2, "projection_dim": 32,
    "bos_token_id": 2 * len(LETTERS), "eos_token_id": 2 * len(LETTERS) + 1,
}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_SWIN = {
    "model_type": "swin", "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8],
    "window_size": 4, "out_indices": [2, 3, 4], "image_size": 64,
}
_BERT = {
    **_SMALL, "model_type": "bert", "vocab_size": len(BERT_WORDS), "num_hidden_layers": 2,
    "max_position_embeddings": 256,
}
_DETR = {
    f"{part}_{what}": number
    for part in ("encoder", "decoder")
    for what, number in {"attention_heads": 4, "ffn_dim": 64, "layers": 2}.items()
}
_SAM: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_dim": 64,
        "image_size": 64, "patch_size": 8, "output_channels": 16, "window_size": 4,
        "global_attn_indexes": [1], "num_pos_feats": 8,
    },
    "prompt_encoder_config": {
        "hidden_size": 16, "image_size": 64, "patch_size": 8, "image_embedding_size": 8,
    },
    "mask_decoder_config": {
        "hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    },
}
_SAM3_BACKBONE = {
    **_SMALL, "model_type": "sam3_vit_model", "num_hidden_layers": 2, "image_size": 112,
    "patch_size": 14, "window_size": 4, "global_attn_indexes": [1], "pretrain_image_size": 56,
}
# fmt: on


def write_words(folder: Path, name: str) -> None:
    """Write the tokenizer of a kind; SAM has none."""
    if name in ("clipseg", "sam3"):
        clip_tokenizer("<|endoftext|>").save_pretrained(folder)
    elif name == "grounding-dino":
        TOKENIZERS["BertTokenizer"]("").save_pretrained(folder)


def clipseg(folder: Path) -> None:
    config = _T.CLIPSegConfig(
        text_config=_TEXT | {"max_position_embeddings": 77},
        vision_config=_SMALL | {"num_hidden_layers": 3, "image_size": 64, "patch_size": 8},
        projection_dim=32,
        reduce_dim=16,
        extract_layers=[0, 1, 2],
        decoder_num_attention_heads=4,
        decoder_intermediate_size=32,
    )
    model = _T.CLIPSegForImageSegmentation(config)
    model.decoder.transposed_convolution.weight.data.mul_(0.02)  # else each score is 1
    _save(model, folder)
    _T.ViTImageProcessorPil(size={"height": 64, "width": 64}, **_IMAGENET).save_pretrained(folder)


def grounding_dino(folder: Path) -> None:
    sizes = {"d_model": 32, "num_queries": 20, "num_feature_levels": 4, **_DETR}
    config = _T.GroundingDinoConfig(backbone_config=_SWIN, text_config=_BERT, **sizes)
    model = _T.GroundingDinoForObjectDetection(config)
    model.model.decoder.layer_norm.weight.data.fill_(0.01)  # else each score is 1
    _save(model, folder)
    size = {"shortest_edge": 128, "longest_edge": 192}
    _T.GroundingDinoImageProcessorPil(size=size).save_pretrained(folder)


def sam(folder: Path) -> None:
    _save(_T.SamModel(_T.SamConfig(**_SAM)), folder, times=5)
    sides = {"size": 64, "mask_size": 16}
    _T.SamImageProcessorPil(
        **{name: {"longest_edge": side} for name, side in sides.items()},
        pad_size={"height": 64, "width": 64},
        mask_pad_size={"height": 16, "width": 16},
    ).save_pretrained(folder)


def sam3(folder: Path) -> None:
    config = _T.Sam3Config(
        vision_config={
            "backbone_config": _SAM3_BACKBONE,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config=_TEXT | {"max_position_embeddings": 32},
        geometry_encoder_config=_SMALL | {"num_layers": 1},
        detr_encoder_config=_SMALL | {"num_layers": 1},
        detr_decoder_config=_SMALL | {"num_layers": 1, "num_queries": 10},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 4},
    )
    _save(_T.Sam3Model(config), folder)
    half = [0.5] * 3
    values = {"size": {"height": 112, "width": 112}, "image_mean": half, "image_std": half}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def _save(model: Any, folder: Path, times: float = 3) -> None:
    """Save a model with weights so large that its answers differ from place to place."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(times)
    model.eval().save_pretrained(folder)


MAKERS: dict[str, Callable[[Path], None]] = {
    "clipseg": clipseg,
    "grounding-dino": grounding_dino,
    "sam": sam,
    "sam3": sam3,
}


def make(folder: Path, name: str) -> Path:
    torch.manual_seed(1)
    MAKERS[name](folder)
    write_words(folder, name)
    return folder
