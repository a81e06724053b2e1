"""The loop of a stage, its state saved now and then, so that a killed stage goes on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.muon import Optimizers

SECONDS_BETWEEN_SAVES = 150.0


class Progress:
    """A stage's saved state and its log of losses."""

    def __init__(self, run_folder: Path, stage: str) -> None:
        run_folder.mkdir(parents=True, exist_ok=True)
        self.stage = stage
        self.state_file = run_folder / f"{stage}.state.pt"
        self.log_file = run_folder / f"{stage}.log.jsonl"
        self.saved_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        if not self.state_file.exists():
            return None
        state: dict[str, Any] = torch.load(self.state_file, map_location="cpu", weights_only=True)
        return state

    def save_is_due(self) -> bool:
        return time.monotonic() - self.saved_at > SECONDS_BETWEEN_SAVES

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state; a kill leaves the old one or the new one, whole."""
        save_whole(dict(state), self.state_file)
        self.saved_at = time.monotonic()

    def log(self, step: int, **figures: float) -> None:
        """Print the figures and appends them to the stage's log."""
        now = time.strftime("%H:%M:%S")
        print(now, f"step {step}", *(f"{k} {v:.5g}" for k, v in figures.items()), flush=True)
        with self.log_file.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"time": now, "step": step, **figures}) + "\n")


@dataclass(frozen=True)
class Schedule:
    """A learning rate that rises, stays, and falls to zero at the end.

    It stays the same for most of the steps, so that a stage may be ended early: its fall can
    begin at any step.
    """

    steps: int
    rate: float
    rise: int
    fall: int

    def with_steps(self, steps: int | None) -> Schedule:
        return self if steps is None else replace(self, steps=steps)


class RateOfStage:
    """A stage's learning rate. The file `STAGE.finish` in the run's folder lets it fall now.

    The step at which it then ends is written into that file, so that the stage goes on
    in the same way when it is killed.
    """

    def __init__(self, schedule: Schedule, progress: Progress) -> None:
        self.schedule = schedule
        self.file = progress.state_file.with_name(f"{progress.stage}.finish")

    def end(self, step: int) -> int:
        if not self.file.exists():
            return self.schedule.steps
        if not (said := self.file.read_text("utf-8").strip()):
            said = str(min(self.schedule.steps, step + self.schedule.fall))
            self.file.write_text(said + "\n", "utf-8")
        return int(said)

    def of(self, step: int) -> float:
        schedule, end = self.schedule, self.end(step)
        return schedule.rate * rise_and_fall(step, end, rise=schedule.rise, fall=schedule.fall)


class MovingAverage:
    """An exponential moving average of a network's weights; early it follows faster."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.clone() for name, value in network.state_dict().items()}

    def load(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self.values.items():
            value.copy_(values[name])

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int) -> None:
        """Move on by one step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)


class Averages:
    """Means of the figures seen since the last report."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, **figures: torch.Tensor) -> None:
        self.count += 1
        for name, figure in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(figure)

    def taken(self) -> dict[str, float]:
        """The means; the next ones start from nothing."""
        means = {name: total / max(1, self.count) for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


def save_whole(state: Mapping[str, Any], file: Path) -> None:
    """Write beside the file and renames, so that a kill never leaves half of it."""
    draft = file.with_suffix(".part")
    torch.save(dict(state), draft)
    draft.replace(file)


def rise_and_fall(step: int, steps: int, *, rise: int, fall: int) -> float:
    """1, but for a straight rise from zero at the beginning and a straight fall at the end."""
    return min(1.0, (step + 1) / rise, (steps - step) / fall)


def run_stage(
    network: nn.Module,
    optimizer: Optimizers,
    progress: Progress,
    rate: RateOfStage,
    average_decay: float,
    one_step: Callable[[int], dict[str, Tensor]],
) -> int:
    """Take steps until the stage's last one, from the saved state on, and save now and then.

    Leave the average's weights in the network, and return the number of steps. `one_step` takes
    a step's number, and returns the parts of its loss.
    """
    average = MovingAverage(network, average_decay)
    step = 0
    if saved := progress.load():
        network.load_state_dict(saved["network"])
        if "optimizer" in saved:  # not in a run that begins with an exported model
            optimizer.load_state_dict(saved["optimizer"])
        average.load(saved["average"])
        step = saved["step"]
    averages = Averages()
    while step < rate.end(step):
        optimizer.set_rate(rate.of(step))
        averages.add(**one_step(step))
        average.follow(network, step)
        step += 1
        if step % 100 == 0:
            progress.log(step, rate=rate.of(step), **averages.taken())
        if progress.save_is_due() or step == rate.end(step):
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            progress.save({**state, "average": average.values, "step": step})
    network.load_state_dict(average.values)
    return step
