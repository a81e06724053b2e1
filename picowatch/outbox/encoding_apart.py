"""Encodes large pictures in a process of their own, whose memory ends with it.

An encoder takes up to 15 bytes for each pixel, which is a gigabyte for a photo of 61 megapixels.
The process unpickles what the daemon sends; the daemon reads JSON and bytes.
"""

import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from logging.handlers import BufferingHandler

from PIL import Image

from picowatch.files.decoding import Original
from picowatch.files.looking import program
from picowatch.outbox.encoding import How, shrink

log = logging.getLogger("picowatch")


def encode_apart(decode: Callable[[], Original], how: How) -> tuple[Image.Image, bytes]:
    """Return a small picture for the gallery, and the file's bytes. MemoryError if it failed."""
    process = subprocess.Popen(
        program(__name__),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is the daemon's
    )
    assert process.stdin and process.stdout
    try:
        with process:  # its end writes what is buffered
            pickle.dump((decode, how), process.stdin)  # pixels, too, which it does not copy
            process.stdin.close()
            mode, size, length, words = json.loads(process.stdout.readline())
            small, content = process.stdout.read(length), process.stdout.read()
    except (OSError, ValueError) as error:
        raise MemoryError("the process that encodes it has ended") from error
    for said in words:
        log.warning("%s", said)
    return Image.frombytes(mode, size, small), content


def main() -> None:
    """Encode what stands in the standard input."""
    kept = BufferingHandler(1000)  # lines; a picture has one or two
    log.addHandler(kept)
    log.propagate = False
    decode, how = pickle.load(sys.stdin.buffer)
    decoded = decode()
    content = how.encode(decoded)
    small = shrink(decoded.picture)
    thumbnail = small.tobytes()
    words = [record.getMessage() for record in kept.buffer]
    told = json.dumps([small.mode, small.size, len(thumbnail), words])
    sys.stdout.buffer.writelines((told.encode(), b"\n", thumbnail, content))
