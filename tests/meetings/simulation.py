"""Runs all of picowatch step by step, one thread at a time, on a simulated clock.

`simulated` replaces everything that can wait (threads, locks, events, futures, clocks) in all of
picowatch's modules. At each wait another thread may continue, which dice choose. If all threads
wait, the clock jumps to the time at which the next one wakes up. So an hour of waiting takes no
time, and the same dice repeat the same run.

A simulated SIGKILL ends every thread where it is (`Killed`). What they do while they unwind must
not reach the disk: see `machine.py`.
"""

import concurrent.futures
import random
import secrets
import sys
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from picowatch.inbox.watch import Watch
from tests.digest_engine import DigestEngine

MOST_STEPS = 20_000  # in a while: more is a thread that never rests
A_WHILE = 0.05  # seconds
LEAST_WAIT = 1e-6
HALTS = (0.01, 0.1, 0.1, 0.5, 2.0)  # seconds
REAL_SECONDS = 100.0  # that a thread may compute for
START = 1_000.0  # what the steady clock says first
WALL_START = 1_800_000_000.0


class Killed(BaseException):
    """The simulated process died; nothing may catch this."""


class NeverRests(AssertionError):
    """A thread never waits for anything."""


class Simulation:
    """The threads of one simulated machine, and its clock."""

    current: "Simulation"  # the one that is on stage; see `simulated`

    def __init__(
        self, dice: random.Random, switching: float = 0, slowness: float = 0, halting: float = 0
    ) -> None:
        """Take dice, and how often threads switch at places that do not wait (`switching`).

        `slowness`: seconds that pass before a thread has read the clock. `halting`: how often a
        thread halts at such a place for a while, so that the user acts in the middle of anything.
        """
        self.dice = dice
        self.now = START
        self.wall_ahead = WALL_START - START
        self.switching = switching
        self.slowness = slowness
        self.halting = halting
        self.threads: list[Thread] = []
        self.watches: list[Watch] = []  # of the inbox; the simulated user wakes the last one
        self.running: Thread | None = None
        self.dead = False
        self.on_death: Callable[[], None] = lambda: None
        self.escaped: list[str] = []  # errors that ended a thread
        self.back = allocate_lock()
        self.back.acquire()

    # -- clocks, as threads read them

    def monotonic(self) -> float:
        if self.running is not None:
            self.now += self.slowness
        return self.now

    def wall(self) -> float:
        return self.now + self.wall_ahead

    # -- for the threads

    def pause(self, ready: Callable[[], bool], seconds: float | None = None) -> bool:
        """Let other threads run until `ready` or for this long; return whether it is ready."""
        thread = self.running
        if thread is None:
            return self.run(ready, seconds)
        if self.dead:
            raise Killed
        if ready() and not self._switches():
            return True
        thread.ready = ready
        # Waiting takes some time, however short: with floats now + 1e-13 may be now.
        thread.wakes_at = None if seconds is None else self.now + max(seconds, LEAST_WAIT)
        self.back.release()
        thread.baton.acquire()
        if self.dead:
            raise Killed
        return ready()

    def _switches(self) -> bool:
        return self.switching > 0 and self.dice.random() < self.switching

    def sleep(self, seconds: float) -> None:
        self.pause(lambda: False, seconds)

    def switch(self) -> None:
        """Let another thread continue, perhaps, or some time pass."""
        if self.running is None or self.dead:
            return
        if self.halting and self.dice.random() < self.halting:
            self.sleep(self.dice.choice(HALTS))
        elif self._switches():
            self.pause(lambda: True)

    def die(self) -> None:
        self.on_death()
        self.dead = True
        raise Killed

    # -- for who holds the strings

    def run(self, until: Callable[[], bool], seconds: float | None = None) -> bool:
        """Let threads run until the condition holds, or for this many seconds."""
        deadline = None if seconds is None else self.now + seconds
        steps, since = 0, self.now
        while not until():
            if self.dead:
                return False
            steps += 1
            if steps > MOST_STEPS:
                raise NeverRests(f"{MOST_STEPS} steps without rest: {self.names()}")
            ready = [thread for thread in self.threads if thread.goes_on(self.now)]
            if ready:
                self._resume(ready[0] if len(ready) == 1 else self.dice.choice(ready))
                continue
            wakes = [thread.wakes_at for thread in self.threads if thread.wakes_at is not None]
            wake = min(wakes, default=None)
            if deadline is not None and (wake is None or wake > deadline):
                self.now = deadline
                return until()
            if wake is None:
                raise NeverRests(f"nothing will ever happen: {self.names()}")
            self.now = max(self.now, wake)
            if self.now - since > A_WHILE:
                steps, since = 0, self.now
        return True

    def kill(self) -> None:
        if not self.dead:
            self.on_death()
            self.dead = True
        for _ in range(MOST_STEPS):
            if not self.threads:
                return
            self._resume(self.threads[0])
        raise NeverRests(f"survived being killed: {self.names()}")

    def names(self) -> str:
        return ", ".join(thread.name for thread in self.threads)

    def _resume(self, thread: "Thread") -> None:
        thread.ready, thread.wakes_at = None, None
        before, self.running = self.running, thread
        thread.baton.release()
        if not self.back.acquire(timeout=REAL_SECONDS):
            raise NeverRests(f"{thread.name} waits for something that is not simulated")
        self.running = before
        if thread.ended:
            self.threads.remove(thread)


class Thread:
    def __init__(
        self,
        target: Callable[..., object],
        name: str = "thread",
        args: Iterable[Any] = (),
        daemon: bool | None = None,
    ) -> None:
        self.simulation = Simulation.current
        self.name = name
        self.ident: int | None = None
        self.ended = False
        self.ready: Callable[[], bool] | None = None
        self.wakes_at: float | None = None
        self.baton = allocate_lock()
        self.baton.acquire()
        self._target, self._args = target, tuple(args)

    def start(self) -> None:
        self.ident = id(self)
        self.ready = lambda: True
        self.simulation.threads.append(self)
        threading.Thread(target=self._live, daemon=True).start()
        self.simulation.switch()

    def goes_on(self, now: float) -> bool:
        if self.wakes_at is not None and self.wakes_at <= now:
            return True
        return self.ready is not None and self.ready()

    def _live(self) -> None:
        self.baton.acquire()
        simulation = self.simulation
        try:
            if not simulation.dead:
                self._target(*self._args)
        except Killed:
            pass
        except BaseException as error:  # whoever holds the strings tells of it
            if not simulation.dead:
                simulation.escaped.append(f"{self.name}: {type(error).__name__}: {error}")
        self.ended = True
        simulation.back.release()

    def is_alive(self) -> bool:
        return self.ident is not None and not self.ended

    def join(self, timeout: float | None = None) -> None:
        self.simulation.pause(lambda: self.ended, timeout)


class Event:
    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        return Simulation.current.pause(self.is_set, timeout)


class Lock:
    """Replaces threading.Lock and RLock: the thread that has it may take it again."""

    def __init__(self) -> None:
        self._owner: object = None
        self._depth = 0

    def __enter__(self) -> None:
        simulation = Simulation.current
        me = simulation.running or simulation
        if self._depth and self._owner is not me:
            simulation.pause(lambda: not self._depth)
        self._owner = me
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1


class Future(concurrent.futures.Future[Any]):
    """Waits on the simulated clock."""

    def result(self, timeout: float | None = None) -> Any:
        self.exception(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not Simulation.current.pause(self.done, timeout):
            raise TimeoutError
        return super().exception(0)


class ThreadPoolExecutor:
    """Replaces concurrent.futures.ThreadPoolExecutor, as far as it is used."""

    def __init__(self, max_workers: int, thread_name_prefix: str) -> None:
        self._room, self._name = max_workers, thread_name_prefix
        self._tasks: list[Thread] = []

    def submit(self, work: Callable[..., object], *given: object) -> Future:
        before, future = [task for task in self._tasks if not task.ended], Future()

        def do() -> None:
            Simulation.current.pause(lambda: sum(not each.ended for each in before) < self._room)
            try:
                future.set_result(work(*given))
            except Exception as error:
                future.set_exception(error)

        self._tasks = [*before, Thread(target=do, name=self._name)]
        self._tasks[-1].start()
        return future

    def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        if wait and self._tasks:
            Simulation.current.pause(lambda: all(task.ended for task in self._tasks))


def _stand(real: ModuleType, **names: object) -> ModuleType:
    """Return a module in which some names are replaced."""
    module = ModuleType(real.__name__)
    vars(module).update(vars(real), **names)
    return module


def simulated(simulation: Simulation, patch: pytest.MonkeyPatch) -> None:
    """Let all of picowatch, and the tests' engine, run on this simulation."""
    Simulation.current, dice = simulation, simulation.dice

    def start(watch: Watch, root: Path) -> None:
        watch.root = f"{root}/"
        simulation.watches.append(watch)

    patch.setattr(Watch, "start", start)
    patch.setattr(Watch, "stop", lambda watch: None)
    patch.setattr(secrets, "randbelow", dice.randrange)
    patch.setattr(secrets, "token_hex", lambda count: dice.randbytes(count).hex())
    clocks = {"time": simulation.wall, "sleep": simulation.sleep, "thread_time": lambda: 0.0}
    clocks |= dict.fromkeys(("monotonic", "perf_counter"), simulation.monotonic)
    stand_ins: list[tuple[object, object]] = [
        (threading, _stand(threading, Thread=Thread, Event=Event, Lock=Lock, RLock=Lock)),
        (threading.Lock, Lock),
        (time, _stand(time, **clocks)),
        (concurrent.futures.Future, Future),
        (concurrent.futures.ThreadPoolExecutor, ThreadPoolExecutor),
    ]
    for module in list(sys.modules.values()):
        name = getattr(module, "__name__", "")
        is_simulated = name.startswith("picowatch.") and "engine" not in name
        if not is_simulated and name != DigestEngine.__module__:
            continue
        for key, value in list(vars(module).items()):
            for real, stand_in in stand_ins:
                if value is real:
                    patch.setattr(module, key, stand_in)
