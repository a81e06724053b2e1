"""Simulated engines: batches go to engines with their checkpoint, and no image waits forever."""

import heapq
import random
from pathlib import Path

import pytest

from picowatch.daemon.pool import PASSES
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage, RequestedEntry, Save, SizeAndTime
from picowatch.outbox.names import OutboxNames
from picowatch.recipe.request import ImageRequest
from picowatch.settings import Settings
from tests.engine.requests import request

BATCH = 8
IMAGE_SECONDS = 0.1
LOAD_SECONDS = 3.0
ENGINES, CHECKPOINTS, IMAGES = 64, 20, 5_000


class Farm:
    """Engines that claim images, each of which needs a checkpoint, from a ledger's queue."""

    def __init__(self, folder: Path, engines: int, requests: list[ImageRequest]) -> None:
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.names = OutboxNames(Settings(outbox=folder))
        self.held = [""] * engines
        self.loads = 0
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
            seconds = len(batch) * IMAGE_SECONDS * dice.uniform(0.8, 1.2) + LOAD_SECONDS * loads
            heapq.heappush(busy, (now + seconds, number))

    def claim(self, number: int) -> list[QueuedImage]:
        held = self.held[number]
        others = {*self.held[:number], *self.held[number + 1 :]} - {"", held}
        passes = PASSES * len(self.held)
        return self.ledger.claim(self.names, lambda request: BATCH, held, others, passes)


@pytest.mark.parametrize(("at_once", "loads"), [(1, 156), (50, 264)])
def test_engines_load_checkpoints_seldom(tmp_path: Path, at_once: int, loads: int) -> None:
    """Engines load at most 1.5 times as often as if each batch went to the best idle one.

    That needed 104 and 176 loads for these images, of which up to `at_once` in a row need the same
    checkpoint; in the order of saving, nearly each of the 630 batches would need one.
    """
    dice = random.Random(at_once)
    requests: list[ImageRequest] = []
    while len(requests) < IMAGES:
        checkpoint = f"{dice.randrange(CHECKPOINTS):064x}"
        first, several = len(requests), dice.randint(1, at_once)
        requests += [
            request(seed=seed, checkpoint_hash=checkpoint) for seed in range(first, first + several)
        ]
    farm = Farm(tmp_path, ENGINES, requests)
    farm.work(dice)
    assert farm.ledger.counts().queued == 0, "engines rest, and images wait"
    assert farm.loads <= loads
    most = farm.ledger.select("SELECT max(passed) FROM images")[0][0]
    assert 0 < most <= PASSES * ENGINES, "none waits for ever"
    farm.ledger.close()


def test_the_oldest_image_is_passed_over_by_four_batches_of_each_engine(tmp_path: Path) -> None:
    """Then it comes, whatever the engine has loaded; for the next image, counting starts again."""
    old, held = (f"{number:064x}" for number in (1, 2))
    requests = [request(seed=seed, checkpoint_hash=held if seed else old) for seed in range(200)]
    farm = Farm(tmp_path, 2, requests)
    farm.held = [held, held]
    taken = [farm.claim(turn % 2)[0].request.seed for turn in range(2 * PASSES + 2)]
    assert taken.index(0) == 2 * PASSES
    assert taken[-1] != 0
    farm.ledger.close()
