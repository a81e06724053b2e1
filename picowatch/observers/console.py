"""What `run` shows: log lines, and on a terminal a live view below them."""

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol, TextIO, cast

from picowatch.observers.view import BAR, LABEL, Row, bar, fitted, progress_text, rows
from picowatch.outbox.log import PlainHandler
from picowatch.outbox.status import Status
from picowatch.streams import BackgroundStream, discard, finish

if TYPE_CHECKING:
    from rich.text import Text

Verbosity = Literal["quiet", "normal", "verbose"]

# Terminals that cannot move the cursor.
DUMB = {"", "dumb", "unknown"}
# Colours that light, dark and Solarized themes show alike. In Solarized's palette the bright ones
# are greys, "bright black" is the background; hardly anybody can read yellow on white.
STYLES = {"": "", "good": "green", "bad": "red", "quiet": "dim"}
LEVEL_STYLES = {logging.WARNING: "magenta", logging.ERROR: "red"}
USUAL = 80  # columns of a terminal
WIDE = 60  # with fewer columns there is no room for a bar


class Console(Protocol):
    """Shows the log and the status."""

    @property
    def handler(self) -> logging.Handler:
        """Where log lines go."""
        ...

    def show(self, status: Status) -> None:
        """The current status, a few times a second."""
        ...

    def close(self) -> None: ...


def open_console(
    verbosity: Verbosity = "normal", log_format: str = "text", stream: TextIO | None = None
) -> Console:
    """A live view on a terminal; plain lines elsewhere, with JSON, and with quiet."""
    stream = stream or sys.stdout
    if hasattr(stream, "reconfigure"):  # a name that the terminal cannot encode is no error
        stream.reconfigure(errors="backslashreplace")
    if can_draw(stream) and log_format == "text" and verbosity != "quiet":
        return LiveConsole(stream, pictures_too=verbosity == "verbose")
    return PlainConsole(stream, quiet=verbosity == "quiet")


def can_draw(stream: TextIO) -> bool:
    """Whether it is a terminal on which the cursor can be moved."""
    return stream.isatty() and os.environ.get("TERM", "") not in DUMB


class PlainConsole:
    """Log lines, and sometimes a line of progress while a batch takes long.

    `quiet`: only warnings and errors.
    """

    SECONDS_BETWEEN = 10.0

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stdout
        self._terminal = BackgroundStream(self._stream) if self._stream.isatty() else None
        self.handler = PlainHandler(cast(TextIO, self._terminal or self._stream))
        if quiet:
            self.handler.setLevel(logging.WARNING)
        self._shown_at = 0.0
        self._work = ("", 0)

    def show(self, status: Status) -> None:
        work = (status.recipe, status.image)
        if work != self._work:
            self._work, self._shown_at = work, status.updated
        elif status.recipe and status.updated - self._shown_at >= self.SECONDS_BETWEEN:
            self._shown_at = status.updated
            logging.getLogger("picowatch.progress").info("%s", progress_text(status))

    def close(self) -> None:
        """What could not be written until now is in picowatch.log."""
        if self._terminal:
            self._terminal.finish()
        else:
            finish(self._stream)


class LiveView:
    """Lines at the end of a terminal that are redrawn; others may be printed above them.

    `is_gone`: the terminal was closed, so that nobody sees it any more.
    """

    def __init__(self, stream: TextIO) -> None:
        # rich costs a tenth of a second to import; pipes and services do without it.
        from rich.console import Console as RichConsole
        from rich.live import Live

        self._console = RichConsole(file=stream, highlight=False, soft_wrap=True)
        self.is_gone = False
        self._stream = stream
        self._lock = threading.RLock()
        self._lines: list[Text] = []
        self._width = self._console.width
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def draw(self, shown: Sequence[Row], progress: tuple[int, int] | None = None) -> None:
        """Show these rows, with a progress bar if given; does nothing if they are shown already."""
        from rich.console import Group

        lines = [self._line(row, progress if row.label == "now" else None) for row in shown]
        with self._drawing():
            if lines == self._lines and self._console.width == self._width:
                return
            self._fix_after_resize()
            self._lines = lines
            self._live.update(Group(*lines), refresh=True)

    def print_above(self, text: str, style: str) -> None:
        """Print a line that stays."""
        with self._drawing():
            self._fix_after_resize()
            self._console.print(text, style=style, markup=False)

    @property
    def columns(self) -> int:
        """Of the terminal, now."""
        return self._console.width

    def close(self) -> None:
        """Remove the rows."""
        with self._drawing():
            self._fix_after_resize()
            self._live.stop()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """One at a time; a terminal that is gone ends nothing."""
        with self._lock:
            try:
                yield
            except OSError:
                self.is_gone = True
                discard(self._stream)

    def _line(self, row: Row, progress: tuple[int, int] | None) -> "Text":
        from rich.text import Text

        line = Text(no_wrap=True, overflow="ellipsis")
        width = self._console.width
        # The images and the time left matter more than a bar.
        first = ", ".join(row.text.split(", ")[:2])
        if progress is None or width < WIDE or len(first) > width - BAR - 1:
            label = f"{row.label:{LABEL}}" if row.label else ""
            line.append(label, "bold")
            line.append(fitted(row.text, width - len(label)), STYLES[row.style])
        else:
            mark = "━" if self._console.encoding.startswith("utf") else "="
            line.append(mark * progress[0], "green")
            line.append(mark * progress[1], "bright_black")
            line.append(f" {fitted(row.text, width - BAR - 1)}")
        return line

    def _fix_after_resize(self) -> None:
        """A narrowed terminal has wrapped the lines; rich counts one row for each.

        The cursor is at the end of the last line: from there, the rows added by wrapping are
        removed. Rich removes the others itself.
        """
        from rich.control import Control
        from rich.segment import ControlType

        before, self._width = self._width, self._console.width
        shown = (min(line.cell_len, before) for line in self._lines)
        wrapped = sum(max(0, -(-cells // self._width) - 1) for cells in shown)
        if wrapped and self._width < before:
            up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
            self._console.control(Control(ControlType.CARRIAGE_RETURN, *(up * wrapped)))


class LiveConsole:
    """A view of the status below the log lines; it shows new pictures itself."""

    def __init__(self, stream: TextIO | None = None, *, pictures_too: bool = False) -> None:
        self._terminal = BackgroundStream(stream or sys.stdout)
        self._view = LiveView(cast(TextIO, self._terminal))
        self.handler = _AboveView(self._view)
        if not pictures_too:
            self.handler.addFilter(lambda record: record.name != "picowatch.pictures")

    def show(self, status: Status) -> None:
        self._view.draw(rows(status), bar(status) if status.recipe else None)

    def close(self) -> None:
        self._view.close()
        self._terminal.finish()


class _AboveView(logging.Handler):
    def __init__(self, view: LiveView) -> None:
        super().__init__()
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        style = LEVEL_STYLES.get(record.levelno, "")
        line = self.format(record)
        # On a narrow terminal the date takes a fifth of a line; the log file has it.
        shown = line if self._view.columns >= USUAL else line.partition(" ")[2]
        self._view.print_above(shown, style)
