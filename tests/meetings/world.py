"""A user's folders, the daemon over them, and the model beside it: actions, and checks."""

import errno
import hashlib
import json
import logging
import math
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import picowatch.daemon.accept
import picowatch.files.atomic
import picowatch.inbox.inbox
import picowatch.ledger.database
from picowatch.daemon.process import build_and_run
from picowatch.errors import EngineDied, RenderFailed
from picowatch.files.retry import Ended
from picowatch.ledger.rows import PutBack
from picowatch.metadata import PICOWATCH, read_chunk, read_texts
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.formats import ENDINGS
from picowatch.outbox.names import LATEST
from picowatch.recipe.request import ImageRequest
from picowatch.settings import LocalSettings, Settings
from tests.catalog.files import kohya_lora_shapes, write_model
from tests.digest_engine import DigestEngine
from tests.fault_points import POINTS
from tests.house import SilentConsole
from tests.meetings.model import Model, Started
from tests.meetings.recipes import (
    LORA,
    TEMPLATE,
    Defaults,
    Entry,
    Picture,
    Requested,
    Text,
    png,
    requested,
)
from tests.meetings.simulation import (
    Event,
    EventWatch,
    NeverRests,
    Simulation,
    Thread,
    simulated,
)
from tests.meetings.witness import Witness

SETTLED_SECONDS = 6.0  # after which everything that was done to the inbox is answered
BACK_SECONDS = 2.0  # after which it has been noticed that the inbox is there again
END_SECONDS = 2.0
HUNG_SECONDS = 600.0  # an engine without a sign of life is ended after that
DEATHS = 4  # of the daemon with an image in progress, after which the next one sets it aside
PATIENCE = 600.0  # of the simulated clock
REASONS = ("The engine was killed.", "It cannot be drawn.")
OWN_FILES = {
    *LATEST, "now.txt", "index.html", "picowatch.log", "images.jsonl", "preview.png",
}  # fmt: skip
# Open while they change: what a dying process does to them on its way out is taken back.
HELD_OPEN = ("ledger.sqlite", "ledger.sqlite-journal", "lock")

IN_THE_OUTBOX = {"command", "lose_picture", "damage", "foreign", "ledger", "lock_ledger"}

Action = tuple[Any, ...]


@dataclass
class Version:
    """What once lay at a path of the inbox. `source`: the answered path that it was moved from."""

    serial: int
    text: Text
    digest: str
    mtime: int
    source: str = ""


@dataclass(frozen=True)
class Habits:
    """Settings of a whole run; `formats` are those of its daemons, in turn."""

    batch_size: int = 2
    events: bool = False
    when_done: str = "keep"
    switching: float = 0.0
    engines: int = 1
    slowness: float = 0.0  # seconds that pass between two looks at the clock
    formats: tuple[str, ...] = ("png",)
    sidecar: str = "none"


class World:
    """One run of the machine."""

    def __init__(self, base: Path, seed: int, habits: Habits) -> None:
        self.base = base
        self.home = base / "home"
        self.inbox, self.outbox = self.home / "inbox", self.home / "outbox"
        self.habits = habits
        self.sim = Simulation(random.Random(seed))
        self.sim.switching = habits.switching
        self.sim.slowness = habits.slowness
        self.model = Model()
        self.findings: list[str] = []
        self.counts: Counter[str] = Counter()
        # The user's side.
        self.serial = 0
        self.files: dict[str, Version] = {}
        self.versions: dict[str, list[Version]] = {}  # of each path, all that ever lay there
        self.texts: dict[str, Text] = {}  # by digest
        self.answered: dict[str, Version] = {}
        self.left: set[str] = set()  # paths that were away since they were answered
        self.defaults: dict[str, Defaults] = {}
        # … as they were when a version of a recipe was read, and the templates of pictures
        self.defaults_read: dict[tuple[str, int], dict[str, Defaults]] = {}
        self.templates_read: dict[tuple[str, int], Text] = {}
        self.pictures: dict[str, str] = {}  # start images' sha256
        self.pictures_changed_at = 0.0
        self.lora_is_there = False
        self.lora_changed_at = 0.0
        self.lacks_lora: set[str] = set()  # recipes that were refused without it
        self.commands: list[Path] = []
        self.outbox_away: Path | None = None
        self.away: Path | None = None  # where the inbox lies instead
        self.back_at = -math.inf  # when it was there again
        self.ghosts: set[str] = set()  # recipes deleted where nobody could see it
        self.written_again: set[str] = set()  # … and not answered since
        self.damaged: set[str] = set()  # pictures that are none any more
        self.foreign: set[str] = set()  # … that others put there
        self.locker: sqlite3.Connection | None = None
        self.answered_again: set[str] = set()  # by a new ledger
        self.began: dict[tuple[str, int], float] = {}  # batches that are held
        # A picture was lost with the ledger before it was listed: it is made again.
        self.is_torn = False
        self.missed: set[str] = set()  # dropped pictures that were not there at their turn
        # The computer's side.
        self.trouble: OSError | None = None
        self.trouble_ended_at = 0.0
        self.started_at = 0.0
        self.fault: tuple[str, int] | None = None  # where to die, and at which time
        self.pace = 0.0
        self.held = False
        self.bad: set[str] = set()  # prompts that cannot be drawn
        self.deadly: set[str] = set()  # … on which the engine dies
        self.blamed: set[tuple[str, int]] = set()  # prompts and seeds that met one of those
        self.paused = False
        self.process: Thread | None = None
        self.stop, self.wake = Event(), Event()
        self.signals: list[int] = []
        self.witness = Witness(self._hear, self._before_commit)
        self.databases: list[Any] = []
        self._saved: dict[Path, bytes] = {}

    # -- the stage

    @contextmanager
    def on_stage(self) -> Iterator["World"]:
        """Meanwhile the machine runs; all wrappers are in their places."""
        for folder in (self.inbox, self.outbox, self.home / "models"):
            folder.mkdir(parents=True)
        with ExitStack() as stack:
            stack.enter_context(simulated(self.sim))
            stack.enter_context(self.witness.listening())
            stack.enter_context(_wrapped(self))
            self.sim.on_death = self._preserve
            try:
                yield self
            finally:
                self._end_everything()
                shutil.rmtree(self.base, ignore_errors=True)

    def _end_everything(self) -> None:
        self.do_lock_ledger(False)
        if self.process is not None:
            with suppress(NeverRests):
                self.sim.kill()
        self._bury()

    # -- the process

    def start(self) -> None:
        if self.process is not None or self.outbox_away:
            return
        self.counts["daemons"] += 1
        self.started_at = self.sim.now
        self.stop, self.wake, self.signals = Event(), Event(), []
        self.sim.dead = False
        self.process = Thread(target=self._live, name="picowatch")
        self.process.start()

    def _live(self) -> None:
        settings = Settings(
            inbox=self.inbox,
            outbox=self.outbox,
            models=self.home / "models",
            settle_seconds=0.5,
            batch_size=self.habits.batch_size,
            when_done=self.habits.when_done,
            format=self.habits.formats[self.counts["daemons"] % len(self.habits.formats)],
            sidecar=self.habits.sidecar,
            executor=LocalSettings(engines=self.habits.engines),
        )
        self.paused = False
        self.model.in_order = self.habits.engines == 1
        with suppress(Ended):
            while build_and_run(
                settings,
                lambda options: DigestEngine(before_batch=self._before_batch),
                SilentConsole(),
                False,
                stop=self.stop,  # type: ignore[arg-type]
                wake=self.wake,  # type: ignore[arg-type]
                signals=self.signals,
            ).restart:
                if self.signals:
                    break
                self.stop.clear()

    def end(self) -> None:
        """SIGTERM, and what is promised of it."""
        if self.process is None:
            return
        self.signals.append(15)
        self.stop.set()
        self.wake.set()
        process, began = self.process, self.sim.now
        if not self.sim.run(lambda: process.ended, PATIENCE) and not self.sim.dead:
            self.findings.append("SIGTERM does not end it")
            self.sim.kill()
        if not self.sim.dead and self.sim.now - began > END_SECONDS:
            self.findings.append(f"ended {self.sim.now - began:.1f} s after SIGTERM")
        if self.sim.dead:
            return
        self.process = None
        self.held_back, self.held = self.held, False
        self.sim.run(lambda: not self.sim.threads, 10.0)
        self.held = self.held_back
        if self.sim.threads:
            self.findings.append(f"threads live on: {self.sim.names()}")
            self.sim.kill()
            self._bury()

    def kill(self) -> None:
        """SIGKILL, wherever it stands."""
        if self.process is not None:
            self.sim.kill()
            self._bury()

    def _preserve(self) -> None:
        """What the disk holds at the moment of death; the dying can reach it no more."""
        self.counts["crashes"] += 1
        self.do_lock_ledger(False)
        outbox = self.outbox_away or self.outbox
        state = outbox / ".picowatch"
        kept = [state / name for name in HELD_OPEN]
        kept += [outbox / "images.jsonl", *(state / "gallery").glob("page-*.js")]
        self._saved = {path: path.read_bytes() for path in kept if path.exists()}
        self.home.rename(self.base / "dead")

    def _bury(self) -> None:
        """After the last thread is gone."""
        for database in self.databases:
            with suppress(sqlite3.Error):
                database._connection.close()
        self.databases.clear()
        self.witness.forget()
        self.sim.threads.clear()
        self.sim.running = None
        self.process, self.fault = None, None
        dead = self.base / "dead"
        if dead.exists():
            shutil.rmtree(self.home, ignore_errors=True)
            dead.rename(self.home)
            for path, content in self._saved.items():
                path.write_bytes(content)
        logging.getLogger("picowatch").handlers.clear()

    def run_for(self, seconds: float) -> None:
        """Let it be for a while; a death that was ordered may come."""
        self.sim.run_for(seconds)
        self._notice_death()

    def _notice_death(self) -> None:
        if self.sim.dead:
            self.sim.kill()
            self._bury()
        elif self.process is not None and self.process.ended:
            why = " ".join(self.sim.escaped) or self._last_log()
            self.findings.append(f"picowatch ended by itself: {why}")
            self.process = None

    def _last_log(self) -> str:
        with suppress(OSError):
            return (self.outbox / "picowatch.log").read_text().splitlines()[-1]
        return "no log"

    # -- what wrappers call

    def at(self, point: str) -> None:
        """The process comes to a place where it may die."""
        if self.sim.running is None or self.sim.dead:
            return
        if self.fault and self.fault[0] == point:
            self.fault = (point, self.fault[1] - 1)
            if self.fault[1] <= 0:
                self.counts[f"died {point}"] += 1
                self.sim.die()
        self.sim.switch()

    def polled(self, evidence: Sequence[Any]) -> None:
        """The inbox noticed something; defaults are read together with a recipe."""
        for seen in evidence:
            if (size_and_time := getattr(seen, "size_and_time", None)) is not None:
                self.defaults_read[seen.path, size_and_time.mtime_ns] = dict(self.defaults)
                if template := self._template_of(seen.path):
                    self.templates_read[seen.path, size_and_time.mtime_ns] = template

    def before_write(self) -> None:
        if self.trouble is not None:
            raise OSError(self.trouble.errno, self.trouble.strerror)

    def _before_commit(self, changes: bool) -> None:
        if self.trouble is not None and changes:
            raise sqlite3.OperationalError("database or disk is full")

    def _before_batch(self, batch: Sequence[ImageRequest]) -> None:
        if self.held:
            self.began |= {(request.prompt, request.seed): self.sim.now for request in batch}
            self.sim.pause(lambda: not self.held)
        if self.pace:
            self.sim.sleep(self.pace)
        for bad, error in (
            (self.deadly, EngineDied(REASONS[0])),
            (self.bad, RenderFailed(REASONS[1])),
        ):
            if any(request.prompt in bad for request in batch):
                self.blamed |= {(request.prompt, request.seed) for request in batch}
                raise error

    # -- the ledger's story

    def _hear(self, name: str, given: tuple[Any, ...], result: Any) -> None:
        try:
            getattr(self, f"_heard_{name}")(*given, result=result)
        except Exception as error:  # the daemon's thread must not see it
            self.findings.append(f"{name}{given[:2]}: {type(error).__name__}: {error}")

    def _template_of(self, path: str) -> Text | None:
        """What the nearest template says now."""
        for folder in Path(path).parents:
            if template := self.files.get(f"{folder.as_posix()}/{TEMPLATE}"):
                return template.text
        return None

    def _heard_accept(self, save: Any, entries: object, *, result: object) -> None:
        before = self.answered.get(save.path)
        version = self._answer(save.path, save.digest, save.size_and_time.mtime_ns)
        if version is None:
            return
        moved = any(one.source for one in self.versions[save.path])
        if moved and self.model.ledgers_lost:
            self.model.unsure.add(save.path)  # the memo of a rename may outlive the ledger
        found = self._meaning(save.path, version.text, version.mtime)
        lacks_lora = self._uses_lora(version) and not self.lora_is_there
        if found is None or (lacks_lora and not self._lora_just_changed()):
            self.findings.append(f"{save.path} was accepted although it is wrong")
        else:
            same = before is not None and before.digest == version.digest
            is_again = same and isinstance(version.text, Picture)
            self.model.saved(save.path, save.digest, found, is_again=is_again)

    def _heard_refuse(self, save: Any, problem: object, *, result: object) -> None:
        if save.path.endswith(TEMPLATE) and not save.size_and_time.mtime_ns:
            return  # of a picture under it
        version = self._answer(save.path, save.digest, save.size_and_time.mtime_ns)
        if version is None:
            return
        if self._uses_lora(version) and (not self.lora_is_there or self._lora_just_changed()):
            self.lacks_lora.add(save.path)
            self.model.rejected(save.path, save.digest)
            return
        self.lacks_lora.discard(save.path)
        right = self._meaning(save.path, version.text, version.mtime) is not None
        if right and not self.away and not self._pictures_just_changed():
            self.findings.append(f"{save.path} was refused although nothing is wrong with it")
        self.model.rejected(save.path, save.digest)

    def _uses_lora(self, version: Version) -> bool:
        return any(entry.lora for entry in version.text.entries)

    def _lora_just_changed(self) -> bool:
        return self.sim.now - self.lora_changed_at < 3.0

    def _pictures_just_changed(self) -> bool:
        return self.sim.now - self.pictures_changed_at < 3.0

    def _answer(self, path: str, digest: str, mtime: int) -> Version | None:
        """The version that was answered, which must be a new one."""
        last = self.answered.get(path)
        candidates = [
            version
            for version in self.versions.get(path, ())
            if (version.digest, version.mtime) == (digest, mtime)
            # What was moved over another recipe may be older than that.
            and (last is None or version.serial > last.serial or self.files.get(path) is version)
        ]
        if not candidates:
            recipe = self.model.recipes.get(path)
            if last is not None and last.digest == digest and recipe and not recipe.valid:
                return last  # it was renamed, or what it lacked has come
            if last is not None and last.digest == digest and path in self.missed:
                self.missed.discard(path)
                return last  # a dropped picture is back where it was
            self.findings.append(f"{path} was answered although nobody saved it")
            return None
        version = candidates[0]
        other, known = version.source, self.answered.get(version.source)
        is_new = last is None  # over another recipe it is an edit of that
        if is_new and known and known.digest == digest and self.model.recipes[other].valid:
            unseen = other in self.ghosts and known.mtime != version.mtime  # … it was written to
            if other != path and other not in self.files and not unseen:
                self.findings.append(f"{other} was renamed to {path}, which was made anew")
        self.answered[path] = version
        self.written_again.discard(path)
        return version

    def _heard_forget(self, path: str, *, result: object) -> None:
        known = self.answered.pop(path, None)
        there, was_away = self.files.get(path), path in self.left
        if known is not None and there is not None:
            if there.serial == known.serial and not was_away:
                self.findings.append(f"{path} was forgotten although it is there")
        elif known is not None:
            for other, version in self.files.items():
                new = self.answered.get(other)
                unseen = new is None or new.serial < version.serial
                valid = self.model.recipes[path].valid
                if valid and version.source and unseen and version.digest == known.digest:
                    twins = [v for v in self.answered.values() if v.digest == known.digest]
                    if not twins:
                        self.findings.append(f"{path} was renamed to {other}, but is forgotten")
        self.model.deleted_recipe(path)

    def _heard_archive(self, path: str, *, result: object) -> None:
        known, there = self.answered.pop(path, None), self.files.get(path)
        if self.habits.when_done == "keep" or (self.there / path).exists():
            self.findings.append(f"{path} was archived although it is to stay")
        if known is not None and there is not None and there.digest == known.digest:
            del self.files[path]
        self.model.deleted_recipe(path)

    def _heard_rename(
        self, old: str, new: str, size_and_time: Any, folder: str, *, result: object
    ) -> None:
        known = self.answered.pop(old, None)
        if old in self.missed:
            self.missed.discard(old)
            self.missed.add(new)
        if known is None and self.model.ledgers_lost:  # the list of pictures named it
            self.model.renamed(old, new)
            return
        is_there = old in self.files and old not in self.left
        candidates = [
            version
            for version in self.versions.get(new, ())
            if known is not None
            and (version.digest, version.mtime) == (known.digest, size_and_time.mtime_ns)
        ]
        if known is None or not candidates or is_there:
            self.findings.append(f"{old} was taken for renamed to {new}")
        else:
            self.answered[new] = candidates[-1]
        self.model.renamed(old, new)

    def _heard_prioritise(self, path: str, priorities: list[int], *, result: object) -> None:
        """A recipe was moved to where other defaults hold."""
        self.model.prioritised(path, priorities)

    def _heard_claim(self, *_: object, result: Any) -> None:
        if self.paused and result:
            self.findings.append(f"{result[0].recipe} was started in a pause")
        self.model.started([_started(image) for image in result])

    def _heard_hand_over(self, batch: Any, *, result: set[int]) -> None:
        self.model.drawn(result)

    def _heard_nothing_is_written(self, *, result: object) -> None:
        self.model.nothing_is_drawn()

    def _heard_finish(self, batch: Any, listed: object, *, result: object) -> None:
        for image in batch:
            self.model.ended(image.id, "done")
            self.counts["pictures"] += 1

    def _heard_fail(self, image_id: int, reason: str, *, result: object) -> None:
        image = self.model.by_id.get(image_id)
        made_of = (image.prompt, image.seed or 0) if image else ("", 0)
        hung = self.sim.now - self.began.get(made_of, self.sim.now) > HUNG_SECONDS
        blamed = made_of in self.blamed or hung
        if image is not None and not blamed and image.deaths < DEATHS:
            self.findings.append(f"{image} failed: {reason}")
        self.model.ended(image_id, "failed")

    def _heard_put_back(
        self, image_id: int, why: PutBack = PutBack.NO_FAULT, *, result: object
    ) -> None:
        self.model.ended(image_id, "queued", death=why is PutBack.DAEMON_DIED)

    def _heard_picture_missing(self, image: Any, *, result: object) -> None:
        self.model.missed(image.id)
        name = self.model.by_id[image.id].recipe if image.id in self.model.by_id else image.recipe
        self.missed.add(name)

    def _heard_retry(self, *_: object, result: dict[str, int]) -> None:
        self.model.retried(result)

    def _heard_cancel(self, recipes: Sequence[str], *, result: object) -> None:
        self.model.cancelled(recipes)

    def _heard_rebuild(self, *_: object, result: int) -> None:
        """A new ledger: the list of pictures alone tells what was."""
        if not self.model.images and not self.answered:
            return  # the first one
        listed = set(self._listed())
        for image in self.model.images:
            if image.state == "running" and image.file not in listed:
                image.state = "cancelled"
                self.is_torn |= (self.outbox / image.file).is_file()
        self.model.ledger_lost()
        self.answered_again |= set(self.answered)
        self.answered.clear()
        self.left.clear()
        self.ghosts.clear()
        self.paused = False

    def _heard_pause(self, since: float, *, result: object) -> None:
        self.paused = True

    def _heard_resume(self, *, result: object) -> None:
        self.paused = False

    def _meaning(self, path: str, text: Text, mtime: int) -> list[Requested] | None:
        """What this text requests now, None if something is wrong with it."""
        if text.broken or text.is_empty:
            return None
        if path.endswith(TEMPLATE):
            return []
        found = self._looked_up(path, text, mtime)
        return None if any(one.entry.image and not one.start for one in found) else found

    def _looked_up(self, path: str, text: Text, mtime: int) -> list[Requested]:
        """Its entries with the defaults that were read with it, and the start images of now."""
        folders = [""]
        for part in Path(path).parent.parts:
            folders.append(f"{folders[-1]}/{part}".lstrip("/"))
        there = self.defaults_read.get((path, mtime), self.defaults)
        defaults = [there[folder] for folder in folders if folder in there]
        if isinstance(text, Picture):
            digest = hashlib.sha256(text.content(path)).hexdigest()
            entries = self.templates_read[path, mtime].entries
            return [requested(entry, defaults, digest) for entry in entries]
        starts = [self.pictures.get(entry.image or "", "") for entry in text.entries]
        return [
            requested(e, defaults, start) for e, start in zip(text.entries, starts, strict=True)
        ]

    # -- the user's hands

    def do(self, action: Action) -> None:
        """One action; what makes no sense just now does nothing."""
        name, *given = action
        self.counts[name] += 1
        if self.outbox_away and name in IN_THE_OUTBOX:
            return
        self._look_into_the_inbox()
        getattr(self, f"do_{name}")(*given)

    def _look_into_the_inbox(self) -> None:
        """What is done may have been archived or deleted, where a setting says so."""
        for path, version in list(self.files.items()):
            if (self.there / path).exists():
                continue
            del self.files[path]
            known = self.answered.get(path)
            if self.habits.when_done == "keep" or (known and known.digest != version.digest):
                self.findings.append(f"{path} vanished from the inbox")

    def _write(self, path: str, content: bytes, how: str = "in place") -> None:
        target = self.there / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if how == "by rename":
            temporary = target.with_name(f".{target.name}.tmp")
            temporary.write_bytes(content)
            self._size_and_time(temporary)
            temporary.replace(target)
        else:
            target.write_bytes(content)
            self._size_and_time(target)
        self._tell()

    def _size_and_time(self, target: Path) -> None:
        """Its time is the simulated clock's; no two are the same."""
        self.serial += 1
        when = int(self.sim.wall()) * 10**9 + self.serial
        os.utime(target, ns=(when, when))

    @property
    def there(self) -> Path:
        """Where the user's recipes lie now."""
        return self.away or self.inbox

    def _is_gone(self, path: str) -> None:
        self.left.add(path)
        # picowatch looks for an inbox that is away once a second.
        seen_again = self.back_at + BACK_SECONDS + 1000 * self.habits.slowness
        if self.away or self.sim.now < seen_again or path in self.written_again:
            self.ghosts.add(path)  # a deletion that nobody saw is none

    def _tell(self) -> None:
        if EventWatch.armed is not None and not self.away and self.habits.events:
            EventWatch.armed.tell()

    def _version(self, path: str, text: Text, content: bytes, source: str = "") -> None:
        self.serial += 1
        digest, mtime = hashlib.sha256(content).hexdigest(), (self.there / path).stat().st_mtime_ns
        version = Version(self.serial, text, digest, mtime, source)
        if path in self.ghosts:
            self.ghosts.discard(path)
            self.written_again.add(path)
        known = self.answered.get(path)
        for one in (known, *self.versions.get(path, ())):
            if one is not None and (one.digest, one.mtime) == (digest, mtime):
                version = one  # it was away and is back: no write
        self.files[path] = version
        if not text.is_empty:
            self.versions.setdefault(path, []).append(version)

    def do_save(self, path: str, text: Text, how: str) -> None:
        content = text.content(path)
        self._write(path, content, how)
        self._version(path, text, content)

    def do_again(self, path: str, how: str) -> None:
        """The same bytes, or a touch."""
        if path not in self.files:
            return
        text = self.files[path].text
        content = text.content(path)
        if how == "touch":
            self._size_and_time(self.there / path)
            self._tell()
        else:
            self._write(path, content, how)
        self._version(path, text, content)

    def do_copy(self, old: str, new: str) -> None:
        if old not in self.files or old == new:
            return
        self.do_save(new, self.files[old].text, "in place")

    def do_move(self, old: str, new: str) -> None:
        if old not in self.files or old == new:
            return
        (self.there / new).parent.mkdir(parents=True, exist_ok=True)
        (self.there / old).rename(self.there / new)
        self._tell()
        version = self.files.pop(old)
        self._is_gone(old)
        content = (self.there / new).read_bytes()
        self._version(new, version.text, content, self._source(old, version))

    def _source(self, path: str, version: Version) -> str:
        """Where a version was when it was answered last, if it was."""
        return path if self.answered.get(path) is version else version.source

    def do_delete(self, path: str) -> None:
        if path not in self.files:
            return
        (self.there / path).unlink()
        del self.files[path]
        self._is_gone(path)
        self._tell()

    def do_defaults(self, folder: str, defaults: Defaults | None) -> None:
        target = self.there / folder / "_defaults.yaml"
        if defaults is None:
            target.unlink(missing_ok=True)
            self.defaults.pop(folder, None)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(defaults.content())
            self.defaults[folder] = defaults

    def do_picture(self, name: str, colour: int | None) -> None:
        """A start image comes, changes or goes."""
        if (colour is None) != (name not in self.pictures):
            self.pictures_changed_at = self.sim.now
        if colour is None:
            (self.there / name).unlink(missing_ok=True)
            self.pictures.pop(name, None)
        else:
            content = png(colour)
            (self.there / name).write_bytes(content)
            self.pictures[name] = hashlib.sha256(content).hexdigest()
        self._tell()

    def do_lora(self, there: bool) -> None:
        """A model that recipes name is installed, or removed."""
        path = self.home / f"models/loras/{LORA}.safetensors"
        if there != self.lora_is_there:
            self.lora_changed_at, self.lora_is_there = self.sim.now, there
        if there:
            write_model(path, kohya_lora_shapes())
        else:
            path.unlink(missing_ok=True)

    def do_lose_picture(self, index: int) -> None:
        """The user deletes a picture from the outbox."""
        left = [file for file in self.model.rendered() if file not in self.model.deleted]
        if left:
            file = left[index % len(left)]
            (self.outbox / file).unlink(missing_ok=True)
            self.model.deleted.add(file)

    def do_command(self, name: str, recipe: str | None) -> None:
        folder = self.outbox / ".picowatch" / "commands"
        folder.mkdir(parents=True, exist_ok=True)
        self.serial += 1
        told = {"command": name} | ({"recipe": recipe} if recipe else {})
        self.commands.append(folder / f"{self.serial:09}.json")
        self.commands[-1].write_text(json.dumps(told))

    def do_move_folder(self, old: str, new: str) -> None:
        inside = [path for path in self.files if path.startswith(f"{old}/")]
        if (self.there / new).exists() or not inside:
            return
        (self.there / old).rename(self.there / new)
        self._tell()
        if old in self.defaults:
            self.defaults[new] = self.defaults.pop(old)
        for path in inside:
            version = self.files.pop(path)
            self._is_gone(path)
            target = f"{new}/{path.removeprefix(f'{old}/')}"
            content = (self.there / target).read_bytes()
            self._version(target, version.text, content, self._source(path, version))

    def do_damage(self, index: int) -> None:
        """A picture in the outbox is overwritten."""
        left = [file for file in self.model.rendered() if (self.outbox / file).is_file()]
        if left:
            file = left[index % len(left)]
            (self.outbox / file).write_bytes(b"no picture")
            self.damaged.add(file)

    def do_foreign(self, folder: str, name: str) -> None:
        """Somebody puts a picture into a recipe's folder."""
        target = self.outbox / folder / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(png(9))
            self.foreign.add(f"{folder}/{name}")

    # -- the computer's

    def do_inbox(self, there: bool, empty: bool) -> None:
        """It is unmounted (an `empty` folder may be seen in its place), or mounted again."""
        if there and self.away:
            with suppress(OSError):
                self.inbox.rmdir()
            if not self.inbox.exists():
                self.away.rename(self.inbox)
                self.away, self.back_at = None, self.sim.now
        elif not there and not self.away:
            self.ghosts |= self.versions.keys() - self.files.keys()
            self.away = self.home / "unmounted"
            self.inbox.rename(self.away)
            if empty:
                self.inbox.mkdir()

    def do_outbox(self, there: bool, empty: bool) -> None:
        """As the inbox; in the `empty` folder nothing may be written."""
        if there and self.outbox_away:
            if self.outbox.exists():
                for path in sorted(self.outbox.rglob("*")):
                    self.findings.append(f"{path.name} was written where the outbox is not")
                shutil.rmtree(self.outbox)
            self.outbox_away.rename(self.outbox)
            self.outbox_away = None
            self.trouble_ended_at = self.sim.now
        elif not there and not self.outbox_away and self._is_up():
            self.do_lock_ledger(False)
            self.outbox_away = self.home / "unmounted outbox"
            self.outbox.rename(self.outbox_away)
            if empty:
                self.outbox.mkdir()

    def _is_up(self) -> bool:
        """Whether it has begun its work, and nothing was in its way lately."""
        since = max(self.started_at, self.trouble_ended_at)
        return self.process is not None and not self.trouble and self.sim.now - since > 5.0

    def do_lose_events(self) -> None:
        if EventWatch.armed is not None:
            EventWatch.armed.lose()

    def do_lock_ledger(self, locked: bool) -> None:
        """Another program looks into the ledger."""
        if self.locker is not None:
            self.locker.close()
            self.locker = None
            self.trouble_ended_at = self.sim.now
        path = self.outbox / ".picowatch/ledger.sqlite"
        if locked and path.exists():
            self.locker = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
            with suppress(sqlite3.Error):
                self.locker.execute("BEGIN EXCLUSIVE")

    def do_ledger(self, how: str) -> None:
        """It is lost, also in progress, or damaged, while nothing runs."""
        path = self.outbox / ".picowatch/ledger.sqlite"
        if not path.exists() or self.locker is not None or (self.process and how != "lost"):
            return
        if how == "lost":
            path.unlink()
        else:
            size = path.stat().st_size
            path.write_bytes(b"" if how == "emptied" else b"x" * size)

    def do_wait(self, seconds: float) -> None:
        self.run_for(seconds)
        is_free = self._is_up() and not self.locker and not self.away and not self.outbox_away
        if seconds >= SETTLED_SECONDS and is_free and not list(self._unanswered()):
            self.left.clear()
            self._look_at_the_work()

    def _look_at_the_work(self) -> None:
        """What nobody requests any more is not finished."""
        running = [image for image in self.model.images if image.state == "running"]
        if running and not self.model.ledgers_lost:
            wanted = self.model.wanted()
            if self.habits.engines == 1 and not any(image in wanted for image in running):
                self.findings.append(f"{running[0]}: goes on although nothing asks for it")

    def do_start(self) -> None:
        self.start()

    def do_stop(self) -> None:
        self.end()
        self._notice_death()

    def do_kill(self) -> None:
        self.kill()

    def do_die(self, point: str, count: int) -> None:
        """Die at a point, when it comes there so often."""
        self.fault = (point, count)

    def do_trouble(self, number: int | None) -> None:
        self.trouble = None if number is None else OSError(number, os.strerror(number))
        self.trouble_ended_at = self.sim.now

    def do_clock(self, seconds: float) -> None:
        self.sim.wall_ahead += seconds

    def do_pace(self, seconds: float) -> None:
        self.pace = seconds

    def do_hold(self, held: bool) -> None:
        self.held = held

    def do_bad(self, prompts: tuple[str, ...], deadly: bool) -> None:
        """These cannot be drawn from now on."""
        self.bad, self.deadly = (set(), set(prompts)) if deadly else (set(prompts), set())

    def do_habits(self, **changes: Any) -> None:
        """Settings that the next start reads."""
        self.habits = replace(self.habits, **changes)

    # -- what has to hold

    def finish(self) -> None:
        """What stands in the way goes away, all that is requested is rendered; then look."""
        self.do_trouble(None)
        self.do_lock_ledger(False)
        self.do_inbox(True, False)
        self.do_outbox(True, False)
        self.fault, self.pace, self.held = None, 0.0, False
        self.bad, self.deadly = set(), set()
        self.start()
        if not self._in_time(SETTLED_SECONDS):
            return
        self.do_command("resume", None)
        self.do_save("probe.yaml", Text((Entry("a probe", seed=1, steps=(1,)),)), "in place")
        quiet = self.sim.run(self._is_done, PATIENCE)
        self._notice_death()
        self._look_into_the_inbox()
        if self.process is None:
            return
        if not quiet and not self.is_torn:
            waiting = [str(image) for image in self.model.images if image.state == "queued"]
            unanswered = list(self._unanswered())
            status = self._status()
            self.findings.append(f"not all is made: {waiting[:3]} {unanswered} {status}")
        self.run_for(SETTLED_SECONDS + 1000 * self.habits.slowness)
        self.findings += self._look()
        self.end()
        self._notice_death()
        self.findings += self._look_at_the_end()

    def _in_time(self, seconds: float) -> bool:
        self.run_for(seconds)
        return self.process is not None

    def _is_done(self) -> bool:
        live = any(image.state in ("queued", "running") for image in self.model.images)
        return not live and not list(self._unanswered()) and self._is_quiet()

    def _is_quiet(self) -> bool:
        return not any(path.exists() for path in self.commands)

    def _unanswered(self) -> Iterator[str]:
        self._look_into_the_inbox()
        for path, version in self.files.items():
            known = self.answered.get(path)
            handled = known and (known.digest, known.mtime) == (version.digest, version.mtime)
            if not version.text.is_empty and not handled:
                yield f"{path} is not answered"
        for path in self.answered.keys() - self.files.keys() - self.ghosts:
            yield f"{path} is not forgotten"

    def _refused_for_nothing(self) -> Iterator[str]:
        """What a recipe lacked may have come since."""
        for path, recipe in self.model.recipes.items():
            version = self.answered.get(path)
            if not version or self.files.get(path) is not version or recipe.valid:
                continue
            if path in self.lacks_lora:  # a model that appears is no reason to try again
                continue
            if self._meaning(path, version.text, version.mtime) is not None:
                yield f"{path} is refused although what it lacked is there"

    def _status(self) -> Any:
        try:
            return json.loads((self.outbox / ".picowatch/status.json").read_text())["images"]
        except (OSError, ValueError) as error:
            return str(error)

    def _look(self) -> Iterator[str]:
        """While it runs and nothing is left to do."""
        yield from self._unanswered()
        yield from self._refused_for_nothing()
        counts = self.model.counts()
        states = ("queued", "running", "done", "failed", "cancelled")
        right = {state: counts[state] for state in states}
        if self._status() != right and not self.model.ledgers_lost:
            yield f"the status says {self._status()}, right is {right}"

    def _look_at_the_end(self) -> Iterator[str]:
        yield from self.model.findings
        yield from self.sim.escaped
        if not (self.outbox / "images.jsonl").exists():
            yield "no picture was made, not even of the probe"
            return
        if not self.is_torn:
            yield from self._look_at_files()
            yield from self._look_at_errors()
        for line in (self.outbox / "picowatch.log").read_text().splitlines():
            for words in ("Traceback", "nexpected error", "no such savepoint", "picowatch exits:"):
                if words in line:
                    yield f"in the log: {line}"

    def _look_at_files(self) -> Iterator[str]:
        made = self.model.rendered()
        pictures = {file for file in made if file not in self.model.deleted}
        ever = made.keys() | self.model.deleted
        sheets, texts = set(), set()
        for path in sorted(self.outbox.rglob("*")):
            file = path.relative_to(self.outbox).as_posix()
            if path.name.startswith(".picowatch-"):
                yield f"left over: {file}"
            if path.is_dir() or file.startswith(".picowatch/") or file in OWN_FILES:
                continue
            if file in self.damaged or file in self.foreign:
                pictures.discard(file)
            elif file in pictures:
                pictures.discard(file)
                chunk = read_chunk(read_texts(path)[PICOWATCH])
                image = made[file]
                told = chunk.request.prompt, chunk.request.steps, chunk.request.seed
                if told != (image.prompt, image.steps, image.seed):
                    yield f"{file} holds {told}, not {image}"
                text = path.with_suffix(".txt")
                if self.habits.sidecar == "txt" and not (text.exists() or self.model.ledgers_lost):
                    yield f"{file} lacks its text"
            elif "-sheet." in file and SHEET_KEYWORD in read_texts(path):
                sheets.add(file)
            elif file.endswith(".txt") and any(
                file.removesuffix(".txt") + ending in ever for ending in ENDINGS
            ):
                texts.add(file)
            elif not file.endswith((".error.txt", ".warning.txt")) and not self._is_archived(file):
                yield f"nobody requested for {file}"
        yield from (f"{file} is missing: {made[file]}" for file in sorted(pictures))
        if self.habits.sidecar == "none":
            yield from (f"nobody requested for {file}" for file in sorted(texts))
        yield from self._look_at_lists(set(made), sheets)
        if not self.model.ledgers_lost:
            yield from self._look_at_sheets(sheets)

    def _look_at_sheets(self, sheets: set[str]) -> Iterator[str]:
        """Each sweep and grid has one that shows its last draw."""
        shown = []
        for sheet in sheets:
            files = json.loads(read_texts(self.outbox / sheet)[SHEET_KEYWORD])["files"]
            shown.append({file for file in files if file})
        for path, recipe in self.model.recipes.items():
            for entry in recipe.entries:
                done = {i.file for i in entry.last_draw() if i.state == "done"}
                touched = done & (self.damaged | self.model.deleted | self.foreign)
                if done and entry.requested.wants_sheet and not touched and done not in shown:
                    yield f"{path} lacks the contact sheet of {sorted(done)}"

    def _is_archived(self, file: str) -> bool:
        is_recipe = file.endswith((".yaml", ".txt")) or "/originals/" in file
        return self.habits.when_done == "archive" and is_recipe

    def _look_at_lists(self, made: set[str], sheets: set[str]) -> Iterator[str]:
        listed = Counter(self._listed())
        for file, times in listed.items():
            if times > 1 + self.model.made_anew[file] and not self.model.ledgers_lost:
                yield f"{file} is listed {times} times"
        ever = made | self.model.deleted
        lost = self.damaged if self.model.ledgers_lost else set()
        yield from (f"{file} is not listed" for file in sorted(made - listed.keys() - lost))
        yield from (f"{file} is listed" for file in sorted(listed.keys() - ever))
        shown = Counter(self._shown())
        for file, times in shown.items():
            if times > 1:
                yield f"the gallery shows {file} {times} times"
        there = {file for file in made | sheets if (self.outbox / file).exists()}
        there -= self.damaged
        yield from (f"the gallery lacks {file}" for file in sorted(there - shown.keys()))

    def _listed(self) -> Iterator[str]:
        with suppress(FileNotFoundError):
            for line in (self.outbox / "images.jsonl").read_text().splitlines():
                with suppress(ValueError):  # torn
                    yield json.loads(line)["file"]

    def _shown(self) -> Iterator[str]:
        for page in sorted((self.outbox / ".picowatch/gallery").glob("page-*.js")):
            for line in page.read_text().splitlines():
                yield json.loads(line.removeprefix("picture(").removesuffix(");"))["file"]

    def _look_at_errors(self) -> Iterator[str]:
        # What was moved away, or is empty now, is no save: nothing is promised of its old error.
        old = self.ghosts | {path for path, one in self.files.items() if one.text.is_empty}
        wanted = {
            f"{path}.error.txt"
            for path, recipe in self.model.recipes.items()
            if (not recipe.valid or self.model.failed(path)) and path not in old
        }
        found = {p.relative_to(self.outbox).as_posix() for p in self.outbox.rglob("*.error.txt")}
        for path, recipe in self.model.recipes.items():
            file = self.outbox / f"{path}.error.txt"
            of_failures = file.exists() and any(why in file.read_text() for why in REASONS)
            if of_failures and not recipe.valid:
                yield f"{path}.error.txt does not say what is wrong with the recipe"
        yield from (f"{file} is missing" for file in sorted(wanted - found))
        spared = {f"{path}.error.txt" for path in old}
        yield from (f"{file} should be gone" for file in sorted(found - wanted - spared))


def _started(image: Any) -> Started:
    request = image.request
    return Started(
        image.id, image.recipe, request.prompt, request.steps, request.image_hash, request.seed,
        image.image_index, image.file,
    )  # fmt: skip


# -- wrapping picowatch from outside


@contextmanager
def _wrapped(world: World) -> Iterator[None]:
    undo: list[tuple[Any, str, Any]] = []

    def wrap(target: str, before: Callable[[], None]) -> None:
        module, _, path = target.partition(":")
        owner: Any = import_module(module)
        *owners, name = path.split(".")
        for part in owners:
            owner = getattr(owner, part)
        original = getattr(owner, name)
        undo.append((owner, name, original))

        def call(*arguments: Any, **named: Any) -> Any:
            before()
            return original(*arguments, **named)

        setattr(owner, name, call)

    def replace_name(owner: Any, name: str, value: Any) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    for point, target in POINTS.items():
        if " > " not in target:
            wrap(target, lambda point=point: world.at(point))  # type: ignore[misc]
    for name in ("sync_file", "rename", "sync_folder"):
        point = f"atomic: {name}"
        wrap(f"picowatch.files.atomic:{name}", lambda point=point: world.at(point))  # type: ignore[misc]
    for name in ("sync_file", "rename"):
        wrap(f"picowatch.files.atomic:{name}", world.before_write)
    wrap_database(world, replace_name)
    accepting = picowatch.daemon.accept.Accepting
    one = accepting._safely

    def polled(self: Any, change: Any, inventory: Any) -> Any:
        world.polled([change])
        return one(self, change, inventory)

    replace_name(accepting, "_safely", polled)
    # Other processes on this machine are not part of the simulation.
    replace_name(picowatch.inbox.inbox, "held_open_for_writing", lambda ids: set())
    replace_name(picowatch.ledger.database, "LOCK_SECONDS", 0.0)
    try:
        yield
    finally:
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)


def wrap_database(world: World, replace_name: Callable[[Any, str, Any], None]) -> None:
    """Connections of the dead must not write on."""
    database = picowatch.ledger.database.Database
    original = database._prepare

    def prepare(self: Any) -> None:
        world.databases.append(self)
        original(self)

    replace_name(database, "_prepare", prepare)


MISHAPS = (errno.ENOSPC, errno.EROFS, errno.EIO)
FAULT_POINTS = (
    *(point for point, target in POINTS.items() if " > " not in target),
    "atomic: sync_file", "atomic: rename", "atomic: sync_folder",
)  # fmt: skip
