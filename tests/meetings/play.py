"""Random users: sequences of actions that are played, and shortened if they find something."""

import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from tests.meetings.machine import FAULT_POINTS, MISHAPS, NO_SETTINGS, Habits
from tests.meetings.recipes import TEMPLATE, Entry, Picture, Text
from tests.meetings.simulation import NeverRests
from tests.meetings.world import Action, World

LENGTH = 60  # actions of a random script
EXTRAS = 0.4  # how often one of the rarer ones follows
PATHS = ("a.yaml", "b.yaml", "c.yaml", "pets/a.yaml", "live/a.yaml", "live/c.yaml")
FOLDERS = ("live", "pets", "cats")
PICTURES = ("one.png", "two.png")
STYLED = ("styled/1.png", "styled/a/2.png")  # photos whose template names a second picture
MASKED = ("masked/1.png", "masked/2.png")  # photos that may have a mask
KEPT = ("kept", "kept/best", "a", "frames/a")  # folders into which pictures are put
FRAMES = ("frames/1.png", "frames/2.png", "frames/a/1.png", "frames/a/2.png")
MASKS: Action = ("save", f"masked/{TEMPLATE}", Text((Entry("masked", seed=1),)))
WRITING = ("in place", "by rename", "slowly")
SETTINGS: tuple[dict[str, object], ...] = (
    {},
    {"format": "jpeg"},
    {"format": "webp", "batch_size": 2},
    {"batch_size": 1},
)
LOCKED = ("a", "b", "pets", "live", "frames")  # folders of the outbox
# picowatch's own files that no picture needs, and what may be in their place: links to others …
OWN = (
    "latest.png", "latest.jpg", "now.txt", "index.html", "failures.jsonl", "picowatch.log",
    "summary.txt", ".picowatch/status.json", ".picowatch/gallery", ".picowatch/gallery/pages.js",
    ".picowatch/gallery/page-00001.js", ".picowatch/gallery/now.js", ".picowatch/gallery/thumbs",
    f"masked/{TEMPLATE}.warning.txt", "probe.yaml.warning.txt",
)  # fmt: skip
IN_THE_WAY = ("nothing", "theirs.txt", "folder", "a folder", "a pipe")
AGAIN = ("retry all", "make folder")
FAST_DISK = Path("/dev/shm")


@dataclass(frozen=True)
class Script:
    """A repeatable run: dice for the threads, settings, and actions. Its text can be pasted."""

    seed: int
    habits: Habits
    actions: tuple[Action, ...]


def play(script: Script, counts: Counter[str] | None = None) -> list[str]:
    place = FAST_DISK if FAST_DISK.is_dir() else None
    base = Path(tempfile.mkdtemp(prefix="meetings-", dir=place))
    world = World(base, script.seed, script.habits)
    with world.on_stage():
        try:
            world.do_start()
            for action in script.actions:
                world.do(action)
            world.finish()
        except NeverRests as error:
            world.findings.append(str(error))
        except Exception as error:  # a hole in the machine itself is worth a script, too
            world.findings.append(f"{type(error).__name__}: {error} {traceback.format_exc()}")
    if counts is not None:
        counts += world.counts
    return world.findings


def shorter(script: Script) -> Script:
    """Return fewer actions that still find something (Zeller's delta debugging)."""
    size = max(1, len(script.actions) // 2)
    while size:
        start, before = 0, script
        while start < len(script.actions):
            fewer = replace(script, actions=script.actions[:start] + script.actions[start + size :])
            if play(fewer):
                script = fewer
            else:
                start += size
        if size > 1 or script is before:
            size //= 2
    return script


def random_script(seed: int, *, varies: bool = False) -> Script:
    """Return a random user's script, the same each time; with other counts if it `varies`."""
    writer = _Writer(random.Random(seed))
    dice = writer.dice
    habits = Habits(
        batch_size=dice.choice((1, 2, 3)),
        events=dice.random() < 0.3,
        when_done=dice.choice(("keep",) * 5 + ("archive", "delete")),
        switching=dice.choice((0.0, 0.0, 0.05, 0.3)),
        engines=dice.choice((1, 1, 1, 1, 3)),
        slowness=dice.choice((0.0, 0.0, 0.0, 0.001, 0.02)),
        halting=dice.choice((0.0, 0.0, 0.02, 0.1)),
        interrupting=dice.choice((0.0, 0.0, 3.0)),
        slices=dice.random() < 0.3,
        disks=dice.random() < 0.3,
    )
    actions: list[Action] = [writer.template(), writer.styled(), MASKS, ("wait", 1.5)]
    while len(actions) < LENGTH:
        actions.append(writer.action())
        if dice.random() < EXTRAS:
            actions += writer.extra()
        if varies and dice.random() < EXTRAS:
            actions += writer.vary(dice.choice(sorted(writer.files) or PATHS))
        if seconds := dice.choice((0.0, 0.0, 0.1, 0.6, 1.5, 3.0, 8.0)):
            actions.append(("wait", seconds))
    return Script(seed, habits, tuple(actions))


class _Writer:
    """Invents actions, and remembers what its files say."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.notes = 0
        self.replaces = dice.random() < 0.3
        self.files: dict[str, tuple[Entry, ...]] = {}
        self.old: list[Entry] = []  # entries that were somewhere, once

    def action(self) -> Action:
        pick, number = self.dice.choice, self.dice.randrange(50)
        frame, other = self.dice.sample(FRAMES, 2)
        path = pick(sorted(self.files) or PATHS)
        weighted: list[tuple[float, Action | Callable[[], Action]]] = [
            (14, self._save),
            (8, self._edit),
            (6, ("again", path, pick(("touch", *WRITING)))),
            (6, lambda: self._move("move", path, pick(PATHS))),
            (3, lambda: self._move("copy", path, pick(PATHS))),
            (3, lambda: self._move("daily", path, pick(PATHS))),
            (2, lambda: self._move("move", *self.dice.sample(FOLDERS, 2))),
            (4, lambda: self._delete(path)),
            (8, ("picture", pick(PICTURES), pick((None, None, 1, 2)))),
            (2, ("defaults", pick((".", *FOLDERS)), pick((None, 0, 2, 7)))),
            (2, self.template),
            (5, ("save", frame, Picture(colour=self.dice.randrange(6)), pick(WRITING))),
            (1, ("again", frame, pick(("touch", "in place")))),
            (1, ("move", frame, other)),
            (1, ("copy", frame, other)),
            (1, ("delete", frame)),
            (3, ("picture", "styled/style.png", pick((None, 1, 2, 3)))),
            (3, ("save", pick(STYLED), Picture(colour=self.dice.randrange(6)), pick(WRITING))),
            (1, (pick(("move", "copy")), *self.dice.sample(STYLED, 2))),
            (1, ("again", pick(STYLED), "touch")),
            (1, ("delete", pick(STYLED))),
            (4, ("mask", pick(MASKED), pick((None, 1, 2, 3)))),
            (3, ("save", pick(MASKED), Picture(colour=self.dice.randrange(6)), pick(WRITING))),
            (1, ("again", pick(MASKED), "touch")),
            (1, ("delete", pick(MASKED))),
            (1, ("move", *pick((("frames/a", "frames/b"), ("frames/b", "frames/a"))))),
            (2, ("lose_picture", number)),
            (2, ("command", pick(("pause", "resume", "resume", "retry")), None)),
            (2, ("command", pick(("retry", "cancel", "cancel", "retry all")), pick(PATHS))),
            (2, ("command", pick(AGAIN), pick(("frames", "frames/a", "pets")))),
            (3, ("kill",)),
            (5, ("die", pick(FAULT_POINTS), pick((1, 1, 1, 2, 3)))),
            (2, ("stop",)),
            (1, ("older",)),
            (6, ("start",)),
            (2, ("trouble", pick(MISHAPS))),
            (4, ("trouble", None)),
            (3, ("lock", pick(LOCKED))),
            (2, ("lock", "")),
            (3, ("flaky", pick((1, 2, 3, 5)))),
            (1, ("freeze", pick((3.0, 700.0, 2000.0)))),
            (3, ("settings", pick((*SETTINGS, *NO_SETTINGS)))),
            (1, ("clock", pick((-86400.0, -90.0, 3600.0, 10.0)))),
            (2, ("set", "pace", pick((0.0, 0.3, 5.0)))),
            (2, ("set", "disk_seconds", pick((0.0, 0.2, 1.0)))),
            (3, ("set", "held", True)),
            (5, ("set", "held", False)),
            (3, self._bad),
            (1, ("inbox", False, number < 25)),
            (4, ("inbox", True, False)),
            (1, ("outbox", False, number < 25)),
            (4, ("outbox", True, False)),
        ]
        ((_, made),) = self.dice.choices(weighted, [weight for weight, _ in weighted])
        return made() if callable(made) else made

    def extra(self) -> Sequence[Action]:
        """Invent what few users do, in one action or several."""
        path = self.dice.choice((*self.files, *FRAMES, *STYLED, *MASKED))
        extras: list[Callable[[str], Sequence[Action]]] = [
            self._prioritise,
            self._prioritise_folder,
            self._annotate,
            lambda path: [("alike", path, self.dice.choice(WRITING[:2]))],
            lambda path: [(self.dice.choice(("mode", "link")), path)],
            self._slow,
            self._put_in_the_way,
            self._permute,
            *[lambda path: [self._keep_or_delete()]] * 3,
            lambda path: [("wait", 8.0), ("replace_inbox",), *self._prioritise(path)],
        ]
        return self.dice.choice(extras)(path)

    def _keep_or_delete(self) -> Action:
        pick, number = self.dice.choice, self.dice.randrange(50)
        name = pick(("keep", "keep", "keep copies", "delete"))
        folder = None if name == "delete" else pick(KEPT)
        return ("command_on_pictures", name, folder, number, pick((1, 2, 9)))

    def _prioritise(self, path: str) -> Sequence[Action]:
        """Change nothing but priorities."""
        old = self.files.get(path, ())
        if not old:
            return ()
        return [self._put(path, [replace(entry, priority=self._priority()) for entry in old])]

    def _prioritise_folder(self, path: str) -> Sequence[Action]:
        """Change a folder's priority, and touch one of its recipes."""
        folder = path.rpartition("/")[0] or "."
        return ("defaults", folder, self._priority()), ("again", path, "touch")

    def _slow(self, path: str) -> Sequence[Action]:
        """Let something be read slowly, or nothing any more, and save it, perhaps."""
        folder = path.rpartition("/")[0]
        beside = f"{folder}/_defaults.yaml".lstrip("/")
        name = self.dice.choice((path, path, *PICTURES, f"frames/{TEMPLATE}", beside, ""))
        slow: Action = ("slow", name, self.dice.choice((1.0, 4.0, 15.0)))
        return slow, ("again", path, self.dice.choice(WRITING)), ("wait", 1.0)

    def _permute(self, path: str) -> Sequence[Action]:
        """Save files, and move each to the next one's name; the last may be in the way."""
        pick = self.dice.choice
        near = next((names for names in (FRAMES, STYLED, MASKED) if path in names), PATHS)
        names = self.dice.sample(near, self.dice.randint(2, min(4, len(near))))
        actions: list[Action] = [
            self._put(name, [self._entry()])
            if near is PATHS
            else ("save", name, Picture(colour=self.dice.randrange(6)), "in place")
            for name in names
        ]
        actions += [("start",), ("wait", pick((0.6, 8.0, 8.0)))]
        folder, _, name = names[-1].rpartition("/")
        spare = f"{folder}/spare {name}".lstrip("/")
        moves = [(old, new) for new, old in pairwise([spare, *names[::-1]])]
        for old, new in [*moves[pick((0, 0, 1)) :], *[(spare, names[0])] * pick((0, 1))]:
            actions.append(self._move("move", old, new))
            actions += [("wait", pause)] if (pause := pick((0.0,) * 6 + (0.1, 0.6))) else []
        return [*actions, ("wait", pick((0.0, 8.0)))]

    def _put_in_the_way(self, path: str) -> Sequence[Action]:
        """Put something in the place of picowatch's own files, or put them right."""
        if self.dice.random() < 0.3:
            return [("clear_the_way",)]
        name, what = self.dice.choice(OWN), self.dice.choice(IN_THE_WAY)
        if what == "folder" and name.endswith(("gallery", "thumbs")):
            return ()  # that may be on another disk
        return [("put_in_the_way", name, what)]

    def vary(self, path: str) -> Sequence[Action]:
        """Ask for more or fewer images of each entry."""
        if not (old := self.files.get(path, ())):
            return ()
        pick = self.dice.choice
        new = [
            replace(entry, count=entry.count if isinstance(entry.seed, tuple) else pick((1, 2, 3)))
            if pick((True, False))
            else replace(entry, steps=pick(((1,), (1, 2), (2, 1), (2, 3))))
            for entry in old
        ]
        return [self._put(path, new)]

    def _annotate(self, path: str) -> Sequence[Action]:
        """Save other bytes that say the same."""
        return [self._put(path, [*self.files[path]])] if path in self.files else ()

    def _priority(self) -> int:
        return self.dice.choice((0, 0, 1, 5))

    def _entry(self) -> Entry:
        dice = self.dice
        if self.old and dice.random() < 0.25:
            return dice.choice(self.old)
        seed = dice.choice((None, None, dice.randrange(10), (5, 9), dice.randrange(2**32)))
        entry = Entry(
            f"prompt {len(self.old)}",
            seed=seed,
            count=1 if isinstance(seed, tuple) else dice.choice((1, 1, 2, 4)),
            steps=dice.choice(((1,), (1,), (2,), (1, 2))),
            priority=dice.choice((0, 0, 0, 1, 5)),
            image=dice.choice(("",) * 4 + PICTURES),
        )
        self.old.append(entry)
        return entry

    def _put(self, path: str, entries: list[Entry], broken: bool = False) -> Action:
        self.notes += 1
        self.files[path] = tuple(entries)
        return ("save", path, Text(tuple(entries), self.notes, broken), self.dice.choice(WRITING))

    def _save(self) -> Action:
        path, dice = self.dice.choice(PATHS), self.dice.random()
        entries = [self._entry() for _ in range(self.dice.choice((1, 1, 2, 3)))]
        return self._put(path, entries if dice > 0.06 else [], broken=0.06 < dice < 0.15)

    def _edit(self) -> Action:
        if not self.files:
            return self._save()
        path = self.dice.choice(sorted(self.files))
        entries = [entry for entry in self.files[path] if self.dice.random() < 0.7]
        if self.dice.random() < 0.6 or not entries:
            entries.insert(self.dice.randrange(len(entries) + 1), self._entry())
        if self.dice.random() < 0.1:
            entries.append(self.dice.choice(entries))
        return self._put(path, entries)

    def _move(self, name: str, old: str, new: str) -> Action:
        """Move or copy a recipe, or move a folder."""
        for path in [path for path in self.files if f"{path}/".startswith(f"{old}/")]:
            entries = self.files[path] if name == "copy" else self.files.pop(path)
            self.files[f"{new}{path.removeprefix(old)}"] = entries
        return (name, old, new)

    def _delete(self, path: str) -> Action:
        self.files.pop(path, None)
        return ("delete", path)

    def template(self) -> Action:
        """Save a template for dropped pictures; one is there from the beginning."""
        self.notes += 1
        drawn = [self._entry() for _ in range(self.dice.choice((1, 1, 2)))]
        entries = [replace(entry, image="", replaces=self.replaces) for entry in drawn]
        return ("save", f"frames/{TEMPLATE}", Text(tuple(entries), self.notes), "in place")

    def styled(self) -> Action:
        return ("save", f"styled/{TEMPLATE}", Text((Entry("styled", seed=1, has_style=True),), 1))

    def _bad(self) -> Action:
        if self.dice.random() < 0.4 or not self.old:
            return ("bad", (), False)
        prompts = {self.dice.choice(self.old).prompt for _ in range(2)}
        return ("bad", tuple(sorted(prompts)), self.dice.random() < 0.4)
