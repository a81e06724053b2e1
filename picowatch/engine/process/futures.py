"""Futures that may be answered from two sides: by the work, and by `close`. Imports no torch."""

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from picowatch.engine.protocol import RenderedImage


def new_future() -> Future[list[RenderedImage]]:
    """A future that is already running: `cancel` on it does nothing, `interrupt` is the way."""
    future: Future[list[RenderedImage]] = Future()
    future.set_running_or_notify_cancel()
    return future


def settle(
    future: Future[list[RenderedImage]], result: list[RenderedImage] | BaseException
) -> None:
    """Resolve the future with pictures or a failure; the first to do so wins."""
    with suppress(InvalidStateError):
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
