"""A batch in progress: the pass that its engine is in, how fast that is, and what is left of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from picowatch.daemon.clock import Estimate, Part, Rates, Work, work_of
from picowatch.engine.protocol import Progress
from picowatch.ledger.rows import PassRate, QueuedImage
from picowatch.recipe.passes import DRAWING

# An engine is late once it was silent for so many of its steps, and so many seconds.
LATE_STEPS, LATE_SECONDS = 5, 3.0
TROUBLE_SECONDS = 10.0  # a late engine is in trouble
_UNREPORTED = ("encode", "decode", "write")  # parts in which engines report nothing


class Reported(NamedTuple):
    """What an engine has reported: the pass, and its steps with the times of two of them."""

    phase: str
    place: int  # of the pass in the batch's work, -1 before the first pass
    step: int
    steps: int
    first: tuple[int, float]
    last: float

    @property
    def seconds_a_step(self) -> float | None:
        """The seconds from one step to the next, from the second report of the pass on."""
        step, at = self.first
        return (self.last - at) / (self.step - step) if self.step > step else None


@dataclass(eq=False)
class Rendering:
    """A batch in progress, as its worker sees it and other threads read it."""

    batch: list[QueuedImage]
    loads: str = ""  # the checkpoint that the engine has to load first, if any
    device: str = ""  # with its precision, "" if that is not known yet
    now: Callable[[], float] = time.monotonic
    silent: float = 0.0  # seconds since the engine's last sign
    is_interrupted: bool = False
    rates: dict[PassRate, float] = field(default_factory=dict)  # that it has shown
    works: list[Work] = field(init=False)
    recipes: dict[int, str] = field(init=False)  # of images still requested, as read last

    def __post_init__(self) -> None:
        self.recipes = {image.id: image.recipe for image in self.batch}
        self.works = [work_of(image.request) for image in self.batch]
        self._parts: list[tuple[Part, ...]] = [*zip(*self.works, strict=False)]
        self.began = self.looked_at = self.now()
        self.reported = Reported("", -1, 0, 0, (0, self.began), self.began)
        self.has_drawn = False

    def report(self, progress: Progress) -> None:
        """Take a report of the engine."""
        self.silent, before, at = 0.0, self.reported, self.now()
        kind, done, total = progress.kind, progress.done, progress.total
        self.has_drawn |= kind in DRAWING and done > 0
        if kind != before.phase or done < before.step:
            place = self._place(kind, before)
            self.reported = Reported(kind, place, done, total, (done, at), at)
        else:
            last = at if done > before.step else before.last
            shown = self.reported = before._replace(step=done, steps=total, last=last)
            parts = self._parts[shown.place] if shown.place >= 0 else ()
            units, each = sum(part.units for part in parts), shown.seconds_a_step
            if each is not None and units and parts[0].kind == kind:
                keys = (PassRate(self.device, *part[:3]) for part in parts)
                self.rates = self.rates | dict.fromkeys(keys, each * total / units)

    def _place(self, kind: str, before: Reported) -> int:
        """Return the place of a pass that begins. A pass that was not done is tried again."""
        if kind == before.phase and before.step < before.steps:
            return before.place
        kinds = [parts[0].kind for parts in self._parts]
        later = [at for at, its in enumerate(kinds) if its == kind and at > before.place]
        return next(iter(later), kinds.index(kind) if kind in kinds else before.place)

    @property
    def recipe(self) -> str:
        """The recipe of its first image, or of the first image still requested."""
        return next(iter(self.recipes.values()), self.batch[0].recipe)

    @property
    def loading(self) -> str:
        """The checkpoint that is loaded, "" once something was drawn."""
        return "" if self.has_drawn else self.loads

    @property
    def _is_late(self) -> bool:
        each = self.reported.seconds_a_step
        return each is not None and self.silent > max(LATE_SECONDS, LATE_STEPS * each)

    @property
    def steps_per_second(self) -> float:
        """The speed of the pass in progress; 0 while its engine is late."""
        each = self.reported.seconds_a_step
        return 0.0 if self._is_late or not each else round(1 / each, 2)

    @property
    def trouble(self) -> str:
        """Such as "no step for 45 s", "" while the engine works."""
        is_under_way = self.reported.step < self.reported.steps
        is_stuck = self._is_late and self.silent > TROUBLE_SECONDS and is_under_way
        return f"no step for {self.silent:.0f} s" if is_stuck else ""

    def left(self, rates: Rates) -> Estimate:
        """Return the seconds of drawing and all else until the batch is done."""
        report = self.reported
        # The whole of the pass in progress, and each part after it.
        rest = [Estimate(0.0)] if report.place < 0 else []
        for parts in self._parts[max(0, report.place) :]:
            found = [rates.part(part, self.device) for part in parts]
            is_measured = all(part.is_measured for part in found)
            rest.append(Estimate(sum(part.seconds for part in found), is_measured))
        each, steps_left = report.seconds_a_step, max(0, report.steps - report.step)
        if each is not None:
            rest[0] = Estimate(each * steps_left)
            step = each if steps_left else 0.0
        else:
            share = steps_left / max(1, report.steps) if report.phase else 0.0
            step = rest[0].seconds / max(1, report.steps)
            rest[0] = rest[0]._replace(seconds=rest[0].seconds * share)
        later = zip(rest[1:], self._parts[report.place + 1 :], strict=True)
        silent = takewhile(lambda pair: pair[1][0].kind in _UNREPORTED, later)
        unreported = step if steps_left else sum(part.seconds for part, _ in silent)
        seconds = sum(part.seconds for part in rest)
        # Time passes between two reports, but never more than the next report should take.
        passed = 0.0 if self.loading else min(self.now() - report.last, unreported)
        return Estimate(seconds - passed, all(part.is_measured for part in rest))

    def loading_left(self, rates: Rates) -> float:
        """Return the seconds until the checkpoint is loaded."""
        if not self.loading:
            return 0.0
        seconds = rates.loading([self.batch[0].request.checkpoint_hash])
        return max(0.0, seconds - (self.now() - self.began))


def is_copy(work: Work) -> bool:
    """Return whether no model has a part in some work."""
    return bool(work) and all(part.kind in ("resize", "write") for part in work)


def time_left(
    works: dict[Work, int], batches: list[Rendering], rates: Rates, engines: int, loaded: set[str]
) -> Estimate | None:
    """Return what queued images of each work and these batches take, shared by `engines`."""
    if rates.is_empty or not (works or batches):
        return None  # nothing was ever measured, or is left
    queued = rates.images(works)
    checkpoints = {part.model for work in works for part in work if part.kind == "encode"}
    in_use = {now.batch[0].request.checkpoint_hash for now in batches}
    # Each of them is loaded once.
    loads = rates.loading(checkpoints.difference(loaded, in_use))
    in_progress = [now.left(rates) for now in batches]
    pairs = zip(in_progress, batches, strict=True)
    each = [left.seconds + now.loading_left(rates) for left, now in pairs]
    shared = (queued.seconds + loads + sum(each)) / max(1, engines)
    is_measured = all(left.is_measured for left in (queued, *in_progress))
    return Estimate(round(max(1.0, shared, *each), 1), is_measured)
