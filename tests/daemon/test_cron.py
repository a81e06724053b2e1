"""Thirty days of cron jobs as people write them, on clocks that faketime moves from day to day."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands.picowatch import clean_environment
from tests.daemon.processes import process
from tests.house import House, wait_for

DAYS = 30
# What each morning does in a folder of its own, where `elsewhere` has a recipe for each day.
JOBS = {
    "dated": 'echo "a red star" > $(date +%F).txt',
    "removed": 'rm -f *.txt; echo "a red star" > $(date +%F).txt',
    "written": 'echo "a red star" > today.txt',
    "touched": "touch prompts.txt",
    "appended": 'echo "a red star" >> prompts.txt',
    "moved": "mv ../../elsewhere/moved-$(date +%F).txt .",
    "taken": "rm -f *.txt; mv ../../elsewhere/taken-$(date +%F).txt .",
    "replaced": "mv ../../elsewhere/replaced-$(date +%F).txt today.txt",
}
PREPARED = 'echo "a red star" > ../elsewhere/{0}-$(date +%F).txt; cd {0}; {1}; cd ..'
MORNING = "\n".join(PREPARED.format(job, line) for job, line in JOBS.items())
pytestmark = pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")


class Calendar:
    """Dates for processes: a file says how many days after the real one they live."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "days"
        self.turn(0)

    def turn(self, day: int) -> None:
        self._file.write_text(f"+{day}d\n")

    @property
    def prefix(self) -> list[str]:
        """Return what stands before a command that is to live on these days.

        faketime itself would stay as the command's parent, which a kill of the command misses.
        """
        library = ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"]
        names = {
            "LD_PRELOAD": subprocess.check_output(library, text=True).strip(),
            "FAKETIME_TIMESTAMP_FILE": self._file,
            "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
            "FAKETIME_FORCE_MONOTONIC_FIX": 0,  # else waits last seconds longer
            "NO_FAKE_STAT": 1,
        }
        values = [f"{name}={value}" for name, value in names.items()]
        return ["env", *values]


@pytest.fixture
def calendar(tmp_path: Path) -> Iterator[Calendar]:
    """A process that is killed leaves a semaphore, which another one of its number would need."""
    remove_semaphores()
    yield Calendar(tmp_path)
    remove_semaphores()


def remove_semaphores() -> None:
    for left in Path("/dev/shm").glob("*faketime*"):
        left.unlink(missing_ok=True)


def a_month_of_mornings(house: House, calendar: Calendar) -> Iterator[int]:
    """Do all jobs each morning, and check the pictures of the evening before."""
    for job in JOBS:
        (house.inbox / job).mkdir()
    house.save("touched/prompts.txt", "a red star\n")
    (house.folder / "elsewhere").mkdir()
    for day in range(DAYS):
        calendar.turn(day)
        shell = [*calendar.prefix, "sh", "-ec", MORNING]
        subprocess.run(shell, cwd=house.inbox, check=True)
        yield day + 1
        assert pictures(house) == dict.fromkeys(JOBS, day + 1)


def pictures(house: House) -> dict[str, int]:
    return {job: len(house.pictures(job)) for job in JOBS}


@contextmanager
def cron(house: House, calendar: Calendar) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [*calendar.prefix, sys.executable, "-m", "tests.daemon.cron_host", str(house.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
        text=True,
    ) as host:
        yield host


def test_each_morning_s_run_makes_each_job_s_picture(house: House, calendar: Calendar) -> None:
    """`run --once` from cron."""
    with cron(house, calendar) as host:
        assert host.stdin and host.stdout
        for _ in a_month_of_mornings(house, calendar):
            host.stdin.write("run\n")
            host.stdin.flush()
            assert host.stdout.readline() == "0\n"
    assert house.error("dated") is None


def test_a_daemon_makes_each_morning_s_pictures(house: House, calendar: Calendar) -> None:
    """It notices the deletion and the new file in either order."""
    with process(house, *calendar.prefix, PICOWATCH_BATCH_SIZE="8"):
        for day in a_month_of_mornings(house, calendar):
            wait_for(lambda: min(pictures(house).values()) >= day, f"day {day}")  # noqa: B023
