"""A user's folders with a daemon around an engine process that goes wrong."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from PIL import Image

from picowatch.engine.child import ChildEngine
from tests.digest_engine import digest_pixels
from tests.faults.faulty_engine import (
    GO_FILE,
    PROCESSES_FILE,
    START_FILE,
    STRAYS_FILE,
    FaultyRenderer,
)
from tests.house import House, wait_for


class FaultyHouse(House):
    """A house whose engine is tests.faults.faulty_engine, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder)
        self.models.mkdir(exist_ok=True)
        self.make_engine = lambda options: ChildEngine(options, FaultyRenderer)

    def fail_at_start(self, fault: str) -> None:
        """Let the engine go wrong as it starts, before it sees an image; "" fixes it."""
        (self.models / START_FILE).unlink(missing_ok=True)
        if fault:
            (self.models / START_FILE).write_text(fault)

    def go(self) -> None:
        """Let the prompt "waits" go on."""
        (self.models / GO_FILE).touch()

    def starts(self) -> int:
        """How many processes the engine was, or started."""
        return len(self._noted(PROCESSES_FILE))

    def wait_until_all_have_ended(self) -> None:
        """Fails the test if a process of the engine is left over, but for strays."""
        numbers = self._noted(PROCESSES_FILE)
        wait_for(lambda: not any(map(is_running, numbers)), "the processes' end")

    def end_all(self) -> None:
        """Whatever is left."""
        for number in self._noted(PROCESSES_FILE) + self._noted(STRAYS_FILE):
            if is_running(number):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    def holds_what_was_asked(self, picture: str) -> bool:
        """Whether a picture's pixels are those of the request it says it was made from."""
        with Image.open(self.outbox / picture) as image:
            pixels = image.convert("RGB").tobytes()
        return pixels == digest_pixels(self.chunk(picture).request)

    def _noted(self, file_name: str) -> list[int]:
        file = self.models / file_name
        return [int(line) for line in file.read_text().split()] if file.exists() else []


def is_running(number: int) -> bool:
    """False for a process that is gone, or dead and not yet collected by the system."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")
    with suppress(OSError):
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    return not Path("/proc/self").exists()
