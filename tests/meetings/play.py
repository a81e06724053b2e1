"""Random users: sequences of actions, played, and made shorter where they find something."""

import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.meetings.recipes import Defaults, Entry, Picture, Text, for_txt
from tests.meetings.simulation import NeverRests
from tests.meetings.world import FAULT_POINTS, MISHAPS, Action, Habits, World

PATHS = ("a.yaml", "b.yaml", "c.txt", "a.txt", "pets/a.yaml", "live/a.yaml", "live/c.txt")
PICTURES = ("one.png", "two.png")
FRAMES = ("frames/1.png", "frames/2.png", "frames/a/1.png", "frames/a/2.png")
FOLDERS = ("a", "b", "pets/a", "live/c")
STRANGERS = ("0002-5.png", "0007-mine.jpg", "photo.png")
FAST_DISK = Path("/dev/shm")


@dataclass(frozen=True)
class Script:
    """A run that can be repeated: dice for the threads, settings, and what is done."""

    seed: int
    habits: Habits
    actions: tuple[Action, ...]

    def __str__(self) -> str:
        """A test that a person can paste."""
        lines = [f"    {action!r}," for action in self.actions]
        return "\n".join([f"Script({self.seed}, {self.habits}, (", *lines, "))"])


def play(script: Script, counts: Counter[str] | None = None) -> list[str]:
    """What is wrong at the end of a script."""
    place = FAST_DISK if FAST_DISK.is_dir() else None
    base = Path(tempfile.mkdtemp(prefix="meetings-", dir=place))
    world = World(base, script.seed, script.habits)
    with world.on_stage():
        try:
            world.start()
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


class Writer:
    """Makes scripts up."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.prompts = 0
        self.notes = 0
        self.files: dict[str, Text] = {}
        self.old: list[Entry] = []  # entries that were somewhere, once

    def script(self, seed: int, actions: int) -> Script:
        dice = self.dice
        habits = Habits(
            batch_size=dice.choice((1, 2, 3)),
            events=dice.random() < 0.3,
            when_done=dice.choice(("keep",) * 5 + ("archive", "delete")),
            switching=dice.choice((0.0, 0.0, 0.05, 0.3)),
            engines=dice.choice((1, 1, 1, 1, 3)),
            slowness=dice.choice((0.0, 0.0, 0.0, 0.001, 0.02)),
            formats=dice.choice((("png",),) * 3 + (("jpeg", "png", "webp"),)),
            sidecar=dice.choice(("none", "none", "txt")),
        )
        made: list[Action] = [self._template(), ("wait", 1.5)]
        while len(made) < actions:
            made += self._some()
        return Script(seed, habits, tuple(made))

    def _some(self) -> list[Action]:
        """One action, and most often a while after it."""
        kinds: list[tuple[float, Callable[[], Action]]] = [
            (14, self._save),
            (8, self._edit),
            (6, self._again),
            (6, self._move),
            (3, self._copy),
            (4, self._delete),
            (2, self._defaults),
            (2, self._picture),
            (1, lambda: ("lora", self.dice.random() < 0.7)),
            (2, self._template),
            (5, self._drop),
            (4, self._with_frame),
            (2, lambda: ("lose_picture", self.dice.randrange(50))),
            (5, self._command),
            (3, lambda: ("kill",)),
            (5, self._die),
            (2, lambda: ("stop",)),
            (6, lambda: ("start",)),
            (2, lambda: ("trouble", self.dice.choice(MISHAPS))),
            (4, lambda: ("trouble", None)),
            (1, lambda: ("clock", self.dice.choice((-86400.0, -90.0, 3600.0, 10.0)))),
            (2, lambda: ("pace", self.dice.choice((0.0, 0.3, 5.0)))),
            (3, lambda: ("hold", True)),
            (5, lambda: ("hold", False)),
            (3, self._bad),
            (2, self._move_folder),
            (1, lambda: ("damage", self.dice.randrange(50))),
            (1, lambda: ("foreign", self.dice.choice(FOLDERS), self.dice.choice(STRANGERS))),
            (1, lambda: ("inbox", False, self.dice.random() < 0.5)),
            (4, lambda: ("inbox", True, False)),
            (1, lambda: ("outbox", False, self.dice.random() < 0.5)),
            (4, lambda: ("outbox", True, False)),
            (1, lambda: ("lose_events",)),
            (1, lambda: ("lock_ledger", True)),
            (3, lambda: ("lock_ledger", False)),
            (1, lambda: ("ledger", self.dice.choice(("lost", "damaged", "emptied")))),
            (0.3, lambda: ("wait", 700.0)),
        ]
        weights = [weight for weight, _ in kinds]
        ((_, kind),) = self.dice.choices(kinds, weights)
        action = kind()
        return [action, *self._while()]

    def _while(self) -> list[Action]:
        seconds = self.dice.choice((0.0, 0.0, 0.1, 0.6, 1.5, 3.0, 8.0))
        return [("wait", seconds)] if seconds else []

    def _path(self) -> str:
        return self.dice.choice(PATHS)

    def _entry(self) -> Entry:
        dice = self.dice
        if self.old and dice.random() < 0.25:
            return dice.choice(self.old)
        self.prompts += 1
        seed = dice.choice((None, None, dice.randrange(10), (5, 9), dice.randrange(2**32)))
        count = 1 if isinstance(seed, tuple) else dice.choice((1, 1, 2, 4))
        steps = dice.choice(((1,), (1,), (2,), None, (1, 2)))
        entry = Entry(
            f"prompt {self.prompts}",
            seed=seed,
            count=count,
            steps=steps,
            priority=dice.choice((None, None, None, 1, 5)),
            grid=dice.random() < 0.1,
            image=dice.choice((None,) * 6 + PICTURES),
            lora=dice.random() < 0.1,
        )
        self.old.append(entry)
        return entry

    def _put(self, path: str, entries: Sequence[Entry], broken: bool = False) -> Action:
        self.notes += 1
        if path.endswith(".txt"):
            entries = [for_txt(entry) for entry in entries]
        text = Text(tuple(entries), self.notes, broken)
        self.files[path] = text
        return ("save", path, text, self.dice.choice(("in place", "by rename")))

    def _save(self) -> Action:
        entries = [self._entry() for _ in range(self.dice.choice((1, 1, 2, 3)))]
        dice = self.dice.random()
        if dice < 0.06:
            return self._put(self._path(), [])
        return self._put(self._path(), entries, broken=dice < 0.15)

    def _edit(self) -> Action:
        if not self.files:
            return self._save()
        path = self.dice.choice(sorted(self.files))
        entries = [one for one in self.files[path].entries if self.dice.random() < 0.7]
        if self.dice.random() < 0.6 or not entries:
            entries.insert(self.dice.randrange(len(entries) + 1), self._entry())
        if self.dice.random() < 0.1:
            entries.append(self.dice.choice(entries))
        return self._put(path, entries)

    def _again(self) -> Action:
        path = self.dice.choice(sorted(self.files) or [self._path()])
        return ("again", path, self.dice.choice(("touch", "in place", "by rename")))

    def _other(self, path: str) -> str:
        ending = path.rpartition(".")[2]
        return self.dice.choice([one for one in PATHS if one.endswith(ending)])

    def _move(self) -> Action:
        old = self.dice.choice(sorted(self.files) or [self._path()])
        new = self._other(old)
        if old in self.files and old != new:
            self.files[new] = self.files.pop(old)
        return ("move", old, new)

    def _move_folder(self) -> Action:
        old, new = self.dice.sample(("live", "pets", "cats"), 2)
        for path in [path for path in self.files if path.startswith(f"{old}/")]:
            self.files[f"{new}/{path.removeprefix(f'{old}/')}"] = self.files.pop(path)
        return ("move_folder", old, new)

    def _copy(self) -> Action:
        old = self.dice.choice(sorted(self.files) or [self._path()])
        new = self._other(old)
        if old in self.files:
            self.files[new] = self.files[old]
        return ("copy", old, new)

    def _delete(self) -> Action:
        path = self.dice.choice(sorted(self.files) or [self._path()])
        self.files.pop(path, None)
        return ("delete", path)

    def _defaults(self) -> Action:
        folder = self.dice.choice(("", "live", "pets"))
        if self.dice.random() < 0.4:
            return ("defaults", folder, None)
        steps, priority = self.dice.choice((None, 1, 2)), self.dice.choice((None, 3, 10))
        return ("defaults", folder, Defaults(steps, priority))

    def _picture(self) -> Action:
        return ("picture", self.dice.choice(PICTURES), self.dice.choice((None, 1, 2, 3)))

    def _template(self) -> Action:
        """For dropped pictures; one is there from the beginning."""
        self.notes += 1
        entries = [self._entry() for _ in range(self.dice.choice((1, 1, 2)))]
        text = Text(tuple(replace(one, image=None, lora=False) for one in entries), self.notes)
        return ("save", "frames/_pictures.yaml", text, "in place")

    def _drop(self) -> Action:
        picture = Picture(colour=self.dice.randrange(6))
        return (
            "save",
            self.dice.choice(FRAMES),
            picture,
            self.dice.choice(("in place", "by rename")),
        )

    def _with_frame(self) -> Action:
        frame, other = self.dice.sample(FRAMES, 2)
        how = self.dice.choice(("touch", "in place"))
        kinds: tuple[Action, ...] = (
            ("again", frame, how), ("delete", frame),
            ("move", frame, other), ("copy", frame, other),
            ("move_folder", "frames/a", "frames/b"), ("move_folder", "frames/b", "frames/a"),
        )  # fmt: skip
        return self.dice.choice(kinds)

    def _command(self) -> Action:
        name = self.dice.choice(("pause", "resume", "resume", "cancel", "cancel", "retry"))
        recipe = self._path() if name == "cancel" or self.dice.random() < 0.3 else None
        return ("command", name, recipe if name in ("cancel", "retry") else None)

    def _die(self) -> Action:
        return ("die", self.dice.choice(FAULT_POINTS), self.dice.choice((1, 1, 1, 2, 3)))

    def _bad(self) -> Action:
        if self.dice.random() < 0.4 or not self.old:
            return ("bad", (), False)
        prompts = {self.dice.choice(self.old).prompt for _ in range(2)}
        return ("bad", tuple(sorted(prompts)), self.dice.random() < 0.4)


def script_of(seed: int, actions: int) -> Script:
    return Writer(random.Random(seed)).script(seed, actions)


def shrink(script: Script, finds: Callable[[Script], bool]) -> Script:
    """Fewer actions that still find it (Zeller's delta debugging)."""
    actions = list(script.actions)
    size = max(1, len(actions) // 2)
    while size:
        start, fewer = 0, False
        while start < len(actions):
            left = actions[:start] + actions[start + size :]
            shorter = Script(script.seed, script.habits, tuple(left))
            if finds(shorter):
                actions, fewer = left, True
            else:
                start += size
        if not fewer or size > 1:
            size = size // 2 if size > 1 else 0
    return Script(script.seed, script.habits, tuple(actions))
