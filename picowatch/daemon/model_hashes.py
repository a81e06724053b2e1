"""Hashes of the models that recipes name: gigabytes are read for each once, in a thread."""

import logging
import threading
import time
from collections.abc import Callable
from typing import cast

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.models import Model
from picowatch.errors import ControlFlow, ModelRefused
from picowatch.files.attempt import Ended, passes
from picowatch.recipe import HashOf

log = logging.getLogger("picowatch")

PROGRESS_SECONDS = 5.0  # between two lines of the log
PICTURES = ("image", "mask")  # the kinds that are not models


class NotHashed(ControlFlow):
    """Raised when a save needs the hash of a model that was not read yet, which takes long."""

    def __init__(self, kind: Kind, name: str) -> None:
        super().__init__(kind, name)
        self.kind = kind
        self.name = name


class ModelHashes:
    """Looks up each hash once, until `look_again`; computes missing ones in turn, in a thread."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._found: dict[tuple[Kind, str], str] = {}
        self._refused: dict[tuple[Kind, str], ModelRefused] = {}
        self._thread: threading.Thread | None = None
        # What saves lack: they are not read again meanwhile, nor overtaken by later ones.
        self._missed: set[tuple[Kind, str]] = set()

    def look_again(self) -> None:
        """Look up all hashes again: models may have come and gone."""
        self._found.clear()

    def with_pictures(self, hash_of_picture: Callable[[str], str]) -> HashOf:
        """Return a function that gives the hash of anything that a recipe names.

        It takes those of pictures from `hash_of_picture`, and raises NotHashed if a model has to be
        read first.
        """

        def hash_of(kind: str, name: str) -> str:
            if kind in PICTURES:
                return hash_of_picture(name)
            return self._of_model(cast(Kind, kind), name)

        return hash_of

    def is_busy(self) -> bool:
        """Whether a model is being read."""
        return self._thread is not None and self._thread.is_alive()

    def missing(self) -> frozenset[tuple[Kind, str]]:
        """Return the models that saves wait for. Once one was read, all saves may try again."""
        if not self.is_busy():
            self._missed.clear()
        return frozenset(self._missed)

    def begin(self, needed: NotHashed) -> tuple[Kind, str]:
        """Read the model in a thread, unless a model is being read already; return it."""
        self._missed.add((needed.kind, needed.name))
        if not self.is_busy():
            self._thread = threading.Thread(
                target=self._read, args=(needed.kind, needed.name), name="hash", daemon=True
            )
            self._thread.start()
        return needed.kind, needed.name

    def _of_model(self, kind: Kind, name: str) -> str:
        if refused := self._refused.pop((kind, name), None):
            raise refused
        if (found := self._found.get((kind, name))) is None:
            model = self._catalog.find(kind, name)
            if (kind, name) in self._missed or not self._catalog.is_hashed(model):
                raise NotHashed(kind, name)
            found = self._found[kind, name] = self._catalog.sha256(model)
        return found

    def _read(self, kind: Kind, name: str) -> None:
        try:
            model = self._catalog.find(kind, name)
            self._catalog.sha256(model, _progress_of(model, self._catalog.size(model)))
        except ModelRefused as error:
            self._refused[kind, name] = error
        except Ended:  # the next start takes the save
            pass
        except Exception as error:  # a share that goes away is waited for: the save tries again
            if not passes(error):
                words = f"Unexpected error: {type(error).__name__}: {error}."
                self._refused[kind, name] = ModelRefused(words)


def _progress_of(model: Model, size: int) -> Callable[[int], None]:
    """Return a function that takes the size of each block and sometimes logs the progress."""
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
