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
from picowatch.engine.lora_files import Target, found_modules, read_layers
from picowatch.errors import RenderFailed
from tests.engine.adapters import RANK, Tensors, random_layer, write

_D: Any = diffusers
ASSETS = Path(picowatch.__file__).parent / "assets"
ATTN = "transformer_blocks.0.attn"


def pipeline(kind: Any, **parts: Any) -> Any:
    """What finds modules by diffusers' loader of this pipeline."""
    return type("Pipeline", (), {**parts, "lora_state_dict": staticmethod(kind.lora_state_dict)})()


def modules(tensors: Tensors, folder: Path, found: Any, **metadata: str) -> Any:
    """The modules by name, with what is added to their weights."""
    layers, others = read_layers("it", write(folder / "it.safetensors", tensors, metadata or None))
    assert not others
    return {
        target: torch.einsum("or,r...->o...", layer.up.float().flatten(1), layer.down.float())
        for target, layer in found_modules("it", layers, found).items()
    }


KOHYA = ("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight")
COMFYUI = ("diffusion_model.{name}.lora_A.weight", "diffusion_model.{name}.lora_B.weight")
PEFT = ("base_model.model.{name}.lora_A.weight", "base_model.model.{name}.lora_B.weight")
ONE_TRAINER = ("lora_transformer_{flat}.lora_down.weight", "lora_transformer_{flat}.lora_up.weight")
_FLUX = (_D.FluxPipeline, _D.FluxTransformer2DModel)
_FLUX2 = (_D.Flux2KleinPipeline, _D.Flux2Transformer2DModel)
_QKV = {"double_blocks.0.img_attn.qkv": [f"{ATTN}.to_{one}" for one in "qkv"]}


@pytest.mark.parametrize(
    ("classes", "layers", "names"),
    [
        (_FLUX, _QKV, KOHYA),
        (_FLUX, _QKV, COMFYUI),
        (_FLUX, {f"{ATTN}.to_q": [f"{ATTN}.to_q"]}, ONE_TRAINER),
        (_FLUX2, _QKV, KOHYA),
        (_FLUX2, _QKV, PEFT),
        (
            (_D.QwenImagePipeline, _D.QwenImageTransformer2DModel),
            {f"{ATTN}.to_q": [f"{ATTN}.to_q"]},
            KOHYA,
        ),
        (
            (_D.Krea2Pipeline, _D.Krea2Transformer2DModel),
            {"blocks.0.attn.wq": [f"{ATTN}.to_q"]},
            COMFYUI,
        ),
    ],
)
def test_names_that_diffusers_converts_stand_for_its_layers(
    tmp_path: Path, classes: Any, layers: dict[str, list[str]], names: tuple[str, str]
) -> None:
    """Whose rows follow each other in a layer that is one for the authors; alpha counts once."""
    kind, transformer = classes
    single = {"num_single_layers": 1} if kind in (_FLUX[0], _FLUX2[0]) else {}
    with init_empty_weights():
        model = transformer(num_layers=1, **single)
    ((theirs, ours),) = layers.items()
    found = [model.get_submodule(one) for one in ours]
    flat = theirs.replace(".", "_")
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(RANK, found[0].in_features, generator=generator)
    up = torch.randn(sum(one.out_features for one in found), RANK, generator=generator)
    keys = [name.format(name=theirs, flat=flat) for name in names]
    alpha = f"{keys[0].partition('.lora_')[0]}.alpha"
    tensors = {**dict(zip(keys, (down, up), strict=True)), alpha: torch.tensor(1.0)}
    changes = modules(tensors, tmp_path, pipeline(kind, transformer=model))
    together = torch.cat([changes.pop(Target("transformer", one)) for one in ours])
    torch.testing.assert_close(together, up @ down / RANK)
    assert not changes


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("input_blocks_4_1_proj_in", "down_blocks.1.attentions.0.proj_in"),
        ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        (
            "middle_block_1_transformer_blocks_9_attn2_to_out_0",
            "mid_block.attentions.0.transformer_blocks.9.attn2.to_out.0",
        ),
        ("output_blocks_8_0_skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
    ],
)
def test_stability_ais_names_of_xls_layers_are_understood(
    tmp_path: Path, theirs: str, ours: str
) -> None:
    """kohya's for Stable Diffusion XL."""
    kind = _D.UNet2DConditionModel
    with init_empty_weights():
        unet = kind.from_config(kind.load_config(ASSETS / "sdxl/unet"))
    down, up = random_layer(unet.get_submodule(ours), 1)
    stem = f"lora_unet_{theirs}"
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    found = modules(tensors, tmp_path, pipeline(_D.StableDiffusionXLPipeline, unet=unet))
    assert list(found) == [Target("unet", ours)]


# From here on, single layers: what their weights would get.
def change(tensors: Tensors, tmp_path: Path, layer: nn.Module, **metadata: str) -> torch.Tensor:
    """What a file adds to the weight of a UNet's `to_q`."""
    unet = nn.Module()
    unet.block, unet.config = nn.Module(), {}  # type: ignore[assignment]
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


@pytest.mark.parametrize("settings", [ALPHA, RSLORA, PATTERNS], ids=["alpha", "rsLoRA", "pattern"])
@pytest.mark.parametrize("names", [("lora_A", "lora_B"), ("lora.down", "lora.up")])
def test_what_pefts_settings_say_of_the_scale_counts(
    tmp_path: Path, settings: tuple[str, float], names: tuple[str, str]
) -> None:
    """Whatever the halves are called."""
    down, up = random_layer(LINEAR, 3)
    tensors = {f"unet.block.to_q.{names[0]}.weight": down, f"unet.block.to_q.{names[1]}.weight": up}
    found = change(tensors, tmp_path, LINEAR, lora_adapter_metadata=settings[0])
    torch.testing.assert_close(found, settings[1] * up @ down)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"unet.lora_bias": true}', "is a LoRA with biases"),
        ('{"unet.use_dora": true}', "is a DoRA"),
        ('{"unet.alpha_pattern": {"to_[q": 4}}', "is damaged: .* a strange scale"),
        ("no JSON", "its lora_adapter_metadata cannot be read"),
    ],
)
def test_settings_of_peft_that_cannot_be_honoured_are_refused(
    tmp_path: Path, settings: str, message: str
) -> None:
    """Ignored, they would give another picture."""
    down, up = random_layer(LINEAR, 3)
    tensors = {"unet.block.to_q.lora_A.weight": down, "unet.block.to_q.lora_B.weight": up}
    with pytest.raises(RenderFailed, match=message):
        change(tensors, tmp_path, LINEAR, lora_adapter_metadata=settings)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("to_q.dora_scale", "is a DoRA"),
        ("to_q.lora_magnitude_vector", "is a DoRA"),
        ("to_q.diff", "is a file of whole differences"),
        ("to_q.diff_b", "is a file of whole differences"),
        ("to_q.oft_blocks", "is an OFT"),
        ("lora_unet_to_q.on_input", r"is an \(IA\)³"),
        ("to_q.lora_B.bias", "is a LoRA with biases"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path: Path, key: str, message: str) -> None:
    """Differences that are zero change nothing."""
    down, up = random_layer(LINEAR, 3)
    tensors = {"unet.block.to_q.lora_A.weight": down, "unet.block.to_q.lora_B.weight": up}
    with pytest.raises(RenderFailed, match=f"'it' {message}, which picowatch does not render"):
        change(tensors | {key: torch.ones(24)}, tmp_path, LINEAR)
    if "diff" in key:
        found = change(tensors | {key: torch.zeros(24)}, tmp_path, LINEAR)
        torch.testing.assert_close(found, up @ down)


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
    if kind == "LoHa around a kernel":
        factors, product = {}, torch.tensor(2 / 3)
        for n in (1, 2):
            core, left, right = random(3, 3, *kernel) + n, random(3, outputs), random(3, inputs) * n
            factors |= {f"hada_t{n}": core, f"hada_w{n}_a": left, f"hada_w{n}_b": right}
            product = product * torch.einsum("rsxy,ro,si->oixy", core, left, right)
        return factors, product
    if kind == "LoCon around a kernel":
        down, mid, up = random(3, inputs, 1, 1), random(3, 3, *kernel), random(outputs, 3, 1, 1)
        product = 2 / 3 * torch.einsum("or,rsxy,si->oixy", up[..., 0, 0], mid, down[..., 0, 0])
        return {
            f"lora_{role}.weight": one
            for role, one in zip(("down", "mid", "up"), (down, mid, up), strict=True)
        }, product
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
    [
        *((layer, kind) for layer in (LINEAR, KERNEL) for kind in ("LoHa", "LoKr", "whole LoKr")),
        (KERNEL, "LoHa around a kernel"),
        (KERNEL, "LoCon around a kernel"),
    ],
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
