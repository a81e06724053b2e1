"""Hashes of the models that recipes name: gigabytes are read for each once, in a thread."""

import logging
import threading
import time
from collections.abc import Callable
from typing import cast

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.models import Model
from picowatch.errors import ControlFlow, ModelRefused
from picowatch.files.retry import Ended, passes
from picowatch.recipe import HashOf

log = logging.getLogger("picowatch")

PROGRESS_SECONDS = 5.0  # between two lines of the log
PICTURES = ("image", "mask")  # kinds of what recipes name that are no models


class NotHashed(ControlFlow):
    """A save needs the hash of a model, which takes long."""

    def __init__(self, kind: Kind, name: str) -> None:
        super().__init__(kind, name)
        self.kind = kind
        self.name = name


class ModelHashes:
    """Looks each up once, until `look_again`. Saves wait while one is computed, one at a time."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._found: dict[tuple[Kind, str], str] = {}
        self._refused: dict[tuple[Kind, str], ModelRefused] = {}
        self._thread: threading.Thread | None = None
        # Of a slice of saves: later ones do not overtake those that wait for the same model.
        self.missed: set[tuple[Kind, str]] = set()

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

    def is_busy(self) -> bool:
        """Whether a model is being read."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, needed: NotHashed) -> None:
        """Read the model in a thread, unless one is read already."""
        self.missed.add((needed.kind, needed.name))
        if not self.is_busy():
            self._thread = threading.Thread(
                target=self._read, args=(needed.kind, needed.name), name="hash", daemon=True
            )
            self._thread.start()

    def _of_model(self, kind: Kind, name: str) -> str:
        if refused := self._refused.pop((kind, name), None):
            raise refused
        if (found := self._found.get((kind, name))) is None:
            model = self._catalog.find(kind, name)
            if (kind, name) in self.missed or not self._catalog.is_hashed(model):
                raise NotHashed(kind, name)
            found = self._found[kind, name] = self._catalog.sha256(model)
        return found

    def _read(self, kind: Kind, name: str) -> None:
        try:
            model = self._catalog.find(kind, name)
            self._catalog.sha256(model, _progress_of(model, self._catalog.size(model)))
        except ModelRefused as error:
            self._refused[kind, name] = error
        except Ended:  # the next start answers the save
            pass
        except Exception as error:  # a share that goes away is waited for: the save tries again
            if not passes(error):
                words = f"Unexpected error: {type(error).__name__}: {error}."
                self._refused[kind, name] = ModelRefused(words)


def _progress_of(model: Model, size: int) -> Callable[[int], None]:
    """A function that gets the size of each block, and logs now and then how much was read."""
    read, logged = 0, time.monotonic()

    def on_block(block: int) -> None:
        nonlocal read, logged
        read += block
        if time.monotonic() - logged >= PROGRESS_SECONDS:
            logged = time.monotonic()
            log.info(
                "%s: new, reading it for its hash: %.1f of %.1f GB",
                model.name, read / 1e9, size / 1e9,
            )  # fmt: skip

    return on_block
