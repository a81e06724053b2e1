"""A simulated computer: folders, a daemon, and everything that may happen to them."""

import errno
import json
import logging
import os
import random
import shutil
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import picowatch.files.safe_paths
from picowatch.daemon.run import Mode
from picowatch.daemon.settings_file import SettingsFile
from picowatch.daemon.supervise import Supervisor
from picowatch.errors import EngineDied, RenderFailed, SettingsInvalid
from picowatch.ledger.ledger import VERSION, Ledger
from picowatch.recipe.request import ImageRequest
from picowatch.settings.settings import Settings
from picowatch.settings.values import LocalSettings
from tests.digest_engine import DigestEngine
from tests.fault_points import POINTS, preceded_by, wrap
from tests.house import SilentConsole
from tests.meetings.recipes import drawn
from tests.meetings.simulation import Event, NeverRests, Simulation, Thread, simulated
from tests.meetings.witness import Witness

END_SECONDS = 2.0
READ_SECONDS = 3.0  # from the opening of a file until its save is accepted
PATIENCE = 600.0  # of the simulated clock
# What is outside the outbox, and stays as it is.
OUTSIDE = {
    "theirs.txt": "theirs",
    "folder/page-00001.js": "picture({});\n",
    "folder/pages.js": "theirs",
    "folder/thumbs/ab/0.webp": "theirs",
}
REASONS = ("The engine was killed.", "It cannot be drawn.")
LOCKED = errno.EAGAIN  # another program has the ledger
MISHAPS = (errno.ENOSPC, errno.EROFS, errno.EIO, LOCKED)
WRONG = {"wrong": "value"}
# Valid settings that cannot work: of another computer's address, and below a file.
NO_SETTINGS = (WRONG, {"metrics_address": "192.0.2.1:9100"}, {"outbox": "/dev/null/outbox"})
# What was changed in tables of version 8 since.
OLDER = """
ALTER TABLE recipes DROP COLUMN accepted;
DROP TABLE history;
DROP TABLE restored;
ALTER TABLE recipes DROP COLUMN listed;
ALTER TABLE recipes RENAME COLUMN inbox_id TO folder;
ALTER TABLE recipes RENAME COLUMN reread TO again;
ALTER TABLE images RENAME COLUMN being_written TO drawn;
PRAGMA user_version = 8;
"""
COMMIT = "before a transaction is committed"
ATOMIC = {f"atomic: {name}": name for name in ("sync_file", "rename", "sync_folder")}
WRAPPED = {point: target for point, target in POINTS.items() if " > " not in target} | {
    point: f"picowatch.files.atomic:{name}" for point, name in ATOMIC.items()
}
TAKE = "before changes are taken"
WRAPPED[TAKE] = "picowatch.daemon.accept:Accepting.take"
FAULT_POINTS = (*WRAPPED, COMMIT)
# Where a thread may halt, too.
HALTING_POINTS = (
    "inbox.scan:Scan.look_into", "inbox.scan:Scan._add_file", "inbox.folder:_size_and_time",
    "files.safe_paths:open_below", "files.safe_paths:blocks_of",
    "inbox.inbox:Inbox.is_there", "inbox.inbox:Inbox.look", "inbox.folder:InboxFolder.defaults_for",
    "daemon.commands:Control.run_all", "daemon.followups:follow_up_all",
    "daemon.worker:Worker._with_pictures", "daemon.worker:Worker._render_and_publish",
    "daemon.worker:Worker._put_back", "daemon.worker:Worker._learn",
    "daemon.publish:Publisher._publish", "daemon.publish:Publisher._show",
)  # fmt: skip


@dataclass(frozen=True)
class Habits:
    """How a run's daemon and computer behave."""

    batch_size: int = 2
    events: bool = False
    when_done: str = "keep"
    switching: float = 0.0
    engines: int = 1
    slowness: float = 0.0  # seconds that pass between two looks at the clock
    halting: float = 0.0  # how often a thread halts at a place
    interrupting: float = 0.0  # seconds until an engine ends its step
    slices: bool = False  # a round takes one save, and follows up on one recipe
    disks: bool = False  # the inbox, and what is mounted in its place, are roots of disks


class Machine:
    """Runs picowatch; methods `do_…` are what may happen to it."""

    def __init__(self, base: Path, seed: int, habits: Habits) -> None:
        self.base = base
        self.home = base / "home"
        self.inbox, self.outbox = self.home / "inbox", self.home / "outbox"
        self.outside = base / "outside"  # where links in the outbox lead
        self.in_the_way: set[str] = set()  # files in whose place something else was put
        self.was_without_gallery = False
        self.habits, self.when_done = habits, habits.when_done
        dice = random.Random(seed)
        self.sim = Simulation(dice, habits.switching, habits.slowness, habits.halting)
        self.sim.on_death = self._preserve
        self.findings: list[str] = []
        self.counts: Counter[str] = Counter()
        self.serial = 0
        self.away: Path | None = None  # where the inbox lies instead
        self.outbox_away: Path | None = None
        self.trouble: OSError | None = None
        self.trouble_ended_at = self.started_at = self.took_at = 0.0
        self.locked = ""  # a folder of the outbox that may not be written
        self.was_locked: set[str] = set()  # … each that ever was
        self.fault: tuple[str, int] | None = None  # where to die, and at which time
        self.flaky = 0  # which commit from now on is reported as failed, but is durable
        self.pace = 0.0  # seconds of a batch
        self.disk_seconds = 0.0  # … of each sync of a published file
        self.slow: dict[str, float] = {}  # files of the inbox, and how long opening one takes
        self.slow_until = 0.0  # what was read slowly is not accepted before
        self.held = False  # the engine
        self.bad: set[str] = set()  # prompts that cannot be drawn
        self.is_deadly = False  # the engine dies on them
        self.blamed: set[tuple[str, int]] = set()  # prompts and seeds that met one of those
        self.saved: Mapping[str, object] = {}  # the last settings that work
        self.settings_work = True  # … and whether these are what the file has
        self.process: Thread | None = None
        self.stop, self.wake = Event(), Event()
        self.signals: list[int] = []
        self.witness = Witness(self.hear, self._before_commit, self._after_commit)

    @contextmanager
    def on_stage(self) -> Iterator[None]:
        """Let the machine run within the block, with all wrappers in place."""
        for folder in (self.inbox, self.outbox):
            folder.mkdir(parents=True)
        (self.home / "models").mkdir()
        for name, content in OUTSIDE.items():
            (self.outside / name).parent.mkdir(parents=True, exist_ok=True)
            (self.outside / name).write_text(content)
        self.do_settings(self.saved)
        with pytest.MonkeyPatch.context() as patch:
            simulated(self.sim, patch)
            self.witness.listen(patch)
            self._wrap_picowatch(patch)
            try:
                yield
            finally:
                with suppress(NeverRests):
                    self.do_kill()
                shutil.rmtree(self.base, ignore_errors=True)

    def _wrap_picowatch(self, patch: pytest.MonkeyPatch) -> None:
        def before(target: str, first: Callable[..., None]) -> None:
            wrap(target, preceded_by(first), patch.setattr)

        for point, target in WRAPPED.items():
            before(target, partial(self._reach, point))
        for target in HALTING_POINTS if self.habits.halting else ():
            before(f"picowatch.{target}", self._halt)
        before("picowatch.files.safe_paths:open_below", self._open_slowly)
        for name in ("_prepare", "_begin", "select"):
            before(f"picowatch.ledger.ledger:Ledger.{name}", self._use_ledger)
        before("picowatch.outbox.outbox:Outbox.leave", self.leaves)
        before("picowatch.outbox.outbox:Outbox.delete", self.deletes)
        wrap("picowatch.daemon.picture_commands:put_into", self._putting, patch.setattr)
        wrap("tests.digest_engine:DigestEngine.render", self._rendering, patch.setattr)
        for part in ("accept", "followups") if self.habits.slices else ():
            patch.setattr(f"picowatch.daemon.{part}.SLICE_SECONDS", 0.0)
        if self.habits.disks:
            wrap("picowatch.inbox.inbox:place_of", self._placing, patch.setattr)
        # Other processes on this machine are not part of the simulation.
        patch.setattr(picowatch.files.safe_paths, "is_open_for_writing", lambda handle: False)

    def stamp(self, target: Path) -> None:
        """Set a file's time to the simulated clock's; no two are equal."""
        self.serial += 1
        when = int(self.sim.wall()) * 10**9 + self.serial
        os.utime(target, ns=(when, when))

    # -- the process

    def do_start(self) -> None:
        if self.process is not None or self.outbox_away:
            return
        if not self.settings_work:  # picowatch would not start
            self.do_settings(self.saved)
        self.counts["daemons"] += 1
        self.started_at = self.sim.now
        self.stop, self.wake, self.signals = Event(), Event(), []
        self.sim.dead = False
        self.process = Thread(target=self._live, name="picowatch")
        self.process.start()

    def _live(self) -> None:
        supervisor = Supervisor(
            self._settings(self.saved),
            lambda options: DigestEngine(self._before_batch, heeds=self._heeds),
            SilentConsole(),
            Mode(),
            SettingsFile(self.home / "picowatch.yaml", self._load_settings),
            stop=self.stop,  # type: ignore[arg-type]
            wake=self.wake,  # type: ignore[arg-type]
        )
        supervisor.signals = self.signals
        supervisor.run()

    def _settings(self, saved: Mapping[str, object]) -> Settings:
        values: dict[str, Any] = {
            "inbox": self.inbox,
            "outbox": self.outbox,
            "models": self.home / "models",
            "settle_seconds": 0.5,
            "batch_size": self.habits.batch_size,
            "when_done": self.when_done,
            "executor": LocalSettings(engines=self.habits.engines),
        }
        return Settings(**{**values, **saved})

    def _load_settings(self) -> Settings:
        saved = json.loads((self.home / "picowatch.yaml").read_text())
        if saved == WRONG:
            raise SettingsInvalid("picowatch.yaml, line 1: unknown setting 'wrong'.")
        return self._settings(saved)

    @property
    def is_slow(self) -> bool:
        """Whether threads may take longer than the user."""
        return bool(self.habits.slowness or self.habits.halting) or self.sim.now < self.slow_until

    @property
    def is_read_before(self) -> bool:
        """Whether the user may act between the reading and the acceptance of a save."""
        waits = self.sim.now < self.slow_until or (self.process and not self.is_up(READ_SECONDS))
        return bool(self.habits.halting or self.habits.slices or waits)

    def do_stop(self) -> None:
        if self.process is None:
            return
        self.signals.append(15)
        self.stop.set()
        self.wake.set()
        process, began = self.process, self.sim.now
        if not self.sim.run(lambda: process.ended, PATIENCE) and not self.sim.dead:
            self.findings.append("SIGTERM does not end it")
            self.sim.kill()
        if self.sim.dead:
            self.notice_death()
            return
        if self.sim.now - began > END_SECONDS and not (self.disk_seconds or self.is_slow):
            self.findings.append(f"ended {self.sim.now - began:.1f} s after SIGTERM")
        self.process = None
        held, self.held = self.held, False
        self.sim.run(lambda: not self.sim.threads, 10.0)
        self.held = held
        if self.sim.threads:
            if {thread.name for thread in self.sim.threads} != {"reader"}:  # which ends with it
                self.findings.append(f"threads live on: {self.sim.names()}")
            self.sim.kill()
            self._bury()

    def do_kill(self) -> None:
        if self.process is not None:
            self.sim.kill()
            self._bury()

    def do_wait(self, seconds: float) -> None:
        self.sim.run(lambda: False, seconds)
        self.notice_death()

    def notice_death(self) -> None:
        if self.sim.dead:
            self.do_kill()
        elif self.process is not None and self.process.ended:
            why = " ".join(self.sim.escaped)
            if "picowatch.log" not in self.in_the_way:
                with suppress(OSError):
                    why = why or (self.outbox / "picowatch.log").read_text().splitlines()[-1]
            self.findings.append(f"picowatch ended by itself: {why}")
            self.process = None

    def _preserve(self) -> None:
        """Save the disk as of the death: dying threads write elsewhere, or into open files."""
        outbox = self.outbox_away or self.outbox
        shutil.copytree(outbox, self.base / "outbox", symlinks=True, copy_function=_copy)
        self.home.rename(self.base / "dead")

    def _bury(self) -> None:
        """Clean up after the last thread has ended."""
        for database in self.witness.opened:
            with suppress(sqlite3.Error):
                database._connection.close()
            database._file.close()
        self.witness.forget()
        self.sim.threads.clear()
        self.sim.running = None
        self.process, self.fault = None, None
        dead = self.base / "dead"
        if dead.exists():
            shutil.rmtree(self.home, ignore_errors=True)
            dead.rename(self.home)
            outbox = self.outbox_away or self.outbox
            shutil.rmtree(outbox)
            (self.base / "outbox").rename(outbox)
        logging.getLogger("picowatch").handlers.clear()

    def is_up(self, seconds: float = 5.0) -> bool:
        """Whether the daemon has begun its work and has no trouble."""
        since = max(self.started_at, self.trouble_ended_at)
        in_the_way = self.trouble or self.outbox_away
        return self.process is not None and not in_the_way and self.sim.now - since > seconds

    # -- what wrappers call

    def hear(self, name: str, given: Any, named: Any, result: Any) -> None:
        """Take a committed change of the ledger."""

    def leaves(self, _: Any, moved: dict[str, str]) -> None:
        """Take pictures that are moved, by their former names."""

    def deletes(self, _: Any, files: Collection[str]) -> None:
        """Take pictures that a command deletes."""

    def copied(self, files: Iterable[str]) -> None:
        """Take copies of pictures."""

    def _putting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def put_into(*given: Any, copies: bool) -> Any:
            placed, stay = original(*given, copies=copies)
            if copies:
                self.copied(placed.values())
            return placed, stay

        return put_into

    def _reach(self, point: str, *arguments: Any, **_: Any) -> None:
        self._at(point)
        if point in ATOMIC:
            self._use_disk(point, *arguments)

    def _halt(self, *_: Any, **__: Any) -> None:
        self.sim.switch()

    def _use_ledger(self, database: Ledger, *_: Any) -> None:
        if self.trouble and self.trouble.errno == LOCKED and not database._depth:
            raise sqlite3.OperationalError("database is locked")

    def _at(self, point: str) -> None:
        """Let the process reach a place where it may die."""
        if self.sim.running is None or self.sim.dead:
            return
        if point == TAKE:
            self.took_at = self.sim.now
        if self.fault and self.fault[0] == point:
            self.fault = (point, self.fault[1] - 1)
            if self.fault[1] <= 0:
                self.sim.die()
        self.sim.switch()

    def _use_disk(self, point: str, *arguments: Any) -> None:
        if self.locked and point == "atomic: rename":
            target: Path = arguments[1]
            if (self.outbox / self.locked) in target.parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        if self.disk_seconds and self.sim.running and self.sim.running.name == "publisher":
            self.sim.sleep(self.disk_seconds)
        is_spared = point == "atomic: sync_folder"
        if self.trouble and self.trouble.errno != LOCKED and not is_spared:
            raise OSError(self.trouble.errno, self.trouble.strerror)

    def _before_commit(self) -> None:
        self._at(COMMIT)
        if self.trouble is not None:
            raise sqlite3.OperationalError("database or disk is full")

    def _after_commit(self) -> None:
        """Let a sync fail once that nothing depends on: the commit is durable all the same."""
        self.flaky -= 1
        if self.flaky == 0:
            raise sqlite3.OperationalError("disk I/O error")

    def _open_slowly(self, root: Path, path: str) -> None:
        """Let a file be opened slowly, if it is to be."""
        if self.sim.running and root == self.inbox and path in self.slow:
            seconds = self.slow[path]
            self.slow_until = max(self.slow_until, self.sim.now + seconds + READ_SECONDS)
            self.sim.sleep(seconds)

    def _placing(self, original: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda root: (original(root)[0], f"{bool(self.away):x}:2")

    def _heeds(self) -> bool:
        """Let an engine that is to stop end its step first."""
        if self.habits.interrupting:
            self.sim.pause(self.stop.is_set, self.habits.interrupting)
        return True

    def _before_batch(self, batch: Sequence[ImageRequest]) -> None:
        if self.held:
            self.sim.pause(lambda: not self.held)
        if self.pace:
            self.sim.sleep(self.pace)
        if self.bad & {request.prompt for request in batch}:
            self.blamed |= {(request.prompt, request.seed) for request in batch}
            raise EngineDied(REASONS[0]) if self.is_deadly else RenderFailed(REASONS[1])

    def _rendering(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def render(engine: DigestEngine, batch: Sequence[ImageRequest], *given: Any) -> Any:
            pictures = original(engine, batch, *given)
            copies = (self.outbox_away or self.outbox) / ".picowatch/start-images"
            for request in batch:
                digests = (words.rpartition(" ")[2] for words in drawn(request)[2:] if words)
                if not all((copies / digest).is_file() for digest in digests):
                    self.findings.append(f"{request.prompt!r} is drawn without its pictures")
            return pictures

        return render

    # -- what happens

    def do_die(self, point: str, count: int) -> None:
        """Plan a death at a point, after it was reached this often."""
        assert point in FAULT_POINTS
        self.fault = (point, count)

    def do_trouble(self, number: int | None) -> None:
        """Let the disk be full, read-only or broken, or the ledger locked."""
        self.trouble = None if number is None else OSError(number, os.strerror(number))
        self.trouble_ended_at = self.sim.now

    def do_lock(self, folder: str) -> None:
        """Let a folder of the outbox not be written, or none any more ("")."""
        self.locked = folder
        self.was_locked |= {folder} - {""}
        self.trouble_ended_at = self.sim.now

    def do_set(self, name: str, value: object) -> None:
        """Set how the machine behaves from now on, such as its `pace`."""
        assert hasattr(self, name)
        setattr(self, name, value)

    def do_slow(self, path: str, seconds: float) -> None:
        """Let opening a file of the inbox take so long from now on, or no file any more ("")."""
        if path:
            self.slow[path] = seconds
        else:
            self.slow.clear()

    def do_settings(self, saved: Mapping[str, object]) -> None:
        """Save picowatch.yaml, in place."""
        self.settings_work = saved not in NO_SETTINGS
        if self.settings_work:
            self.saved = saved
        path = self.home / "picowatch.yaml"
        path.write_text(json.dumps(saved))
        self.stamp(path)

    def do_clock(self, seconds: float) -> None:
        self.sim.wall_ahead += seconds

    def do_flaky(self, commit: int) -> None:
        """Let one of the next commits be reported as failed, though it is durable."""
        self.flaky = commit

    def do_older(self) -> None:
        """Stop the daemon, and turn its ledger into one of the last version."""
        self.do_stop()
        if not self.outbox_away and self.ledger.exists():
            with closing(sqlite3.connect(self.ledger)) as sql:
                is_new = sql.execute("PRAGMA user_version").fetchone() == (VERSION,)
                lost = "SELECT 1 FROM history UNION SELECT 1 FROM recipes WHERE accepted != ''"
                if is_new and not sql.execute(lost).fetchone():
                    sql.executescript(OLDER)

    @property
    def ledger(self) -> Path:
        return self.outbox / ".picowatch/ledger.sqlite"

    def do_freeze(self, seconds: float) -> None:
        """Stop the daemon and its engines for a while, as `docker pause` does."""
        self.sim.now += seconds
        self.started_at += seconds  # a start goes on where it was
        self.trouble_ended_at += seconds

    def do_bad(self, prompts: tuple[str, ...], deadly: bool) -> None:
        """Let these prompts fail from now on."""
        self.bad, self.is_deadly = {*prompts}, deadly

    def do_put_in_the_way(self, name: str, what: str) -> None:
        """Put a link, a folder or a pipe in the place of one of the outbox's files."""
        path = self.outbox / name
        if self.outbox_away or name in self.in_the_way or not path.parent.is_dir():
            return
        if os.path.lexists(path):
            self.serial += 1
            path.rename(self.base / f"taken {self.serial} {path.name}")
        if what == "a folder":
            path.mkdir()
            (path / "kept.txt").touch()
        elif what == "a pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(self.outside / what)
        self.in_the_way.add(name)
        self.was_without_gallery |= "gallery" in name

    def do_clear_the_way(self) -> None:
        """Put all of these right, unless picowatch has done so."""
        if self.outbox_away:
            return
        for path in (self.outbox / name for name in self.in_the_way):
            if path.is_symlink() or path.is_fifo():
                path.unlink()
            elif (path / "kept.txt").exists():
                shutil.rmtree(path)
        self.in_the_way.clear()
        found = {path for path in self.outside.rglob("*") if not path.is_dir()}
        there = {path.relative_to(self.outside).as_posix(): path.read_text() for path in found}
        if there != OUTSIDE:
            self.findings.append(f"outside the outbox are {there}")

    def do_outbox(self, there: bool, empty: bool) -> None:
        """Mount or unmount the outbox; nothing may be written into the `empty` folder."""
        if there and self.outbox_away:
            if self.outbox.exists():
                for path in sorted(self.outbox.rglob("*")):
                    self.findings.append(f"{path.name} was written where the outbox is not")
                shutil.rmtree(self.outbox)
            self.outbox_away.rename(self.outbox)
            self.outbox_away = None
            self.trouble_ended_at = self.sim.now
        # A start, which makes a missing outbox, may halt at many places.
        elif not there and self.is_up(60.0 if self.habits.halting else 5.0):
            self.outbox_away = self.home / "unmounted outbox"
            self.outbox.rename(self.outbox_away)
            if empty:
                self.outbox.mkdir()


def _copy(source: str, target: str) -> None:
    if stat.S_ISFIFO(os.lstat(source).st_mode):
        os.mkfifo(target)
    else:
        shutil.copy2(source, target, follow_symlinks=False)
