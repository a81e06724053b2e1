"""Messages to a service manager such as systemd: sd_notify(3)."""

import logging
import os
import socket

log = logging.getLogger("picowatch")

# Sign of life during a long start or end, which also extends systemd's time limit.
ALIVE = ("WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={60_000_000}")


def notify(*lines: str) -> None:
    """Send lines such as `READY=1`; do nothing if no service manager listens."""
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
