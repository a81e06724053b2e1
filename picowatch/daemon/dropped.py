"""Dropped pictures on their way to the engine: copied for a batch, and deleted after it.

Copying each of ten thousand pictures when it is accepted would fill the disk. A picture that
changes before its turn is another request anyway. What a template names is few, and copied when
the picture is accepted.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from picowatch.files.atomic import write_atomically
from picowatch.files.names import is_picture_name, with_mask
from picowatch.files.safe_paths import OtherBytes
from picowatch.inbox.folder import InboxFolder
from picowatch.ledger import queue
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage

log = logging.getLogger("picowatch")


@dataclass(frozen=True, eq=False)
class DroppedPictures:
    """The pictures in the inbox that queued images start from; all workers share it."""

    inbox: InboxFolder
    copies: Path  # the folder in which the engine finds start images under their hashes
    ledger: Ledger
    # By worker's thread: an image that was put back may be in the batch of another already.
    _in_use: dict[int, set[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def bring(self, batch: Sequence[QueuedImage]) -> list[QueuedImage] | None:
        """Copy the batch's pictures; return the images whose pictures are there as requested.

        The others wait for theirs. None while the inbox is away: its pictures may be unchanged when
        it is back. Raises OSError if a copy cannot be written.
        """
        with self._lock:
            self._in_use[threading.get_ident()] = _pictures_of(batch)
        brought = []
        for image in batch:
            pictures = image.request.pictures if is_picture_name(image.recipe) else {}
            if all(self._copy(image, path, digest) for path, digest in pictures.items()):
                brought.append(image)
            elif self.inbox.is_away():
                return None
            else:
                words = "%s: its picture changed or is gone; its queue waits for it"
                log.info(words, queue.recipe_of(self.ledger, image))
                queue.picture_missing(self.ledger, image)
        return brought

    def clear(self, batch: Sequence[QueuedImage]) -> None:
        """Delete the copies that were made for the batch, and that no other image needs."""
        if not (made := _pictures_of(batch)):
            return
        # Whoever accepts a recipe with this picture meanwhile waits for the transaction.
        with self.ledger.transaction(), self._lock:
            self._in_use.pop(threading.get_ident(), None)
            for digest in made.difference(*self._in_use.values()):
                if not queue.is_start_image_needed(self.ledger, digest):
                    with suppress(OSError):
                        (self.copies / digest).unlink()

    def _copy(self, image: QueuedImage, path: str, digest: str) -> bool:
        """Copy the picture from where it is now, as it may have been renamed; False if gone."""
        target = self.copies / digest
        if target.is_file():
            return True
        for candidate in (*with_mask(queue.recipe_of(self.ledger, image)), path):
            with suppress(OtherBytes):
                write_atomically(target, self.inbox.blocks(candidate, digest))
                return True
        return False


def _pictures_of(batch: Sequence[QueuedImage]) -> set[str]:
    """Return the pictures of dropped ones; a request that was put back may have former names."""
    dropped = [image for image in batch if is_picture_name(image.recipe)]
    return {digest for image in dropped for digest in image.request.pictures.values()}
