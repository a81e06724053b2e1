"""The loop that all stages of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.muon import Optimizers
from training.progress import Progress, RateOfStage, Schedule
from training.stages import run_stage

SCHEDULE = Schedule(steps=12, rate=0.05, rise=3, fall=4)


class Killed(Exception):
    """The training ends here."""


def run(folder: Path, *, killed_at: int | None = None) -> dict[str, Tensor]:
    """Trains a small network in `folder`, from what was saved there on; gives its weights."""
    torch.manual_seed(1)
    network = nn.Linear(3, 4)
    optimizer = Optimizers(network, rate=SCHEDULE.rate, weight_decay=0.01)
    progress = Progress(folder, "vae")

    def one_step(step: int) -> dict[str, Tensor]:
        if step == killed_at:
            raise Killed
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        loss = (network(inputs) - 1.0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    rate = RateOfStage(SCHEDULE, progress)
    assert run_stage(network, optimizer, progress, rate, 0.9, one_step) == SCHEDULE.steps
    return network.state_dict()


@pytest.fixture
def saving_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves after each step."""
    monkeypatch.setattr("training.progress.SECONDS_BETWEEN_SAVES", -1.0)


@pytest.mark.usefixtures("saving_always")
@pytest.mark.parametrize("killed_at", [1, 5, 11])
def test_a_killed_stage_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, killed_at: int
) -> None:
    """Weights, their average, the optimizer's state and the rate all go on where they were."""
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", killed_at=killed_at)
    resumed = run(tmp_path / "killed")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_finished_stage_takes_no_more_steps(tmp_path: Path) -> None:
    """Its weights are the saved average's."""
    finished = run(tmp_path)
    again = run(tmp_path, killed_at=SCHEDULE.steps - 1)
    assert all(torch.equal(again[name], value) for name, value in finished.items())
