"""The demo's upscaler enlarges the demo's drawings better than a filter does."""

import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from picowatch.catalog import Catalog, embedded
from picowatch.engine.upscale_networks import network_of
from training import upscaler
from training.untyped import AutoencoderKL

CATALOG = Catalog(Path("nowhere"))


def test_the_embedded_one_is_nearer_to_the_drawings_than_lanczos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of drawings that it has not seen: plain ones, and after the demo model's autoencoder."""
    monkeypatch.setattr(upscaler, "HELD_OUT", 6)
    network = network_of(upscaler.LAYOUT).eval()
    network.load_state_dict(
        {name: one.float() for name, one in load_file(embedded("upscaler").path).items()}
    )
    vae = AutoencoderKL.from_pretrained(CATALOG.demo.path / "vae").float().eval()
    found = upscaler.measure(network, vae)
    assert all(
        ours > theirs for ours, theirs in zip(found["demo-compact"], found["lanczos"], strict=True)
    ), found


def test_a_pair_shows_the_same_in_two_sizes() -> None:
    """The small one is what the large one becomes when it is reduced."""
    small, large = upscaler.pair(random.Random(3))
    assert (small.size, large.size) == ((128, 128), (512, 512))
    apart = np.abs(np.asarray(large.reduce(4)).astype(float) - np.asarray(small))
    assert apart.mean() < 2
