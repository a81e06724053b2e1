"""What is known of an engine: what it holds, what it rendered, why it waits."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from picowatch.engine.protocol import RenderedImage
from picowatch.recipe.request import ImageRequest

PASSES = 4  # batches of each engine that may come before the oldest image


@dataclass(slots=True)
class EngineState:
    """Its worker writes it, the pool shares out work by it, and the status shows it.

    `number` identifies the engine. `idle`: its worker has no batch. `warm`: it is started.
    `checkpoint` is the hash of the one it used last, "" if it holds none. `device`, with the
    precision, is known after the first batch. `rendered` counts images.
    `loaded` are the hashes of the checkpoints that it used since it started. `failed_starts` are
    those in a row, `trouble` says why it is waiting, or gave up.
    """

    number: int
    idle: bool = False
    warm: bool = False
    checkpoint: str = ""
    checkpoint_name: str = ""
    loaded: set[str] = field(default_factory=set)
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
