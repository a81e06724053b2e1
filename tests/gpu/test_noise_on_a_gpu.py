"""`noise: nvidia` on an NVIDIA card; runs where there is one."""

import pytest
import torch

from picowatch.engine.noise import noise_of
from tests.engine.requests import request

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or bool(torch.version.hip), reason="needs an NVIDIA card"
)


def test_the_noise_is_the_cards() -> None:
    """A1111's, which draws on the card; each image's own, and of the steps, too."""
    requests = [
        request(seed=seed, noise="nvidia", ensd=ensd) for seed, ensd in ((5, 0), (6, 31337))
    ]
    noise, generators = noise_of(requests, 64, 64, torch.device("cuda"))
    for row, one in enumerate(requests):
        theirs = torch.Generator("cuda").manual_seed(one.seed)
        drawn = torch.randn((4, 8, 8), generator=theirs, device="cuda")
        assert torch.equal(noise[row], drawn)
        if one.ensd:
            theirs = torch.Generator("cuda").manual_seed(one.seed + one.ensd)
        found, expected = (
            torch.randn(9, generator=each, device="cuda") for each in (generators[row], theirs)
        )
        assert torch.equal(found, expected)
