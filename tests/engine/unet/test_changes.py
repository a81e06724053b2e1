"""LoHa, LoKr, DoRA, whole differences: a layer computes as if its weight had been changed so."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from picowatch.catalog.headers import Header
from picowatch.catalog.lora_layers import LayerId
from picowatch.catalog.models import Recognised
from picowatch.catalog.recognise import recognise
from picowatch.engine.unet.changes import Decomposed, LowRank
from picowatch.engine.unet.lora_files import LoraReader
from picowatch.engine.unet.loras import Loras
from picowatch.errors import RenderFailed
from picowatch.recipe.request import LoraUse
from tests.catalog.files import Shapes
from tests.engine.adapters import Tensors, write
from tests.engine.models.test_checkpoints import CPU, demo
from tests.engine.unet.test_loras import CONV, TO_Q, applied

RANK, ALPHA, WEIGHT = 3, 2.0, 1.5


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.3


def split(side: int) -> tuple[int, int]:
    """The sides of the smaller and the larger factor of LoKr."""
    return 4, side // 4


def loha(out: int, into: int, *kernel: int) -> tuple[Tensors, Any]:
    inputs = into * int(np.prod(kernel))
    a, b, c, d = (
        random(out, RANK),
        random(RANK, inputs),
        random(out, RANK) * 2,
        random(RANK, inputs),
    )
    factors = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d + 1}
    return factors, ALPHA / RANK * (a @ b) * (c @ (d + 1))


def loha_around_a_kernel(out: int, into: int, *kernel: int) -> tuple[Tensors, Any]:
    factors = {
        "hada_t1": random(RANK, RANK, *kernel),
        "hada_w1_a": random(RANK, out),
        "hada_w1_b": random(RANK, into),
        "hada_t2": random(RANK, RANK, *kernel) + 1,
        "hada_w2_a": random(RANK, out) * 2,
        "hada_w2_b": random(RANK, into) - 1,
    }
    one, two = (
        np.einsum(
            "rsxy,ro,si->oixy", *(factors[f"hada_{name}{n}{end}"] for name, end in KERNEL_PARTS)
        )
        for n in "12"
    )
    return factors, ALPHA / RANK * one * two


KERNEL_PARTS = (("t", ""), ("w", "_a"), ("w", "_b"))


def lokr(out: int, into: int, *kernel: int) -> tuple[Tensors, Any]:
    """Both factors whole: alpha means nothing."""
    (a, b), (c, d) = split(out), split(into)
    one, two = random(a, c), random(b, d, *kernel)
    expected = np.kron(one.reshape(a, c, *[1] * len(kernel)), two)
    return {"lokr_w1": one, "lokr_w2": two}, expected


def lokr_of_two(out: int, into: int, *kernel: int) -> tuple[Tensors, Any]:
    (a, b), (c, d) = split(out), split(into)
    left, right = random(b, RANK), random(RANK, d * int(np.prod(kernel)))
    one = random(a, c)
    factors = {"lokr_w1": one, "lokr_w2_a": left, "lokr_w2_b": right}
    return factors, ALPHA / RANK * np.kron(one, left @ right)


def lokr_of_four(out: int, into: int, *kernel: int) -> tuple[Tensors, Any]:
    factors, expected = lokr_of_two(out, into, *kernel)
    one = factors.pop("lokr_w1")
    return factors | {"lokr_w1_a": torch.eye(len(one)) * 2, "lokr_w1_b": one / 2}, expected


def lokr_around_a_kernel(out: int, into: int, *kernel: int) -> tuple[Tensors, Any]:
    (a, b), (c, d) = split(out), split(into)
    factors = {
        "lokr_w1": random(a, c),
        "lokr_t2": random(RANK, RANK, *kernel),
        "lokr_w2_a": random(RANK, b),
        "lokr_w2_b": random(RANK, d),
    }
    two = np.einsum("rsxy,ro,si->oixy", *(factors[f"lokr_{one}"] for one in ("t2", "w2_a", "w2_b")))
    return factors, ALPHA / RANK * np.kron(factors["lokr_w1"].numpy()[:, :, None, None], two)


Case = Callable[..., tuple[Tensors, Any]]
LINEAR: list[Case] = [loha, lokr, lokr_of_two, lokr_of_four]
KERNELS: list[Case] = [loha, loha_around_a_kernel, lokr, lokr_of_two, lokr_around_a_kernel]


def named(module: str, factors: Tensors) -> Tensors:
    flat = f"lora_unet_{module.replace('.', '_')}"
    tensors = {f"{flat}.{name}": factor for name, factor in factors.items()}
    return tensors | {f"{flat}.alpha": torch.tensor(ALPHA)}


@pytest.mark.parametrize("case", LINEAR)
def test_a_linear_layer_gives_what_merged_weights_would_give(models: Path, case: Case) -> None:
    """Of LyCORIS' formulas; copies of weights have the same."""
    module = demo().unet.get_submodule(TO_Q)
    factors, expected = case(*module.weight.shape)
    x = torch.randn(2, 5, module.weight.shape[1])
    plain = module(x)
    loras = applied(named(TO_Q, factors), models)
    change = WEIGHT * torch.as_tensor(np.asarray(expected), dtype=torch.float32)
    merged = module.weight + change
    assert float(change.abs().max()) > 0.01
    assert torch.allclose(module(x), functional.linear(x, merged, module.bias), atol=1e-4)
    assert torch.allclose(loras.merged()[f"{TO_Q}.weight"], merged, atol=1e-5)
    assert isinstance(loras.is_worth_merging(24, 256), bool)
    loras.apply([])
    assert torch.equal(module(x), plain)


@pytest.mark.parametrize("case", KERNELS)
def test_convolutions_are_adapted_too(models: Path, case: Case) -> None:
    """Their kernels are in a factor, or in a part of their own."""
    module = demo().unet.get_submodule(CONV)
    factors, expected = case(*module.weight.shape)
    x = torch.randn(1, module.weight.shape[1], 8, 8)
    loras = applied(named(CONV, factors), models)
    change = torch.as_tensor(np.asarray(expected), dtype=torch.float32)
    merged = module.weight + WEIGHT * change.reshape(module.weight.shape)
    expected = functional.conv2d(x, merged, module.bias, padding=1)
    assert torch.allclose(module(x), expected, atol=1e-3)
    loras.apply([])


def lora(out: int, into: int, *kernel: int) -> tuple[Tensors, Any]:
    down, up = random(RANK, into, *kernel), random(out, RANK, *[1 for _ in kernel])
    product = (up.flatten(1) @ down.flatten(1)).reshape(out, into, *kernel)
    return {"lora_down.weight": down, "lora_up.weight": up}, ALPHA / RANK * product


def by_outputs(merged: torch.Tensor) -> torch.Tensor:
    """The lengths of a weight's rows, as LyCORIS stores them by default."""
    lengths: torch.Tensor = torch.linalg.vector_norm(merged.flatten(1), dim=1)
    return lengths.reshape(-1, *[1] * (merged.ndim - 1))


def by_inputs(merged: torch.Tensor) -> torch.Tensor:
    """Those of its columns, as it stored them first, and OneTrainer does."""
    lengths: torch.Tensor = torch.linalg.vector_norm(merged.transpose(0, 1).flatten(1), dim=1)
    return lengths.reshape(1, -1, *[1] * (merged.ndim - 2))


@pytest.mark.parametrize("lengths_of", [by_outputs, by_inputs])
@pytest.mark.parametrize("case", [lora, loha, lokr])
@pytest.mark.parametrize("layer", [TO_Q, CONV])
def test_a_dora_has_the_lengths_that_were_trained(
    models: Path, layer: str, case: Case, lengths_of: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """(W + change) * trained length / its length; the recipe's weight is of the whole change."""
    module = demo().unet.get_submodule(layer)
    factors, change = case(*module.weight.shape)
    whole = module.weight + torch.as_tensor(np.asarray(change)).float().reshape(module.weight.shape)
    lengths = lengths_of(module.weight) * 1.3
    expected = module.weight + WEIGHT * (whole * lengths / lengths_of(whole) - module.weight)
    x = torch.randn(2, *((5, module.weight.shape[1]) if layer == TO_Q else (whole.shape[1], 8, 8)))
    plain = module(x)
    loras = applied(named(layer, factors | {"dora_scale": lengths}), models)
    apply = functional.linear if layer == TO_Q else partial(functional.conv2d, padding=1)
    assert torch.allclose(module(x), apply(x, expected, module.bias), atol=1e-3)
    assert torch.allclose(loras.merged()[f"{layer}.weight"], expected, atol=1e-5)
    loras.apply([])
    assert torch.equal(module(x), plain)


@pytest.mark.parametrize("layer", [TO_Q, CONV])
def test_pefts_dora_is_measured_by_outputs(models: Path, layer: str) -> None:
    """Linear layers have a vector of lengths, convolutions have them in the second side."""
    module = demo().unet.get_submodule(layer)
    factors, change = lora(*module.weight.shape)
    lengths = by_outputs(module.weight) * 1.3
    tensors = {
        f"unet.{layer}.lora_A.weight": factors["lora_down.weight"],
        f"unet.{layer}.lora_B.weight": factors["lora_up.weight"],
        f"unet.{layer}.lora_magnitude_vector": lengths.flatten()
        if layer == TO_Q
        else lengths.reshape(1, -1, 1, 1),
    }
    settings = f'{{"unet.r": {RANK}, "unet.lora_alpha": {ALPHA}, "unet.use_dora": true}}'
    loras = applied(tensors, models, lora_adapter_metadata=settings)
    whole = module.weight + change
    expected = module.weight + WEIGHT * (whole * lengths / by_outputs(whole) - module.weight)
    assert torch.allclose(loras.merged()[f"{layer}.weight"], expected, atol=1e-5)
    loras.apply([])


def test_a_dora_a_lora_and_biases_act_together(models: Path) -> None:
    """Each changes the checkpoint's own weight; hooks and copies agree, in either order."""
    module = demo().unet.get_submodule(CONV)
    factors, change = lora(*module.weight.shape)
    lengths = by_outputs(module.weight) * 1.3
    bias = torch.randn_like(module.bias)
    files = {
        "dora": named(CONV, factors | {"dora_scale": lengths}),
        "full": named(CONV, {"diff": change, "diff_b": bias}),
    }
    for name, tensors in files.items():
        write(models / f"loras/{name}.safetensors", tensors)
    loras = Loras("demo", demo().unet, demo().text_encoders,
                  lambda _, name, __: models / f"loras/{name}.safetensors", CPU.device)  # fmt: skip
    whole = module.weight + change
    scaled = whole * lengths / by_outputs(whole) - module.weight
    expected = module.weight + 0.5 * scaled - 0.7 * change
    x = torch.randn(1, module.weight.shape[1], 8, 8)
    drawn = functional.conv2d(x, expected, module.bias - 0.7 * bias, padding=1)
    uses = [LoraUse("dora", "1", 0.5), LoraUse("full", "2", -0.7)]
    for order in (uses, uses[::-1]):
        loras.apply(order)
        assert torch.allclose(module(x), drawn, atol=1e-4)
        loras.merge()
        assert torch.allclose(module(x), drawn, atol=1e-4)
    loras.apply([])


def test_a_doras_lengths_are_left_out_of_an_inpainting_checkpoints_first_layer(
    tmp_path: Path,
) -> None:
    """They were trained without its mask; the product that they belong to acts."""
    first = LayerId("denoiser", "conv_in")
    factors, _ = lora(8, 4, 3, 3)
    path = write(
        tmp_path / "it.safetensors",
        named("conv_in", factors | {"dora_scale": torch.ones(8, 1, 1, 1)}),
    )
    for inputs, kind, left_out in (
        (9, LowRank, ("lora_unet_conv_in.dora_scale",)),
        (4, Decomposed, ()),
    ):
        modules: dict[LayerId, torch.nn.Module] = {first: torch.nn.Conv2d(inputs, 8, 3, padding=1)}
        read = LoraReader("it", "sd1", modules, CPU.device).read(path)
        assert isinstance(read.layers[first], kind)
        assert read.unexpected == left_out


def test_a_doras_lengths_must_be_the_layers(models: Path) -> None:
    """One of them for each output, or for each input."""
    out, into = demo().unet.get_submodule(TO_Q).weight.shape
    factors = lora(out, into)[0] | {"dora_scale": torch.ones(out + 1, 1)}
    with pytest.raises(RenderFailed, match=f"has {out + 1} outputs, this checkpoint's {out}"):
        applied(named(TO_Q, factors), models)


@pytest.mark.parametrize("layer", ["conv_in", "time_embedding.linear_1"])
def test_whole_differences_change_weights_and_biases(models: Path, layer: str) -> None:
    """LyCORIS' full, and what ComfyUI extracts; copies of weights keep what biases get."""
    module = demo().unet.get_submodule(layer)
    weight, bias = torch.randn_like(module.weight) * 0.1, torch.randn_like(module.bias)
    x = torch.randn(2, *((4, 8, 8) if layer == "conv_in" else (module.weight.shape[1],)))
    plain = module(x)
    loras = applied(named(layer, {"diff": weight, "diff_b": bias}), models)
    changed = module.weight + WEIGHT * weight, module.bias + WEIGHT * bias
    expected = (functional.linear if layer != "conv_in" else partial(functional.conv2d, padding=1))(
        x, *changed
    )
    assert torch.allclose(module(x), expected, atol=1e-4)
    merged = loras.merged()
    assert torch.allclose(merged[f"{layer}.weight"], changed[0], atol=1e-6)
    assert torch.allclose(merged[f"{layer}.bias"], changed[1], atol=1e-6)
    loras.merge()
    assert torch.allclose(module(x), expected, atol=1e-4)
    loras.apply([])
    assert torch.equal(module(x), plain)


def test_biases_may_change_alone_and_norms_are_a_warning(models: Path) -> None:
    """A layer without a bias has none that could change."""
    module = demo().unet.get_submodule(CONV)
    x, bias = torch.randn(1, module.weight.shape[1], 8, 8), torch.randn_like(module.bias)
    plain = module(x)
    odd = named(TO_Q, {"diff_b": torch.ones(len(demo().unet.get_submodule(TO_Q).weight))})
    del odd[next(name for name in odd if name.endswith(".alpha"))]
    flat = f"lora_unet_{CONV.replace('.', '_')}"
    norm = {"lora_unet_conv_norm_out.diff": torch.ones(4)}
    loras = applied({f"{flat}.diff_b": bias} | odd | norm, models)
    assert torch.allclose(module(x), plain + WEIGHT * bias[:, None, None], atol=1e-5)
    (warning,) = loras.warnings
    assert warning.endswith(f"this checkpoint: lora_unet_conv_norm_out.diff, {next(iter(odd))}.")
    loras.apply([])
    assert torch.equal(module(x), plain)


def test_a_file_of_another_size_or_a_part_of_one_is_refused(models: Path) -> None:
    """Before anything is drawn."""
    out, into = demo().unet.get_submodule(TO_Q).weight.shape
    whole, _ = loha(out, into)
    with pytest.raises(RenderFailed, match="is for a model of another size"):
        applied(named(TO_Q, loha(out + 8, into)[0]), models)
    for missing in whole:
        part = {name: factor for name, factor in whole.items() if name != missing}
        with pytest.raises(RenderFailed, match="is incomplete"):
            applied(named(TO_Q, part), models)


LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
FAMILIES: dict[str, tuple[Shapes, str]] = {
    "LoHa": ({f"{LAYER}.hada_w1_a": (320, 8), f"{LAYER}.hada_w1_b": (8, 768)}, "sd1"),
    "LoKr": ({f"{LAYER}.lokr_w1": (8, 8), f"{LAYER}.lokr_w2": (40, 128)}, "sd2"),
    "LoKr of two": (
        {
            f"{LAYER.replace('blocks_0_att', 'blocks_1_att')}.lokr_w1": (8, 16),
            f"{LAYER.replace('blocks_0_att', 'blocks_1_att')}.lokr_w2_a": (80, 4),
            f"{LAYER.replace('blocks_0_att', 'blocks_1_att')}.lokr_w2_b": (4, 128),
        },
        "sdxl",
    ),
    "DoRA": (
        {
            f"{LAYER}.lora_down.weight": (8, 768),
            f"{LAYER}.lora_up.weight": (320, 8),
            f"{LAYER}.dora_scale": (320, 1),
        },
        "sd1",
    ),
    "whole differences": ({f"{LAYER}.diff": (320, 768), f"{LAYER}.diff_b": (320,)}, "sd1"),
    "ComfyUI's whole differences": (
        {"diffusion_model.double_blocks.0.img_attn.qkv.diff": (9216, 3072)},
        "flux",
    ),
    "LoKr of ai-toolkit": (
        {
            "diffusion_model.layers.0.attention.to_q.lokr_w1": (4, 4),
            "diffusion_model.layers.0.attention.to_q.lokr_w2": (960, 960),
        },
        "z_image",
    ),
    "LoKr of SimpleTuner": (
        {
            "lycoris_single_transformer_blocks_0_attn_to_q.lokr_w1": (16, 16),
            "lycoris_single_transformer_blocks_0_attn_to_q.lokr_w2": (192, 192),
        },
        "flux",
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_catalog_knows_its_family(name: str) -> None:
    """By the sides of the product."""
    shapes, family = FAMILIES[name]
    found = recognise(Header(shapes, {}))
    assert isinstance(found, Recognised)
    assert (found.kind, found.family, found.note) == ("lora", family, "")
