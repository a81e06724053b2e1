"""Hashes of the models that recipes name: gigabytes are read for each once, in threads."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.models import Model
from picowatch.errors import ControlFlow, ModelChanged, ModelRefused
from picowatch.files.essential import Ended, in_words, passes
from picowatch.recipe.inventory import Inventory

log = logging.getLogger("picowatch")

PROGRESS_SECONDS = 5.0  # between two lines of the log
FRESH_SECONDS = 0.5  # before the models folder is looked at again
MOST_AT_ONCE = 4  # so that a small model rarely waits for large ones

_Key = tuple[Kind, str]


class NotHashed(ControlFlow):
    """A save needs the hash of a model, by its kind and name, that was not read yet."""


@dataclass(eq=False)
class ModelHashes:
    """Looks up each hash once, until `look_again`; computes each missing one in a thread."""

    catalog: Catalog
    default_checkpoint: str | None
    settle_seconds: float
    wake: threading.Event
    inventory: Inventory = field(init=False)  # of what recipes may name, from the first look on
    _looking: threading.Lock = field(default_factory=threading.Lock)
    # Not held while looking, which may take long.
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _looked_at: float = float("-inf")
    _found: dict[_Key, str] = field(default_factory=dict)
    _refused: dict[_Key, ModelRefused] = field(default_factory=dict)
    _threads: dict[_Key, threading.Thread] = field(default_factory=dict)
    _turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MOST_AT_ONCE))

    def look_again(self) -> None:
        """Look at the models folder, unless that was just done: models may have come and gone."""
        with self._looking:
            now = time.monotonic()
            # A recipe that has been quiet may name a model that came just before.
            if now - self._looked_at > min(FRESH_SECONDS, self.settle_seconds):
                self.inventory = self.catalog.inventory(self.default_checkpoint)
                with self._lock:
                    self._found.clear()
                self._looked_at = now

    def hash_of(self, kind: Kind, name: str) -> str:
        """Return the hash of a model. Raises NotHashed if it has to be read first."""
        key = kind, name
        with self._lock:
            if refused := self._refused.pop(key, None):
                raise refused
            if key not in self._found:
                model = self.catalog.find(*key)  # lists all checkpoints, and asks for their times
                if key in self._threads or not (found := self.catalog.known_hash(model)):
                    raise NotHashed(*key)
                self._found[key] = found
            return self._found[key]

    def being_read(self) -> Collection[_Key]:
        """Return the models that are being read: saves that need them are not read meanwhile."""
        return frozenset(self._threads)  # threads end meanwhile

    def begin(self, needed: NotHashed) -> _Key:
        """Read the model in a thread, unless that has begun or ended; return it."""
        kind, name = needed.args
        key: _Key = kind, name
        with suppress(ModelRefused):  # it is gone, which the save's next reading tells
            model = self.catalog.find(*key)
            if key not in self._threads and not self.catalog.known_hash(model):
                given = key, model
                thread = threading.Thread(target=self._read, args=given, name="hash", daemon=True)
                self._threads[key] = thread
                thread.start()
        return key

    def _read(self, key: _Key, model: Model) -> None:
        try:
            with self._turns:
                self.catalog.sha256(model, _progress_of(model, self.catalog.size(model)))
        except (Ended, ModelChanged):  # a later reading of the save takes it as it is then
            pass
        except ModelRefused as error:
            self._refused[key] = error
        except Exception as error:  # a share that goes away is waited for: the save tries again
            if not passes(error):
                self._refused[key] = ModelRefused(in_words(error))
        finally:
            with self._looking:
                self._looked_at = float("-inf")  # the inventory lacks this hash
            self._threads.pop(key, None)
            self.wake.set()


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
