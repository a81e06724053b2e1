"""Simulated engines: batches go to engines with their checkpoint, and no image waits forever."""

import heapq
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from picowatch.daemon.pool import PASSES
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage, RequestedEntry, Save, SizeAndTime
from picowatch.recipe.request import ImageRequest
from tests.engine.requests import request

BATCH = 8
IMAGE_SECONDS = 0.1
LOAD_SECONDS = 3.0


class Names:
    """Names of which every number is free."""

    def folder(self, recipe: str) -> str:
        return recipe

    def highest_number(self, folder: str) -> int:
        return 0

    def file(self, recipe: str, number: int, request: ImageRequest) -> str:
        return f"{recipe}/{number}.png"


class Farm:
    """Engines that claim images, each of which needs a checkpoint, from a ledger's queue."""

    def __init__(self, ledger: Ledger, engines: int) -> None:
        self.ledger = ledger
        self.held = [""] * engines
        self.loads = 0
        self.batches = 0

    def save(self, checkpoints: int, images: int, at_once: int, dice: random.Random) -> None:
        """Save this many images, up to `at_once` in a row with the same checkpoint."""
        requests: list[ImageRequest] = []
        while len(requests) < images:
            checkpoint = f"{dice.randrange(checkpoints):064x}"
            first, several = len(requests), dice.randint(1, at_once)
            requests += [
                request(seed=seed, checkpoint_hash=checkpoint)
                for seed in range(first, first + several)
            ]
        self.request(requests)

    def request(self, requests: list[ImageRequest]) -> None:
        self.ledger.accept(
            Save("a.yaml", "a", SizeAndTime(1, 1, 1), saved_at=0.0),
            [RequestedEntry("entry", 0, False, lambda _: requests)],
            draw_seed=lambda: 1,
            picture_exists=lambda file: False,
        )

    def work(self, dice: random.Random) -> None:
        """Render until nothing is queued; each engine claims when its batch is done."""
        busy = [(0.0, number) for number in range(len(self.held))]
        while busy:
            now, number = heapq.heappop(busy)
            batch = self.claim(number)
            if not batch:
                continue
            self.ledger.finish(batch, ())
            needed = batch[0].request.checkpoint_hash
            loads, self.held[number] = self.held[number] != needed, needed
            self.loads += loads
            self.batches += 1
            seconds = len(batch) * IMAGE_SECONDS * dice.uniform(0.8, 1.2) + LOAD_SECONDS * loads
            heapq.heappush(busy, (now + seconds, number))

    def claim(self, number: int) -> list[QueuedImage]:
        held = self.held[number]
        others = {*self.held[:number], *self.held[number + 1 :]} - {"", held}
        names: object = Names()
        return self.ledger.claim(
            names,  # type: ignore[arg-type]
            lambda request: BATCH,
            held,
            others,
            PASSES * len(self.held),
        )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("engines", "checkpoints", "at_once", "loads"), [(64, 20, 1, 156), (64, 20, 50, 264)]
)
def test_engines_load_checkpoints_seldom(
    ledger: Ledger, engines: int, checkpoints: int, at_once: int, loads: int
) -> None:
    """Engines load at most 1.5 times as often as if each batch went to the best idle one.

    That needed 104 and 176 loads for these images; in the order of saving, nearly each of the
    630 batches would need one.
    """
    dice = random.Random(at_once)
    farm = Farm(ledger, engines)
    farm.save(checkpoints, 5_000, at_once, dice)
    farm.work(dice)
    assert ledger.counts().queued == 0, "engines rest, and images wait"
    assert farm.loads <= loads
    most = ledger.select("SELECT max(passed) FROM images")[0][0]
    assert 0 < most <= PASSES * engines, "none waits for ever"


@pytest.mark.parametrize("engines", [1, 2])
def test_the_oldest_image_is_passed_over_by_four_batches_of_each_engine(
    ledger: Ledger, engines: int
) -> None:
    """Then it comes, whatever the engine has loaded; for the next image, counting starts again."""
    farm = Farm(ledger, engines)
    rare, usual = (f"{number:064x}" for number in (1, 2))
    requests = [request(seed=seed, checkpoint_hash=usual if seed else rare) for seed in range(200)]
    farm.request(requests)
    farm.held = [usual] * engines
    taken = [farm.claim(turn % engines)[0].request.seed for turn in range(engines * PASSES + 2)]
    assert taken.index(0) == engines * PASSES
    assert taken[-1] != 0
