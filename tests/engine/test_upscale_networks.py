"""The networks of upscalers compute what their authors' do."""

import pytest
import torch

from picowatch.catalog.upscalers import layout_of
from picowatch.engine.upscale_networks import weights_of
from tests.catalog.files import Shapes
from tests.catalog.upscalers import compact_shapes, esrgan_shapes, span_shapes
from tests.engine.upscale_networks import filled, network

OLD = esrgan_shapes("old", blocks=2, channels=8)
# Sum and sum of squares of what spandrel 0.4 (at 2026-10) makes of the same weights and picture.
RECORDED: dict[str, tuple[Shapes, float, float]] = {
    "ESRGAN": (OLD, -231.82037637988105, 32.62899455260555),
    "ESRGAN, folded": (
        esrgan_shapes("old", blocks=1, channels=8, takes=12), -60.0152473513881, 5.73162767046739),
    "Compact": (compact_shapes(2, channels=8, blocks=3), 695.5275489175692, 456.5110251271492),
    "SPAN": (span_shapes(2, channels=8), -588.0216220682487, 35578.36426144716),
    "SPAN, plain": (
        span_shapes(2, channels=8, normalised=False), -0.05025276413653046, 2.9593862909829096),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_the_numbers_are_those_of_the_authors_networks(name: str) -> None:
    """By their own weights, with all of the forms that ours reads."""
    shapes, total, squares = RECORDED[name]
    picture = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        made = network(shapes)(picture).double()
    assert float(made.sum()) == pytest.approx(total, rel=1e-4, abs=1e-3)
    assert float(made.square().sum()) == pytest.approx(squares, rel=1e-5)


@pytest.mark.parametrize("form", ["trunk", "new"])
def test_the_names_of_other_authors_mean_the_same(form: str) -> None:
    """The same weights under the three sets of names."""
    old, other = layout_of(OLD), layout_of(esrgan_shapes(form, blocks=2, channels=8))
    assert old and other
    weights = weights_of(old, filled(OLD))
    renamed = {theirs: weights[ours] for ours, theirs in other.names.items()}
    assert renamed.keys() == esrgan_shapes(form, blocks=2, channels=8).keys()
    again = weights_of(other, renamed)
    assert again.keys() == weights.keys()
    assert all(again[name].equal(weights[name]) for name in weights)
