"""NVIDIA's numbers against an NVIDIA GPU's; runs where there is a CUDA device."""

import pytest
import torch

from picowatch.engine.unet.philox import Philox

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# The GPU's logarithm and sine are not numpy's.
TOLERANCE = 1e-4


@pytest.mark.parametrize("seed", [0, 1, 31337, 2**32 - 1, 2**32 + 31336])
def test_the_numbers_of_a_gpu_are_numpys(seed: int) -> None:
    """Call after call; from one number to as many as the card runs threads."""
    card = torch.cuda.get_device_properties(0)
    most = card.multi_processor_count * card.max_threads_per_multi_processor
    theirs, ours = torch.Generator("cuda").manual_seed(seed), Philox(seed)
    for count in (1, 4 * 8 * 8, 4 * 64 * 64, 4 * 96 * 96, min(most, 4 * 128 * 128)):
        there = torch.randn(count, generator=theirs, device="cuda").cpu()
        assert torch.allclose(there, torch.from_numpy(ours.randn((count,))), atol=TOLERANCE)
