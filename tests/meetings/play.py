"""Random users: sequences of actions that are played, and shortened if they find something."""

import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.meetings.machine import FAULT_POINTS, MISHAPS, Habits
from tests.meetings.recipes import Defaults, Entry, Picture, Text
from tests.meetings.simulation import NeverRests
from tests.meetings.world import Action, World

PATHS = ("a.yaml", "b.yaml", "c.txt", "a.txt", "pets/a.yaml", "live/a.yaml", "live/c.txt")
PICTURES = ("one.png", "two.png")
FRAMES = ("frames/1.png", "frames/2.png", "frames/a/1.png", "frames/a/2.png")
FOLDERS = ("a", "b", "pets/a", "live/c")
STRANGERS = ("0002-5.png", "0007-mine.jpg", "photo.png")
WRITING = ("in place", "by rename", "slowly")
AGAIN = ("retry all", "make folder")
FAST_DISK = Path("/dev/shm")


@dataclass(frozen=True)
class Script:
    """A repeatable run: dice for the threads, settings, and actions."""

    seed: int
    habits: Habits
    actions: tuple[Action, ...]

    def __str__(self) -> str:
        """Return a test that can be pasted."""
        lines = [f"    {action!r}," for action in self.actions]
        return "\n".join([f"Script({self.seed}, {self.habits}, (", *lines, "))"])


def play(script: Script, counts: Counter[str] | None = None) -> list[str]:
    """Play a script, and return what is wrong at its end."""
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


class Writer:
    """Invents scripts."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
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
        )
        made: list[Action] = [self._template(), ("wait", 1.5)]
        while len(made) < actions:
            made += self._some()
        return Script(seed, habits, tuple(made))

    def _some(self) -> list[Action]:
        """Add an action, and usually a wait after it."""
        dice = self.dice
        pick, number = dice.choice, dice.randrange(50)
        kinds: list[tuple[float, Action | Callable[[], Action]]] = [
            (14, self._save),
            (8, self._edit),
            (6, lambda: ("again", self._file(), pick(("touch", *WRITING)))),
            (6, lambda: self._to("move")),
            (3, lambda: self._to("copy")),
            (4, self._delete),
            (2, self._defaults),
            (5, ("picture", pick(PICTURES), pick((None, 1, 2, 3)))),
            (2, self._template),
            (5, ("save", pick(FRAMES), Picture(colour=dice.randrange(6)), pick(WRITING))),
            (4, self._with_frame),
            (2, ("lose_picture", number)),
            (1, ("damage", number)),
            (1, ("foreign", pick(FOLDERS), pick(STRANGERS))),
            (5, self._command),
            (3, ("kill",)),
            (5, ("die", pick(FAULT_POINTS), pick((1, 1, 1, 2, 3)))),
            (2, ("stop",)),
            (6, ("start",)),
            (2, ("trouble", pick(MISHAPS))),
            (4, ("trouble", None)),
            (1, ("clock", pick((-86400.0, -90.0, 3600.0, 10.0)))),
            (4, ("pace", pick((0.0, 0.3, 5.0)), pick((0.0, 0.2, 1.0)))),
            (3, ("hold", True)),
            (5, ("hold", False)),
            (3, self._bad),
            (2, self._move_folder),
            (1, ("inbox", False, number < 25)),
            (4, ("inbox", True, False)),
            (1, ("outbox", False, number < 25)),
            (4, ("outbox", True, False)),
            (1, ("lose_events",)),
            (1, ("lock_ledger", True)),
            (3, ("lock_ledger", False)),
            (0.3, ("wait", 700.0)),
        ]
        ((_, kind),) = dice.choices(kinds, [weight for weight, _ in kinds])
        action = kind() if callable(kind) else kind
        seconds = dice.choice((0.0, 0.0, 0.1, 0.6, 1.5, 3.0, 8.0))
        return [action, ("wait", seconds)] if seconds else [action]

    def _file(self) -> str:
        return self.dice.choice(sorted(self.files) or PATHS)

    def _entry(self) -> Entry:
        dice = self.dice
        if self.old and dice.random() < 0.25:
            return dice.choice(self.old)
        seed = dice.choice((None, None, dice.randrange(10), (5, 9), dice.randrange(2**32)))
        entry = Entry(
            f"prompt {len(self.old)}",
            seed=seed,
            count=1 if isinstance(seed, tuple) else dice.choice((1, 1, 2, 4)),
            steps=dice.choice(((1,), (1,), (2,), None, (1, 2))),
            priority=dice.choice((None, None, None, 1, 5)),
            grid=dice.random() < 0.1,
            image=dice.choice((None,) * 4 + PICTURES),
            lora=dice.random() < 0.1,
        )
        self.old.append(entry)
        return entry

    def _put(self, path: str, entries: Sequence[Entry], broken: bool = False) -> Action:
        self.notes += 1
        if path.endswith(".txt"):
            entries = [entry.for_txt() for entry in entries]
        self.files[path] = Text(tuple(entries), self.notes, broken)
        return ("save", path, self.files[path], self.dice.choice(WRITING))

    def _save(self) -> Action:
        path, dice = self.dice.choice(PATHS), self.dice.random()
        entries = [self._entry() for _ in range(self.dice.choice((1, 1, 2, 3)))]
        return self._put(path, entries if dice > 0.06 else [], broken=0.06 < dice < 0.15)

    def _edit(self) -> Action:
        if not self.files:
            return self._save()
        path = self._file()
        entries = [one for one in self.files[path].entries if self.dice.random() < 0.7]
        if self.dice.random() < 0.6 or not entries:
            entries.insert(self.dice.randrange(len(entries) + 1), self._entry())
        if self.dice.random() < 0.1:
            entries.append(self.dice.choice(entries))
        return self._put(path, entries)

    def _to(self, name: str) -> Action:
        """Move or copy a recipe to a name with its suffix."""
        old = self._file()
        ending = old.rpartition(".")[2]
        new = self.dice.choice([one for one in PATHS if one.endswith(ending)])
        if old in self.files and old != new:
            self.files[new] = self.files.pop(old) if name == "move" else self.files[old]
        return (name, old, new)

    def _move_folder(self) -> Action:
        old, new = self.dice.sample(("live", "pets", "cats"), 2)
        for path in [path for path in self.files if path.startswith(f"{old}/")]:
            self.files[f"{new}/{path.removeprefix(f'{old}/')}"] = self.files.pop(path)
        return ("move_folder", old, new)

    def _delete(self) -> Action:
        path = self._file()
        self.files.pop(path, None)
        return ("delete", path)

    def _defaults(self) -> Action:
        folder = self.dice.choice(("", "live", "pets"))
        steps, priority = self.dice.choice((None, 1, 2)), self.dice.choice((None, 3, 10))
        gone = self.dice.random() < 0.4
        return ("defaults", folder, None if gone else Defaults(steps, priority))

    def _template(self) -> Action:
        """Save a template for dropped pictures; one is there from the beginning."""
        self.notes += 1
        entries = [self._entry() for _ in range(self.dice.choice((1, 1, 2)))]
        text = Text(tuple(replace(one, image=None, lora=False) for one in entries), self.notes)
        return ("save", "frames/_pictures.yaml", text, "in place")

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
        kinds = ("pause", "resume", "resume", "cancel", "cancel", "retry", *AGAIN, *AGAIN)
        name = self.dice.choice(kinds)
        recipe = self.dice.choice(PATHS)
        if name in AGAIN and self.dice.random() < 0.7:
            recipe = self.dice.choice(("frames", "frames/a"))
        if name == "make folder":
            recipe = self.dice.choice(("frames", "frames/a"))
        is_named = name in ("cancel", *AGAIN) or (name == "retry" and self.dice.random() < 0.3)
        return ("command", name, recipe if is_named else None)

    def _bad(self) -> Action:
        if self.dice.random() < 0.4 or not self.old:
            return ("bad", (), False)
        prompts = {self.dice.choice(self.old).prompt for _ in range(2)}
        return ("bad", tuple(sorted(prompts)), self.dice.random() < 0.4)


def script_of(seed: int, actions: int) -> Script:
    return Writer(random.Random(seed)).script(seed, actions)
