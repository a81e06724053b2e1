"""Which engine takes which batch, so that checkpoints are loaded seldom.

1. An engine keeps the checkpoint that it holds while an image of the highest priority needs it.
2. Otherwise the oldest image goes to the idle engine that loses least by loading its checkpoint.
3. The oldest image may be passed over by `PASSES` batches of each engine. Then 2 comes before 1.

Pure: `tests/work/test_plan.py` simulates many engines with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from picowatch.engine.protocol import RenderedImage
from picowatch.recipe.request import ImageRequest

PASSES = 4
# An idle engine waits for saves that settle within so many seconds, in all at most so long.
SOON_SECONDS = 0.1
LONGEST_SECONDS = 0.2


@dataclass(slots=True)
class EngineState:
    """Its worker writes it, the pool shares out work by it, and the status shows it.

    `number` identifies the engine. `idle`: its worker claimed a batch and got none. `warm`: it is
    started. `checkpoint` is the hash of the one it used last, "" if it holds none. `used` is the
    number of its last batch among those of all engines. `device`, with the precision, is known
    after the first batch. `rendered` counts images.
    `loaded` are the hashes of the checkpoints that it used since it started. `failed_starts` are
    those in a row, `trouble` says why it is waiting, or gave up.
    """

    number: int
    idle: bool = False
    warm: bool = False
    checkpoint: str = ""
    checkpoint_name: str = ""
    loaded: set[str] = field(default_factory=set)
    used: int = 0
    device: str = ""
    rendered: int = 0
    failed_starts: int = 0
    trouble: str = ""

    def begins(self, request: ImageRequest) -> str:
        """It starts a batch of requests like this one; returns what it has to load for that."""
        self.warm = True
        self.checkpoint, self.checkpoint_name = request.checkpoint_hash, request.checkpoint
        return "" if self.checkpoint in self.loaded else self.checkpoint_name

    def has_rendered(self, pictures: Sequence[RenderedImage]) -> None:
        """A batch succeeded."""
        self.trouble, self.failed_starts = "", 0
        self.rendered += len(pictures)
        self.device = f"{pictures[0].device} {pictures[0].precision}"
        self.loaded.add(self.checkpoint)

    def has_ended(self) -> None:
        """It is closed, or died: it holds nothing."""
        self.warm, self.checkpoint, self.checkpoint_name = False, "", ""
        self.loaded.clear()


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


class Gathering:
    """Lets idle engines wait for saves that settle within moments, so that one batch has them all.

    What a program writes at once settles file by file, and the first batch would have the first
    alone. Times are passed in, in seconds of any steady clock.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._until = 0.0

    def look(self, now: float, settles_in: float | None) -> None:
        """A save settles in so many seconds; None if none is pending."""
        if settles_in is None or settles_in > SOON_SECONDS:
            self._began, self._until = None, now
            return
        if self._began is None:
            self._began = now
        self._until = min(now + SOON_SECONDS, self._began + LONGEST_SECONDS)

    def goes_on(self, now: float) -> bool:
        """Whether to wait still."""
        return now < self._until
