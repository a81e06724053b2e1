"""The daemon's waits are shorter in tests: what a test waits for comes with the next round.

A test of such a wait sets its own.
"""

from collections.abc import Callable
from importlib import import_module

AT_TESTS_PACE = "AT_TESTS_PACE"  # the variable for processes: benchmarks keep users' pace
_RETRYING = ("files.essential", "daemon.accept", "daemon.run", "daemon.settings_file")
PACE = {
    "daemon.round.IDLE_SECONDS": 0.05,
    "daemon.round.WORKING_SECONDS": 0.1,
    "daemon.status.HEARTBEAT_SECONDS": 0.5,
    "daemon.status.REPORT_SECONDS": 0.1,
    "daemon.supervise.LOCK_SECONDS": 0.1,
    "daemon.worker.RESTART_SECONDS": 0.01,
    **{f"{module}.RETRY_SECONDS": 0.05 for module in (*_RETRYING, "daemon.supervise")},
    "inbox.inbox.SCAN_SECONDS": 0.5,
    "inbox.settle.PICTURE_PATIENCE": 2,
    "commands.make.POLL_SECONDS": 0.05,
    "outbox.commands.POLL_SECONDS": 0.02,
}


def set_pace(set_value: Callable[[object, str, float], object] = setattr) -> None:
    for name, value in PACE.items():
        module, _, constant = name.rpartition(".")
        set_value(import_module(f"picowatch.{module}"), constant, value)
