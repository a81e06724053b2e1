"""How a stage is ended early, and the optimizer's steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from training.muon import MATCHED_SIZE, Optimizers, orthogonalised
from training.progress import MovingAverage, Progress, RateOfStage, Schedule

SCHEDULE = Schedule(steps=1000, rate=2.0, rise=10, fall=100)


def test_the_file_lets_the_rate_fall_now_and_for_good(tmp_path: Path) -> None:
    """The end is the step at which the file was seen and the fall; a new run finds it again."""
    progress = Progress(tmp_path, "vae")
    rate = RateOfStage(SCHEDULE, progress)
    assert (rate.end(300), rate.of(300), rate.of(950)) == (1000, 2.0, 1.0)
    (tmp_path / "vae.finish").touch()
    assert (rate.end(300), rate.end(340), rate.of(350)) == (400, 400, 1.0)
    assert RateOfStage(SCHEDULE, progress).end(390) == 400


def test_the_average_lies_between_old_and_new_weights() -> None:
    """And goes on from what was saved."""
    network = nn.Linear(2, 1)
    average = MovingAverage(network, decay=0.9)
    old = average.values["weight"].clone()
    with torch.no_grad():
        network.weight.add_(1.0)
    average.follow(network, step=1000)
    assert torch.allclose(average.values["weight"], old + 0.1)
    again = MovingAverage(network, decay=0.9)
    again.load(average.values)
    assert torch.equal(again.values["weight"], average.values["weight"])


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_a_step_is_about_as_large_in_every_direction(shape: tuple[int, int]) -> None:
    """The singular values of a lopsided gradient come near to 1."""
    torch.manual_seed(1)
    lopsided = torch.randn(shape) * torch.logspace(0, -2, shape[1])
    values = torch.linalg.svdvals(orthogonalised(lopsided))
    assert values.max() < 1.3
    assert values.min() > 0.5


def test_matrices_move_by_the_matched_size_and_biases_by_adam() -> None:
    """One learning rate suits both; a saved state goes on."""
    torch.manual_seed(1)
    network = nn.Conv2d(16, 8, 3)
    optimizers = Optimizers(network, rate=0.1, weight_decay=0.0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(2, 16, 8, 8)).square().mean().backward()
    optimizers.step()
    moved = (network.weight.detach() - before["weight"]).square().mean().sqrt()
    assert float(moved) == pytest.approx(0.1 * MATCHED_SIZE, rel=0.25)
    assert (network.bias is not None) and not torch.equal(network.bias, before["bias"])
    optimizers.load_state_dict(optimizers.state_dict())
