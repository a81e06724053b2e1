"""What a seed stands for: numbers of each image's own, variations, and the noise of the steps."""

from typing import Any

import numpy as np
import pytest
import torch

from picowatch.engine.noise import noise_of, slerp
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from tests.engine.requests import NUMPY_WARNINGS, difference, draw, request

pytestmark = NUMPY_WARNINGS
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "cfg_scale": 1.0}
NOISY: dict[str, Any] = SMALL | {"sampler": "Euler a", "schedule_type": "uniform"}


def alone(renderer: Renderer, **values: Any) -> RenderedImage:
    """One small picture."""
    return draw(renderer, request(**{**SMALL, **values}))[0]


def test_a_pass_begins_with_the_first_numbers_of_a_seed() -> None:
    """torch's for a CPU, whoever the neighbours are, and its steps take those that follow."""
    noise, (_, second) = noise_of([request(seed=5), request(seed=6)], 64, 64, CPU)
    plain = torch.Generator().manual_seed(6)
    assert torch.equal(noise[1:], torch.randn((1, 4, 8, 8), generator=plain))
    assert torch.equal(torch.randn(9, generator=second), torch.randn(9, generator=plain))


@pytest.mark.parametrize(
    "values",
    [{}, {"ensd": 3}, {"variation_seed": 1, "variation_strength": 0.5}],
    ids=["noise", "ensd", "variation"],
)
def test_numbers_of_an_nvidia_card_are_refused_where_none_renders(
    renderer: Renderer, values: dict[str, Any]
) -> None:
    """In words; a CPU's would be another picture without one."""
    with pytest.raises(RenderFailed, match="of an NVIDIA card, and none renders here") as refused:
        alone(renderer, noise="nvidia", **values)
    assert refused.value.remedy == "Set noise: cpu, or render on such a card."


def test_an_amd_card_has_other_numbers_than_nvidias(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch calls it a CUDA device, too."""
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(RenderFailed, match="of an NVIDIA card"):
        noise_of([request(noise="nvidia")], 64, 64, torch.device("cuda"))


def test_images_of_one_batch_may_differ_in_all_of_it(renderer: Renderer) -> None:
    """The noise is theirs alone to the last bit, and so are the pictures but for rounding."""
    requests = [
        request("a red circle", seed=3, **NOISY),
        request("a red circle", seed=3, ensd=31337, **NOISY),
        request("a red circle", seed=3, variation_seed=4, variation_strength=0.4, **NOISY),
    ]
    assert len({one.batch_key for one in requests}) == 1
    together = noise_of(requests, 64, 64, CPU).start
    for row, one in enumerate(requests):
        assert torch.equal(noise_of([one], 64, 64, CPU).start[0], together[row])
    drawn = draw(renderer, *requests)
    assert len({image.pixels for image in drawn}) == 3
    for image, one in zip(drawn, requests, strict=True):
        assert difference(image, draw(renderer, one)[0]) <= 2


def test_ensd_moves_the_noise_of_the_steps_alone(renderer: Renderer) -> None:
    """From the seed to the seed + ensd, beyond 32 bits, too; as A1111's ENSD."""
    seed = 2**32 - 1
    plain, moved = (noise_of([request(seed=seed, ensd=ensd)], 64, 64, CPU) for ensd in (0, 31337))
    assert torch.equal(plain.start, moved.start)
    expected = torch.randn(9, generator=torch.Generator().manual_seed(seed + 31337))
    assert torch.equal(torch.randn(9, generator=moved.generators[0]), expected)
    assert alone(renderer, **NOISY).pixels != alone(renderer, **NOISY, ensd=1).pixels
    assert alone(renderer).pixels == alone(renderer, ensd=1).pixels  # its steps draw none


def test_a_variation_goes_from_one_seeds_picture_to_the_others(renderer: Renderer) -> None:
    """0 is the one and 1 the other, to the last bit; what lies between is no less noisy."""
    ends = alone(renderer, seed=8).pixels, alone(renderer, seed=9).pixels
    values: dict[str, Any] = {"seed": 8, "variation_seed": 9}
    first, half, last = (
        alone(renderer, **values, variation_strength=share).pixels for share in (0.0, 0.5, 1.0)
    )
    assert (first, last) == ends and half not in ends
    noise = noise_of([request(**values, variation_strength=0.5)], 512, 512, CPU).start
    assert abs(float(noise.std()) - 1) < 0.01
    same = alone(renderer, seed=8, variation_seed=8, variation_strength=0.5)
    assert same.pixels == ends[0]


def test_a_variation_is_a1111s() -> None:
    """Numbers of the function slerp in A1111's modules/rng.py."""
    low = torch.arange(24, dtype=torch.float32).sin().reshape(2, 3, 4)
    high = torch.arange(24, dtype=torch.float32).mul(1.7).cos().reshape(2, 3, 4)
    found = slerp(low, high, 0.3)
    expected = [0.478546, 0.677608, 0.384256, 0.345687, -0.28025, -1.100472, -0.731658, 1.080631]
    assert np.allclose(found.flatten()[:8], expected, atol=1e-5)
