"""Hashes of the models that recipes name: gigabytes are read for each once."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import cast

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.models import Model
from picowatch.errors import ControlFlow, ModelRefused
from picowatch.files.retry import Ended, passes, unexpected
from picowatch.recipe import HashOf
from picowatch.threads import start_thread

log = logging.getLogger("picowatch")

LOOK_SECONDS = 0.1
PROGRESS_SECONDS = 5.0  # between two lines of the log
PICTURES = ("image", "mask")  # kinds of what recipes name that are no models


class NotHashed(ControlFlow):
    """An answer needs the hash of a model, which takes long."""

    def __init__(self, kind: Kind, name: str) -> None:
        super().__init__(kind, name)
        self.kind = kind
        self.name = name


class ModelHashes:
    """Looks each up once, until `look_again`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._found: dict[tuple[Kind, str], str | ModelRefused] = {}

    def look_again(self) -> None:
        """Models may have come and gone."""
        self._found.clear()

    def with_pictures(self, hash_of_picture: Callable[[str], str]) -> HashOf:
        """Gives the hash of anything a recipe names, its pictures by `hash_of_picture`.

        Raises NotHashed if a model would have to be read.
        """

        def hash_of(kind: str, name: str) -> str:
            if kind in PICTURES:
                return hash_of_picture(name)
            return self._of_model(cast(Kind, kind), name)

        return hash_of

    def compute(self, needed: NotHashed, go_on: Callable[[], None]) -> None:
        """Read the model, or find out why it has no hash; `go_on` is called in between."""
        found: str | ModelRefused
        try:
            model = self._catalog.find(needed.kind, needed.name)
            found = _read_hash(self._catalog, model, go_on)
        except ModelRefused as error:
            found = error
        self._found[needed.kind, needed.name] = found

    def _of_model(self, kind: Kind, name: str) -> str:
        found = self._found.get((kind, name))
        if found is None:
            model = self._catalog.find(kind, name)
            if not self._catalog.is_hashed(model):
                raise NotHashed(kind, name)
            found = self._found[kind, name] = self._catalog.sha256(model)
        if isinstance(found, ModelRefused):
            raise found
        return found


def _read_hash(catalog: Catalog, model: Model, go_on: Callable[[], None]) -> str:
    """The model's hash, read in a thread of its own: a share that hangs must not hold up the end.

    Raises ModelRefused. What `go_on` raises meanwhile ends the reading.
    """
    read, abandoned = 0, False
    found: Future[str] = Future()

    def on_block(size: int) -> None:
        nonlocal read
        read += size
        if abandoned:
            raise Ended

    def run() -> None:
        try:
            found.set_result(catalog.sha256(model, on_block))
        except (ModelRefused, Ended) as error:
            found.set_exception(error)
        except Exception as error:
            found.set_exception(error if passes(error) else ModelRefused(unexpected(error)))

    start_thread(threading.Thread(target=run, name="hash", daemon=True))
    logged = time.monotonic()
    try:
        while not found.done():
            with suppress(TimeoutError):
                found.exception(LOOK_SECONDS)
            go_on()
            if time.monotonic() - logged >= PROGRESS_SECONDS:
                logged = time.monotonic()
                done, size = read / 1e9, catalog.size(model) / 1e9
                log.info(
                    "%s: new, reading it for its hash: %.1f of %.1f GB", model.name, done, size
                )
    finally:
        abandoned = True
    return found.result()
