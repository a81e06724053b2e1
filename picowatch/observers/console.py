"""What `run` shows: log lines, and on a terminal a live view of the status, as `status` does."""

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from picowatch.outbox.status import EngineStatus, Status, duration, images
from picowatch.streams import LINES_KEPT, BackgroundStream, discard, finish, harmless, may_block

if TYPE_CHECKING:
    from rich.text import Text


DUMB = {"", "dumb", "unknown"}  # terminals that cannot move the cursor
# Colours that are readable in light, dark and Solarized themes. In Solarized's palette the bright
# colours are greys and "bright black" is the background; yellow on white is hard to read.
STYLES = {"": "", "good": "green", "bad": "red", "quiet": "dim"}
LEVEL_STYLES = {logging.WARNING: "magenta", logging.ERROR: "red"}
BAR = 20  # columns
WIDE_ENOUGH = 80  # columns; on fewer, the time left takes the place of the bar
LONGEST_NAME = 22  # of a recipe: what follows it has to fit
LABEL = 8  # columns
MOST = 3  # pictures, errors and recipes that are named
ENGINES = 8
PROGRESS_SECONDS = 10.0  # between lines of progress without a view


class Console(Protocol):
    """Shows the log and the status."""

    handler: logging.Handler  # where log lines go

    def show(self, status: Status) -> None:
        """Show the current status; called a few times a second."""

    def close(self) -> None:
        """Write the rest."""


def open_console(log_format: str, *, quiet: bool, verbose: bool) -> Console:
    """Return a live view for a terminal; plain lines elsewhere, for JSON, and for `quiet`."""
    stream = sys.stdout
    if hasattr(stream, "reconfigure"):  # a name that the terminal cannot encode must not raise
        stream.reconfigure(errors="backslashreplace")
    if can_draw(stream) and log_format == "text" and not quiet:
        return LiveConsole(stream, pictures_too=verbose)
    return PlainConsole(stream, quiet=quiet)


def can_draw(stream: TextIO) -> bool:
    """Return whether the stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") not in DUMB


class PlainHandler(logging.StreamHandler[TextIO]):
    """A handler for lines on a stream that may be full or gone for a while, without tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class PlainConsole:
    """Shows log lines (`quiet`: warnings and errors), and progress while a batch takes long."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stdout
        blocks = may_block(self._stream)
        self._background = BackgroundStream(self._stream, LINES_KEPT) if blocks else None
        self.handler: logging.Handler = PlainHandler(cast(TextIO, self._background or self._stream))
        if quiet:
            self.handler.setLevel(logging.WARNING)
        self._shown_at = 0.0
        self._work = ("", 0)

    def show(self, status: Status) -> None:
        """Log the progress now and then."""
        work = (status.recipe, status.image)
        if work != self._work:
            self._work, self._shown_at = work, status.updated
        elif status.recipe and abs(status.updated - self._shown_at) >= PROGRESS_SECONDS:
            self._shown_at = status.updated
            logging.getLogger("picowatch.progress").info("%s", progress_text(status))

    def close(self) -> None:
        """Write the rest; lines that cannot be written are in picowatch.log."""
        if self._background:
            self._background.finish()
        else:
            finish(self._stream)


class LiveView(logging.Handler):
    """Redrawn lines at a terminal's end, below the log; `is_gone`: nobody sees them any more."""

    def __init__(self, stream: TextIO) -> None:
        # rich takes a tenth of a second to import; pipes and services do without it.
        from rich.console import Console as RichConsole
        from rich.live import Live

        super().__init__()
        self.is_gone = False
        self._stream = stream
        self._lock = threading.RLock()
        self._lines: list[Text] = []
        self._console = RichConsole(file=stream, highlight=False, soft_wrap=True)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def draw(self, shown: "Sequence[Row]") -> None:
        """Show these rows, unless they are shown already."""
        from rich.console import Group

        lines = [*map(self._line, shown)]
        with self._drawing():
            if lines != self._lines:
                self._lines = lines
                self._live.update(Group(*lines), refresh=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line of the log, which stays."""
        style = LEVEL_STYLES.get(record.levelno, "")
        with self._drawing():
            self._console.print(self.format(record), style=style, markup=False)

    def close(self) -> None:
        with self._drawing():
            self._live.stop()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Let one thread draw at a time; ignore that the terminal is gone."""
        with self._lock:
            try:
                yield
            except OSError:
                self.is_gone = True
                discard(self._stream)

    def _line(self, row: "Row") -> "Text":
        from rich.text import Text

        line = Text(no_wrap=True, overflow="ellipsis")
        if row.done is None or self._console.width < WIDE_ENOUGH:
            return line.append(f"{row.label:{LABEL}}" if row.label else "", "bold").append(
                row.text, STYLES[row.style]
            )
        mark = "━" if self._console.encoding.startswith("utf") else "="
        done = round(BAR * row.done)
        line.append(mark * done, "green").append(mark * (BAR - done), "bright_black")
        return line.append(f" {row.text}")


class LiveConsole(LiveView):
    """A view of the status below the log lines; it shows new pictures itself."""

    def __init__(self, stream: TextIO | None = None, *, pictures_too: bool = False) -> None:
        self._terminal = BackgroundStream(stream or sys.stdout)
        super().__init__(cast(TextIO, self._terminal))
        self.handler: logging.Handler = self
        if not pictures_too:
            self.addFilter(lambda record: record.name != "picowatch.pictures")

    def show(self, status: Status) -> None:
        self.draw(rows(status))

    def close(self) -> None:
        super().close()
        self._terminal.finish()


@dataclass(frozen=True, slots=True)
class Row:
    """One line: its label, its text, and its style ("", "good", "bad" or "quiet")."""

    label: str
    text: str
    style: str = ""
    done: float | None = None  # share of its bar, which replaces the label if there is room


def rows(status: Status) -> list[Row]:
    """Return the rows that are not empty, the most important rows first."""
    found = [_now(status)]
    if status.images["queued"]:
        found.append(Row("queued", _queued(status)))
    others = [folder.line() for folder in status.folders if folder.folder != status.folder]
    found += [Row("folder", line) for line in others[:MOST]]
    told = (status.trouble, *(engine.trouble for engine in status.engines))
    for what in ("outbox", "inbox", "models"):
        if (why := status.troubles.get(what, "")) and why not in told:
            found.append(Row("trouble", f"{what}: {why}", "bad"))
    counts = status.images
    ended = [f"{images(counts.get('done', 0))} rendered"]
    ended += [f"{counts[state]} {state}" for state in ("failed", "cancelled") if counts.get(state)]
    found.append(Row("so far", ", ".join(ended), "quiet"))
    if status.pictures:
        found.append(Row("last", "  ".join(reversed(status.pictures[-MOST:]))))
    newest, more = status.errors[::-1], "the .error.txt files in the outbox"
    found += _first("error", newest, status.error_count, more, "bad")
    ignored = [f"{path}: {why}" for path, why in status.ignored]
    found += _first("ignored", ignored, status.ignored_count, "the log", "quiet")
    if len(status.engines) > 1 or any(engine.node for engine in status.engines):
        found += _engines(status)
    elif status.engines and status.engines[0].device not in ("", "auto"):  # once it is known
        engine = status.engines[0]
        parts = filter(None, [engine.device, engine.precision, _memory(engine)])
        found.append(Row("device", ", ".join(parts), "quiet"))
    return [replace(row, text=harmless(row.text)) for row in found]


def _first(label: str, texts: Sequence[str], count: int, where: str, style: str) -> list[Row]:
    """Return a row for each of the first texts, and one for how many more there are."""
    found = [Row(label, text, style) for text in texts[:MOST]]
    if (more := count - MOST) > 0:
        found.append(Row(label, f"and {more} more: see {where}", style))
    return found


def progress_text(status: Status) -> str:
    """Return "corgi.yaml: 1–8 of 20, 62 %, 40 s left, step 12/24, 3.1 it/s; 9 queued"."""
    waiting = status.images["queued"]
    return harmless(_work(status) + (f"; {waiting} queued" if waiting else ""))


def _now(status: Status) -> Row:
    if status.trouble:
        return Row("now", f"waiting: {status.trouble}", "bad")
    if status.recipe:
        last = "; then paused" if status.paused else ""
        name = status.name  # a long name is cut off at its beginning
        if len(name) > LONGEST_NAME:
            name = "…" + name[1 - LONGEST_NAME :]
        return Row("now", _work(status, name) + last, "good", status.share or 0.0)
    if status.paused:
        return Row("now", "paused until `picowatch resume`", "bad")
    return Row("now", "nothing is running", "quiet")


def _work(status: Status, name: str = "") -> str:
    parts = [status.progress(name)]
    if status.step:
        phase = "step" if status.phase in ("", "draw") else status.phase
        parts.append(f"{phase} {status.step}/{status.steps}")
    if status.steps_per_second:
        parts.append(f"{status.steps_per_second:.1f} it/s")
    return ", ".join(parts)


def _queued(status: Status) -> str:
    text = images(status.images["queued"])
    if status.all_seconds_left is not None and not status.paused:
        about = "about " * status.all_about
        text += f", all done in {about}{duration(status.all_seconds_left)}"
    named = [f"{recipe} {count}" for recipe, count in status.waiting[:MOST]]
    more = status.waiting_recipes - len(named)
    if named:
        text += f": {', '.join(named)}" + (f" and {more} more" if more > 0 else "")
    return text


def _memory(engine: EngineStatus) -> str:
    now, peak = engine.memory_bytes, engine.memory_peak_bytes
    if now is None or peak is None:
        return ""
    return f"{now / 1e9:.1f} GB of memory, {peak / 1e9:.1f} GB at most"


def _engines(status: Status) -> list[Row]:
    """Return a row for each engine, or only for the first of many.

    Such as "2: lab-3, cuda:0 (NVIDIA H200), dreamshaper, 112 images".
    """
    found: list[Row] = []
    for engine in status.engines[:ENGINES]:
        parts = [engine.node, "" if engine.device == "auto" else engine.device, engine.checkpoint]
        parts.append(images(engine.images))
        if engine.batch:
            parts.append(f"{engine.steps_per_second:.1f} it/s")
        if engine.batch > 1:
            parts.append(f"{engine.batch} at once")
        parts.append(engine.trouble or _memory(engine))
        text = f"{engine.number}: " + ", ".join(filter(None, parts))
        found.append(Row(" " if found else "engines", text, "bad" if engine.trouble else "quiet"))
    if (more := len(status.engines) - ENGINES) > 0:
        found.append(Row(" ", f"… and {more} more", "quiet"))
    return found
