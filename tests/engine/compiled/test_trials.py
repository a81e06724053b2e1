"""The file of trials beside a compiled package: trials that did not end, engines that share it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from picowatch.engine.compiled.trials import MOST_TRIALS, PAUSE_SECONDS, begin_trial

_DYING = """
import os, signal, sys
from pathlib import Path
from picowatch.engine.compiled.trials import begin_trial
assert begin_trial(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def die_in_a_trial(path: Path) -> None:
    """An engine that is killed while it tries a package."""
    ended = subprocess.run([sys.executable, "-c", _DYING, str(path)])
    assert ended.returncode == -signal.SIGKILL


def may_be_tried(path: Path) -> bool:
    allowed = begin_trial(path)
    if allowed:
        path.write_text("")
    return allowed


def later(path: Path) -> None:
    """The last trial was more than the pause ago."""
    long_ago = time.time() - PAUSE_SECONDS - 1
    os.utime(path, (long_ago, long_ago))


def test_a_kill_while_loading_loses_no_package(tmp_path: Path) -> None:
    """It is not tried again at once, in case the package was the cause, but later."""
    path = tmp_path / "a.trials"
    die_in_a_trial(path)
    assert not may_be_tried(path)
    later(path)
    assert may_be_tried(path)
    assert may_be_tried(path)


def test_a_package_that_ends_each_process_is_given_up(tmp_path: Path) -> None:
    """After the third."""
    path = tmp_path / "a.trials"
    for _ in range(MOST_TRIALS):
        die_in_a_trial(path)
        later(path)
    assert not may_be_tried(path)


def test_one_engine_tries_at_a_time(tmp_path: Path) -> None:
    """The other one renders without the package meanwhile, and neither spoils the other's trial."""
    path = tmp_path / "a.trials"
    assert begin_trial(path)
    assert not begin_trial(path)
    path.write_text("")
    assert may_be_tried(path)


def test_a_reason_stays(tmp_path: Path) -> None:
    """However old it is."""
    path = tmp_path / "a.trials"
    path.write_text("gives different results")
    later(path)
    assert not may_be_tried(path)
