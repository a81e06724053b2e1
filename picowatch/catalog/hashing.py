"""Reads a model for its hash: gigabytes, with its progress in the log."""

import logging
import threading
import time
from collections.abc import Callable

from picowatch.catalog import Catalog, Model
from picowatch.errors import ModelRefused
from picowatch.files.retry import Ended

log = logging.getLogger("picowatch")

LOOK_SECONDS = 0.1
PROGRESS_SECONDS = 5.0  # between two lines of the log


class Hashing:
    """One model, read in a thread of its own: a share that hangs must not hold up the end."""

    def __init__(
        self, catalog: Catalog, model: Model, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._catalog = catalog
        self._model = model
        self._steady = steady
        self._read = 0
        self._abandoned = False
        self._found = ""
        self._failed: Exception | None = None

    def result(self, go_on: Callable[[], None]) -> str:
        """The hash; raises ModelRefused. What `go_on` raises meanwhile ends the reading."""
        reader = threading.Thread(target=self._run, name="hash", daemon=True)
        reader.start()
        told = self._steady()
        try:
            while reader.is_alive():
                reader.join(LOOK_SECONDS)
                go_on()
                if self._steady() - told >= PROGRESS_SECONDS:
                    told = self._steady()
                    self._tell()
        finally:
            self._abandoned = True
        if self._failed is not None:
            raise self._failed
        return self._found

    def _run(self) -> None:
        try:
            self._found = self._catalog.sha256(self._model, self._on_block)
        except ModelRefused as error:
            self._failed = error
        except Ended:
            pass  # nobody wants it any more
        except OSError as error:
            self._failed = ModelRefused(f"{self._model.name} cannot be read: {error.strerror}.")

    def _on_block(self, size: int) -> None:
        self._read += size
        if self._abandoned:
            raise Ended

    def _tell(self) -> None:
        log.info(
            "%s: new here, it is read for its hash: %.1f of %.1f GB",
            self._model.name,
            self._read / 1e9,
            self._catalog.size(self._model) / 1e9,
        )
