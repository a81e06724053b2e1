"""What else happens in a storm, as a table of probabilities, drawn twice a second.

What the user's hands do changes what must be there at the end, and tests/storm/user.py knows how.
What happens to the computer is over when its function returns. No kill comes meanwhile where a
start would make a folder in the place to which the storm has yet to move one back.
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
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Protocol

from PIL import Image

from picowatch.outbox.commands import Command, send
from tests.storm.user import User, listed

MAKE_SECONDS = 120.0
RESTORE_SECONDS = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


class Process(Protocol):
    """picowatch, which is started again whenever it ended."""

    def end_by(self, number: int) -> None: ...

    def restart(self, meanwhile: Callable[[], None]) -> None: ...

    def is_up(self) -> bool: ...


@dataclass
class Storm:
    """What disturbances meet."""

    user: User
    picowatch: Process
    dice: random.Random
    no_kills: threading.Lock = field(default_factory=threading.Lock)
    no_renames: threading.Lock = field(default_factory=threading.Lock)
    problems: list[str] = field(default_factory=list)
    happened: dict[str, int] = field(default_factory=dict)
    pause: threading.Event = field(default_factory=threading.Event)

    @property
    def outbox(self) -> Path:
        return self.user.house.outbox

    @property
    def ledger(self) -> Path:
        return self.outbox / ".picowatch/ledger.sqlite"

    def wait(self, most: float) -> None:
        self.pause.wait(self.dice.uniform(0, most))


def start_image() -> bytes:
    """The start image of the storm."""
    buffer = BytesIO()
    Image.new("RGB", (64, 64), (9, 90, 200)).save(buffer, "PNG")
    return buffer.getvalue()


def end_by_signal(storm: Storm) -> None:
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
    folder = storm.user.inbox / "pets"
    if os.getuid() and folder.is_dir():
        folder.chmod(0)
        storm.wait(1.0)
        folder.chmod(0o755)


def ledger_locked(storm: Storm) -> None:
    """By another program, for a second."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(storm.ledger, timeout=0.2)) as ledger:
        ledger.execute("BEGIN EXCLUSIVE")
        storm.wait(1.0)
        ledger.rollback()


def ledger_deleted(storm: Storm) -> None:
    """While picowatch runs, or between two runs."""
    _lose(storm, lambda: storm.ledger.unlink(missing_ok=True))


def ledger_damaged(storm: Storm) -> None:
    """Its first page, while picowatch runs or between two runs."""

    def damage() -> None:
        with suppress(OSError), storm.ledger.open("r+b") as file:
            file.write(b"x" * 4096)

    _lose(storm, damage)


def state_deleted(storm: Storm) -> None:
    """`.picowatch/` with everything in it."""
    _lose(storm, lambda: shutil.rmtree(storm.ledger.parent, ignore_errors=True))


def _lose(storm: Storm, lose: Callable[[], None]) -> None:
    """A rename is rendered again if the ledger is lost before the rename is recorded."""
    with storm.no_kills, storm.no_renames:
        storm.user.ledger_is_lost()
        if storm.dice.random() < 0.5:
            storm.picowatch.restart(meanwhile=lose)
        elif storm.picowatch.is_up():
            lose()
        deadline = time.monotonic() + RESTORE_SECONDS
        while not (storm.picowatch.is_up() and storm.ledger.exists()):
            if time.monotonic() > deadline:
                storm.problems.append(f"no new ledger after {RESTORE_SECONDS:.0f} s")
                return
            storm.wait(0.05)


def cancel(storm: Storm) -> None:
    """One recipe's images; a new ledger may not know of it."""
    name = storm.user.cancel()
    if name is not None:
        with suppress(OSError):
            send(storm.outbox, Command("cancel", name))


def pause_and_resume(storm: Storm) -> None:
    """Kills and starts in between change nothing."""
    command(storm, "pause")
    storm.wait(1.5)
    command(storm, "resume")


def retry(storm: Storm) -> None:
    """Where nothing failed it does nothing."""
    command(storm, "retry")


def command(storm: Storm, name: str) -> None:
    """A command that nobody waits for."""
    with suppress(OSError):
        send(storm.outbox, Command(name))


def status_in_a_loop(storm: Storm) -> None:
    """Beside whatever is killed and started meanwhile."""
    options = [f"--{name}={storm.user.house.folder / name}" for name in ("inbox", "outbox")]
    for _ in range(3):
        subprocess.run(
            [sys.executable, "-m", "picowatch", "status", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )


def make_beside_a_crash(storm: Storm) -> None:
    """It takes the place of the daemon, which comes back meanwhile."""
    recipe = storm.user.write_for_make()
    command = [sys.executable, "-m", "tests.storm.make", str(storm.user.house.folder), str(recipe)]
    with storm.no_kills:
        make = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        storm.wait(1.0)
        storm.picowatch.restart(meanwhile=lambda: storm.wait(1.0))
    try:
        make.wait(MAKE_SECONDS)
    except subprocess.TimeoutExpired:
        make.kill()
        make.wait()
        storm.problems.append(f"`picowatch make {recipe.name}` lasted over {MAKE_SECONDS:.0f} s")


def damage_a_picture(storm: Storm) -> None:
    """One that a contact sheet may need; whole again soon."""
    found = [str(line["file"]) for line in listed(storm.user.house)]
    grids = [file for file in found if file.startswith("grids/") and "-sheet" not in file]
    if not grids:
        return
    picture = storm.outbox / storm.dice.choice(grids)
    whole = picture.read_bytes()
    picture.write_bytes(whole[:100] + b"x" * 100)
    storm.wait(0.5)
    picture.write_bytes(whole)


def unless_lost(rename: Callable[[User], None]) -> Callable[[Storm], None]:
    """The rename, except while the ledger is being lost."""

    def act(storm: Storm) -> None:
        if storm.no_renames.acquire(blocking=False):
            try:
                rename(storm.user)
            finally:
                storm.no_renames.release()

    return act


@dataclass(frozen=True)
class Disturbance:
    """One line of the table."""

    name: str
    probability: float
    happen: Callable[[Storm], None]


HANDS = (
    Disturbance("rename", 0.05, unless_lost(User.rename)),
    Disturbance("touch", 0.05, lambda storm: storm.user.touch_random()),
    Disturbance("saved in 2400", 0.02, lambda storm: storm.user.save_in_2400()),
    Disturbance("grid", 0.03, lambda storm: storm.user.save_grid()),
    Disturbance(
        "no start image", 0.02, lambda storm: storm.user.save_before_its_start_image(start_image())
    ),
    Disturbance(
        "start image", 0.05, lambda storm: storm.user.show_or_hide_start_image(start_image())
    ),
    Disturbance("cancel", 0.03, cancel),
    Disturbance("picture", 0.3, lambda storm: storm.user.drop_picture()),
    Disturbance("picture replaced", 0.05, lambda storm: storm.user.replace_picture()),
    Disturbance("picture renamed", 0.05, unless_lost(User.rename_picture)),
    Disturbance("picture deleted", 0.03, lambda storm: storm.user.delete_picture()),
    Disturbance("_defaults.yaml", 0.05, lambda storm: storm.user.save_defaults()),
)

COMPUTER = (
    Disturbance("signal", 0.05, end_by_signal),
    Disturbance("outbox away", 0.05, outbox_away),
    Disturbance("unreadable folder", 0.05, folder_unreadable),
    Disturbance("locked ledger", 0.05, ledger_locked),
    Disturbance("ledger deleted", 0.01, ledger_deleted),
    Disturbance("ledger damaged", 0.01, ledger_damaged),
    Disturbance(".picowatch deleted", 0.01, state_deleted),
    Disturbance("pause", 0.05, pause_and_resume),
    Disturbance("retry", 0.05, retry),
    Disturbance("status", 0.03, status_in_a_loop),
    Disturbance("make beside a crash", 0.02, make_beside_a_crash),
    Disturbance("damaged picture", 0.05, damage_a_picture),
)

# What the log may say of them, though it would be a finding otherwise.
EXPECTED = (
    "late/",  # a start image that is not there
    "is damaged",
    "unreadable",
    "cannot be read",
    "; waiting",
    "Trying again every minute",
)


def disturb(storm: Storm, table: tuple[Disturbance, ...]) -> None:
    """Whatever is drawn."""
    for disturbance in table:
        if storm.dice.random() < disturbance.probability:
            storm.happened[disturbance.name] = storm.happened.get(disturbance.name, 0) + 1
            disturbance.happen(storm)
