"""A real cron daemon, with crontabs of its own in a mount namespace of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.documents.test_shown_commands import CRON, crontab_lines
from tests.editors.desk import desk_of
from tests.house import House, wait_for
from tests.test_docs import PROJECT

JOBS = 5
# Nothing of the machine's own cron is seen or changed: not its jobs, nor its lock in /run.
PRIVATE = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/spool/cron
mkdir /var/spool/cron/crontabs
mount -t tmpfs tmpfs /etc/cron.d
mount --bind "$0" /etc/crontab
exec cron -f -L 0
"""


def test_cron_jobs_make_one_run_each(house: House) -> None:
    """Several in the same second, when cron starts."""
    _skip_if_impossible()
    at_once = [f"boot{number}.txt" for number in range(JOBS)]
    lines = [f'@reboot root date >> "{house.inbox}/{name}"' for name in at_once]
    with desk_of(house) as desk:
        with _cron(house.folder / "crontab", lines):
            for name in at_once:
                wait_for((house.inbox / name).exists, name)
                desk.expect_run(name, _date(house.inbox / name))
        desk.expect_nothing_more()


def test_the_jobs_of_the_docs_are_what_cron_understands(tmp_path: Path) -> None:
    """docs/cron.md's lines for a running picowatch, at another time."""
    _skip_if_impossible()
    folder = tmp_path / "picowatch"
    folder.mkdir()
    house = House(folder)
    shutil.copytree(PROJECT / "examples", folder / "examples")
    house.save("morning.txt", "a {red|green} star\n")
    jobs = [command for command in crontab_lines(CRON) if "cd " not in command]
    with house.running():
        wait_for(lambda: house.pictures("morning"), "the picture before")
        lines = [f"HOME={tmp_path}", *(f"@reboot root {command}" for command in jobs)]
        with _cron(tmp_path / "crontab", lines):
            wait_for(lambda: len(house.pictures("morning")) > 1, "another picture")
            wait_for(lambda: house.pictures("weekday"), "the weekday's picture")


def _date(path: Path) -> str:
    wait_for(lambda: path.read_text().endswith("\n"), "the job's output")
    return path.read_text().strip()


@contextmanager
def _cron(crontab: Path, lines: list[str]) -> Iterator[None]:
    crontab.write_text("\n".join(["SHELL=/bin/sh", "PATH=/usr/bin:/bin", 'MAILTO=""', *lines, ""]))
    crontab.chmod(0o600)
    process = subprocess.Popen(["unshare", "--mount", "sh", "-c", PRIVATE, crontab])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _skip_if_impossible() -> None:
    if not shutil.which("cron"):
        pytest.skip("cron is not installed")
    if os.geteuid() != 0:
        pytest.skip("cron is started by root alone")
    trial = subprocess.run(["unshare", "--mount", "true"], capture_output=True)
    if trial.returncode != 0:
        pytest.skip("a mount namespace (unshare --mount) is not permitted here")
