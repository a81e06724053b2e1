"""The unit in contrib/ is one that systemd accepts, and fits what picowatch does."""

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from picowatch.daemon.status import HEARTBEAT_SECONDS
from picowatch.errors import OutboxInUse, SettingsInvalid
from picowatch.files.retry import Ended, Retry
from tests.house import PATIENCE, House

UNIT = Path(__file__).parents[2] / "contrib/picowatch.service"


def value(name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found, name
    return found[1]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with a program and a user that exist on this machine."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text().replace("/opt/picowatch/bin/picowatch", sys.executable)
    unit = tmp_path / "picowatch.service"
    unit.write_text(text.replace("User=picowatch", "User=daemon"))
    return unit


@pytest.mark.parametrize("manager", ["--system", "--user"])
def test_systemd_accepts_the_unit(installed: Path, manager: str) -> None:
    """Without a word; the system's, and the one of a user's own service manager."""
    if manager == "--user":
        text = UNIT.with_name("picowatch-user.service").read_text()
        installed.write_text(text.replace("/opt/picowatch/bin/picowatch", sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", manager, installed],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_RUNTIME_DIR": str(installed.parent)},
    )
    if "Failed to" in verified.stderr:
        pytest.skip(f"systemd-analyze cannot work here: {verified.stderr.strip()}")
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_unit_is_hardened(installed: Path) -> None:
    """By systemd's own measure, from 10 (nothing) to 0: below 4."""
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", installed],
        capture_output=True,
        text=True,
    )
    found = re.search(r"exposure level for \S+: ([\d.]+)", rated.stdout)
    if not found:
        pytest.skip(f"systemd-analyze rates no file here: {rated.stderr.strip()}")
    assert float(found[1]) < 4


def test_both_units_end_and_restart_it_in_the_same_way() -> None:
    """Whatever the one says of the process, the other does too."""
    texts = (UNIT.read_text(), UNIT.with_name("picowatch-user.service").read_text())
    names = "Type|ExecStart|Restart|RestartSec|RestartPreventExitStatus|WatchdogSec|TimeoutStopSec"
    more = "KillMode|OOMPolicy|StartLimitIntervalSec"
    system, user = (
        set(re.findall(rf"^(?:{names}|{more})=.*$", text, re.MULTILINE)) for text in texts
    )
    assert len(system) == 10
    assert system == user


def test_systemd_leaves_it_alone_when_the_kernel_kills_its_engine() -> None:
    """Otherwise all of the unit is ended where memory ran out in one of its processes."""
    assert value("OOMPolicy") == "continue"


def test_models_are_compiled_into_the_folder_that_systemd_makes() -> None:
    """The only place besides the user's folders that it may write."""
    assert value("CacheDirectory") == "picowatch"
    assert value("Environment").split() == ["XDG_CACHE_HOME=%C", "HOME=%C/picowatch"]


def test_the_watchdog_is_slower_than_the_heartbeat() -> None:
    """A busy machine may be late a few times."""
    assert float(value("WatchdogSec")) >= 5 * HEARTBEAT_SECONDS


def test_what_trying_again_does_not_help_is_not_tried_again() -> None:
    """Wrong settings, and another picowatch."""
    codes = {str(SettingsInvalid.exit_code), str(OutboxInUse.exit_code)}
    assert set(value("RestartPreventExitStatus").split()) == codes


def test_a_start_that_builds_a_ledger_gives_signs_of_life(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of a million pictures takes minutes."""
    house.save("a.txt", "a star\n")
    assert house.once()
    (house.outbox / ".picowatch/ledger.sqlite").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.fspath(house.folder / "notify"))
        manager.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(house.folder / "notify"))
        assert house.once()
        assert manager.recv(1000) == b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"


def test_a_start_that_waits_for_the_disk_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manager would end it otherwise, and the next start as well."""
    ended = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.fspath(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(tmp_path / "notify"))
        monkeypatch.setattr("picowatch.files.retry.RETRY_SECONDS", 0.01)
        retry = Retry(ended, tmp_path, keeps_trying=True)

        def full() -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def start() -> None:
            with suppress(Ended):
                retry.until_done(full)

        thread = threading.Thread(target=start)
        thread.start()
        told = [manager.recv(1000) for _ in range(2)]
        ended.set()
        thread.join()
    assert told == [b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"] * 2
