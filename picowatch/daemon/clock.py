"""The clock: how long passes take, learnt from batches, and what that says of all that waits.

A picture's work is a row of parts, each with a number of units (recipe/passes.py). A rate is the
seconds a unit takes, by device, kind of part, model and pixels. Rates are kept in the ledger.
"""

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import Literal, NamedTuple

from picowatch.engine.protocol import RenderedImage
from picowatch.files.essential import PASSING
from picowatch.ledger import queries
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import PassRate
from picowatch.recipe.passes import DRAWING, PassKind, passes_of
from picowatch.recipe.request import ImageRequest

PartKind = PassKind | Literal["encode", "decode"]
NEWEST_WEIGHT = 0.5  # of the newest batch in a mean: batches grow, machines get busy
STORE_SECONDS = 60.0  # between two writes of what is known already
# Not for a picture in which nothing was found.
_ONLY_DRAWN = ("encode", "draw", "enlarge", "hires", "decode")
# Seconds a unit of each kind, as Stable Diffusion 1.5 and its helpers take them on eight cores.
# Only their proportions count, for a kind of which nothing was measured.
_USUAL: dict[str, float] = {
    "encode": 1.0,
    **dict.fromkeys(DRAWING, 5e-6),
    "decode": 1.5e-5,
    "find": 1.0,
    **dict.fromkeys(("enlarge", "upscale"), 1.2e-5),
    "cutout": 2e-6,
    "resize": 5e-8,
    "write": 2e-7,
}
_LOAD = "load"  # a rate: the seconds of a checkpoint
_USUAL_LOADING = 6.0  # seconds of a checkpoint, before any was loaded
_MOST_SHARE = 0.99  # that is told while something is left


class Part(NamedTuple):
    """A part of a picture's work: a pass, or what drawing has before and after it."""

    kind: PartKind
    model: str
    step: int  # the pixels that it computes on, in steps of two
    units: float  # of details, those of one thing: their rate says how many are usually found


Work = tuple[Part, ...]


def work_of(request: ImageRequest) -> Work:
    """Return the parts of a picture's work in their order."""
    parts: list[Part] = []
    for each in passes_of(request):
        step, units = round(math.log2(max(1, each.pixels))), each.units / each.most
        part = Part(each.kind, each.model_hash, step, units)
        if each.kind == "draw":
            parts.append(part._replace(kind="encode", units=1))
        elif each.kind == "hires":  # the pictures are decoded at the end
            parts = [before for before in parts if before.kind != "decode"]
        parts.append(part)
        if each.kind in ("draw", "hires"):
            parts.append(part._replace(kind="decode", units=each.gives[0] * each.gives[1]))
    return tuple(parts)


class Estimate(NamedTuple):
    """Seconds that some work takes, and whether all its kinds were measured."""

    seconds: float
    is_measured: bool = True


class Rates:
    """The rates at one time: the learnt ones, and those that batches in progress show."""

    def __init__(self, rates: Mapping[PassRate, float], devices: Sequence[str]) -> None:
        self._rates = rates
        self._devices = devices or [""]  # whose engines share the work; "" is not known yet
        self.image = cache(self._image)
        self._rate = cache(self._nearest_rate)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever measured."""
        return not any(key.kind in _USUAL for key in self._rates)

    def _image(self, work: Work) -> Estimate:
        """Return the seconds of an image on an engine; several are as fast as their mean."""
        each = [[self.part(part, device) for part in work] for device in self._devices]
        sums = [sum(part.seconds for part in parts) for parts in each]
        seconds = len(sums) / sum(1 / max(total, 1e-9) for total in sums)
        return Estimate(seconds, all(part.is_measured for parts in each for part in parts))

    def images(self, works: Mapping[Work, int]) -> Estimate:
        """Return the seconds of so many images of each work, one after the other."""
        found = [(self.image(work), count) for work, count in works.items()]
        seconds = sum(estimate.seconds * count for estimate, count in found)
        return Estimate(seconds, all(estimate.is_measured for estimate, _ in found))

    def part(self, part: Part, device: str) -> Estimate:
        """Return the seconds of a part of an image."""
        rate, is_measured = self._rate(PassRate(device, *part[:3]))
        return Estimate(rate * part.units, is_measured)

    def loading(self, checkpoints: Iterable[str]) -> float:
        """Return the seconds that these checkpoints take to load; unknown ones as the last one."""
        known = {key.model: seconds for key, seconds in self._rates.items() if key.kind == _LOAD}
        usual = next(reversed(known.values()), _USUAL_LOADING)
        return sum(known.get(checkpoint, usual) for checkpoint in checkpoints)

    def _nearest_rate(self, wanted: PassRate) -> Estimate:
        """Return the rate, or the nearest: of the same device, then model, kind and pixels."""
        alike = {"draw", "hires", wanted.kind} if wanted.kind in DRAWING else {wanted.kind}
        found = [key for key in self._rates if key.kind in alike]
        if not found:
            rate = _USUAL[wanted.kind] * self._slowness(wanted.device)
            return Estimate(rate, is_measured=wanted.kind == "write")  # too short to matter

        def distance(key: PassRate) -> tuple[bool, bool, bool, int]:
            is_elsewhere = bool(wanted.device) and key.device != wanted.device
            others = key.model != wanted.model, key.kind != wanted.kind
            return (is_elsewhere, *others, abs(key.step - wanted.step))

        nearest = min(reversed(found), key=distance)  # the newest of several
        return Estimate(self._rates[nearest], not any(distance(nearest)))

    def _slowness(self, device: str) -> float:
        """Return how slow a device is beside the usual one, in the geometric mean of all kinds.

        Of a small picture, kinds that no model has a part in are a fixed cost, and tell no speed.
        """
        kinds = _USUAL.keys() - {"resize", "write"}
        usual = [(key, rate) for key, rate in self._rates.items() if key.kind in kinds and rate]
        own = [pair for pair in usual if pair[0].device == device] or usual
        logs = [math.log(rate / _USUAL[key.kind]) for key, rate in own]
        return math.exp(sum(logs) / len(logs)) if logs else 1.0


class Clock:
    """The learnt rates. Workers add to them, others read; what the disk refuses is learnt again."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self.now = ledger, time.monotonic
        self._rates = queries.pass_rates(ledger)
        self._lock = Lock()
        self._unstored: set[PassRate] = set()
        self._stored_at = self.now()

    def rates(self, shown: Mapping[PassRate, float], devices: Sequence[str]) -> Rates:
        """Return the rates now, with those that batches in progress show."""
        return Rates({**self._rates, **shown}, devices)

    def learn(
        self,
        requests: Sequence[ImageRequest],
        pictures: Sequence[RenderedImage],
        seconds: float,
        *,
        loaded: bool,
    ) -> None:
        """Learn from a batch, which took these seconds in all; `loaded`: it loaded a checkpoint."""
        drawn = max(pictures, key=lambda picture: picture.batch_size)
        device = device_name(drawn.device, drawn.precision)
        spent: dict[str, float] = defaultdict(float)
        for picture in pictures:
            for phase, its in picture.timings.items():
                spent[phase] += its
        new = {}
        if loaded:  # the rest of its time is also the engine's start
            loading = PassRate(device, _LOAD, requests[0].checkpoint_hash, 0)
            new[loading] = spent.get("load", 0.0)
        else:
            spent["write"] = max(0.0, seconds - sum(spent.values()))
        spent.setdefault("detail", 0.0)  # nothing may be found
        works = [*zip(map(work_of, requests), pictures, strict=True)]
        drawing = ("draw",) if "hires" in spent else ("draw", "hires")
        for phase, its in spent.items():
            kinds = drawing if phase == "denoise" else (phase,)
            parts = [
                part
                for work, picture in works
                for part in work
                if part.kind in kinds and (picture.batch_size or part.kind not in _ONLY_DRAWN)
            ]
            if units := sum(part.units for part in parts):
                new |= dict.fromkeys((PassRate(device, *part[:3]) for part in parts), its / units)
        self._add(new)

    def _add(self, new: Mapping[PassRate, float]) -> None:
        with self._lock:
            before, is_new = self._rates, not new.keys() <= self._rates.keys()
            means = {
                key: NEWEST_WEIGHT * rate + (1 - NEWEST_WEIGHT) * before.get(key, rate)
                for key, rate in new.items()
            }
            # The newest are the last, here and in the ledger. Other threads may read the former.
            self._rates = {key: rate for key, rate in before.items() if key not in means} | means
            self._unstored |= means.keys()
            if not is_new and self.now() - self._stored_at < STORE_SECONDS:
                return
            unstored = {key: self._rates[key] for key in self._unstored}
            self._unstored, self._stored_at = set(), self.now()
        with suppress(*PASSING):  # the ledger waits for the lock in the middle of a claim
            queries.note_pass_rates(self._ledger, unstored)


def device_name(device: str, precision: str) -> str:
    """Return an engine's device with its precision; equal cards are one device."""
    return f"{re.sub(r':[0-9]+', '', device)} {precision}".strip()


@dataclass
class _Piece:
    """A piece of work."""

    asked: int  # images
    ended: int = 0  # images
    works: Counter[Work] = field(default_factory=Counter)  # of those seen
    share: float = 0.0  # told last
    loading: float = 0.0  # seconds, before its first step


class Shares:
    """The shares of recipes' and folders' work that are done; none goes back by itself."""

    def __init__(self) -> None:
        self._pieces: dict[str, _Piece] = {}

    def share(
        self,
        name: str,
        asked: int,
        ended: int,
        works: Mapping[Work, int],
        left: float,
        loading: float,
        rates: Rates,
    ) -> float:
        """Return the share that is done.

        `left` are the seconds of `works`, which are unfinished, and `loading` those before they
        begin. Images that were finished before the first look took as long as the others.
        """
        piece = self._pieces.get(name)
        if not piece or (asked, -ended) > (piece.asked, -piece.ended):  # more, or some again
            piece = self._pieces[name] = _Piece(asked)
        elif asked < piece.asked:
            piece = self._pieces[name] = _Piece(asked, share=piece.share)
        piece.ended = ended
        piece.works |= Counter(works)
        seen = piece.works.total()
        piece.loading = max(piece.loading, loading)
        whole = rates.images(piece.works).seconds * max(asked, seen) / max(1, seen) + piece.loading
        share = round(1 - (left + loading) / whole, 4) if whole else 0.0
        piece.share = min(max(piece.share, share), _MOST_SHARE)
        return piece.share

    def keep(self, names: Iterable[str]) -> None:
        """Forget all others: their work is done."""
        self._pieces = {name: self._pieces[name] for name in names if name in self._pieces}
