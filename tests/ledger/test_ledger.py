"""The ledger by itself: guarded changes of state, and what its questions cost."""

import heapq
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from picowatch.daemon.pool import PASSES
from picowatch.ledger import accept, control, outstanding, questions, queue
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.outstanding import KEPT_SECONDS
from picowatch.ledger.rows import Acceptance, QueuedImage, RequestedEntry, Save, SizeAndTime
from picowatch.outbox.names import OutboxNames
from picowatch.recipe.request import ImageRequest
from picowatch.settings import Settings
from tests.engine.requests import request


def entry(prompt: str, seed: int | None = None) -> RequestedEntry:
    """Return an entry with one image; without a seed, one is drawn."""
    return RequestedEntry(
        digest=f"{prompt} {seed}",
        priority=0,
        random=seed is None,
        requests=lambda drawn: [request(prompt, seed=drawn if seed is None else seed)],
    )


class Desk:
    """A ledger with everything that it needs."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.names = OutboxNames(Settings(outbox=folder, file_name="{number}-{seed}"))
        self.there: set[str] = set()
        self.drawn = 0
        self.saves = 0

    def save(self, path: str, *entries: RequestedEntry) -> Acceptance:
        self.saves += 1
        number, there = self.saves, self.there.__contains__
        save = Save(path, str(number), SizeAndTime(number, number, 1), saved_at=float(number))
        return accept.accept(self.ledger, save, entries, draw_seed=self._draw, picture_exists=there)

    def _draw(self) -> int:
        # Every other draw repeats the last one: a ledger must not take it for the same picture.
        self.drawn += 1
        return self.drawn // 2

    def claim(self, most: int = 5) -> list[QueuedImage]:
        return queue.claim(self.ledger, self.names, lambda request: most)

    def make_one(self) -> str:
        (image,) = self.claim(1)
        self.there.add(image.file)
        queue.hand_over(self.ledger, [image])
        queue.finish(self.ledger, [image], {image.id})
        return image.request.prompt


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.ledger.close()


def test_a_failed_transaction_leaves_nothing(desk: Desk) -> None:
    """All of a save is kept, or nothing, even within a group of saves."""

    def broken(drawn: int | None) -> list[ImageRequest]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), desk.ledger.transaction():
        desk.save("a.txt", entry("one", 1))
        desk.save("b.txt", entry("two", 2), RequestedEntry("x", 0, False, broken))
    assert questions.counts(desk.ledger) == Counter()
    assert questions.known_recipes(desk.ledger) == {}


def test_each_change_of_state_is_guarded_by_the_old_one(desk: Desk) -> None:
    """After `hand_over` no engine, command or deletion takes a picture back.

    What an engine reports after that changes nothing.
    """
    desk.save("a.txt", entry("one", 1), entry("two", 2))
    desk.save("b.txt", entry("three", 3))
    written, other, running = desk.claim()
    assert queue.hand_over(desk.ledger, [written]) == {written.id}

    assert not queue.put_back(desk.ledger, written)
    assert not queue.fail(desk.ledger, written, "The engine died.")
    assert control.cancel(desk.ledger, ["a.txt"]) == (1, 1)
    assert accept.forget(desk.ledger, "a.txt") == 0
    assert queue.put_back(desk.ledger, running)
    assert questions.counts(desk.ledger) == Counter(running=1, cancelled=1, queued=1)
    assert queue.hand_over(desk.ledger, [other, running]) == set()
    queue.finish(desk.ledger, [written, other, running], {written.id})
    queue.finish(desk.ledger, [written], set())
    for drawn in (False, True):
        assert not queue.fail(desk.ledger, written, "late", drawn=drawn)
        assert not queue.put_back(desk.ledger, written, drawn=drawn)
    assert queue.hand_over(desk.ledger, [written]) == set()
    assert questions.counts(desk.ledger) == Counter(done=1, cancelled=1, queued=1)
    assert outstanding.unlisted(desk.ledger) == []


def test_saves_are_kept_for_a_month(desk: Desk) -> None:
    """The last one of each recipe is kept longer; an archived recipe's entries go with it."""
    for name in ("a.txt", "a.txt", "b.txt"):
        desk.save(name, entry(name, 1))
        if questions.counts(desk.ledger)["queued"]:
            desk.make_one()
    outstanding.archive(desk.ledger, "b.txt")
    for seconds, left in ((0, ["a.txt", "a.txt", "b.txt"]), (10, ["a.txt"])):
        outstanding.prune(desk.ledger, KEPT_SECONDS + seconds)
        assert [row[0] for row in desk.ledger.select("SELECT recipe FROM saves")] == left
    assert [row[0] for row in desk.ledger.select("SELECT recipe FROM entries")] == ["a.txt"]
    assert questions.counts(desk.ledger) == Counter(done=2), "pictures stay"


def test_an_engine_takes_what_it_has_loaded_and_then_what_no_other_has(desk: Desk) -> None:
    """The oldest image is passed over a few times; then it comes, and counting starts again.

    An image of higher priority comes first in any case.
    """
    low = [request(seed=n, checkpoint_hash=one) for n, one in enumerate("1233133")]
    high = [request(seed=10, checkpoint_hash="4")]
    desk.save("low.txt", RequestedEntry("low", 0, False, lambda _: low))
    desk.save("high.txt", RequestedEntry("high", 1, False, lambda _: high))
    taken = [
        image.request.seed
        for held, others in (("3", ""), ("3", ""), ("", "1"), ("3", ""), ("3", ""), ("3", ""))
        for image in queue.claim(
            desk.ledger, desk.names, lambda request: 1, held, others.split(), patience=3
        )
    ]
    assert taken == [10, 2, 1, 3, 0, 5]


@pytest.mark.heavy
@pytest.mark.parametrize(("at_once", "most"), [(1, 156), (50, 264)])
def test_64_engines_load_20_checkpoints_seldom(desk: Desk, at_once: int, most: int) -> None:
    """At most 1.5 times as often as if each batch of eight went to the best idle engine.

    That needed 104 and 176 loads for these images; in the order of saving, nearly each of the 630
    batches would need one. Up to `at_once` images in a row have the same checkpoint.
    """
    dice, requests = random.Random(at_once), list[ImageRequest]()
    while len(requests) < 5_000:
        checkpoint, seeds = f"{dice.randrange(20):064x}", range(dice.randint(1, at_once))
        first = len(requests)
        requests += [request(seed=first + n, checkpoint_hash=checkpoint) for n in seeds]
    desk.save("a.txt", RequestedEntry("entry", 0, False, lambda _: requests))
    held, busy, loads = [""] * 64, [(0.0, number) for number in range(64)], 0
    while busy:
        now, number = heapq.heappop(busy)
        own, patience = held[number], PASSES * len(held)
        others = {*held[:number], *held[number + 1 :]} - {"", own}
        batch = queue.claim(desk.ledger, desk.names, lambda request: 8, own, others, patience)
        if batch:
            queue.finish(desk.ledger, batch, ())
            held[number] = batch[0].request.checkpoint_hash
            loads += held[number] != own
            seconds = 0.1 * len(batch) * dice.uniform(0.8, 1.2) + 3 * (held[number] != own)
            heapq.heappush(busy, (now + seconds, number))
    assert not questions.counts(desk.ledger)["queued"], "engines rest, and images wait"
    assert loads <= most
    assert 0 < desk.ledger.select("SELECT max(passed) FROM images")[0][0] <= patience


def test_looks_cost_the_same_however_much_is_done(desk: Desk) -> None:
    """After a save each minute for a year, all frequent queries use an index."""
    costs: list[int] = []

    def count() -> None:
        costs[-1] += 1

    for number in (1, 500):
        desk.save("a", *(entry("a", seed) for seed in range(number)))
        images = desk.claim(500)
        queue.finish(desk.ledger, images, {image.id for image in images})
        costs.append(0)
        with desk.ledger.transaction() as sql:
            sql.set_progress_handler(count, 10)
            assert not queue.is_start_image_needed(desk.ledger, "00" * 32)
            assert queue.start_images_needed(desk.ledger) == set()
            assert control.recipes_with_failures(desk.ledger) == []
            assert outstanding.unlisted(desk.ledger) == queue.running(desk.ledger) == []
            sql.set_progress_handler(None, 0)
    assert questions.counts(desk.ledger) == Counter(done=500)
    assert 0 < costs[1] <= costs[0] + 5


def test_a_drawn_seed_that_was_there_before_is_drawn_again(desk: Desk) -> None:
    """Requesting it again always gives a new picture."""
    for _ in range(5):
        assert desk.save("a.txt", entry("one")).queued == 1
        assert desk.make_one() == "one"


def test_sizes_and_times_of_any_size_are_kept(desk: Desk) -> None:
    """Inodes of FUSE and mergerfs use 64 bits, which is too much for SQLite's integers."""
    size_and_time = SizeAndTime(2**62, 2**66, 2**64 - 1)
    accept.refuse(desk.ledger, Save("a.txt", "digest", size_and_time), "a typo")
    accept.rename(desk.ledger, "a.txt", "b.txt", size_and_time)
    assert questions.known_recipes(desk.ledger)["b.txt"].size_and_time == size_and_time
