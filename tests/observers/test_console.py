"""What `run` shows on a terminal and elsewhere."""

import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picowatch.observers.console import PlainConsole, progress_text, rows
from picowatch.outbox.lock import OutboxLock
from picowatch.outbox.names import OutboxNames
from picowatch.outbox.problems import ProblemFiles
from picowatch.outbox.status import EngineStatus, Status, StatusFiles, read_status
from picowatch.settings import Settings
from tests.commands.picowatch import DIGESTS, picowatch, start
from tests.house import PATIENCE, House, wait_for
from tests.observers.screen import Screen, in_pty

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def status(**values: Any) -> Status:
    common = {"queued": 112, "running": 1, "done": 2, "failed": 0, "cancelled": 0}
    return Status(**{"updated": 0.0, "started": 0.0, "images": common, **values})


def shown_by_a_run(
    folder: Path, steps: int, *flags: str, program: str = "picowatch", **environment: str
) -> str:
    """All that `run --once` writes to a terminal of 120 columns."""
    (folder / "inbox").mkdir()
    recipe = f"prompt: a corgi\nseed: 1\nsteps: {steps}\nsize: 64x64\ncount: 17\n"
    (folder / "inbox/a.yaml").write_text(recipe)
    run = in_pty(folder, "run", "--once", *flags, size=(40, 120), program=program, **environment)
    with run as screen:
        assert screen.process.wait(timeout=240) == 0
    return screen.written


def test_one_live_view_on_a_terminal(tmp_path: Path) -> None:
    """Step, speed, time left, what is queued, the last pictures; only other lines stay above it."""
    written = shown_by_a_run(tmp_path, 40)
    text = ESCAPES.sub("", written)
    assert re.search(r"━+ a\.yaml: 1(–\d+)? of 17, loading demo …", text)
    assert re.search(r"━+ a\.yaml: \d+(–\d+)? of 17, \d+ s left, step \d+/40, [\d.]+ it/s", text)
    assert re.search(r"queued  \d images?: a\.yaml \d", text)
    assert re.search(r"last    a/00\d\d-\d+.png", text)
    assert re.search(r"device  cpu, float32, [\d.]+ GB of memory, [\d.]+ GB at most", text)
    assert "a.yaml: saved, 17 images queued" in text
    screen = "\n".join(Screen(written, columns=120).lines)
    assert "picowatch ended" in screen
    assert "a/000" not in screen, "the view is gone at the end"


def test_each_of_several_engines_has_a_row() -> None:
    """The first eight, and how many there are besides; what stands in one's way is marked."""
    first = EngineStatus(
        number=1,
        node="lab-3",
        device="cuda:0 (NVIDIA H200)",
        checkpoint="dreamshaper",
        images=112,
        batch=8,
        steps_per_second=54.13,
        memory_bytes=3_000_000_000,
        memory_peak_bytes=3_500_000_000,
    )
    others = (EngineStatus(number=number, device="auto") for number in range(2, 11))
    sick = EngineStatus(number=11, trouble="There is no cuda:1.")
    found = rows(status(engines=(first, *others)))[-9:]
    assert found[0].label == "engines"
    assert found[0].text == (
        "1: lab-3, cuda:0 (NVIDIA H200), dreamshaper, 112 images, 54.1 it/s, 8 at once, "
        "3.0 GB of memory, 3.5 GB at most"
    )
    assert found[1].text == "2: 0 images"
    assert found[-1].text == "… and 2 more"
    bad = rows(status(engines=(first, sick)))[-1]
    assert (bad.text, bad.style) == ("11: 0 images, There is no cuda:1.", "bad")


def test_a_single_engine_on_another_machine_names_it() -> None:
    """As on a cluster that is left with one node."""
    only = EngineStatus(number=5, node="lab-3", device="cpu", images=2)
    assert rows(status(engines=(only,)))[-1].text == "5: lab-3, cpu, 2 images"


@pytest.mark.parametrize("engines", [None, [{"number": 1, "colour": "red"}]])
def test_a_status_of_an_older_or_newer_picowatch_is_understood(
    tmp_path: Path, engines: list[dict[str, object]] | None
) -> None:
    """Without the engines, or with fields of engines that this version does not know."""
    values: dict[str, Any] = {"updated": 1.0, "started": 0.0, "images": {"queued": 0}}
    values |= {"engines": engines} if engines else {}
    (tmp_path / ".picowatch").mkdir()
    (tmp_path / ".picowatch/status.json").write_text(json.dumps(values))
    found = read_status(tmp_path)
    assert found is not None
    assert found.engines == ((EngineStatus(number=1),) if engines else ())


@pytest.mark.parametrize(
    ("flags", "environment"),
    [((), {"TERM": "dumb"}), (("--log-format", "json"), {}), (("--quiet",), {})],
)
def test_plain_lines_where_a_view_is_not_wanted(
    tmp_path: Path, flags: tuple[str, ...], environment: dict[str, str]
) -> None:
    """On a dumb terminal, as JSON for programs, and nothing where nothing is wrong."""
    written = shown_by_a_run(tmp_path, 4, *flags, program=DIGESTS, **environment)
    assert "\x1b" not in written
    if flags == ("--quiet",):
        assert written == ""
    elif flags:
        assert all(set(json.loads(line)) >= {"time", "message"} for line in written.splitlines())
    else:
        assert "a.yaml: a/0009-9.png" in written


def test_no_colours_where_they_are_not_wanted(house: House) -> None:
    """NO_COLOR (https://no-color.org)."""
    with house.running(), in_pty(house.folder, "status", "--watch", NO_COLOR="1") as screen:
        screen.wait_for("nothing is running")
        screen.process.send_signal(signal.SIGINT)
    assert not re.search(r"\x1b\[[0-9;]*3\d", screen.written)


class Seen:
    """An outbox whose status a test writes itself, with its lock held."""

    def __init__(self, folder: Path) -> None:
        self.outbox = folder / "outbox"
        self.lock: OutboxLock | None = OutboxLock(self.outbox)
        problems = ProblemFiles(self.outbox, OutboxNames(Settings(outbox=self.outbox)))
        self._files = StatusFiles(self.outbox, problems)

    def write(self, **values: Any) -> None:
        now = time.time()
        self._files.write(status(**{"updated": now, "started": now, **values}))

    def end(self) -> None:
        """The picowatch that holds the outbox ends."""
        if self.lock:
            self.lock.release()
        self.lock = None


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    seen = Seen(tmp_path)
    yield seen
    seen.end()


def work(step: int, **values: Any) -> dict[str, Any]:
    return {"recipe": "corgi.yaml", "image": 3, "of": 20, "step": step, "steps": 24, **values}


def test_watching_draws_one_view_over_and_over(tmp_path: Path, seen: Seen) -> None:
    """Nothing of what was drawn before is left, and Ctrl-C ends it well."""
    seen.write(**work(6, errors=("x.yaml: unknown field",), pictures=("a/1.png", "a/2.png")))
    with in_pty(tmp_path, "status", "--watch") as screen:
        screen.wait_for("step 6/24")
        seen.write(**work(12))
        screen.wait_for("step 12/24")
        screen.wait_until(lambda lines: "x.yaml" not in "\n".join(lines), "no old error")
        assert [line for line in screen.now.lines if "step" in line] == [
            "━━━━━━━━━━━━━━━━━━━━ corgi.yaml: 3 of 20, step 12/24"
        ]
        screen.process.send_signal(signal.SIGINT)
        assert screen.process.wait(timeout=20) == 0
    assert screen.now.lines == []


def test_watching_continues_while_no_picowatch_is_running(tmp_path: Path, seen: Seen) -> None:
    """It may be started any time."""
    seen.write()
    with in_pty(tmp_path, "status", "--watch") as screen:
        screen.wait_for("nothing is running")
        seen.end()
        screen.wait_for("picowatch is not running")
        screen.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_of_watching_gives_the_cursor_back(
    tmp_path: Path, seen: Seen, number: signal.Signals
) -> None:
    """Also that by `timeout`."""
    seen.write()
    with in_pty(tmp_path, "status", "--watch") as screen:
        screen.wait_for("nothing is running")
        screen.process.send_signal(number)
        assert screen.process.wait(PATIENCE) == 0
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert screen.written.rfind(shown) > screen.written.rfind(hidden) >= 0


def test_watching_in_a_pipe_gives_a_line_at_each_change(tmp_path: Path, seen: Seen) -> None:
    """For scripts."""
    seen.write(**work(6))
    process = start(tmp_path, "status", "--watch")
    assert process.stdout is not None
    assert "corgi.yaml: 3 of 20, step 6/24; 112 images" in process.stdout.readline()
    seen.write(**work(7))
    assert "step 7/24" in process.stdout.readline()
    now = time.time()
    seen.write(**work(7), started=now - 60, updated=now)  # nothing has changed for a minute
    wait_for(lambda: "for 60 s" in picowatch(tmp_path, "status").stdout)
    seen.write(**work(8), started=now - 61, updated=now)
    assert process.stdout.readline() == "corgi.yaml: 3 of 20, step 8/24; 112 images\n"
    seen.end()
    assert process.stdout.readline() == "picowatch is not running; 112 images\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    process.stdout.close()


def test_watching_ends_when_nobody_reads_any_more(tmp_path: Path, seen: Seen) -> None:
    """As after `| grep --max-count 1 …`, though nothing changes."""
    seen.write(**work(6))
    process = start(tmp_path, "status", "--watch")
    assert process.stdout is not None
    assert "step 6/24" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=PATIENCE) == 0


def test_status_shows_what_is_running_queued_and_failed(tmp_path: Path, seen: Seen) -> None:
    """In rows for people; the same as JSON for programs."""
    seen.write(
        **work(12, steps_per_second=3.14, seconds_left=40.2, all_seconds_left=700.0),
        waiting=(("night/a.yaml", 60), ("b.txt", 40), ("c.txt", 9), ("d.txt", 3)),
        waiting_recipes=4,
        pictures=("corgi/0001-7.png", "corgi/0002-8.png"),
        errors=("x.yaml: unknown field 'stesp'",),
        device="cuda:0 (A Card)",
        precision="float16",
        memory_bytes=3_210_000_000,
        memory_peak_bytes=5_060_000_000,
    )
    answer = picowatch(tmp_path, "status")
    assert answer.returncode == 0
    first, *others = answer.stdout.splitlines()
    assert re.fullmatch(r"picowatch is running on \S+, process \d+, for 0 s", first)
    assert others == [
        "now     corgi.yaml: 3 of 20, 40 s left, step 12/24, 3.1 it/s",
        "queued  112 images, all done in 12 min: night/a.yaml 60, b.txt 40, c.txt 9 and 1 more",
        "so far  2 images rendered",
        "last    corgi/0002-8.png  corgi/0001-7.png",
        "error   x.yaml: unknown field 'stesp'",
        "device  cuda:0 (A Card), float16, 3.2 GB of memory, 5.1 GB at most",
    ]
    values = json.loads(picowatch(tmp_path, "status", "--json").stdout)
    assert values["running"] is True
    assert values["waiting"][0] == ["night/a.yaml", 60]
    assert values["all_seconds_left"] == 700.0


def test_without_a_picowatch_only_what_is_left_is_shown(tmp_path: Path, seen: Seen) -> None:
    """However it ended: no engine renders, and nobody knows when the queue will be done."""
    two = tuple(EngineStatus(number=number, steps_per_second=3.0) for number in (1, 2))
    seen.write(**work(6, all_seconds_left=700.0), engines=two)
    seen.end()
    answer = picowatch(tmp_path, "status")
    assert answer.returncode == 1
    assert answer.stdout.splitlines() == [
        "picowatch is not running",
        "queued  112 images",
        "so far  2 images rendered",
    ]


def test_status_says_since_when_a_picowatch_has_reported_nothing(
    tmp_path: Path, seen: Seen
) -> None:
    """It hangs, is stopped, or the disk is full: the rest is what it did at that time."""
    then = time.mktime((2025, 11, 22, 20, 31, 5, 0, 0, -1))
    seen.write(**work(6), started=then - 60, updated=then)
    answer = picowatch(tmp_path, "status")
    assert answer.returncode == 0
    assert answer.stdout.splitlines()[1:3] == [
        "it has reported nothing since 2025-11-22 20:31:05",
        "now     corgi.yaml: 3 of 20, step 6/24",
    ]
    assert json.loads(picowatch(tmp_path, "status", "--json").stdout)["updated"] == then


def test_before_its_first_status_a_picowatch_is_starting(tmp_path: Path, seen: Seen) -> None:
    """What the one before it wrote, if it was killed, is not what the new one does."""
    answers = [picowatch(tmp_path, "status")]
    seen.write(**work(6, seconds_left=40.0), pid=1, started=0.0)
    answers.append(picowatch(tmp_path, "status"))
    assert [answer.returncode for answer in answers] == [0, 0]
    first, second = (answer.stdout.splitlines() for answer in answers)
    starting = "picowatch is starting or ending; if that takes long, picowatch.log says why"
    assert first == [starting]
    assert second == [
        starting,
        "queued  112 images",
        "so far  2 images rendered",
    ]
    values = json.loads(picowatch(tmp_path, "status", "--json").stdout)
    assert (values["running"], values["ended"]) == (True, True)


def test_more_errors_than_are_shown_are_counted(tmp_path: Path, seen: Seen) -> None:
    """Three are shown, the newest first; the rest must not go unnoticed."""
    errors = tuple(f"{name}.yaml: unknown field 'stesp'" for name in "cdefg")
    for count, last in ((3, None), (4, "and 1 more"), (7, "and 4 more")):
        seen.write(**work(6), errors=errors[-count:], error_count=count)
        shown = picowatch(tmp_path, "status").stdout.splitlines()
        rows = [line for line in shown if line.startswith("error")]
        assert rows[0] == "error   g.yaml: unknown field 'stesp'"
        more = [f"error   {last}: see the .error.txt files in the outbox"] if last else []
        assert rows[3:] == more


def test_sixty_columns_are_enough(tmp_path: Path, seen: Seen) -> None:
    """The view shows the parts that matter most, whole; the command shows all, at more lines."""
    seen.write(
        recipe="holidays/at-the-sea-with-the-whole-family.yaml", image=9, last_image=16, of=1000,
        step=12, steps=24, steps_per_second=3.14, seconds_left=4000.0, all_seconds_left=70000.0,
        waiting=(("night/with-a-long-name.yaml", 60), ("b.txt", 40), ("c.txt", 9)),
        waiting_recipes=4, device="cuda:0 (NVIDIA GeForce RTX 4090 Laptop GPU)",
        precision="float16", memory_bytes=3_210_000_000, memory_peak_bytes=5_060_000_000,
        errors=("x.yaml, line 3, column 1: unknown field 'stesp'. Did you mean 'steps'?",),
    )  # fmt: skip
    with in_pty(tmp_path, "status", "--watch", size=(24, 60)) as screen:
        screen.wait_for("so far")
        lines = screen.now.lines
        screen.process.send_signal(signal.SIGINT)
    assert max(map(len, lines)) <= 60
    assert lines[1:3] == [
        "now     …the-whole-family.yaml: 9–16 of 1000, 67 min left, …",
        "queued  112 images, all done in 19 h 27 min: night/with-a-l…",
    ]
    with in_pty(tmp_path, "status", size=(24, 60)) as screen:
        screen.wait_for("device")
        assert screen.process.wait(timeout=20) == 0
    shown = [line for line in screen.now.lines if not line.startswith("picowatch is")]
    assert max(map(len, shown)) <= 60
    assert shown[:2] == [
        "now     …the-whole-family.yaml: 9–16 of 1000, 67 min left,",
        "        step 12/24, 3.1 it/s",
    ]


def test_status_of_another_version_is_still_read(tmp_path: Path, seen: Seen) -> None:
    """Fields that are missing or unknown are no matter."""
    seen.write()
    path = seen.outbox / ".picowatch/status.json"
    values = json.loads(path.read_text())
    del values["waiting"], values["device"]
    path.write_text(json.dumps(values | {"later": 1}))
    assert "nothing is running" in picowatch(tmp_path, "status").stdout


def test_a_picowatch_on_another_machine_is_known_by_its_fresh_status(
    tmp_path: Path, seen: Seen
) -> None:
    """Where locks do not reach, as on some network shares."""
    seen.write(updated=time.time(), host="elsewhere")
    seen.end()
    assert picowatch(tmp_path, "status").stdout.startswith("picowatch is running on elsewhere")
    seen.write(updated=time.time() - 3600, host="elsewhere")
    assert picowatch(tmp_path, "status").returncode == 1
    seen.write(updated=time.time(), host="elsewhere", ended=True)
    assert picowatch(tmp_path, "status").returncode == 1


def test_progress_in_one_line() -> None:
    """What is known, in this order."""
    full = status(
        recipe="corgi.yaml", image=3, of=20, step=12, steps=24, steps_per_second=3.14,
        seconds_left=40.2,
    )  # fmt: skip
    assert progress_text(full) == (
        "corgi.yaml: 3 of 20, 40 s left, step 12/24, 3.1 it/s; 112 queued"
    )
    batch = replace(full, last_image=10)
    assert batch.line() == "corgi.yaml: 3–10 of 20, 40 s left; 112 images wait"
    loads = replace(batch, step=0, steps_per_second=0.0, seconds_left=None, loading="dream")
    assert progress_text(loads) == "corgi.yaml: 3–10 of 20, loading dream …; 112 queued"
    assert full.line() == "corgi.yaml: 3 of 20, 40 s left; 112 images wait"
    assert status().line() == "nothing is running; 112 images wait"


def test_plain_progress_comes_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """Every ten seconds at most, and none for quick pictures."""
    console = PlainConsole()
    with caplog.at_level("INFO"):
        for second in range(25):
            console.show(
                Status(
                    updated=float(second), started=0.0, images={"queued": 0}, recipe="a.yaml",
                    image=1, of=2, step=second, steps=24,
                )
            )  # fmt: skip
    assert [record.message for record in caplog.records] == [
        "a.yaml: 1 of 2, step 10/24",
        "a.yaml: 1 of 2, step 20/24",
    ]


def test_a_daemon_that_takes_recipes_away_says_that_nobody_else_may_watch_the_inbox(
    house: House,
) -> None:
    """Another outbox's picowatch would take them for deleted; none can see the other."""
    (house.folder / "picowatch.yaml").write_text("when_done: archive\n")
    daemon = start(house.folder, "run")
    wait_for(lambda: house.status()["images"] is not None, "the daemon's start")
    daemon.terminate()
    shown, _ = daemon.communicate(timeout=PATIENCE)
    assert "no other picowatch may watch it" in shown
