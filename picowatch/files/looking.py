"""Looks at pictures that users provide; at large pictures in a process of their own.

A photo of 250 megapixels takes gigabytes to decode, and a hostile one whatever it likes: the
process ends with its memory, and the daemon goes on.
"""

import json
import os
import resource
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from picowatch.errors import PictureUnreadable
from picowatch.files.decoding import decode_alpha, decode_mask, greys_of
from picowatch.files.pictures import check_picture, is_large, picture_size
from picowatch.files.safe_paths import Version, version_of

Question = Literal["check", "greys_of_mask", "greys_of_alpha"]
_ANSWERS: dict[str, Callable[[IO[bytes]], Any]] = {
    "check": check_picture,
    "greys_of_mask": partial(greys_of, decode_mask),
    "greys_of_alpha": partial(greys_of, decode_alpha),
}
# Each may take gigabytes, so one comes after the other.
_one_at_a_time = threading.Lock()
# A dropped photo is checked where it lies, and before it is copied.
_checked: deque[Version] = deque(maxlen=64)
_BYTES_A_PIXEL, _BYTES_BESIDE = 24, 1 << 30  # of the process; WebP takes 15 for each
_SECONDS = 600
_ROOT = str(Path(__file__).parents[2])


# How such a process is started, besides its input; Ctrl-C is the daemon's.
APART: Mapping[str, Any] = {
    "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "start_new_session": True,
}  # fmt: skip


def program(module: str, *arguments: str) -> list[str]:
    """Return the command that calls a module's `main`; nothing is imported from the work folder."""
    code = f"import sys; sys.path.append(sys.argv.pop(1)); from {module} import main; main()"
    return [sys.executable, "-P", "-c", code, _ROOT, *arguments]


def look(question: Question, file: IO[bytes], most_pixels: int) -> Any:
    """Return what a picture's pixels say. Raises PictureUnreadable like `decode_picture`."""
    if not is_large(file, most_pixels):
        return _ANSWERS[question](file)
    version = version_of(os.fstat(file.fileno()))
    with _one_at_a_time:
        if question == "check" and version in _checked:
            return None
        answer = _asked(question, file)
        _checked.append(version)
        return answer


def _asked(question: Question, file: IO[bytes]) -> Any:
    """Have a process answer, whose standard input is the file."""
    width, height = picture_size(file)
    most_bytes = width * height * _BYTES_A_PIXEL + _BYTES_BESIDE
    try:
        command = program(__name__, question, str(most_bytes))
        done = subprocess.run(command, stdin=file, timeout=_SECONDS, check=False, **APART)
        told = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise PictureUnreadable(
            "It cannot be read: that takes too much memory or time.", "Make it smaller."
        ) from error
    finally:
        file.seek(0, os.SEEK_END)  # drops the buffer: the process moved the position of both
    if "error" in told:
        raise PictureUnreadable(*told["error"])
    return told["answer"]


def main() -> None:
    """Answer a question about the standard input, in JSON."""
    _, question, most_bytes = sys.argv
    with suppress(OSError, ValueError):  # not on macOS
        resource.setrlimit(resource.RLIMIT_AS, (int(most_bytes),) * 2)
    try:
        told = {"answer": _ANSWERS[question](sys.stdin.buffer)}
    except PictureUnreadable as error:
        if isinstance(error.__cause__, MemoryError):
            sys.exit(1)
        told = {"error": [error.message, error.remedy]}
    sys.stdout.write(json.dumps(told))
