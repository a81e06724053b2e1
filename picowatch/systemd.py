"""Reports the daemon's state to a service manager: systemd's notification protocol.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import logging
import os
import socket
import time

log = logging.getLogger("picowatch")

BEAT_SECONDS = 0.25  # at least, between two signs of life in the middle of something
# What a start or an end may take from one sign of life to the next.
ALIVE = ("WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={60_000_000}")


def notify(*lines: str) -> None:
    """Send lines such as `READY=1`; does nothing where no service manager listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux' abstract sockets
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall("\n".join(lines).encode("utf-8", "backslashreplace"))
    except OSError as error:
        log.debug("cannot notify the service manager: %s", error)


class Beat:
    """Says when the next sign of life is due, in the middle of something that takes long."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time for one; it counts as given."""
        if time.monotonic() - self._last < BEAT_SECONDS:
            return False
        self._last = time.monotonic()
        return True
