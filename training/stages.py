"""The loop that the stages share: steps, averaged weights, saves that survive a kill."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from training.muon import Optimizers
from training.progress import Averages, MovingAverage, Progress, RateOfStage


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
