"""Metrics for Prometheus, at the setting `metrics_address`. Imported only where that is set."""

import errno
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from picowatch import __version__
from picowatch.errors import SettingsInvalid
from picowatch.outbox.status import Status

log = logging.getLogger("picowatch")

CLIENT_SECONDS = 10.0  # that a client may be silent: each has a thread and an open file
# From the demo model's half second to an image of minutes on a CPU.
SECONDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Serves the metrics, in its own threads."""

    def __init__(self, address: str, engine_restarts: Callable[[], int]) -> None:
        """`address` is host:port. Raises SettingsInvalid if it cannot be served."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._seconds = Histogram(
            "picowatch_image_seconds",
            "Seconds to render an image, from its prompt to its pixels.",
            buckets=SECONDS,
            registry=registry,
        )
        self._state = _State(engine_restarts)
        registry.register(self._state)
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(
                int(port), host.strip("[]") or "0.0.0.0", registry
            )
        except OSError as error:
            remedy = "Choose another port, or leave it out."
            if error.errno == errno.EAFNOSUPPORT:
                remedy = (
                    "Allow the network in the service's unit (docs/service.md), or leave it out."
                )
            raise SettingsInvalid(
                f"metrics_address {address}: cannot serve there: {error.strerror}.", remedy
            ) from error
        self._server.RequestHandlerClass = _impatient(self._server.RequestHandlerClass)
        log.info("metrics at http://%s:%s/metrics", host or "0.0.0.0", self.port)

    @property
    def port(self) -> int:
        """Where it listens; of interest if the setting says 0."""
        return int(self._server.server_port)

    def picture(self, seconds: float) -> None:
        """A picture was published, rendered in so many seconds."""
        self._seconds.observe(seconds)

    def status(self, status: Status) -> None:
        """The current status, a few times a second."""
        self._state.status = status

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _impatient(handler: Any) -> Any:
    """The handler, but that it leaves clients that say nothing: prometheus-client's never does."""

    class Impatient(handler):  # type: ignore[misc]  # a class that is known at run time alone
        timeout = CLIENT_SECONDS

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

    return Impatient


class _State(Collector):
    """The newest status, as metrics."""

    def __init__(self, engine_restarts: Callable[[], int]) -> None:
        self._engine_restarts = engine_restarts
        self.status: Status | None = None

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily(
            "picowatch", "The running picowatch.", value={"version": __version__}
        )
        yield CounterMetricFamily(
            "picowatch_engine_restarts",
            "Restarts of the engine after it died or could not start.",
            value=self._engine_restarts(),
        )
        if (status := self.status) is None:
            return
        images = GaugeMetricFamily(
            "picowatch_images", "Images in the ledger, by state.", labels=["state"]
        )
        for state, count in status.images.items():
            images.add_metric([state], count)
        yield images
        yield from _of_engines(status)
        yield _gauge(
            "picowatch_started_time_seconds", "When picowatch was started.", status.started
        )
        is_waiting = bool(status.trouble)
        yield _gauge(
            "picowatch_in_trouble",
            "1 while picowatch is waiting, for example because the disk is full.",
            is_waiting,
        )


def _of_engines(status: Status) -> Iterable[Metric]:
    """Images, speed and memory of each engine."""
    names = ["engine", "node", "device"]
    rendered = CounterMetricFamily(
        "picowatch_engine_images", "Images rendered by the engine.", labels=names
    )
    speed = GaugeMetricFamily(
        "picowatch_engine_steps_per_second",
        "Steps a second of the batch in progress.",
        labels=names,
    )
    held = GaugeMetricFamily(
        "picowatch_engine_memory_bytes",
        "Device memory used by the engine.",
        labels=names,
    )
    for engine in status.engines:
        labels = [str(engine.number), engine.node, engine.device]
        rendered.add_metric(labels, engine.images)
        speed.add_metric(labels, engine.steps_per_second)
        if engine.memory_bytes is not None:
            held.add_metric(labels, engine.memory_bytes)
    yield from (rendered, speed, held)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)
