"""What a seed stands for: numbers of each image's own, variations, and the noise of the steps."""

from typing import Any

import pytest
import torch

from picowatch.engine.noise import noise_of
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from tests.engine.requests import NUMPY_WARNINGS, draw, request

pytestmark = NUMPY_WARNINGS
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "cfg_scale": 1.0}


def alone(renderer: Renderer, **values: Any) -> RenderedImage:
    """One small picture."""
    return draw(renderer, request(**{**SMALL, **values}))[0]


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
