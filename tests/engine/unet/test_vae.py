"""Latents to pixels, and no black picture as success."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from picowatch.engine.unet.latents import decode
from picowatch.errors import RenderFailed


class Vae:
    """Decodes latents to a flat colour; overflows in the given types."""

    def __init__(self, value: float = 0.0, overflows_in: tuple[torch.dtype, ...] = ()) -> None:
        self.config = SimpleNamespace(scaling_factor=0.5)
        self.device, self.dtype = torch.device("cpu"), torch.float16
        self.value = value
        self.overflows_in = overflows_in
        self.seen: list[torch.Tensor] = []

    def to(self, dtype: torch.dtype) -> "Vae":
        self.dtype = dtype
        return self

    def decode(self, latents: torch.Tensor) -> Any:
        self.seen.append(latents)
        value = float("nan") if self.dtype in self.overflows_in else self.value
        return SimpleNamespace(sample=torch.full((1, 3, 2, 2), value, dtype=self.dtype))


LATENTS = torch.ones(1, 4, 1, 1)


@pytest.mark.parametrize(("value", "level"), [(-1, 0), (0, 128), (1, 255), (-9, 0), (9, 255)])
def test_minus_one_to_one_is_black_to_white(value: float, level: int) -> None:
    """Rounded, and cut where it overshoots."""
    assert decode(Vae(value), LATENTS).tobytes() == bytes([level] * 12)


def test_latents_are_unscaled_in_the_vaes_own_type() -> None:
    """By the VAE's scaling factor."""
    vae = Vae()
    decode(vae, LATENTS)
    assert float(vae.seen[0][0, 0, 0, 0]) == 2.0
    assert vae.seen[0].dtype == torch.float16


def test_a_vae_that_overflows_in_float16_decodes_in_float32() -> None:
    """And is as before for the next picture."""
    vae = Vae(1.0, overflows_in=(torch.float16,))
    assert decode(vae, LATENTS).tobytes() == bytes([255] * 12)
    assert vae.dtype == torch.float16


def test_a_vae_that_overflows_anyway_fails() -> None:
    """With what to do."""
    with pytest.raises(RenderFailed, match=r"the VAE overflowed\. Set precision: float32"):
        decode(Vae(overflows_in=(torch.float16, torch.float32)), LATENTS)


def test_latents_that_are_no_numbers_fail_at_once() -> None:
    """No VAE can fix them: they are decoded before that is known, but not again in float32."""
    vae = Vae()
    with pytest.raises(RenderFailed, match="the checkpoint overflowed"):
        decode(vae, LATENTS * float("nan"))
    assert [seen.dtype for seen in vae.seen] == [torch.float16]
