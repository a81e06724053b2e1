"""How many images go into a batch: found by measuring, remembered by checkpoint and size."""

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Literal

from picowatch.engine.batches import batch_size_for
from picowatch.engine.protocol import RenderedImage
from picowatch.outbox.atomic import write_atomically
from picowatch.recipe.request import ImageRequest

log = logging.getLogger("picowatch")

LARGEST = 32
# A batch twice as large is kept if it makes an image in this part of the time.
WORTH = 0.95
MEASUREMENTS = 2  # of a size, the better one counts
LONGEST_SECONDS = 20.0  # a batch may take, so that what is urgent and what is cancelled waits less
SHORTEST_SECONDS = 0.05  # shorter ones measure the clock


@dataclass
class _Measured:
    """What is known of images of one kind.

    `size` is the best batch so far, `largest` what memory allows; `settled`: a larger one brings
    nothing. `seconds` are those an image took, by batch size.
    """

    size: int
    largest: int = LARGEST
    settled: bool = False
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def next_size(self) -> int:
        """The size to take now: the best one, or twice that to see whether it is better."""
        double = self.size * 2
        if self.settled or double > self.largest or not self._known(self.size):
            return self.size
        too_long = double * min(self.seconds[self.size]) > LONGEST_SECONDS
        return self.size if too_long else double

    def add(self, size: int, seconds: float) -> bool:
        """Take in what an image of a batch of this size took; true if that decided something."""
        if self.settled:
            return False
        self.seconds.setdefault(size, []).append(seconds)
        if size != self.size * 2 or not self._known(size):
            return False
        if min(self.seconds[size]) <= WORTH * min(self.seconds[self.size]):
            self.size = size
        else:
            self.settled = True
        return True

    def ran_out_of_memory(self, size: int) -> bool:
        """Take half of that at most from now on; true if that changes something."""
        smaller = max(1, size // 2)
        if smaller >= self.largest:
            return False
        self.largest, self.size = smaller, min(self.size, smaller)
        return True

    def _known(self, size: int) -> bool:
        return len(self.seconds.get(size, ())) >= MEASUREMENTS


class BatchSizes:
    """The size of the next batch, which grows while that makes images faster.

    It begins with the rule in `engine.batches`, doubles as long as an image then takes at most
    95 % of the time, and halves where memory ran out. What was decided is kept in a file, by
    device, checkpoint and size. A number in the settings is taken as it is. Safe to use from
    several threads.
    """

    def __init__(self, setting: int | Literal["auto"], file: Path) -> None:
        self._setting = setting
        self._file = file
        self._lock = Lock()
        self._device = ""  # of the last batch
        self._measured: dict[str, _Measured] = {}
        self._kept = _read(file)

    def size(self, request: ImageRequest, device: str = "") -> int:
        """How many images like this one go into a batch at most.

        `device` is the engine's, with its precision; "" means that of the last batch.
        """
        if request.exact or self._setting != "auto":
            return batch_size_for(request, self._setting)
        with self._lock:
            return self._of(request, device or self._device).next_size()

    def learn(self, batch: Sequence[ImageRequest], images: Sequence[RenderedImage]) -> None:
        """Take in how a batch went."""
        first, image = batch[0], images[0]
        device = f"{image.device} {image.precision}"
        with self._lock:
            self._device = device
            if not first.exact and self._setting == "auto":
                self._learn(first, device, image, len(batch))

    def _learn(self, first: ImageRequest, device: str, image: RenderedImage, size: int) -> None:
        measured = self._of(first, device)
        seconds = image.timings.get("denoise", 0.0) + image.timings.get("decode", 0.0)
        if image.memory_rung != "full":
            decided = size > 1 and measured.ran_out_of_memory(size)
        else:
            decided = seconds * size > SHORTEST_SECONDS and measured.add(size, seconds)
        if decided:
            self._keep(first, device, measured)

    def _of(self, request: ImageRequest, device: str) -> _Measured:
        key = _key(request, device)
        if key not in self._measured:
            kept = self._kept.get(key)
            start = batch_size_for(request, "auto")
            self._measured[key] = _Measured(kept, kept, settled=True) if kept else _Measured(start)
        return self._measured[key]

    def _keep(self, request: ImageRequest, device: str, measured: _Measured) -> None:
        """Write it down once it is settled; a full disk costs only another measurement."""
        if not measured.settled and measured.size < measured.largest:
            return
        log.debug("batches of %d at %dx%d", measured.size, request.width, request.height)
        self._kept[_key(request, device)] = measured.size
        with suppress(OSError):
            text = json.dumps(self._kept, indent=1, sort_keys=True)
            write_atomically(self._file, text.encode(), durable=False)


def _key(request: ImageRequest, device: str) -> str:
    hires = f" x{request.hires.scale:g}" if request.hires else ""
    size = f"{request.width}x{request.height}{hires}"
    return f"{device} {request.checkpoint_hash[:16]} {size}"


def _read(file: Path) -> dict[str, int]:
    """What was kept; nothing if the file is missing or damaged."""
    try:
        kept = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {
        key: size
        for key, size in kept.items()
        if isinstance(key, str) and isinstance(size, int) and 1 <= size <= LARGEST
    }
