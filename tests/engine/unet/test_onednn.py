"""oneDNN computes the layers of UNet and VAE on a CPU, and gives what torch gives."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.engine.unet.blocks import use_quick_blocks
from picowatch.engine.unet.onednn import onednn_is_faster, use_onednn
from picowatch.engine.unet.tiling import seamless
from tests.engine.requests import request

CPU = torch.device("cpu")
WITH_ONEDNN = pytest.mark.skipif(
    not onednn_is_faster(CPU, torch.float32), reason="torch was built without oneDNN or MKL"
)
# What both round differently, many sums long.
ROUNDING = 1e-5


def layers() -> nn.ModuleList:
    """With and without a bias, and every kind of convolution that a UNet has."""
    return nn.ModuleList(
        [
            nn.Linear(64, 96),
            nn.Linear(64, 96, bias=False),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.Conv2d(64, 32, 3, stride=2, padding=1),
            nn.Conv2d(64, 32, 1),
        ]
    ).requires_grad_(False)


@WITH_ONEDNN
def test_the_layers_give_what_torch_gives() -> None:
    """Within rounding, under the same names and with the same weights."""
    plain, taken = layers(), layers()
    taken.load_state_dict(plain.state_dict())
    use_onednn(taken)
    for one, other in zip(plain, taken, strict=True):
        x = torch.randn(3, 7, 64) if isinstance(one, nn.Linear) else torch.randn(3, 64, 9, 9)
        assert type(other) is not type(one)
        assert (one(x) - other(x)).abs().max() < ROUNDING


class Reorders(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often a weight is brought into oneDNN's layout."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.count += "reorder" in func.name()
        return func(*args, **(kwargs or {}))


@WITH_ONEDNN
def test_a_weight_is_reordered_for_a_new_shape_and_a_new_weight_only() -> None:
    """Each result is torch's, whatever the layer was given before; LoRAs replace weights."""
    plain, taken = layers(), layers()
    taken.load_state_dict(plain.state_dict())
    use_onednn(taken)
    for one, other in zip(plain, taken, strict=True):
        linear = isinstance(one, nn.Linear)
        with Reorders() as reorders:  # type: ignore[no-untyped-call]
            for rows, times in ((2, 1), (2, 1), (3, 2), (3, 2), (2, 3)):
                x = torch.randn(rows, 7, 64) if linear else torch.randn(rows, 64, 9, 9)
                assert (one(x) - other(x)).abs().max() < ROUNDING
                assert reorders.count == times
            weight: Any = one.weight
            one.weight = other.weight = nn.Parameter(-weight, requires_grad=False)
            assert (one(x) - other(x)).abs().max() < ROUNDING
            assert reorders.count == 4


@WITH_ONEDNN
def test_a_gated_layer_gives_what_diffusers_gives() -> None:
    """Whatever shapes it was given before; LoRAs replace its weight, or add to both halves."""
    plain: Any = GEGLU(64, 96).requires_grad_(False)
    taken: Any = nn.ModuleList([GEGLU(64, 96)]).requires_grad_(False)
    taken[0].load_state_dict(plain.state_dict())
    use_onednn(taken)
    assert type(taken[0]) is not GEGLU

    def differ(rows: int) -> float:
        x = torch.randn(rows, 7, 64)
        return float((plain(x) - taken[0](x)).abs().max())

    assert max(differ(2), differ(3), differ(2)) < ROUNDING
    own = plain.proj.weight
    for weight in (nn.Parameter(-own, requires_grad=False), own):
        plain.proj.weight = taken[0].proj.weight = weight
        assert differ(2) < ROUNDING
    for one in (plain, taken[0]):
        one.proj.register_forward_hook(lambda module, given, output: 1.5 * output)
    assert differ(2) < ROUNDING


@WITH_ONEDNN
def test_an_upsampler_gives_what_diffusers_gives() -> None:
    """Whatever shapes, weights and hooks it was given before, and where pictures repeat."""
    plain: Any = Upsample2D(24, use_conv=True).requires_grad_(False)
    taken: Any = nn.ModuleList([deepcopy(plain)])
    use_onednn(taken)
    use_quick_blocks(taken)

    def differ(rows: int, side: int = 8) -> float:
        x = torch.randn(rows, 24, side, side)
        return float((plain(x) - taken[0](x)).abs().max())

    with Reorders() as reorders:  # type: ignore[no-untyped-call]
        assert max(differ(2), differ(2), differ(3), differ(3, side=5), differ(2)) < ROUNDING
    assert reorders.count == 4
    own = plain.conv.weight
    for weight in (nn.Parameter(-own, requires_grad=False), own):
        plain.conv.weight = taken[0].conv.weight = weight
        assert differ(2) < ROUNDING
    with seamless([plain, taken]):
        assert differ(2) < ROUNDING
    assert differ(2) < ROUNDING
    for one in (plain, taken[0]):
        one.conv.register_forward_hook(lambda module, given, output: output + given[0])
    assert differ(2) < ROUNDING


@WITH_ONEDNN
def test_no_copy_of_a_large_weight_is_kept() -> None:
    """It would take as much memory again."""
    plain = nn.Conv2d(256, 256, 3, padding=1).requires_grad_(False)
    taken = nn.ModuleList([nn.Conv2d(256, 256, 3, padding=1)]).requires_grad_(False)
    taken[0].load_state_dict(plain.state_dict())
    use_onednn(taken)
    x = torch.randn(2, 256, 4, 4)
    with Reorders() as reorders:  # type: ignore[no-untyped-call]
        assert (plain(x) - taken[0](x)).abs().max() < 10 * ROUNDING
    assert reorders.count == 0


@WITH_ONEDNN
@pytest.mark.parametrize("rows", [2, 3, 5, 8])
def test_a_row_does_not_depend_on_its_position(rows: int) -> None:
    """To the bit: a picture must not depend on its position in a batch."""
    taken = layers()
    taken.append(GEGLU(64, 96).requires_grad_(False))
    use_onednn(taken)
    for layer in taken:
        shape = (64, 9, 9) if isinstance(layer, nn.Conv2d) else (77, 64)
        x = torch.randn(rows, *shape)
        x[-1] = x[0]
        result = layer(x)
        assert torch.equal(result[0], result[-1])


@WITH_ONEDNN
def test_unet_and_vae_are_computed_so(tmp_path: Path) -> None:
    """In float32; torch takes oneDNN by itself in bfloat16."""
    for precision, expected in (("float32", True), ("bfloat16", False)):
        engine = Renderer(EngineOptions(models=tmp_path, device="cpu", precision=precision))  # type: ignore[arg-type]
        loaded = engine._checkpoints.load(request())
        for layer in (loaded.unet.conv_in, loaded.vae.decoder.conv_in):
            assert (type(layer) is not nn.Conv2d) == expected


def test_a_gpu_is_left_alone() -> None:
    """oneDNN computes on processors."""
    assert not onednn_is_faster(torch.device("cuda"), torch.float32)
