"""systemd accepts the units in contrib/, and they fit what picowatch does."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from picowatch.daemon.status import HEARTBEAT_SECONDS
from picowatch.errors import OutboxInUse, SettingsInvalid
from tests.house import PATIENCE, House

UNIT = Path(__file__).parents[2] / "contrib/picowatch.service"
OF_A_USER = UNIT.with_name("picowatch-user.service")
ALIVE = b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"


def value(name: str, unit: Path = UNIT) -> str:
    found = re.search(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)
    assert found, name
    return found[1]


@pytest.mark.parametrize(("manager", "unit"), [("--system", UNIT), ("--user", OF_A_USER)])
def test_systemd_accepts_the_unit(tmp_path: Path, manager: str, unit: Path) -> None:
    """There is no warning, and systemd rates the exposure below 4, from 10 (unprotected) to 0."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    text = unit.read_text().replace("/opt/picowatch/bin/picowatch", sys.executable)
    file = tmp_path / "picowatch.service"
    file.write_text(text.replace("User=picowatch", "User=daemon"))

    def analyzed(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["systemd-analyze", *words, file],
            capture_output=True,
            text=True,
            env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        )

    verified = analyzed("verify", "--man=no", manager)
    if "Failed to" in verified.stderr:
        pytest.skip(f"systemd-analyze cannot work here: {verified.stderr.strip()}")
    assert (verified.returncode, verified.stderr) == (0, "")
    if unit == UNIT:
        rated = analyzed("security", "--offline=true", "--no-pager")
        found = re.search(r"exposure level for \S+: ([\d.]+)", rated.stdout)
        if not found:
            pytest.skip(f"systemd-analyze rates no file here: {rated.stderr.strip()}")
        assert float(found[1]) < 4


def test_both_units_end_and_restart_it_in_the_same_way() -> None:
    names = "Type ExecStart Restart RestartSec RestartPreventExitStatus WatchdogSec TimeoutStopSec"
    for name in (*names.split(), "KillMode", "OOMPolicy", "StartLimitIntervalSec"):
        assert value(name) == value(name, OF_A_USER), name


def test_the_unit_fits_the_program() -> None:
    """It names writable folders, exit codes without a restart, and a patient watchdog."""
    assert value("OOMPolicy") == "continue", "else one process out of memory ends all of the unit"
    assert value("CacheDirectory") == "picowatch"
    assert value("Environment").split() == ["XDG_CACHE_HOME=%C", "HOME=%C/picowatch"]
    assert float(value("WatchdogSec")) >= 5 * HEARTBEAT_SECONDS
    codes = {str(SettingsInvalid.exit_code), str(OutboxInUse.exit_code)}
    assert set(value("RestartPreventExitStatus").split()) == codes


def test_systemd_is_notified(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alive while a ledger is built, which may take minutes, then ready, alive and stopping."""
    house.outbox.mkdir()
    (house.outbox / "images.jsonl").write_text('{"file": "a/0001-1.png"}\n')
    address = os.fspath(house.folder / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(PATIENCE)
        with house.running():
            told = [manager.recv(1000) for _ in range(3)]
        while not told[-1].startswith(b"STOPPING"):
            told.append(manager.recv(1000))
    assert told[:3] == [ALIVE, b"READY=1", b"WATCHDOG=1\nSTATUS=nothing is running; 0 images wait"]
