"""Hashes of the models that recipes name: gigabytes are read for each once, in threads."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import cast

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.models import Model
from picowatch.errors import ControlFlow, ModelRefused
from picowatch.files.attempt import Ended, passes
from picowatch.recipe import HashOf
from picowatch.recipe.inventory import Inventory
from picowatch.settings import Settings

log = logging.getLogger("picowatch")

PROGRESS_SECONDS = 5.0  # between two lines of the log
FRESH_SECONDS = 0.5  # before the models folder is looked at again
MOST_AT_ONCE = 4  # so that a small model rarely waits for large ones
PICTURES = ("image", "mask")  # the kinds that are not models

_Key = tuple[Kind, str]


class NotHashed(ControlFlow):
    """Raised when a save needs the hash of a model that was not read yet, which takes long."""

    def __init__(self, kind: Kind, name: str) -> None:
        super().__init__(kind, name)
        self.kind = kind
        self.name = name


class ModelHashes:
    """Looks up each hash once, until `look_again`; computes each missing one in a thread.

    `inventory` are the models that recipes may name.
    """

    def __init__(self, settings: Settings, has_ended: Callable[[], bool]) -> None:
        self._settings = settings
        self._catalog = Catalog(settings.models, settings.hash_cache, has_ended=has_ended)
        self.inventory: Inventory  # from the first look on
        self._looked_at = float("-inf")
        self._found: dict[_Key, str] = {}
        self._refused: dict[_Key, ModelRefused] = {}
        self._threads: dict[_Key, threading.Thread] = {}
        self._turns = threading.Semaphore(MOST_AT_ONCE)

    def look_again(self, now: float) -> None:
        """Look at the models folder, unless that was just done: models may have come and gone.

        A recipe that has been quiet for `settle_seconds` may name one that came just before.
        """
        if now - self._looked_at > min(FRESH_SECONDS, self._settings.settle_seconds):
            self._found.clear()
            self.inventory = self._catalog.inventory(
                self._settings.checkpoint, must_exist=self._settings.names_models
            )
            self._looked_at = now

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
        return any(thread.is_alive() for thread in self._threads.values())

    def missing(self) -> Collection[_Key]:
        """Return the models that are being read: saves that need them are not read meanwhile."""
        self._threads = {key: one for key, one in self._threads.items() if one.is_alive()}
        return self._threads.keys()

    def begin(self, needed: NotHashed) -> _Key:
        """Read the model in a thread, unless that has begun; return it."""
        key = needed.kind, needed.name
        if key not in self._threads:
            one = threading.Thread(target=self._read, args=key, name="hash", daemon=True)
            self._threads[key] = one
            one.start()
        return key

    def _of_model(self, kind: Kind, name: str) -> str:
        if refused := self._refused.pop((kind, name), None):
            raise refused
        if (found := self._found.get((kind, name))) is None:
            model = self._catalog.find(kind, name)
            if (kind, name) in self._threads or not self._catalog.is_hashed(model):
                raise NotHashed(kind, name)
            found = self._found[kind, name] = self._catalog.sha256(model)
        return found

    def _read(self, kind: Kind, name: str) -> None:
        try:
            model = self._catalog.find(kind, name)
            with self._turns:
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
