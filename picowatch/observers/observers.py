"""Who is told of the work and has no part in it: hooks, metrics, the preview."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from picowatch.engine.protocol import RenderedImage
from picowatch.errors import SettingsInvalid
from picowatch.ledger.rows import QueuedImage
from picowatch.observers.console import Console
from picowatch.observers.hooks import Hooks
from picowatch.observers.preview import Previews
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import Status
from picowatch.settings import Settings
from picowatch.work.pool import WorkerPool
from picowatch.work.publish import Publisher, listing_line
from picowatch.work.result import RunResult

if TYPE_CHECKING:
    from picowatch.observers.metrics import Metrics


class Observers:
    """Hears what publisher, answers and engine tell, and whatever is shown on the console."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        publisher: Publisher,
        pool: WorkerPool,
        result: RunResult,
    ) -> None:
        """Raises SettingsInvalid if the metrics cannot be served."""
        self._outbox = outbox
        self._metrics = _metrics(settings.metrics_address, lambda: result.engine_restarts)
        self._hooks = Hooks(
            settings.hooks,
            inbox=settings.inbox,
            outbox=settings.outbox,
            seconds=settings.hook_seconds,
        )
        self._previews = Previews(outbox)
        publisher.on_published = self._published
        pool.preview_with(self._previews.show)

    def beside(self, console: Console) -> Console:
        """The console, with these looking at what it shows."""
        return _Overlooked(console, self._status)

    def close(self, hurry: Callable[[], bool]) -> None:
        """Let hooks that were called end by themselves, until `hurry`; then end them all."""
        self._hooks.close(hurry)
        self._previews.close()
        if self._metrics:
            self._metrics.close()

    def _published(self, image: QueuedImage, picture: RenderedImage) -> None:
        self._hooks.picture(listing_line(image))
        if self._metrics:
            self._metrics.picture(sum(picture.timings.values()))

    def failed(self, recipe: str) -> None:
        """An error file was written for the recipe."""
        self._hooks.failed(recipe, self._outbox.names.error_file(recipe))

    def _status(self, status: Status) -> None:
        self._hooks.status(status)
        if self._metrics:
            self._metrics.status(status)


class _Overlooked:
    """A console that passes on what it shows."""

    def __init__(self, console: Console, look: Callable[[Status], None]) -> None:
        self._console = console
        self._look = look

    @property
    def handler(self) -> logging.Handler:
        return self._console.handler

    def show(self, status: Status) -> None:
        self._console.show(status)
        self._look(status)

    def close(self) -> None:
        self._console.close()


def _metrics(address: str | None, engine_restarts: Callable[[], int]) -> Metrics | None:
    if not address:
        return None
    try:
        from picowatch.observers.metrics import Metrics
    except ImportError as error:
        raise SettingsInvalid(
            f"metrics_address {address}: metrics need prometheus-client, which is not installed.",
            "Install it with `pip install prometheus-client`.",
        ) from error
    return Metrics(address, engine_restarts)
