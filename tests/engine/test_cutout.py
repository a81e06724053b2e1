"""Cutout networks are recognised, and compute what their authors' code does."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from picowatch.catalog.cutouts import DEPTHS, Layout, Shapes, Widths, layout_of, tensors_of
from picowatch.catalog.headers import Header
from picowatch.catalog.recognise import recognise
from picowatch.engine.model.part_files import filled
from picowatch.engine.networks.cutout import Network, cut_out, network_in
from tests.engine.alive import most_bytes

# The names and shapes in the published networks' state_dict, and what these make of a picture with
# the weights of `weights`; written by the authors' own code.
NAMES = {
    "u2netp": "a0f5c19f761ad5164de66636e3b94e710b83dd30d77f3f2e50539eeba9def12d",
    "u2net": "321f26ee16d6ee6c2552a6a5290d701d6622087f907ad61784c1e356d3f010f3",
    "isnet": "7ffe0338dd2417d927c6b621137863a127588cd4a4a64e604353e53789f603f8",
}
MADE = {
    "u2netp": (
        *(0.78352, 0.84895, 0.44612, 0.9358, 0.99999, 0.99998),
        *(0.91547, 0.99999, 0.99996, 0.66242, 0.99361, 0.99525),
    ),
    "isnet": (
        *(0.58034, 0.19344, 0.49127, 0.90195, 0.99766, 0.88047),
        *(0.9519, 0.9745, 0.83337, 0.97556, 0.99955, 0.99678),
    ),
}


# Channels inside of each stage, and those that it gives, in the order of DEPTHS.
_LARGE = (
    *((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)),
    *((256, 512), (128, 256), (64, 128), (32, 64), (16, 64)),
)
PUBLISHED = {"u2netp": ((16, 64),) * 11, "u2net": _LARGE, "isnet": _LARGE}


def published_shapes(
    name: str, widths: tuple[tuple[int, int], ...] = ()
) -> dict[str, tuple[int, ...]]:
    """Return the published file's shapes but counts of batches, or with `widths` smaller ones."""
    stem = 64 if name == "isnet" else 0
    stages: dict[str, Widths] = {}
    takes = stem or 3
    for stage, (inside, wide) in zip(DEPTHS, widths or PUBLISHED[name], strict=True):
        if stage.endswith("d"):
            takes += stages[stage.removesuffix("d")].gives
        stages[stage] = Widths(takes, inside, wide)
        takes = wide
    return dict(tensors_of(Layout(stem, stages)))


def weights(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Return weights by the shapes, with which a network's values neither vanish nor explode."""
    made: dict[str, torch.Tensor] = {}
    for name in sorted(shapes):
        noise = torch.randn(shapes[name], generator=torch.Generator().manual_seed(len(made)))
        if name.endswith(("running_var", "bn_s1.weight")):
            noise = noise.abs() * 0.2 + 0.9
        elif noise.ndim == 1:
            noise = noise * 0.1
        else:
            noise = noise * (2 / noise[0].numel()) ** 0.5
        made[name] = noise
    return made


@pytest.mark.parametrize("name", NAMES)
def test_published_files_are_recognised(name: str) -> None:
    """By all of their names and shapes; a file that lacks one is none of them."""
    shapes = published_shapes(name)
    text = "\n".join(f"{tensor} {list(shape)}" for tensor, shape in sorted(shapes.items()))
    assert hashlib.sha256(text.encode()).hexdigest() == NAMES[name]
    counted = shapes | {"stage1.rebnconv1.bn_s1.num_batches_tracked": ()}
    wrapped = {f"net.{tensor}": shape for tensor, shape in shapes.items()}
    for known in (shapes, counted, wrapped):
        found = recognise(Header(known, {}))
        assert (found.kind, found.variant) == ("cutout", "IS-Net" if name == "isnet" else "U²-Net")
    del shapes["stage3d.rebnconv2.bn_s1.bias"]
    assert layout_of(shapes) is None


@pytest.mark.parametrize("name", MADE)
def test_networks_compute_as_published(name: str) -> None:
    """For sides that no halving divides, too."""
    shapes = published_shapes(name)
    network = network_in(Header(shapes, {}))
    wrapped = {f"net.{tensor}": weight for tensor, weight in weights(shapes).items()}
    filled(network, network.weights_of(wrapped), "network")
    seen = torch.linspace(-2, 2, 3 * 40 * 56).view(1, 3, 40, 56).sin()
    with torch.inference_mode():
        mask = torch.sigmoid(network(seen * torch.linspace(0, 9, 56).cos()))
    assert mask[0, 0, ::13, ::19].flatten().tolist() == pytest.approx(MADE[name], abs=2e-4)


@pytest.mark.parametrize(
    ("name", "side"), [pytest.param("u2net", 320, marks=pytest.mark.heavy), ("isnet", 1024)]
)
def test_memory_is_estimated_as_it_is_taken(name: str, side: int) -> None:
    """At most a tenth above what the network's numbers take."""
    layout = layout_of(published_shapes(name))
    assert layout
    with torch.device("meta"):
        network = Network(layout, side)
    taken = most_bytes(lambda: network(torch.empty(1, 3, side, side)))
    assert taken <= network.computing_bytes("cpu") <= taken * 1.1


# rembg's means and deviations of colours.
COLOURS = {
    "u2netp": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "isnet": ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("name", COLOURS)
@torch.inference_mode()
def test_a_figure_is_cut_out_as_rembg_does(name: str) -> None:
    """A dark picture is brightened; the mask is what rembg's sessions make of the same network."""
    shapes = published_shapes(name, ((4, 8),) * len(DEPTHS))
    network = network_in(Header(shapes, {"modelspec.resolution": "64x64"})).eval()
    network.load_state_dict(weights(shapes), strict=False)
    small = np.random.default_rng(1).integers(0, 90, (9, 7, 3), np.uint8)
    picture = Image.fromarray(small).resize((70, 90), Image.Resampling.BICUBIC)
    pixels = np.array(picture.resize((64, 64), Image.Resampling.LANCZOS))
    mean, deviation = map(np.array, COLOURS[name])
    given = ((pixels / np.max(pixels) - mean) / deviation).transpose(2, 0, 1)[None]
    made = network(torch.from_numpy(given).float()).sigmoid()[0, 0].numpy()
    levels = ((made - made.min()) / (made.max() - made.min()) * 255).astype(np.uint8)
    expected = Image.fromarray(levels).resize(picture.size, Image.Resampling.LANCZOS)
    cut, _ = cut_out(network, picture)
    assert np.asarray(ImageChops.difference(cut.getchannel("A"), expected)).max() <= 1
