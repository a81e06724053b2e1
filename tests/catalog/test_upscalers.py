"""Upscalers are known by their headers: the architecture, the scale, and what cannot be used."""

from pathlib import Path

import pytest

from picowatch.catalog import DEMO_UPSCALER, Catalog
from picowatch.catalog.upscalers import layout_of
from picowatch.errors import ModelRefused
from tests.catalog.files import Shapes, write_model
from tests.catalog.upscalers import compact_shapes, esrgan_shapes, span_shapes

KNOWN: dict[str, tuple[Shapes, str, int]] = {
    "4x-UltraSharp": (esrgan_shapes("old"), "ESRGAN", 4),
    "BSRGAN": (esrgan_shapes("trunk"), "ESRGAN", 4),
    "BSRGANx2": (esrgan_shapes("trunk", doublings=1), "ESRGAN", 2),
    "RealESRGAN_x4plus": (esrgan_shapes("new"), "ESRGAN", 4),
    "RealESRGAN_x4plus_anime_6B": (esrgan_shapes("new", blocks=6), "ESRGAN", 4),
    "RealESRGAN_x2plus": (esrgan_shapes("new", takes=12), "ESRGAN", 2),
    "1x-unshuffled": (esrgan_shapes("new", takes=48), "ESRGAN", 1),
    "1x-DeJPG": (esrgan_shapes("old", doublings=0), "ESRGAN", 1),
    "8x": (esrgan_shapes("old", doublings=3), "ESRGAN", 8),
    "realesr-general-x4v3": (compact_shapes(4, blocks=32), "Compact", 4),
    "2x-compact": (compact_shapes(2), "Compact", 2),
    "ClearReality": (span_shapes(4, normalised=False), "SPAN", 4),
    "2x-span": (span_shapes(2), "SPAN", 2),
}
REFUSED: dict[str, tuple[Shapes, str]] = {
    "HAT": ({"layers.0.residual_group.overlap_attn.qkv.weight": (1,)}, "an upscaler by HAT"),
    "DAT": ({"before_RG.1.weight": (1,), "conv_first.weight": (1, 3, 3, 3)}, "by DAT"),
    "SwinIR": ({"layers.0.residual_group.blocks.0.norm1.weight": (1,)}, "by SwinIR"),
    "OmniSR": ({"residual_layer.0.residual_layer.0.layer.0.fn.0.weight": (1,)}, "by OmniSR"),
    "RealPLKSR": ({"feats.1.lk.conv.weight": (1,), "feats.1.channel_mixer.0.weight": (1,)},
                  "by RealPLKSR"),
    "grey": (esrgan_shapes("new", blocks=1, takes=1, gives=1), "pictures of 1 channels"),
    "RGBA": (esrgan_shapes("old", blocks=1, gives=4), "pictures of 4 channels"),
    "odd colours": (esrgan_shapes("old", blocks=1, takes=7), "pictures of 7 channels"),
    "odd layers": (esrgan_shapes("old", blocks=1) | {"model.11.weight": (3, 64, 3, 3)}, "form"),
    "without a last layer": (
        {n: s for n, s in compact_shapes(blocks=1).items() if not n.startswith("body.4")}, "form"),
    "of no scale": (compact_shapes(blocks=1) | {"body.4.weight": (47, 64, 3, 3)}, "form"),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_the_scale_and_the_architecture_follow_from_the_shapes(tmp_path: Path, name: str) -> None:
    """Whoever named the weights."""
    shapes, architecture, scale = KNOWN[name]
    write_model(tmp_path / f"upscalers/{name}.safetensors", shapes)
    (found,) = Catalog(tmp_path).scan().models
    assert (found.kind, found.variant, found.scale) == ("upscaler", architecture, scale)


@pytest.mark.parametrize("name", REFUSED)
def test_other_upscalers_are_named_and_refused(tmp_path: Path, name: str) -> None:
    """With what there is instead."""
    shapes, words = REFUSED[name]
    write_model(tmp_path / "upscalers/it.safetensors", shapes)
    (refused,) = Catalog(tmp_path).scan().refused
    assert words in refused.reason
    assert "not supported" in refused.reason


def test_an_upscaler_elsewhere_is_told_where_it_belongs(tmp_path: Path) -> None:
    """And a checkpoint's neighbour is none."""
    write_model(tmp_path / "checkpoints/x.safetensors", compact_shapes())
    write_model(tmp_path / f"upscalers/{DEMO_UPSCALER}.safetensors", compact_shapes())
    reasons = [entry.reason for entry in Catalog(tmp_path).scan().refused]
    assert reasons == [
        "x.safetensors is an upscaler, not a checkpoint: move it to models/upscalers/.",
        f"{DEMO_UPSCALER}.safetensors has the same name as the embedded upscaler: rename it.",
    ]


def test_blocks_beyond_measure_are_counted_not_believed() -> None:
    """A network is built for as many as there are weights."""
    shapes = esrgan_shapes("new", blocks=1)
    shapes["body.4000000000.rdb1.conv1.weight"] = (32, 64, 3, 3)
    with pytest.raises(ModelRefused):
        layout_of(shapes)
