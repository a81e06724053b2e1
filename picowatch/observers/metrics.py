"""Metrics for Prometheus at `metrics_address`. Imported only if that setting is made."""

import logging
import socket
import threading
from collections.abc import Iterable
from io import StringIO
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import InfoMetricFamily as Info
from prometheus_client.registry import Collector

from picowatch import __version__
from picowatch.errors import SettingsInvalid
from picowatch.outbox.status import TROUBLES, Status

log = logging.getLogger("picowatch")

# From the demo model's half second to an image of minutes on a CPU.
SECONDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1800)
MOST_CLIENTS = 20  # at once: each takes a handle, which the daemon needs for pictures
# Metrics of each engine: kind, name, words, and the field of EngineStatus.
OF_ENGINES = (
    (CounterMetricFamily, "picowatch_engine_images", "Images rendered by the engine.", "images"),
    (Gauge, "picowatch_engine_steps_per_second", "Steps a second of the batch in progress.",
     "steps_per_second"),
    (Gauge, "picowatch_engine_memory_bytes", "Device memory used by the engine.", "memory_bytes"),
)  # fmt: skip


class _Handler(WSGIRequestHandler):
    """Answers a client, and prints nothing about it."""

    timeout = 10.0  # seconds for which it waits for a silent client

    def log_message(self, *_: Any) -> None:
        """Log no request."""

    def get_stderr(self) -> StringIO:
        """Return where the traceback of a request goes."""
        return StringIO()


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each client in a thread of its own, and MOST_CLIENTS at once."""

    daemon_threads = True

    def __init__(self, host: str, port: int, registry: prometheus.CollectorRegistry) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, where = found[0]
        self._clients: set[object] = set()
        super().__init__((str(where[0]), port), _Handler)
        self.set_app(prometheus.make_wsgi_app(registry))

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for a client; if not, the connection is closed."""
        if is_room := len(self._clients) < MOST_CLIENTS:
            self._clients.add(request)
        return is_room

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._clients.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("metrics: a client was not answered", exc_info=True)


class Metrics(Collector):
    """Serves a `status`, the newest, as metrics, in threads of its own."""

    def __init__(self, address: str) -> None:
        """Serve at `address`, which is host:port. Raises SettingsInvalid if that is impossible."""
        registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        prometheus.PlatformCollector(registry=registry)
        words = "Seconds to render an image, from its prompt to its pixels."
        self.image_seconds = prometheus.Histogram(
            "picowatch_image_seconds", words, buckets=SECONDS, registry=registry
        )
        words = "Restarts of the engine after it died or could not start."
        self.engine_restarts = prometheus.Counter(
            "picowatch_engine_restarts", words, registry=registry
        )
        self.address = address
        self.status: Status | None = None
        registry.register(self)
        host, _, port = address.rpartition(":")
        host = host.strip("[]") or "0.0.0.0"
        try:
            self._server = _Server(host, int(port), registry)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            problem = f"metrics_address {address}: cannot serve there: {reason}."
            raise SettingsInvalid(problem, "Choose another port, or leave it out.") from error
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        log.info("metrics at http://%s:%s/metrics", host, self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterable[prometheus.Metric]:
        yield Info("picowatch", "The running picowatch.", value={"version": __version__})
        if (status := self.status) is None:
            return
        words = "When picowatch was started."
        yield Gauge("picowatch_started_time_seconds", words, value=status.started)
        words = "Share of the recipe or folder in progress that is done, 0 to 1."
        yield Gauge("picowatch_progress_ratio", words, value=status.share or 0.0)
        if (seconds := status.all_seconds_left) is not None:
            words = "Seconds until everything queued is rendered."
            yield Gauge("picowatch_remaining_seconds", words, value=seconds)
        words = "1 while this is in trouble, or rendering is paused."
        trouble = Gauge("picowatch_in_trouble", words, labels=["reason"])
        for reason in TROUBLES:
            trouble.add_metric([reason], reason in status.troubles)
        yield trouble
        images = Gauge("picowatch_images", "Images in the ledger, by state.", labels=["state"])
        for state, count in status.images.items():
            images.add_metric([state], count)
        yield images
        for kind, name, words, field in OF_ENGINES:
            metric = kind(name, words, labels=["engine", "node", "device"])
            for engine in status.engines:
                if (value := getattr(engine, field)) is not None:
                    metric.add_metric([str(engine.number), engine.node, engine.device], value)
            yield metric
