"""How many half-typed recipes are begun when an editor saves by itself.

Somebody types a prompt, with pauses for thought; an editor saves as its documentation says; a
real daemon on the digest engine answers, with pictures that take a while. All times run faster by
`--speed`, and are given as if they did not.

    python -m benchmarks.autosave
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.house import House, wait_for

LETTERS_A_SECOND = 5  # 60 words a minute
# What is typed, and for how many seconds somebody then thinks.
TYPED = (
    ("prompt: a corgi", 0.8),
    (" wearing a red hat", 1.5),
    (",", 2.5),
    (" on a blue background", 1.2),
    (", soft light", 4.0),
    (", drawn with a pencil", 0.6),
    (" on old paper", 1.8),
    (", seen from above", 3.2),
    ("\nsteps: 30", 0.5),
    ("\nseed: 7\n", 0.0),
)
PICTURE_SECONDS = 4.0
STEPS = 24


@dataclass(frozen=True)
class Editor:
    """When an editor saves: so long after a change; with `waits`, after the last one."""

    name: str
    seconds: float
    waits: bool


EDITORS = (
    # microsoft/vscode, files.contribution.ts: 'files.autoSaveDelay', default 1000; each change
    # starts it anew.
    Editor("VS Code, files.autoSave: afterDelay", 1.0, waits=True),
    # docs.obsidian.md, TextFileView.requestSave: "Debounced save in 2 seconds from now".
    Editor("Obsidian", 2.0, waits=False),
    Editor("saved by hand at the end", 3600, waits=True),
)


@dataclass
class Outcome:
    """What came of one session of typing; seconds as if nothing ran faster."""

    saves: int
    begun: int
    finished: int
    seconds_to_the_picture: float


def saves_of(editor: Editor) -> list[tuple[float, str]]:
    """When the editor saves, and what."""
    changes: list[tuple[float, str]] = []
    now, text = 0.0, ""
    for typed, thought in TYPED:
        for letter in typed:
            now += 1 / LETTERS_A_SECOND
            text += letter
            changes.append((now, text))
        now += thought
    saves: list[tuple[float, str]] = []
    due: float | None = None
    for place, (at, text) in enumerate(changes):
        if due is None or editor.waits:
            due = at + editor.seconds
        following = changes[place + 1][0] if place + 1 < len(changes) else None
        if following is None:
            saves.append((min(due, at + 2), text))  # at the latest somebody saves by hand
        elif due <= following:
            saves.append((due, text))
            due = None
    return saves


def session(editor: Editor, settle_seconds: float, speed: float) -> Outcome:
    """Type once, and wait for the picture of the whole recipe."""
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        pause = threading.Event()

        def make_a_step(done: int) -> None:
            pause.wait(PICTURE_SECONDS / STEPS / speed)

        house.engine.after_step = make_a_step
        saves = saves_of(editor)
        with house.running(settle_seconds=settle_seconds / speed):
            started = time.monotonic()
            for at, text in saves:
                _wait_until(started + at / speed)
                house.save("corgi.yaml", text)
            saved = time.monotonic()
            wait_for(lambda: "corgi/" in _whole(house), "the picture")
            took = (time.monotonic() - saved) * speed
        whole = saves[-1][1].partition("\n")[0].removeprefix("prompt: ")
        begun = [batch[0] for batch in house.engine.batches]
        half = [one for one in begun if (one.prompt, one.seed) != (whole, 7)]
        return Outcome(len(saves), len(half), len(house.pictures()) - 1, took)


def _whole(house: House) -> str:
    """The picture with the seed that is typed last, if it is there."""
    return next((picture for picture in house.pictures() if picture.endswith("-7.png")), "")


def _wait_until(moment: float) -> None:
    threading.Event().wait(max(0.0, moment - time.monotonic()))


def report(outcomes: Sequence[tuple[Editor, float, Outcome]], say: Callable[[str], None]) -> None:
    """A table in Markdown."""
    say(
        "| editor | `settle_seconds` | saves | begun half-typed | of them finished | "
        "from the last save to its picture |"
    )
    say("|---|---|---|---|---|---|")
    for editor, settle, outcome in outcomes:
        say(
            f"| {editor.name} | {settle:g} | {outcome.saves} | "
            f"{outcome.begun} | {outcome.finished} | {outcome.seconds_to_the_picture:.1f} s |"
        )


def main() -> None:
    """Every editor with every setting."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--speed", type=float, default=4, help="how much faster time runs (4)")
    parser.add_argument("--settle", type=float, nargs="+", default=[0.5, 1.5, 3, 5])
    options = parser.parse_args()
    outcomes = []
    for editor in EDITORS:
        for settle in options.settle:
            outcomes.append((editor, settle, session(editor, settle, speed=options.speed)))
    report(outcomes, print)


if __name__ == "__main__":
    main()
