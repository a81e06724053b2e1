"""Blocks that compute with less work give what diffusers' own give."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from picowatch.engine.unet.blocks import use_quick_blocks
from picowatch.engine.unet.tiling import seamless
from tests.engine.models.test_checkpoints import load

# What both round differently, many sums long.
ROUNDING = 1e-5
CHANNELS = 24


@cache
def demo() -> Any:
    """The demo model, for these tests alone: others give theirs layouts that cannot be copied."""
    return load(Path("nowhere"))


def upsampler(dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """diffusers' own and ours with the same weights; what comes out is about 1."""
    plain = Upsample2D(CHANNELS, use_conv=True).requires_grad_(False).to(dtype)
    quick = nn.ModuleList([deepcopy(plain)])
    use_quick_blocks(quick)
    assert type(quick[0]) is not Upsample2D
    return plain, quick[0]


def away(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference."""
    return float((one - other).abs().max())


@pytest.mark.parametrize("sides", [(8, 8), (1, 5), (7, 16)])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, ROUNDING), (torch.bfloat16, 0.05)])
def test_doubling_and_convolving_is_one_step(
    sides: tuple[int, int], dtype: torch.dtype, most: float
) -> None:
    """To the edges, where zeros lie around the doubled pixels."""
    plain, quick = upsampler(dtype)
    x = torch.randn(3, CHANNELS, *sides).to(dtype)
    assert away(plain(x), quick(x)) < most


def test_a_new_weight_is_seen_at_once() -> None:
    """LoRAs replace weights, and give the old ones back."""
    plain, quick = upsampler()
    x, own = torch.randn(2, CHANNELS, 8, 8), plain.conv.weight
    for weight in (own, nn.Parameter(-own, requires_grad=False), own):
        plain.conv.weight = quick.conv.weight = weight
        assert away(plain(x), quick(x)) < ROUNDING


def test_another_precision_is_seen_at_once() -> None:
    """A VAE that overflows is converted, and its parameters stay the same objects."""
    plain, quick = upsampler()
    x = torch.randn(2, CHANNELS, 8, 8)
    assert away(plain(x), quick(x)) < ROUNDING
    for dtype in (torch.bfloat16, torch.float32):
        one, other = plain.to(dtype)(x.to(dtype)), quick.to(dtype)(x.to(dtype))
        assert other.dtype == dtype
        assert away(one, other) < 0.05


def test_a_hook_of_the_convolution_sees_doubled_pixels() -> None:
    """A LoRA by hook adds what it makes of the convolution's input."""
    plain, quick = upsampler()
    for block in (plain, quick):
        block.conv.register_forward_hook(lambda module, given, output: output + given[0])
    x = torch.randn(2, CHANNELS, 8, 8)
    assert away(plain(x), quick(x)) < ROUNDING


def test_opposite_edges_meet_while_pictures_repeat() -> None:
    """`tiling: true` lets convolutions go on at the opposite edge, and ends."""
    plain, quick = upsampler()
    x = torch.randn(2, CHANNELS, 8, 8)
    before = quick(x)
    with seamless([plain, quick]):
        repeating = quick(x)
        assert away(plain(x), repeating) < ROUNDING
    assert away(before, repeating) > 0.01
    assert torch.equal(quick(x), before)


def test_an_odd_size_comes_out_as_it_is_asked_for() -> None:
    """A UNet doubles to the size that it halved, which may be odd."""
    plain, quick = upsampler()
    x = torch.randn(2, CHANNELS, 8, 8)
    assert quick(x, (15, 16)).shape[2:] == (15, 16)
    assert away(plain(x, (15, 16)), quick(x, (15, 16))) < ROUNDING


def test_no_copy_of_a_large_kernel_is_kept() -> None:
    """It would take more memory than the original."""
    plain: Any = Upsample2D(640, use_conv=True).requires_grad_(False)
    quick: Any = nn.ModuleList([deepcopy(plain)])
    use_quick_blocks(quick)
    x = torch.randn(1, 640, 4, 4)
    assert torch.equal(plain(x), quick[0](x))
    assert not hasattr(quick[0].conv, "_kept")


@pytest.mark.parametrize("rows", [2, 3, 5, 8])
def test_a_row_does_not_depend_on_its_position(rows: int) -> None:
    """To the bit: a picture must not depend on its position in a batch."""
    _, quick = upsampler()
    x = torch.randn(rows, CHANNELS, 9, 9)
    x[-1] = x[0]
    result = quick(x)
    assert torch.equal(result[0], result[-1])


@pytest.mark.parametrize("outputs", [CHANNELS, 2 * CHANNELS])
@pytest.mark.parametrize("activated", [True, False])
def test_resnet_blocks_give_the_same_bits(outputs: int, activated: bool) -> None:
    """And what goes in stays as it is: other blocks are given it, too."""
    plain: Any = ResnetBlock2D(
        in_channels=CHANNELS,
        out_channels=outputs,
        temb_channels=16,
        groups=8,
        skip_time_act=activated,
    )
    plain.eval().requires_grad_(False)
    quick: Any = nn.ModuleList([deepcopy(plain)])
    use_quick_blocks(quick)
    assert type(quick[0]) is not ResnetBlock2D
    x, shown = torch.randn(2, CHANNELS, 8, 8), torch.randn(2, 16)
    x_before, shown_before = x.clone(), shown.clone()
    assert torch.equal(plain(x, shown), quick[0](x, shown))
    assert torch.equal(x, x_before)
    assert torch.equal(shown, shown_before)


def attention(text_width: int | None = None) -> tuple[Any, Any]:
    """diffusers' own and ours with the same weights, over a text or the pixels themselves."""
    plain = Attention(CHANNELS, cross_attention_dim=text_width, heads=4, dim_head=6)
    plain.eval().requires_grad_(False)
    quick: Any = nn.ModuleList([deepcopy(plain)])
    use_quick_blocks(quick)
    assert type(quick[0]) is not Attention
    return plain, quick[0]


@pytest.mark.parametrize("tokens", [1, 77, 80, 154])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, ROUNDING), (torch.bfloat16, 0.02)])
def test_keys_that_fill_up_are_not_seen(tokens: int, dtype: torch.dtype, most: float) -> None:
    plain, quick = (block.to(dtype) for block in attention(text_width=10))
    x, text = torch.randn(3, 64, CHANNELS).to(dtype), torch.randn(3, tokens, 10).to(dtype)
    assert away(plain(x, text), quick(x, text)) < most
    x[-1], text[-1] = x[0], text[0]
    result = quick(x, text)
    assert torch.equal(result[0], result[-1])


@pytest.mark.parametrize("pixels", [1, 15, 64, 289])
def test_attention_over_the_pixels_themselves(pixels: int) -> None:
    plain, quick = attention()
    x = torch.randn(2, pixels, CHANNELS)
    assert away(plain(x), quick(x)) < ROUNDING


def test_attention_by_another_processor_or_with_a_mask_is_diffusers_own() -> None:
    """Such as `SlicedAttention`, by which the memory ladder takes less."""
    plain, quick = attention()
    x = torch.randn(2, 20, CHANNELS)
    mask = torch.zeros(2, 1, 20).index_fill(2, torch.tensor([3]), -torch.inf)
    assert away(plain(x), plain(x, attention_mask=mask)) > 0.001
    assert torch.equal(plain(x, attention_mask=mask), quick(x, attention_mask=mask))
    for block in (plain, quick):
        block.set_processor(AttnProcessor())
    assert torch.equal(plain(x), quick(x))


def test_unusual_blocks_are_left_to_diffusers() -> None:
    """Such as those that resize, scale or norm in another way."""
    unusual = [
        ResnetBlock2D(in_channels=8, temb_channels=8, groups=4, up=True),
        ResnetBlock2D(in_channels=8, temb_channels=8, groups=4, output_scale_factor=2.0),
        ResnetBlock2D(in_channels=8, temb_channels=8, groups=4, time_embedding_norm="scale_shift"),
        ResnetBlock2D(in_channels=8, temb_channels=8, groups=4, non_linearity="mish"),
        Upsample2D(8, use_conv=False),
        Upsample2D(8, use_conv_transpose=True),
        Upsample2D(8, use_conv=True, norm_type="ln_norm"),
        Upsample2D(8, use_conv=True, kernel_size=5, padding=2),
        Attention(8, heads=2, dim_head=4, residual_connection=True),
        Attention(8, heads=2, dim_head=4, rescale_output_factor=2.0),
        Attention(8, heads=2, dim_head=4, norm_num_groups=4),
        Attention(8, heads=2, dim_head=4, qk_norm="layer_norm"),
    ]
    model = nn.ModuleList(unusual)
    use_quick_blocks(model)
    assert all(type(block) in (ResnetBlock2D, Upsample2D, Attention) for block in model)


def test_the_demo_models_blocks_are_usual() -> None:
    """All of them; diffusers may change its classes in any release."""
    for model in (demo().unet, demo().vae):
        quick = deepcopy(model)
        use_quick_blocks(quick)
        own = [ResnetBlock2D, Upsample2D]
        if model is demo().unet:  # a VAE's norms and adds by itself
            own.append(Attention)
        kinds = [type(one) for one in quick.modules() if isinstance(one, tuple(own))]
        assert len(kinds) > 10
        assert not set(own) & set(kinds)


@torch.inference_mode()
def test_the_demo_models_pictures_stay() -> None:
    """A thousandth of a level of 255 at most."""
    vae = demo().vae
    quick = deepcopy(vae)
    use_quick_blocks(quick)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    assert away(vae.decode(latents).sample, quick.decode(latents).sample) < 0.001 / 127.5
