"""Files read in blocks: thousands of large pictures pass through the daemon in little memory."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from picowatch.errors import ControlFlow
from picowatch.files.inside import open_below

_BLOCK = 1 << 16


class OtherBytes(ControlFlow):
    """A file does not hold the bytes that were expected, or cannot be read."""


def blocks_of(file: IO[bytes], most: int) -> Iterator[bytes]:
    """The file from its beginning, at most `most` + 1 bytes of it."""
    file.seek(0)
    left = most + 1
    while left and (block := file.read(min(_BLOCK, left))):
        left -= len(block)
        yield block


def sha256_of(file: IO[bytes], most: int) -> str:
    """The sha256 of as much of the file as `blocks_of` gives."""
    digest = hashlib.sha256()
    for block in blocks_of(file, most):
        digest.update(block)
    return digest.hexdigest()


def checked_blocks(root: Path, path: str, digest: str, most: int) -> Iterator[bytes]:
    """The blocks of a file below `root`.

    Raises OtherBytes if it cannot be read, or at their end if this is not their sha256.
    """
    found = hashlib.sha256()
    try:
        with os.fdopen(open_below(root, path), "rb") as file:
            for block in blocks_of(file, most):
                found.update(block)
                yield block
    except OSError as error:
        raise OtherBytes from error
    if found.hexdigest() != digest:
        raise OtherBytes
