"""A worker's thread: when it looks for images, and when it ends."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from picowatch.engine.protocol import RenderedImage
from picowatch.recipe.request import ImageRequest
from tests.digest_engine import DigestEngine
from tests.house import PATIENCE, House, wait_for


def test_a_stop_in_the_moment_before_a_worker_rests_is_heard(house: House) -> None:
    """It would rest for ten minutes then, and picowatch would not end."""
    with house._daemon(keeps_trying=True) as (daemon, stop, wake):
        thread = threading.Thread(target=daemon.run)
        thread.start()
        wait_for(lambda: house.status()["images"] is not None, "the first status")
        (worker,) = daemon.pool.workers
        rested = worker._wake

        class StoppedBefore(threading.Event):
            def clear(self) -> None:
                if not worker.stopping.is_set():
                    worker.stopping.set()
                    self.set()
                super().clear()

        worker._wake = StoppedBefore()
        rested.set()
        worker._thread.join(PATIENCE / 6)
        ended = worker.has_ended
        stop.set()
        wake.set()
        thread.join(PATIENCE)
        assert ended and not thread.is_alive()


def test_a_batch_that_begins_while_picowatch_ends_is_given_up(house: House) -> None:
    """Its engine, just closed, would start once more, and picowatch end after the whole batch."""
    claimed, closed, kept = threading.Event(), threading.Event(), threading.Event()

    class BeginsLate(DigestEngine):
        def render(self, *batch: Any, **options: Any) -> Future[list[RenderedImage]]:
            claimed.set()
            closed.wait(PATIENCE)
            return super().render(*batch, **options)

        def close(self) -> None:
            super().close()
            closed.set()

    def hold(batch: Sequence[ImageRequest]) -> None:
        kept.wait(PATIENCE)

    house.engine = BeginsLate(before_batch=hold)
    house.save("a.yaml", "prompt: a\nseed: 1\n")
    with house._daemon(keeps_trying=True) as (daemon, stop, wake):
        thread = threading.Thread(target=daemon.run)
        thread.start()
        assert claimed.wait(PATIENCE)
        stop.set()
        wake.set()
        thread.join(PATIENCE / 6)
        ended = not thread.is_alive()
        kept.set()
        thread.join(PATIENCE)
        assert ended and not house.pictures()
    assert "1 image waits for the next start" in house.log()
