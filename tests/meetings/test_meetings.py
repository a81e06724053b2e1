"""Some thousand actions by random users, and shortened scripts of what they have found.

`make meetings` plays many more. The script of a failure is shortened, and can be added below.
"""

import errno
import os
from collections import Counter

import pytest

from tests.meetings.machine import COMMIT, Habits
from tests.meetings.play import MASKED, MASKS, Script, play, random_script, shorter
from tests.meetings.recipes import TEMPLATE, Entry, Picture, Text
from tests.meetings.world import Action

SCRIPTS = 8  # of each test
VARIED_IN_EACH_RUN = 2
IN_EACH_RUN, IN_ALL = 1, int(os.environ.get("MEETINGS", "6"))

RANDOM = Text((Entry("any"),), 1)
ONE = Text((Entry("one", seed=1),), 2)
TWO = Text((Entry("a", seed=1, count=2),), 3)
SWEEP = Text((Entry("a sweep", seed=1, count=2, steps=(1, 2)),), 4)
BROKEN = Text((Entry("one", seed=1),), 5, broken=True)
STARTS = Text((Entry("b", seed=1, image="one.png"),), 6)
GROWN = Text((*RANDOM.entries, *ONE.entries), 7)
MISSING = Text((Entry("prompt 1", seed=0, image="two.png"),), 2)
LOW = Entry("low", priority=1)
URGENT = Text((Entry("c", seed=1, priority=5),), 8)
SHARED = Text(tuple(
    Entry("c", seed=seed, count=count, priority=priority)
    for seed, count, priority in ((5, 3, 1), (6, 1, -1), (7, 1, 2))
))  # fmt: skip
A_WHILE: Action = ("wait", 8.0)
HOLD: Action = ("set", "held", True)
FRAMES = tuple(f"frames/a/{number}.png" for number in range(4))


def drop(path: str, colour: int) -> Action:
    return ("save", path, Picture(colour=colour))


def frames(text: Text = ONE) -> tuple[Action, ...]:
    """Make a template with pictures that all wait, because the engine is held."""
    dropped = [drop(path, colour) for colour, path in enumerate(FRAMES)]
    return HOLD, ("save", FRAME, text), *dropped, A_WHILE


FRAME, STYLE = f"frames/{TEMPLATE}", "styled/style.png"
STYLED: Action = ("save", f"styled/{TEMPLATE}", Text((Entry("s", seed=1, has_style=True),)))
RENDERED: tuple[Action, ...] = (("set", "held", False), A_WHILE)
CRASHES = COMMIT, "in the middle of a claim", "before a dropped picture's copy is deleted"

MEETINGS: dict[str, tuple[Action, ...]] = {
    "a failed image x rename x deletion: it does not count as failed any more": (
        ("bad", ("one",), False), ("save", "a.yaml", ONE), A_WHILE,
        ("move", "a.yaml", "pets/a.yaml"), A_WHILE, ("bad", (), False),
        ("delete", "pets/a.yaml"), A_WHILE,
    ),
    "shared images x other priorities x an engine that dies: the highest priority counts": (
        HOLD, ("save", "a.yaml", Text((Entry("a", seed=1, priority=3),))), ("wait", 3.0),
        ("save", "b.yaml", Text((Entry("b", seed=5, count=2),))),
        ("save", "c.yaml", Text((Entry("c", seed=5, count=2),))), A_WHILE,
        ("save", "c.yaml", SHARED), ("save", "a.yaml", Text((Entry("a", seed=1, priority=-1),))),
        A_WHILE, ("bad", ("a",), True), ("set", "held", False), ("wait", 2.0), ("bad", (), False),
        A_WHILE,
    ),
    "chmod x a backup's link x other bytes at the same size and time: bytes tell a save": (
        ("save", "a.yaml", RANDOM), ("save", "b.yaml", RANDOM), A_WHILE, ("mode", "a.yaml"),
        ("link", "b.yaml"), A_WHILE, ("alike", "a.yaml", "in place"),
        ("alike", "b.yaml", "by rename"), A_WHILE,
    ),
    "a copy in the place of the inbox x touch: only the touch is a save": (
        ("save", "a.yaml", RANDOM), *frames(RANDOM), *RENDERED, ("replace_inbox",), A_WHILE,
        ("again", "a.yaml", "touch"), ("delete", FRAMES[0]), A_WHILE,
    ),
    "retry x invalid save: the error file says what is wrong with the save": (
        ("bad", ("a",), False), ("save", "a.yaml", TWO), A_WHILE, ("save", "a.yaml", BROKEN),
        A_WHILE, ("bad", (), False), ("command", "retry", None), A_WHILE,
    ),
    "crash x read-only outbox x end: the start after that one knows of the crash": (
        ("die", "atomic: rename", 1), ("wait", 3.0), ("trouble", errno.EROFS), ("start",),
        ("wait", 3.0), ("stop",),
    ),
    "rename x rename, by polling: the second comes after the first is settled": (
        ("save", "live/c.yaml", TWO), A_WHILE, ("move", "live/c.yaml", "c.yaml"), ("wait", 0.6),
        ("move", "c.yaml", "a.yaml"),
    ),
    "rename of a refused recipe x crash x rename back: it has its error file": (
        ("save", "b.yaml", BROKEN), ("wait", 3.0), ("die", COMMIT, 1), ("move", "b.yaml", "a.yaml"),
        A_WHILE, ("move", "a.yaml", "b.yaml"),
    ),
    "a start image comes x full disk x it goes again: it has its error file": (
        ("save", "a.yaml", STARTS), A_WHILE, ("trouble", errno.EIO), ("picture", "one.png", 1),
        A_WHILE, ("picture", "one.png", None),
    ),
    "inbox away x deletion at the moment it is back: one that nobody saw": (
        ("save", "a.yaml", TWO), A_WHILE, ("inbox", False, False), ("wait", 1.5),
        ("inbox", True, False), ("delete", "a.yaml"),
    ),
    "slow disk x cancel: what is being written is published": (
        ("set", "disk_seconds", 0.5), ("save", "a.yaml", TWO), ("wait", 1.5),
        ("command", "cancel", "a.yaml"), A_WHILE,
    ),
    "slow disk x deletion x crash: what was being written is not rendered again": (
        ("set", "disk_seconds", 1.0), ("save", "a.yaml", TWO), ("wait", 2.5), ("delete", "a.yaml"),
        ("wait", 1.5), ("kill",), ("start",), A_WHILE,
    ),
    "rename x another one under the old name x restart x folder renamed: the queues move": (
        HOLD, ("save", "pets/a.yaml", TWO), A_WHILE, ("move", "pets/a.yaml", "pets/b.yaml"),
        ("save", "pets/a.yaml", ONE), A_WHILE, *RENDERED, ("stop",),
        ("move", "pets/b.yaml", "pets/c.yaml"), ("start",), A_WHILE, ("move", "pets", "cats"),
        A_WHILE,
    ),
    "cancel x an engine that dies while it stops: the sweep's picture is on its sheet": (
        ("set", "pace", 5.0), ("save", "a.yaml", SWEEP), ("wait", 7.0),
        ("bad", ("a sweep",), True), ("command", "cancel", "a.yaml"), A_WHILE,
    ),
    "rename to a path whose recipe had the same picture x pause: the queue moves, too": (
        ("save", "live/c.yaml", ONE), A_WHILE, ("delete", "live/c.yaml"), A_WHILE,
        ("command", "pause", None), A_WHILE, ("save", "live/a.yaml", ONE), A_WHILE,
        ("move", "live/a.yaml", "live/c.yaml"), A_WHILE,
    ),
    "archive x refused save x good save: it keeps nothing of the archived recipe": (
        ("stop",), ("set", "when_done", "archive"), ("start",), ("save", "a.yaml", RANDOM), A_WHILE,
        ("save", "a.yaml", BROKEN), A_WHILE, ("save", "a.yaml", GROWN),
    ),
    **{f"{how} x saved again before that x done while the inbox is away: each is rendered": (
        ("stop",), ("set", "when_done", how), ("start",), HOLD, ("save", "a.yaml", RANDOM),
        ("save", "b.yaml", RANDOM), ("save", "c.yaml", TWO), A_WHILE, ("again", "a.yaml", "touch"),
        ("save", "b.yaml", GROWN), ("set", "held", False), ("wait", 1.0), HOLD,
        ("save", "live/a.yaml", ONE), A_WHILE, ("inbox", False, False), *RENDERED,
        ("save", "live/a.yaml", TWO), ("inbox", True, False), A_WHILE,
    ) for how in ("archive", "delete")},
    "late start image x rename x crash: it is read again under its new name": (
        ("save", "a.yaml", STARTS), A_WHILE, ("die", COMMIT, 1), ("move", "a.yaml", "live/a.yaml"),
        A_WHILE, ("start",), A_WHILE, ("die", COMMIT, 1), ("picture", "one.png", 1), A_WHILE,
        ("start",), A_WHILE,
    ),
    "start image replaced x touch x deleted x restart: each image is as it was requested": (
        HOLD, ("picture", "one.png", 1), ("save", "a.yaml", STARTS), ("save", "b.yaml", STARTS),
        A_WHILE, ("picture", "one.png", 2), ("again", "a.yaml", "touch"), A_WHILE,
        ("picture", "one.png", None), ("again", "a.yaml", "touch"), A_WHILE,
        ("stop",), ("start",), A_WHILE, *RENDERED,
    ),
    "rename to a folder with a priority x entries with other priorities: the queue follows": (
        HOLD, ("defaults", "live", 10), ("save", "a.yaml", TWO), ("save", "c.yaml", URGENT),
        ("save", "b.yaml", Text((Entry("gone"), LOW), 9)), A_WHILE,
        ("save", "b.yaml", Text((LOW, Entry("high")), 10)), A_WHILE,
        ("move", "b.yaml", "live/b.yaml"), A_WHILE, *RENDERED,
    ),
    "the same line in another day's file x the earlier one removed: a new request": (
        ("save", "a.yaml", ONE), A_WHILE, ("daily", "a.yaml", "b.yaml"), A_WHILE,
        ("daily", "b.yaml", "a.yaml"), ("wait", 1.0), ("daily", "a.yaml", "c.yaml"), A_WHILE,
    ),
    "the same photo in another day's file x the earlier one removed: likewise": (
        ("save", FRAME, ONE), drop(FRAMES[0], 1), A_WHILE, ("daily", FRAMES[0], FRAMES[1]), A_WHILE,
        ("stop",), ("daily", FRAMES[1], FRAMES[2]), ("start",), A_WHILE,
    ),
    "outbox away x settings: no other outbox is made": (
        ("wait", 6.0), ("save", "a.yaml", TWO), ("outbox", False, False),
        ("settings", {"format": "webp"}), A_WHILE, ("outbox", True, False), A_WHILE,
    ),
    "outbox away x deletion of a refused recipe: its error file goes": (
        ("save", "a.yaml", BROKEN), A_WHILE, ("outbox", False, False), ("delete", "a.yaml"),
        A_WHILE,
    ),
    "pictures x full disk x start: the gallery goes on where it was": (
        ("save", "a.yaml", TWO), A_WHILE, ("trouble", errno.ENOSPC), ("stop",), ("start",),
        ("wait", 3.0),
    ),
    **{f"{name} is a link to {what} x pictures x refused: nobody else's file is written": (
        ("wait", 1.0), ("put_in_the_way", name, what), ("save", "a.yaml", TWO),
        ("save", "b.yaml", BROKEN), A_WHILE,
    ) for name, what in (("failures.jsonl", "nothing"), ("picowatch.log", "theirs.txt"))},
    "a pipe in the place of a gallery's page x delete x keep: it is put right": (
        ("save", "a.yaml", TWO), A_WHILE,
        ("put_in_the_way", ".picowatch/gallery/page-00001.js", "a pipe"),
        ("command_on_pictures", "delete", None, 0, 1), A_WHILE,
        ("command_on_pictures", "keep", "kept", 0, 1), A_WHILE,
    ),
    "kept x deleted x another is kept x touch: it does not pass for the deleted one": (
        ("save", "b.yaml", ONE), A_WHILE, ("command_on_pictures", "keep", "kept", 0, 1), A_WHILE,
        ("command_on_pictures", "delete", None, 0, 1), ("save", "c.yaml", ONE), A_WHILE,
        ("command_on_pictures", "keep", "kept", 0, 1), A_WHILE, ("again", "b.yaml", "touch"),
        A_WHILE, ("command_on_pictures", "keep", "kept/best", 1, 1), A_WHILE,
        ("again", "c.yaml", "touch"), A_WHILE,
    ),
    "kept x crash x a folder in the place of a gallery's page: it is kept once": (
        ("save", "a.yaml", TWO), A_WHILE, ("die", COMMIT, 1),
        ("command_on_pictures", "keep", "kept", 0, 2), A_WHILE, ("start",),
        ("put_in_the_way", ".picowatch/gallery/page-00001.js", "a folder"), A_WHILE,
    ),
    # -- dropped pictures
    "replaced x deleted x cancelled: also at the moment in which their turn comes": (
        *frames(), drop(FRAMES[0], 9), ("delete", FRAMES[1]), ("command", "cancel", FRAMES[2]),
        *RENDERED, ("again", FRAMES[2], "touch"), HOLD, drop(FRAMES[3], 10),
        ("wait", 4.0), drop(FRAMES[3], 11), *RENDERED,
    ),
    "elsewhere at its turn x restart x back: nobody wrote to them": (
        *frames(), ("move", "frames/a", "elsewhere"), ("set", "held", False), ("wait", 1.0),
        ("stop",), ("move", "elsewhere", "frames/a"), ("start",), A_WHILE,
    ),
    "another template x queue x touch: what waits is rendered as it was requested": (
        *frames(), ("save", FRAME, SWEEP), ("wait", 4.0), drop("frames/late.png", 20),
        ("wait", 4.0), ("again", FRAMES[0], "touch"), *RENDERED, ("save", FRAME, ONE), A_WHILE,
    ),
    "a wrong template x queue x touch: they wait for the next one": (
        *frames(), ("save", FRAME, BROKEN), ("wait", 4.0), drop("frames/late.png", 20),
        ("wait", 4.0), ("again", FRAMES[0], "touch"), *RENDERED, ("save", FRAME, SWEEP), A_WHILE,
    ),
    "failure x engine's death x retry x touch: each is tried again": (
        ("bad", ("one",), False), *frames(), *RENDERED, ("bad", ("one",), True),
        ("command", "retry", FRAMES[0]), A_WHILE, ("bad", (), False),
        ("again", FRAMES[1], "touch"), ("command", "retry", None), A_WHILE,
    ),
    "another template x rendered again by a command x rename x crash: each as it is now": (
        *frames(), *RENDERED, ("save", FRAME, SWEEP), A_WHILE, ("die", COMMIT, 3),
        ("command", "retry all", "frames"), ("move", FRAMES[0], "frames/b/0.png"), A_WHILE,
        ("start",), ("command", "make folder", "frames"), ("delete", FRAMES[1]), A_WHILE,
    ),
    "a template's second picture missing x coming x edited x touch x missing: photos wait": (
        STYLED, drop("styled/1.png", 1), A_WHILE, ("picture", STYLE, 1), A_WHILE,
        ("picture", STYLE, 2), ("again", "styled/1.png", "touch"), drop("styled/2.png", 2), A_WHILE,
        ("picture", STYLE, None), drop("styled/3.png", 3), A_WHILE, ("picture", STYLE, 3), A_WHILE,
    ),
    "a template's second picture edited x missing x queue x restart: as it was requested": (
        HOLD, ("picture", STYLE, 1), STYLED, *(drop(f"styled/{n}.png", n) for n in range(4)),
        A_WHILE, ("picture", STYLE, 2), A_WHILE, drop("styled/late.png", 9), A_WHILE,
        ("picture", STYLE, None), ("stop",), ("start",), *RENDERED,
    ),
    "a mask comes x is replaced at its turn x goes x crash: each is drawn with what is there": (
        MASKS, drop(MASKED[0], 1), A_WHILE, ("mask", MASKED[0], 1), A_WHILE, HOLD,
        ("mask", MASKED[0], 2), ("mask", MASKED[1], 3), drop(MASKED[1], 2), A_WHILE,
        ("mask", MASKED[1], 4), ("mask", MASKED[0], None), ("die", COMMIT, 2), *RENDERED,
        ("start",), ("again", MASKED[0], "touch"), A_WHILE,
    ),
    "alike x renamed to where its picture is missing x refused: the old name is forgotten": (
        ("save", "live/c.yaml", MISSING, "in place"), A_WHILE,
        ("alike", "live/c.yaml", "by rename"), ("move", "live/c.yaml", "c.yaml"), A_WHILE, A_WHILE,
    ),
    **{f"{how} x touch x the name again x crash: each is rendered": (
        ("stop",), ("set", "when_done", how), ("start",), *frames(), ("again", FRAMES[0], "touch"),
        *RENDERED, ("die", "before a recipe is taken out of the inbox", 1), drop(FRAMES[0], 0),
        drop(FRAMES[1], 30), A_WHILE, ("start",), A_WHILE,
    ) for how in ("archive", "delete")},
    **{f"crash {point} x renamed x replaced x deleted: none is lost": (
        ("die", point, 3), *frames(), *RENDERED, ("move", FRAMES[0], "frames/b/0.png"),
        drop(FRAMES[1], 40), ("delete", FRAMES[2]), ("start",), A_WHILE,
    ) for point in CRASHES},
}  # fmt: skip


TOUCHED: tuple[Action, ...] = (
    ("again", FRAMES[0], "touch"), ("again", FRAMES[1], "by rename"),
    ("move", FRAMES[2], "frames/a/moved.png"), ("copy", FRAMES[3], "frames/b/copy.png"),
    A_WHILE, *RENDERED, ("again", FRAMES[0], "touch"), ("move", FRAMES[1], "frames/b/1.png"),
    ("move", "frames/a", "frames/c"), A_WHILE,
)  # fmt: skip
WITH_HABITS: dict[str, tuple[Habits, tuple[Action, ...]]] = {
    "another disk in the inbox's place, whose root has the same inode: it cancels nothing": (
        Habits(disks=True), (
            HOLD, ("save", "a.yaml", TWO), A_WHILE, ("inbox", False, True), A_WHILE, ("stop",),
            ("start",), A_WHILE, ("inbox", True, False), *RENDERED,
        ),
    ),
    **{f"frames with {what} x touch x rename x copy x batch: each is rendered once": (
        Habits(batch_size=3, events=events), (*frames(text), *TOUCHED),
    ) for what, text, events in (
        ("a seed", ONE, True), ("random seeds", RANDOM, False), ("a sweep", SWEEP, True),
    )},
    "deletion of a photo x another folder's template lacks a picture: it is forgotten": (
        Habits(slices=True), (
            ("save", FRAME, ONE), STYLED, drop(FRAMES[0], 0), ("wait", 3.0),
            ("save", "live/a.yaml", MISSING), ("wait", 1.6), ("delete", FRAMES[0]), A_WHILE,
        ),
    ),
    "wanted again x its engine still stops: another renders it, the late result is dropped": (
        Habits(engines=3, interrupting=3.0, events=True), (
            ("set", "pace", 5.0), ("save", "a.yaml", ONE), ("wait", 1.5), ("delete", "a.yaml"),
            ("wait", 0.9), ("save", "a.yaml", ONE), ("wait", 30.0),
        ),
    ),
}  # fmt: skip

# `make test` plays every other script, with one engine and three by turns unless it has habits;
# `make test-heavy` the others likewise.
CASES = [
    pytest.param(
        Habits(engines=(1, 3)[number // 2 % 2]),
        actions,
        id=name,
        marks=[pytest.mark.heavy] * (number % 2),
    )
    for number, (name, actions) in enumerate(MEETINGS.items())
] + [pytest.param(*case, id=name) for name, case in WITH_HABITS.items()]


@pytest.mark.parametrize(("habits", "actions"), CASES)
def test_what_did_not_get_on_once(habits: Habits, actions: tuple[Action, ...]) -> None:
    """Each image is rendered once or accounted for, and each file is right."""
    assert not play(Script(0, habits, actions))


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(number * SCRIPTS, marks=[pytest.mark.heavy] * (number >= IN_EACH_RUN))
        for number in range(IN_ALL)
    ],
)
def test_whatever_meets_each_image_is_rendered_once_or_answered_for(first: int) -> None:
    """The scripts are the same each time."""
    counts: Counter[str] = Counter()
    for seed in range(first, first + SCRIPTS):
        findings = play(script := random_script(seed), counts)
        assert not findings, f"{findings}: {shorter(script)}"
    assert counts["pictures"] > 40
    assert counts["daemons"] > SCRIPTS


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=[pytest.mark.heavy] * (seed >= VARIED_IN_EACH_RUN))
        for seed in range(2 * IN_ALL)
    ],
)
def test_other_counts_and_sweeps_keep_the_images_that_are_asked_for_again(seed: int) -> None:
    findings = play(script := random_script(10_000 + seed, varies=True))
    assert not findings, f"{findings}: {shorter(script)}"
