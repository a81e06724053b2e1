"""How long images take, learned from the batches before: what "40 s left" is worked out from.

Images of one kind (of one `batch_key`) take equally long, whatever their prompts and seeds are. Of
each kind the last batches are remembered: the seconds of an image, and at which share of a batch's
time each step was done. So encoding, a second pass at another size, decoding and publishing are
in it. Images of other kinds are guessed by the evaluations of the model and their pixels, batches
of other sizes by what a batch costs beside its images. Loading a checkpoint happens once and is
counted apart.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from picowatch.recipe.passes import is_guided, passes_of
from picowatch.recipe.request import ImageRequest

NEWEST_WEIGHT = 0.6  # of the newest batch in a kind's average: batches grow, machines get busy
# Encoding and decoding of a batch, where no kind is known yet.
REST_SHARE = 0.05
STEPS_TO_MEASURE = 3  # the first one is often slower
# What a batch costs beside its images, in pixels. Measured with the demo model on one core: 0.78,
# 1.15, 1.72 and 2.82 s for 1, 2, 4 and 8 images of 128x128 and 12 steps.
BATCH_PIXELS = 2 * 128 * 128
_MOST_KINDS = 500  # the last ones: a daemon runs for weeks


def _kind_of(request: ImageRequest) -> tuple[bool, str]:
    """Equal for images that take equally long; the key of an `exact` one is its own."""
    return request.exact, replace(request, exact=False).batch_key


@dataclass(slots=True)
class Timeline:
    """A batch in progress. Times are those of one monotonic clock.

    `loads` is the checkpoint that the engine did not hold, "" if it did. `began` may be the end of
    the batch before: what lies between costs time, too.
    """

    request: ImageRequest
    images: int
    began: float
    loads: str = ""
    steps: int = 0  # in all; 0 before the first one
    times: list[float] = field(default_factory=list)  # at which each step was done


@dataclass(frozen=True, slots=True)
class _Kind:
    """`seconds` of a batch, by its size; `shares` of a batch's time had passed after each step."""

    seconds: dict[int, float]
    shares: tuple[float, ...]


class Durations:
    """Workers add to it, the status reads it: each change replaces one value.

    `size_of` says how many images like this one go into a batch.
    """

    def __init__(self, size_of: Callable[[ImageRequest], int]) -> None:
        self._size_of = size_of
        self._kinds: dict[tuple[bool, str], _Kind] = {}
        self._rate: float | None = None  # seconds of a unit of work, in the newest batch
        self._loads: dict[str, float] = {}
        self._last_load: float | None = None

    def learn(self, batch: Timeline, ended: float, load: float) -> None:
        """Take in a batch that succeeded; `load` seconds of it went by before the first step.

        Where the engine had to load, it may have had to start, too: then all that came before the
        first step counts, but for that step itself.
        """
        if batch.loads and len(batch.times) > 1:
            first, second = batch.times[:2]
            load = max(load, first - batch.began - (second - first))
        seconds = max(1e-6, ended - batch.began - load)
        if load:
            self._loads[batch.request.checkpoint_hash] = self._last_load = load
        passed = (time - batch.began - load for time in batch.times)
        shares = tuple(min(1.0, max(0.0, each / seconds)) for each in passed)
        key, size = _kind_of(batch.request), batch.images
        kind = self._kinds.pop(key, None)
        known = kind.seconds if kind else {}
        if size in known:
            seconds = NEWEST_WEIGHT * seconds + (1 - NEWEST_WEIGHT) * known[size]
        self._kinds[key] = _Kind(known | {size: seconds}, shares)
        if len(self._kinds) > _MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        # What a batch of few steps takes is mostly what it does beside them.
        if self._rate is None or len(batch.times) > STEPS_TO_MEASURE:
            self._rate = seconds / _work_of_batch(batch.request, size)

    def of(self, images: Iterable[tuple[ImageRequest, int]]) -> float | None:
        """The seconds of so many images of each kind; None before the first picture."""
        total = 0.0
        for request, count in images:
            if self._rate is None:
                return None
            size = max(1, self._size_of(request))
            batches, rest = divmod(count, size)
            total += batches * self._seconds(request, size, self._rate)
            total += self._seconds(request, rest, self._rate) if rest else 0.0
        return total

    def left(self, batch: Timeline, now: float) -> float | None:
        """The seconds until a batch in progress is done; None if nothing is known of that."""
        whole = None
        if self._rate is not None:
            whole = self._seconds(batch.request, batch.images, self._rate)
        if not batch.times:
            return self._before_the_first_step(batch, whole, now)
        shares, done = self._shares(batch), len(batch.times)
        passed = shares[min(done, len(shares)) - 1]
        since_first = passed - shares[0]
        if done >= STEPS_TO_MEASURE and since_first > 0:
            measured = (batch.times[-1] - batch.times[0]) / since_first
            # The further it is, the more its own pace says.
            whole = measured if whole is None else passed * measured + (1 - passed) * whole
        if whole is None:
            return None
        following = shares[done] if done < len(shares) else 1.0
        under_way = min(now - batch.times[-1], whole * (following - passed))
        return max(0.0, whole * (1 - passed) - under_way)

    def _before_the_first_step(
        self, batch: Timeline, whole: float | None, now: float
    ) -> float | None:
        load = 0.0
        if batch.loads:
            known = self._loads.get(batch.request.checkpoint_hash, self._last_load)
            if known is None:
                return None
            load = known
        if whole is None:
            return None
        to_come = whole * (1 - self._shares(batch)[0])
        return max(load + whole - (now - batch.began), to_come)

    def _seconds(self, request: ImageRequest, size: int, rate: float) -> float:
        """Of a batch: as the last ones of this kind and size, else between or beside those known.

        `rate` is for kinds that were not seen yet.
        """
        kind = self._kinds.get(_kind_of(request))
        if kind is None:
            return rate * _work_of_batch(request, size)
        if size in kind.seconds:
            return kind.seconds[size]
        one, *others = sorted(kind.seconds, key=lambda known: abs(known - size))
        if not others:
            return kind.seconds[one] * _times_of_batch(request, size, one)
        slope = (kind.seconds[one] - kind.seconds[others[0]]) / (one - others[0])
        guess = kind.seconds[one] + slope * (size - one)
        return max(guess, kind.seconds[one] * min(1.0, size / one))

    def _shares(self, batch: Timeline) -> Sequence[float]:
        """After each step: as in the last batch of this kind, else by the pixels of its passes."""
        kind = self._kinds.get(_kind_of(batch.request))
        if kind and kind.shares and len(kind.shares) == (batch.steps or len(kind.shares)):
            return kind.shares
        weights = _weights(batch.request)
        groups = max(1, round(batch.steps / len(weights)))
        whole = sum(weights) * groups / (1 - REST_SHARE)
        shares, passed = [], 0.0
        for weight in weights * groups:
            passed += weight
            shares.append(passed / whole)
        return shares


def _work_of_batch(request: ImageRequest, size: int) -> float:
    """What a batch costs, in pixels denoised once."""
    return sum(_weights(request)) * (size + _beside(request))


def _times_of_batch(request: ImageRequest, size: int, known: int) -> float:
    """How many times the seconds of a batch of `known` images one of another size takes."""
    return (size + _beside(request)) / (known + _beside(request))


def _beside(request: ImageRequest) -> float:
    """What a batch costs beside its images, in images like this one."""
    width, height = request.published_size
    return BATCH_PIXELS / (width * height)


def _weights(request: ImageRequest) -> list[float]:
    """Of each evaluation; one with guidance is double."""
    if not request.draws:
        return [float(request.published_size[0] * request.published_size[1])]
    sizes = [(request.width, request.height), request.size_before_upscale]
    return [
        float(width * height * (2 if is_guided(request, number / one.evaluations) else 1))
        for one, (width, height) in zip(passes_of(request), sizes, strict=False)
        for number in range(one.evaluations)
    ] or [1.0]
