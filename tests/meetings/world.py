"""The machine with its user, and the model that is told what picowatch does."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from watchdog.events import (
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
)

from picowatch.files.names import is_picture_name, with_mask
from tests.house import is_sheet, listed, rendered
from tests.meetings import checks
from tests.meetings.machine import PATIENCE, Habits, Machine
from tests.meetings.model import Model
from tests.meetings.recipes import STYLE, TEMPLATE, Entry, Picture, Text, png

SETTLED_SECONDS = 6.0  # after which everything that was done to the inbox is handled
SLOWLY_SECONDS = 0.3  # between the halves of a file that is written slowly: the inbox waits 0.5
MOST_RETRY_SECONDS = 12.0  # until what was refused for a single file or folder is tried again
REBUILT_SECONDS = 100.0  # at most: what lacks its picture is read again and again, slowly or not
DEATHS = 4  # of the daemon with an image in progress, after which the next one sets it aside

STYLED = f"styled/{STYLE}"  # a template's second picture

Action = tuple[Any, ...]
ENDS: tuple[Action, ...] = (
    ("trouble", None), ("lock", ""), ("slow", "", 0.0),
    ("inbox", True, False), ("outbox", True, False), ("clear_the_way",), ("set", "pace", 0.0),
    ("set", "disk_seconds", 0.0), ("set", "held", False), ("set", "fault", None), ("flaky", 0),
    ("bad", (), False), ("start",),
)  # fmt: skip


@dataclass(frozen=True)
class Version:
    """A version of a file: its sha256, its time (unique; a rename keeps it), its mask's time."""

    digest: str
    mtime: int
    mask: int = 0


class World(Machine):
    """A machine with the user of its inbox and outbox; `do_…` is what may happen."""

    def __init__(self, base: Path, seed: int, habits: Habits) -> None:
        super().__init__(base, seed, habits)
        self.model = Model(habits.engines == 1)
        self.files: dict[str, Version] = {}
        self.handled: dict[str, Version] = {}  # the last that was accepted or refused
        self.were: set[tuple[str, str, int]] = set()  # all versions, by path, digest and time
        self.kept: dict[str, Version | None] = {}  # the last accepted one of what is refused
        self.left: dict[str, float] = {}  # when paths were away since they were handled
        self.texts: dict[str, Text] = {}  # what was ever saved, by digest
        self.pictures: dict[str, str] = {}  # start images' sha256
        self.commands: list[Path] = []
        self.unseen: set[str] = set()  # by the ledger, since another folder is the inbox
        self.to_delete: set[str] = set()  # pictures that commands delete
        self.is_over = False
        self.again: dict[str, str] = {}  # what is to be read again, and how ("read", "saved")

    def do(self, action: Action) -> None:
        name, *given = action
        self.counts[name] += 1
        self._look_into_the_inbox()
        getattr(self, f"do_{name}")(*given)

    def expect(self, holds: object, words: str) -> None:
        """Note a finding unless a condition holds."""
        if not holds:
            self.findings.append(words)

    @property
    def there(self) -> Path:
        return self.away or self.inbox

    def text_at(self, path: str) -> Text:
        return self.texts[self.files[path].digest]

    def meaning(self, save: Any) -> Sequence[Entry]:
        """Return what a file requests now, a picture with its template."""
        text = self.texts[save.digest]
        if isinstance(text, Picture):
            template = self.texts[save.template]
            name = STYLE if save.path.count("/") == 1 else STYLED  # from a subfolder
            style = f"{name} {self.pictures.get(STYLED, '')}"
            # A mask that came after the save was read belongs to the next one.
            mask = self.mask_beside(save.path) if save.size_and_time.sidecars else ""
            found = [
                replace(entry, start=save.digest, style=style if entry.has_style else "", mask=mask)
                for entry in template.entries
            ]
        elif save.path.endswith(TEMPLATE):
            return ()
        else:
            found = [
                replace(entry, start=self.pictures.get(entry.image, "")) for entry in text.entries
            ]
        default = self.default_priority(save.path)
        return [replace(entry, priority=entry.priority or default) for entry in found]

    def default_priority(self, path: str) -> int:
        """Return the priority that the nearest `_defaults.yaml` gives."""
        for folder in Path(path).parents:
            if (file := self.there / folder / "_defaults.yaml").is_file():
                return int(file.read_text().removeprefix("priority: "))
        return 0

    def is_wrong(self, digest: str) -> bool:
        """Whether a recipe has a mistake, or names a picture that is not there now."""
        text = self.texts[digest]
        named = {STYLED if entry.has_style else entry.image for entry in text.entries}
        return text.broken or bool(named - {"", *self.pictures})

    def may_be_accepted(self, path: str) -> bool:
        """Whether a file has content and, if it is a dropped picture, a valid template."""
        for folder in Path(path).parents:
            if (template := f"{folder.as_posix()}/{TEMPLATE}") in self.files:
                text = self.text_at(template)
                return not (text.is_empty or self.is_wrong(self.files[template].digest))
        return not self.text_at(path).is_empty

    def _waits_for_style(self, path: str) -> bool:
        return isinstance(self.text_at(path), Picture) and not self.may_be_accepted(path)

    # -- what the user does in the inbox

    def _tell(self, what: Callable[..., FileSystemEvent], *paths: Path) -> None:
        if self.sim.watches and not self.away and self.habits.events:
            self.sim.watches[-1].on_any_event(what(*map(str, paths)))

    def _write(
        self, path: str, content: bytes, how: str, like: os.stat_result | None = None
    ) -> None:
        """Write a file; `like`: with the time of an earlier one, whose ctime has passed."""
        target = self.there / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if how == "slowly" and not self.sim.slowness:  # else threads may take longer than the user
            target.write_bytes(content[: len(content) // 2])
            self.stamp(target)
            self._note(path)  # what was moved there is there no more
            self._tell(FileModifiedEvent, target)
            self.do_wait(SLOWLY_SECONDS)
            target = self.there / path
        written = target.with_name(f".{target.name}.tmp") if how == "by rename" else target
        written.write_bytes(content)
        self.stamp(written)
        if like:
            os.utime(written, ns=(like.st_mtime_ns, like.st_mtime_ns))
        while like and written.stat().st_ctime_ns <= like.st_ctime_ns:  # it has coarse steps
            written.touch()
            os.utime(written, ns=(like.st_mtime_ns, like.st_mtime_ns))
        written.replace(target)
        if written == target:
            self._tell(FileClosedEvent, target)
        else:
            self._tell(FileMovedEvent, written, target)

    def _note(self, path: str) -> None:
        target = self.there / path
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        self.files[path] = Version(digest, target.stat().st_mtime_ns, self._mask_time(path))
        self.were.add((path, digest, self.files[path].mtime))

    def _mask_time(self, path: str) -> int:
        mask = self.there / with_mask(path)[-1]
        return mask.stat().st_mtime_ns if mask.is_file() else 0

    def mask_beside(self, path: str) -> str:
        mask = self.there / with_mask(path)[-1]
        return hashlib.sha256(mask.read_bytes()).hexdigest() if mask.is_file() else ""

    def do_save(self, path: str, text: Text, how: str = "in place") -> None:
        self.texts[hashlib.sha256(text.content()).hexdigest()] = text
        self._write(path, text.content(), how)
        self._note(path)

    def do_again(self, path: str, how: str) -> None:
        if path in self.files and how == "touch":
            self.stamp(self.there / path)
            self._tell(FileAttribEvent, self.there / path)
            self._note(path)
        elif path in self.files:
            self.do_save(path, self.text_at(path), how)

    def do_alike(self, path: str, how: str) -> None:
        """Save other bytes of the same size with the same time."""
        if path in self.files:
            before, text = (self.there / path).stat(), self.text_at(path).alike()
            if len(text.content()) == before.st_size:
                self.texts[hashlib.sha256(text.content()).hexdigest()] = text
                self._write(path, text.content(), how, before)
                self._note(path)

    def do_mode(self, path: str) -> None:
        if path in self.files:
            (self.there / path).chmod((self.there / path).stat().st_mode ^ 0o020)
            self._tell(FileAttribEvent, self.there / path)

    def do_link(self, path: str) -> None:
        """Give a file another name elsewhere, as backups do."""
        if path in self.files:
            self.serial += 1
            (self.home / f"backup {self.serial}").hardlink_to(self.there / path)

    def do_replace_inbox(self) -> None:
        """Put a copy with other times in the inbox's place, if all that is there is noticed."""
        is_noticed = all(self.handled.get(path, now) == now for path, now in self.files.items())
        is_quiet = is_noticed and not [*self.not_handled()] and not self.unseen
        if self.away or self.habits.disks or not is_quiet:
            return
        old = self.inbox.rename(self.home / "old inbox")
        shutil.copytree(old, self.inbox, copy_function=shutil.copyfile)
        shutil.rmtree(old)
        for path in self.files:
            self.stamp(self.inbox / path)
            self._note(path)
        self.unseen = {*self.handled.keys() & self.files.keys()}

    def do_copy(self, old: str, new: str) -> None:
        if old in self.files and old != new:
            self.do_save(new, self.text_at(old))

    def do_daily(self, old: str, new: str) -> None:
        """Remove a file, and write the same into another, as cron does every day."""
        if old in self.files and old != new and old not in self.unseen:
            text = self.text_at(old)
            self.do_delete(old)
            self.do_save(new, text)

    def do_move(self, old: str, new: str) -> None:
        moved = [path for path in self.files if f"{path}/".startswith(f"{old}/")]
        is_in_the_way = old not in self.files and (self.there / new).exists()
        if not moved or old == new or is_in_the_way or self.unseen & {*moved}:
            return
        (self.there / new).parent.mkdir(parents=True, exist_ok=True)
        (self.there / old).rename(self.there / new)
        what = FileMovedEvent if old in self.files else DirMovedEvent
        self._tell(what, self.there / old, self.there / new)
        for path in moved:
            del self.files[path]
            self.left[path] = self.sim.now
            self._note(f"{new}{path.removeprefix(old)}")

    def do_delete(self, path: str) -> None:
        if path in self.files and path not in self.unseen:
            (self.there / path).unlink()
            del self.files[path]
            self.left[path] = self.sim.now
            self._tell(FileDeletedEvent, self.there / path)

    def do_picture(self, name: str, colour: int | None) -> None:
        """Add, replace or delete a start image, unless it may be in the middle of a save."""
        if self.is_read_before and name in self.pictures:
            return
        if colour is not None:
            self._write(name, png(colour), "in place")
            self.pictures[name] = hashlib.sha256(png(colour)).hexdigest()
        elif self.pictures.pop(name, None):
            (self.there / name).unlink()
            self._tell(FileDeletedEvent, self.there / name)

    def do_mask(self, path: str, colour: int | None) -> None:
        """Add, replace or delete the mask beside a dropped picture, as `do_picture`."""
        mask, is_there = with_mask(path)[-1], self.mask_beside(path)
        if self.is_read_before and is_there:
            return
        if colour is not None:
            self._write(mask, png(colour), "in place")
        elif is_there:
            (self.there / mask).unlink()
            self._tell(FileDeletedEvent, self.there / mask)
        if path in self.files:
            self._note(path)

    def do_defaults(self, folder: str, priority: int | None) -> None:
        """Give a folder's recipes a priority from their next save on, or none, as `do_picture`."""
        if self.is_read_before:
            return
        path = f"{folder}/_defaults.yaml"
        if priority is not None:
            self._write(path, f"priority: {priority}".encode(), "in place")
        else:
            (self.there / path).unlink(missing_ok=True)

    def do_inbox(self, there: bool, empty: bool) -> None:
        """Unmount the inbox, perhaps leaving an `empty` folder, or mount it again."""
        if there and self.away:
            with suppress(OSError):
                self.inbox.rmdir()
            if not self.inbox.exists():
                self.away.rename(self.inbox)
                self.away = None
        elif not there and not self.away:
            self.away = self.home / "unmounted"
            self.inbox.rename(self.away)
            if empty:
                self.inbox.mkdir()

    # -- … and in the outbox

    def do_lose_picture(self, index: int) -> None:
        if self.habits.halting or any(path.exists() for path in self.commands):
            return  # it may be in the middle of a move, or of the look whether it is there
        left = [file for file in self.model.rendered() if (self.outbox / file).is_file()]
        if left:
            (self.outbox / left[index % len(left)]).unlink()
            self.model.deleted.add(left[index % len(left)])

    def do_command_on_pictures(self, name: str, folder: str | None, index: int, count: int) -> None:
        """Delete some pictures by a command, or move or copy them with their sheets."""
        found = [] if self.outbox_away else rendered(self.outbox)
        found = [file for file in found if folder or not is_sheet(file)]
        if found:
            self.do_command(name, folder, found[index % len(found) :][:count])

    def do_command(self, name: str, recipe: str | None, files: Sequence[str] = ()) -> None:
        if self.outbox_away:
            return
        folder = self.outbox / ".picowatch" / "commands"
        folder.mkdir(parents=True, exist_ok=True)
        self.serial += 1
        told = {"command": name, "files": files} | ({"recipe": recipe} if recipe else {})
        self.commands.append(folder / f"{self.serial:09}.json")
        self.commands[-1].write_text(json.dumps(told))

    # -- what the ledger is told

    def hear(self, name: str, given: Any, named: Any, result: Any) -> None:
        """Compare a committed change with what the user did, and tell the model."""
        if self.is_over:
            return
        self._note_deleted()
        take = getattr(self, f"_heard_{name}", None) or getattr(self.model, name)
        try:
            take(*given, result=result, **named)
        except Exception as error:  # the daemon's thread must not see it
            self.findings.append(f"{name}{given[:2]}: {type(error).__name__}: {error}")

    def leaves(self, _: Any, moved: dict[str, str]) -> None:
        self.model.leave(moved)

    def deletes(self, _: Any, files: Collection[str]) -> None:
        self.to_delete |= {*files}

    def copied(self, files: Iterable[str]) -> None:
        self.model.copies |= {*files}

    def _note_deleted(self) -> None:
        gone = {file for file in self.to_delete if not (self.outbox / file).exists()}
        if not self.outbox_away:
            self.model.deleted |= gone

    def _heard_accept(self, save: Any, entries: object, *, result: object, **_: Any) -> None:
        last, before = self.handled.get(save.path), self._accepted_before(save.path)
        if self._is_handled_now(save):
            text = self.texts[save.digest]
            is_right = not self.is_wrong(save.digest)
            self.expect(is_right, f"{save.path} was accepted although it is wrong")
            now = self.handled[save.path]
            same = before is not None and (before.digest, before.mask) == (now.digest, now.mask)
            asked = self.again.pop(save.path, "")
            is_again = asked != "saved" and same and (isinstance(text, Picture) or before == now)
            is_edited = last is not None and last.digest != now.digest
            self.model.accept(save.path, self.meaning(save), is_again=is_again, is_edited=is_edited)

    def _accepted_before(self, path: str) -> Version | None:
        """Return the last accepted version of a recipe that was not asked for as if saved."""
        recipe = self.model.recipes.get(path)
        if recipe is None:
            return None
        return self.handled.get(path) if recipe.valid else self.kept.get(path)

    def _heard_refuse(self, save: Any, problem: object, *, result: object, **_: Any) -> None:
        if save.path.endswith(TEMPLATE) and not save.size_and_time.mtime_ns:
            return  # of a picture under it
        known = self.model.recipes.get(save.path)
        if save.path.endswith(TEMPLATE) and known and known.valid and self._is_known(save):
            is_wrong = self.away or self.is_wrong(save.digest)
            self.expect(is_wrong, f"{save.path} was refused although its picture is there")
            self.model.refuse(save.path)
            return
        before = self._accepted_before(save.path)
        if self._is_handled_now(save):
            names = any(entry.image or entry.has_style for entry in self.texts[save.digest].entries)
            may_be_late = names and (self.is_slow or self.habits.slices or not self.is_up())
            is_wrong = self.away or self.is_wrong(save.digest) or may_be_late
            asked = self.again.pop(save.path, None)
            self.kept[save.path] = None if asked == "saved" else before
            self.expect(is_wrong, f"{save.path} was refused although it is right")
            self.model.refuse(save.path)

    def _is_known(self, save: Any) -> bool:
        """Whether it is the version that was handled last: a picture under a template needs it."""
        return self.handled.get(save.path) == Version(save.digest, save.size_and_time.mtime_ns)

    def _is_handled_now(self, save: Any) -> bool:
        """Note what was accepted or refused, and whether it had to be."""
        path, found = save.path, save.size_and_time
        mask = self._mask_time(path) if found.sidecars else 0
        version = Version(save.digest, found.mtime_ns, mask)
        last, recipe = self.handled.get(path), self.model.recipes.get(path)
        if last == version and path not in self.again and (recipe is None or recipe.valid):
            self.expect(False, f"{path} was handled although nobody saved it")
            return False
        for other, known in self.handled.items():
            was_there = self.files.get(other) == known or self.left.get(other, 0.0) > self.took_at
            is_gone = not was_there and self.model.recipes[other].valid
            is_moved = other != path and known == version and is_gone
            self.expect(not is_moved, f"{other} was renamed to {path}, which was made anew")
        self.handled[path] = version
        self.unseen.discard(path)
        return True

    def _heard_seen(self, inbox_id: str, versions: Any, *, result: object) -> None:
        """Take files whose bytes are the ledger's, at another time."""
        for path, at in versions:
            self.unseen.discard(path)
            if known := self.handled.get(path):
                mask = self._mask_time(path) if at.sidecars else 0
                self.handled[path] = Version(known.digest, at.mtime_ns, mask)

    def _heard_forget(self, path: str, *, result: object) -> None:
        self.again.pop(path, None)
        known, there = self.handled.pop(path, None), self.files.get(path)
        if known is not None and there is not None:
            was_away = path in self.left or there != known
            self.expect(was_away, f"{path} was forgotten although it is there")
        elif known is not None:
            self._expect_no_other_name(path, known)
        self.model.forget(path)

    def _expect_no_other_name(self, path: str, known: Version) -> None:
        """Expect that what is forgotten, if it was valid, is nowhere else in the inbox."""
        for other, version in self.files.items():
            is_moved = version == known != self.handled.get(other)
            is_lost = is_moved and other != path and self.model.recipes[path].valid
            self.expect(not is_lost, f"{path} is forgotten, not renamed to {other}")

    def _heard_archive(self, path: str, *, result: object) -> None:
        self.again.pop(path, None)
        known, there = self.handled.pop(path, None), self.files.get(path)
        is_there = (self.there / path).exists() and not self.is_slow  # it may be saved anew
        is_taken = self.when_done != "keep" and not is_there
        self.expect(is_taken, f"{path} was archived although it is to stay")
        if known is not None and there is not None and there.digest == known.digest:
            del self.files[path]
        self.model.forget(path)

    def _heard_rename(self, old: str, new: str, *, result: object, exchanges: bool = False) -> None:
        known, replaced = self.handled.get(old), self.handled.get(new)
        if replaced and not exchanges:
            self._expect_no_other_name(new, replaced)
        accounts: list[dict[str, Any]] = [self.handled, self.kept, self.again]
        for account in accounts:
            of_old, of_new = account.pop(old, None), account.pop(new, None)
            account |= {new: of_old} if of_old else {}
            account |= {old: of_new} if of_new and exchanges else {}
        is_there = old in self.files and old not in self.left
        is_same = known is not None and (new, known.digest, known.mtime) in self.were
        self.expect(is_same and not is_there, f"{old} was taken for renamed to {new}")
        self.model.rename(old, new, exchanges=exchanges)
        if known:
            entries, default = self.texts[known.digest].entries, self.default_priority(new)
            if self.model.recipes[new].valid and not self.is_wrong(known.digest):
                self.model.prioritise(new, [entry.priority or default for entry in entries])

    def _heard_want_again(self, recipes: Sequence[str], *, result: object, as_saved: bool) -> None:
        """Take `retry --all` or `make DIR`: recipes are read again, if idle as if saved."""
        for path in self.handled.keys() & {*recipes}:
            is_new = as_saved and not self.model.is_unfinished(path)
            self.again[path] = "saved" if is_new else max(self.again.get(path, ""), "read")

    def _heard_picture_missing(self, image: Any, *, result: object) -> None:
        """Take a dropped picture that was moved or deleted; a move may be noticed later."""
        known = self.model.by_id.get(image.id)
        if known is None or (known.state, known.file) == ("running", image.file):
            path = known.recipe if known else image.recipe
            self.again[path] = max(self.again.get(path, ""), "read")
            there = self.files.get(path)
            made_of = image.request.image_hash, image.request.mask_hash
            was_there = there and (there.digest, self.mask_beside(path)) == made_of
            is_away = self.away or {path, image.recipe} & self.left.keys()
            self.expect(is_away or not was_there, f"{path} was put off although it is there")
        self.model.ended(image, "cancelled")

    def _heard_fail(self, row: Any, reason: str, *, result: object, **_: Any) -> None:
        if image := self.model.by_id.get(row.id):
            made_of = image.entry.prompt, image.seed or 0
            is_blamed = made_of in self.blamed or image.deaths >= DEATHS
            if "cannot be written" in reason:
                is_blamed = bool({*map(str, Path(row.file).parents)} & self.was_locked)
            self.expect(is_blamed, f"{image} failed: {reason}")
        self.model.ended(row, "failed")

    # -- what has to hold

    def do_wait(self, seconds: float) -> None:
        super().do_wait(seconds)
        is_free = self.is_up() and not self.away
        if seconds >= SETTLED_SECONDS and is_free and not list(self.not_handled()):
            self.left.clear()
            self.findings += checks.of_the_work(self)

    def finish(self) -> None:
        """Remove all obstacles, let everything be rendered, and check the result."""
        self._look_into_the_inbox()
        for name, *given in ENDS:
            getattr(self, f"do_{name}")(*given)
        self.do_wait(SETTLED_SECONDS)
        if self.process is None:
            return
        self.do_command("resume", None)
        self.do_save("probe.yaml", Text((Entry("a probe", seed=1),)))
        quiet = self.sim.run(self._is_done, PATIENCE)
        self.notice_death()
        if self.process is None:
            return
        made = (image.file for image in self.model.images if image.recipe == "probe.yaml")
        file, ending = next(made, ""), str(self.saved.get("format", "png")).replace("jpeg", "jpg")
        # Settings that were replaced by wrong ones at once were never read.
        is_right = file.endswith(ending) or self.is_slow or not self.settings_work
        self.expect(is_right, f"{file} is written with other settings than {self.saved}")
        if not quiet:
            waiting = [str(image) for image in self.model.images if image.state == "queued"]
            unanswered = list(self.not_handled())
            self.findings.append(f"not all is made: {waiting[:3]} {unanswered} {self.status()}")
        waits_alone = self.was_locked or not self.settings_work
        seconds = MOST_RETRY_SECONDS if waits_alone else SETTLED_SECONDS
        halts = 1000 * (self.habits.slowness + self.habits.halting)
        self.do_wait(seconds + halts)
        self.findings += checks.while_it_runs(self)
        self.do_stop()
        if self.was_without_gallery and self.process is None:  # a start makes it again
            self.do_start()
            self.do_wait(SETTLED_SECONDS + halts)
            self.do_stop()
        self._note_deleted()
        self.findings += checks.at_the_end(self)
        self.counts["pictures"] += len(self.model.rendered())
        if self.process is None:
            self._lose_ledger()

    def _lose_ledger(self) -> None:
        """Check that a new ledger has nothing rendered again that was rendered.

        Of files with the same bytes, any may take over what one of them had. What is left of a
        photo is rendered as its template says now.
        """
        self.is_over = True  # the model knows no new ledger
        before, left = len(listed(self.outbox)), Counter[str]()
        for path in self.model.recipes:
            left[self._bytes_of(path)] += sum(i.state != "done" for i in self.model.of(path))
        self.ledger.unlink()
        for path in [*self.files] if self.sim.dice.random() < 0.5 else ():
            self._move_unnoticed(path)
        if self.sim.dice.random() < 0.3:
            self.slow = dict.fromkeys(self.files, 3.0)
        self.do_start()
        self.sim.run(self._has_rested, REBUILT_SECONDS)
        self.do_stop()
        paths = [line["recipe"] for line in listed(self.outbox)[before:]]
        made = Counter(map(self._bytes_of, paths))
        for path in paths:
            done, most = (count[self._bytes_of(path)] for count in (made, left))
            words = f"without a ledger {done} pictures of {path} are made, {most} were left"
            self.expect(done <= most or bool(most and is_picture_name(path)), words)

    def _bytes_of(self, path: str) -> str:
        """Return what identifies a file's bytes; its path if it is gone."""
        return self.files[path].digest if path in self.files else path

    def _move_unnoticed(self, path: str) -> None:
        """Rename a recipe or a photo that is done, while nobody looks."""
        is_known = path in self.model.recipes and not self.mask_beside(path)
        if is_known and {image.state for image in self.model.of(path)} == {"done"}:
            folder, slash, name = path.rpartition("/")
            self.do_move(path, f"{folder}{slash}moved {name}")

    def _has_rested(self) -> bool:
        """Whether a new ledger's daemon has looked into the inbox, and has nothing to do."""
        if self.sim.now < max(self.started_at + SETTLED_SECONDS, self.slow_until):
            return False
        images = self.status()
        return not images["queued"] + images["running"]

    def _is_done(self) -> bool:
        counts = self.model.counts()
        is_quiet = not any(path.exists() for path in self.commands)
        return is_quiet and not counts["queued"] + counts["running"] and not [*self.not_handled()]

    def _look_into_the_inbox(self) -> None:
        """Find files that were archived or deleted because of a setting."""
        for path, version in list(self.files.items()):
            if (self.there / path).exists():
                continue
            del self.files[path]
            known = self.handled.get(path)
            is_other = known and known.digest != version.digest
            is_taken = self.when_done != "keep" and not is_other
            self.expect(is_taken, f"{path} vanished from the inbox")

    def not_handled(self) -> Iterator[str]:
        self._look_into_the_inbox()
        for path, version in self.files.items():
            is_empty = self.texts[version.digest].is_empty or self._waits_for_style(path)
            known = self.handled.get(path)
            if known and not version.mask:  # one that was removed requests nothing
                known = replace(known, mask=0)
            if not is_empty and known != version:
                yield f"{path} is neither accepted nor refused"
            elif not (is_empty or self.model.recipes[path].valid or self.is_wrong(version.digest)):
                yield f"{path} is refused although what it lacked is there"
        for path in self.again.keys() & self.files.keys():
            if self.may_be_accepted(path):
                yield f"{path} is not read again"
        for path in self.handled.keys() - self.files.keys():
            yield f"{path} is not forgotten"

    def status(self) -> Any:
        return json.loads((self.outbox / ".picowatch/status.json").read_text())["images"]
