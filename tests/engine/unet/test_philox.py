"""The normal numbers of NVIDIA GPUs."""

import numpy as np
import pytest

from picowatch.engine.unet.philox import Philox, philox

# The vectors that the authors of the algorithm publish: Random123's tests/kat_vectors,
# philox4x32 with ten rounds. Counters, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counters", "key", "result"), KNOWN)
def test_the_algorithm_is_the_published_one(counters: str, key: str, result: str) -> None:
    """The key is the seed, its low half first."""
    low, high = words(key)
    found = philox(np.array([[word] for word in words(counters)], np.uint32), high << 32 | low)
    assert found[:, 0].tolist() == words(result)


def test_the_numbers_are_those_of_a_gpu() -> None:
    """`torch.manual_seed(0); torch.randn(3, 4, device="cuda")`, as A1111 publishes it.

    https://github.com/AUTOMATIC1111/stable-diffusion-webui, modules/rng_philox.py
    """
    expected = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    assert np.allclose(Philox(0).randn((3, 4)), expected, rtol=0, atol=1e-6)


def test_each_call_continues_and_each_seed_has_numbers_of_its_own() -> None:
    """Seeds have 64 bits: `ensd` may lead beyond 32."""
    numbers = Philox(7)
    first, second = numbers.randn((1000,)), numbers.randn((1000,))
    assert np.array_equal(first, Philox(7).randn((1000,)))
    for other in (second, Philox(8).randn((1000,)), Philox(7 + 2**32).randn((1000,))):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.1


def test_they_are_normally_distributed() -> None:
    """A million of them; none is infinite."""
    numbers = Philox(3).randn((1000, 1000)).astype(float)
    assert abs(numbers.mean()) < 0.005
    assert abs(numbers.std() - 1) < 0.005
    assert np.isfinite(numbers).all()
