"""Batches go to engines with their checkpoint, and no image waits forever."""

from pathlib import Path

import pytest

from picowatch.daemon.pool import PASSES
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import RequestedEntry, Save, SizeAndTime
from picowatch.outbox.names import OutboxNames
from picowatch.recipe.request import ImageRequest
from picowatch.settings import Settings
from tests.engine.requests import request

BATCH = 8
A, B, C = (f"{number:064x}" for number in range(3))  # checkpoints


class Farm:
    """Engines that claim images, each of which needs a checkpoint, from a ledger's queue."""

    def __init__(self, folder: Path, engines: int, requests: list[ImageRequest]) -> None:
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.names = OutboxNames(Settings(outbox=folder))
        self.held = [""] * engines
        self.ledger.accept(
            Save("a.yaml", "a", SizeAndTime(1, 1, 1), saved_at=0.0),
            [RequestedEntry("entry", 0, False, lambda _: requests)],
            draw_seed=lambda: 1,
            picture_exists=lambda file: False,
        )

    def claim(self, number: int) -> ImageRequest:
        """Return the first image of an engine's next batch."""
        held = self.held[number]
        others = {*self.held[:number], *self.held[number + 1 :]} - {"", held}
        passes = PASSES * len(self.held)
        batch = self.ledger.claim(self.names, lambda request: BATCH, held, others, passes)
        self.held[number] = batch[0].request.checkpoint_hash
        return batch[0].request


def test_engines_load_checkpoints_seldom(tmp_path: Path) -> None:
    """Each continues with what it has loaded, or takes what no other one has."""
    requests = [request(seed=seed, checkpoint_hash=of) for of in (A, B, C) for seed in range(16)]
    farm = Farm(tmp_path, 3, requests)
    for turns in ((0, 1, 2), (2, 1, 0)):
        assert [farm.claim(number).checkpoint_hash for number in turns] == [
            (A, B, C)[number] for number in turns
        ]
    assert farm.ledger.counts().queued == 0
    farm.ledger.close()


@pytest.mark.parametrize("engines", [1, 2])
def test_the_oldest_image_is_passed_over_by_four_batches_of_each_engine(
    tmp_path: Path, engines: int
) -> None:
    """Then it comes, whatever the engine has loaded; for the next image, counting starts again."""
    requests = [request(seed=seed, checkpoint_hash=B if seed else A) for seed in range(200)]
    farm = Farm(tmp_path, engines, requests)
    farm.held = [B] * engines
    taken = [farm.claim(turn % engines).seed for turn in range(engines * PASSES + 2)]
    assert taken.index(0) == engines * PASSES
    assert taken[-1] != 0
    farm.ledger.close()
