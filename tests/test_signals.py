"""Signals that end picowatch."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
# In a process of its own: handlers of signals stay.
PROGRAM = """
import os, signal, threading
from picowatch.signals import ended_by_signals

class Event(threading.Event):
    def set(self):
        print("set by", threading.current_thread().name)
        super().set()

stop, wake = Event(), Event()
with ended_by_signals(stop, wake) as signals:
    os.kill(os.getpid(), signal.SIGTERM)
    assert wake.wait(60)
    print(stop.is_set(), signals == [signal.SIGTERM])
"""

# What a shell does to what it starts in the background.
IN_THE_BACKGROUND = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import tests.conftest
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_events_are_not_set_in_the_main_thread() -> None:
    """It may hold an event's lock when a signal comes: one of 40 ends under load hung so."""
    output = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True, timeout=120)
    assert output == "set by signals\nset by signals\nTrue True\n"


def test_tests_in_the_background_are_interrupted_like_others() -> None:
    """And so are the programs that they start, and send Ctrl-C: they would wait for minutes."""
    command = [sys.executable, "-c", IN_THE_BACKGROUND]
    output = subprocess.check_output(command, text=True, timeout=120, cwd=PROJECT)
    assert output == "True\n"
