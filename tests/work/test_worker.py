"""A worker's thread: when it looks for images, and when it ends."""

import threading

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
