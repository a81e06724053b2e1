"""What users do in the folders, with each version of each file."""

import hashlib
import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.meetings.machine import Habits, Machine
from tests.meetings.model import Model
from tests.meetings.recipes import (
    TEMPLATE,
    Defaults,
    Picture,
    Requested,
    Text,
    png,
    requested,
)
from tests.meetings.simulation import EventWatch

BACK_SECONDS = 2.0  # after which it has been noticed that the inbox is there again
SLOWLY_SECONDS = 0.3  # between the halves of a file that is written slowly: the inbox waits 0.5


@dataclass
class Version:
    """A version of a file in the inbox. `source`: the accepted path that it was moved from."""

    serial: int
    text: Text
    digest: str
    mtime: int
    source: str = ""


class User(Machine):
    """A user of a machine's inbox and outbox."""

    def __init__(self, base: Path, seed: int, habits: Habits) -> None:
        super().__init__(base, seed, habits)
        self.model = Model(habits.engines == 1)
        self.serial = 0
        self.files: dict[str, Version] = {}
        self.versions: dict[str, list[Version]] = {}  # of each path, all that ever lay there
        self.handled: dict[str, Version] = {}  # the last that was accepted or refused
        self.left: set[str] = set()  # paths that were away since they were handled
        self.defaults: dict[str, Defaults] = {}
        # … as they were when a version of a recipe was read, and the templates of pictures
        self.defaults_read: dict[tuple[str, int], dict[str, Defaults]] = {}
        self.templates_read: dict[tuple[str, int], Text] = {}
        self.pictures: dict[str, str] = {}  # start images' sha256
        self.pictures_changed_at = 0.0
        self.commands: list[Path] = []
        self.away: Path | None = None  # where the inbox lies instead
        self.back_at = -math.inf  # when it was there again
        self.ghosts: set[str] = set()  # recipes deleted where nobody could see it
        self.written_again: set[str] = set()  # … and not handled since
        self.spoilt: set[str] = set()  # files of the outbox that others wrote

    @property
    def there(self) -> Path:
        """Return the paths of the user's recipes now."""
        return self.away or self.inbox

    def meaning(self, path: str, version: Version) -> list[Requested] | None:
        """Return what this version requests now; None if it is invalid."""
        if version.text.broken or version.text.is_empty:
            return None
        if path.endswith(TEMPLATE):
            return []
        found = self.looked_up(path, version)
        return None if any(one.entry.image and not one.start for one in found) else found

    def looked_up(self, path: str, version: Version) -> list[Requested]:
        """Return its entries with the defaults that were read with it, and today's start images."""
        read = path, version.mtime
        there = self.defaults_read.get(read, self.defaults)
        folders = ["", *(folder.as_posix() for folder in [*reversed(Path(path).parents)][1:])]
        defaults = [there[folder] for folder in folders if folder in there]
        if isinstance(version.text, Picture):
            return [
                requested(e, defaults, version.digest) for e in self.templates_read[read].entries
            ]
        return [
            requested(entry, defaults, self.pictures.get(entry.image or "", ""))
            for entry in version.text.entries
        ]

    def template_of(self, path: str) -> Text | None:
        """Return what the nearest template says now."""
        for folder in Path(path).parents:
            if template := self.files.get(f"{folder.as_posix()}/{TEMPLATE}"):
                return template.text
        return None

    # -- files of the inbox

    def _tell(self) -> None:
        if EventWatch.armed is not None and not self.away and self.habits.events:
            EventWatch.armed.on_any_event(None)  # type: ignore[arg-type]

    def _stamp(self, target: Path) -> None:
        """Set a file's time to the simulated clock's; no two are equal."""
        self.serial += 1
        when = int(self.sim.wall()) * 10**9 + self.serial
        os.utime(target, ns=(when, when))

    def _write(self, path: str, content: bytes, how: str) -> None:
        target = self.there / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if how == "slowly" and not self.sim.slowness:  # else threads may take longer than the user
            target.write_bytes(content[: len(content) // 2])
            self._stamp(target)
            if path in self.files:  # what was moved there is there no more
                self.files[path] = replace(self.files[path], source="")
            self._tell()
            self.do_wait(SLOWLY_SECONDS)
            target = self.there / path
        if how == "by rename":
            temporary = target.with_name(f".{target.name}.tmp")
            temporary.write_bytes(content)
            self._stamp(temporary)
            temporary.replace(target)
        else:
            target.write_bytes(content)
            self._stamp(target)
        self._tell()

    def _is_gone(self, path: str) -> None:
        self.left.add(path)
        # picowatch looks for an inbox that is away once a second.
        seen_again = self.back_at + BACK_SECONDS + 1000 * self.habits.slowness
        if self.away or self.sim.now < seen_again or path in self.written_again:
            self.ghosts.add(path)  # a deletion that nobody saw is none

    def _note(self, path: str, text: Text, source: str = "") -> None:
        """Note what is at a path now."""
        self.serial += 1
        target = self.there / path
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        version = Version(self.serial, text, digest, target.stat().st_mtime_ns, source)
        if path in self.ghosts:
            self.ghosts.discard(path)
            self.written_again.add(path)
        for one in (self.handled.get(path), *self.versions.get(path, ())):
            if one is not None and (one.digest, one.mtime) == (digest, version.mtime):
                version = one  # it was away and is back: no write
        self.files[path] = version
        if not text.is_empty:
            self.versions.setdefault(path, []).append(version)

    def _note_move(self, old: str, new: str) -> None:
        version = self.files.pop(old)
        self._is_gone(old)
        is_handled = self.handled.get(old) is version
        self._note(new, version.text, old if is_handled else version.source)

    def do_save(self, path: str, text: Text, how: str = "in place") -> None:
        self._write(path, text.content(path), how)
        self._note(path, text)

    def do_again(self, path: str, how: str) -> None:
        """Save the same bytes, or touch the file."""
        if path not in self.files:
            return
        if how == "touch":
            self._stamp(self.there / path)
            self._tell()
            self._note(path, self.files[path].text)
        else:
            self.do_save(path, self.files[path].text, how)

    def do_copy(self, old: str, new: str) -> None:
        if old in self.files and old != new:
            self.do_save(new, self.files[old].text)

    def do_move(self, old: str, new: str) -> None:
        if old not in self.files or old == new:
            return
        (self.there / new).parent.mkdir(parents=True, exist_ok=True)
        (self.there / old).rename(self.there / new)
        self._tell()
        self._note_move(old, new)

    def do_move_folder(self, old: str, new: str) -> None:
        inside = [path for path in self.files if path.startswith(f"{old}/")]
        if (self.there / new).exists() or not inside:
            return
        (self.there / old).rename(self.there / new)
        self._tell()
        if old in self.defaults:
            self.defaults[new] = self.defaults.pop(old)
        for path in inside:
            self._note_move(path, f"{new}/{path.removeprefix(f'{old}/')}")

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
        """Add, change or delete a start image."""
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

    def do_inbox(self, there: bool, empty: bool) -> None:
        """Unmount the inbox, perhaps leaving an `empty` folder, or mount it again."""
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

    def do_lose_events(self) -> None:
        """Lose events, as if the kernel's queue was full."""
        if EventWatch.armed is not None:
            EventWatch.armed.has_news.clear()

    # -- files of the outbox

    def _rendered(self, index: int) -> str | None:
        left = [file for file in self.model.rendered() if (self.outbox / file).is_file()]
        return left[index % len(left)] if left else None

    def do_lose_picture(self, index: int) -> None:
        """Delete a picture."""
        if file := self._rendered(index):
            (self.outbox / file).unlink()
            self.model.deleted.add(file)

    def do_damage(self, index: int) -> None:
        """Overwrite a picture."""
        if file := self._rendered(index):
            (self.outbox / file).write_bytes(b"no picture")
            self.spoilt.add(file)

    def do_foreign(self, folder: str, name: str) -> None:
        """Put a picture into a recipe's folder."""
        target = self.outbox / folder / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(png(9))
            self.spoilt.add(f"{folder}/{name}")

    def do_command(self, name: str, recipe: str | None) -> None:
        folder = self.outbox / ".picowatch" / "commands"
        folder.mkdir(parents=True, exist_ok=True)
        self.serial += 1
        told = {"command": name} | ({"recipe": recipe} if recipe else {})
        self.commands.append(folder / f"{self.serial:09}.json")
        self.commands[-1].write_text(json.dumps(told))
