"""Dropped pictures on their way to the engine: copied for a batch, and deleted after it.

A copy of each of ten thousand from the moment it is accepted would fill the disk. A picture that
changes before its turn is another request anyway.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from picowatch.errors import ControlFlow
from picowatch.files.atomic import copy_atomically
from picowatch.files.blocks import OtherBytes, checked_blocks, sha256_of
from picowatch.files.picture_names import MASK_MARK, is_picture_name, stem_of
from picowatch.files.pictures import MAX_BYTES
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import QueuedImage

log = logging.getLogger("picowatch")


class InboxAway(ControlFlow):
    """The inbox is not there: its pictures may be the same when it is back."""


@dataclass(eq=False)
class DroppedPictures:
    """The pictures in the inbox that queued images start from; all workers share it.

    `copies` is the folder in which the engine finds start images under their hashes.
    """

    inbox: Path
    copies: Path
    ledger: Ledger
    _brought: set[str] = field(default_factory=set)  # hashes of the copies made here
    _checked: set[str] = field(default_factory=set)  # … and of others that are not damaged

    def bring(self, batch: Sequence[QueuedImage]) -> list[QueuedImage]:
        """Copy what the batch needs; returns the images whose pictures are there as requested.

        The others wait until theirs are. Raises InboxAway, or OSError if a copy cannot be written.
        """
        brought = []
        for image in batch:
            if not _is_dropped(image) or self._is_brought(image):
                brought.append(image)
            else:
                words = "%s: its picture changed or is gone; its queue waits for it"
                log.info(words, image.recipe)
                self.ledger.picture_missing(image)
        return brought

    def clear(self, batch: Sequence[QueuedImage]) -> None:
        """Delete the copies that no other image needs."""
        dropped = [image for image in batch if _is_dropped(image)]
        if not dropped:
            return
        # Whoever accepts a recipe with this picture meanwhile waits for the transaction.
        with self.ledger.transaction():
            used = {one for image in dropped for one in image.request.pictures.values()}
            for digest in used & self._brought:
                if not self.ledger.is_start_image_needed(digest, [one.id for one in dropped]):
                    with suppress(OSError):
                        (self.copies / digest).unlink()
                    self._brought.discard(digest)

    def _is_brought(self, image: QueuedImage) -> bool:
        return all(
            self._is_copied(digest) or self._copy(image, path, digest)
            for path, digest in image.request.pictures.items()
        )

    def _is_copied(self, digest: str) -> bool:
        """A copy from before a power cut may be damaged: nothing waited for the disk."""
        copy = self.copies / digest
        if not copy.is_file():
            return False
        if digest in self._brought or digest in self._checked:
            return True
        with copy.open("rb") as file:
            if sha256_of(file, MAX_BYTES) != digest:
                return False
        self._checked.add(digest)
        return True

    def _copy(self, image: QueuedImage, path: str, digest: str) -> bool:
        for candidate in self._candidates(image, path):
            blocks = checked_blocks(self.inbox, candidate, digest, MAX_BYTES)
            with suppress(OtherBytes):
                copy_atomically(self.copies / digest, blocks, durable=False)
                self._brought.add(digest)
                return True
        if self._is_inbox_away():
            raise InboxAway
        return False

    def _is_inbox_away(self) -> bool:
        """Where a share is not mounted there is no folder, or an empty one."""
        try:
            with os.scandir(self.inbox) as entries:
                return not any(entries)
        except OSError:
            return True

    def _candidates(self, image: QueuedImage, path: str) -> Iterator[str]:
        """Return the paths where the picture may be: it may have been renamed since."""
        now = self.ledger.recipe_of(image)
        yield from (now, f"{stem_of(now)}{MASK_MARK}.png", path)


def _is_dropped(image: QueuedImage) -> bool:
    return is_picture_name(image.recipe)
