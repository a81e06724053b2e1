"""Networks of upscalers with random weights."""

import torch

from picowatch.catalog.headers import Header
from picowatch.engine.upscale_networks import Network, network_in, weights_of
from tests.catalog.files import Shapes


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
    made.load_state_dict(weights_of(made, filled(shapes)))
    return made
