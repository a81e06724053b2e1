"""kill -9 at random moments, of the real daemon and of its engines, while recipes are saved."""

import os
import random
import signal
from contextlib import suppress
from functools import partial

import pytest

from tests.daemon.processes import engines_of, process
from tests.house import House, faults, wait_for

KILLS = int(os.environ.get("KILLS", "4"))  # `make storm` asks for 200


@pytest.mark.heavy
@pytest.mark.timeout(600 + 20 * KILLS)
def test_kills_at_random_lose_nothing_and_make_nothing_twice(house: House) -> None:
    daemon_of = partial(process, house, PICOWATCH_MAX_ATTEMPTS="100")
    dice, wanted = random.Random(4), 0

    def save() -> None:
        """Save a recipe whose seeds no other has."""
        nonlocal wanted
        count = dice.randrange(1, 7)
        house.save(
            f"{'live/' * dice.randrange(2)}{wanted}.yaml",
            f"prompt: a star\nseed: {wanted}\ncount: {count}\nsteps: {dice.randrange(2, 9)}\n"
            f"size: 64x64\ngrid: {str(count > 1).lower()}\n",
        )
        wanted += count

    for kill in range(KILLS):
        with daemon_of() as daemon:
            for _ in range(dice.randrange(1, 4)):
                save()
            enough = min(wanted, len(house.listed()) + dice.randrange(1, 5))
            wait_for(lambda: len(house.listed()) >= enough, "some pictures")  # noqa: B023
            if kill % 2:
                for engine in engines_of(daemon.pid):
                    with suppress(ProcessLookupError):
                        os.kill(engine, signal.SIGKILL)
                save()
                wait_for(lambda: len(house.listed()) > enough, "another picture")  # noqa: B023
    with daemon_of():
        while (there := len(house.listed())) < wanted:  # after 200 kills 600 are left
            wait_for(lambda: len(house.listed()) > there, "another picture")
        wait_for(lambda: not house.status()["images"]["queued"], "the end")
    assert house.once()
    assert sorted(line["seed"] for line in house.listed()) == list(range(wanted))
    assert list(faults(house.outbox)) == []
