"""What `run` and `status` show, on a terminal and elsewhere."""

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from picowatch.files.essential import Writing
from picowatch.observers.console import PlainConsole
from picowatch.outbox.lock import OutboxLock
from picowatch.outbox.names import OutboxNames
from picowatch.outbox.problems import ProblemFiles
from picowatch.outbox.status import EngineStatus, Status, StatusFiles
from tests.commands.picowatch import DIGESTS, picowatch_here, started
from tests.house import PATIENCE, wait_for
from tests.observers.screen import Terminal, in_pty

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def status(**values: Any) -> Status:
    common = {"queued": 112, "running": 1, "done": 2, "failed": 0, "cancelled": 0}
    return Status(**{"updated": 0.0, "started": 0.0, "images": common, **values})


def work(step: int, **values: Any) -> dict[str, Any]:
    return {"recipe": "corgi.yaml", "image": 3, "of": 20, "step": step, "steps": 24, **values}


def test_plain_progress_comes_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """It comes every ten seconds at most, and never for quick pictures."""
    console = PlainConsole()
    with caplog.at_level("INFO"):
        for second in range(25):
            console.show(status(**work(second, updated=float(second))))
        console.show(status(**work(22, updated=-9.0)))  # the clock was set back
        console.show(status(**work(24, updated=40.0, images={"queued": 0})))
    assert caplog.messages == [
        "corgi.yaml: 3 of 20, step 10/24; 112 queued",
        "corgi.yaml: 3 of 20, step 20/24; 112 queued",
        "corgi.yaml: 3 of 20, step 22/24; 112 queued",
        "corgi.yaml: 3 of 20, step 24/24",
    ]


# -- `run` on a terminal


def shown_by_a_run(
    folder: Path, steps: int, *flags: str, until: str = "", **environment: str
) -> Terminal:
    """Return a terminal of 120 columns after `run --once`, held until it shows something."""
    (folder / "inbox").mkdir()
    recipe = f"prompt: a corgi\nseed: 1\nsteps: {steps}\nsize: 64x64\ncount: 3\n"
    (folder / "inbox/a.yaml").write_text(recipe)
    (hold := folder / "hold").touch()
    run = in_pty(folder, "run", "--once", *flags, size=(40, 120), program=DIGESTS, **environment)
    with run as screen:
        screen.wait_until_written(until)
        hold.unlink()
        screen.process.wait(timeout=240)
    return screen


def test_one_live_view_on_a_terminal(tmp_path: Path) -> None:
    """It has share, time left, step, queue and last pictures; only log lines stay above it."""
    shown = shown_by_a_run(tmp_path, 100, until="of 3, loading demo", PICOWATCH_BATCH_SIZE="1")
    text = ESCAPES.sub("", shown.written)
    assert re.search(r"━+ a\.yaml: 1(–\d+)? of 3, loading demo …", text)
    left = r"\d+ %, (about )?\d+ (s|min) left"
    assert re.search(rf"━+ a\.yaml: \d+(–\d+)? of 3, {left}, step \d+/100, [\d.]+ it/s", text)
    assert re.search(r"queued  \d images?: a\.yaml \d", text)
    assert re.search(r"last    a/00\d\d-\d+.png", text)
    assert re.search(r"device  digest, exact, [\d.]+ GB of memory, [\d.]+ GB at most", text)
    assert "a.yaml: saved, 3 images queued" in text
    assert "picowatch ended" in "\n".join(shown.lines)
    assert "last    a/000" not in "\n".join(shown.lines), "the view is gone at the end"


@pytest.mark.parametrize(
    ("flags", "environment"),
    [((), {"TERM": "dumb"}), (("--log-format", "json"), {}), (("--quiet",), {})],
)
def test_plain_lines_where_a_view_is_not_wanted(
    tmp_path: Path, flags: tuple[str, ...], environment: dict[str, str]
) -> None:
    """So on a dumb terminal and as JSON; with --quiet, nothing is shown if nothing is wrong."""
    written = shown_by_a_run(tmp_path, 4, *flags, **environment).written
    assert "\x1b" not in written
    if flags == ("--quiet",):
        assert written == ""
    elif flags:
        assert all(set(json.loads(line)) >= {"time", "message"} for line in written.splitlines())
    else:
        assert "a.yaml: a/0003-3.png" in written


# -- `status`


class Seen:
    """An outbox whose status a test writes itself, with its lock held."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.outbox = folder, folder / "outbox"
        self._lock = ExitStack()
        self._lock.callback(OutboxLock(self.outbox).release)
        self.end = self._lock.close  # ends the picowatch that has the outbox
        writing = Writing(Event(), self.outbox)
        problems = ProblemFiles(self.outbox, OutboxNames(self.outbox), writing)
        self._files = StatusFiles(self.outbox, problems, writing)

    def write(self, **values: Any) -> None:
        now = time.time()
        self._files.write(status(**{"updated": now, "started": now, **values}))

    def told(self) -> tuple[int, list[str]]:
        answer = picowatch_here(self.folder, "status")
        return answer.returncode, answer.stdout.splitlines()

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(picowatch_here(self.folder, "status", "--json").stdout)
        return found


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    seen = Seen(tmp_path)
    yield seen
    seen.end()


NOW, QUEUED, SO_FAR = "now     corgi.yaml: ", "queued  112 images", "so far  2 images rendered"
LEFT = "queued  113 images"  # with the one that was in progress
DEVICE: dict[str, Any] = {
    "device": "cuda:0 (A Card)", "memory_bytes": 3_210_000_000, "memory_peak_bytes": 5_060_000_000
}  # fmt: skip
FULL = work(
    12, phase="upscale", steps_per_second=3.14,
    share=0.629, seconds_left=40.2, all_seconds_left=700.0,
    waiting=(("night/a.yaml", 60), ("b.txt", 40), ("c.txt", 9), ("d.txt", 3)), waiting_recipes=4,
    pictures=("corgi/0001-7.png", "corgi/0002-8.png"),
    engines=(EngineStatus(number=1, precision="float16", **DEVICE),),
)  # fmt: skip
CARD = EngineStatus(
    number=1, node="lab-3", checkpoint="dreamshaper",
    images=112, batch=8, steps_per_second=54.13, **DEVICE,
)  # fmt: skip
ENGINES = (CARD, *(EngineStatus(number=number, device="auto") for number in range(2, 11)))
HUNG = EngineStatus(number=1, recipe="corgi.yaml", batch=1, trouble="no step for 45 s")
ERRORS = tuple(f"{name}.yaml: unknown field 'stesp'" for name in "defg")
GUESSED = {"seconds_left": 89.0, "about": True, "all_seconds_left": 700.0, "all_about": True}
IGNORED = (("_a.yaml", "its name"), ("b.md", "recipes are"), ("c", "d"), ("e", "f"))
GONE = {"models": "the folder is not there", "inbox": "inbox is not there"}
# What is known, and what `status` shows of it.
SHOWN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "idle": ({}, ["now     nothing is running", QUEUED, SO_FAR]),
    "all that is known": (FULL, [
        f"{NOW}3 of 20, 62 %, 40 s left, upscale 12/24, 3.1 it/s",
        f"{QUEUED}, all done in 12 min: night/a.yaml 60, b.txt 40, c.txt 9 and 1 more",
        SO_FAR,
        "last    corgi/0002-8.png  corgi/0001-7.png",
        "device  cuda:0 (A Card), float16, 3.2 GB of memory, 5.1 GB at most",
    ]),
    "what is ignored is counted": ({"ignored": IGNORED, "ignored_count": 30}, [
        SO_FAR,
        "ignored _a.yaml: its name",
        "ignored b.md: recipes are",
        "ignored c: d",
        "ignored and 27 more: see the log",
    ]),
    "nothing like it was rendered": (work(12, phase="draw", **GUESSED), [
        f"{NOW}3 of 20, about 89 s left, step 12/24",
        f"{QUEUED}, all done in about 12 min",
    ]),
    "an engine makes no step": (
        work(12, seconds_left=89.0, engines=(HUNG, *ENGINES[1:])),
        [f"{NOW}3 of 20, no step for 45 s, step 12/24"],
    ),
    "a batch": (work(12, last_image=10), [f"{NOW}3–10 of 20, step 12/24"]),
    "a model is loaded": (work(0, loading="dream"), [f"{NOW}3 of 20, loading dream …"]),
    "each of several engines has a row": ({"engines": ENGINES}, [
        SO_FAR,
        "engines 1: lab-3, cuda:0 (A Card), dreamshaper, 112 images, 54.1 it/s, "
        "8 at once, 3.2 GB of memory, 5.1 GB at most",
        *(f"        {number}: 0 images" for number in range(2, 9)),
        "        … and 2 more",
    ]),
    "what is not there": ({"troubles": GONE}, [
        QUEUED,
        "trouble inbox: inbox is not there",
        "trouble models: the folder is not there",
        SO_FAR,
    ]),
    "more errors are counted": ({"errors": ERRORS, "error_count": 7}, [
        SO_FAR,
        *(f"error   {error}" for error in reversed(ERRORS[1:])),
        "error   and 4 more: see the .error.txt files in the outbox",
    ]),
}  # fmt: skip


@pytest.mark.parametrize(("values", "lines"), SHOWN.values(), ids=SHOWN)
def test_status_shows_what_is_known(seen: Seen, values: dict[str, Any], lines: list[str]) -> None:
    """Some errors, engines and pictures, and how many more there are; now.txt ends at the step."""
    seen.write(**values)
    code, (first, *others) = seen.told()
    assert code == 0
    assert re.fullmatch(r"picowatch is running on \S+, process \d+, for 0 s", first)
    begin = others.index(lines[0])
    assert others[begin : begin + len(lines)] == lines
    assert begin == 0 or others[-1] == lines[-1]
    now = re.sub(r", (step|upscale) \d.*", "", others[0].removeprefix("now     "))
    assert (seen.outbox / "now.txt").read_text() == f"{now}; 112 images wait\n"


def test_status_is_json_for_programs_and_has_what_is_left_once_picowatch_ended(seen: Seen) -> None:
    """Nobody knows then when the queue will be done."""
    seen.write(**FULL)
    values = seen.json()
    assert values["running"] is True
    assert values["waiting"][0] == ["night/a.yaml", 60]
    assert values["all_seconds_left"] == 700.0
    seen.end()
    assert seen.told()[1][:3] == [
        "picowatch is not running",
        f"{LEFT}: night/a.yaml 60, b.txt 40, c.txt 9 and 1 more",
        SO_FAR,
    ]


def test_status_says_since_when_a_picowatch_has_reported_nothing(seen: Seen) -> None:
    """It may hang, be stopped, or have a full disk: the rest is its state at that time."""
    then = time.mktime((2025, 11, 22, 20, 31, 5, 0, 0, -1))
    seen.write(**work(6), started=then - 60, updated=then)
    code, lines = seen.told()
    assert code == 0
    assert lines[1:3] == [
        "it has reported nothing since 2025-11-22 20:31:05",
        "now     corgi.yaml: 3 of 20, step 6/24",
    ]
    assert seen.json()["updated"] == then


def test_before_its_first_status_a_picowatch_is_starting(seen: Seen) -> None:
    """What one that has ended wrote is not the new one's state."""
    starting = "picowatch is starting or ending; if that takes long, picowatch.log says why"
    assert seen.told() == (0, [starting])
    seen.write(**work(6, seconds_left=40.0), ended=True, started=0.0)
    assert seen.told() == (0, [starting, LEFT, SO_FAR])
    assert (seen.json()["running"], seen.json()["ended"]) == (True, True)
    health = picowatch_here(seen.folder, "status", "--check")
    assert (health.returncode, health.stdout, health.stderr) == (1, "", f"{starting}\n")


def test_a_picowatch_on_another_machine_is_known_by_its_fresh_status(seen: Seen) -> None:
    """Some network shares have no locks."""
    seen.write(updated=time.time(), host="elsewhere")
    seen.end()
    assert seen.told()[1][0].startswith("picowatch is running on elsewhere")
    seen.write(updated=time.time() - 3600, host="elsewhere")
    assert seen.told()[0] == 1
    seen.write(updated=time.time(), host="elsewhere", ended=True)
    assert seen.told()[0] == 1


# -- `status --watch`


def test_watching_draws_one_view_over_and_over(seen: Seen) -> None:
    """Nothing of an earlier view is left; it goes on without a picowatch until Ctrl-C."""
    seen.write(**work(6, errors=("x.yaml: unknown field",), pictures=("a/1.png", "a/2.png")))
    with in_pty(seen.folder, "status", "--watch") as screen:
        screen.wait_for("step 6/24")
        seen.write(**work(12))
        screen.wait_for("step 12/24")
        wait_for(lambda: "x.yaml" not in "\n".join(screen.lines), "no old error")
        assert [line for line in screen.lines if "step" in line] == [
            "━━━━━━━━━━━━━━━━━━━━ corgi.yaml: 3 of 20, step 12/24"
        ]
        seen.end()
        screen.wait_for("picowatch is not running")
        screen.process.send_signal(signal.SIGINT)
    assert screen.lines == []


def test_sixty_columns_are_enough_and_the_end_gives_the_cursor_back(seen: Seen) -> None:
    """Even if `timeout` ends it. NO_COLOR (https://no-color.org) is respected."""
    name, values = "holidays/at-the-sea-with-the-whole-family.yaml", {"last_image": 16, "of": 1000}
    seen.write(**work(12, seconds_left=4000.0) | values | {"recipe": name})
    with in_pty(seen.folder, "status", "--watch", size=(24, 60), NO_COLOR="1") as screen:
        screen.wait_for("so far")
        lines = screen.lines
        screen.process.send_signal(signal.SIGTERM)
    assert lines[1] == "now     …the-whole-family.yaml: 3–16 of 1,000, 67 min left,…"
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert screen.written.rfind(shown) > screen.written.rfind(hidden) >= 0
    assert not re.search(r"\x1b\[[0-9;]*3\d", screen.written)


def test_watching_in_a_pipe_gives_a_line_at_each_change(seen: Seen) -> None:
    """Scripts read it; it ends at the next change if nobody reads any more."""
    seen.write(**work(6))
    with started(seen.folder, "status", "--watch") as process:
        assert process.stdout is not None
        assert "corgi.yaml: 3 of 20, step 6/24; 112 images" in process.stdout.readline()
        now = time.time()
        seen.write(**work(6), started=now - 60, updated=now)  # nothing has changed for a minute
        wait_for(lambda: "for 60 s" in picowatch_here(seen.folder, "status").stdout)
        seen.write(**work(8), started=now - 61, updated=now)
        line = "corgi.yaml: 3 of 20, step 8/24; 112 images"
        assert process.stdout.readline() == f"{line}\n"
        seen.write(**work(8), troubles={"inbox": "is away"})
        assert process.stdout.readline() == f"{line}; inbox: is away\n"
        process.stdout.close()
        seen.end()
        assert process.wait(timeout=PATIENCE) == 0
