"""LoRA files: whatever kind and scale they have, the halves of each layer are found."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from torch import nn

import picowatch
from picowatch.engine.loras import read_lora
from picowatch.errors import RenderFailed
from tests.engine.adapters import RANK, Tensors, random_layer, write

_D: Any = diffusers
ASSETS = Path(picowatch.__file__).parent / "assets"
ATTN = "transformer_blocks.0.attn"


def pipeline(kind: Any, **parts: Any) -> Any:
    """One with these parts alone."""
    made = kind.__new__(kind)
    made.__dict__ |= parts
    return made


def modules(tensors: Tensors, folder: Path, found: Any, **metadata: str) -> Tensors:
    """The modules by name, with what is added to their weights."""
    path = write(folder / "it.safetensors", tensors, metadata or None)
    given, unused = read_lora("it", path, found)
    assert not unused
    return {
        key.removesuffix(".lora_A.weight"): torch.einsum(
            "or,r...->o...", given[key.replace("lora_A", "lora_B")].float().flatten(1), down.float()
        )
        for key, down in given.items()
        if "lora_A" in key
    }


KOHYA = ("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight")
COMFYUI = ("diffusion_model.{name}.lora_A.weight", "diffusion_model.{name}.lora_B.weight")
PEFT = ("base_model.model.{name}.lora_A.weight", "base_model.model.{name}.lora_B.weight")
ONE_TRAINER = ("lora_transformer_{flat}.lora_down.weight", "lora_transformer_{flat}.lora_up.weight")
TO_Q = f"{ATTN}.to_q"
QKV = ("double_blocks.0.img_attn.qkv", [f"{ATTN}.to_{one}" for one in "qkv"])


# Pipelines, and transformers with a block in full width; Stable Diffusion XL has its whole UNet.
FAMILIES: dict[str, tuple[Any, Any, dict[str, int]]] = {
    "flux": (_D.FluxPipeline, _D.FluxTransformer2DModel, {"num_single_layers": 1}),
    "flux2": (_D.Flux2KleinPipeline, _D.Flux2Transformer2DModel, {"num_single_layers": 1}),
    "qwen": (_D.QwenImagePipeline, _D.QwenImageTransformer2DModel, {}),
    "krea2": (_D.Krea2Pipeline, _D.Krea2Transformer2DModel, {}),
    "sdxl": (_D.StableDiffusionXLPipeline, _D.UNet2DConditionModel, {}),
}


def made(family: str) -> Any:
    """Without weights."""
    kind, model, values = FAMILIES[family]
    with init_empty_weights():
        if family == "sdxl":
            return pipeline(kind, unet=model.from_config(model.load_config(ASSETS / "sdxl/unet")))
        return pipeline(kind, transformer=model(num_layers=1, **values))


@pytest.mark.parametrize(
    ("family", "theirs", "ours", "names"),
    [
        ("flux", *QKV, KOHYA),
        ("flux", *QKV, COMFYUI),
        ("flux", TO_Q, [TO_Q], ONE_TRAINER),
        ("flux2", *QKV, KOHYA),
        ("flux2", *QKV, PEFT),
        ("qwen", TO_Q, [TO_Q], KOHYA),
        ("krea2", "blocks.0.attn.wq", [TO_Q], COMFYUI),
        ("sdxl", "input_blocks.4.1.proj_in", ["down_blocks.1.attentions.0.proj_in"], KOHYA),
        ("sdxl", "input_blocks.3.0.op", ["down_blocks.0.downsamplers.0.conv"], KOHYA),
    ],
)
def test_names_that_diffusers_converts_stand_for_its_layers(
    tmp_path: Path, family: str, theirs: str, ours: list[str], names: tuple[str, str]
) -> None:
    """Whose rows follow each other in a layer that is one for the authors; alpha counts once."""
    found = made(family)
    part = "unet" if family == "sdxl" else "transformer"
    weights = [getattr(found, part).get_submodule(one).weight for one in ours]
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(RANK, *weights[0].shape[1:], generator=generator)
    ones = [1] * (down.ndim - 2)
    up = torch.randn(sum(len(one) for one in weights), RANK, *ones, generator=generator)
    keys = [name.format(name=theirs, flat=theirs.replace(".", "_")) for name in names]
    alpha = {f"{keys[0].partition('.lora_')[0]}.alpha": torch.tensor(1.0)}
    changes = modules(dict(zip(keys, (down, up), strict=True)) | alpha, tmp_path, found)
    assert changes.keys() == {f"{part}.{one}" for one in ours}
    together = torch.cat([changes[f"{part}.{one}"] for one in ours])
    expected = torch.einsum("or,r...->o...", up.flatten(1), down) / RANK
    torch.testing.assert_close(together, expected)


# From here on, single layers: what their weights would get.
def change(tensors: Tensors, tmp_path: Path, layer: nn.Module, **metadata: str) -> torch.Tensor:
    """What a file adds to the weight of a UNet's `to_q`."""
    unet: Any = nn.Module()
    unet.block, unet.config, unet.dtype = nn.Module(), {}, torch.float32
    unet.block.to_q = layer
    found = pipeline(_D.StableDiffusionPipeline, unet=unet)
    (only,) = modules(tensors, tmp_path, found, **metadata).values()
    return torch.as_tensor(only)


LINEAR, KERNEL = nn.Linear(16, 24), nn.Conv2d(8, 12, 3, padding=1)
RSLORA = ('{"unet.r": 4, "unet.lora_alpha": 8, "unet.use_rslora": true}', 8 / 4**0.5)
ALPHA = ('{"unet.r": 4, "unet.lora_alpha": 8}', 2.0)
PATTERNS = (
    '{"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": '
    '{"to_k": 2, "^x.to_q": 3, "to_[qv]": 16, "to_q": 32}}',
    4.0,
)


def plain(down: str = "lora_A", up: str = "lora_B") -> Tensors:
    """Both halves of a layer by these names."""
    halves = zip((down, up), random_layer(LINEAR, 3), strict=True)
    return {f"unet.block.to_q.{name}.weight": half for name, half in halves}


@pytest.mark.parametrize("settings", [ALPHA, RSLORA, PATTERNS], ids=["alpha", "rsLoRA", "pattern"])
@pytest.mark.parametrize("names", [("lora_A", "lora_B"), ("lora.down", "lora.up")])
def test_what_pefts_settings_say_of_the_scale_counts(
    tmp_path: Path, settings: tuple[str, float], names: tuple[str, str]
) -> None:
    """Whatever the halves are called."""
    found = change(plain(*names), tmp_path, LINEAR, lora_adapter_metadata=settings[0])
    torch.testing.assert_close(found, settings[1] * change(plain(), tmp_path, LINEAR))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"unet.alpha_pattern": {"to_[q": 4}}', "is damaged: .* a strange scale"),
        ("no JSON", "its lora_adapter_metadata cannot be read"),
    ],
)
def test_settings_of_peft_that_cannot_be_honoured_are_refused(
    tmp_path: Path, settings: str, message: str
) -> None:
    """Ignored, they would give another picture."""
    with pytest.raises(RenderFailed, match=message):
        change(plain(), tmp_path, LINEAR, lora_adapter_metadata=settings)


@pytest.mark.parametrize("key", ["to_q.diff", "to_q.diff_b"])
def test_whole_differences_are_refused_unless_they_are_zero(tmp_path: Path, key: str) -> None:
    """ComfyUI extracts many that are."""
    tensors = plain()
    with pytest.raises(RenderFailed, match="'it' is a file of whole differences, which picowatch"):
        change(tensors | {key: torch.ones(24)}, tmp_path, LINEAR)
    found = change(tensors | {key: torch.zeros(24)}, tmp_path, LINEAR)
    torch.testing.assert_close(found, change(tensors, tmp_path, LINEAR))


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def lyco(layer: Any, kind: str) -> tuple[Tensors, torch.Tensor]:
    """The factors, and their product by LyCORIS' formulas."""
    outputs, inputs, *kernel = layer.weight.shape
    numbers = inputs * int(np.prod(kernel))
    if kind == "LoHa":
        (a, b), (c, d) = ((random(outputs, 3) * n, random(3, numbers) + n) for n in (1, 2))
        factors = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}
        return factors, 2 / 3 * (a @ b) * (c @ d)
    small, sides = random(4, 2), (outputs // 4, inputs // 2)
    if kind == "whole LoKr":
        large = random(*sides, *kernel)
        whole = np.kron(small.reshape(4, 2, *[1 for _ in kernel]).numpy(), large.numpy())
        return {"lokr_w1": small, "lokr_w2": large}, torch.from_numpy(whole)
    left, right = random(sides[0], 3), random(3, numbers // 2)
    factors = {"lokr_w1_a": small * 2, "lokr_w1_b": torch.eye(2) / 2}
    factors |= {"lokr_w2_a": left, "lokr_w2_b": right}
    return factors, 2 / 3 * torch.kron(small, left @ right)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [(layer, kind) for layer in (LINEAR, KERNEL) for kind in ("LoHa", "LoKr", "whole LoKr")],
)
def test_a_loha_or_lokr_is_a_lora_of_a_higher_rank(tmp_path: Path, layer: Any, kind: str) -> None:
    """Its halves make the same change."""
    factors, expected = lyco(layer, kind)
    stem = "unet.block.to_q" if layer is LINEAR else "lora_unet_block_to_q"
    tensors = {f"{stem}.{role}": factor for role, factor in factors.items()}
    found = change(tensors | {f"{stem}.alpha": torch.tensor(2.0)}, tmp_path, layer)
    torch.testing.assert_close(found, expected.reshape(layer.weight.shape), rtol=1e-4, atol=1e-4)
    if kind == "LoHa":
        del tensors[f"{stem}.hada_w2_a"]
        with pytest.raises(RenderFailed, match=f"is damaged: {stem} lacks a part"):
            change(tensors, tmp_path, layer)
