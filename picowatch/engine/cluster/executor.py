"""The Executor of a Ray cluster: engines come and go as the driver says. Imports no Ray."""

import logging
import threading
from collections.abc import Sequence

from picowatch.engine.cluster.driver_process import DriverProcess, from_anywhere
from picowatch.engine.cluster.messages import (
    Begin,
    FromDriver,
    Joined,
    Left,
    Note,
    Said,
    ToDriver,
    Trouble,
    Want,
)
from picowatch.engine.cluster.remote_engine import RemoteEngine
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Engine, EngineLost
from picowatch.errors import EngineStopped, PicowatchError
from picowatch.settings import RaySettings

log = logging.getLogger("picowatch")

_CLOSE_SECONDS = 1.5
_LONGEST_PAUSE = 30.0
_LOST = "The connection to the Ray cluster was lost."


class RayEngines:
    """Engines of a cluster, kept by a driver process that is started again when it ends."""

    def __init__(
        self,
        options: EngineOptions,
        settings: RaySettings,
        program: str = "picowatch.engine.process.child_main",
    ) -> None:
        """`program` serves in the engines' processes, as of a ChildEngine."""
        self._begin = Begin(from_anywhere(options), settings, program)
        self._lock = threading.Lock()
        self._engines: dict[int, RemoteEngine] = {}
        self._wanted = 0
        self._trouble = ""
        self._final = False
        self._driver: DriverProcess | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self._thread.start()

    def engines(self) -> Sequence[Engine]:
        """See `Executor.engines`."""
        with self._lock:
            return tuple(self._engines.values())

    def want(self, engines: int) -> None:
        """See `Executor.want`."""
        if engines != self._wanted:
            self._wanted = engines
            self._send(Want(engines))

    def trouble(self) -> str:
        """See `Executor.trouble`."""
        return self._trouble

    def is_final(self) -> bool:
        """See `Executor.is_final`."""
        return self._final

    def close(self) -> None:
        """See `Executor.close`."""
        self._closing.set()
        with self._lock:
            driver = self._driver
            engines = list(self._engines.values())
        for engine in engines:
            engine.end(EngineStopped("The engine was closed."))
        if driver is not None:
            driver.end(_CLOSE_SECONDS)
        self._thread.join(_CLOSE_SECONDS)

    @property
    def process_id(self) -> int | None:
        """The driver's process id while there is one."""
        driver = self._driver
        return driver.process.pid if driver is not None else None

    # -- the thread

    def _run(self) -> None:
        pause = 1.0
        while not self._closing.is_set():
            joined_any = self._serve()
            pause = 1.0 if joined_any else min(2 * pause, _LONGEST_PAUSE)
            self._closing.wait(pause)

    def _serve(self) -> bool:
        """Start a driver and hear it to its end; whether an engine joined."""
        joined_any = False
        with self._lock:
            if self._closing.is_set():
                return False
            try:
                self._driver = driver = DriverProcess(self._begin)
            except OSError as error:  # no room or no permission for its folder, no more processes
                text = f"Ray cannot be started on this machine: {error}."
                self._take_up(Trouble(text, final=True))
                return False
        try:
            driver.send(Want(self._wanted))
            while True:
                message = driver.hear()
                joined_any = joined_any or isinstance(message, Joined)
                self._take_up(message)
        except (EOFError, OSError):
            pass
        finally:
            driver.end()
            driver.close()
            log.debug("Ray's driver ended: %s", "\n".join(driver.last_words()))
            self._lose_all()
        return joined_any

    def _take_up(self, message: FromDriver) -> None:
        match message:
            case Joined(number, node):
                log.info("an engine joined on %s", node)
                engine = RemoteEngine(message, self._begin.options, self._send, self._forget)
                with self._lock:
                    self._engines[number] = engine
            case Left(number, why):
                self._leave(number, why)
            case Said(number, batch, said):
                if number in self._engines:
                    self._engines[number].hear(batch, said)
            case Trouble(text, final):
                if text and text != self._trouble:
                    log.warning("%s", text)
                self._trouble, self._final = text, final
            case Note(text):
                log.info("%s", text)

    def _leave(self, number: int, why: PicowatchError | None) -> None:
        with self._lock:
            engine = self._engines.pop(number, None)
        if engine is not None:
            why = why or EngineStopped("The engine was closed.")
            log.info("%s", why)
            engine.end(why)

    def _forget(self, closed: RemoteEngine) -> None:
        with self._lock:
            self._engines = {
                number: engine for number, engine in self._engines.items() if engine is not closed
            }

    def _lose_all(self) -> None:
        with self._lock:
            lost, self._engines, self._driver = list(self._engines.values()), {}, None
        self._trouble = self._trouble or _LOST
        for engine in lost:
            engine.end(EngineLost(_LOST))

    def _send(self, message: ToDriver) -> None:
        driver = self._driver
        if driver is not None:
            driver.send(message)
