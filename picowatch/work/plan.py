"""Which engine takes which batch, so that checkpoints are loaded seldom.

1. An engine keeps the checkpoint that it holds while an image of the highest priority needs it.
2. Otherwise the oldest image goes to the idle engine that loses least by loading its checkpoint.
3. The oldest image may be passed over by `PASSES` batches of each engine. Then 2 comes before 1.

Pure: `tests/work/test_plan.py` simulates many engines with it.
"""

from collections.abc import Callable, Sequence

from picowatch.work.engine_state import EngineState

PASSES = 4


def choose(
    claimant: EngineState,
    idle: Sequence[EngineState],
    oldest_needs: str,
    *,
    overdue: bool,
    is_queued: Callable[[str], bool],
) -> tuple[EngineState, str]:
    """The engine that should take the next batch, and the hash of the batch's checkpoint.

    `idle` are the engines without a batch; the claimant is one of them. `is_queued` says
    whether an image of the highest priority needs a checkpoint. `overdue`: the oldest image was
    passed over often enough.
    """
    held = claimant.checkpoint
    if held and not overdue and is_queued(held):
        return claimant, held
    return min(idle, key=lambda engine: _loss(engine, oldest_needs)), oldest_needs


def _loss(engine: EngineState, checkpoint: str) -> tuple[int, int, int]:
    """Orders engines by what it costs to give them this checkpoint.

    First one that holds it, then a started one that holds nothing, then one that is not started.
    Last comes the one whose checkpoint was not used for longest.
    """
    if engine.checkpoint == checkpoint:
        return 0, engine.used, engine.number
    if not engine.checkpoint:
        return (1 if engine.warm else 2), 0, engine.number
    return 3, engine.used, engine.number


class Passes:
    """How many batches passed over the oldest queued image."""

    def __init__(self) -> None:
        self._oldest: int | None = None
        self._passes = 0

    def are_over(self, oldest: int, engines: int) -> bool:
        """Whether this image, the oldest that is queued, was passed over often enough."""
        if oldest != self._oldest:
            self._oldest, self._passes = oldest, 0
        return self._passes >= PASSES * engines

    def add(self) -> None:
        """A batch was taken that the oldest image is not in."""
        self._passes += 1
