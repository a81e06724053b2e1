"""Writes a full-size Z-Image folder: real shapes and configs, weights that take little disk.

    python -m benchmarks.make_z_image models/checkpoints/Z-Image-Turbo-zeros

In bfloat16 the transformer has 12.3 GB, Qwen3-4B has 8 GB, as their files have. The matrices of
the layers are zeros, written as holes; all else is random. In memory zeros take as much as other
numbers, and multiplying by them takes as long. `--layers 14 --text-layers 18` makes about half.
"""

import argparse
import json
import struct
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from picowatch.engine.models.weights import empty
from tests.engine.pipelines.tiny_flows import FLUX_VAE, flow_scheduler, qwen_tokenizer

_D: Any = diffusers
_T: Any = transformers
_MANY = 2_000_000  # numbers; layers with more become holes
_PARTS = {
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3Model"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "ZImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_TRANSFORMER = {
    "in_channels": 16,
    "dim": 3840,
    "n_refiner_layers": 2,
    "n_heads": 30,
    "n_kv_heads": 30,
    "cap_feat_dim": 2560,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
}
_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    **FLUX_VAE,
}


def _text_config(layers: int) -> Any:
    return _T.Qwen3Config(
        vocab_size=151936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
    )


def write_z_image(folder: Path, layers: int, text_layers: int) -> None:
    """The whole folder."""
    transformer = {**_TRANSFORMER, "n_layers": layers}
    text = _text_config(text_layers)
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "ZImagePipeline", **_PARTS})
    )
    flow_scheduler().save_pretrained(folder / "scheduler")
    qwen_tokenizer().save_pretrained(folder / "tokenizer")
    for name, kind, config in (
        ("transformer", _D.ZImageTransformer2DModel, transformer),
        ("vae", _D.AutoencoderKL, _VAE),
        ("text_encoder", _T.Qwen3Model, text),
    ):
        part = folder / name
        model = empty(kind, config)
        if isinstance(config, dict):
            part.mkdir()
            (part / "config.json").write_text(json.dumps({"_class_name": kind.__name__, **config}))
            file = part / "diffusion_pytorch_model.safetensors"
        else:
            config.save_pretrained(part)
            file = part / "model.safetensors"
        _write(file, {key: tensor.shape for key, tensor in model.state_dict().items()})


def _write(file: Path, shapes: dict[str, torch.Size]) -> None:
    """Random bfloat16 tensors; large ones of layers are holes in the file."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * shape.numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(0)
    with file.open("wb") as written:
        written.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            if "layers." in name and shape.numel() > _MANY:
                continue
            numbers = torch.randn(shape, generator=generator) * 0.02 + float("norm" in name)
            written.seek(8 + len(text) + header[name]["data_offsets"][0])
            written.write(numbers.bfloat16().view(torch.int16).numpy().tobytes())
        written.truncate(8 + len(text) + end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--text-layers", type=int, default=36)
    given = parser.parse_args()
    write_z_image(given.folder, given.layers, given.text_layers)
    total = sum(file.stat().st_size for file in given.folder.rglob("*") if file.is_file())
    print(f"{given.folder}: {total:,} bytes")


if __name__ == "__main__":
    main()
