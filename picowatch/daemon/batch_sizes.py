"""How many images go into a batch: measured, and kept in the ledger by checkpoint and size."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from picowatch.engine.model.memory import MODELS, TURNS
from picowatch.engine.protocol import RenderedImage
from picowatch.files.essential import PASSING
from picowatch.ledger import queries
from picowatch.ledger.ledger import Ledger
from picowatch.recipe.passes import evaluations, passes_of
from picowatch.recipe.request import ImageRequest

log = logging.getLogger("picowatch")

# Where `batch_size: auto` begins: one picture of Stable Diffusion's native size fills a CPU, and
# so do small ones that have as many pixels (benchmarks/RESULTS.md).
_AUTO_PIXELS = 512 * 512
_AUTO_LIMIT = 16
# Of numbers in 16 bits that a denoiser has at once, twice with guidance (engine/model/load.py).
_BYTES_A_PIXEL = 300 * 2 * 2
_MOST_PIXELS = 64_000_000  # of a batch's pictures, which are in memory together
LARGEST = 32
# A batch twice as large is kept if it renders an image in this fraction of the time.
WORTH = 0.95
MEASUREMENTS = 2  # of each size; the better measurement counts
LONGEST_SECONDS = 20.0  # of a batch, so that urgent images need not wait long
SHORTEST_SECONDS = 0.05  # shorter ones measure the clock
# With fewer evaluations of the UNet, what is done once for each image takes as long as they do.
FEW_EVALUATIONS = 8
# Images with references are drawn one by one (engine/drawing/flow.py), so a batch saves nothing,
# unless text encoders and denoiser take turns in memory: then a batch of this size swaps them once.
READ_TOGETHER = 4
_IN_TURN = (MODELS.name, TURNS.name)


def _drawn(request: ImageRequest) -> int:
    """Return the pixels of the largest run of the sampler, without one of the largest picture."""
    runs = [each.pixels for each in passes_of(request) if each.kind in ("draw", "hires")]
    return max(runs, default=_given(request))


def _given(request: ImageRequest) -> int:
    """Return the pixels of the largest picture on the way."""
    return max(each.gives[0] * each.gives[1] for each in passes_of(request))


@dataclass
class _Measured:
    """What was measured with images of one kind.

    `size` is the best batch so far, `largest` the limit: what memory allows, or `size` once a
    larger one was no faster. `seconds` are measured per image and evaluation of the UNet, by batch
    size: they can be compared across steps and samplers.
    """

    size: Annotated[int, Field(ge=1, le=LARGEST)]
    largest: Annotated[int, Field(ge=1, le=LARGEST)] = LARGEST
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def next_size(self, evaluations: int) -> int:
        """Return the size of the next batch: the best or twice that, less where that takes long."""
        double = self.size * 2
        size = double if double <= self.largest and self._known(self.size) else self.size
        known = self.seconds.get(self.size) or [max(map(min, self.seconds.values()), default=0.0)]
        each = min(known) * evaluations
        while size > 1 and size * each > LONGEST_SECONDS:
            size //= 2
        return size

    def add(self, size: int, seconds: float) -> bool:
        """Record how long an evaluation took in a batch of this size; return whether it decides."""
        if self.is_decided:
            return False
        self.seconds.setdefault(size, []).append(seconds)
        if size != self.size * 2 or not self._known(size):
            return False
        if min(self.seconds[size]) <= WORTH * min(self.seconds[self.size]):
            self.size = size
        else:
            self.largest = self.size
        return True

    def begin_with(self, size: int) -> None:
        """Begin with larger batches, unless two of the first size were measured."""
        if self.size < size <= self.largest and not self._known(self.size):
            self.size = size

    def limit(self, largest: int) -> bool:
        if largest >= self.largest:
            return False
        self.largest, self.size = largest, min(self.size, largest)
        return True

    @property
    def is_decided(self) -> bool:
        return self.size >= self.largest

    def _known(self, size: int) -> bool:
        return len(self.seconds.get(size, ())) >= MEASUREMENTS


_AS_JSON = TypeAdapter(_Measured)


class BatchSizes:
    """The size of the next batch, which grows while that renders images faster.

    It doubles as long as that is WORTH it, and halves where memory runs out. A number in the
    settings is used as it is. Safe to use from several threads.
    """

    def __init__(self, setting: int | Literal["auto"], ledger: Ledger) -> None:
        self._setting = setting
        self._ledger = ledger
        self._lock = Lock()
        self._device = ""  # of the last batch
        self._measured = {  # by earlier runs, too
            key: _AS_JSON.validate_json(text) for key, text in queries.batch_sizes(ledger).items()
        }

    def size(self, request: ImageRequest, device: str = "") -> int:
        """Return how many such images the next batch may have; without a `device`, of the last."""
        if request.exact:
            return 1
        most = max(1, _MOST_PIXELS // _given(request))
        if self._setting != "auto":
            return min(most, self._setting)
        with self._lock:
            measured = self._of(_key(request, device or self._device), request)
            return min(most, measured.next_size(evaluations(request)))

    def learn(self, batch: Sequence[ImageRequest], images: Sequence[RenderedImage]) -> None:
        """Learn from a finished batch, unless some of its pictures were not drawn."""
        if not all(image.batch_size for image in images):
            return
        first, image, size = batch[0], images[0], len(batch)
        device = f"{image.device} {image.precision}"
        with self._lock:
            self._device = device
            if first.exact or self._setting != "auto":
                return
            key = _key(first, device)
            measured = self._of(key, first)
            seconds = sum(image.timings.get(run, 0.0) for run in ("denoise", "hires"))
            if first.references:
                wanted = READ_TOGETHER if image.memory_rung in _IN_TURN else 1
                decided = (measured.size, measured.largest) != (wanted, wanted)
                measured.size = measured.largest = wanted
            elif image.memory_rung != "full":
                decided = size > 1 and measured.limit(size // 2)
            else:
                each = seconds / evaluations(first)
                decided = seconds * size > SHORTEST_SECONDS and measured.add(size, each)
                if image.memory and image.memory.free:
                    # Half of a card's free memory has room for so many.
                    fitting = image.memory.free // 2 // (_drawn(first) * _BYTES_A_PIXEL)
                    measured.begin_with(min(_AUTO_LIMIT, fitting))
            if not (decided and measured.is_decided):
                return
            log.debug("batches of %d at %dx%d", measured.size, first.width, first.height)
            text = _AS_JSON.dump_json(measured).decode()
        # Without the lock, for which the ledger waits in the middle of a claim.
        with suppress(*PASSING):  # what the disk refuses is measured again by the next run
            queries.note_batch_size(self._ledger, key, text)

    def _of(self, key: str, request: ImageRequest) -> _Measured:
        # The first batch has at most the pixels of 512x512, which is safe everywhere.
        size = 1 if request.references else min(_AUTO_LIMIT, _AUTO_PIXELS // _drawn(request))
        return self._measured.setdefault(key, _Measured(max(1, size)))


def _key(request: ImageRequest, device: str) -> str:
    """Return a key that is equal for images whose evaluations take equally long.

    Guidance doubles an evaluation, and a second pass has evaluations at another size.
    """
    size = "editing" if request.references else f"{request.width}x{request.height}"
    words = [device, request.checkpoint_hash[:16], size]
    if request.cfg_scale == 1:
        words.append("unguided")
    elif request.cfg_start > 0 or request.cfg_end < 1:
        words.append(f"guided {request.cfg_start:g}-{request.cfg_end:g}")
    words += [f"with {use.model_hash[:16]}" for use in request.control]
    if hires := request.hires:
        words += [f"x{hires.scale:g}", f"{request.steps}+{evaluations(request)}"]
    elif evaluations(request) < FEW_EVALUATIONS:
        words.append(f"in {evaluations(request)}")
    return " ".join(words)
