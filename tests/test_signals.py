"""Signals that end picowatch."""

import subprocess
import sys

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


def test_events_are_not_set_in_the_main_thread() -> None:
    """It may hold an event's lock when a signal comes: one of 40 ends under load hung so."""
    output = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True, timeout=120)
    assert output == "set by signals\nset by signals\nTrue True\n"
