"""One thread at a time, on a clock that is passed in: picowatch runs whole, but step by step.

`simulated` replaces what can wait (threads, locks, events, futures, clocks) in all of picowatch's
modules. Each wait is a place where another thread may go on; which one, dice decide. While all
threads are waiting, the clock jumps to the next moment at which one of them wakes up. So an hour
of waiting takes no time, and the same dice give the same run again.

A simulated SIGKILL ends every thread where it stands (`Killed`). What they do on their way out
must not reach the disk: see `house.py`.
"""

import concurrent.futures
import random
import secrets
import sys
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any, ClassVar

from picowatch.inbox.watching import Watch
from tests.digest_engine import DigestEngine

MOST_STEPS = 20_000  # in a while: more is a thread that never rests
A_WHILE = 0.05  # seconds
LEAST_WAIT = 1e-6
START = 1_000.0  # what the steady clock says first
WALL_START = 1_800_000_000.0


class Killed(BaseException):
    """The simulated process died; nothing may catch this."""


class NeverRests(AssertionError):
    """A thread never stops to wait for anything."""


class Simulation:
    """The threads of one simulated machine, and its clock."""

    current: "Simulation"  # the one that is on stage; see `simulated`

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.now = START
        self.wall_ahead = WALL_START - START
        self.switching = 0.0  # how often another thread goes on at a place that does not wait
        self.slowness = 0.0  # seconds that pass before a thread knows what time it is
        self.threads: list[Thread] = []
        self.running: Thread | None = None
        self.dead = False
        self.on_death: Callable[[], None] = lambda: None
        self.escaped: list[str] = []  # errors that ended a thread
        self.back = allocate_lock()
        self.back.acquire()

    def wall(self) -> float:
        return self.now + self.wall_ahead

    # -- for the threads

    def pause(self, ready: Callable[[], bool], seconds: float | None = None) -> bool:
        """Let others go on until `ready`, or for so many seconds; gives whether it is ready."""
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
        """A place where another thread may go on."""
        if self.running is not None and not self.dead and self._switches():
            self.pause(lambda: True)

    def die(self) -> None:
        """End the simulated process here and now."""
        self.on_death()
        self.dead = True
        raise Killed

    # -- for who holds the strings

    def run(self, until: Callable[[], bool], seconds: float | None = None) -> bool:
        """Let threads go on until the condition holds, or for so many seconds."""
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

    def run_for(self, seconds: float) -> None:
        self.run(lambda: False, seconds)

    def kill(self) -> None:
        """SIGKILL: every thread ends where it stands."""
        if not self.dead:
            self.on_death()
            self.dead = True
        for _ in range(MOST_STEPS):
            if not self.threads:
                return
            thread = self.threads[0]
            if thread.began:
                self._resume(thread)
            else:
                self.threads.remove(thread)
        raise NeverRests(f"survived being killed: {self.names()}")

    def names(self) -> str:
        return ", ".join(thread.name for thread in self.threads)

    def _resume(self, thread: "Thread") -> None:
        thread.ready, thread.wakes_at = None, None
        before, self.running = self.running, thread
        thread.resume()
        self.back.acquire()
        self.running = before
        if thread.ended:
            self.threads.remove(thread)


class _Body:
    """A thread of the system that runs one simulated thread after the other."""

    idle: ClassVar[list["_Body"]] = []

    def __init__(self) -> None:
        self.baton = allocate_lock()
        self.baton.acquire()
        self.thread: Thread | None = None
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        while True:
            self.baton.acquire()
            thread = self.thread
            assert thread is not None
            thread.live()
            self.thread = None
            _Body.idle.append(self)
            thread.simulation.back.release()


class Thread:
    """Stands for threading.Thread."""

    def __init__(
        self,
        target: Callable[..., object] | None = None,
        name: str = "thread",
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        daemon: bool | None = None,
    ) -> None:
        self.simulation = Simulation.current
        self.name = name
        self.ident: int | None = None
        self.began = self.ended = False
        self.ready: Callable[[], bool] | None = None
        self.wakes_at: float | None = None
        self._target, self._args, self._kwargs = target, tuple(args), kwargs or {}
        self._body: _Body | None = None

    def start(self) -> None:
        self.ident = id(self)
        self.ready = lambda: True
        self.simulation.threads.append(self)
        self.simulation.switch()

    def goes_on(self, now: float) -> bool:
        if self.wakes_at is not None and self.wakes_at <= now:
            return True
        return self.ready is not None and self.ready()

    @property
    def baton(self) -> Any:
        assert self._body is not None
        return self._body.baton

    def resume(self) -> None:
        if not self.began:
            self.began = True
            self._body = _Body.idle.pop() if _Body.idle else _Body()
            self._body.thread = self
        self.baton.release()

    def live(self) -> None:
        try:
            if self._target is not None:
                self._target(*self._args, **self._kwargs)
        except Killed:
            pass
        except BaseException as error:  # whoever holds the strings tells of it
            if not self.simulation.dead:
                self.simulation.escaped.append(f"{self.name}: {type(error).__name__}: {error}")
        self.ended = True

    def is_alive(self) -> bool:
        return self.ident is not None and not self.ended

    def join(self, timeout: float | None = None) -> None:
        self.simulation.pause(lambda: self.ended, timeout)


class Event:
    """Stands for threading.Event."""

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


class RLock:
    """Stands for threading.RLock."""

    reentrant = True

    def __init__(self) -> None:
        self._owner: object = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        simulation = Simulation.current
        me = simulation.running or simulation
        if self._owner is me and self.reentrant:
            self._depth += 1
            return True
        if self._depth:
            if not blocking:
                return False
            seconds = None if timeout < 0 else timeout
            if not simulation.pause(lambda: not self._depth, seconds):
                return False
        self._owner, self._depth = me, 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None

    def locked(self) -> bool:
        return self._depth > 0

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Lock(RLock):
    """Stands for threading.Lock."""

    reentrant = False


class Future(concurrent.futures.Future[Any]):
    """Waits on the simulated clock."""

    def result(self, timeout: float | None = None) -> Any:
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        if not Simulation.current.pause(self.done, timeout):
            raise TimeoutError


class ThreadPoolExecutor:
    """Stands for concurrent.futures.ThreadPoolExecutor."""

    def __init__(self, max_workers: int = 1, thread_name_prefix: str = "pool") -> None:
        self._room, self._name = max_workers, thread_name_prefix
        self._futures: list[Future] = []

    def submit(self, work: Callable[..., Any], *args: Any, **named: Any) -> Future:
        future = Future()
        future.set_running_or_notify_cancel()
        before = list(self._futures)
        self._futures = [one for one in before if not one.done()] + [future]

        def do() -> None:
            busy = self._room - 1
            Simulation.current.pause(lambda: sum(not one.done() for one in before) <= busy)
            try:
                result = work(*args, **named)
            except Killed:
                raise
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        Thread(target=do, name=self._name).start()
        return future

    def map(self, work: Callable[..., Any], *items: Iterable[Any]) -> Iterator[Any]:
        futures = [self.submit(work, *each) for each in zip(*items, strict=False)]
        return iter([future.result() for future in futures])

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if wait:
            Simulation.current.pause(lambda: all(future.done() for future in self._futures))

    def __enter__(self) -> "ThreadPoolExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


class EventWatch:
    """Stands for inbox/watching.py's Watch: the simulated user tells that something happened."""

    armed: "EventWatch | None" = None

    def __init__(self, wake: Event) -> None:
        self._wake = wake
        self._alive = False
        self.has_news = Event()

    def start(self, root: object) -> None:
        self._alive = True
        EventWatch.armed = self

    def stop(self) -> None:
        self._alive = False

    def lose(self) -> None:
        """Events were lost: the kernel's queue was full."""
        self.has_news.clear()

    def tell(self) -> None:
        if self._alive:
            self.has_news.set()
            self._wake.set()


# -- taking the places of the real ones


class _Stand:
    """A module of which some names are others."""

    def __init__(self, real: ModuleType, **names: object) -> None:
        self._real = real
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _now() -> float:
    simulation = Simulation.current
    if simulation.running is not None:
        simulation.now += simulation.slowness
    return simulation.now


def _wall() -> float:
    return Simulation.current.wall()


def _sleep(seconds: float) -> None:
    Simulation.current.sleep(seconds)


def _randbelow(most: int) -> int:
    return Simulation.current.dice.randrange(most)


def _token(count: int = 8) -> str:
    return Simulation.current.dice.randbytes(count).hex()


# By identity: a name of a module that is one of the keys is replaced.
_STAND_INS: list[tuple[object, object]] = [
    (
        threading,
        _Stand(threading, Thread=Thread, Event=Event, Lock=Lock, RLock=RLock),
    ),
    (threading.Lock, Lock),
    (threading.RLock, RLock),
    (threading.Event, Event),
    (threading.Thread, Thread),
    (
        time,
        _Stand(time, time=_wall, monotonic=_now, perf_counter=_now, sleep=_sleep),
    ),
    (time.monotonic, _now),
    (time.time, _wall),
    (secrets, _Stand(secrets, randbelow=_randbelow, token_hex=_token)),
    (concurrent.futures.Future, Future),
    (concurrent.futures.ThreadPoolExecutor, ThreadPoolExecutor),
    (Watch, EventWatch),
]


@contextmanager
def simulated(simulation: Simulation) -> Iterator[Simulation]:
    """Meanwhile all of picowatch, and the tests' engine, runs on this simulation."""
    Simulation.current = simulation
    undo: list[Callable[[], None]] = []
    for name, module in list(sys.modules.items()):
        is_ours = name.partition(".")[0] == "picowatch" and "engine.ray" not in name
        if is_ours or name == DigestEngine.__module__:
            _replace_names(module, undo)
    try:
        yield simulation
    finally:
        for step in reversed(undo):
            step()


def _replace_names(module: ModuleType, undo: list[Callable[[], None]]) -> None:
    for name, value in list(vars(module).items()):
        for real, stand_in in _STAND_INS:
            if value is real:
                setattr(module, name, stand_in)
                undo.append(lambda name=name, value=value: setattr(module, name, value))  # type: ignore[misc]
        if getattr(value, "__module__", None) == module.__name__:
            for function in _functions(value):
                _replace_defaults(function, undo)


def _functions(value: object) -> Iterator[FunctionType]:
    for one in vars(value).values() if isinstance(value, type) else [value]:
        if isinstance(one, FunctionType):
            yield one


def _replace_defaults(function: FunctionType, undo: list[Callable[[], None]]) -> None:
    """Clocks are most often the defaults of parameters."""
    named = function.__kwdefaults__
    if not named or not any(default in (time.monotonic, time.time) for default in named.values()):
        return
    function.__kwdefaults__ = {
        name: _now if value is time.monotonic else _wall if value is time.time else value
        for name, value in named.items()
    }
    undo.append(lambda: setattr(function, "__kwdefaults__", named))
