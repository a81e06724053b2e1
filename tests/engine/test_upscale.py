"""The networks of upscalers compute what their authors' do, also in tiles."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from picowatch.catalog.headers import Header
from picowatch.catalog.upscalers import COMPACT, ESRGAN, SPAN, Layout
from picowatch.engine.networks import upscale
from picowatch.engine.networks.upscale import (
    Compact,
    Esrgan,
    Network,
    Span,
    enlarged,
    input_sizes,
    network_in,
)
from picowatch.files.decoding import Original
from tests.catalog.files import Shapes
from tests.catalog.shapes import compact_shapes, esrgan_shapes, span_shapes
from tests.engine.alive import most_bytes

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


def filled(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Return random weights with which values neither grow nor vanish."""
    numbers = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=numbers)
        * (0.5 / max(1, (shape[1] * shape[2] * shape[3]) ** 0.5) if len(shape) == 4 else 0.05)
        for name, shape in sorted(shapes.items())
    }


def network(shapes: Shapes) -> Network:
    made = network_in(Header(shapes, {})).eval()
    made.load_state_dict(made.weights_of(filled(shapes)))
    return made


@pytest.mark.parametrize("name", RECORDED)
def test_the_numbers_are_those_of_the_authors_networks(name: str) -> None:
    """The weights are in all forms that picowatch reads."""
    shapes, total, squares = RECORDED[name]
    picture = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        made = network(shapes)(picture).double()
    assert float(made.sum()) == pytest.approx(total, rel=1e-4, abs=1e-3)
    assert float(made.square().sum()) == pytest.approx(squares, rel=1e-5)


def test_the_names_of_other_authors_mean_the_same() -> None:
    weights = network(OLD).state_dict()
    for form in ("trunk", "new"):
        shapes = esrgan_shapes(form, blocks=2, channels=8)
        other = network(shapes)
        renamed = {theirs: weights[ours] for ours, theirs in other.layout.names.items()}
        assert renamed.keys() == shapes.keys()
        again = other.weights_of(renamed)
        assert again.keys() == weights.keys()
        assert all(again[name].equal(weights[name]) for name in weights)


@torch.inference_mode()
def in_size(made: Network, picture: Image.Image, size: tuple[int, int], halvings: int) -> Any:
    found = enlarged(made, Original(picture), size, lambda: None, halvings=halvings)
    return np.asarray(found.picture).astype(int)


def twice_as_large(made: Network, picture: Any, halvings: int) -> Any:
    high, wide = picture.shape[:2]
    return in_size(made, Image.fromarray(picture), (2 * wide, 2 * high), halvings)


@pytest.mark.parametrize(
    "shapes", [RECORDED["SPAN"][0], esrgan_shapes("old", blocks=1, channels=4, growth=4, takes=12)]
)
def test_no_seam_is_visible(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is any other difference; without an overlap there is one."""
    made = network(shapes)
    picture = np.random.default_rng(0).integers(0, 256, (53, 70, 3), dtype=np.uint8)

    whole = twice_as_large(made, picture, halvings=0)
    assert whole.shape == (106, 140, 3)
    in_tiles = twice_as_large(made, picture, halvings=3)
    assert np.abs(in_tiles - whole).max() <= 1  # the last bit's rounding
    monkeypatch.setattr(upscale, "MOST_OVERLAP", 0)
    assert np.abs(twice_as_large(made, picture, halvings=3) - whole).max() > 1


@pytest.mark.parametrize(
    ("scale", "before", "size", "passes"),
    [
        (4, (100, 50), (400, 200), [(100, 50)]),
        (2, (100, 50), (800, 400), [(100, 50), (200, 100), (400, 200)]),
        (1, (100, 50), (200, 100), [(100, 50)]),
        (4, (2000, 1000), (16000, 8000), [(2000, 1000), (4000, 2000)]),
        (4, (6000, 4000), (12000, 8000), [(6000, 4000)]),
    ],
)
def test_an_upscaler_is_used_as_often_as_the_size_needs(
    scale: int, before: tuple[int, int], size: tuple[int, int], passes: list[tuple[int, int]]
) -> None:
    """As in A1111, at most three times; what was made between is reduced, a photo never."""
    assert input_sizes(scale, before, size) == passes


@pytest.mark.parametrize("size", [(106, 159), (101, 149), (40, 33)])
def test_a_result_is_reduced_in_bands_as_in_one(size: tuple[int, int]) -> None:
    """Each band is filtered with the rows around it, so that no seam shows."""
    made = network(RECORDED["Compact"][0])
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 53, 3), np.uint8))
    whole = Image.fromarray(twice_as_large(made, np.asarray(picture), 4).astype(np.uint8))
    narrow = whole.resize((size[0], whole.height), Image.Resampling.LANCZOS)
    expected = np.asarray(narrow.resize(size, Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(in_size(made, picture, size, 4) - expected).max() <= 1


LAYOUTS = {
    "ESRGAN x4": (Esrgan, Layout(ESRGAN, 4, 64, 23, 32, 2)),
    "ESRGAN x2, folded": (Esrgan, Layout(ESRGAN, 2, 64, 2, 32, 2, 2)),
    "Compact x4": (Compact, Layout(COMPACT, 4, 64, 16)),
    "SPAN x2": (Span, Layout(SPAN, 2, 48, 6)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_memory_is_estimated_as_it_is_taken(name: str) -> None:
    """At most a tenth above what the network's numbers take."""
    kind, layout = LAYOUTS[name]
    with torch.device("meta"):
        network = kind(layout)
    taken = most_bytes(lambda: network(torch.empty(1, 3, 128, 128)))
    assert taken <= network.numbers * 128**2 * 4 <= taken * 1.1
