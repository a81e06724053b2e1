"""What happens to the computer in a storm, as a table of probabilities, drawn every half second.

It is over when its function returns. No kill comes meanwhile where a start would make a folder in
the place to which the storm has yet to move one back.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL

from picowatch.outbox.commands import Command, send
from tests.storm.picowatch import Picowatch
from tests.storm.user import User

MAKE_SECONDS = 120.0
RESTORE_SECONDS = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


@dataclass
class Storm:
    """What disturbances meet."""

    user: User
    picowatch: Picowatch
    dice: random.Random
    no_kills: threading.Lock = field(default_factory=threading.Lock)
    problems: list[str] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    pause: threading.Event = field(default_factory=threading.Event)

    @property
    def outbox(self) -> Path:
        return self.user.house.outbox

    def wait(self, most: float) -> None:
        self.pause.wait(self.dice.uniform(0, most))

    def disturb(self) -> None:
        """Whatever is drawn."""
        for happen, probability in TABLE.items():
            if self.dice.random() < probability:
                self.happened[happen.__name__] += 1
                happen(self)

    def send(self, name: str) -> None:
        """A command that nobody waits for."""
        with suppress(OSError):
            send(self.outbox, Command(name))


def signalled(storm: Storm) -> None:
    """As service managers, terminals and people do."""
    with storm.no_kills:
        storm.picowatch.end_by(storm.dice.choice(SIGNALS))


def outbox_away(storm: Storm) -> None:
    """Moved elsewhere and back; a picowatch that starts meanwhile would make another one."""
    with storm.no_kills:
        if not storm.picowatch.is_up():
            return
        elsewhere = storm.outbox.with_name("elsewhere")
        storm.outbox.rename(elsewhere)
        storm.wait(1.0)
        elsewhere.rename(storm.outbox)


def folder_unreadable(storm: Storm) -> None:
    """Root reads it all the same."""
    folder = storm.user.house.inbox / "pets"
    if os.getuid() and folder.is_dir():
        folder.chmod(0)
        storm.wait(1.0)
        folder.chmod(0o755)


def ledger_locked(storm: Storm) -> None:
    """By another program, for a second."""
    path = storm.outbox / ".picowatch/ledger.sqlite"
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=0.2)) as ledger:
        ledger.execute("BEGIN EXCLUSIVE")
        storm.wait(1.0)
        ledger.rollback()


def state_lost(storm: Storm) -> None:
    """The ledger, its first page, or all of `.picowatch/`; at work, or between two runs."""
    ledger = storm.outbox / ".picowatch/ledger.sqlite"

    def damage() -> None:
        with suppress(OSError), ledger.open("r+b") as file:
            file.write(b"x" * 4096)

    lose: Callable[[], None] = storm.dice.choice(
        (
            lambda: ledger.unlink(missing_ok=True),
            damage,
            lambda: shutil.rmtree(ledger.parent, ignore_errors=True),
        )
    )
    with storm.no_kills:
        storm.user.ledger_is_lost()
        if storm.dice.random() < 0.5:
            storm.picowatch.restart(meanwhile=lose)
        elif storm.picowatch.is_up():
            lose()
        deadline = time.monotonic() + RESTORE_SECONDS
        while not (storm.picowatch.is_up() and ledger.exists()):
            if time.monotonic() > deadline:
                storm.problems.append(f"no new ledger after {RESTORE_SECONDS:.0f} s")
                return
            storm.wait(0.05)


def paused(storm: Storm) -> None:
    """Kills and starts in between change nothing; where nothing failed a retry does nothing."""
    storm.send("pause")
    storm.wait(1.5)
    storm.send("retry")
    storm.send("resume")


def status_asked(storm: Storm) -> None:
    """Beside whatever is killed and started meanwhile."""
    subprocess.run(_command(storm, "status"), stdout=DEVNULL, stderr=DEVNULL, check=False)


def make_beside_a_crash(storm: Storm) -> None:
    """It takes the place of the daemon, which comes back meanwhile."""
    recipe = storm.user.write_for_make()
    with storm.no_kills:
        make = subprocess.Popen([*_command(storm, "make"), recipe], stdout=DEVNULL, stderr=DEVNULL)
        storm.wait(1.0)
        storm.picowatch.restart(meanwhile=lambda: storm.wait(1.0))
    try:
        make.wait(MAKE_SECONDS)
    except subprocess.TimeoutExpired:
        make.kill()
        make.wait()
        storm.problems.append(f"`picowatch make {recipe.name}` lasted over {MAKE_SECONDS:.0f} s")


def _command(storm: Storm, name: str) -> list[str]:
    """A command of picowatch's on the storm's folders and engine."""
    folders = ("inbox", "outbox", "models") if name == "make" else ("inbox", "outbox")
    options = [f"--{one}={storm.user.house.folder / one}" for one in folders]
    return [sys.executable, "-m", "tests.commands.digests", name, *options]


TABLE: dict[Callable[[Storm], None], float] = {
    signalled: 0.05,
    outbox_away: 0.05,
    folder_unreadable: 0.05,
    ledger_locked: 0.05,
    state_lost: 0.03,
    paused: 0.05,
    status_asked: 0.03,
    make_beside_a_crash: 0.02,
}

# What the log may say of them, though it would be a finding otherwise.
EXPECTED = (
    "is damaged",
    "unreadable",
    "cannot be read",
    "; waiting",
    "Trying again every minute",
)
