"""The state of an engine: what it holds, how fast it is, why it does not start."""

from collections.abc import Sequence
from dataclasses import dataclass

from picowatch.engine.protocol import RenderedImage
from picowatch.recipe.request import ImageRequest

AVERAGE_WEIGHT = 0.3  # of the newest batch in the average time of an image


@dataclass(slots=True)
class EngineState:
    """Its worker writes it, the pool shares out work by it, and the status shows it.

    `number` identifies the engine. `idle`: its worker claimed a batch and got none. `warm`: it is
    started. `checkpoint` is the hash of the one it used last, "" if it holds none. `used` is the
    number of its last batch among those of all engines. `device`, with the precision, is known
    after the first batch. `rendered` counts images. `failed_starts` are those in a row, `trouble`
    says why it is waiting, or gave up.
    """

    number: int
    idle: bool = False
    warm: bool = False
    checkpoint: str = ""
    checkpoint_name: str = ""
    used: int = 0
    device: str = ""
    rendered: int = 0
    seconds_per_image: float | None = None
    failed_starts: int = 0
    trouble: str = ""

    def begins(self, request: ImageRequest) -> None:
        """It starts a batch of requests like this one."""
        self.warm = True
        self.checkpoint, self.checkpoint_name = request.checkpoint_hash, request.checkpoint

    def has_rendered(self, pictures: Sequence[RenderedImage], seconds: float) -> None:
        """A batch succeeded."""
        self.trouble, self.failed_starts = "", 0
        self.rendered += len(pictures)
        self.device = f"{pictures[0].device} {pictures[0].precision}"
        before = self.seconds_per_image
        weight = AVERAGE_WEIGHT if before is not None else 1.0
        self.seconds_per_image = weight * seconds / len(pictures) + (1 - weight) * (before or 0.0)

    def has_ended(self) -> None:
        """It is closed, or died: it holds nothing."""
        self.warm, self.checkpoint, self.checkpoint_name = False, "", ""
