"""Time left and share done, as the clock tells them while recorded sequences are played to it.

The played engine has a law of its own: overheads of loading, encoding, decoding and each call, time
that grows faster than the pixels, calls that gain from batches, and noise.
"""

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from picowatch.daemon.clock import Clock, Estimate, Shares, work_of
from picowatch.daemon.rendering import LATE_STEPS, Rendering, time_left
from picowatch.engine.protocol import Progress, RenderedImage
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import PassRate, QueuedImage
from picowatch.outbox.status import duration
from picowatch.recipe.parts import Cutout, Hires, Upscale
from picowatch.recipe.passes import Pass, passes_of
from picowatch.recipe.request import DetailUse, ImageRequest
from tests.digest_engine import digest_picture
from tests.engine.requests import request

DEVICE, PRECISION = "cuda:0 (A Card)", "float16"
SIZE: dict[str, Any] = {"width": 512, "height": 512}
DETAIL = DetailUse(find="face", model="finder", size="512x512", count=8, denoising_strength=0.5)
TILE = 192 * 192  # pixels of an upscaler's tile
# Seconds a pixel that each upscaler takes: one is ten times as slow as the other.
UPSCALERS = {"compact": 1.2e-6, "esrgan": 1.2e-5}


@dataclass
class Law:
    """How long an engine takes. `speed` divides all of it; `things` are found in a picture."""

    speed: float = 1.0
    things: int = 3
    noise: random.Random = field(default_factory=lambda: random.Random(1))

    def about(self, seconds: float) -> float:
        return seconds * self.noise.uniform(0.92, 1.08) / self.speed

    def evaluation(self, pixels: int, images: int) -> float:
        return self.about(0.04 + 0.5 * (pixels / 512**2) ** 1.08 * images**0.9)

    def decoding(self, pixels: int) -> float:
        return self.about(0.15 + 1.1 * (pixels / 512**2) ** 1.04)

    def steps(self, pass_: Pass, batch: Sequence[ImageRequest]) -> list[float]:
        """The seconds of each step that an engine reports of a pass."""
        if pass_.kind in ("draw", "hires"):
            calls = [self.evaluation(pass_.pixels, len(batch)) for _ in range(pass_.evaluations)]
            calls[0] *= 1.5  # the first one of a size allocates memory
            return calls
        if pass_.kind == "detail":
            each = [self.evaluation(pass_.pixels, 1) for _ in range(pass_.evaluations)]
            each[-1] += self.decoding(pass_.pixels)
            return each * self.things * len(batch)
        if pass_.kind in ("enlarge", "upscale"):
            steps = []
            for photo in batch:
                (given,) = [part for part in passes_of(photo) if part.kind == pass_.kind]
                tiles = math.ceil(given.pixels / TILE)
                seconds = 0.1 + UPSCALERS[given.model] * math.prod(given.gives)
                steps += [self.about(seconds / tiles) for _ in range(tiles)]
            return steps
        seconds = 1.8 + 4e-8 * pass_.pixels if pass_.kind == "cutout" else 0.7
        return [self.about(seconds) for _ in batch]


@dataclass
class Sample:
    """What the clock told at a time, with the kinds that were finished or reported by then."""

    at: float
    left: Estimate | None
    share: float
    finished: frozenset[str]
    reported: frozenset[str]


@dataclass
class Play:
    """Plays a queue to a clock, with batches of this size on engines with these laws."""

    clock: Clock
    laws: Sequence[Law] = field(default_factory=lambda: [Law()])
    batch_size: int = 1
    time: float = 0.0

    def __post_init__(self) -> None:
        self.clock.now = lambda: self.time
        self.shares = Shares()
        self.renderings: dict[int, Rendering] = {}
        self.loaded: dict[int, set[str]] = {at: set() for at, _ in enumerate(self.laws)}
        self.finished: set[str] = set()
        self.reported: set[str] = set()

    def run(self, requests: Sequence[ImageRequest], look_seconds: float) -> list[Sample]:
        self.queue, self.asked = [(image, work_of(image)) for image in requests], len(requests)
        self.samples: list[Sample] = []
        events = [(self.time, at, self._engine(at, law)) for at, law in enumerate(self.laws)]
        look_at = self.time
        while events:
            at, number, engine = heapq.heappop(events)
            while look_at < at:
                self.time = look_at
                self._look()
                look_at += look_seconds
            self.time = at
            with suppress(StopIteration):
                heapq.heappush(events, (at + next(engine), number, engine))
        return self.samples

    def _look(self) -> None:
        batches = [*self.renderings.values()]
        works = Counter(work for _, work in self.queue)
        if not (works or batches):
            return
        shown = {key: rate for batch in batches for key, rate in batch.rates.items()}
        rates = self.clock.rates(shown, [batch.device for batch in batches])
        held = set[str]().union(*self.loaded.values())
        left = time_left(works, batches, rates, len(self.laws), held)
        unfinished = works + Counter(work for batch in batches for work in batch.works)
        seconds = rates.images(works).seconds + sum(batch.left(rates).seconds for batch in batches)
        loading, ended = sum(batch.loading_left(rates) for batch in batches), len(self.finished)
        share = self.shares.share("a.yaml", self.asked, ended, unfinished, seconds, loading, rates)
        told = frozenset(self.finished), frozenset(self.reported)
        self.samples.append(Sample(self.time, left, share, *told))

    def _engine(self, number: int, law: Law) -> Iterator[float]:
        """Yield the seconds to the next event of an engine."""
        has_started = False
        while self.queue:
            first, work = self.queue[0]
            alike = [image for image, others in self.queue if others == work]
            batch = alike[: self.batch_size if first.draws else 1]
            self.queue = [pair for pair in self.queue if pair[0] not in batch]
            checkpoint = first.checkpoint_hash
            loads = bool(checkpoint) and checkpoint not in self.loaded[number]
            device = f"{DEVICE} {PRECISION}".replace(":0", "") if has_started else ""
            now = Rendering(
                [queued(image) for image in batch], "dream" * loads, device, self.clock.now
            )
            self.renderings[number] = now
            timings: defaultdict[str, float] = defaultdict(float)
            if loads:
                yield law.about(3.0)  # the engine starts, which it does not measure itself
                timings["load"] = law.about(9.0)
                yield timings["load"]
            for pass_ in passes_of(first):
                if pass_.kind == "draw":
                    timings["encode"] = law.about(0.5 + 0.05 * len(batch))
                    yield timings["encode"]
                yield from self._pass(now, pass_, law, batch, timings)
            yield sum(law.about(0.01 + 1.2e-7 * pass_.units) for pass_ in passes_of(first)[-1:])
            self.loaded[number].add(checkpoint)
            del self.renderings[number]
            seconds = {phase: sum_ / len(batch) for phase, sum_ in timings.items()}
            pictures = [picture(seconds, len(batch)) for _ in batch]
            self.clock.learn(batch, pictures, self.time - now.began, loaded=loads)
            self.finished |= {key for image in batch for key in kinds_of(image)}
            self.finished |= {str(part[:3]) for image in batch for part in work_of(image)}
            has_started = True

    def _pass(
        self,
        now: Rendering,
        pass_: Pass,
        law: Law,
        batch: Sequence[ImageRequest],
        timings: defaultdict[str, float],
    ) -> Iterator[float]:
        if pass_.kind == "write":
            return
        steps = law.steps(pass_, batch)
        now.report(Progress(pass_.kind, 0, len(steps)))
        for done, seconds in enumerate(steps, 1):
            yield seconds
            now.report(Progress(pass_.kind, done, len(steps)))
            timings["denoise" if pass_.kind == "draw" else pass_.kind] += seconds
            self.reported.add(kind_of(pass_))
        is_last = pass_.kind == "hires" or (pass_.kind == "draw" and not batch[0].hires)
        if is_last:
            seconds = law.decoding(pass_.gives[0] * pass_.gives[1]) * len(batch)
            timings["decode"] += seconds
            yield seconds


def kind_of(pass_: Pass) -> str:
    return f"{pass_.kind} {pass_.model}"


def kinds_of(image: ImageRequest) -> set[str]:
    return {kind_of(each) for each in passes_of(image) if each.kind != "write"}


def queued(image: ImageRequest, recipe: str = "a.yaml") -> QueuedImage:
    return QueuedImage(1, recipe, image.digest, image, "", 0, 0, "", "", 0, 0, False)


def picture(timings: dict[str, float], batch_size: int) -> RenderedImage:
    drawn = digest_picture(request(), batch_size)
    return replace(drawn, device=DEVICE, precision=PRECISION, timings=timings)


def drawn(count: int, steps: int, **values: Any) -> list[ImageRequest]:
    given = {"steps": steps, **SIZE, **values}
    return [request(**given, seed=seed) for seed in range(count)]


def enlarged(sizes: Sequence[tuple[int, int]], model: str, **values: Any) -> list[ImageRequest]:
    photo = request(image="a.png", checkpoint="", checkpoint_hash="")
    upscale = Upscale(model, 2.0)
    return [
        replace(photo, given_size=size, seed=seed, image_hash=str(seed), upscale=upscale,
                upscaler_hash=model, **values)
        for seed, size in enumerate(sizes)
    ]  # fmt: skip


MEGAPIXELS = (0.5, 24, 2, 12, 0.8, 6, 24, 1, 3, 12, 0.5, 18)
PHOTOS = [(int(1225 * m**0.5) // 8 * 8, int(816 * m**0.5) // 8 * 8) for m in MEGAPIXELS]
CUT: dict[str, Any] = {"cutout": Cutout("isnet"), "cutout_hash": "isnet"}
HIRES = Hires(scale=2.0, steps=12, denoising_strength=0.5)
BY_ESRGAN = {"hires": replace(HIRES, upscaler="esrgan"), "hires_upscaler_hash": "esrgan"}
SMALL = [(800, 600)] * 8
TWO_LAWS = (Law(), Law(0.6, noise=random.Random(2)))
# What was rendered before, what is played, and how.
SEQUENCES: dict[str, tuple[list[ImageRequest], list[ImageRequest], dict[str, Any]]] = {
    "32 of 30 steps after a picture of 2": (drawn(1, 2), drawn(32, 30), {}),
    "300 of 60 steps in batches": ([], drawn(300, 60), {"batch_size": 16}),
    "hires": (drawn(2, 20), drawn(12, 24, hires=HIRES), {"batch_size": 2}),
    "hires by an upscaler": (drawn(2, 20), drawn(12, 24, **BY_ESRGAN), {"batch_size": 2}),
    "larger pictures than before": (drawn(2, 20), drawn(8, 20, width=1024, height=1024), {}),
    "photos": ([], enlarged(PHOTOS, "compact", **CUT), {}),
    "a slower upscaler": (enlarged(SMALL[:3], "compact"), enlarged(SMALL, "esrgan"), {}),
    "details": ([], drawn(10, 20, detail=(DETAIL,)), {}),
    "two engines": (drawn(1, 2), [*drawn(8, 12), *drawn(16, 30, width=768)], {"laws": TWO_LAWS}),
}


@pytest.mark.parametrize(("before", "played", "how"), SEQUENCES.values(), ids=SEQUENCES)
def test_time_left_and_share_are_right_from_a_kinds_first_report(
    ledger: Ledger, before: list[ImageRequest], played: list[ImageRequest], how: dict[str, Any]
) -> None:
    """A quarter of error from the second picture on, a factor of two from the first report on."""
    play = Play(Clock(ledger), **how)
    play.run(before, 60.0)
    play.reported.clear()
    samples = play.run(played, 2.0 if len(played) < 100 else 20.0)
    end, wanted = play.time, set().union(*map(kinds_of, played))
    told = [(sample, sample.left) for sample in samples if sample.left and end - sample.at > 2]
    errors = [(sample, left.seconds / (end - sample.at)) for sample, left in told]
    first = [ratio for sample, ratio in errors if sample.reported >= wanted]
    later = [abs(ratio - 1) for sample, ratio in errors if sample.finished >= wanted]
    assert 0.5 <= min(first) <= max(first) <= 2
    assert sum(later) / len(later) <= 0.25
    shares = [sample.share for sample in samples]
    assert shares == sorted(shares)
    assert shares[0] < 0.1 and shares[-1] > 0.9
    lefts = {sample.left for sample in samples if sample.left}
    assert "0 s" not in {duration(left.seconds) for left in lefts}
    exact = {str(part[:3]) for image in played for part in work_of(image)}
    lefts = {sample.left for sample in samples if sample.left and sample.finished >= exact}
    assert all(left.is_measured for left in lefts)
    assert any(sample.finished >= exact for sample in samples)


def test_rates_are_kept_from_one_start_to_the_next(ledger: Ledger) -> None:
    """Equal cards are one device; before the first picture the device is that of the last run."""
    Play(Clock(ledger)).run(drawn(2, 10), 60.0)
    again = Play(Clock(ledger))
    first, *_ = again.run(drawn(4, 10), 2.0)
    assert first.left and first.left.is_measured
    assert first.left.seconds == pytest.approx(again.time, rel=0.25)
    assert {key.device for key in again.clock._rates} == {"cuda (A Card) float16"}


def test_nothing_is_told_before_anything_was_measured(ledger: Ledger) -> None:
    """From the second report on it is "about" so much, also for what lies behind the first pass."""
    first, *samples = Play(Clock(ledger)).run(drawn(2, 10, **CUT), 0.2)
    assert first.left is None
    told = next(sample for sample in samples if sample.left)
    assert told.left and not told.left.is_measured
    assert told.finished == set()


def test_small_copies_tell_nothing_of_how_fast_models_are(ledger: Ledger) -> None:
    """Their time is nearly all a fixed cost: by its pixels, drawing would take hours."""
    clock = Clock(ledger)
    (drawing,) = [part for part in work_of(request()) if part.kind == "draw"]
    copied = {PassRate("", kind, "", 12): 1.6e-5 for kind in ("resize", "write")}
    after, before = (clock.rates(rates, []).part(drawing, "") for rates in (copied, {}))
    assert after == before


def test_how_many_things_are_found_is_learnt(ledger: Ledger) -> None:
    """The most that a recipe allows says nothing of how long its details take."""
    Play(clock := Clock(ledger)).run(drawn(2, 10, detail=(DETAIL,)), 60.0)
    most = replace(DETAIL, count=16)
    rates = clock.rates({}, [])
    few, many = (
        rates.image(work_of(request(**SIZE, steps=10, detail=(use,)))) for use in (DETAIL, most)
    )
    assert few == many


def test_a_pass_that_is_tried_again_is_the_same_pass(ledger: Ledger) -> None:
    """The same details may come twice in a recipe, with nothing found in the first ones."""
    request_ = request(steps=2, detail=(DETAIL, DETAIL))
    now = Rendering([queued(request_)])
    rates = Clock(ledger).rates({}, [])
    lefts = []
    for kind, done in [
        *(("draw", 0), ("draw", 1), ("draw", 0), ("draw", 2), ("find", 0), ("find", 1)),
        *(("find", 0), ("find", 1), ("detail", 0), ("detail", 1)),
    ]:
        now.report(Progress(kind, done, 1 if kind != "draw" else 2))  # type: ignore[arg-type]
        lefts.append(now.left(rates).seconds)
    assert lefts[2] > lefts[3] > lefts[5] > lefts[7] > lefts[9]
    assert lefts[9] < rates.part(now.works[0][-1], "").seconds + 0.1


def test_an_engine_that_makes_no_step_has_no_speed(ledger: Ledger) -> None:
    """It is in trouble, until it makes the next one; a pass that is done is no trouble."""
    time = [0.0]
    now = Rendering([queued(request())], now=lambda: time[0])
    for done in range(4):
        time[0] += 2.0
        now.report(Progress("draw", done, 6))
    assert (now.reported[:4], now.steps_per_second) == (("draw", 1, 3, 6), 0.5)
    now.silent = 2.0 * LATE_STEPS
    assert (now.steps_per_second, now.trouble) == (0.5, "")
    now.silent += 1.0
    assert (now.steps_per_second, now.trouble) == (0.0, "no step for 11 s")
    now.report(Progress("draw", 6, 6))
    assert (now.steps_per_second > 0, now.trouble) == (True, "")
    now.silent = 100.0
    assert (now.steps_per_second, now.trouble) == (0.0, "")


def test_a_share_begins_anew_only_where_more_is_asked_for_or_again(ledger: Ledger) -> None:
    """A cancelled image takes nothing back; images that were done before count like the others."""
    work = work_of(request())
    rates = Clock(ledger).rates({PassRate("", "draw", "", 14): 1e-6}, [])
    each, shares = rates.image(work).seconds, Shares()

    def share(asked: int, left: int, ended: int | None = None) -> float:
        ended = asked - left if ended is None else ended
        return shares.share("a", asked, ended, {work: left}, left * each, 0.0, rates)

    assert share(4, 2, 1) == 0.5 and share(4, 3, 1) == 0.5, "one is published"
    assert [share(4, left) for left in (0, 1, 2, 4, 1)] == [0.99, 0.75, 0.5, 0, 0.75], "once more"
    assert [share(10, 5), share(10, 6, 5), share(9, 5), share(20, 15)] == [0.5, 0.5, 0.5, 0.25]
    assert share(20, 0) == 0.99
    shares.keep(["b"])
    assert share(20, 20) == 0
