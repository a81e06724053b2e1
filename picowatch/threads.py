"""Threads, where the system may allow no more of them."""

import errno
import threading


def start_thread(thread: threading.Thread) -> None:
    """Start it. Raises OSError where no more are allowed, as for a process, not RuntimeError."""
    try:
        thread.start()
    except RuntimeError as error:
        raise BlockingIOError(errno.EAGAIN, str(error)) from error
