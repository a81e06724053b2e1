"""The file of trials beside a compiled package: whether the package may be tried.

A package may end the process that tries it, and so may anything else meanwhile: a pause, a kill, a
lack of memory. So each trial appends a dot before it begins. The dot of one that did not end keeps
others away for an hour, so that the image which the engine died on is rendered without the package.
After three dots the package is no longer tried, nor after a trial that ended with a reason, which
is longer. Success empties the file.
"""

import time
from contextlib import suppress
from fcntl import LOCK_EX, flock
from pathlib import Path

MOST_TRIALS = 3
PAUSE_SECONDS = 3600.0


def begin_trial(trials: Path) -> bool:
    """Note that a trial begins; False if the package may not be tried now, or the disk is full."""
    with suppress(OSError), trials.open("a") as file:
        flock(file, LOCK_EX)  # one engine looks at a time
        found = trials.stat()
        is_recent = abs(time.time() - found.st_mtime) < PAUSE_SECONDS
        if found.st_size >= MOST_TRIALS or (found.st_size and is_recent):
            return False
        file.write(".")
        return True
    return False
